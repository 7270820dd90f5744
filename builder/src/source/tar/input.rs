//! Reads an archive's bytes and stores the contents of its files. A plain archive keeps the
//! contents in its own file. Other archives are unpacked into a spool (or into memory) while they
//! are read.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::header::{BLOCK, TarBlock};
use crate::error::{Context, Error, Result, from_io};
use crate::source::spool::Spool;
use crate::tree::{Bytes, Content, ContentExtent};

/// Maximum number of zeroes after the end of the archive: writers pad their last record, which has
/// 10 KiB and rarely a few MiB.
const FILL_MAX: u64 = 64 << 20;
/// Bytes to read ahead in plain archives; most headers are near each other.
const WINDOW: usize = 64 << 10;

/// An open archive.
pub struct Input<'a> {
    from: From<'a>,
    at: u64,
}

enum From<'a> {
    /// A plain archive: its length, and the bytes read ahead with their offset.
    Plain {
        file: Arc<File>,
        len: u64,
        window: Vec<u8>,
        start: u64,
    },
    /// A stream that can be read once.
    Stream {
        read: Box<dyn Read + 'a>,
        sink: Sink,
    },
}

/// Storage for file contents from a stream.
pub enum Sink {
    /// An unnamed file.
    Spool(Spool),
    /// Memory.
    Memory,
}

/// The stored bytes of a file, from which pieces can be taken.
pub struct Held(Bytes);

impl Held {
    /// The piece of `len` bytes at `offset`.
    pub fn piece(&self, offset: u64, len: u64) -> Bytes {
        match &self.0 {
            Bytes::File(file, start) => Bytes::File(file.clone(), start + offset),
            Bytes::Memory(bytes) => {
                Bytes::Memory(bytes[offset as usize..(offset + len) as usize].into())
            }
        }
    }

    /// All `len` bytes as the content of a file.
    pub fn content(self, len: u64) -> Result<Content> {
        if len == 0 {
            return Ok(Content::default());
        }
        Content::sparse(
            len,
            vec![ContentExtent {
                at: 0,
                len,
                bytes: self.0,
            }],
        )
    }
}

impl<'a> Input<'a> {
    /// A plain archive in a file of this length.
    pub fn plain(file: Arc<File>, len: u64) -> Input<'a> {
        Input {
            from: From::Plain {
                file,
                len,
                window: Vec::new(),
                start: 0,
            },
            at: 0,
        }
    }

    /// A stream: an archive that is decompressed or comes through a pipe.
    pub fn stream(read: Box<dyn Read + 'a>, sink: Sink) -> Input<'a> {
        Input {
            from: From::Stream { read, sink },
            at: 0,
        }
    }

    /// The current offset in unpacked bytes.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// The next block; `None` at the end of the input.
    pub fn block(&mut self) -> Result<Option<TarBlock>> {
        let mut block = [0; BLOCK];
        match self.fill(&mut block)? {
            0 => Ok(None),
            BLOCK => Ok(Some(block)),
            _ => Err(self.truncated()),
        }
    }

    /// The next block; an error at the end of the input.
    pub fn expect_block(&mut self) -> Result<TarBlock> {
        self.block()?.ok_or_else(|| self.truncated())
    }

    /// The next `len` bytes and their padding to a full block. The caller bounds `len`.
    pub fn bytes(&mut self, len: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; len.next_multiple_of(BLOCK)];
        if self.fill(&mut bytes)? < bytes.len() {
            return Err(self.truncated());
        }
        bytes.truncate(len);
        Ok(bytes)
    }

    /// Skips the bytes of a file and their padding.
    pub fn skip(&mut self, len: u64) -> Result<()> {
        let (fill, end) = self.end_of(len)?;
        match &mut self.from {
            From::Plain { len: all, .. } if end > *all => return Err(self.truncated()),
            From::Plain { .. } => {}
            From::Stream { read, .. } => {
                if io::copy(&mut read.by_ref().take(len + fill), &mut io::sink())
                    .map_err(unpacking)?
                    < len + fill
                {
                    return Err(self.truncated());
                }
            }
        }
        self.at = end;
        Ok(())
    }

    /// The number of padding bytes after content of length `len`, and the offset of the next block.
    fn end_of(&self, len: u64) -> Result<(u64, u64)> {
        let fill = len.wrapping_neg() % BLOCK as u64;
        let end = self
            .at
            .checked_add(len)
            .and_then(|end| end.checked_add(fill))
            .ok_or_else(|| self.truncated())?;
        Ok((fill, end))
    }

    /// Stores the bytes of a file and skips the padding.
    pub fn hold(&mut self, len: u64) -> Result<Held> {
        let (fill, end) = self.end_of(len)?;
        let held = match &mut self.from {
            From::Plain { len: all, .. } if end > *all => return Err(self.truncated()),
            From::Plain { file, .. } => Held(Bytes::File(file.clone(), self.at)),
            From::Stream { read, sink } => {
                let mut content = read.by_ref().take(len);
                let (bytes, count) = match sink {
                    Sink::Spool(spool) => {
                        let (start, count) = spool.append(&mut content, &unpacking)?;
                        (Bytes::File(spool.file().clone(), start), count)
                    }
                    Sink::Memory => {
                        let mut bytes = Vec::new();
                        content.read_to_end(&mut bytes).map_err(unpacking)?;
                        let count = bytes.len() as u64;
                        (Bytes::Memory(bytes.into()), count)
                    }
                };
                if count < len
                    || io::copy(&mut read.by_ref().take(fill), &mut io::sink())
                        .map_err(unpacking)?
                        < fill
                {
                    return Err(self.truncated());
                }
                Held(bytes)
            }
        };
        self.at = end;
        Ok(held)
    }

    /// Reads the bytes after the end of the archive: a bounded number of zeroes.
    pub fn finish(&mut self) -> Result<()> {
        let end = self.at;
        let mut bytes = [0; 8192];
        loop {
            let count = self.fill(&mut bytes)?;
            if bytes[..count].iter().any(|&byte| byte != 0) {
                let error = Error::new(format!("the archive has data after its end at byte {end}"));
                return Err(error.hint("if the file holds several archives: give each a [[source]] of its own, or join them with `tar --concatenate`"));
            }
            if count < bytes.len() {
                return Ok(());
            }
            if self.at - end > FILL_MAX {
                return Err(Error::new(format!(
                    "more than {FILL_MAX} zeroes follow the end of the archive at byte {end}"
                ))
                .hint("remove the zeroes after the end of the archive"));
            }
        }
    }

    /// Fills the buffer as far as the input reaches.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            let count = match &mut self.from {
                From::Stream { read, .. } => match read.read(&mut buffer[done..]) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    other => other.map_err(unpacking)?,
                },
                From::Plain {
                    file,
                    len,
                    window,
                    start,
                } => {
                    if self.at < *start || self.at >= *start + window.len() as u64 {
                        let take = len.saturating_sub(self.at).min(WINDOW as u64) as usize;
                        window.resize(take, 0);
                        *start = self.at;
                        file.read_exact_at(window, self.at)
                            .context(|| "reading the archive")?;
                    }
                    let ahead = &window[(self.at - *start) as usize..];
                    let take = ahead.len().min(buffer.len() - done);
                    buffer[done..done + take].copy_from_slice(&ahead[..take]);
                    take
                }
            };
            if count == 0 {
                break;
            }
            done += count;
            self.at += count as u64;
        }
        Ok(done)
    }

    fn truncated(&self) -> Error {
        Error::new("the archive ends here, in the middle of an entry")
            .hint("it is truncated: make or fetch it again")
    }
}

/// The error for unreadable bytes of the archive. [`super::packing`] may have given it its message
/// already.
fn unpacking(error: io::Error) -> Error {
    let damaged =
        |why: String| Error::new(why).hint("the archive is damaged: make or fetch it again");
    match error.downcast::<Error>() {
        Ok(known) => known,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Error::new("the compressed data ends early")
                .hint("the archive is truncated: make or fetch it again")
        }
        // An error of the machine, not of the archive.
        Err(error) if error.raw_os_error().is_some() => from_io("reading the archive", &error),
        Err(error) => damaged(format!("the compressed data is corrupted: {error}")),
    }
}
