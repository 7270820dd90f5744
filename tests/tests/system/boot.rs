//! An image that nobody touched starts, wherever it is, and what it starts as is what it should:
//! read-only, verified, tidy.

use std::fs::File;
use std::path::Path;

use adamant_contract::gpt::{PartitionTable, disk};
use adamant_tests::alter;
use adamant_tests::image::{self, Tiny};
use adamant_tests::machine::Setup;
use adamant_tests::scratch::Scratch;
use adamant_tests::tool;

/// Starts a fresh copy of the image to its end and gives the console.
fn boot(tiny: &Tiny, name: &str, change: impl FnOnce(Setup, &std::path::Path) -> Setup) -> String {
    let image = tiny.build();
    let scratch = Scratch::new(name);
    let disk = scratch.join("disk.raw");
    alter::copy(&image.path("raw"), &disk);
    let mut machine = change(Setup::of(&image), &disk).start(&scratch);
    machine.wait_for("tiny: done");
    machine.wait_for_end()
}

/// A machine as servers are: several processors, and the kernel as the image has it.
fn as_servers_are(setup: Setup) -> Setup {
    setup.processors(2).compressed_kernel()
}

fn line<'a>(console: &'a str, start: &str) -> &'a str {
    console
        .lines()
        .map(str::trim_end)
        .find(|line| line.starts_with(start))
        .unwrap_or_else(|| panic!("no line {start:?} in\n{console}"))
}

#[test]
fn pid_1_stands_on_a_verified_read_only_root_with_its_volumes() {
    let image = Tiny::usual().build();
    let console = boot(&Tiny::usual(), "boot", |setup, disk| {
        as_servers_are(setup.disk(disk))
    });
    assert_eq!(line(&console, "tiny: image "), "tiny: image tiny 1");
    assert_eq!(
        line(&console, "tiny: root hash "),
        format!("tiny: root hash {}", image.root_hash())
    );
    assert_eq!(line(&console, "tiny: mapping "), "tiny: mapping root");
    assert!(
        console.contains("tiny: the root refuses writes: Read-only file system"),
        "{console}"
    );
    assert!(
        console.contains("tiny: the mapping refuses writes"),
        "{console}"
    );
    let mounts: Vec<&str> = console
        .lines()
        .filter_map(|line| line.strip_prefix("tiny: mount "))
        .collect();
    let mount = |at: &str| {
        let found: Vec<&&str> = mounts
            .iter()
            .filter(|line| line.split(' ').nth(4) == Some(at))
            .collect();
        assert_eq!(found.len(), 1, "{at} in {mounts:#?}");
        *found[0]
    };
    assert!(
        mount("/").contains(" ro") && mount("/").contains(" - erofs "),
        "{}",
        mount("/")
    );
    for volume in ["/var", "/var/log"] {
        let options = mount(volume).split(' ').nth(5).unwrap_or_default();
        for option in ["rw", "nosuid", "nodev", "noexec"] {
            assert!(
                options.split(',').any(|o| o == option),
                "{volume}: {options}"
            );
        }
        assert!(mount(volume).contains(" - ext4 "), "{}", mount(volume));
    }
    for (at, kind) in [
        ("/proc", "proc"),
        ("/sys", "sysfs"),
        ("/dev", "devtmpfs"),
        ("/run", "tmpfs"),
    ] {
        assert!(mount(at).contains(&format!(" - {kind} ")), "{}", mount(at));
    }
    assert!(
        !mounts.iter().any(|line| line.contains(" rootfs ")),
        "the initramfs is still mounted: {mounts:#?}"
    );
    let stages: Vec<&str> = console
        .lines()
        .filter_map(|line| line.strip_prefix("tiny: stage "))
        .filter_map(|rest| rest.split(' ').next())
        .collect();
    assert_eq!(
        stages[..8],
        [
            "early",
            "locate",
            "signature",
            "verify",
            "root",
            "credentials",
            "volumes",
            "identity"
        ],
        "{console}"
    );
    assert_eq!(line(&console, "tiny: counter "), "tiny: counter 1");
    let id = line(&console, "tiny: machine-id ").trim_start_matches("tiny: machine-id ");
    assert!(
        id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()),
        "{id:?}"
    );
}

#[test]
fn agent_and_initramfs_stay_small() {
    let length = |path: &Path| {
        std::fs::metadata(path)
            .map(|meta| meta.len())
            .unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    };
    let (agent, initrd) = (
        length(&image::programs().agent),
        length(&Tiny::usual().build().path("initrd")),
    );
    println!("agent {agent} bytes, initramfs for Debian's cloud kernel {initrd} bytes");
    // 1.75 MiB and 4 MB.
    assert!(agent <= 1_835_008, "{agent}");
    assert!(initrd <= 4_000_000, "{initrd}");
}

#[test]
fn debian_12s_kernel_starts_it_too() {
    let tiny = Tiny {
        suite: "bookworm",
        ..Tiny::full()
    };
    let console = boot(&tiny, "bookworm", |setup, disk| {
        as_servers_are(setup.disk(disk).append("tiny.read-all"))
    });
    assert!(
        line(&console, "tiny: kernel ").starts_with("tiny: kernel 6.1."),
        "{console}"
    );
    assert!(
        line(&console, "tiny: read-all : ").contains(" files, "),
        "{console}"
    );
}

#[test]
fn every_kind_of_disk_is_found() {
    for (name, device) in [
        ("nvme", "nvme,serial=1,drive=d"),
        ("scsi", "virtio-scsi-pci,id=s -device scsi-hd,drive=d"),
        ("ahci", "ich9-ahci,id=a -device ide-hd,bus=a.0,drive=d"),
    ] {
        let console = boot(&Tiny::usual(), name, |setup, disk| {
            let drive = format!("if=none,id=d,format=raw,file={}", disk.display());
            let mut arguments = vec!["-drive", &drive, "-device"];
            arguments.extend(device.split(' '));
            setup.arguments(&arguments)
        });
        assert!(console.contains("tiny: counter 1"), "{name}: {console}");
        // By its name, and not because everything was tried in the end.
        assert!(
            !line(&console, "tiny: modules ").contains("vmw_pvscsi"),
            "{name}: {console}"
        );
    }
}

/// Only what the machine has is loaded; and where a device does not say what it is, everything,
/// later.
#[test]
fn a_disk_that_does_not_say_what_it_is_is_found_all_the_same() {
    let image = Tiny::usual().build();
    let loaded = |console: &str| -> Vec<String> {
        let modules = line(console, "tiny: modules ").trim_start_matches("tiny: modules ");
        modules.split(' ').map(str::to_owned).collect()
    };
    let console = boot(&Tiny::usual(), "its-own-modules", |setup, disk| {
        setup.disk(disk)
    });
    let few = loaded(&console);
    let has = |modules: &[String], name: &str| modules.iter().any(|module| module == name);
    assert!(
        has(&few, "virtio_blk") && has(&few, "dm_verity") && !has(&few, "vmw_pvscsi"),
        "{few:?}"
    );

    let scratch = Scratch::new("no-names");
    let (disk, initrd) = (scratch.join("disk.raw"), scratch.join("initrd"));
    alter::copy(&image.path("raw"), &disk);
    let mut bytes = tool::output(tool::command("zstd").arg("-dc").arg(image.path("initrd"))).stdout;
    // In the list, where a pattern stands behind the bar; the module's own is its own affair.
    let pattern = b"| virtio:d00000002v";
    let at = (0..bytes.len() - pattern.len())
        .find(|at| bytes[*at..].starts_with(pattern))
        .unwrap_or_else(|| panic!("no such pattern"));
    bytes[at + 2..at + 5].copy_from_slice(b"xyz");
    std::fs::write(&initrd, bytes).unwrap_or_else(|e| panic!("{e}"));
    let console = Setup::of(&image)
        .initrd(&initrd)
        .disk(&disk)
        .start(&scratch)
        .wait_for_end();
    let all = loaded(&console);
    assert!(has(&all, "virtio_blk") && all.len() > few.len(), "{all:?}");
    let locate = line(&console, "tiny: stage locate ")
        .split(' ')
        .nth(3)
        .and_then(|word| word.parse::<u64>().ok());
    assert!(locate.is_some_and(|took| took >= 3_000_000), "{console}");
}

/// The same image on a disk of another sector size: the partitions stand at the same bytes, and the
/// table counts in larger sectors.
fn with_large_sectors(from: &Path, to: &Path) {
    const SECTOR: u32 = 4096;
    let file = File::open(from).unwrap_or_else(|e| panic!("{}: {e}", from.display()));
    let length = file.metadata().map(|meta| meta.len()).unwrap_or_default();
    let small = disk::read_table(&file, 512, length / 512)
        .unwrap_or_else(|e| panic!("{e}"))
        .table;
    alter::copy(from, to);
    // The table's second copy is longer in large sectors.
    alter::resize(to, length + (1 << 20));
    let mut partitions = small.partitions.clone();
    for partition in partitions.iter_mut().flatten() {
        let (first, end) = (partition.first * 512, (partition.last + 1) * 512);
        assert!(
            first % u64::from(SECTOR) == 0 && end % u64::from(SECTOR) == 0,
            "{partition:?}"
        );
        (partition.first, partition.last) =
            (first / u64::from(SECTOR), end / u64::from(SECTOR) - 1);
    }
    let large = PartitionTable {
        disk: small.disk,
        sector: SECTOR,
        sectors: (length + (1 << 20)) / u64::from(SECTOR),
        partitions,
    };
    let mut file = File::options()
        .read(true)
        .write(true)
        .open(to)
        .unwrap_or_else(|e| panic!("{}: {e}", to.display()));
    alter::zero(to, 512, 34 * 512);
    disk::write_table(&mut file, &large).unwrap_or_else(|e| panic!("{}: {e}", to.display()));
}

#[test]
fn a_disk_of_large_sectors_starts_and_keeps_what_it_holds() {
    let image = Tiny::usual().build();
    let scratch = Scratch::new("large-sectors");
    let disk = scratch.join("disk.raw");
    with_large_sectors(&image.path("raw"), &disk);
    for (kind, counter) in [
        ("virtio-blk-pci,drive=d", 1),
        ("virtio-scsi-pci,id=s -device scsi-hd,drive=d", 2),
        ("nvme,serial=1,drive=d", 3),
    ] {
        let drive = format!("if=none,id=d,format=raw,file={}", disk.display());
        let device = format!("{kind},logical_block_size=4096,physical_block_size=4096");
        let mut arguments = vec!["-drive", &drive, "-device"];
        arguments.extend(device.split(' '));
        // Some room to grow into, each time.
        alter::resize(
            &disk,
            std::fs::metadata(&disk)
                .map(|meta| meta.len())
                .unwrap_or_default()
                + (8 << 20),
        );
        let console = Setup::of(&image)
            .arguments(&arguments)
            .start(&scratch)
            .wait_for_end();
        assert_eq!(
            line(&console, "tiny: counter "),
            format!("tiny: counter {counter}"),
            "{kind}: {console}"
        );
        assert!(
            !line(&console, "tiny: volume state ").contains("grown by 0"),
            "{console}"
        );
        assert!(
            console.contains("tiny: done") && !console.contains("tiny: warning"),
            "{console}"
        );
    }
}

#[test]
fn a_disk_written_for_other_sectors_is_told_to_be_one() {
    let image = Tiny::usual().with("[disk]\nsector = 4096\n").build();
    let scratch = Scratch::new("other-sectors");
    let disk = scratch.join("disk.raw");
    alter::copy(&image.path("raw"), &disk);
    let mut machine = Setup::of(&image)
        .disk(&disk)
        .append("adamant.device_timeout=2")
        .start(&scratch);
    let why = "it has one for sectors of 4096 bytes, this disk's have 512";
    machine.wait_for_refusal("locate", &[why]);
    let console = machine.cut_power_of_refused();
    assert!(!console.contains("tiny: "), "{console}");
}

#[test]
fn a_hypervisors_wish_is_the_machine_id_however_it_is_said() {
    const ID: &str = "0123456789abcdef0123456789abcdef";
    // base64 of the same.
    let binary = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
    for (name, arguments) in [
        (
            "text",
            [
                "-smbios",
                &format!("type=11,value=io.systemd.credential:system.machine_id={ID}"),
            ],
        ),
        (
            "binary",
            [
                "-smbios",
                &format!("type=11,value=io.systemd.credential.binary:system.machine_id={binary}"),
            ],
        ),
        (
            "fw_cfg",
            [
                "-fw_cfg",
                &format!("name=opt/io.systemd.credentials/system.machine_id,string={ID}"),
            ],
        ),
    ] {
        let console = boot(&Tiny::usual(), name, |setup, disk| {
            setup.disk(disk).arguments(&arguments)
        });
        assert_eq!(
            line(&console, "tiny: machine-id "),
            format!("tiny: machine-id {ID}"),
            "{name}"
        );
        assert_eq!(
            line(&console, "tiny: identity "),
            "tiny: identity hypervisor",
            "{name}"
        );
    }
}

#[test]
fn every_block_is_read_before_init_when_the_policy_says_full() {
    let console = boot(&Tiny::full(), "full", |setup, disk| {
        as_servers_are(setup.disk(disk).append("tiny.read-all"))
    });
    let root = console
        .lines()
        .find(|l| l.starts_with("tiny: root ") && l.contains(" blocks, "))
        .unwrap_or_else(|| panic!("{console}"));
    let words: Vec<&str> = root.split(' ').collect();
    assert_eq!(words[2], words[4], "blocks and blocks checked: {root}");
    assert!(
        line(&console, "tiny: read-all : ").contains(" files, "),
        "{console}"
    );
}

#[test]
fn a_watchdog_is_handed_to_init_alive_and_bites_when_init_hangs() {
    // From level lockdown on, not even PID 1 can disarm it.
    let image = Tiny::usual()
        .with("[seal]\nlevel = \"guard\"\nenforce = \"require\"\n")
        .build();
    let scratch = Scratch::new("watchdog");
    let disk = scratch.join("disk.raw");
    alter::copy(&image.path("raw"), &disk);
    let watchdog = [
        "-device",
        "i6300esb",
        "-action",
        "watchdog=reset,reboot=reset",
    ];
    let mut machine = Setup::of(&image)
        .disk(&disk)
        .arguments(&watchdog)
        .append("tiny.watchdog")
        .start(&scratch);
    let line = machine.wait_for("tiny: watchdog ");
    assert!(line.contains("/dev/watchdog"), "{line}");
    machine.wait_for("tiny: disarming the watchdog by ioctl gives -1");
    machine.wait_for("tiny: the watchdog is not fed any more");
    // The next boot knows.
    machine.wait_for("adamant: the last boot, of tiny_1, failed: it hung, and the hardware watchdog restarted the machine");
    assert!(
        !machine.console().contains("did not bite"),
        "{}",
        machine.console()
    );
}

/// The image waits for its root, says that it is not there, and restarts, as its policy says;
/// nobody would end that.
#[test]
fn an_image_that_fails_and_restarts_for_ever_is_ended_by_adamant_boot() {
    let image = Tiny::usual().build();
    let scratch = Scratch::new("reboots");
    let out = scratch.join("out");
    std::fs::create_dir(&out).unwrap();
    for kind in ["vmlinuz", "initrd", "raw", "manifest.json"] {
        alter::copy(
            &image.path(kind),
            &out.join(image.path(kind).file_name().unwrap()),
        );
    }
    // Without a root hash the agent has nothing to look for and says so at once.
    std::fs::write(
        out.join(image.path("cmdline").file_name().unwrap()),
        "console=ttyS0 panic=1\n",
    )
    .unwrap();
    let console = scratch.join("console");
    let output = image::builder()
        .arg("boot")
        .arg(&out)
        .args([
            "--reboots",
            "1",
            "--accel",
            "tcg",
            "--timeout",
            "200s",
            "--console",
        ])
        .arg(&console)
        .output();
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(
        said.contains("the machine restarts, by itself (1 of 1)")
            && said.contains("the machine restarted itself 2 times in a row and was ended"),
        "{said}"
    );
    let console = std::fs::read_to_string(&console).unwrap();
    // Of two kernels one may crash before the agent is reached: emulation of two processors is not
    // perfect.
    assert!(
        console.matches("Linux version").count() >= 2
            && console.contains("adamant: locate: roothash="),
        "{console}"
    );
}
