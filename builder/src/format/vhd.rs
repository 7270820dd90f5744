//! A fixed virtual hard disk: the raw disk and 512 bytes that describe it.
//!
//! Format: Microsoft's "Virtual Hard Disk Image Format Specification" 1.0 (2006). Azure takes fixed
//! disks of whole MiB only.

use std::fs::File;

use super::pieces::{Raw, each};
use super::stream::Stream;
use super::{Facts, WrittenFile};
use crate::error::{Error, Result};

const PIECE: u64 = 1 << 20;
/// Largest disk of the format as Hyper-V has it, bytes: 2040 GiB.
const LARGEST: u64 = 2040 << 30;
/// Time 0 of the format, 2000-01-01 00:00 UTC, in seconds since 1970.
const EPOCH: i64 = 946_684_800;
/// Disk type "fixed".
const FIXED: u32 = 2;
/// Who made it. QEMU computes the disk's size from the geometry, which is seldom exact, unless it
/// knows the maker for one that means the size field; this is the mark of its own that says so
/// (block/vpc.c), and what disks for Azure have when QEMU makes them as Azure's manual says.
const CREATOR: &[u8; 4] = b"qem2";

pub fn write(raw: Raw, facts: &Facts, out: &File, _jobs: usize) -> Result<WrittenFile> {
    if raw.size > LARGEST {
        return Err(Error::new(format!(
            "{} GiB is more than the 2040 GiB that a virtual hard disk can have",
            raw.size >> 30
        ))
        .hint("make the volumes smaller: they grow on the first start"));
    }
    let mut stream = Stream::new(out, 0);
    // One thread: it is hashing that takes the time.
    each(
        raw,
        PIECE,
        1,
        || Ok(|bytes: &[u8]| Ok(bytes.to_vec())),
        |at, bytes| {
            stream.zeros_until(at);
            stream.put(&bytes)
        },
    )?;
    stream.zeros_until(raw.size);
    stream.put(&footer(raw.size, facts))?;
    stream.finish()
}

fn footer(size: u64, facts: &Facts) -> [u8; 512] {
    let (cylinders, heads, sectors) = geometry(size / 512);
    let time = u32::try_from(facts.epoch.saturating_sub(EPOCH).max(0)).unwrap_or(u32::MAX);
    let mut footer = [0; 512];
    let mut at = 0;
    let mut put = |bytes: &[u8]| {
        footer[at..at + bytes.len()].copy_from_slice(bytes);
        at += bytes.len();
    };
    put(b"conectix");
    // Features: the one bit that is always set. Version 1.0.
    put(&2u32.to_be_bytes());
    put(&0x0001_0000u32.to_be_bytes());
    // No further structure.
    put(&u64::MAX.to_be_bytes());
    put(&time.to_be_bytes());
    put(CREATOR);
    put(&0x0005_0003u32.to_be_bytes());
    put(b"Wi2k");
    // Original and current size.
    put(&size.to_be_bytes());
    put(&size.to_be_bytes());
    put(&cylinders.to_be_bytes());
    put(&[heads, sectors]);
    put(&FIXED.to_be_bytes());
    let checksum_at = 64;
    put(&[0; 4]);
    put(&facts.guid.text_order());
    let sum = footer
        .iter()
        .fold(0u32, |sum, byte| sum.wrapping_add(u32::from(*byte)));
    footer[checksum_at..checksum_at + 4].copy_from_slice(&(!sum).to_be_bytes());
    footer
}

/// Cylinders, heads, and sectors of a track: the specification's appendix, "CHS Calculation".
fn geometry(sectors: u64) -> (u16, u8, u8) {
    let total = sectors.min(65535 * 16 * 255);
    let (mut per_track, mut heads);
    let mut tracks;
    if total >= 65535 * 16 * 63 {
        (per_track, heads) = (255, 16);
        tracks = total / per_track;
    } else {
        per_track = 17;
        tracks = total / per_track;
        heads = tracks.div_ceil(1024).max(4);
        if tracks >= heads * 1024 || heads > 16 {
            (per_track, heads) = (31, 16);
            tracks = total / per_track;
        }
        if tracks >= heads * 1024 {
            (per_track, heads) = (63, 16);
            tracks = total / per_track;
        }
    }
    ((tracks / heads) as u16, heads as u8, per_track as u8)
}

#[cfg(test)]
mod tests {
    use super::geometry;

    #[test]
    fn geometry_is_that_of_the_specification() {
        // Sizes of well-known disks: 64 MiB, 1 GiB, 127 GiB, and what is more than the format can
        // say.
        assert_eq!(geometry((64 << 20) / 512), (963, 8, 17));
        assert_eq!(geometry((1 << 30) / 512), (2080, 16, 63));
        assert_eq!(geometry((127 << 30) / 512), (65278, 16, 255));
        assert_eq!(geometry((1 << 40) / 512), (65535, 16, 255));
    }
}
