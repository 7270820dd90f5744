//! Checks each format with other projects' programs that read it.

use adamant_skip::skip;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::*;

const MIB: u64 = 1 << 20;
const SIZE: u64 = 65 * MIB;

/// A directory for one test.
struct Dir(TempDir);

impl Dir {
    fn new() -> Dir {
        Dir(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn create(&self, name: &str) -> File {
        File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(self.path(name))
            .unwrap()
    }

    /// Converts a disk, and checks that size and hash of the output were reported correctly.
    fn write(&self, format: Format, raw: &File, name: &str, jobs: usize) -> WrittenFile {
        let written = write(format, raw, &facts(), &self.create(name), jobs).unwrap();
        let bytes = std::fs::read(self.path(name)).unwrap();
        assert_eq!(
            (written.size, written.sha256),
            (bytes.len() as u64, Sha256::digest(&bytes).into()),
            "{format}"
        );
        written
    }
}

fn facts() -> Facts {
    Facts {
        id: "web".into(),
        version: "1.0.0".into(),
        guid: Guid::from_text_order(*b"0123456789abcdef"),
        epoch: 1_700_000_000,
    }
}

/// Incompressible bytes, the same for the same `state`.
fn noise(length: usize, mut state: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// A disk with text, noise, a mix of both, written zeros, holes, and data in its first and last
/// bytes.
fn raw(dir: &Dir, name: &str) -> File {
    let file = dir.create(name);
    file.set_len(SIZE).unwrap();
    let put = |bytes: &[u8], at: u64| file.write_all_at(bytes, at).unwrap();
    put(&[1], 0);
    put(&b"compressible ".repeat(40_000), MIB / 2);
    put(&noise(3 * MIB as usize + 12_345, 7), 2 * MIB + 77);
    for turn in 0..40 {
        put(
            &noise(60_000 + turn * 200, turn as u64 + 1),
            8 * MIB + turn as u64 * 131_072,
        );
        put(
            &b"x".repeat(50_000),
            8 * MIB + turn as u64 * 131_072 + 65_536,
        );
    }
    put(&vec![0; 3 * MIB as usize], 20 * MIB);
    // On both sides of the end of a VMDK grain table, and of a gzip block.
    put(&noise(4096, 3), 32 * MIB - 2048);
    put(&noise(100, 9), 50 * MIB - 50);
    put(&[0xff], SIZE - 1);
    file
}

fn run(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said =
        String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{command:?}: {said}");
    said
}

/// Whether a program is installed. Prints SKIPPED if it is not.
fn has(program: &str) -> bool {
    let there = Command::new(program).arg("--version").output().is_ok();
    if !there {
        skip!(Program(program), false);
    }
    there
}

fn compare(dir: &Dir, format: &str, image: &Path) {
    run(Command::new("qemu-img")
        .args(["compare", "-f", "raw", "-F", format])
        .arg(dir.path("raw"))
        .arg(image));
    let info = run(Command::new("qemu-img")
        .args(["info", "--output=json", "-f", format])
        .arg(image));
    let info: serde_json::Value = serde_json::from_str(&info).unwrap();
    assert_eq!(info["virtual-size"], SIZE, "{format}");
}

fn same(one: &Path, other: &Path) {
    run(Command::new("cmp").arg(one).arg(other));
}

#[test]
fn qemu_reads_and_checks_the_qcow2_disk() {
    let dir = Dir::new();
    let raw = raw(&dir, "raw");
    let written = dir.write(Format::Qcow2, &raw, "disk.qcow2", 3);
    assert!(written.size < 12 * MIB, "{}", written.size);
    if has("qemu-img") {
        let check = run(Command::new("qemu-img")
            .args(["check", "--output=json", "-f", "qcow2"])
            .arg(dir.path("disk.qcow2")));
        let check: serde_json::Value = serde_json::from_str(&check).unwrap();
        assert_eq!(
            (
                &check["check-errors"],
                &check["corruptions"],
                &check["leaks"]
            ),
            (
                &0.into(),
                &serde_json::Value::Null,
                &serde_json::Value::Null
            ),
            "{check}"
        );
        assert!(
            check["compressed-clusters"].as_u64().unwrap() > 40,
            "{check}"
        );
        compare(&dir, "qcow2", &dir.path("disk.qcow2"));
        // Writing to the disk uses the reference counts.
        run(Command::new("qemu-io")
            .args([
                "-f",
                "qcow2",
                "-c",
                "write -P 7 0 4M",
                "-c",
                "write -P 7 63M 2M",
            ])
            .arg(dir.path("disk.qcow2")));
        run(Command::new("qemu-img")
            .args(["check", "-f", "qcow2"])
            .arg(dir.path("disk.qcow2")));
    }
}

#[test]
fn qemu_reads_the_vhd_disk_as_a_fixed_disk() {
    let dir = Dir::new();
    let raw = raw(&dir, "raw");
    let written = dir.write(Format::Vhd, &raw, "disk.vhd", 3);
    assert_eq!(written.size, SIZE + 512);
    let holes = std::fs::metadata(dir.path("disk.vhd")).unwrap().blocks() * 512;
    assert!(holes < 16 * MIB, "{holes} bytes are written");
    let mut footer = [0; 512];
    File::open(dir.path("disk.vhd"))
        .unwrap()
        .read_exact_at(&mut footer, SIZE)
        .unwrap();
    assert_eq!(&footer[..8], b"conectix");
    assert_eq!(
        u32::from_be_bytes(footer[24..28].try_into().unwrap()),
        1_700_000_000 - 946_684_800
    );
    assert_eq!(u32::from_be_bytes(footer[60..64].try_into().unwrap()), 2);
    assert_eq!(&footer[68..84], b"0123456789abcdef");
    if has("qemu-img") {
        compare(&dir, "vpc", &dir.path("disk.vhd"));
        // A changed bit in the footer makes the checksum wrong.
        File::options()
            .write(true)
            .open(dir.path("disk.vhd"))
            .unwrap()
            .write_all_at(&[footer[30] ^ 1], SIZE + 30)
            .unwrap();
        let info = Command::new("qemu-img")
            .args(["info", "-f", "vpc"])
            .arg(dir.path("disk.vhd"))
            .output()
            .unwrap();
        assert!(
            String::from_utf8_lossy(&info.stderr).contains("checksum"),
            "{info:?}"
        );
    }
}

#[test]
fn qemu_reads_the_vmdk_disk() {
    let dir = Dir::new();
    let raw = raw(&dir, "raw");
    dir.write(Format::Vmdk, &raw, "disk.vmdk", 3);
    if has("qemu-img") {
        compare(&dir, "vmdk", &dir.path("disk.vmdk"));
        run(Command::new("qemu-img")
            .args(["check", "-f", "vmdk"])
            .arg(dir.path("disk.vmdk")));
        let info = run(Command::new("qemu-img")
            .args(["info", "--output=json", "-f", "vmdk"])
            .arg(dir.path("disk.vmdk")));
        let info: serde_json::Value = serde_json::from_str(&info).unwrap();
        assert_eq!(
            info["format-specific"]["data"]["create-type"],
            "streamOptimized"
        );
    }
}

#[test]
fn vmdk_is_readable_by_its_markers_alone() {
    let dir = Dir::new();
    let raw = raw(&dir, "raw");
    dir.write(Format::Vmdk, &raw, "disk.vmdk", 2);
    let bytes = std::fs::read(dir.path("disk.vmdk")).unwrap();
    let number = |at: usize, length: usize| {
        bytes[at..at + length]
            .iter()
            .rev()
            .fold(0usize, |number, byte| number << 8 | *byte as usize)
    };
    let mut disk = vec![0; SIZE as usize];
    let mut at = number(64, 8) * 512;
    let mut kinds = Vec::new();
    loop {
        let (value, length) = (number(at, 8), number(at + 8, 4));
        if length > 0 {
            let mut grain = vec![0; 65536];
            flate2::Decompress::new(true)
                .decompress(
                    &bytes[at + 12..at + 12 + length],
                    &mut grain,
                    flate2::FlushDecompress::Finish,
                )
                .unwrap();
            disk[value * 512..value * 512 + 65536].copy_from_slice(&grain);
            at += (12 + length).next_multiple_of(512);
            continue;
        }
        let kind = number(at + 12, 4);
        kinds.push(kind);
        at += 512 + value * 512;
        if kind == 0 {
            break;
        }
    }
    assert_eq!(at, bytes.len());
    // Tables for the first, second and third 32 MiB, the directory, the footer, the end.
    assert_eq!(kinds, [1, 1, 1, 2, 3, 0]);
    assert!(disk == std::fs::read(dir.path("raw")).unwrap());
}

#[test]
fn tar_sha256sum_and_qemu_accept_the_ova() {
    let dir = Dir::new();
    let raw = raw(&dir, "raw");
    dir.write(Format::Ova, &raw, "web.ova", 3);
    let list = run(Command::new("tar").args(["-tvf"]).arg(dir.path("web.ova")));
    let names: Vec<&str> = list
        .lines()
        .filter_map(|line| line.split(' ').next_back())
        .collect();
    assert_eq!(
        names,
        ["web_1.0.0.ovf", "web_1.0.0.vmdk", "web_1.0.0.mf"],
        "{list}"
    );
    run(Command::new("tar")
        .arg("-xf")
        .arg(dir.path("web.ova"))
        .arg("-C")
        .arg(dir.0.path()));
    let manifest = std::fs::read_to_string(dir.path("web_1.0.0.mf")).unwrap();
    std::fs::write(
        dir.path("sums"),
        manifest
            .replace("SHA256(", "SHA256 (")
            .replace(")= ", ") = "),
    )
    .unwrap();
    run(Command::new("sha256sum")
        .args(["--check", "--strict", "sums"])
        .current_dir(dir.0.path()));
    // The disk is the same as that of the format vmdk.
    dir.write(Format::Vmdk, &raw, "alone.vmdk", 1);
    same(&dir.path("alone.vmdk"), &dir.path("web_1.0.0.vmdk"));
    let descriptor = std::fs::read_to_string(dir.path("web_1.0.0.ovf")).unwrap();
    let size = std::fs::metadata(dir.path("web_1.0.0.vmdk")).unwrap().len();
    for part in [
        format!("ovf:size=\"{size}\""),
        format!("ovf:capacity=\"{SIZE}\""),
        "vmw:key=\"firmware\" vmw:value=\"efi\"".to_owned(),
    ] {
        assert!(descriptor.contains(&part), "{part}");
    }
    if has("python3") {
        run(Command::new("python3")
            .args([
                "-c",
                "import sys, xml.dom.minidom; xml.dom.minidom.parse(sys.argv[1])",
            ])
            .arg(dir.path("web_1.0.0.ovf")));
    }
    if has("qemu-img") {
        compare(&dir, "vmdk", &dir.path("web_1.0.0.vmdk"));
    }
}

#[test]
fn gnu_tar_unpacks_the_gce_disk_with_its_holes() {
    let dir = Dir::new();
    let raw = raw(&dir, "raw");
    dir.write(Format::Gce, &raw, "disk.tar.gz", 3);
    run(Command::new("gzip").arg("-t").arg(dir.path("disk.tar.gz")));
    let list = run(Command::new("tar")
        .args(["-tvzf"])
        .arg(dir.path("disk.tar.gz")));
    assert!(
        list.contains(" 1073741824 ")
            && list.trim_end().ends_with(" disk.raw")
            && list.lines().count() == 1,
        "{list}"
    );
    run(Command::new("tar")
        .arg("-xzf")
        .arg(dir.path("disk.tar.gz"))
        .arg("-C")
        .arg(dir.0.path()));
    let meta = std::fs::metadata(dir.path("disk.raw")).unwrap();
    assert_eq!(meta.len(), 1 << 30);
    assert!(meta.blocks() * 512 < 24 * MIB);
    raw.set_len(1 << 30).unwrap();
    same(&dir.path("raw"), &dir.path("disk.raw"));
}

#[test]
fn sparse_headers_equal_those_of_gnu_tar() {
    let dir = Dir::new();
    let file = dir.create("disk.raw");
    // More ranges of data than fit into the header and one extension.
    file.set_len(1 << 30).unwrap();
    let data: Vec<_> = (0..30)
        .map(|piece| piece * 7 * MIB..piece * 7 * MIB + MIB)
        .collect();
    for range in &data {
        file.write_all_at(&noise(MIB as usize, range.start + 1), range.start)
            .unwrap();
    }
    let (size, mtime) = (1 << 30, 1_700_000_000);
    let mut ours = tar::sparse("disk.raw", size, &data, mtime).unwrap();
    let tar = [
        "--format=oldgnu",
        "-S",
        "--mtime=@1700000000",
        "--numeric-owner",
        "--owner=0",
        "--group=0",
        "--mode=644",
        "-cf",
    ];
    run(Command::new("tar")
        .args(tar)
        .arg(dir.path("theirs.tar"))
        .arg("-C")
        .arg(dir.0.path())
        .arg("disk.raw"));
    let mut theirs = vec![0; ours.len()];
    File::open(dir.path("theirs.tar"))
        .unwrap()
        .read_exact_at(&mut theirs, 0)
        .unwrap();
    // GNU tar also stores atime and ctime, so the checksums differ too.
    for header in [&mut ours, &mut theirs] {
        header[345..369].fill(0);
        header[148..156].fill(0);
    }
    assert!(
        ours == theirs,
        "{:?}\n{:?}",
        String::from_utf8_lossy(&ours),
        String::from_utf8_lossy(&theirs)
    );
}

#[test]
fn converts_a_disk_of_more_than_8_gib() {
    let dir = Dir::new();
    let raw = dir.create("raw");
    let size = 9 << 30;
    raw.set_len(size).unwrap();
    raw.write_all_at(&noise(5000, 2), 0).unwrap();
    raw.write_all_at(&noise(5000, 4), size - 5000).unwrap();
    write(Format::Gce, &raw, &facts(), &dir.create("disk.tar.gz"), 2).unwrap();
    run(Command::new("tar")
        .arg("-xzf")
        .arg(dir.path("disk.tar.gz"))
        .arg("-C")
        .arg(dir.0.path()));
    let there = File::open(dir.path("disk.raw")).unwrap();
    assert_eq!(there.metadata().unwrap().len(), size);
    let mut end = [0; 5000];
    there.read_exact_at(&mut end, size - 5000).unwrap();
    assert!(end[..] == noise(5000, 4)[..]);
    for format in [Format::Qcow2, Format::Vmdk] {
        write(format, &raw, &facts(), &dir.create("disk"), 2).unwrap();
        if has("qemu-img") {
            run(Command::new("qemu-img")
                .args(["compare", "-f", "raw", "-F", format.name()])
                .arg(dir.path("raw"))
                .arg(dir.path("disk")));
        }
    }
}

#[test]
fn zstd_unpacks_the_disk() {
    let dir = Dir::new();
    let raw = raw(&dir, "raw");
    dir.write(Format::RawZst, &raw, "disk.raw.zst", 3);
    if has("zstd") {
        run(Command::new("zstd")
            .args(["-q", "-d", "disk.raw.zst"])
            .current_dir(dir.0.path()));
        same(&dir.path("raw"), &dir.path("disk.raw"));
    }
}

#[test]
fn threads_and_holes_do_not_change_the_bytes() {
    let dir = Dir::new();
    let sparse = raw(&dir, "raw");
    let full = dir.create("full");
    full.write_all_at(&std::fs::read(dir.path("raw")).unwrap(), 0)
        .unwrap();
    for format in Format::ALL.into_iter().skip(1) {
        let once = dir.write(format, &sparse, "once", 1);
        assert_eq!(once, dir.write(format, &sparse, "again", 1), "{format}");
        assert_eq!(once, dir.write(format, &full, "full-out", 8), "{format}");
    }
}

#[test]
fn converts_an_empty_disk() {
    let dir = Dir::new();
    let raw = dir.create("raw");
    raw.set_len(SIZE).unwrap();
    for (format, theirs) in [
        (Format::Qcow2, "qcow2"),
        (Format::Vhd, "vpc"),
        (Format::Vmdk, "vmdk"),
    ] {
        dir.write(format, &raw, "disk", 2);
        if has("qemu-img") {
            compare(&dir, theirs, &dir.path("disk"));
        }
    }
    for format in [Format::RawZst, Format::Gce, Format::Ova] {
        dir.write(format, &raw, "disk", 2);
    }
}

#[test]
fn refuses_a_size_that_is_not_a_multiple_of_1_mib() {
    let dir = Dir::new();
    let raw = dir.create("raw");
    for size in [0, MIB + 512] {
        raw.set_len(size).unwrap();
        for format in Format::ALL.into_iter().skip(1) {
            let error = write(format, &raw, &facts(), &dir.create("out"), 1).unwrap_err();
            assert!(
                error.message().contains(&format!("has {size} bytes")),
                "{error}"
            );
        }
    }
}

#[test]
fn refuses_a_disk_that_is_too_large_for_the_format() {
    let dir = Dir::new();
    let raw = dir.create("raw");
    if raw.set_len(3 << 40).is_err() {
        skip!(Host("no file of 3 TiB in the temporary directory"));
    }
    for format in [Format::Vhd, Format::Vmdk, Format::Ova] {
        let error = write(format, &raw, &facts(), &dir.create("out"), 1).unwrap_err();
        assert!(error.message().contains("3072 GiB"), "{error}");
    }
}

#[test]
fn reports_a_full_file_system() {
    let dir = Dir::new();
    let raw = raw(&dir, "raw");
    for format in Format::ALL.into_iter().skip(1) {
        let full = File::options()
            .read(true)
            .write(true)
            .open("/dev/full")
            .unwrap();
        let error = write(format, &raw, &facts(), &full, 4).unwrap_err();
        assert!(
            error
                .message()
                .starts_with(&format!("the disk as {format}: writing: No space left")),
            "{error}"
        );
        assert!(
            error
                .remedy()
                .is_some_and(|hint| hint.contains("free space")),
            "{error}"
        );
    }
}

#[test]
fn parses_the_names_of_formats() {
    for format in Format::ALL {
        assert_eq!(format.to_string().parse(), Ok(format));
    }
    assert_eq!("usb".parse(), Ok(Format::Raw));
    assert!(
        "vdi"
            .parse::<Format>()
            .unwrap_err()
            .contains("raw.zst, qcow2")
    );
}
