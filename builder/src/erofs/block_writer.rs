//! A writer that turns bytes into whole blocks.

use std::io;

use super::format::BLOCK;
use crate::error::{Context, Error, Result};

/// Blocks are collected up to this many bytes before they are written.
pub const CHUNK: usize = 1 << 20;

/// Block numbers have 32 bits.
pub fn too_large() -> Error {
    Error::new("the root file system would be larger than 16 TiB")
}

/// Collects bytes into blocks and writes them in large pieces.
pub struct BlockWriter<'a> {
    append: &'a mut dyn FnMut(&[u8]) -> io::Result<()>,
    buffer: Vec<u8>,
    /// The block that the buffer starts at.
    block: u64,
}

impl<'a> BlockWriter<'a> {
    /// Starts at block 1; `append` gets whole blocks, in order.
    pub fn new(append: &'a mut dyn FnMut(&[u8]) -> io::Result<()>) -> BlockWriter<'a> {
        BlockWriter {
            append,
            buffer: Vec::with_capacity(CHUNK + BLOCK),
            block: 1,
        }
    }

    /// Appends bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if self.buffer.is_empty() && bytes.len() >= CHUNK && bytes.len().is_multiple_of(BLOCK) {
            return self.append(bytes);
        }
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= CHUNK {
            self.flush()
        } else {
            Ok(())
        }
    }

    /// Fills the current block with zeros.
    pub fn pad_block(&mut self) -> Result<()> {
        self.pad_to(self.position().next_multiple_of(BLOCK as u64))
    }

    /// Writes zeros up to this byte of the file system.
    pub fn pad_to(&mut self, position: u64) -> Result<()> {
        let at = self.position();
        let mut gap = position.checked_sub(at).ok_or_else(|| {
            Error::new(format!(
                "byte {position} of the file system was assigned twice (byte {at} comes next); this is a bug in adamant"
            ))
        })?;
        while gap > 0 {
            let len = gap.min(CHUNK as u64);
            self.buffer.resize(self.buffer.len() + len as usize, 0);
            gap -= len;
            if self.buffer.len() >= CHUNK {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// The byte of the file system that is written next.
    pub fn position(&self) -> u64 {
        self.block * BLOCK as u64 + self.buffer.len() as u64
    }

    /// Writes everything out and gives the number of the next block. The last block must be full.
    pub fn next_block(&mut self) -> Result<u32> {
        self.flush()?;
        if !self.buffer.is_empty() {
            return Err(Error::new(
                "an area of the file system does not end with a block; this is a bug in adamant",
            ));
        }
        u32::try_from(self.block).map_err(|_| too_large())
    }

    fn flush(&mut self) -> Result<()> {
        let full = self.buffer.len() / BLOCK * BLOCK;
        if full > 0 {
            let buffer = std::mem::take(&mut self.buffer);
            let result = self.append(&buffer[..full]);
            self.buffer = buffer;
            self.buffer.drain(..full);
            result?;
        }
        Ok(())
    }

    fn append(&mut self, blocks: &[u8]) -> Result<()> {
        (self.append)(blocks).context(|| "writing its blocks")?;
        self.block += (blocks.len() / BLOCK) as u64;
        Ok(())
    }
}
