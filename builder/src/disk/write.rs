//! Writing the disk: sparse, its parts side by side, each hashed beside being copied.

use std::fs::File;
use std::os::unix::fs::FileExt;

use adamant_contract::hex;
use sha2::{Digest, Sha256};

use super::{DiskLayout, Role};
use crate::error::{Context, Error, Result};
use crate::io::part::Part;
use crate::io::zeros;
use crate::manifest::Piece;
use crate::term::progress;

/// Bytes copied at a time. Small enough to stay in a processor's cache.
const CHUNK: u64 = 1 << 20;

/// What is written into the partitions. Files are read from their starts, to be copied and beside
/// that to be hashed.
#[derive(Debug, Clone, Copy)]
pub struct DiskContents<'a> {
    /// The EFI system partition's file system, where the layout has one, and how many bytes of it
    /// are not all zeros.
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
pub struct WrittenDisk {
    /// SHA-256 of the root file system's artifact.
    pub root: [u8; 32],
    /// What is in the disk, in order. All else is zeros.
    pub pieces: Vec<Piece>,
}

/// Bytes for a place.
enum Bytes<'a> {
    Here(&'a [u8]),
    In(Part),
}

impl DiskLayout {
    /// Writes the disk into an empty file.
    pub fn write(&self, contents: &DiskContents, out: &File) -> Result<WrittenDisk> {
        out.set_len(self.bytes())
            .context(|| "making room for the disk image")?;
        let (primary, backup) = (self.table.primary(), self.table.backup());
        let mut parts = vec![(0, Bytes::Here(&primary))];
        let mut root = None;
        for (partition, role) in self.table.partitions.iter().flatten().zip(&self.roles) {
            let whole = |file: &File| {
                file.try_clone()
                    .and_then(Part::whole)
                    .context(|| partition.label.clone())
            };
            let bytes = match (role, contents.esp) {
                (Role::Esp, Some((file, used))) => Bytes::In(whole(file)?.first(used)),
                (Role::Root, _) => {
                    root = Some(parts.len());
                    Bytes::In(whole(contents.root)?)
                }
                (Role::Tree, _) => Bytes::In(whole(contents.tree)?),
                (Role::Signature, _) if !contents.signature.is_empty() => {
                    Bytes::Here(contents.signature)
                }
                _ => continue,
            };
            let room = partition.sectors() * self.sector();
            if bytes.len() > room {
                return Err(Error::new(format!(
                    "{} bytes do not fit into the {room} of partition {:?}",
                    bytes.len(),
                    partition.label
                )));
            }
            parts.push((partition.first * self.sector(), bytes));
        }
        parts.push((self.bytes() - backup.len() as u64, Bytes::Here(&backup)));
        progress::expect(parts.iter().map(|(_, bytes)| bytes.len()).sum());
        // One of them is nearly all there is: copying and hashing it take as long as each other, so
        // they are done side by side.
        let digests: Vec<Result<[u8; 32]>> = std::thread::scope(|scope| {
            let threads: Vec<_> = parts
                .iter()
                .map(|(at, bytes)| {
                    (
                        scope.spawn(|| bytes.sha256()),
                        scope.spawn(|| bytes.write(out, *at)),
                    )
                })
                .collect();
            let failed = || Error::new("a thread that writes the disk failed");
            let ended = threads
                .into_iter()
                .map(|(digest, written)| (digest.join(), written.join()));
            ended
                .map(|(digest, written)| {
                    written
                        .unwrap_or_else(|_| Err(failed()))
                        .and(digest.unwrap_or_else(|_| Err(failed())))
                })
                .collect()
        });
        let digests = digests.into_iter().collect::<Result<Vec<_>>>()?;
        let root = root
            .and_then(|index| digests.get(index).copied())
            .ok_or_else(|| Error::new("the disk has no place for the root"))?;
        let pieces = parts
            .iter()
            .zip(&digests)
            .map(|((at, bytes), digest)| Piece {
                offset: *at,
                size: bytes.len(),
                sha256: hex::encode(digest),
            });
        let mut pieces: Vec<Piece> = pieces.collect();
        // A table that `adamant sign` was given may name its partitions in any order.
        pieces.sort_by_key(|piece| piece.offset);
        Ok(WrittenDisk { root, pieces })
    }
}

impl Bytes<'_> {
    fn len(&self) -> u64 {
        match self {
            Bytes::Here(bytes) => bytes.len() as u64,
            Bytes::In(part) => part.len(),
        }
    }

    fn sha256(&self) -> Result<[u8; 32]> {
        match self {
            Bytes::Here(bytes) => Ok(Sha256::digest(bytes).into()),
            Bytes::In(part) => part
                .sha256(|_| Ok(()))
                .context(|| "reading the disk image's parts"),
        }
    }

    /// Writes it to its place; what is zero stays a hole.
    fn write(&self, out: &File, place: u64) -> Result<()> {
        let part = match self {
            Bytes::In(part) => part,
            Bytes::Here(bytes) => {
                out.write_all_at(bytes, place)
                    .context(|| "writing the disk image")?;
                progress::add(bytes.len() as u64);
                return Ok(());
            }
        };
        let (mut buffer, mut at) = (vec![0; CHUNK.min(part.len()) as usize], 0);
        while at < part.len() {
            let take = (part.len() - at).min(CHUNK);
            let bytes = &mut buffer[..take as usize];
            part.read_exact_at(bytes, at)
                .context(|| "reading the disk image's parts")?;
            if !zeros::is_zero(bytes) {
                out.write_all_at(bytes, place + at)
                    .context(|| "writing the disk image")?;
            }
            progress::add(take);
            at += take;
        }
        Ok(())
    }
}
