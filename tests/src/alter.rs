//! Ways to alter a disk image, as an attacker or a worn-out disk would.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::tool;

/// A partition, as sfdisk sees it.
#[derive(Debug, Clone)]
pub struct Partition {
    /// Its number, from 1.
    pub number: u32,
    /// Its label.
    pub name: String,
    /// Its type, lowercase.
    pub kind: String,
    /// First byte.
    pub start: u64,
    /// Length in bytes.
    pub size: u64,
}

/// The partitions of a disk image.
pub fn partitions(disk: &Path) -> Vec<Partition> {
    let text = tool::run(tool::command("sfdisk").arg("-J").arg(disk));
    let json: serde_json::Value =
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("sfdisk -J: {e}: {text}"));
    let table = &json["partitiontable"];
    let sector = table["sectorsize"].as_u64().unwrap_or(512);
    let text_of = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    table["partitions"]
        .as_array()
        .unwrap_or_else(|| panic!("no partitions: {text}"))
        .iter()
        .enumerate()
        .map(|(index, part)| Partition {
            number: index as u32 + 1,
            name: text_of(&part["name"]),
            kind: text_of(&part["type"]).to_lowercase(),
            start: part["start"].as_u64().unwrap_or_default() * sector,
            size: part["size"].as_u64().unwrap_or_default() * sector,
        })
        .collect()
}

/// The partition with this label, or the test fails.
pub fn partition(disk: &Path, what: &str) -> Partition {
    let all = partitions(disk);
    all.iter()
        .find(|part| part.name == what)
        .cloned()
        .unwrap_or_else(|| panic!("no partition {what:?} in {all:?}"))
}

/// The root partition.
pub fn root(disk: &Path) -> Partition {
    of_type(disk, "4f68bce3-e8cd-4db1-96e7-fbcaf984b709")
}

/// The root's verity partition.
pub fn verity(disk: &Path) -> Partition {
    of_type(disk, "2c7357ed-ebd2-46d9-aec1-23d437ec2bf5")
}

fn of_type(disk: &Path, kind: &str) -> Partition {
    let all = partitions(disk);
    all.iter()
        .find(|part| part.kind == kind)
        .cloned()
        .unwrap_or_else(|| panic!("no partition of type {kind} in {all:?}"))
}

fn open(disk: &Path) -> File {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(disk)
        .unwrap_or_else(|e| panic!("{}: {e}", disk.display()))
}

/// Reads bytes.
pub fn read(disk: &Path, at: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    open(disk)
        .read_exact_at(&mut bytes, at)
        .unwrap_or_else(|e| panic!("{} at {at}: {e}", disk.display()));
    bytes
}

/// Writes bytes.
pub fn write(disk: &Path, at: u64, bytes: &[u8]) {
    open(disk)
        .write_all_at(bytes, at)
        .unwrap_or_else(|e| panic!("{} at {at}: {e}", disk.display()));
}

/// Changes one bit of one byte.
pub fn flip(disk: &Path, at: u64) {
    let byte = read(disk, at, 1)[0];
    write(disk, at, &[byte ^ 1]);
}

/// Overwrites a range with noise, the same each time.
pub fn noise(disk: &Path, at: u64, length: usize) {
    let mut random = Random::new(at ^ length as u64);
    let bytes: Vec<u8> = (0..length.div_ceil(8))
        .flat_map(|_| random.next().to_le_bytes())
        .take(length)
        .collect();
    write(disk, at, &bytes);
}

/// Overwrites a range with zeroes.
pub fn zero(disk: &Path, at: u64, length: usize) {
    write(disk, at, &vec![0; length]);
}

/// Takes a partition out of the table, its bytes stay.
pub fn drop_partition(disk: &Path, number: u32) {
    tool::run(
        tool::command("sfdisk")
            .arg("-q")
            .arg("--no-reread")
            .arg("--delete")
            .arg(disk)
            .arg(number.to_string()),
    );
}

/// Makes the partition's entry end earlier; the bytes stay.
pub fn shorten_partition(disk: &Path, partition: &Partition, size: u64) {
    // `sfdisk -N` keeps type, label, attributes and PARTUUID of what it changes.
    let mut child = tool::command("sfdisk")
        .args(["-q", "--no-reread", "-N", &partition.number.to_string()])
        .arg(disk)
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("sfdisk: {e}"));
    let line = format!("{},{}\n", partition.start / 512, size / 512);
    std::io::Write::write_all(
        child
            .stdin
            .as_mut()
            .unwrap_or_else(|| panic!("sfdisk has no input")),
        line.as_bytes(),
    )
    .unwrap_or_else(|e| panic!("sfdisk: {e}"));
    let status = child.wait().unwrap_or_else(|e| panic!("sfdisk: {e}"));
    assert!(status.success(), "sfdisk -N {}: {status}", partition.number);
}

/// Makes the disk image longer or shorter.
pub fn resize(disk: &Path, size: u64) {
    open(disk)
        .set_len(size)
        .unwrap_or_else(|e| panic!("{}: {e}", disk.display()));
}

/// Copies a disk image, its holes kept.
pub fn copy(from: &Path, to: &Path) {
    tool::run(
        tool::command("cp")
            .args(["--sparse=always", "--reflink=auto"])
            .arg(from)
            .arg(to),
    );
}

/// Numbers that look random and are the same in every run (SplitMix64).
pub struct Random(u64);

impl Random {
    /// A sequence.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The next number.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}
