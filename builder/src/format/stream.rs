//! Writes a file from front to end and hashes it at the same time. Zeros stay holes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use nix::libc;
use sha2::{Digest, Sha256};

use super::WrittenFile;
use crate::error::{Context, Error, Result};
use crate::io::part::Part;

/// A file, or its rest from some offset, that is written in order.
pub struct Stream<'a> {
    out: &'a File,
    start: u64,
    size: u64,
    hash: Sha256,
}

static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

impl<'a> Stream<'a> {
    /// Starts at byte `start` of `out`.
    pub fn new(out: &'a File, start: u64) -> Stream<'a> {
        Stream {
            out,
            start,
            size: 0,
            hash: Sha256::new(),
        }
    }

    /// Bytes that were written so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Writes these bytes.
    pub fn put(&mut self, bytes: &[u8]) -> Result<()> {
        write_at(self.out, bytes, self.start + self.size)?;
        self.hash.update(bytes);
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// Adds zeros, as a hole, until the stream has this size.
    pub fn zeros_until(&mut self, size: u64) {
        while self.size < size {
            let take = (size - self.size).min(ZEROS.len() as u64);
            self.hash.update(&ZEROS[..take as usize]);
            self.size += take;
        }
    }

    /// Adds zeros up to the next multiple.
    pub fn pad(&mut self, multiple: u64) {
        self.zeros_until(self.size.next_multiple_of(multiple));
    }

    /// Ends the stream, and sets the size of the file if the stream ends in a hole.
    pub fn finish(self) -> Result<WrittenFile> {
        let end = self.start + self.size;
        if self.out.metadata().context(|| "writing")?.len() < end {
            self.out.set_len(end).map_err(failed)?;
        }
        Ok(WrittenFile {
            size: self.size,
            sha256: self.hash.finalize().into(),
        })
    }
}

/// Writes bytes at an offset.
pub fn write_at(out: &File, bytes: &[u8], at: u64) -> Result<()> {
    out.write_all_at(bytes, at).map_err(failed)
}

/// Hashes a written file by reading it again, for formats that can't be written from front to end.
pub fn read_back(out: &File) -> Result<WrittenFile> {
    let part = out
        .try_clone()
        .and_then(Part::whole)
        .context(|| "reading back")?;
    Ok(WrittenFile {
        size: part.len(),
        sha256: part.sha256(|_| Ok(())).context(|| "reading back")?,
    })
}

fn failed(error: io::Error) -> Error {
    let full = matches!(
        error.raw_os_error(),
        Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG)
    );
    let error = Error::new(format!("writing: {error}"));
    if full {
        error.hint("free space in the output directory's file system, or name another directory with --output; each format of the disk needs space")
    } else {
        error
    }
}
