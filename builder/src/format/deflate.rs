//! DEFLATE (RFC 1951), plain or in a zlib stream (RFC 1950). The output depends on the input alone:
//! zlib-rs makes the same decisions on every processor.

use flate2::{Compress, Compression, FlushCompress, Status};

use crate::error::{Error, Result};

/// zlib's default. Higher levels gain nothing, because the root is compressed already.
const LEVEL: u32 = 6;

/// A compressor with its working memory.
pub struct Deflate {
    engine: Compress,
}

impl Deflate {
    /// `zlib` adds zlib's header and checksum. Distances are at most 2 to the power of `window`.
    pub fn new(zlib: bool, window: u8) -> Deflate {
        Deflate {
            engine: Compress::new_with_window_bits(Compression::new(LEVEL), zlib, window),
        }
    }

    /// Appends a complete stream to `out`.
    pub fn finish(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<()> {
        self.compress(input, out, FlushCompress::Finish)
    }

    /// Appends blocks that end on a byte boundary, so that further blocks can follow.
    pub fn flush(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<()> {
        self.compress(input, out, FlushCompress::Sync)
    }

    fn compress(&mut self, input: &[u8], out: &mut Vec<u8>, flush: FlushCompress) -> Result<()> {
        self.engine.reset();
        let mut taken = 0;
        loop {
            // Incompressible data is stored in blocks of at most 64 KiB, each with five bytes more.
            out.reserve(input.len() - taken + (input.len() >> 8) + 64);
            let status = self
                .engine
                .compress_vec(&input[taken..], out, flush)
                .map_err(|error| Error::new(format!("deflate: {error}")))?;
            taken = self.engine.total_in() as usize;
            let complete = match flush {
                FlushCompress::Finish => status == Status::StreamEnd,
                // Room is left in the output, so the flush is complete.
                _ => taken == input.len() && out.len() < out.capacity(),
            };
            if complete {
                return Ok(());
            }
        }
    }
}
