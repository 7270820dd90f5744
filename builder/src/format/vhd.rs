//! A fixed virtual hard disk: the raw disk, followed by a footer of 512 bytes.
//!
//! Format: Microsoft's "Virtual Hard Disk Image Format Specification" 1.0 (2006), whose field names
//! are used. Azure accepts only fixed disks of whole MiB.

use std::fs::File;

use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromZeros, Immutable, IntoBytes, KnownLayout};

use super::pieces::{Raw, map_pieces};
use super::stream::Stream;
use super::{Facts, WrittenFile};
use crate::error::{Error, Result};

const PIECE: u64 = 1 << 20;
/// Largest disk that Hyper-V accepts, bytes: 2040 GiB.
const LARGEST: u64 = 2040 << 30;
/// Time 0 of the format, 2000-01-01 00:00 UTC, in seconds since 1970.
const EPOCH: i64 = 946_684_800;
/// The disk type "fixed hard disk".
const FIXED: u32 = 2;
/// The program that made the disk. QEMU computes the disk's size from the geometry, which is seldom
/// exact, except for creators that it knows to use the size field. This value is QEMU's own for
/// that case (block/vpc.c). QEMU writes it into disks for Azure that follow Azure's documentation.
const CREATOR: [u8; 4] = *b"qem2";

/// "Hard Disk Footer Format".
#[derive(FromZeros, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct HardDiskFooter {
    cookie: [u8; 8],
    features: U32,
    file_format_version: U32,
    data_offset: U64,
    time_stamp: U32,
    creator_application: [u8; 4],
    creator_version: U32,
    creator_host_os: [u8; 4],
    original_size: U64,
    current_size: U64,
    disk_geometry: DiskGeometry,
    disk_type: U32,
    checksum: U32,
    unique_id: [u8; 16],
    saved_state: u8,
    reserved: [u8; 427],
}

#[derive(FromZeros, IntoBytes, Immutable, KnownLayout)]
#[cfg_attr(test, derive(Debug, PartialEq))]
#[repr(C)]
struct DiskGeometry {
    cylinder: U16,
    heads: u8,
    sectors_per_track: u8,
}

const _: () = assert!(size_of::<HardDiskFooter>() == 512);

pub fn write(raw: Raw, facts: &Facts, out: &File, _jobs: usize) -> Result<WrittenFile> {
    if raw.size > LARGEST {
        return Err(Error::new(format!(
            "{} GiB is more than the 2040 GiB that a virtual hard disk can have",
            raw.size >> 30
        ))
        .hint("make the volumes smaller: they grow on the first start"));
    }
    let mut stream = Stream::new(out, 0);
    // One thread, because hashing takes most of the time.
    map_pieces(
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
    stream.put(footer(raw.size, facts).as_bytes())?;
    stream.finish()
}

fn footer(size: u64, facts: &Facts) -> HardDiskFooter {
    let time = u32::try_from(facts.epoch.saturating_sub(EPOCH).max(0)).unwrap_or(u32::MAX);
    let mut footer = HardDiskFooter {
        cookie: *b"conectix",
        // Only the reserved bit, which is always set.
        features: U32::new(2),
        file_format_version: U32::new(0x0001_0000),
        // Fixed disks have no further structure.
        data_offset: U64::new(u64::MAX),
        time_stamp: U32::new(time),
        creator_application: CREATOR,
        creator_version: U32::new(0x0005_0003),
        creator_host_os: *b"Wi2k",
        original_size: U64::new(size),
        current_size: U64::new(size),
        disk_geometry: geometry(size / 512),
        disk_type: U32::new(FIXED),
        unique_id: facts.guid.text_order(),
        ..HardDiskFooter::new_zeroed()
    };
    let sum = footer
        .as_bytes()
        .iter()
        .fold(0u32, |sum, byte| sum.wrapping_add(u32::from(*byte)));
    footer.checksum = U32::new(!sum);
    footer
}

/// The geometry for a number of sectors, by the specification's appendix "CHS Calculation".
fn geometry(sectors: u64) -> DiskGeometry {
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
    DiskGeometry {
        cylinder: U16::new((tracks / heads) as u16),
        heads: heads as u8,
        sectors_per_track: per_track as u8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn geometry_is_that_of_the_specification() {
        // Sizes of well-known disks: 64 MiB, 1 GiB, 127 GiB, and one above the format's maximum.
        for (sectors, cylinder, heads, sectors_per_track) in [
            ((64 << 20) / 512, 963, 8, 17),
            ((1 << 30) / 512, 2080, 16, 63),
            ((127 << 30) / 512, 65278, 16, 255),
            ((1 << 40) / 512, 65535, 16, 255),
        ] {
            let expected = DiskGeometry {
                cylinder: U16::new(cylinder),
                heads,
                sectors_per_track,
            };
            assert_eq!(geometry(sectors), expected);
        }
    }
}
