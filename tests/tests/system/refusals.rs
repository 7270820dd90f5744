//! An altered image is refused with a line that says why, or the altered block is detected when it
//! is read. In no case does the init of an altered image start when every block is checked first.

use std::path::Path;

use adamant_contract::verity;
use adamant_tests::alter;
use adamant_tests::image::{Image, Tiny};
use adamant_tests::machine::{Machine, Setup};
use adamant_tests::scratch::Scratch;
use adamant_tests::tool;

const BLOCK: u64 = 4096;

/// Alters a copy of the fully verified image and starts it: no init, and one line of this stage
/// with these words. All refusals end in one function of the agent: a test of each stage waits for
/// the end, see [`refused_to_the_end`].
fn refused(
    name: &str,
    stage: &str,
    words: &[&str],
    alter_disk: impl FnOnce(&Image, &Path),
    change: impl FnOnce(Setup, &Path) -> Setup,
) {
    let end = Machine::cut_power_of_refused;
    refused_with(name, stage, words, alter_disk, change, end);
}

/// As [`refused`], and the machine restarts or switches off by itself.
fn refused_to_the_end(
    name: &str,
    stage: &str,
    words: &[&str],
    alter_disk: impl FnOnce(&Image, &Path),
    change: impl FnOnce(Setup, &Path) -> Setup,
) {
    let end = |mut machine: Machine| machine.wait_for_end();
    refused_with(name, stage, words, alter_disk, change, end);
}

fn refused_with(
    name: &str,
    stage: &str,
    words: &[&str],
    alter_disk: impl FnOnce(&Image, &Path),
    change: impl FnOnce(Setup, &Path) -> Setup,
    end: impl FnOnce(Machine) -> String,
) {
    let image = Tiny::full().build();
    let scratch = Scratch::new(name);
    let disk = scratch.join("disk.raw");
    alter::copy(&image.path("raw"), &disk);
    alter_disk(&image, &disk);
    let mut machine =
        change(Setup::of(&image).append("adamant.device_timeout=4"), &disk).start(&scratch);
    let line = machine.wait_for_refusal(stage, words);
    let console = end(machine);
    assert!(
        !console.contains("tiny: "),
        "the init of an altered image was started:\n{console}"
    );
    assert!(
        line.split(": ").count() >= 5,
        "stage, what, why and what to do: {line}"
    );
    println!("{name}: {line}");
}

fn with_disk(setup: Setup, disk: &Path) -> Setup {
    setup.disk(disk)
}

/// Where these bytes stand in the root partition of a disk.
fn find(disk: &Path, bytes: &[u8]) -> u64 {
    let root = alter::root(disk);
    let all = alter::read(disk, root.start, root.size as usize);
    let at = all.windows(bytes.len()).position(|window| window == bytes);
    root.start
        + at.unwrap_or_else(|| panic!("{:?} is not in the root", String::from_utf8_lossy(bytes)))
            as u64
}

/// One byte flipped in the root or its tree: what a full check must detect. The independent tool
/// agrees that the image is bad.
fn one_byte(name: &str, place: impl FnOnce(&Image, &Path) -> u64) {
    refused(
        name,
        "verify",
        &["does not match the root hash"],
        |image, disk| {
            let at = place(image, disk);
            alter::flip(disk, at);
            assert!(
                !veritysetup_accepts(image, disk),
                "veritysetup sees nothing wrong with byte {at}"
            );
        },
        with_disk,
    );
}

fn veritysetup_accepts(image: &Image, disk: &Path) -> bool {
    if !tool::have("veritysetup") {
        return false;
    }
    let (root, tree) = (alter::root(disk), alter::verity(disk));
    let parts = [("data", &root), ("tree", &tree)].map(|(name, part)| {
        let path = disk.with_file_name(name);
        std::fs::write(&path, alter::read(disk, part.start, part.size as usize))
            .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        path
    });
    tool::output(
        tool::command("veritysetup")
            .arg("verify")
            .args(&parts)
            .arg(image.root_hash()),
    )
    .status
    .success()
}

#[test]
fn veritysetup_accepts_the_image_that_nobody_altered() {
    let image = Tiny::full().build();
    let scratch = Scratch::new("unaltered");
    let disk = scratch.join("disk.raw");
    alter::copy(&image.path("raw"), &disk);
    if tool::have("veritysetup") {
        assert!(veritysetup_accepts(&image, &disk));
    }
}

#[test]
fn one_byte_flipped_in_the_super_block() {
    one_byte("super-block", |_, disk| alter::root(disk).start + 1024 + 40);
}

#[test]
fn one_byte_flipped_in_a_directory() {
    one_byte("directory", |_, disk| find(disk, b"mke2fs.conf"));
}

#[test]
fn one_byte_flipped_in_file_data() {
    one_byte("file-data", |image, disk| {
        // A compressed module can't be compressed again: its bytes stand in the image as they are.
        let modules = tool::run(
            tool::command("find")
                .arg(image.dir.with_file_name("input").join("kernel"))
                .args(["-name", "*.ko.xz", "-size", "+60k", "-print", "-quit"]),
        );
        let bytes =
            std::fs::read(modules.trim()).unwrap_or_else(|e| panic!("{}: {e}", modules.trim()));
        find(disk, &bytes[bytes.len() / 2..bytes.len() / 2 + 64])
    });
}

#[test]
fn one_byte_flipped_in_the_roots_last_block() {
    one_byte("last-block", |_, disk| {
        let tree = alter::verity(disk);
        let superblock = verity::Superblock::parse(&alter::read(disk, tree.start, 512))
            .unwrap_or_else(|e| panic!("{e}"));
        alter::root(disk).start + superblock.data_blocks * BLOCK - 1
    });
}

#[test]
fn one_byte_flipped_in_each_level_of_the_tree() {
    let image = Tiny::full().build();
    let raw = image.path("raw");
    let tree = alter::verity(&raw);
    let superblock = verity::Superblock::parse(&alter::read(&raw, tree.start, 512))
        .unwrap_or_else(|e| panic!("{e}"));
    let levels = verity::levels(superblock.data_blocks);
    assert!(levels.len() >= 2, "{levels:?}");
    let mut first = 1;
    for (level, blocks) in levels.iter().enumerate() {
        one_byte(&format!("level-{level}"), |_, _| {
            tree.start + first * BLOCK + 17
        });
        first += blocks;
    }
}

#[test]
fn one_byte_flipped_in_the_verity_super_block() {
    // Signature, number of blocks, salt; in the long form also version, hash type, algorithm, block
    // sizes, size of the salt, its second byte, and padding.
    const ALL: [u64; 11] = [0, 73, 90, 8, 12, 33, 65, 69, 76, 80, 400];
    let tried = if tool::is_long() { &ALL } else { &ALL[..3] };
    for &at in tried {
        // With fewer blocks the tree can still fit those that are left: the root's own length
        // tells.
        let words: &[&str] = if at == 73 { &["data blocks"] } else { &[] };
        refused(
            &format!("verity-super-block-{at}"),
            "verify",
            words,
            |_, disk| alter::flip(disk, alter::verity(disk).start + at),
            with_disk,
        );
    }
}

#[test]
fn one_digit_changed_in_the_root_hash() {
    let changed = |image: &Image| {
        let hash = image.root_hash();
        let last = if hash.ends_with('0') { "1" } else { "0" };
        (hash.clone(), format!("{}{last}", &hash[..63]))
    };
    refused(
        "root-hash",
        "locate",
        &[],
        |_, _| {},
        |setup, disk| {
            let (old, new) = changed(&Tiny::full().build());
            setup.disk(disk).cmdline(|line| line.replace(&old, &new))
        },
    );
    // The partitions named otherwise: the hash must still fit.
    refused(
        "root-hash-named",
        "verify",
        &[],
        |_, _| {},
        |setup, disk| {
            let (old, new) = changed(&Tiny::full().build());
            let (root, tree) = (alter::root(disk), alter::verity(disk));
            let named = format!(
                " systemd.verity_root_data=/dev/vda{} systemd.verity_root_hash=/dev/vda{}",
                root.number, tree.number
            );
            setup
                .disk(disk)
                .cmdline(|line| line.replace(&old, &new) + &named)
        },
    );
}

#[test]
fn a_command_line_without_a_root_hash() {
    refused(
        "no-root-hash",
        "locate",
        &["roothash"],
        |_, _| {},
        |setup, disk| {
            let hash = Tiny::full().build().root_hash();
            setup
                .disk(disk)
                .cmdline(|line| line.replace(&format!("roothash={hash}"), ""))
        },
    );
}

#[test]
fn the_root_partition_is_missing() {
    refused(
        "no-root",
        "locate",
        &[],
        |_, disk| alter::drop_partition(disk, alter::root(disk).number),
        with_disk,
    );
}

#[test]
fn the_verity_partition_is_missing() {
    refused(
        "no-verity",
        "locate",
        &[],
        |_, disk| alter::drop_partition(disk, alter::verity(disk).number),
        with_disk,
    );
}

#[test]
fn a_volume_is_missing() {
    refused_to_the_end(
        "no-volume",
        "volumes",
        &["state"],
        |_, disk| alter::drop_partition(disk, alter::partition(disk, "state").number),
        with_disk,
    );
}

#[test]
fn the_root_partition_is_cut_short() {
    refused(
        "short-root",
        "verify",
        &[],
        |_, disk| alter::shorten_partition(disk, &alter::root(disk), 1 << 20),
        with_disk,
    );
}

#[test]
fn the_verity_partition_is_cut_short() {
    refused(
        "short-verity",
        "verify",
        &[],
        |_, disk| alter::shorten_partition(disk, &alter::verity(disk), 8192),
        with_disk,
    );
}

#[test]
fn the_disk_is_cut_short() {
    refused(
        "short-disk",
        "locate",
        &[],
        |_, disk| alter::resize(disk, alter::root(disk).start + (1 << 20)),
        with_disk,
    );
}

fn other_image() -> Image {
    Tiny {
        version: "2".to_owned(),
        ..Tiny::full()
    }
    .with("[[file]]\npath = \"/etc/other\"\ncontent = \"other\"\n")
    .build()
}

fn replace(disk: &Path, to: &alter::Partition, from_disk: &Path, from: &alter::Partition) {
    let bytes = alter::read(from_disk, from.start, from.size.min(to.size) as usize);
    alter::write(disk, to.start, &bytes);
}

#[test]
fn the_root_is_another_images() {
    refused(
        "other-root",
        "verify",
        &[],
        |_, disk| {
            let other = other_image().path("raw");
            replace(disk, &alter::root(disk), &other, &alter::root(&other));
        },
        with_disk,
    );
}

#[test]
fn the_tree_is_another_images() {
    refused(
        "other-tree",
        "verify",
        &[],
        |_, disk| {
            let other = other_image().path("raw");
            replace(disk, &alter::verity(disk), &other, &alter::verity(&other));
        },
        with_disk,
    );
}

#[test]
fn root_and_tree_are_another_images_under_this_ones_names() {
    refused(
        "other-both",
        "verify",
        &[],
        |_, disk| {
            let other = other_image().path("raw");
            replace(disk, &alter::root(disk), &other, &alter::root(&other));
            replace(disk, &alter::verity(disk), &other, &alter::verity(&other));
        },
        with_disk,
    );
}

#[test]
fn two_disks_with_the_same_image() {
    refused(
        "two-disks",
        "locate",
        &["vda", "vdb"],
        |_, disk| alter::copy(disk, &disk.with_extension("second")),
        |setup, disk| setup.disk(disk).disk(disk.with_extension("second")),
    );
}

#[test]
fn one_data_block_less_than_the_root_has() {
    refused_to_the_end(
        "a-block-less",
        "verify",
        &["data blocks, but the root has"],
        |_, disk| {
            let tree = alter::verity(disk);
            let mut superblock = verity::Superblock::parse(&alter::read(disk, tree.start, 512))
                .unwrap_or_else(|e| panic!("{e}"));
            superblock.data_blocks -= 1;
            alter::write(disk, tree.start, &superblock.encode());
        },
        with_disk,
    );
}

#[test]
fn a_second_disk_with_the_same_image_that_comes_late() {
    let image = Tiny::full().build();
    let scratch = Scratch::new("late-disk");
    let (disk, late) = (scratch.join("disk.raw"), scratch.join("late.raw"));
    alter::copy(&image.path("raw"), &disk);
    alter::copy(&disk, &late);
    // The first disk is slow, so that there is a time between finding it and having read all of it.
    let slow = format!(
        "if=none,id=slow,format=raw,throttling.bps-read=4000000,file={}",
        disk.display()
    );
    let second = format!("if=none,id=late,format=raw,file={}", late.display());
    let arguments = [
        "-drive",
        &slow,
        "-device",
        "virtio-blk-pci,drive=slow",
        "-drive",
        &second,
        "-device",
        "virtio-scsi-pci,id=scsi",
    ];
    let mut machine = Setup::of(&image).arguments(&arguments).start(&scratch);
    machine.wait_for("erofs");
    machine.monitor("device_add scsi-hd,drive=late,bus=scsi.0");
    let line = machine.wait_for("adamant: locate: ");
    assert!(
        line.contains("/dev/vda partition") && line.contains("/dev/sda partition"),
        "{line}"
    );
    let console = machine.wait_for_end();
    assert!(
        console.contains("every block verified"),
        "the second disk was there from the start: {console}"
    );
    assert!(!console.contains("tiny: "), "{console}");
    assert!(
        console.contains("reboot: Power down"),
        "the policy's outcome: {console}"
    );
}

#[test]
fn no_disk_at_all() {
    refused_to_the_end("no-disk", "locate", &[], |_, _| {}, |setup, _| setup);
}

/// A file that the boot does not read: the kernel, which can't be compressed again, so that its
/// bytes stand in the image as they are.
fn unread_file(image: &Image) -> Vec<u8> {
    let boot = image.dir.with_file_name("input").join("kernel/boot");
    let kernel = tool::run(tool::command("find").arg(boot).args(["-name", "vmlinuz-*"]));
    std::fs::read(kernel.trim()).unwrap_or_else(|e| panic!("{kernel}: {e}"))
}

/// The lazily verified image with a flipped byte in a file that the boot does not read, and what
/// the kernel then does about it.
fn found_later(policy: &str, suite: &'static str) -> String {
    let image = Tiny {
        suite,
        ..Tiny::usual()
    }
    .with(&format!("[verify]\non_corruption = \"{policy}\"\n"))
    .build();
    let scratch = Scratch::new(&format!("later-{policy}-{suite}"));
    let disk = scratch.join("disk.raw");
    alter::copy(&image.path("raw"), &disk);
    let bytes = unread_file(&image);
    alter::flip(
        &disk,
        find(&disk, &bytes[bytes.len() / 2..bytes.len() / 2 + 64]),
    );
    let mut machine = Setup::of(&image)
        .disk(&disk)
        .append("panic=-1 tiny.read-all")
        .start(&scratch);
    machine.wait_for("tiny: counter 1");
    machine.wait_for_end()
}

/// The lazily verified image on a disk that can't read one sector, of a file that the boot does not
/// read; and what the kernel then does about it.
fn unreadable_later(policy: &str, suite: &'static str) -> String {
    let image = Tiny {
        suite,
        ..Tiny::usual()
    }
    .with(&format!("[verify]\non_corruption = \"{policy}\"\n"))
    .build();
    let scratch = Scratch::new(&format!("unreadable-{policy}-{suite}"));
    let disk = scratch.join("disk.raw");
    alter::copy(&image.path("raw"), &disk);
    let bytes = unread_file(&image);
    let sector = find(&disk, &bytes[bytes.len() / 2..bytes.len() / 2 + 64]) / 512;
    let file = format!("driver=file,node-name=file,filename={}", disk.display());
    let bad = format!(
        "driver=blkdebug,node-name=bad,image=file,inject-error.0.event=none,inject-error.0.iotype=read,inject-error.0.sector={sector},inject-error.0.errno=5,inject-error.0.once=off"
    );
    let arguments = [
        "-blockdev",
        &file,
        "-blockdev",
        &bad,
        "-blockdev",
        "driver=raw,node-name=disk,file=bad",
        "-device",
        "virtio-blk-pci,drive=disk",
    ];
    let mut machine = Setup::of(&image)
        .arguments(&arguments)
        .append("panic=-1 tiny.read-all")
        .start(&scratch);
    machine.wait_for("tiny: counter 1");
    let console = machine.wait_for_end();
    assert!(
        console.contains(&format!("sector {sector}")) || console.contains("I/O error"),
        "the disk was read: {console}"
    );
    console
}

#[test]
fn a_sector_unreadable_later_is_an_error_for_its_reader_alone() {
    let console = unreadable_later("error", "trixie");
    assert!(
        console.contains("tiny: read-all : failed: 1 of "),
        "{console}"
    );
    assert!(console.contains("tiny: done"), "{console}");
}

#[test]
fn a_sector_unreadable_later_restarts_the_machine() {
    let console = unreadable_later("reboot", "trixie");
    assert!(console.contains("reboot: Restarting system"), "{console}");
    assert!(
        !console.contains("tiny: read-all") && !console.contains("tiny: done"),
        "{console}"
    );
}

#[test]
fn a_sector_unreadable_later_panics() {
    let console = unreadable_later("panic", "trixie");
    assert!(
        console.contains("Kernel panic") && !console.contains("tiny: done"),
        "{console}"
    );
}

/// Linux 6.1 has no such option for what can't be read, only for what is wrong. It must start all
/// the same.
#[test]
fn debian_12s_kernel_restarts_on_bad_blocks_and_gives_unreadable_ones_to_their_reader() {
    let console = found_later("reboot", "bookworm");
    assert!(
        console.contains("reboot: Restarting system") && !console.contains("tiny: done"),
        "{console}"
    );
    let console = unreadable_later("reboot", "bookworm");
    assert!(
        console.contains("tiny: read-all : failed: 1 of ") && console.contains("tiny: done"),
        "{console}"
    );
}

#[test]
fn a_bad_block_found_later_is_an_error_for_its_reader_alone() {
    let console = found_later("error", "trixie");
    assert!(
        console.contains("tiny: read-all : failed: 1 of "),
        "{console}"
    );
    assert!(console.contains("tiny: done"), "{console}");
}

#[test]
fn a_bad_block_found_later_restarts_the_machine() {
    let console = found_later("reboot", "trixie");
    assert!(
        !console.contains("tiny: read-all") && !console.contains("tiny: done"),
        "{console}"
    );
}

#[test]
fn a_bad_block_found_later_panics() {
    let console = found_later("panic", "trixie");
    assert!(
        console.contains("Kernel panic") && !console.contains("tiny: done"),
        "{console}"
    );
}
