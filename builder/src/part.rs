//! Part of a file: all of an artifact, or one partition of a disk image, read without being taken out of it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

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
        Ok(Part { file, start: 0, len })
    }

    /// From a byte on, so many bytes; `None` where no offset can be that large.
    pub fn range(file: Arc<File>, start: u64, len: u64) -> Option<Part> {
        start.checked_add(len)?;
        Some(Part { file, start, len })
    }

    /// Its first bytes only; all of it where it is shorter.
    pub fn first(self, len: u64) -> Part {
        Part { len: self.len.min(len), ..self }
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
        if at.checked_add(buffer.len() as u64).is_none_or(|end| end > self.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.file.read_exact_at(buffer, self.start + at)
    }
}
