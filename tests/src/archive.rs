//! Archives that tests and measurements start from, made by other projects' tools once for all
//! runs.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::alter::Random;
use crate::scratch::Scratch;
use crate::{image, program, tool};

/// A small Debian without a kernel, by mmdebstrap.
pub fn debian() -> PathBuf {
    let _lock = image::lock("debian-tar");
    let tar = image::target_dir().join("cache/debian.tar");
    if !tar.exists() {
        std::fs::create_dir_all(image::target_dir().join("cache"))
            .unwrap_or_else(|e| panic!("{e}"));
        let new = tar.with_extension("new.tar");
        tool::run(
            tool::command("mmdebstrap")
                .args([
                    "--quiet",
                    "--variant=important",
                    "--include=systemd-sysv,openssh-server,python3-minimal",
                    "trixie",
                ])
                .arg(&new),
        );
        std::fs::rename(&new, &tar).unwrap_or_else(|e| panic!("{e}"));
    }
    tar
}

/// Files of every size around block and cluster borders, compressible and not, by GNU tar.
pub fn small() -> PathBuf {
    let _lock = image::lock("small-tar");
    let tar = image::target_dir().join("cache/small.tar");
    if !tar.exists() {
        let scratch = Scratch::new("small-tar");
        let mut random = Random::new(5);
        for size in [
            0usize,
            1,
            4095,
            4096,
            4097,
            65535,
            65536,
            65537,
            1 << 20,
            (1 << 20) + 1,
            3_000_001,
        ] {
            let text: Vec<u8> = b"all work and no play "
                .iter()
                .copied()
                .cycle()
                .take(size)
                .collect();
            let noise: Vec<u8> = (0..size).map(|_| random.next() as u8).collect();
            let mixed: Vec<u8> = text
                .chunks(5000)
                .zip(noise.chunks(5000))
                .enumerate()
                .flat_map(|(n, (t, n2))| if n % 2 == 0 { t } else { n2 }.to_vec())
                .collect();
            for (kind, bytes) in [("text", &text), ("noise", &noise), ("mixed", &mixed)] {
                std::fs::write(scratch.join(format!("{kind}-{size}")), bytes)
                    .unwrap_or_else(|e| panic!("{e}"));
            }
        }
        std::fs::create_dir_all(image::target_dir().join("cache"))
            .unwrap_or_else(|e| panic!("{e}"));
        tool::run(
            tool::command("tar")
                .args(["--format=pax", "-cf"])
                .arg(&tar)
                .arg("-C")
                .arg(scratch.path())
                .arg("."),
        );
    }
    tar
}

/// A definition whose only source is this archive, everything kept, and no volumes: an image
/// without a kernel, unless the archive has one.
pub fn definition(tar: &Path, id: &str, more: &str) -> String {
    format!(
        "volumes = []\n[image]\nid = {id:?}\nversion = \"1\"\n[[source]]\ntar = {:?}\n[scrub]\nkeep = [\"**\"]\n{more}",
        tar.display().to_string()
    )
}

/// The same for a measurement, compressed with an algorithm in clusters of 64 KiB, as others can be
/// told to.
pub fn compressed(tar: &Path, algorithm: &str) -> String {
    definition(
        tar,
        "bench",
        &format!("[root]\ncompression = {algorithm:?}\ncluster = \"64K\"\n"),
    )
}

/// The same in the smallest layout. At level 5: there is time for it, where others are ten times as
/// slow at level 3.
pub fn smallest(tar: &Path) -> String {
    definition(
        tar,
        "bench",
        "[root]\ncompression = \"zstd:5\"\noptimize = \"size\"\n",
    )
}

/// An archive of files so many and so large: each half text, half noise, and none like another. It
/// holds an init, too.
pub fn of_files(path: &Path, count: u64, size: u64) -> io::Result<()> {
    const PIECE: usize = 1 << 20;
    let mut random = Random::new(count);
    let text = b"nothing in this world is as soft and yielding as water "
        .iter()
        .cycle();
    let mut piece: Vec<u8> = text
        .enumerate()
        .take(PIECE)
        .map(|(at, &letter)| {
            if at / 5000 % 2 == 0 {
                letter
            } else {
                random.next() as u8
            }
        })
        .collect();
    let mut out = BufWriter::with_capacity(PIECE, File::create(path)?);
    let init = program::bytes();
    out.write_all(&header("sbin/init", init.len() as u64, 0o755))?;
    out.write_all(&padded(&init))?;
    for file in 0..count {
        out.write_all(&header(
            &format!("srv/{:04}/{file:08}", file / 1000),
            size,
            0o644,
        ))?;
        let mut left = size;
        while left > 0 {
            let now = left.min(PIECE as u64) as usize;
            // A number in every block: nothing is there twice.
            for block in piece.chunks_mut(4096) {
                let number = random.next().to_le_bytes();
                block[..8].copy_from_slice(&number);
            }
            out.write_all(&piece[..now])?;
            left -= now as u64;
        }
        out.write_all(&vec![0; (size.next_multiple_of(512) - size) as usize])?;
    }
    out.write_all(&[0; 1024])?;
    out.flush()
}

fn padded(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

/// A ustar header of a file of root's.
fn header(name: &str, size: u64, mode: u32) -> [u8; 512] {
    let mut header = [0; 512];
    let mut put =
        |at: usize, text: String| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name.to_owned());
    for (at, text) in [
        (100, format!("{mode:07o}")),
        (108, "0000000".to_owned()),
        (116, "0000000".to_owned()),
        (124, format!("{size:011o}")),
    ] {
        put(at, text);
    }
    put(136, "14520710000".to_owned());
    put(148, " ".repeat(8));
    put(156, "0".to_owned());
    put(257, "ustar\0".to_owned() + "00");
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}
