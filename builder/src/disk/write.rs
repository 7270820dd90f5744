//! Writing the disk: sparse, its parts side by side, each hashed on the way.

use std::fs::File;
use std::os::unix::fs::FileExt;

use adamant_agent::hash::hex;
use sha2::{Digest, Sha256};

use super::{Layout, Role};
use crate::error::{Context, Error, Result};
use crate::manifest::Piece;
use crate::progress;
use crate::zeros;

/// Bytes read and written at a time.
const CHUNK: usize = 4 << 20;

/// What is written into the partitions. Files are read once, from their starts.
#[derive(Debug, Clone, Copy)]
pub struct Contents<'a> {
    /// The EFI system partition's file system, where the layout has one, and how many bytes of it are not all zeros.
    pub esp: Option<(&'a File, u64)>,
    /// The root file system.
    pub root: &'a File,
    /// Its verity tree.
    pub tree: &'a File,
    /// The signature partition's bytes; empty: nobody has signed yet.
    pub signature: &'a [u8],
}

/// What was written, so that nothing is read again to be hashed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// SHA-256 of the root file system's artifact.
    pub root: [u8; 32],
    /// What is in the disk, in order. All else is zeros.
    pub pieces: Vec<Piece>,
}

/// Bytes for a place.
enum Part<'a> {
    Bytes(&'a [u8]),
    File(&'a File, u64),
}

impl Layout {
    /// Writes the disk into an empty file.
    pub fn write(&self, contents: &Contents, out: &File) -> Result<Written> {
        out.set_len(self.bytes()).context(|| "making room for the disk image")?;
        let (primary, backup) = (self.table.primary(), self.table.backup());
        let mut parts = vec![(0, Part::Bytes(&primary))];
        let mut root = None;
        for (partition, role) in self.table.partitions.iter().flatten().zip(&self.roles) {
            let whole = |file| File::metadata(file).context(|| partition.label.clone()).map(|found| Part::File(file, found.len()));
            let part = match (role, contents.esp) {
                (Role::Esp, Some((file, used))) => Part::File(file, used),
                (Role::Root, _) => {
                    root = Some(parts.len());
                    whole(contents.root)?
                }
                (Role::Tree, _) => whole(contents.tree)?,
                (Role::Signature, _) if !contents.signature.is_empty() => Part::Bytes(contents.signature),
                _ => continue,
            };
            let room = partition.sectors() * self.sector();
            if part.len() > room {
                return Err(Error::new(format!("{} bytes do not fit into the {room} of partition {:?}", part.len(), partition.label)));
            }
            parts.push((partition.first * self.sector(), part));
        }
        parts.push((self.bytes() - backup.len() as u64, Part::Bytes(&backup)));
        progress::expect(parts.iter().map(|(_, part)| part.len()).sum());
        // Two of them are large, and hashing is what takes the time.
        let digests: Vec<Result<[u8; 32]>> = std::thread::scope(|scope| {
            let threads: Vec<_> = parts.iter().map(|(at, part)| scope.spawn(|| part.write(out, *at))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(Error::new("a thread that writes the disk failed")))).collect()
        });
        let digests = digests.into_iter().collect::<Result<Vec<_>>>()?;
        let root = root.and_then(|index| digests.get(index).copied()).ok_or_else(|| Error::new("the disk has no place for the root"))?;
        let pieces = parts.iter().zip(&digests).map(|((at, part), digest)| Piece { offset: *at, size: part.len(), sha256: hex(digest) });
        let mut pieces: Vec<Piece> = pieces.collect();
        // A table that `adamant sign` was given may name its partitions in any order.
        pieces.sort_by_key(|piece| piece.offset);
        Ok(Written { root, pieces })
    }
}

impl Part<'_> {
    fn len(&self) -> u64 {
        match self {
            Part::Bytes(bytes) => bytes.len() as u64,
            Part::File(_, length) => *length,
        }
    }

    /// Writes it to its place; what is zero stays a hole. Gives its SHA-256.
    fn write(&self, out: &File, place: u64) -> Result<[u8; 32]> {
        let (file, length) = match self {
            Part::File(file, length) => (file, *length),
            Part::Bytes(bytes) => {
                out.write_all_at(bytes, place).context(|| "writing the disk image")?;
                progress::add(bytes.len() as u64);
                return Ok(Sha256::digest(bytes).into());
            }
        };
        let (mut hash, mut buffer, mut at) = (Sha256::new(), vec![0; CHUNK], 0);
        while at < length {
            let take = (length - at).min(CHUNK as u64);
            let bytes = &mut buffer[..take as usize];
            file.read_exact_at(bytes, at).context(|| "reading the disk image's parts")?;
            if !zeros::is_zero(bytes) {
                out.write_all_at(bytes, place + at).context(|| "writing the disk image")?;
            }
            hash.update(bytes);
            progress::add(take);
            at += take;
        }
        Ok(hash.finalize().into())
    }
}
