//! Sparse files: GNU tar's old format (pieces in the header and in blocks after it) and its three
//! formats in extended headers.

use super::header::{Header, number};
use super::input::{Held, Input};
use super::pax::{self, decimal};
use crate::error::{Error, Result};
use crate::tree::{Content, ContentExtent};

/// Offset and length of a piece, in bytes of the file.
type SparsePiece = (u64, u64);

/// The pieces of a file that are in the archive, and its length with holes.
pub struct Map {
    pieces: Vec<SparsePiece>,
    /// Length of the file.
    pub len: u64,
}

impl Map {
    /// GNU's old format; reads the blocks with more pieces after the header.
    pub fn old(
        header: &Header,
        input: &mut Input,
        memory: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<Map> {
        let (first, mut more, len) = header.sparse()?;
        let mut pieces = Vec::new();
        add(&mut pieces, first)?;
        while more {
            let block = input.expect_block()?;
            memory(block.len() as u64)?;
            add(&mut pieces, &block[..504])?;
            more = block[504] != 0;
        }
        Ok(Map { pieces, len })
    }

    /// The formats in extended headers; `None` if they describe no holes. `size` is the length in
    /// the archive. Format 1.0 stores its map at the start of these bytes.
    pub fn extended(
        said: &pax::SparseKeys,
        size: &mut u64,
        input: &mut Input,
        memory: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<Option<Map>> {
        let len = || {
            said.real_size
                .ok_or_else(|| Error::new("a sparse file without its real size"))
        };
        match (said.major, said.minor) {
            (None, None) if said.map.is_none() => Ok(None),
            (None | Some(0), _) => {
                let numbers = said.map.as_deref().unwrap_or_default();
                if !numbers.len().is_multiple_of(2) {
                    return Err(Error::new(
                        "the map of a sparse file ends with an offset that has no length",
                    ));
                }
                Ok(Some(Map {
                    pieces: numbers
                        .chunks_exact(2)
                        .map(|pair| (pair[0], pair[1]))
                        .collect(),
                    len: len()?,
                }))
            }
            (Some(1), Some(0)) => Ok(Some(Map {
                pieces: leading(size, input, memory)?,
                len: len()?,
            })),
            (major, minor) => {
                let version = format!(
                    "{}.{}",
                    major.unwrap_or_default(),
                    minor.unwrap_or_default()
                );
                Err(Error::new(format!(
                    "a sparse file of GNU's format {version}, which is unknown"
                ))
                .hint("write the archive without --sparse"))
            }
        }
    }

    /// The content of the file. Its pieces follow each other in the stored bytes.
    pub fn content(&self, size: u64, held: &Held) -> Result<Content> {
        let total = self
            .pieces
            .iter()
            .try_fold(0u64, |sum, piece| sum.checked_add(piece.1));
        if total != Some(size) {
            return Err(Error::new(
                "the pieces of a sparse file do not add up to the length of its data in the archive",
            ));
        }
        let mut offset = 0;
        let mut extents = Vec::new();
        for &(at, len) in &self.pieces {
            if len > 0 {
                extents.push(ContentExtent {
                    at,
                    len,
                    bytes: held.piece(offset, len),
                });
                offset += len;
            } else if at > self.len {
                return Err(Error::new("a piece of a sparse file lies beyond its end"));
            }
        }
        Content::sparse(self.len, extents)
    }
}

/// Pairs of 12-byte fields, up to the first empty one.
fn add(pieces: &mut Vec<SparsePiece>, fields: &[u8]) -> Result<()> {
    for pair in fields.chunks_exact(24) {
        if pair.iter().all(|&byte| byte == 0) {
            return Ok(());
        }
        let field = |bytes: &[u8]| {
            number(bytes)
                .ok()
                .and_then(|value| u64::try_from(value).ok())
        };
        let (Some(at), Some(len)) = (field(&pair[..12]), field(&pair[12..])) else {
            return Err(Error::new(
                "the map of a sparse file contains a field that is not a number",
            ));
        };
        pieces.push((at, len));
    }
    Ok(())
}

/// GNU's format 1.0: a map of decimal lines before the content, first the number of pieces, padded
/// to full blocks.
fn leading(
    size: &mut u64,
    input: &mut Input,
    memory: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<Vec<SparsePiece>> {
    let wrong =
        || Error::new("the map before the data of a sparse file does not follow GNU's format 1.0");
    let mut numbers = Vec::new();
    let mut wanted = None;
    let mut line = Vec::new();
    while wanted != Some(numbers.len()) {
        let block = input.expect_block()?;
        memory(4 * block.len() as u64)?;
        *size = size.checked_sub(block.len() as u64).ok_or_else(wrong)?;
        for &byte in &block {
            if wanted == Some(numbers.len()) {
                break;
            }
            if byte != b'\n' {
                line.push(byte);
                if line.len() > 20 {
                    return Err(wrong());
                }
                continue;
            }
            let number = decimal(&line).ok_or_else(wrong)?;
            line.clear();
            match wanted {
                None => {
                    wanted = Some(
                        usize::try_from(number)
                            .ok()
                            .and_then(|count| count.checked_mul(2))
                            .ok_or_else(wrong)?,
                    )
                }
                Some(_) => numbers.push(number),
            }
        }
    }
    Ok(numbers
        .chunks_exact(2)
        .map(|pair| (pair[0], pair[1]))
        .collect())
}
