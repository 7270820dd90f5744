//! With `module_loading = "image"`, hardware that is plugged into a sealed server gets its driver from the image, by systemd-udevd, and nobody else loads one.

use std::fs::File;

use adamant_tests::scratch::Scratch;
use adamant_tests::server::{Server, reference};

const MODULE: &str = "nvme";

#[test]
#[ignore = "long: one more boot of Debian"]
fn a_disk_on_a_new_controller_is_driven_by_a_module_that_was_not_loaded() {
    let image = reference("debian");
    let scratch = Scratch::new("hotplug");
    let other = scratch.join("other.raw");
    File::create(&other).and_then(|file| file.set_len(16 << 20)).unwrap();
    let bay = format!("if=none,id=other,format=raw,file={}", other.display());
    // A place for the controller, and the disk on it.
    let change = |setup: adamant_tests::machine::Setup| setup.arguments(&["-device", "pcie-root-port,id=bay,chassis=1", "-drive", &bay]);
    let Some(mut server) = Server::fresh(&image, &scratch, change) else { return };
    assert_eq!(server.ask("systemctl is-system-running --wait").trim(), "running");
    let said = server.ask("adamant-agent status; cat /proc/sys/kernel/modules_disabled; adamant-agent drift");
    assert!(said.contains("modules: those of the image, on request of the kernel and systemd-udevd\n"), "{said}");
    assert!(said.contains("denials    none since the boot\n") && said.contains("\n0\nno drift\ndenials: none\n"), "{said}");

    server.ask(&format!("! grep -q '^{MODULE} ' /proc/modules && test -e /usr/lib/modules/$(uname -r)/kernel/drivers/nvme/host"));
    let (said, code) = server.try_to(&format!("modprobe {MODULE}"));
    assert!(code != 0 && said.contains("Operation not permitted"), "{code}: {said}");
    server.machine.monitor("device_add nvme,serial=late,drive=other,bus=bay,id=late");
    let driver = "n=0; until [ -e /sys/class/block/nvme0n1 ]; do n=$((n + 1)); [ $n -lt 120 ] || exit 1; sleep 1; done; basename $(readlink /sys/class/nvme/nvme0/device/driver)";
    assert_eq!(server.ask(driver).trim(), MODULE);
    assert!(server.ask("grep '^nvme ' /proc/modules").contains("Live"));
    // What was refused is told, and nothing else was.
    let said = server.ask("adamant-agent status");
    assert!(said.contains("denials    kernel_read_file "), "{said}");
    server.power_off();
}
