//! Blocks of contents whose final position is not known yet.

use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::block_writer::{BlockWriter, CHUNK};
use super::format::BLOCK;
use crate::error::{Context, Result};
use crate::source::spool::Spool;

/// An unnamed file with blocks, numbered from 1 on as they come.
pub struct ContentSpool(Spool);

impl ContentSpool {
    /// An empty spool on the file system of `folder`.
    pub fn new(folder: &Path) -> Result<ContentSpool> {
        Ok(ContentSpool(Spool::new(folder)?))
    }

    /// Appends whole blocks.
    pub fn append(&mut self, blocks: &[u8]) -> io::Result<()> {
        self.0.write_all(blocks)
    }

    /// Writes `blocks` blocks to `out`, from number `start` on.
    pub fn copy(&self, start: u32, blocks: u32, out: &mut BlockWriter<'_>) -> Result<()> {
        let mut at = u64::from(start - 1) * BLOCK as u64;
        let end = at + u64::from(blocks) * BLOCK as u64;
        let mut buffer = vec![0; CHUNK.min((end - at) as usize)];
        while at < end {
            let len = buffer.len().min((end - at) as usize);
            self.0
                .file()
                .read_exact_at(&mut buffer[..len], at)
                .context(|| "reading contents from the spool")?;
            out.write(&buffer[..len])?;
            at += len as u64;
        }
        Ok(())
    }
}
