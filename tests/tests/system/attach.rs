//! The same disk starts wherever it is put: on every bus, with small sectors and large ones, and it
//! grows into the disk that it finds itself on, each time it is larger, without losing what was
//! written.

use std::fs;
use std::path::Path;
use std::time::Duration;

use adamant_tests::image::{Image, METAL, Tiny};
use adamant_tests::machine::Setup;
use adamant_tests::scratch::Scratch;
use adamant_tests::{alter, esp, tool};

/// Firmware, boot loader and stub come before the kernel, all emulated.
const DEADLINE: Duration = Duration::from_secs(420);

/// How a disk is attached: a name, QEMU's devices with `DRIVE` where the disk's own words go, and
/// what is said of its sectors.
struct Bus {
    name: &'static str,
    devices: &'static [&'static str],
    sector: u32,
    suite: &'static str,
    /// Whether firmware starts it, or QEMU itself.
    firmware: bool,
}

const CLOUD: &str = "trixie";
const ANY: &str = "trixie-metal";

const BUSES: [Bus; 9] = [
    Bus {
        name: "virtio-blk",
        devices: &["virtio-blk-pci,DRIVE"],
        sector: 512,
        suite: CLOUD,
        firmware: true,
    },
    Bus {
        name: "virtio-blk",
        devices: &["virtio-blk-pci,DRIVE"],
        sector: 4096,
        suite: CLOUD,
        firmware: true,
    },
    Bus {
        name: "virtio-scsi",
        devices: &["virtio-scsi-pci,id=bus", "scsi-hd,bus=bus.0,DRIVE"],
        sector: 512,
        suite: CLOUD,
        firmware: true,
    },
    Bus {
        name: "virtio-scsi",
        devices: &["virtio-scsi-pci,id=bus", "scsi-hd,bus=bus.0,DRIVE"],
        sector: 4096,
        suite: CLOUD,
        firmware: true,
    },
    Bus {
        name: "nvme",
        devices: &["nvme,serial=1,DRIVE"],
        sector: 512,
        suite: CLOUD,
        firmware: true,
    },
    Bus {
        name: "nvme",
        devices: &["nvme,serial=1,DRIVE"],
        sector: 4096,
        suite: CLOUD,
        firmware: true,
    },
    // QEMU's drives on this bus have small sectors only.
    Bus {
        name: "ahci",
        devices: &["ide-hd,bus=ide.0,DRIVE"],
        sector: 512,
        suite: CLOUD,
        firmware: true,
    },
    // The cloud kernel has no USB. QEMU's usb-storage knows small sectors only, its bridge to SCSI
    // both.
    Bus {
        name: "usb",
        devices: &["qemu-xhci,id=bus", "usb-storage,bus=bus.0,DRIVE"],
        sector: 512,
        suite: ANY,
        firmware: true,
    },
    Bus {
        name: "usb",
        devices: &[
            "qemu-xhci,id=bus",
            "usb-bot,id=stick,bus=bus.0",
            "scsi-hd,bus=stick.0,DRIVE",
        ],
        sector: 4096,
        suite: ANY,
        firmware: true,
    },
];

fn installed() -> bool {
    let there = Path::new("/usr/share/OVMF/OVMF_CODE_4M.fd").exists();
    if !there {
        tool::skipped(tool::Need::Program("OVMF_CODE_4M.fd (ovmf)"));
    }
    there
}

fn size(disk: &Path) -> u64 {
    fs::metadata(disk)
        .map(|meta| meta.len())
        .unwrap_or_default()
}

/// A line's number before ` bytes`.
fn bytes(console: &str, volume: &str) -> u64 {
    let start = format!("tiny: volume {volume} ");
    let line = console
        .lines()
        .find(|line| line.starts_with(&start))
        .unwrap_or_else(|| panic!("no line {start:?} in\n{console}"));
    let words: Vec<&str> = line.split_whitespace().collect();
    let at = words
        .iter()
        .position(|word| word.starts_with("bytes"))
        .unwrap_or_else(|| panic!("{line}"));
    words[at - 1].parse().unwrap_or_else(|_| panic!("{line}"))
}

/// Three starts by firmware: on a disk that is larger than the image, on one that grew, and on the
/// same again.
fn starts_and_grows(bus: &Bus) {
    let mut tiny = esp::signed();
    tiny.suite = bus.suite;
    if bus.sector == 4096 {
        // FAT32 of large sectors needs more room.
        tiny.more = tiny
            .more
            .replacen("esp = \"64M\"", "esp = \"264M\"\nsector = 4096", 1);
    }
    let weights = [("state", 3), ("logs", 1)];
    for (name, weight) in weights {
        tiny.more = tiny.more.replacen(
            &format!("name = \"{name}\"\n"),
            &format!("name = \"{name}\"\nweight = {weight}\n"),
            1,
        );
    }
    let image = tiny.build();
    let scratch = Scratch::new("attach");
    let disk = esp::copy(&image, &scratch);
    // As the image has them.
    let mut before = [24 << 20, 16 << 20];
    for (start, more) in [(1, 512u64 << 20), (2, 1 << 30), (3, 0)] {
        let what = format!("{} with sectors of {}, start {start}", bus.name, bus.sector);
        alter::resize(&disk, size(&disk) + more);
        let order = if bus.firmware { "bootindex=0," } else { "" };
        let own = format!(
            "drive=disk,{order}logical_block_size={0},physical_block_size={0}",
            bus.sector
        );
        let drive = format!(
            "if=none,id=disk,format=raw,cache=writeback,discard=unmap,file={}",
            disk.display()
        );
        let mut arguments = vec!["-drive".to_owned(), drive];
        for device in bus.devices {
            arguments.extend(["-device".to_owned(), device.replace("DRIVE", &own)]);
        }
        let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let setup = Setup::of(&image)
            .processors(2)
            .arguments(&words)
            .deadline(DEADLINE);
        let setup = match bus.name {
            "ahci" => setup.sata(),
            _ => setup,
        };
        let mut machine = if bus.firmware {
            setup.firmware(None)
        } else {
            setup
        }
        .start(&scratch);
        machine.wait_for("tiny: done");
        let console = machine.wait_for_end();
        assert!(
            console.contains(&format!("tiny: counter {start}")),
            "{what}: what was written is gone: {console}"
        );
        assert!(!console.contains("tiny: warning"), "{what}: {console}");
        // Its driver came by its name, and not because everything was tried in the end. What hangs
        // on USB may take longer to say its name.
        let everything = console
            .lines()
            .any(|line| line.starts_with("tiny: modules ") && line.contains("vmw_pvscsi"));
        assert!(!everything || bus.name == "usb", "{what}: {console}");
        let after = weights.map(|(name, _)| bytes(&console, name));
        let modules = if everything { "all" } else { "its own" };
        println!(
            "{what}: state {} MiB, logs {} MiB; {modules} modules",
            after[0] >> 20,
            after[1] >> 20
        );
        let grown = [after[0] - before[0], after[1] - before[1]];
        // The last MiB is the table's.
        let all = grown[0] + grown[1];
        assert!(
            all <= more && all + (4 << 20) >= more,
            "{what}: {more} bytes more, {all} taken: {console}"
        );
        match start {
            1 => assert!(
                grown[0].abs_diff(grown[1] * 3) <= 8 << 20,
                "{what}: {grown:?} is not 3 to 1"
            ),
            // Volumes that hold something are not moved: the last one takes it all, and that is the
            // one that wants most.
            _ => assert_eq!(grown[1], 0, "{what}"),
        }
        before = after;
    }
    if bus.sector == 512 {
        assert!(
            tool::run(tool::command("sfdisk").arg("--verify").arg(&disk))
                .contains("No errors detected")
        );
    }
}

#[test]
fn an_nvme_disk_of_large_sectors_starts_grows_by_weight_twice_and_loses_nothing() {
    if !installed() {
        return;
    }
    starts_and_grows(&BUSES[5]);
}

#[test]
#[ignore = "long: three starts by firmware on each of nine buses"]
fn the_same_disk_starts_and_grows_on_every_bus() {
    assert!(ANY.ends_with(METAL));
    if !installed() {
        return;
    }
    // One of them alone, while it is being worked on.
    let only = std::env::var("ADAMANT_BUS").unwrap_or_default();
    for bus in BUSES
        .iter()
        .filter(|bus| only.is_empty() || format!("{}-{}", bus.name, bus.sector) == only)
    {
        starts_and_grows(bus);
    }
}

const DISK: &str = "node-name=disk,driver=raw";

/// The tiny image with a counter of 1 on its disk, in a file that QEMU's `-blockdev` names.
fn started_once(scratch: &Scratch) -> (Image, std::path::PathBuf) {
    let image = Tiny::usual().build();
    let disk = scratch.join("disk.raw");
    alter::copy(&image.path("raw"), &disk);
    let console = Setup::of(&image).disk(&disk).start(scratch).wait_for_end();
    assert!(console.contains("tiny: counter 1"), "{console}");
    (image, disk)
}

#[test]
fn a_lun_behind_two_controllers_starts_by_one_path_and_the_other_is_read_only() {
    let scratch = Scratch::new("two-paths");
    let (image, disk) = started_once(&scratch);
    let mut arguments = Vec::new();
    for path in ["a", "b"] {
        arguments.extend([
            "-device".to_owned(),
            format!("virtio-scsi-pci,id=bus-{path}"),
        ]);
        arguments.extend([
            "-blockdev".to_owned(),
            format!(
                "driver=file,node-name=file-{path},filename={},locking=off",
                disk.display()
            ),
        ]);
        arguments.extend([
            "-blockdev".to_owned(),
            format!("driver=raw,node-name={path},file=file-{path}"),
        ]);
        arguments.extend(["-device".to_owned(), format!("scsi-hd,bus=bus-{path}.0,drive={path},serial=lun7,wwn=0x5000c50015ea71aa,share-rw=on")]);
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let console = Setup::of(&image)
        .arguments(&arguments)
        .append("tiny.read=/sys/block/sdb/ro")
        .start(&scratch)
        .wait_for_end();
    assert!(console.contains("tiny: counter 2"), "{console}");
    assert!(console.contains("sda and sdb are two paths to one disk (WWN naa.5000c50015ea71aa): sda is used, sdb is read-only."), "{console}");
    // Two disks with the same bytes are still two: their names differ, or nobody gave them one that
    // counts.
    for names in [
        ["wwn=0x5000c50015ea71aa", "wwn=0x5000c50015ea71ab"],
        ["serial=one", "serial=one"],
    ] {
        let copy = scratch.join("copy.raw");
        alter::copy(&disk, &copy);
        let mut arguments = vec!["-device".to_owned(), "virtio-scsi-pci,id=bus".to_owned()];
        for (n, (file, name)) in [&disk, &copy].into_iter().zip(names).enumerate() {
            arguments.extend([
                "-drive".to_owned(),
                format!("if=none,id=disk{n},format=raw,file={}", file.display()),
            ]);
            arguments.extend([
                "-device".to_owned(),
                format!("scsi-hd,bus=bus.0,drive=disk{n},{name}"),
            ]);
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let console = Setup::of(&image)
            .arguments(&arguments)
            .start(&scratch)
            .wait_for_end();
        assert!(
            !console.contains("tiny: ") && console.contains("found 2 times"),
            "{console}"
        );
        let seems_one = console.contains("sda and sdb are probably two paths to one disk (");
        assert_eq!(
            (seems_one, console.contains("detach all but")),
            if names[0] == names[1] {
                (true, false)
            } else {
                (false, true)
            },
            "{console}"
        );
    }
}

#[test]
fn a_disk_behind_a_controller_without_a_driver_is_told_by_the_controller() {
    let scratch = Scratch::new("no-driver");
    let (image, disk) = started_once(&scratch);
    let drive = format!("{DISK},file.driver=file,file.filename={}", disk.display());
    for (devices, address, driver) in [
        (
            &["lsi53c895a,id=bus", "scsi-hd,bus=bus.0,drive=disk"][..],
            "pci:v00001000d00000012sv",
            "sym53c8xx",
        ),
        (
            &["am53c974,id=bus", "scsi-hd,bus=bus.0,drive=disk"],
            "pci:v00001022d00002020sv",
            "am53c974",
        ),
    ] {
        let mut arguments = vec!["-blockdev", drive.as_str()];
        arguments.extend(devices.iter().flat_map(|device| ["-device", device]));
        let mut machine = Setup::of(&image)
            .arguments(&arguments)
            .append("adamant.device_timeout=8")
            .start(&scratch);
        let line = machine.wait_for_refusal("locate", &[]);
        assert!(
            line.contains("storage controller 0000:")
                && line.contains("has no driver in this image")
                && line.contains(address),
            "{line}"
        );
        assert!(
            line.contains("[kernel] modules")
                && line.contains(driver)
                && !line.contains("attach the disk"),
            "{line}"
        );
    }
}
