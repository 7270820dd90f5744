//! EROFS: the writer and the reader of root file systems.
//!
//! [`write()`] walks the tree once for its inodes and streams all contents to the sink. Storing
//! contents decides what is compressed, and how long each index is. Then every inode gets its
//! position, and directories, shared attributes and inodes are written. Memory grows with the
//! number of inodes and clusters, not with the size of files. The output depends only on the tree
//! and the options, not on the number of threads.
//!
//! [`read::ErofsImage`] opens an image, and checks its structure completely.

mod algorithm;
mod block_writer;
mod caching_compressor;
mod compress;
mod content_spool;
mod data;
mod dir;
mod format;
mod fragments;
mod incompressible;
mod index;
mod inline_spool;
mod inode_data;
mod inodes;
mod layout;
mod lz4;
pub mod read;
mod reference;
mod settings;
mod stored;
mod write;
mod xattr;
mod zstd;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::cache::Cache;
use crate::error::Result;
use crate::tree::Tree;

pub use algorithm::Algorithm;
pub use format::BLOCK;
pub use reference::Reference;

/// How a file system is written.
#[derive(Debug, Clone)]
pub struct ErofsOptions {
    /// `None`: no compression.
    pub compression: Option<Algorithm>,
    /// Largest compressed cluster, bytes: a power of two from 4096 to 1 MiB.
    pub cluster: u32,
    /// Whether small files become fragments of one packed inode. That saves the most space, but a
    /// change of one file changes most blocks.
    pub fragments: bool,
    /// File system UUID, text order.
    pub uuid: [u8; 16],
    /// Volume label, at most 15 bytes.
    pub label: String,
    /// Worker threads; the output does not depend on it.
    pub jobs: usize,
    /// A directory for unnamed temporary files.
    pub spool: PathBuf,
    /// Cache of compressed clusters between builds.
    pub cache: Option<Arc<Cache>>,
    /// An earlier image whose positions are reused where possible.
    pub reference: Option<Arc<Reference>>,
}

/// Versions of the compression libraries. Other versions may compress the same input to other
/// bytes, so they belong into cache keys.
pub fn library_versions() -> [u8; 8] {
    let mut versions = [0; 8];
    versions[..4].copy_from_slice(&zstd_safe::version_number().to_le_bytes());
    versions[4..].copy_from_slice(&lz4::version().to_le_bytes());
    versions
}

/// The destination of blocks. They come in order, but block 0 (the superblock) comes last, by
/// [`BlockSink::first`].
pub trait BlockSink {
    /// Appends whole blocks. The first call starts at block 1.
    fn append(&mut self, blocks: &[u8]) -> io::Result<()>;
    /// Block 0, once, at the end.
    fn first(&mut self, block: &[u8; BLOCK]) -> io::Result<()>;
}

/// Facts about a written file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct WrittenErofs {
    /// Number of blocks, the superblock's included.
    pub blocks: u64,
    /// Number of inodes.
    pub inodes: u64,
    /// Bytes of file content before compression.
    pub content: u64,
    /// Whether the positions of the reference image were reused.
    pub placement_reused: bool,
}

/// Writes the tree as a file system.
pub fn write(
    tree: &Tree,
    options: &ErofsOptions,
    sink: &mut dyn BlockSink,
) -> Result<WrittenErofs> {
    write::write(tree, options, sink)
}
