//! What Google Compute Engine makes an image from: `disk.raw` in a tar archive, compressed by gzip.
//!
//! Formats: Google's "Create a custom image from an existing disk" (the file's name, the old GNU
//! format of tar, holes, a size of whole GiB); RFC 1952 for gzip. One gzip stream whose blocks are
//! compressed apart, so that several threads can, and end on bytes.

use std::fs::File;
use std::ops::Range;

use flate2::Crc;

use super::deflate::Deflate;
use super::pieces::{Raw, each};
use super::stream::Stream;
use super::{Facts, WrittenFile, tar};
use crate::error::Result;

/// The disk's size is rounded up to this, bytes.
const WHOLE: u64 = 1 << 30;
const PIECE: u64 = 1 << 20;
const NAME: &str = "disk.raw";
/// tar pads archives to this.
const RECORD: u64 = 20 * tar::BLOCK;
/// More threads would take more memory than is promised.
const THREADS: usize = 12;
/// Magic, DEFLATE, no flags, no time, no hint on effort, unknown system.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

pub fn write(raw: Raw, facts: &Facts, out: &File, jobs: usize) -> Result<WrittenFile> {
    let jobs = jobs.min(THREADS);
    // The header lists what follows. Holes would do if all file systems had the same ones.
    let mut data: Vec<Range<u64>> = Vec::new();
    each(
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
    let header = tar::sparse(NAME, raw.size.next_multiple_of(WHOLE), &data, facts.epoch)?;

    let mut gzip = Gzip {
        stream: Stream::new(out, 0),
        sum: Crc::new(),
        length: 0,
    };
    gzip.stream.put(&HEADER)?;
    let mut deflate = Deflate::new(false, 15);
    gzip.put(Block::new(&header, &mut deflate)?)?;
    each(
        raw,
        PIECE,
        jobs,
        || {
            let mut deflate = Deflate::new(false, 15);
            Ok(move |bytes: &[u8]| Block::new(bytes, &mut deflate))
        },
        |_, block| gzip.put(block),
    )?;
    // Two empty blocks end an archive.
    let end = (gzip.length + 2 * tar::BLOCK).next_multiple_of(RECORD) - gzip.length;
    gzip.finish(&vec![0; end as usize], &mut deflate)
}

/// Some bytes of the archive, compressed.
struct Block {
    bytes: Vec<u8>,
    sum: Crc,
    length: u64,
}

impl Block {
    fn new(plain: &[u8], deflate: &mut Deflate) -> Result<Block> {
        let (mut bytes, mut sum) = (Vec::new(), Crc::new());
        deflate.flush(plain, &mut bytes)?;
        sum.update(plain);
        Ok(Block {
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
    fn put(&mut self, block: Block) -> Result<()> {
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
