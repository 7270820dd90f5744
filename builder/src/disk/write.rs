//! Writes the disk image, sparse. Partitions are copied in parallel, and hashed while they are
//! copied.

use std::fs::File;
use std::os::unix::fs::FileExt;

use adamant_contract::hex;
use sha2::{Digest, Sha256};

use super::{DiskLayout, PartitionRole};
use crate::error::{Context, Error, Result};
use crate::io::part::Part;
use crate::io::zeros;
use crate::manifest::ArtifactPart;
use crate::term::progress;

/// Bytes copied at a time; they fit into a processor's cache.
const CHUNK: u64 = 1 << 20;

/// Content of the partitions. Each file is read twice at the same time, to copy and to hash it.
#[derive(Debug, Clone, Copy)]
pub struct DiskContents<'a> {
    /// The EFI system partition's file system, if the layout has one, and how many bytes from its
    /// start are in use.
    pub esp: Option<(&'a File, u64)>,
    /// The root file system.
    pub root: &'a File,
    /// Its hash tree.
    pub hash_tree: &'a File,
    /// The signature partition's bytes; empty if the root hash is not signed yet.
    pub signature: &'a [u8],
}

/// Hashes of the written disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenDisk {
    /// SHA-256 of the root file system's artifact.
    pub root: [u8; 32],
    /// The parts of the disk that are not all zeros, in order.
    pub pieces: Vec<ArtifactPart>,
}

/// Bytes that are written to the disk.
enum PartitionBytes<'a> {
    Memory(&'a [u8]),
    File(Part),
}

impl DiskLayout {
    /// Writes the disk into an empty file.
    pub fn write(&self, contents: &DiskContents, out: &File) -> Result<WrittenDisk> {
        out.set_len(self.bytes())
            .context(|| "setting the size of the disk image")?;
        let (primary, backup) = (self.table.primary(), self.table.backup());
        let mut parts = vec![(0, PartitionBytes::Memory(&primary))];
        let mut root = None;
        for (partition, role) in self.table.partitions.iter().flatten().zip(&self.roles) {
            let whole_file = |file: &File| {
                file.try_clone()
                    .and_then(Part::whole)
                    .context(|| partition.label.clone())
            };
            let bytes = match (role, contents.esp) {
                (PartitionRole::Esp, Some((file, used))) => {
                    PartitionBytes::File(whole_file(file)?.first(used))
                }
                (PartitionRole::Root, _) => {
                    root = Some(parts.len());
                    PartitionBytes::File(whole_file(contents.root)?)
                }
                (PartitionRole::HashTree, _) => {
                    PartitionBytes::File(whole_file(contents.hash_tree)?)
                }
                (PartitionRole::Signature, _) if !contents.signature.is_empty() => {
                    PartitionBytes::Memory(contents.signature)
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
        parts.push((
            self.bytes() - backup.len() as u64,
            PartitionBytes::Memory(&backup),
        ));
        progress::expect(parts.iter().map(|(_, bytes)| bytes.len()).sum());
        // The root is most of the data. Copying and hashing it take about the same time, so they
        // run in parallel.
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
            let failed = || Error::new("a thread that writes the disk image panicked");
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
            .ok_or_else(|| Error::new("the disk's layout has no partition for the root"))?;
        let pieces = parts
            .iter()
            .zip(&digests)
            .map(|((at, bytes), digest)| ArtifactPart {
                offset: *at,
                size: bytes.len(),
                sha256: hex::encode(digest),
            });
        let mut pieces: Vec<ArtifactPart> = pieces.collect();
        // The table of a disk that `adamant sign` reads may list its partitions in any order.
        pieces.sort_by_key(|piece| piece.offset);
        Ok(WrittenDisk { root, pieces })
    }
}

impl PartitionBytes<'_> {
    fn len(&self) -> u64 {
        match self {
            PartitionBytes::Memory(bytes) => bytes.len() as u64,
            PartitionBytes::File(part) => part.len(),
        }
    }

    fn sha256(&self) -> Result<[u8; 32]> {
        match self {
            PartitionBytes::Memory(bytes) => Ok(Sha256::digest(bytes).into()),
            PartitionBytes::File(part) => part
                .sha256(|_| Ok(()))
                .context(|| "reading the disk image's parts"),
        }
    }

    /// Writes the bytes at an offset; zeros stay a hole.
    fn write(&self, out: &File, offset: u64) -> Result<()> {
        let part = match self {
            PartitionBytes::File(part) => part,
            PartitionBytes::Memory(bytes) => {
                out.write_all_at(bytes, offset)
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
                out.write_all_at(bytes, offset + at)
                    .context(|| "writing the disk image")?;
            }
            progress::add(take);
            at += take;
        }
        Ok(())
    }
}
