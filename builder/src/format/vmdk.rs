//! A stream-optimized virtual machine disk: compressed grains behind markers, written and read from
//! front to end.
//!
//! Format: VMware's "Virtual Disk Format 5.0" (2011), "Stream-Optimized Compressed Sparse Extents",
//! whose field names are used in snake case. Numbers are little-endian, offsets are in sectors of
//! 512 bytes.
//!
//! ```text
//! header | descriptor | grains, each 32 MiB of the disk followed by its grain table |
//! grain directory | footer | end of stream
//! ```

use std::fs::File;

use adamant_contract::hex;
use sha2::{Digest, Sha256};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::deflate::Deflate;
use super::pieces::{Raw, map_pieces};
use super::stream::Stream;
use super::{Facts, WrittenFile};
use crate::error::{Error, Result};
use crate::io::zeros::is_zero;

const SECTOR: u64 = 512;
/// Bytes of the disk that are compressed as one grain: the size that VMware's tools expect.
const GRAIN: u64 = 64 << 10;
/// Entries of a grain table. VMware accepts no other number.
const TABLE: u64 = 512;
const PIECE: u64 = 1 << 20;
const DESCRIPTOR_BYTES: u64 = 20 * SECTOR;
/// Byte offset of the first grain's marker. It is a multiple of the size of a grain.
const OVERHEAD: u64 = GRAIN;
/// Offset of the grain directory in the header: the footer has the real one.
const GD_AT_END: u64 = u64::MAX;
/// Bits of `flags`: the newline test is valid, grains are compressed, markers are present.
const FLAGS: u32 = 1 | 1 << 16 | 1 << 17;
/// Version of compressed disks. Readers that know it refuse to write to such a disk.
const VERSION: u32 = 3;
/// DEFLATE as the compression of grains.
const COMPRESSION_DEFLATE: u16 = 1;
/// Largest disk: offsets in it have 32 bits.
const LARGEST: u64 = 2 << 40;
/// Upper bound of threads. More would exceed the promised memory.
const THREADS: usize = 12;

/// `SparseExtentHeader`.
#[derive(FromZeros, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct SparseExtentHeader {
    magic_number: [u8; 4],
    version: U32,
    flags: U32,
    capacity: U64,
    grain_size: U64,
    descriptor_offset: U64,
    descriptor_size: U64,
    num_gtes_per_gt: U32,
    rgd_offset: U64,
    gd_offset: U64,
    over_head: U64,
    unclean_shutdown: u8,
    /// These four bytes change if the file is transferred as text.
    single_end_line_char: u8,
    non_end_line_char: u8,
    double_end_line_char1: u8,
    double_end_line_char2: u8,
    compress_algorithm: U16,
    pad: [u8; 433],
}

/// `Marker` of metadata: a sector.
#[derive(FromZeros, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct MetadataMarker {
    /// Sectors of metadata that follow.
    val: U64,
    /// Bytes of compressed data: 0 in a marker of metadata.
    size: U32,
    /// A [`MarkerType`].
    kind: U32,
    pad: [u8; 496],
}

/// `GrainMarker`: the compressed bytes of the grain follow, padded to a sector.
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct GrainMarker {
    /// Sector of the disk.
    lba: U64,
    /// Compressed bytes.
    size: U32,
}

const _: () = assert!(size_of::<SparseExtentHeader>() as u64 == SECTOR);
const _: () = assert!(size_of::<MetadataMarker>() as u64 == SECTOR);

/// The metadata that follows a marker.
#[derive(Debug, Clone, Copy)]
enum MarkerType {
    EndOfStream = 0,
    GrainTable = 1,
    GrainDirectory = 2,
    Footer = 3,
}

pub fn write(raw: Raw, facts: &Facts, out: &File, jobs: usize) -> Result<WrittenFile> {
    write_to_stream(raw, facts, Stream::new(out, 0), jobs)
}

/// Writes the disk to a stream that may start inside of a file.
pub fn write_to_stream(
    raw: Raw,
    facts: &Facts,
    stream: Stream,
    jobs: usize,
) -> Result<WrittenFile> {
    if raw.size > LARGEST {
        return Err(Error::new(format!(
            "{} GiB is more than the 2048 GiB that a virtual machine disk of this kind can have",
            raw.size >> 30
        ))
        .hint("make the volumes smaller: they grow on the first start"));
    }
    let tables = raw.size.div_ceil(GRAIN * TABLE);
    let mut disk = VmdkWriter {
        stream,
        directory: vec![U32::ZERO; tables as usize],
        table: vec![U32::ZERO; TABLE as usize],
        table_number: 0,
    };
    disk.stream.put(header(raw.size, GD_AT_END).as_bytes())?;
    disk.stream.put(&descriptor(raw.size, facts)?)?;
    disk.stream.pad(OVERHEAD);
    map_pieces(
        raw,
        PIECE,
        jobs.min(THREADS),
        || {
            let mut deflate = Deflate::new(true, 15);
            Ok(move |bytes: &[u8]| Grains::new(bytes, &mut deflate))
        },
        |at, grains| disk.put(at / GRAIN, &grains),
    )?;
    disk.finish(raw.size)
}

/// Adjacent grains, each compressed. A grain of zeros has no bytes.
struct Grains {
    bytes: Vec<u8>,
    lengths: Vec<usize>,
}

impl Grains {
    fn new(piece: &[u8], deflate: &mut Deflate) -> Result<Grains> {
        let mut grains = Grains {
            bytes: Vec::with_capacity(piece.len() + piece.len() / 8),
            lengths: Vec::new(),
        };
        for grain in piece.chunks(GRAIN as usize) {
            let before = grains.bytes.len();
            if !is_zero(grain) {
                deflate.finish(grain, &mut grains.bytes)?;
            }
            grains.lengths.push(grains.bytes.len() - before);
        }
        Ok(grains)
    }
}

struct VmdkWriter<'a> {
    stream: Stream<'a>,
    /// The grain directory: the offset of each grain table.
    directory: Vec<U32>,
    /// The grain table that is being filled.
    table: Vec<U32>,
    /// Its index in the directory.
    table_number: u64,
}

impl VmdkWriter<'_> {
    /// Writes grains. `first` is the number of the first grain on the disk.
    fn put(&mut self, first: u64, grains: &Grains) -> Result<()> {
        let mut rest = grains.bytes.as_slice();
        let mut buffer = Vec::new();
        for (number, length) in (first..).zip(&grains.lengths) {
            if number / TABLE != self.table_number {
                self.flush_table()?;
                self.table_number = number / TABLE;
            }
            if *length == 0 {
                continue;
            }
            let (grain, later) = rest.split_at(*length);
            rest = later;
            self.table[(number % TABLE) as usize] = self.next_sector()?;
            let marker = GrainMarker {
                lba: U64::new(number * (GRAIN / SECTOR)),
                size: U32::new(*length as u32),
            };
            buffer.clear();
            buffer.extend_from_slice(marker.as_bytes());
            buffer.extend_from_slice(grain);
            buffer.resize(buffer.len().next_multiple_of(SECTOR as usize), 0);
            self.stream.put(&buffer)?;
        }
        Ok(())
    }

    /// Offset of the next byte, in sectors.
    fn next_sector(&self) -> Result<U32> {
        u32::try_from(self.stream.size() / SECTOR)
            .map(U32::new)
            .map_err(|_| {
                Error::new(
                    "larger than the 2048 GiB that a virtual machine disk of this kind can have",
                )
            })
    }

    fn put_marker(&mut self, sectors: u64, kind: MarkerType) -> Result<()> {
        let marker = MetadataMarker {
            val: U64::new(sectors),
            kind: U32::new(kind as u32),
            ..MetadataMarker::new_zeroed()
        };
        self.stream.put(marker.as_bytes())
    }

    /// Writes the grain table unless it is empty, and clears it.
    fn flush_table(&mut self) -> Result<()> {
        if self.table.iter().all(|entry| *entry == U32::ZERO) {
            return Ok(());
        }
        let table = whole_sectors(&self.table);
        self.put_marker(table.len() as u64 / SECTOR, MarkerType::GrainTable)?;
        self.directory[self.table_number as usize] = self.next_sector()?;
        self.stream.put(&table)?;
        self.table.fill(U32::ZERO);
        Ok(())
    }

    fn finish(mut self, size: u64) -> Result<WrittenFile> {
        self.flush_table()?;
        let directory = whole_sectors(&self.directory);
        self.put_marker(directory.len() as u64 / SECTOR, MarkerType::GrainDirectory)?;
        let gd_offset = u64::from(self.next_sector()?.get());
        self.stream.put(&directory)?;
        self.put_marker(1, MarkerType::Footer)?;
        self.stream.put(header(size, gd_offset).as_bytes())?;
        self.put_marker(0, MarkerType::EndOfStream)?;
        self.stream.finish()
    }
}

/// The bytes of a table, padded to whole sectors.
fn whole_sectors(numbers: &[U32]) -> Vec<u8> {
    let mut bytes = numbers.as_bytes().to_vec();
    bytes.resize(bytes.len().next_multiple_of(SECTOR as usize), 0);
    bytes
}

/// The header. The footer is the same with the offset of the grain directory.
fn header(size: u64, gd_offset: u64) -> SparseExtentHeader {
    SparseExtentHeader {
        magic_number: *b"KDMV",
        version: U32::new(VERSION),
        flags: U32::new(FLAGS),
        capacity: U64::new(size / SECTOR),
        grain_size: U64::new(GRAIN / SECTOR),
        descriptor_offset: U64::new(1),
        descriptor_size: U64::new(DESCRIPTOR_BYTES / SECTOR),
        num_gtes_per_gt: U32::new(TABLE as u32),
        gd_offset: U64::new(gd_offset),
        over_head: U64::new(OVERHEAD / SECTOR),
        single_end_line_char: b'\n',
        non_end_line_char: b' ',
        double_end_line_char1: b'\r',
        double_end_line_char2: b'\n',
        compress_algorithm: U16::new(COMPRESSION_DEFLATE),
        // No redundant grain directory, and no unclean shutdown.
        ..SparseExtentHeader::new_zeroed()
    }
}

fn descriptor(size: u64, facts: &Facts) -> Result<Vec<u8>> {
    let content = Sha256::digest(
        [
            b"adamant vmdk content\0".as_slice(),
            &facts.guid.text_order(),
        ]
        .concat(),
    );
    // Two values are reserved: 0xffffffff for "no parent", 0xfffffffe for "unknown".
    let content_id =
        u32::from_be_bytes([content[0], content[1], content[2], content[3]]) & 0x7fff_ffff;
    let uuid = hex::encode(&facts.guid.text_order());
    let pairs: Vec<&str> = (0..16).map(|pair| &uuid[pair * 2..pair * 2 + 2]).collect();
    let text = format!(
        "# Disk DescriptorFile\nversion=1\nCID={content_id:08x}\nparentCID=ffffffff\ncreateType=\"streamOptimized\"\n\n\
         # Extent description\nRDONLY {} SPARSE \"{}.vmdk\"\n\n\
         # The Disk Data Base\n#DDB\n\n\
         ddb.adapterType = \"lsilogic\"\nddb.geometry.cylinders = \"{}\"\nddb.geometry.heads = \"255\"\nddb.geometry.sectors = \"63\"\n\
         ddb.longContentID = \"{}{content_id:08x}\"\nddb.uuid = \"{} {}\"\nddb.virtualHWVersion = \"13\"\n",
        size / SECTOR,
        facts.stem(),
        (size / SECTOR / (255 * 63)).clamp(1, 65535),
        hex::encode(&content[4..16]),
        pairs[..8].join(" "),
        pairs[8..].join(" "),
    );
    let mut bytes = text.into_bytes();
    if bytes.len() as u64 > DESCRIPTOR_BYTES {
        return Err(Error::new(
            "the image's id and version are too long for the disk's descriptor",
        ));
    }
    bytes.resize(DESCRIPTOR_BYTES as usize, 0);
    Ok(bytes)
}
