//! A file's bytes by reference: pieces of an archive, of a spool or of memory, with holes between
//! them.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crate::error::{Error, Result};

/// A file's bytes: pieces of other files or of memory, with holes between them.
#[derive(Clone, Debug)]
pub struct Content(Storage);

/// There can be millions. Nearly all are one piece of an archive, which needs no allocation.
#[derive(Clone, Debug)]
enum Storage {
    /// One piece of an open file.
    Whole {
        file: Arc<File>,
        offset: u64,
        len: u64,
    },
    /// Everything else.
    Pieces(Arc<Pieces>),
}

#[derive(Debug)]
struct Pieces {
    len: u64,
    /// In order, without overlaps, none empty, all within `len`.
    extents: Vec<ContentExtent>,
}

/// A piece of a file's bytes.
#[derive(Clone, Debug)]
pub struct ContentExtent {
    /// Offset in the file, bytes.
    pub at: u64,
    /// Length, bytes; never 0.
    pub len: u64,
    /// Its bytes.
    pub bytes: Bytes,
}

/// Location of bytes.
#[derive(Clone, Debug)]
pub enum Bytes {
    /// In memory: small generated files.
    Memory(Arc<[u8]>),
    /// In an open file (an archive or a spool), from this offset on. Read with pread, so
    /// several threads can share it.
    File(Arc<File>, u64),
}

impl Default for Content {
    fn default() -> Content {
        Content::pieces(0, Vec::new())
    }
}

impl Content {
    /// Bytes in memory.
    pub fn from_memory(bytes: impl Into<Arc<[u8]>>) -> Content {
        let bytes = bytes.into();
        let len = bytes.len() as u64;
        Content::pieces(
            len,
            if len == 0 {
                Vec::new()
            } else {
                vec![ContentExtent {
                    at: 0,
                    len,
                    bytes: Bytes::Memory(bytes),
                }]
            },
        )
    }

    /// A range of an open file.
    pub fn from_file(file: Arc<File>, offset: u64, len: u64) -> Content {
        if len == 0 {
            Content::default()
        } else {
            Content(Storage::Whole { file, offset, len })
        }
    }

    /// Pieces with holes between them. Pieces out of order, that overlap, or beyond the end are an
    /// error.
    pub fn sparse(len: u64, extents: Vec<ContentExtent>) -> Result<Content> {
        let mut end = 0;
        for extent in &extents {
            let next = extent.at.checked_add(extent.len);
            if extent.at < end || extent.len == 0 || next.is_none_or(|next| next > len) {
                return Err(Error::new(
                    "pieces of a sparse file overlap, or lie beyond its end",
                ));
            }
            end = next.unwrap_or(end);
        }
        Ok(match &extents[..] {
            [
                ContentExtent {
                    at: 0,
                    len: all,
                    bytes: Bytes::File(file, offset),
                },
            ] if *all == len => Content::from_file(file.clone(), *offset, len),
            _ => Content::pieces(len, extents),
        })
    }

    fn pieces(len: u64, extents: Vec<ContentExtent>) -> Content {
        Content(Storage::Pieces(Arc::new(Pieces { len, extents })))
    }

    /// Length in bytes, holes included.
    pub fn len(&self) -> u64 {
        match &self.0 {
            Storage::Whole { len, .. } => *len,
            Storage::Pieces(pieces) => pieces.len,
        }
    }

    /// Number of bytes that are not in holes.
    pub fn data_len(&self) -> u64 {
        self.extents().map(|extent| extent.len).sum()
    }

    /// Whether the length is 0.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The pieces in order; bytes between them are zero.
    pub fn extents(&self) -> impl Iterator<Item = ContentExtent> {
        let (whole, pieces) = match &self.0 {
            Storage::Whole { file, offset, len } => (
                Some(ContentExtent {
                    at: 0,
                    len: *len,
                    bytes: Bytes::File(file.clone(), *offset),
                }),
                &[][..],
            ),
            Storage::Pieces(pieces) => (None, &pieces.extents[..]),
        };
        whole.into_iter().chain(pieces.iter().cloned())
    }

    /// Fills `buf` with the bytes from `offset` on; the range must lie within the file.
    pub fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        if offset
            .checked_add(buf.len() as u64)
            .is_none_or(|end| end > self.len())
        {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match &self.0 {
            Storage::Whole {
                file,
                offset: start,
                ..
            } => file.read_exact_at(buf, start + offset),
            Storage::Pieces(pieces) => pieces.read_exact_at(offset, buf),
        }
    }

    /// A sequential reader from the start.
    pub fn reader(&self) -> ContentReader {
        ContentReader {
            content: self.clone(),
            at: 0,
        }
    }

    /// All bytes; an error if there are more than `limit`.
    pub fn to_vec(&self, limit: u64) -> io::Result<Vec<u8>> {
        if self.len() > limit {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!(
                    "it has {} bytes, more than the limit of {limit}",
                    self.len()
                ),
            ));
        }
        let mut bytes = vec![0; self.len() as usize];
        self.read_exact_at(0, &mut bytes)?;
        Ok(bytes)
    }
}

impl Pieces {
    /// Like [`Content::read_exact_at`], for a range within the file.
    fn read_exact_at(&self, mut offset: u64, mut buf: &mut [u8]) -> io::Result<()> {
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
                    Bytes::Memory(bytes) => {
                        buf[..take].copy_from_slice(&bytes[into as usize..into as usize + take])
                    }
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
}

/// Reads a content sequentially.
#[derive(Debug)]
pub struct ContentReader {
    content: Content,
    at: u64,
}

impl Read for ContentReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let take = (self.content.len() - self.at).min(buf.len() as u64) as usize;
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
        let extents = vec![
            ContentExtent {
                at: 2,
                len: 2,
                bytes: Bytes::Memory(Arc::from(*b"ab")),
            },
            ContentExtent {
                at: 4,
                len: 1,
                bytes: Bytes::Memory(Arc::from(*b"c")),
            },
        ];
        let content = Content::sparse(7, extents).unwrap();
        assert_eq!(content.to_vec(7).unwrap(), b"\0\0abc\0\0");
        let mut middle = [9; 3];
        content.read_exact_at(3, &mut middle).unwrap();
        assert_eq!(&middle, b"bc\0");
        assert!(content.read_exact_at(6, &mut middle).is_err());
    }
}
