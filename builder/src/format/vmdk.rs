//! A stream-optimized virtual machine disk: compressed grains behind markers, written and read from
//! front to end.
//!
//! Format: VMware's "Virtual Disk Format 5.0" (2011), "Stream-Optimized Compressed Sparse Extents".
//! Numbers are little-endian, places are in sectors of 512 bytes.
//!
//! ```text
//! header | descriptor | grains, each 32 MiB of the disk followed by its grain table | grain directory | footer | end of stream
//! ```

use std::fs::File;

use adamant_contract::hex;
use sha2::{Digest, Sha256};

use super::deflate::Deflate;
use super::pieces::{Raw, each};
use super::stream::Stream;
use super::{Facts, WrittenFile};
use crate::error::{Error, Result};
use crate::io::zeros::is_zero;

const SECTOR: u64 = 512;
/// Bytes of the disk that are compressed on their own: what VMware's tools take.
const GRAIN: u64 = 64 << 10;
/// Grains that one table is about, which VMware fixes.
const TABLE: u64 = 512;
const PIECE: u64 = 1 << 20;
const DESCRIPTOR_SECTORS: u64 = 20;
/// Where the first grain's marker is, bytes: grains start on the size of a grain.
const OVERHEAD: u64 = GRAIN;
/// The directory's place where only the footer has it.
const AT_END: u64 = u64::MAX;
/// Line ends can be tested; grains are compressed; there are markers.
const FLAGS: u32 = 1 | 1 << 16 | 1 << 17;
/// That of compressed disks; readers that would write to one are to refuse it.
const VERSION: u32 = 3;
/// Largest extent: places in it have 32 bits.
const LARGEST: u64 = 2 << 40;
const MARKER_TABLE: u32 = 1;
const MARKER_DIRECTORY: u32 = 2;
const MARKER_FOOTER: u32 = 3;
/// More threads would take more memory than is promised.
const THREADS: usize = 12;

pub fn write(raw: Raw, facts: &Facts, out: &File, jobs: usize) -> Result<WrittenFile> {
    write_from(raw, facts, Stream::new(out, 0), jobs)
}

/// The same at any place of a file.
pub fn write_from(raw: Raw, facts: &Facts, stream: Stream, jobs: usize) -> Result<WrittenFile> {
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
        directory: vec![0; tables as usize],
        table: vec![0; TABLE as usize],
        number: 0,
    };
    disk.stream.put(&header(raw.size, AT_END))?;
    disk.stream.put(&descriptor(raw.size, facts)?)?;
    disk.stream.pad(OVERHEAD);
    each(
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

/// Some grains, compressed, one after the other; one of zeros has no bytes.
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
    /// Where the tables are.
    directory: Vec<u32>,
    /// The table that is being filled, and its place in the directory.
    table: Vec<u32>,
    number: u64,
}

impl VmdkWriter<'_> {
    /// Puts grains in, the first of which has this number on the disk.
    fn put(&mut self, first: u64, grains: &Grains) -> Result<()> {
        let mut rest = grains.bytes.as_slice();
        let mut buffer = Vec::new();
        for (number, length) in (first..).zip(&grains.lengths) {
            if number / TABLE != self.number {
                self.flush()?;
                self.number = number / TABLE;
            }
            if *length == 0 {
                continue;
            }
            let (now, later) = rest.split_at(*length);
            rest = later;
            self.table[(number % TABLE) as usize] = self.place()?;
            buffer.clear();
            buffer.extend_from_slice(&(number * (GRAIN / SECTOR)).to_le_bytes());
            buffer.extend_from_slice(&(*length as u32).to_le_bytes());
            buffer.extend_from_slice(now);
            buffer.resize(buffer.len().next_multiple_of(SECTOR as usize), 0);
            self.stream.put(&buffer)?;
        }
        Ok(())
    }

    /// Where the next byte goes, in sectors.
    fn place(&self) -> Result<u32> {
        u32::try_from(self.stream.size() / SECTOR).map_err(|_| {
            Error::new("larger than the 2048 GiB that a virtual machine disk of this kind can have")
        })
    }

    fn marker(&mut self, sectors: u64, kind: u32) -> Result<()> {
        let mut marker = [0; SECTOR as usize];
        marker[..8].copy_from_slice(&sectors.to_le_bytes());
        // From 8 on the length of compressed bytes, of which a marker of this kind has none.
        marker[12..16].copy_from_slice(&kind.to_le_bytes());
        self.stream.put(&marker)
    }

    /// Writes the table, if there is something in it, and gives its numbers' room to the next one.
    fn flush(&mut self) -> Result<()> {
        if self.table.iter().all(|entry| *entry == 0) {
            return Ok(());
        }
        let table = little_endian(&self.table);
        self.marker(table.len() as u64 / SECTOR, MARKER_TABLE)?;
        self.directory[self.number as usize] = self.place()?;
        self.stream.put(&table)?;
        self.table.fill(0);
        Ok(())
    }

    fn finish(mut self, size: u64) -> Result<WrittenFile> {
        self.flush()?;
        let directory = little_endian(&self.directory);
        self.marker(directory.len() as u64 / SECTOR, MARKER_DIRECTORY)?;
        let at = u64::from(self.place()?);
        self.stream.put(&directory)?;
        self.marker(1, MARKER_FOOTER)?;
        self.stream.put(&header(size, at))?;
        // The end of the stream: a marker of nothing.
        self.stream.put(&[0; SECTOR as usize])?;
        self.stream.finish()
    }
}

/// Numbers in whole sectors.
fn little_endian(numbers: &[u32]) -> Vec<u8> {
    let mut bytes: Vec<u8> = numbers
        .iter()
        .flat_map(|number| number.to_le_bytes())
        .collect();
    bytes.resize(bytes.len().next_multiple_of(SECTOR as usize), 0);
    bytes
}

/// The header, and the footer, which is one more with the directory's place.
fn header(size: u64, directory: u64) -> Vec<u8> {
    let mut header = Vec::with_capacity(SECTOR as usize);
    header.extend_from_slice(b"KDMV");
    header.extend_from_slice(&VERSION.to_le_bytes());
    header.extend_from_slice(&FLAGS.to_le_bytes());
    for number in [size / SECTOR, GRAIN / SECTOR, 1, DESCRIPTOR_SECTORS] {
        header.extend_from_slice(&number.to_le_bytes());
    }
    header.extend_from_slice(&(TABLE as u32).to_le_bytes());
    // No second directory.
    for number in [0, directory, OVERHEAD / SECTOR] {
        header.extend_from_slice(&number.to_le_bytes());
    }
    // Closed as it should be; and bytes that a transfer as text would change.
    header.extend_from_slice(b"\0\n \r\n");
    // Compressed by DEFLATE.
    header.extend_from_slice(&1u16.to_le_bytes());
    header.resize(SECTOR as usize, 0);
    header
}

fn descriptor(size: u64, facts: &Facts) -> Result<Vec<u8>> {
    let content = Sha256::digest(
        [
            b"adamant vmdk content\0".as_slice(),
            &facts.guid.text_order(),
        ]
        .concat(),
    );
    // 0xffffffff means "no parent", 0xfffffffe "unknown".
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
    if bytes.len() as u64 > DESCRIPTOR_SECTORS * SECTOR {
        return Err(Error::new(
            "the image's id and version are too long for the disk's descriptor",
        ));
    }
    bytes.resize((DESCRIPTOR_SECTORS * SECTOR) as usize, 0);
    Ok(bytes)
}
