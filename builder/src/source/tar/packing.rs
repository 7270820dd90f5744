//! Detects an archive's compression by its content, not by its name, and hashes its bytes.

use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Read};
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::input::{Input, Sink};
use super::unpack::{Xz, ZstdReader};
use super::{Reading, Summary};
use crate::error::{Context, Error, Result};
use crate::io::hashing::HashingReader;
use crate::io::part::Part;
use crate::source::spool::Spool;
use crate::source::{ArchiveHash, Budget};
use crate::tree::Tree;

/// Loads an archive; returns its hash and its entries.
pub fn open(
    tree: &mut Tree,
    at: &[u8],
    archive: &Path,
    budget: &mut Budget,
    spool_folder: &Path,
) -> Result<(ArchiveHash, Summary)> {
    let mut file = File::open(archive).context(|| "opening the archive")?;
    let metadata = file.metadata().context(|| "opening the archive")?;
    if metadata.is_dir() {
        return Err(Error::new("this is a directory, not an archive")
            .hint("write `dir = ` instead of `tar = `"));
    }
    let mut start = Vec::new();
    file.by_ref()
        .take(MAGIC_MAX)
        .read_to_end(&mut start)
        .context(|| "reading the archive")?;
    let packing = Packing::detect(&start);
    if packing == Packing::Plain && metadata.is_file() {
        return plain(tree, at, Arc::new(file), metadata.len(), budget);
    }
    let mut hash = Sha256::new();
    let hashing = HashingReader {
        inner: Cursor::new(start).chain(file),
        sha256: &mut hash,
    };
    let input = Input::stream(
        packing.reader(BufReader::with_capacity(256 << 10, hashing))?,
        Sink::Spool(Spool::new(spool_folder)?),
    );
    let summary = Reading::new(tree, at, budget)?.load(input)?;
    Ok((ArchiveHash::known(hash.finalize().into()), summary))
}

/// A plain archive is read by its headers; a background thread hashes the complete file.
fn plain(
    tree: &mut Tree,
    at: &[u8],
    file: Arc<File>,
    len: u64,
    budget: &mut Budget,
) -> Result<(ArchiveHash, Summary)> {
    let all = Part::range(file.clone(), 0, len)
        .ok_or_else(|| Error::new("the archive is longer than a file can be"))?;
    let hash = ArchiveHash::start(all)?;
    let summary = Reading::new(tree, at, budget)?.load(Input::plain(file, len))?;
    Ok((hash, summary))
}

/// Number of bytes that identify the compression.
const MAGIC_MAX: u64 = 6;

/// The compression of an archive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Packing {
    Plain,
    Gzip,
    Zstd,
    Xz,
    /// An unsupported format, by name.
    Other(&'static str),
}

impl Packing {
    /// Detects it from the first bytes of the archive.
    pub fn detect(start: &[u8]) -> Packing {
        match start {
            [0x1f, 0x8b, ..] => Packing::Gzip,
            // A frame, or a skippable frame.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Packing::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Packing::Xz,
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Packing::Other("bzip2"),
            [0x04, 0x22, 0x4d, 0x18, ..] => Packing::Other("lz4"),
            [b'P', b'K', 3, 4, ..] => Packing::Other("zip"),
            [0x1f, 0x9d, ..] => Packing::Other("compress"),
            [b'L', b'Z', b'I', b'P', ..] => Packing::Other("lzip"),
            [0x5d, 0, 0, ..] => Packing::Other("lzma"),
            [b'7', b'z', 0xbc, 0xaf, ..] => Packing::Other("7-Zip"),
            _ => Packing::Plain,
        }
    }

    /// A reader for the decompressed archive.
    pub fn reader<'a>(self, packed: impl BufRead + 'a) -> Result<Box<dyn Read + 'a>> {
        Ok(match self {
            Packing::Plain => Box::new(packed),
            Packing::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(packed)),
            Packing::Zstd => Box::new(ZstdReader::new(packed)?),
            Packing::Xz => Box::new(Xz::new(packed)?),
            Packing::Other(name) => {
                return Err(Error::new(format!(
                    "the archive is compressed with {name}, which is not supported"
                ))
                .hint("compress it with gzip, zstd or xz, or leave it plain"));
            }
        })
    }
}
