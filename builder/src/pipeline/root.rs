//! Writes the root file system and its hash tree in one pass over the blocks, and defines the
//! stage after that, [`RootWritten`].

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use adamant_contract::root_hash::RootHash;
use adamant_contract::verity::{Superblock, partition_blocks};
use sha2::{Digest, Sha256};

use super::compression;
use super::content::Checked;
use crate::cache::Cache;
use crate::definition::{Compression, Definition, Optimize};
use crate::derive::derive_uuid;
use crate::erofs::{self, BLOCK, BlockSink, Reference, WrittenErofs};
use crate::error::{Context, Result};
use crate::tree::Tree;
use crate::verity::{self, HashingSink, VerityHasher};

/// Bytes of an EROFS volume label: 16 on disk, with the NUL.
const LABEL_BYTES: usize = 15;

/// Fourth stage: the root file system and its hash tree are complete.
pub(super) struct RootWritten {
    pub checked: Checked,
    pub root: WrittenRoot,
    pub root_file: File,
    pub hash_tree_file: File,
}

/// Facts about a root file system and its hash tree.
pub struct WrittenRoot {
    /// The root hash.
    pub hash: RootHash,
    /// The superblock of the hash tree.
    pub superblock: Superblock,
    /// Facts about the file system.
    pub written: WrittenErofs,
    /// Blocks of superblock and hash tree together.
    pub hash_tree_blocks: u64,
    /// SHA-256 of the hash tree's artifact.
    pub hash_tree_sha256: [u8; 32],
}

impl WrittenRoot {
    /// Bytes of the file system.
    pub fn root_bytes(&self) -> u64 {
        self.written.blocks * BLOCK as u64
    }

    /// Bytes of superblock and hash tree together.
    pub fn hash_tree_bytes(&self) -> u64 {
        self.hash_tree_blocks * BLOCK as u64
    }
}

/// How the root is written. Only the reference image changes the bytes.
pub struct WriteOptions {
    /// Worker threads.
    pub jobs: usize,
    /// The directory for a temporary file.
    pub spool: PathBuf,
    /// The name of the root file system in messages.
    pub root_name: PathBuf,
    /// The name of the hash tree in messages.
    pub hash_tree_name: PathBuf,
    /// Compressed clusters of earlier builds.
    pub cache: Option<Arc<Cache>>,
    /// The image whose block positions are reused.
    pub reference: Option<Arc<Reference>>,
}

/// Writes root file system and hash tree into empty files. Salt and UUIDs are derived from the
/// image id alone (docs/formats.md).
pub fn write_root(
    tree: &Tree,
    definition: &Definition,
    compression: Compression,
    options: WriteOptions,
    root_file: &File,
    hash_tree_file: &File,
) -> Result<WrittenRoot> {
    let id = &definition.id;
    let erofs_options = erofs::ErofsOptions {
        compression: compression::algorithm(compression)?,
        cluster: definition.root.cluster,
        fragments: definition.root.optimize == Optimize::Size,
        uuid: derive_uuid(b"adamant erofs uuid\0", id),
        label: id.chars().take(LABEL_BYTES).collect(),
        jobs: options.jobs,
        spool: options.spool,
        cache: options.cache,
        reference: options.reference,
    };
    let mut hasher = VerityHasher::new(&verity::salt(id));
    let mut file = FileSink {
        file: root_file,
        position: BLOCK as u64,
    };
    let mut sink = HashingSink::new(&mut hasher, &mut file, options.jobs);
    let written = erofs::write(tree, &erofs_options, &mut sink)
        .context(|| format!("writing {}", options.root_name.display()))?;
    let mut out = Sha256Writer {
        inner: BufWriter::new(hash_tree_file),
        sha256: Sha256::new(),
    };
    let finished = hasher
        .finish(verity::uuid(id), &mut out)
        .and_then(|finished| out.inner.flush().map(|()| finished));
    let (hash, superblock) =
        finished.context(|| format!("writing {}", options.hash_tree_name.display()))?;
    Ok(WrittenRoot {
        hash,
        hash_tree_blocks: partition_blocks(superblock.data_blocks),
        superblock,
        written,
        hash_tree_sha256: out.sha256.finalize().into(),
    })
}

/// Writes blocks into a file in order, and block 0 last.
struct FileSink<'a> {
    file: &'a File,
    position: u64,
}

impl BlockSink for FileSink<'_> {
    fn append(&mut self, blocks: &[u8]) -> io::Result<()> {
        self.file.write_all_at(blocks, self.position)?;
        self.position += blocks.len() as u64;
        Ok(())
    }

    fn first(&mut self, block: &[u8; BLOCK]) -> io::Result<()> {
        self.file.write_all_at(block, 0)
    }
}

/// Hashes the bytes that it writes.
struct Sha256Writer<W> {
    inner: W,
    sha256: Sha256,
}

impl<W: Write> Write for Sha256Writer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.sha256.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
