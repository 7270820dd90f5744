//! Writing from front to end, hashed on the way; what is zero stays a hole.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use nix::libc;
use sha2::{Digest, Sha256};

use super::WrittenFile;
use crate::error::{Context, Error, Result};
use crate::io::part::Part;

/// A file, or the rest of one from some byte on, written in order.
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

    /// Bytes so far.
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

    /// Leaves out zeros until this many bytes are there.
    pub fn zeros_until(&mut self, size: u64) {
        while self.size < size {
            let take = (size - self.size).min(ZEROS.len() as u64);
            self.hash.update(&ZEROS[..take as usize]);
            self.size += take;
        }
    }

    /// Writes zeros to the next multiple.
    pub fn pad(&mut self, multiple: u64) {
        self.zeros_until(self.size.next_multiple_of(multiple));
    }

    /// All of it, with zeros at the end.
    pub fn finish(self) -> Result<WrittenFile> {
        let end = self.start + self.size;
        // The last bytes may have been a hole.
        if self.out.metadata().context(|| "writing")?.len() < end {
            self.out.set_len(end).map_err(failed)?;
        }
        Ok(WrittenFile {
            size: self.size,
            sha256: self.hash.finalize().into(),
        })
    }
}

/// Writes at any place.
pub fn write_at(out: &File, bytes: &[u8], at: u64) -> Result<()> {
    out.write_all_at(bytes, at).map_err(failed)
}

/// What was written, read once more: for formats that can't be written from front to end.
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
    let said = Error::new(format!("writing: {error}"));
    if full {
        said.hint("make room beside the output folder, or give another one with --output; the disk's other formats need room too")
    } else {
        said
    }
}
