//! DEFLATE (RFC 1951), plain or in a zlib stream (RFC 1950). What comes out depends on the input
//! alone: zlib-rs takes the same decisions on every processor.

use flate2::{Compress, Compression, FlushCompress, Status};

use crate::error::{Error, Result};

/// zlib's own default. The root is compressed already, so that higher levels gain nothing.
const LEVEL: u32 = 6;

/// A compressor with its working memory.
pub struct Deflate {
    engine: Compress,
}

impl Deflate {
    /// With zlib's header and checksum, or without; distances of at most 2 to the power of
    /// `window`.
    pub fn new(zlib: bool, window: u8) -> Deflate {
        Deflate {
            engine: Compress::new_with_window_bits(Compression::new(LEVEL), zlib, window),
        }
    }

    /// Compresses to the end of a stream, after what is in `out`.
    pub fn finish(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<()> {
        self.compress(input, out, FlushCompress::Finish)
    }

    /// Compresses into blocks that end on a byte, so that others can follow.
    pub fn flush(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<()> {
        self.compress(input, out, FlushCompress::Sync)
    }

    fn compress(&mut self, input: &[u8], out: &mut Vec<u8>, flush: FlushCompress) -> Result<()> {
        self.engine.reset();
        let mut taken = 0;
        loop {
            // What doesn't shrink is stored in blocks, with five bytes for each.
            out.reserve(input.len() - taken + (input.len() >> 8) + 64);
            let status = self
                .engine
                .compress_vec(&input[taken..], out, flush)
                .map_err(|error| Error::new(format!("deflate: {error}")))?;
            taken = self.engine.total_in() as usize;
            let complete = match flush {
                FlushCompress::Finish => status == Status::StreamEnd,
                // With room left, there was nothing more to say.
                _ => taken == input.len() && out.len() < out.capacity(),
            };
            if complete {
                return Ok(());
            }
        }
    }
}
