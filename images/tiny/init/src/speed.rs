//! `tiny.speed=DEVICE,...`: the speed of reading the same files from several EROFS images,
//! sequentially and at random positions.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::mount::{MsFlags, mount, umount};

/// Rounds over all devices: other load on the machine affects all of them.
const ROUNDS: usize = 3;
/// Number and bytes of reads at random positions.
const READS: usize = 3000;
const SIZE: usize = 4096;
const MOUNT_POINT: &str = "/mnt";

/// Prints a line for each device, round and kind of reading: microseconds, bytes of the files, and
/// bytes read from the device.
pub fn measure(devices: &str) -> io::Result<String> {
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
                // A new mount has no cached files.
                mount(
                    Some(device),
                    MOUNT_POINT,
                    Some("erofs"),
                    MsFlags::MS_RDONLY,
                    None::<&str>,
                )?;
                let files = files(Path::new(MOUNT_POINT))?;
                fs::write("/proc/sys/vm/drop_caches", "3")?;
                let (before, start) = (bytes_read(device)?, Instant::now());
                let bytes = read(&files)?;
                let time = start.elapsed().as_micros();
                println!(
                    "tiny: speed {device} {round} {kind} {time} {bytes} {}",
                    bytes_read(device)? - before
                );
                measured += 1;
                umount(MOUNT_POINT)?;
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
fn bytes_read(device: &str) -> io::Result<u64> {
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
        .ok_or_else(|| io::Error::other("the device's statistics have no sectors"))
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

/// The same positions in each run and on each image, evenly distributed over the bytes of all
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
