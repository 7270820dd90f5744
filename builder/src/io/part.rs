//! Parts of files: an artifact, or one partition inside a disk image.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};

/// Bytes of one read.
const CHUNK: u64 = 1 << 20;

/// The error about a read beyond the end of a part.
fn truncated(len: u64) -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        format!("truncated: it ends after {len} bytes, before the data that belongs there"),
    )
}

/// Reads the last bytes of a file, at most `limit`.
pub fn last_bytes(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let len = file.metadata()?.len();
    file.seek(SeekFrom::Start(len.saturating_sub(limit)))?;
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A range of bytes of an open file. It is read with pread, so threads can share it.
#[derive(Debug, Clone)]
pub struct Part {
    file: Arc<File>,
    start: u64,
    len: u64,
}

impl Part {
    /// A complete file, with its current length.
    pub fn whole(file: impl Into<Arc<File>>) -> io::Result<Part> {
        let file = file.into();
        let len = file.metadata()?.len();
        Ok(Part {
            file,
            start: 0,
            len,
        })
    }

    /// `len` bytes from byte `start` on; `None` if the end exceeds the largest offset.
    pub fn range(file: Arc<File>, start: u64, len: u64) -> Option<Part> {
        start.checked_add(len)?;
        Some(Part { file, start, len })
    }

    /// The first `len` bytes, or all if there are fewer.
    pub fn first(self, len: u64) -> Part {
        Part {
            len: self.len.min(len),
            ..self
        }
    }

    /// The length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the part is empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Fills `buffer` with the bytes from `at` on. A read beyond the end is an error.
    pub fn read_exact_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        if at
            .checked_add(buffer.len() as u64)
            .is_none_or(|end| end > self.len)
        {
            return Err(truncated(self.len));
        }
        self.file
            .read_exact_at(buffer, self.start + at)
            .map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => truncated(
                    self.file
                        .metadata()
                        .map_or(0, |meta| meta.len().saturating_sub(self.start)),
                ),
                _ => error,
            })
    }

    /// Computes the SHA-256. `read` is called with the number of bytes after each read; its error
    /// ends the computation.
    pub fn sha256(&self, mut read: impl FnMut(u64) -> io::Result<()>) -> io::Result<[u8; 32]> {
        let (mut hash, mut buffer, mut at) =
            (Sha256::new(), vec![0; CHUNK.min(self.len) as usize], 0);
        while at < self.len {
            let take = (self.len - at).min(CHUNK);
            let bytes = &mut buffer[..take as usize];
            self.read_exact_at(bytes, at)?;
            hash.update(bytes);
            read(take)?;
            at += take;
        }
        Ok(hash.finalize().into())
    }
}
