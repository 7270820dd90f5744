//! The bytes of inline clusters, from compression until their inodes are written. They are kept in
//! a file, because there can be millions of them.

use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::format::BLOCK;
use crate::error::{Context, Result};
use crate::source::spool::Spool;

/// Bytes that are collected before they are written.
const BUFFER: usize = 256 << 10;

/// Position and length of some bytes in the spool. Both are packed into one number, because there
/// can be millions.
#[derive(Debug, Clone, Copy)]
pub struct SpoolRef(u64);

/// Bits for a length of at most a block.
const LEN_BITS: u32 = BLOCK.ilog2() + 1;

impl SpoolRef {
    /// Number of bytes; at most a block.
    pub fn len(self) -> u16 {
        (self.0 & ((1 << LEN_BITS) - 1)) as u16
    }

    fn offset(self) -> u64 {
        self.0 >> LEN_BITS
    }
}

/// An unnamed file with the bytes of inline clusters.
pub struct InlineSpool {
    spool: Spool,
    buffer: Vec<u8>,
    len: u64,
}

impl InlineSpool {
    /// An empty spool on the file system of `folder`.
    pub fn new(folder: &Path) -> Result<InlineSpool> {
        Ok(InlineSpool {
            spool: Spool::new(folder)?,
            buffer: Vec::new(),
            len: 0,
        })
    }

    /// Appends the bytes of one file, at most a block.
    pub fn append(&mut self, bytes: &[u8]) -> Result<SpoolRef> {
        let reference = SpoolRef(self.len << LEN_BITS | bytes.len() as u64);
        self.buffer.extend_from_slice(bytes);
        self.len += bytes.len() as u64;
        if self.buffer.len() >= BUFFER {
            self.flush()?;
        }
        Ok(reference)
    }

    /// Writes the buffer out. Call it before the first [`InlineSpool::read`].
    pub fn flush(&mut self) -> Result<()> {
        self.spool
            .write_all(&self.buffer)
            .context(|| "writing small compressed files to the spool")?;
        self.buffer.clear();
        Ok(())
    }

    /// The bytes of one file.
    pub fn read(&self, reference: SpoolRef) -> Result<Vec<u8>> {
        let mut bytes = vec![0; usize::from(reference.len())];
        self.spool
            .file()
            .read_exact_at(&mut bytes, reference.offset())
            .context(|| "reading small compressed files from the spool")?;
        Ok(bytes)
    }
}
