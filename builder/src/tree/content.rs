//! A file's bytes, which stay where they are: pieces of an archive, of a spool or of memory, with holes between them.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crate::error::{Error, Result};

/// A file's bytes: pieces of other files, with holes between them.
#[derive(Clone, Debug, Default)]
pub struct Content {
    len: u64,
    /// In order, not overlapping, none empty, all within `len`.
    extents: Arc<[Extent]>,
}

/// A piece of a file's bytes.
#[derive(Clone, Debug)]
pub struct Extent {
    /// Where it stands in the file, bytes.
    pub at: u64,
    /// How long it is, bytes; never 0.
    pub len: u64,
    /// Where its bytes are.
    pub bytes: Bytes,
}

/// Where bytes are.
#[derive(Clone, Debug)]
pub enum Bytes {
    /// In memory: small generated files.
    Memory(Arc<[u8]>),
    /// In an open file (an archive or a spool), from this offset on. Read with pread, so many threads can share it.
    File(Arc<File>, u64),
}

impl Content {
    /// Bytes that are in memory.
    pub fn from_memory(bytes: impl Into<Arc<[u8]>>) -> Content {
        let bytes = bytes.into();
        let len = bytes.len() as u64;
        let extents = if len == 0 { Arc::default() } else { Arc::from([Extent { at: 0, len, bytes: Bytes::Memory(bytes) }]) };
        Content { len, extents }
    }

    /// A range of an open file.
    pub fn from_file(file: Arc<File>, offset: u64, len: u64) -> Content {
        let extents = if len == 0 { Arc::default() } else { Arc::from([Extent { at: 0, len, bytes: Bytes::File(file, offset) }]) };
        Content { len, extents }
    }

    /// Pieces with holes between them. The caller has checked what `Content` promises of them; a wrong order is an error.
    pub fn sparse(len: u64, extents: Vec<Extent>) -> Result<Content> {
        let mut end = 0;
        for extent in &extents {
            let next = extent.at.checked_add(extent.len);
            if extent.at < end || extent.len == 0 || next.is_none_or(|next| next > len) {
                return Err(Error::new("pieces of a sparse file overlap or lie beyond its end"));
            }
            end = next.unwrap_or(end);
        }
        Ok(Content { len, extents: extents.into() })
    }

    /// Length in bytes, holes included.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The pieces; what lies between them is zero.
    pub fn extents(&self) -> &[Extent] {
        &self.extents
    }

    /// Fills `buf` with the bytes from `offset` on; the range must lie within the file.
    pub fn read_exact_at(&self, mut offset: u64, mut buf: &mut [u8]) -> io::Result<()> {
        if offset.checked_add(buf.len() as u64).is_none_or(|end| end > self.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut index = self.extents.partition_point(|e| e.at + e.len <= offset);
        while !buf.is_empty() {
            let gap = match self.extents.get(index) {
                Some(extent) if extent.at <= offset => 0,
                Some(extent) => extent.at - offset,
                None => self.len - offset,
            };
            let (take, skip);
            if gap > 0 {
                take = gap.min(buf.len() as u64) as usize;
                buf[..take].fill(0);
                skip = 0;
            } else {
                let extent = &self.extents[index];
                let into = offset - extent.at;
                take = (extent.len - into).min(buf.len() as u64) as usize;
                match &extent.bytes {
                    Bytes::Memory(bytes) => buf[..take].copy_from_slice(&bytes[into as usize..into as usize + take]),
                    Bytes::File(file, at) => file.read_exact_at(&mut buf[..take], at + into)?,
                }
                skip = usize::from(into + take as u64 == extent.len);
            }
            index += skip;
            offset += take as u64;
            buf = &mut buf[take..];
        }
        Ok(())
    }

    /// A sequential reader from the start.
    pub fn reader(&self) -> ContentReader {
        ContentReader { content: self.clone(), at: 0 }
    }

    /// All bytes, refused when they are more than `limit`.
    pub fn to_vec(&self, limit: u64) -> io::Result<Vec<u8>> {
        if self.len > limit {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("{} bytes, more than the {limit} expected here", self.len)));
        }
        let mut bytes = vec![0; self.len as usize];
        self.read_exact_at(0, &mut bytes)?;
        Ok(bytes)
    }
}

/// Reads a content from its start to its end.
#[derive(Debug)]
pub struct ContentReader {
    content: Content,
    at: u64,
}

impl Read for ContentReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let take = (self.content.len - self.at).min(buf.len() as u64) as usize;
        self.content.read_exact_at(self.at, &mut buf[..take])?;
        self.at += take as u64;
        Ok(take)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_read_as_zero() {
        let extents = vec![Extent { at: 2, len: 2, bytes: Bytes::Memory(Arc::from(*b"ab")) }, Extent { at: 4, len: 1, bytes: Bytes::Memory(Arc::from(*b"c")) }];
        let content = Content::sparse(7, extents).unwrap();
        assert_eq!(content.to_vec(7).unwrap(), b"\0\0abc\0\0");
        let mut middle = [9; 3];
        content.read_exact_at(3, &mut middle).unwrap();
        assert_eq!(&middle, b"bc\0");
        assert!(content.read_exact_at(6, &mut middle).is_err());
    }
}
