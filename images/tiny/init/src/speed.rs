//! `tiny.speed=DEVICE,...`: how fast the same files are read from several EROFS images, one after
//! the other and at random places.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::mount::{MsFlags, mount, umount};

/// Interleaved, so that what else the machine does meets all alike.
const ROUNDS: usize = 3;
/// Reads at random places, each of so many bytes.
const READS: usize = 3000;
const SIZE: usize = 4096;
const PLACE: &str = "/mnt";

/// Prints a line for each device, round and kind of reading: microseconds, bytes given, and bytes
/// that the device was asked for.
pub fn speed(devices: &str) -> io::Result<String> {
    let mut measured = 0;
    for round in 1..=ROUNDS {
        for device in devices.split(',') {
            for (kind, read) in [
                (
                    "sequential",
                    sequential as fn(&[(PathBuf, u64)]) -> io::Result<u64>,
                ),
                ("random", random),
            ] {
                // A new mount has nothing in memory.
                mount(
                    Some(device),
                    PLACE,
                    Some("erofs"),
                    MsFlags::MS_RDONLY,
                    None::<&str>,
                )?;
                let files = files(Path::new(PLACE))?;
                fs::write("/proc/sys/vm/drop_caches", "3")?;
                let (asked, start) = (asked(device)?, Instant::now());
                let bytes = read(&files)?;
                let time = start.elapsed().as_micros();
                println!(
                    "tiny: speed {device} {round} {kind} {time} {bytes} {}",
                    self::asked(device)? - asked
                );
                measured += 1;
                umount(PLACE)?;
            }
        }
    }
    Ok(format!("{measured} measured"))
}

/// All regular files with their sizes, in order of their paths.
fn files(root: &Path) -> io::Result<Vec<(PathBuf, u64)>> {
    let (mut found, mut todo) = (Vec::new(), vec![root.to_owned()]);
    while let Some(folder) = todo.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let meta = entry.metadata()?;
            if meta.is_dir() {
                todo.push(entry.path());
            } else if meta.is_file() && meta.size() > 0 {
                found.push((entry.path(), meta.size()));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Bytes that were read from a device since the kernel started (Documentation/block/stat.rst:
/// sectors of 512 bytes).
fn asked(device: &str) -> io::Result<u64> {
    let text = fs::read_to_string(format!(
        "/sys/class/block/{}/stat",
        device.trim_start_matches("/dev/")
    ))?;
    let sectors = text
        .split_ascii_whitespace()
        .nth(2)
        .and_then(|word| word.parse::<u64>().ok());
    sectors
        .map(|sectors| sectors * 512)
        .ok_or_else(|| io::Error::other("no sectors in the device's figures"))
}

fn sequential(files: &[(PathBuf, u64)]) -> io::Result<u64> {
    let mut buffer = vec![0; 128 << 10];
    let mut bytes = 0;
    for (path, _) in files {
        let mut file = File::open(path)?;
        loop {
            match io::Read::read(&mut file, &mut buffer)? {
                0 => break,
                read => bytes += read as u64,
            }
        }
    }
    Ok(bytes)
}

/// The same places each time and on each image: a place's chance is the same for each byte of all
/// files.
fn random(files: &[(PathBuf, u64)]) -> io::Result<u64> {
    let mut ends = Vec::new();
    let mut all = 0;
    for (_, size) in files {
        all += size;
        ends.push(all);
    }
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut bytes = 0;
    for _ in 0..READS {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let at = state % all.max(1);
        let index = ends.partition_point(|end| *end <= at);
        let Some((path, size)) = files.get(index) else {
            continue;
        };
        let offset = (at - (ends[index] - size)) / SIZE as u64 * SIZE as u64;
        bytes += File::open(path)?.read_at(&mut [0; SIZE], offset)? as u64;
    }
    Ok(bytes)
}
