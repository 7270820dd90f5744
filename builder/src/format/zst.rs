//! The raw disk, compressed with zstd.
//!
//! Format: RFC 8878. Each piece is a frame, so the bytes do not depend on the number of threads,
//! and several threads can also decompress.

use std::fs::File;

use zstd_safe::{CCtx, CParameter};

use super::pieces::{Raw, map_pieces};
use super::stream::Stream;
use super::{Facts, WrittenFile};
use crate::error::{Error, Result};

/// Bytes of the disk in one frame.
const PIECE: u64 = 2 << 20;
/// Highest level at which four threads do not exceed the promised memory.
const LEVEL: i32 = 8;
/// Upper bound of threads. More would exceed the promised memory.
const THREADS: usize = 4;

pub fn write(raw: Raw, _facts: &Facts, out: &File, jobs: usize) -> Result<WrittenFile> {
    let mut stream = Stream::new(out, 0);
    let mut zeros = Zeros {
        frame: frame(&mut context()?, &vec![0; PIECE as usize])?,
        until: 0,
    };
    map_pieces(
        raw,
        PIECE,
        jobs.min(THREADS),
        || {
            let mut context = context()?;
            Ok(move |bytes: &[u8]| frame(&mut context, bytes))
        },
        |at, frame| {
            zeros.until(at, &mut stream)?;
            zeros.until = (at + PIECE).min(raw.size);
            stream.put(&frame)
        },
    )?;
    zeros.until(raw.size, &mut stream)?;
    stream.finish()
}

/// Writes frames of zeros, which are all equal except for the disk's last piece.
struct Zeros {
    frame: Vec<u8>,
    /// Bytes of the disk that are written so far.
    until: u64,
}

impl Zeros {
    fn until(&mut self, end: u64, stream: &mut Stream) -> Result<()> {
        while self.until < end {
            let take = (end - self.until).min(PIECE);
            if take == PIECE {
                stream.put(&self.frame)?;
            } else {
                stream.put(&frame(&mut context()?, &vec![0; take as usize])?)?;
            }
            self.until += take;
        }
        Ok(())
    }
}

fn context() -> Result<CCtx<'static>> {
    let mut context = CCtx::try_create().ok_or_else(|| Error::new("zstd: out of memory"))?;
    for parameter in [
        CParameter::CompressionLevel(LEVEL),
        CParameter::ChecksumFlag(true),
    ] {
        context.set_parameter(parameter).map_err(failed)?;
    }
    Ok(context)
}

fn frame(context: &mut CCtx, bytes: &[u8]) -> Result<Vec<u8>> {
    let mut frame = Vec::with_capacity(zstd_safe::compress_bound(bytes.len()));
    context.compress2(&mut frame, bytes).map_err(failed)?;
    Ok(frame)
}

fn failed(code: usize) -> Error {
    Error::new(format!("zstd: {}", zstd_safe::get_error_name(code)))
}
