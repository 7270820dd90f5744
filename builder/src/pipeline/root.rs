//! The root file system and its verity tree, in one pass over the blocks.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use adamant_contract::root_hash::RootHash;
use adamant_contract::verity::{Superblock, partition_blocks};
use sha2::{Digest, Sha256};

use crate::cache::Cache;
use crate::definition::{Compression, Definition, Optimize};
use crate::derive::derive_uuid;
use crate::erofs::{self, BLOCK, BlockSink, Reference, WrittenErofs};
use crate::error::{Context, Result};
use crate::tree::Tree;
use crate::verity::{self, HashingSink, VerityHasher};

/// Bytes of a volume label (EROFS on disk: 16 with the NUL).
const LABEL_BYTES: usize = 15;

/// What was written.
pub struct Root {
    /// The root hash.
    pub hash: RootHash,
    /// The tree's superblock.
    pub superblock: Superblock,
    /// The file system.
    pub written: WrittenErofs,
    /// Blocks of superblock and tree together.
    pub tree_blocks: u64,
    /// SHA-256 of the tree's artifact.
    pub tree_sha256: [u8; 32],
}

/// What it is done with; none of it changes a byte.
pub struct Means<'a> {
    /// Worker threads.
    pub jobs: usize,
    /// A folder for a temporary file.
    pub spool: &'a Path,
    /// What messages call the two files.
    pub names: [&'a Path; 2],
    /// What was compressed before.
    pub cache: Option<Arc<Cache>>,
}

/// Writes both into empty files. Salt and UUIDs come from the image id alone (docs/formats.md).
pub fn write(
    tree: &Tree,
    definition: &Definition,
    compression: Compression,
    reference: Option<Arc<Reference>>,
    means: Means,
    root: &File,
    hashes: &File,
) -> Result<Root> {
    let id = &definition.id;
    let options = erofs::ErofsOptions {
        compression: super::compression::algorithm(compression)?,
        cluster: definition.root.cluster,
        fragments: definition.root.optimize == Optimize::Size,
        uuid: derive_uuid(b"adamant erofs uuid\0", id),
        label: id.chars().take(LABEL_BYTES).collect(),
        jobs: means.jobs,
        spool: means.spool.to_owned(),
        cache: means.cache,
        reference,
    };
    let mut hasher = VerityHasher::new(&verity::salt(id));
    let mut file = FileSink {
        file: root,
        at: BLOCK as u64,
    };
    let written = erofs::write(
        tree,
        &options,
        &mut HashingSink::new(&mut hasher, &mut file, means.jobs),
    )
    .context(|| format!("writing {}", means.names[0].display()))?;
    let mut out = Tee {
        inner: BufWriter::new(hashes),
        sha256: Sha256::new(),
    };
    let done = hasher
        .finish(verity::uuid(id), &mut out)
        .and_then(|done| out.inner.flush().map(|()| done));
    let (hash, superblock) = done.context(|| format!("writing {}", means.names[1].display()))?;
    Ok(Root {
        hash,
        tree_blocks: partition_blocks(superblock.data_blocks),
        superblock,
        written,
        tree_sha256: out.sha256.finalize().into(),
    })
}

/// Blocks into a file: block 0 at the end.
struct FileSink<'a> {
    file: &'a File,
    at: u64,
}

impl BlockSink for FileSink<'_> {
    fn append(&mut self, blocks: &[u8]) -> io::Result<()> {
        self.file.write_all_at(blocks, self.at)?;
        self.at += blocks.len() as u64;
        Ok(())
    }

    fn first(&mut self, block: &[u8; BLOCK]) -> io::Result<()> {
        self.file.write_all_at(block, 0)
    }
}

/// Hashes what is written.
struct Tee<W> {
    inner: W,
    sha256: Sha256,
}

impl<W: Write> Write for Tee<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.sha256.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
