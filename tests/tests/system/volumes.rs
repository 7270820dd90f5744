//! What a server keeps, it keeps: over boots, full disks, grown disks and damaged volumes. What
//! can't be kept is said, and follows the policy.

use std::path::{Path, PathBuf};
use std::time::Duration;

use adamant_tests::alter;
use adamant_tests::image::{Image, Tiny};
use adamant_tests::machine::Setup;
use adamant_tests::scratch::Scratch;
use adamant_tests::tool;

/// A server: an image's disk that is kept from boot to boot.
struct Server {
    image: Image,
    scratch: Scratch,
    disk: PathBuf,
}

impl Server {
    fn new(name: &str, tiny: &Tiny) -> Server {
        let image = tiny.build();
        let scratch = Scratch::new(name);
        let disk = scratch.join("disk.raw");
        alter::copy(&image.path("raw"), &disk);
        Server {
            image,
            scratch,
            disk,
        }
    }

    /// One boot to its end; the console.
    fn boot(&self, words: &str) -> String {
        let console = Setup::of(&self.image)
            .disk(&self.disk)
            .append(words)
            .start(&self.scratch)
            .wait_for_end();
        assert!(console.contains("tiny: done"), "{console}");
        console
    }

    /// A boot that must fail; its line.
    fn refused(&self) -> String {
        let console = Setup::of(&self.image)
            .disk(&self.disk)
            .start(&self.scratch)
            .wait_for_end();
        assert!(!console.contains("tiny: "), "{console}");
        let line = console.lines().find_map(|line| {
            line.find("adamant: volumes: ")
                .map(|at| line[at..].trim_end().to_owned())
        });
        line.unwrap_or_else(|| panic!("no line of the volumes stage:\n{console}"))
    }

    /// The independent checker finds nothing wrong with a volume.
    fn is_sound(&self, name: &str) {
        let part = alter::partition(&self.disk, name);
        let copy = self.scratch.join(format!("{name}.ext4"));
        std::fs::write(
            &copy,
            alter::read(&self.disk, part.start, part.size as usize),
        )
        .unwrap_or_else(|e| panic!("{}: {e}", copy.display()));
        tool::run(tool::command("e2fsck").args(["-f", "-n"]).arg(&copy));
    }
}

fn value(console: &str, start: &str) -> String {
    let line = console
        .lines()
        .map(str::trim_end)
        .find_map(|line| line.strip_prefix(start));
    line.unwrap_or_else(|| panic!("no line {start:?} in\n{console}"))
        .trim()
        .to_owned()
}

fn grown_by(console: &str, volume: &str) -> u64 {
    let line = value(console, &format!("tiny: volume {volume} "));
    let (_, rest) = line
        .split_once("grown by ")
        .unwrap_or_else(|| panic!("{line}"));
    rest.split(',')
        .next()
        .and_then(|n| n.parse().ok())
        .unwrap_or_else(|| panic!("{line}"))
}

#[test]
fn a_second_boot_keeps_data_and_identity() {
    let server = Server::new("second-boot", &Tiny::usual());
    let first = server.boot("tiny.write=/var/log/kept");
    assert!(
        value(&first, "tiny: volume state ").starts_with("/var made "),
        "{first}"
    );
    assert_eq!(value(&first, "tiny: identity"), "made");
    let second = server.boot("tiny.read=/var/log/kept");
    assert_eq!(value(&second, "tiny: counter"), "2");
    assert_eq!(value(&second, "tiny: read /var/log/kept:"), "8 bytes");
    assert_eq!(value(&second, "tiny: identity"), "kept");
    assert_eq!(
        value(&first, "tiny: machine-id"),
        value(&second, "tiny: machine-id")
    );
    assert!(
        value(&second, "tiny: volume state ").starts_with("/var clean "),
        "{second}"
    );
    server.is_sound("state");
    server.is_sound("logs");
}

#[test]
fn two_servers_from_one_image_differ_in_their_identity() {
    let (one, other) = (
        Server::new("one", &Tiny::usual()),
        Server::new("other", &Tiny::usual()),
    );
    assert_ne!(
        value(&one.boot(""), "tiny: machine-id"),
        value(&other.boot(""), "tiny: machine-id")
    );
}

#[test]
fn one_server_keeps_its_identity_and_data_when_its_image_is_replaced() {
    let mut server = Server::new("replaced", &Tiny::usual());
    let first = server.boot("");
    let next = Tiny {
        version: "2".to_owned(),
        ..Tiny::usual()
    }
    .build();
    // As a new disk image is put on bare metal: a new root and tree, with the old volumes.
    let disk = server.scratch.join("next.raw");
    alter::copy(&next.path("raw"), &disk);
    for name in ["state", "logs"] {
        let (from, to) = (
            alter::partition(&server.disk, name),
            alter::partition(&disk, name),
        );
        alter::write(
            &disk,
            to.start,
            &alter::read(&server.disk, from.start, from.size.min(to.size) as usize),
        );
    }
    (server.image, server.disk) = (next, disk);
    let second = server.boot("");
    assert_eq!(value(&second, "tiny: image"), "tiny 2");
    assert_eq!(value(&second, "tiny: counter"), "2");
    assert_eq!(
        value(&first, "tiny: machine-id"),
        value(&second, "tiny: machine-id")
    );
}

/// An image that ships a page, a database's directory on a volume of its own, and a list of its
/// packages, each as long as its version says.
fn shipping(version: &str, length: usize) -> Tiny {
    let text = "x".repeat(length);
    let mut more = Tiny::usual().more.replacen(
        "[[volume]]\nname = \"logs\"",
        "[[volume]]\nname = \"db\"\nmount = \"/var/lib/db/main\"\nsize = \"16M\"\n[[volume]]\nname = \"logs\"",
        1,
    );
    for path in [
        "/var/www/index.html",
        "/var/lib/dpkg/status",
        "/var/lib/db/main/base/1",
        "/var/lib/app/config",
    ] {
        more += &format!("[[file]]\npath = {path:?}\ncontent = {text:?}\n");
    }
    Tiny {
        version: version.to_owned(),
        more,
        ..Tiny::usual()
    }
}

#[test]
fn what_an_image_ships_below_its_volumes_comes_with_its_update_unless_somebody_changed_it() {
    let mut server = Server::new("shipped", &shipping("1", 11));
    let first = server.boot("tiny.write=/var/lib/app/mine tiny.read=/var/lib/dpkg/status");
    assert_eq!(
        value(&first, "tiny: read /var/lib/dpkg/status:"),
        "11 bytes"
    );
    let next = shipping("2", 22).build();
    let disk = server.scratch.join("next.raw");
    alter::copy(&next.path("raw"), &disk);
    for name in ["state", "logs", "db"] {
        let (from, to) = (
            alter::partition(&server.disk, name),
            alter::partition(&disk, name),
        );
        alter::write(
            &disk,
            to.start,
            &alter::read(&server.disk, from.start, from.size.min(to.size) as usize),
        );
    }
    (server.image, server.disk) = (next, disk);
    for (path, bytes) in [
        ("/var/lib/dpkg/status", 22),
        ("/var/www/index.html", 22),
        ("/var/lib/db/main/base/1", 22),
        ("/var/lib/app/config", 11),
    ] {
        let console = server.boot(&format!("tiny.read={path}"));
        assert_eq!(
            value(&console, &format!("tiny: read {path}:")),
            format!("{bytes} bytes"),
            "{console}"
        );
        assert!(
            value(&console, "tiny: volume state ").contains("kept [/var/lib/app"),
            "{console}"
        );
    }
    server.is_sound("state");
    server.is_sound("db");
}

#[test]
fn volumes_grow_with_the_disk_and_keep_what_they_hold() {
    let server = Server::new("grown", &Tiny::usual());
    server.boot("tiny.write=/var/log/kept");
    let before = alter::partition(&server.disk, "state").size;
    let size = std::fs::metadata(&server.disk)
        .map(|meta| meta.len())
        .unwrap_or_default()
        + (96 << 20);
    alter::resize(&server.disk, size);
    let second = server.boot("tiny.read=/var/log/kept");
    let grown = grown_by(&second, "state") + grown_by(&second, "logs");
    assert!(grown >= 90 << 20, "{grown} bytes of 96 MiB: {second}");
    assert_eq!(value(&second, "tiny: counter"), "2");
    assert_eq!(value(&second, "tiny: read /var/log/kept:"), "8 bytes");
    tool::run(tool::command("sfdisk").arg("--verify").arg(&server.disk));
    assert!(alter::partition(&server.disk, "state").size >= before);
    server.is_sound("state");
    server.is_sound("logs");
    let third = server.boot("");
    assert_eq!(grown_by(&third, "state") + grown_by(&third, "logs"), 0);
}

/// 1 TB in block groups of 8 MiB are 131,072 of them: longer than the watchdog waits.
#[test]
fn a_small_volume_grows_to_a_large_disk_under_the_watchdog() {
    let server = Server::new("grown-large", &Tiny::usual());
    server.boot("tiny.write=/var/log/kept");
    alter::resize(&server.disk, 1 << 38);
    let watchdog = ["-device", "i6300esb", "-action", "watchdog=poweroff"];
    let setup = Setup::of(&server.image)
        .disk(&server.disk)
        .arguments(&watchdog)
        .deadline(Duration::from_secs(1200));
    let console = setup.append("quiet").start(&server.scratch).wait_for_end();
    assert!(console.contains("tiny: done"), "{console}");
    assert!(
        grown_by(&console, "state") + grown_by(&console, "logs") > 270_000_000_000,
        "{console}"
    );
    assert!(
        console
            .lines()
            .any(|line| line.contains("adamant: growing volume ") && line.contains(" MB, ")),
        "{console}"
    );
    assert_eq!(value(&console, "tiny: counter"), "2");
    let next = server.boot("tiny.read=/var/log/kept");
    assert_eq!(value(&next, "tiny: read /var/log/kept:"), "8 bytes");
}

/// The disk's own sector, of which all reads fail.
fn unreadable(server: &Server, sector: u64) -> String {
    let drive = format!(
        "driver=blkdebug,node-name=disk,image.driver=file,image.filename={},inject-error.0.event=none,inject-error.0.iotype=read,inject-error.0.errno=5,inject-error.0.sector={sector}",
        server.disk.display()
    );
    let arguments = ["-blockdev", &drive, "-device", "virtio-blk-pci,drive=disk"];
    let console = Setup::of(&server.image)
        .arguments(&arguments)
        .start(&server.scratch)
        .wait_for_end();
    assert!(!console.contains("tiny: "), "{console}");
    let line = console.lines().find_map(|line| {
        line.find("adamant: volumes: ")
            .map(|at| line[at..].trim_end().to_owned())
    });
    line.unwrap_or_else(|| panic!("no line of the volumes stage:\n{console}"))
}

#[test]
fn a_sector_that_can_t_be_read_is_no_reason_to_make_a_volume_anew() {
    let server = damaged("unreadable", "recreate", |_, _| ());
    let state = alter::partition(&server.disk, "state");
    let line = unreadable(&server, (state.start + 1024) / 512);
    assert!(
        line.contains("can't be read")
            && line.contains("check the disk")
            && !line.contains("recreate"),
        "{line}"
    );
    // One that only a full check reads: an inode table.
    let copy = server.scratch.join("state.ext4");
    std::fs::write(
        &copy,
        alter::read(&server.disk, state.start, state.size as usize),
    )
    .unwrap_or_else(|e| panic!("{e}"));
    tool::run(
        tool::command("debugfs")
            .args(["-w", "-R", "set_super_value state 2"])
            .arg(&copy),
    );
    let groups = tool::run(tool::command("dumpe2fs").arg(&copy));
    let table: u64 = groups
        .lines()
        .find_map(|line| {
            line.trim()
                .strip_prefix("Inode table at ")?
                .split(['-', ' '])
                .next()?
                .parse()
                .ok()
        })
        .unwrap_or_else(|| panic!("{groups}"));
    alter::write(
        &server.disk,
        state.start,
        &std::fs::read(&copy).unwrap_or_else(|e| panic!("{e}")),
    );
    let line = unreadable(&server, (state.start + table * 4096) / 512);
    assert!(
        line.contains("Input/output error")
            && line.contains("check the disk")
            && !line.contains("recreate"),
        "{line}"
    );
    let console = server.boot("");
    assert_eq!(value(&console, "tiny: counter"), "2");
}

#[test]
fn a_full_logs_volume_leaves_state_writable() {
    let server = Server::new("full", &Tiny::usual());
    let first = server.boot("tiny.fill=/var/log");
    assert!(
        value(&first, "tiny: fill /var/log:").contains("state still takes writes"),
        "{first}"
    );
    let second = server.boot("tiny.read=/var/tiny/after-filling");
    assert_eq!(
        value(&second, "tiny: read /var/tiny/after-filling:"),
        "15 bytes"
    );
}

/// A server with a counter of 1 and this done to its state volume.
fn damaged(name: &str, on_damage: &str, damage: impl FnOnce(&Path, &alter::Partition)) -> Server {
    damaged_of(Tiny::usual(), name, on_damage, damage)
}

fn damaged_of(
    mut tiny: Tiny,
    name: &str,
    on_damage: &str,
    damage: impl FnOnce(&Path, &alter::Partition),
) -> Server {
    tiny.more = tiny.more.replacen(
        "mount = \"/var\"\n",
        &format!("mount = \"/var\"\non_damage = \"{on_damage}\"\n"),
        1,
    );
    let server = Server::new(name, &tiny);
    server.boot("");
    damage(&server.disk, &alter::partition(&server.disk, "state"));
    server
}

#[test]
fn a_lost_super_block_is_repaired_from_its_back_up() {
    let server = damaged("lost-super-block", "fail", |disk, state| {
        alter::noise(disk, state.start + 1024, 1024)
    });
    let console = server.boot("");
    assert!(
        value(&console, "tiny: volume state ").starts_with("/var repaired "),
        "{console}"
    );
    assert_eq!(value(&console, "tiny: counter"), "2");
    server.is_sound("state");
}

#[test]
fn what_a_repair_takes_away_is_kept_on_another_volume_before() {
    let mut tiny = Tiny::usual();
    tiny.more = tiny.more.replacen("size = \"16M\"", "size = \"96M\"", 1);
    let server = damaged_of(tiny, "kept-before", "fail", |disk, state| {
        alter::noise(disk, state.start + 1024, 1024)
    });
    let noise = alter::read(
        &server.disk,
        alter::partition(&server.disk, "state").start + 1024,
        1024,
    );
    let console = server.boot("");
    let warning = value(&console, "tiny: warning Volume \"state\" was repaired:");
    assert!(
        warning.contains("evidence of it is kept as /var/log/.adamant/damaged/state-"),
        "{warning}"
    );
    assert_eq!(value(&console, "tiny: counter"), "2");
    let holds = |name: &str| {
        let part = alter::partition(&server.disk, name);
        alter::read(&server.disk, part.start, part.size as usize)
            .windows(noise.len())
            .any(|window| window == noise)
    };
    assert!(holds("logs") && !holds("state"), "{console}");
    server.is_sound("state");
    server.is_sound("logs");
}

#[test]
fn a_destroyed_journal_is_repaired() {
    let server = damaged("journal", "fail", |disk, state| {
        let copy = disk.with_extension("state");
        std::fs::write(&copy, alter::read(disk, state.start, state.size as usize))
            .unwrap_or_else(|e| panic!("{e}"));
        // Where the journal is, e2fsprogs' own debugger tells.
        let blocks = tool::run(
            tool::command("debugfs")
                .args(["-R", "blocks <8>"])
                .arg(&copy),
        );
        let block_size: u64 = tool::run(tool::command("dumpe2fs").arg("-h").arg(&copy))
            .lines()
            .find_map(|line| {
                line.strip_prefix("Block size:")
                    .and_then(|rest| rest.trim().parse().ok())
            })
            .unwrap_or_else(|| panic!("no block size"));
        let first: u64 = blocks
            .split_whitespace()
            .next()
            .and_then(|n| n.parse().ok())
            .unwrap_or_else(|| panic!("{blocks}"));
        alter::noise(disk, state.start + first * block_size, 64 << 10);
    });
    let console = server.boot("");
    assert_eq!(value(&console, "tiny: counter"), "2");
    server.is_sound("state");
}

#[test]
fn noise_is_refused_when_the_policy_says_fail() {
    let server = damaged("noise-fail", "fail", |disk, state| {
        alter::noise(disk, state.start, state.size as usize)
    });
    let before = alter::read(
        &server.disk,
        alter::partition(&server.disk, "state").start,
        1 << 20,
    );
    let line = server.refused();
    assert!(line.contains("state"), "{line}");
    assert!(
        before
            == alter::read(
                &server.disk,
                alter::partition(&server.disk, "state").start,
                1 << 20
            ),
        "it was written to"
    );
}

#[test]
fn noise_is_made_anew_with_its_evidence_kept_when_the_policy_says_recreate() {
    let server = damaged("noise-recreate", "recreate", |disk, state| {
        alter::noise(disk, state.start, state.size as usize)
    });
    let console = server.boot("");
    assert!(
        value(&console, "tiny: volume state ").starts_with("/var recreated "),
        "{console}"
    );
    assert_eq!(value(&console, "tiny: counter"), "1");
    // Evidence is on one of the volumes, and it begins with what was there.
    let found = ["state", "logs"].iter().any(|name| {
        let part = alter::partition(&server.disk, name);
        let bytes = alter::read(&server.disk, part.start, part.size as usize);
        bytes
            .windows(41)
            .any(|window| window == b"adamant: parts of the damaged volume stat".as_slice())
    });
    assert!(found, "no evidence: {console}");
    server.is_sound("state");
}

#[test]
fn another_file_system_is_never_overwritten() {
    let server = damaged("foreign", "fail", |disk, state| {
        let swap = disk.with_extension("swap");
        std::fs::write(&swap, vec![0; state.size as usize]).unwrap_or_else(|e| panic!("{e}"));
        tool::run(tool::command("mkswap").arg(&swap));
        alter::write(
            disk,
            state.start,
            &std::fs::read(&swap).unwrap_or_else(|e| panic!("{e}")),
        );
    });
    let state = alter::partition(&server.disk, "state");
    let before = alter::read(&server.disk, state.start, state.size as usize);
    let line = server.refused();
    assert!(line.contains("state") && line.contains("swap"), "{line}");
    assert!(
        before == alter::read(&server.disk, state.start, state.size as usize),
        "it was written to"
    );
}
