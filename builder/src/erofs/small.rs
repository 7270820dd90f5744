//! Small files' compressed bytes, from when they are made until their inodes are written: in a
//! file, since there can be millions of them.

use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::format::BLOCK;
use crate::error::{Context, Result};
use crate::source::spool::Spool;

/// Bytes that are collected before they are written.
const BUFFER: usize = 256 << 10;

/// Where some bytes are kept, and in the lowest bits how many, in one number: there can be
/// millions.
#[derive(Debug, Clone, Copy)]
pub struct Kept(u64);

/// Bits that a length of at most a block takes.
const LEN_BITS: u32 = BLOCK.ilog2() + 1;

impl Kept {
    /// How many there are; at most a block.
    pub fn len(self) -> u16 {
        (self.0 & ((1 << LEN_BITS) - 1)) as u16
    }

    fn at(self) -> u64 {
        self.0 >> LEN_BITS
    }
}

/// What is kept.
pub struct Small {
    spool: Spool,
    buffer: Vec<u8>,
    len: u64,
}

impl Small {
    /// Nothing yet; `folder` is where the file will be, without a name.
    pub fn new(folder: &Path) -> Result<Small> {
        Ok(Small {
            spool: Spool::new(folder)?,
            buffer: Vec::new(),
            len: 0,
        })
    }

    /// Takes one file's bytes.
    pub fn keep(&mut self, bytes: &[u8]) -> Result<Kept> {
        let kept = Kept(self.len << LEN_BITS | bytes.len() as u64);
        self.buffer.extend_from_slice(bytes);
        self.len += bytes.len() as u64;
        if self.buffer.len() >= BUFFER {
            self.flush()
        } else {
            Ok(())
        }?;
        Ok(kept)
    }

    /// Before the first is read.
    pub fn flush(&mut self) -> Result<()> {
        self.spool
            .write_all(&self.buffer)
            .context(|| "keeping small files")?;
        self.buffer.clear();
        Ok(())
    }

    /// Gives one back.
    pub fn read(&self, kept: Kept) -> Result<Vec<u8>> {
        let mut bytes = vec![0; usize::from(kept.len())];
        let read: io::Result<()> = self.spool.file().read_exact_at(&mut bytes, kept.at());
        read.context(|| "reading small files again")?;
        Ok(bytes)
    }
}
