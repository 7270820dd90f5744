//! Blocks on their way out.

use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::format::BLOCK;
use crate::error::{Context, Error, Result};
use crate::source::spool::Spool;

/// Blocks are collected up to this many bytes before they are given out.
const CHUNK: usize = 1 << 20;

/// Block numbers have 32 bits.
pub fn too_large() -> Error {
    Error::new("the root file system would be larger than 16 TiB")
}

/// Collects bytes into blocks and gives them out in large pieces.
pub struct Out<'a> {
    append: &'a mut dyn FnMut(&[u8]) -> io::Result<()>,
    buffer: Vec<u8>,
    /// The block that the buffer starts at.
    block: u64,
}

impl<'a> Out<'a> {
    /// From block 1 on; `append` takes whole blocks, in order.
    pub fn new(append: &'a mut dyn FnMut(&[u8]) -> io::Result<()>) -> Out<'a> {
        Out {
            append,
            buffer: Vec::with_capacity(CHUNK + BLOCK),
            block: 1,
        }
    }

    /// The next bytes.
    pub fn put(&mut self, bytes: &[u8]) -> Result<()> {
        if self.buffer.is_empty() && bytes.len() >= CHUNK && bytes.len().is_multiple_of(BLOCK) {
            return self.give(bytes);
        }
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= CHUNK {
            self.flush()
        } else {
            Ok(())
        }
    }

    /// Fills the block up with zeros.
    pub fn pad(&mut self) -> Result<()> {
        self.pad_to(self.position().next_multiple_of(BLOCK as u64))
    }

    /// Fills up with zeros to this byte of the file system.
    pub fn pad_to(&mut self, position: u64) -> Result<()> {
        let mut gap = position
            .checked_sub(self.position())
            .ok_or_else(|| Error::new("two things were given one place"))?;
        while gap > 0 {
            let some = gap.min(CHUNK as u64);
            self.buffer.resize(self.buffer.len() + some as usize, 0);
            gap -= some;
            if self.buffer.len() >= CHUNK {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Where the next byte goes.
    pub fn position(&self) -> u64 {
        self.block * BLOCK as u64 + self.buffer.len() as u64
    }

    /// The block that comes next; everything given out, whole.
    pub fn block(&mut self) -> Result<u32> {
        self.flush()?;
        if !self.buffer.is_empty() {
            return Err(Error::new(
                "a part of the file system does not end with a block",
            ));
        }
        u32::try_from(self.block).map_err(|_| too_large())
    }

    fn flush(&mut self) -> Result<()> {
        let whole = self.buffer.len() / BLOCK * BLOCK;
        if whole > 0 {
            let buffer = std::mem::take(&mut self.buffer);
            let result = self.give(&buffer[..whole]);
            self.buffer = buffer;
            self.buffer.drain(..whole);
            result?;
        }
        Ok(())
    }

    fn give(&mut self, blocks: &[u8]) -> Result<()> {
        (self.append)(blocks).context(|| "writing its blocks")?;
        self.block += (blocks.len() / BLOCK) as u64;
        Ok(())
    }
}

/// Blocks that wait for their places.
pub struct Aside(Spool);

impl Aside {
    /// None yet; `folder` is where the file will be, without a name.
    pub fn new(folder: &Path) -> Result<Aside> {
        Ok(Aside(Spool::new(folder)?))
    }

    /// The next blocks, from number 1 on.
    pub fn append(&mut self, blocks: &[u8]) -> io::Result<()> {
        self.0.write_all(blocks)
    }

    /// Puts some of them out, by the numbers that they came with.
    pub fn copy(&self, start: u32, blocks: u32, out: &mut Out<'_>) -> Result<()> {
        let (mut at, end) = (
            u64::from(start - 1) * BLOCK as u64,
            (u64::from(start - 1) + u64::from(blocks)) * BLOCK as u64,
        );
        let mut buffer = vec![0; CHUNK.min((end - at) as usize)];
        while at < end {
            let some = buffer.len().min((end - at) as usize);
            self.0
                .file()
                .read_exact_at(&mut buffer[..some], at)
                .context(|| "reading contents again")?;
            out.put(&buffer[..some])?;
            at += some as u64;
        }
        Ok(())
    }
}
