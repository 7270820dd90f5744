//! The input of an image on Google Compute Engine: `disk.raw` in a tar archive, compressed by gzip.
//!
//! Formats: Google's "Create a custom image from an existing disk" (the file's name, the old GNU
//! format of tar, holes, a size of whole GiB); RFC 1952 for gzip. The archive is one gzip stream.
//! Threads compress its pieces independently, so each piece ends on a byte boundary.

use std::fs::File;
use std::ops::Range;

use flate2::Crc;

use super::deflate::Deflate;
use super::pieces::{Raw, map_pieces};
use super::stream::Stream;
use super::{Facts, WrittenFile, tar};
use crate::error::Result;

/// The disk's size is rounded up to a multiple of this, bytes.
const SIZE_UNIT: u64 = 1 << 30;
const PIECE: u64 = 1 << 20;
const NAME: &str = "disk.raw";
/// tar pads archives to a multiple of this, bytes.
const RECORD: u64 = 20 * tar::BLOCK;
/// Upper bound of threads. More would exceed the promised memory.
const THREADS: usize = 12;
/// Magic number, DEFLATE, no flags, no time, no extra flags, unknown operating system.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

pub fn write(raw: Raw, facts: &Facts, out: &File, jobs: usize) -> Result<WrittenFile> {
    let jobs = jobs.min(THREADS);
    // The header lists the ranges of data. They come from the content and not from the file's
    // holes, which differ between file systems.
    let mut data: Vec<Range<u64>> = Vec::new();
    map_pieces(
        raw,
        PIECE,
        jobs,
        || Ok(|_: &[u8]| Ok(())),
        |at, ()| {
            let end = (at + PIECE).min(raw.size);
            match data.last_mut() {
                Some(before) if before.end == at => before.end = end,
                _ => data.push(at..end),
            }
            Ok(())
        },
    )?;
    let header = tar::sparse(
        NAME,
        raw.size.next_multiple_of(SIZE_UNIT),
        &data,
        facts.epoch,
    )?;

    let mut gzip = Gzip {
        stream: Stream::new(out, 0),
        sum: Crc::new(),
        length: 0,
    };
    gzip.stream.put(&HEADER)?;
    let mut deflate = Deflate::new(false, 15);
    gzip.put(GzipBlock::new(&header, &mut deflate)?)?;
    map_pieces(
        raw,
        PIECE,
        jobs,
        || {
            let mut deflate = Deflate::new(false, 15);
            Ok(move |bytes: &[u8]| GzipBlock::new(bytes, &mut deflate))
        },
        |_, block| gzip.put(block),
    )?;
    // Two blocks of zeros end an archive.
    let end = (gzip.length + 2 * tar::BLOCK).next_multiple_of(RECORD) - gzip.length;
    gzip.finish(&vec![0; end as usize], &mut deflate)
}

/// A compressed piece of the archive.
struct GzipBlock {
    bytes: Vec<u8>,
    sum: Crc,
    length: u64,
}

impl GzipBlock {
    fn new(plain: &[u8], deflate: &mut Deflate) -> Result<GzipBlock> {
        let (mut bytes, mut sum) = (Vec::new(), Crc::new());
        deflate.flush(plain, &mut bytes)?;
        sum.update(plain);
        Ok(GzipBlock {
            bytes,
            sum,
            length: plain.len() as u64,
        })
    }
}

struct Gzip<'a> {
    stream: Stream<'a>,
    sum: Crc,
    length: u64,
}

impl Gzip<'_> {
    fn put(&mut self, block: GzipBlock) -> Result<()> {
        self.stream.put(&block.bytes)?;
        self.sum.combine(&block.sum);
        self.length += block.length;
        Ok(())
    }

    fn finish(mut self, last: &[u8], deflate: &mut Deflate) -> Result<WrittenFile> {
        let mut bytes = Vec::new();
        deflate.finish(last, &mut bytes)?;
        self.sum.update(last);
        self.length += last.len() as u64;
        bytes.extend_from_slice(&self.sum.sum().to_le_bytes());
        bytes.extend_from_slice(&(self.length as u32).to_le_bytes());
        self.stream.put(&bytes)?;
        self.stream.finish()
    }
}
