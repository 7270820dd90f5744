//! Part of a file: all of an artifact, or one partition of a disk image, read without being taken
//! out of it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};

/// Bytes read at a time to be hashed.
const CHUNK: u64 = 1 << 20;

/// What is wanted lies behind a part's end.
fn truncated(len: u64) -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        format!("truncated: it ends after {len} bytes, before the data that belongs there"),
    )
}

/// The last bytes of a file, at most so many.
pub fn last_bytes(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let len = file.metadata()?.len();
    file.seek(SeekFrom::Start(len.saturating_sub(most)))?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A range of bytes of an open file. Read with pread, so many threads can share it.
#[derive(Debug, Clone)]
pub struct Part {
    file: Arc<File>,
    start: u64,
    len: u64,
}

impl Part {
    /// All of a file, as long as it is now.
    pub fn whole(file: impl Into<Arc<File>>) -> io::Result<Part> {
        let file = file.into();
        let len = file.metadata()?.len();
        Ok(Part {
            file,
            start: 0,
            len,
        })
    }

    /// From a byte on, so many bytes; `None` where no offset can be that large.
    pub fn range(file: Arc<File>, start: u64, len: u64) -> Option<Part> {
        start.checked_add(len)?;
        Some(Part { file, start, len })
    }

    /// Its first bytes only; all of it where it is shorter.
    pub fn first(self, len: u64) -> Part {
        Part {
            len: self.len.min(len),
            ..self
        }
    }

    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Fills `buffer` from its byte `at`; what lies outside is an error.
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

    /// SHA-256 of all of it. `read` is told of the bytes as they are read, and ends it with an
    /// error.
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
