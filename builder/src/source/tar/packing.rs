//! An archive's file: how it is packed, told by its content and not by its name, and the hash of its bytes.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::Reading;
use super::input::{Input, Sink};
use crate::error::{Context, Error, Result};
use crate::part::Part;
use crate::source::spool::Spool;
use crate::source::{ArchiveHash, Budget};
use crate::tree::Tree;

/// What xz may use for unpacking; its strongest preset needs 65 MiB.
const XZ_MEMORY_MAX: u64 = 256 << 20;

/// Takes all of an archive; its hash, and how many entries it has.
pub fn open(tree: &mut Tree, at: &[u8], archive: &Path, budget: &mut Budget, spool_folder: &Path) -> Result<(ArchiveHash, u64)> {
    let mut file = File::open(archive).context(|| "opening the archive")?;
    let metadata = file.metadata().context(|| "opening the archive")?;
    if metadata.is_dir() {
        return Err(Error::new("this is a directory, not an archive").hint("write `dir = ` instead of `tar = `"));
    }
    let mut start = Vec::new();
    file.by_ref().take(MAGIC_MAX).read_to_end(&mut start).context(|| "reading the archive")?;
    let packing = Packing::of(&start);
    if packing == Packing::Plain && metadata.is_file() {
        return plain(tree, at, Arc::new(file), metadata.len(), budget);
    }
    let mut hash = Sha256::new();
    let hashing = Hashing { read: Cursor::new(start).chain(file), hash: &mut hash };
    let input = Input::stream(packing.reader(BufReader::with_capacity(256 << 10, hashing))?, Sink::Spool(Spool::new(spool_folder)?));
    let entries = Reading::new(tree, at, budget)?.run(input)?;
    Ok((ArchiveHash::known(hash.finalize().into()), entries))
}

/// A plain archive is read by its headers, and beside that as a whole for its hash.
fn plain(tree: &mut Tree, at: &[u8], file: Arc<File>, len: u64, budget: &mut Budget) -> Result<(ArchiveHash, u64)> {
    let all = Part::range(file.clone(), 0, len).ok_or_else(|| Error::new("the archive is longer than a file can be"))?;
    let hash = ArchiveHash::of(all)?;
    let entries = Reading::new(tree, at, budget)?.run(Input::plain(file, len))?;
    Ok((hash, entries))
}

/// Hashes what passes.
struct Hashing<'a, R> {
    read: R,
    hash: &'a mut Sha256,
}

impl<R: Read> Read for Hashing<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.read.read(buffer)?;
        self.hash.update(&buffer[..count]);
        Ok(count)
    }
}

/// Bytes that tell how an archive is packed.
const MAGIC_MAX: u64 = 6;

/// How an archive is packed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Packing {
    Plain,
    Gzip,
    Zstd,
    Xz,
    /// Something else, by its name.
    Other(&'static str),
}

impl Packing {
    /// By an archive's first bytes.
    pub fn of(start: &[u8]) -> Packing {
        match start {
            [0x1f, 0x8b, ..] => Packing::Gzip,
            // A frame, or one that decoders skip.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Packing::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Packing::Xz,
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Packing::Other("bzip2"),
            [0x04, 0x22, 0x4d, 0x18, ..] => Packing::Other("lz4"),
            [b'P', b'K', 3, 4, ..] => Packing::Other("zip"),
            [0x1f, 0x9d, ..] => Packing::Other("compress"),
            [b'L', b'Z', b'I', b'P', ..] => Packing::Other("lzip"),
            _ => Packing::Plain,
        }
    }

    /// What is packed.
    pub fn reader<'a>(self, packed: impl BufRead + 'a) -> Result<Box<dyn Read + 'a>> {
        Ok(match self {
            Packing::Plain => Box::new(packed),
            Packing::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(packed)),
            Packing::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(packed).context(|| "zstd")?),
            Packing::Xz => {
                let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY_MAX, liblzma::stream::CONCATENATED);
                let stream = stream.map_err(io::Error::from).context(|| "xz")?;
                Box::new(liblzma::bufread::XzDecoder::new_stream(packed, stream))
            }
            Packing::Other(name) => {
                return Err(Error::new(format!("this is packed with {name}")).hint("pack it with gzip, zstd or xz, or leave it plain"));
            }
        })
    }
}
