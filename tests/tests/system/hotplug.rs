//! With `module_loading = "image"`, a device that is plugged into a sealed server gets its driver
//! from the image: systemd-udevd loads the module, and root cannot.

use std::fs;

use adamant_tests::machine::Setup;
use adamant_tests::scratch::Scratch;
use adamant_tests::server::{Server, reference};

/// The driver of the controller. In Debian's cloud kernel it is a module, and no other device of
/// the machine needs it.
const MODULE: &str = "virtio_scsi";
/// The first bytes of the disk, and its length.
const CONTENT: &str = "a disk that was plugged in later";
const LENGTH: usize = 16 << 20;

#[test]
#[ignore = "long: one more boot of Debian"]
fn a_hot_plugged_controller_and_its_disk_work_with_a_module_that_root_cannot_load() {
    let image = reference("debian");
    let scratch = Scratch::new("hotplug");
    let other = scratch.join("other.raw");
    let mut bytes = CONTENT.as_bytes().to_vec();
    bytes.resize(LENGTH, 0);
    fs::write(&other, bytes).unwrap();
    let drive = format!("if=none,id=other,format=raw,file={}", other.display());
    // A free PCI Express port for the controller, and a drive that no device uses yet.
    let change = |setup: Setup| {
        setup.arguments(&[
            "-device",
            "pcie-root-port,id=bay,chassis=1",
            "-drive",
            &drive,
        ])
    };
    let Some(mut server) = Server::fresh(&image, &scratch, change) else {
        return;
    };
    assert_eq!(
        server.ask("systemctl is-system-running --wait").trim(),
        "running"
    );
    let said = server
        .ask("adamant-agent status; cat /proc/sys/kernel/modules_disabled; adamant-agent drift");
    assert!(
        said.contains("modules: only the image's, on request of the kernel and systemd-udevd\n"),
        "{said}"
    );
    assert!(
        said.contains("denials    none since the boot\n")
            && said.contains("\n0\nno drift\ndenials: none\n"),
        "{said}"
    );

    // The module is neither loaded nor built in, and root cannot load it.
    let file = server
        .ask(&format!(
            "! grep '^{MODULE} ' /proc/modules && modinfo -n {MODULE}"
        ))
        .trim()
        .to_owned();
    assert!(
        file.contains("/lib/modules/") && file.contains("/kernel/drivers/scsi/"),
        "{file}"
    );
    for command in [format!("modprobe {MODULE}"), format!("insmod {file}")] {
        let (said, code) = server.try_to(&command);
        assert!(
            code != 0 && said.contains("Operation not permitted"),
            "{command}: {code}: {said}"
        );
    }
    server.ask(&format!("! grep '^{MODULE} ' /proc/modules"));

    server
        .machine
        .monitor("device_add virtio-scsi-pci,id=late,bus=bay");
    assert_eq!(
        server.ask(&wait("/sys/bus/virtio/drivers/virtio_scsi/virtio*")),
        ""
    );
    server
        .machine
        .monitor("device_add scsi-hd,bus=late.0,drive=other");
    assert_eq!(server.ask(&wait("/sys/class/block/sda")), "");
    let line = server.ask(&format!("grep '^{MODULE} ' /proc/modules"));
    assert!(line.contains(" Live "), "{line}");
    let said = server.ask(&format!(
        "head -c {} /dev/sda; echo; cat /sys/class/block/sda/size",
        CONTENT.len()
    ));
    assert_eq!(said, format!("{CONTENT}\n{}\n", LENGTH / 512));

    // The guard counted the refusals of root's attempts, and it refused nothing else. The machine
    // stays sealed.
    let said = server.ask("adamant-agent status");
    let denials: Vec<&str> = said
        .lines()
        .filter(|line| line.starts_with("denials "))
        .collect();
    assert!(
        denials.len() == 1 && denials[0].starts_with("denials    kernel_read_file "),
        "{said}"
    );
    let (said, code) = server.try_to("modprobe dummy");
    assert!(
        code != 0 && said.contains("Operation not permitted"),
        "{code}: {said}"
    );
    server.power_off();
}

/// A command that waits for a path, at most two minutes; it prints nothing.
fn wait(path: &str) -> String {
    format!(
        "n=0; until ls -d {path} >/dev/null 2>&1; do n=$((n + 1)); [ $n -lt 120 ] || exit 1; sleep 1; done"
    )
}
