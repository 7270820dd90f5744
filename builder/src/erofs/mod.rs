//! EROFS: layout first, then blocks, streamed in order.
//!
//! The writer walks the tree once for its inodes, stores all contents (which decides what is
//! compressed and how long each index is), then gives every inode its place and writes directories,
//! shared attributes and inodes. Memory grows with the number of inodes and clusters, never with
//! the size of files. The bytes depend on the tree and the options alone, not on the number of
//! threads.

mod became;
mod compress;
mod data;
mod dir;
mod format;
mod fragments;
mod index;
mod inodes;
mod kept;
mod layout;
mod lz4;
mod out;
mod packed;
mod previous;
pub mod read;
mod small;
mod write;
mod xattr;
mod zstd;

use std::io;
use std::sync::Arc;

use crate::cache::Cache;
use crate::error::Result;
use crate::tree::Tree;

pub use format::BLOCK;
pub use lz4::version as lz4_version;
pub use previous::Previous;

/// How a file system is written.
#[derive(Debug, Clone)]
pub struct Options {
    /// Never `Auto`: that was decided before.
    pub compression: crate::definition::Compression,
    /// Largest compressed cluster, bytes: a power of two from 4096 to 1 MiB.
    pub cluster: u32,
    /// Where contents go.
    pub optimize: crate::definition::Optimize,
    /// File system UUID, text order.
    pub uuid: [u8; 16],
    /// Volume label, at most 15 bytes.
    pub label: String,
    /// Worker threads; the bytes do not depend on it.
    pub jobs: usize,
    /// A folder for an unnamed temporary file.
    pub spool: std::path::PathBuf,
    /// Where compressed clusters are kept between builds.
    pub cache: Option<Arc<Cache>>,
    /// An image that this one is to have as much in common with as can be.
    pub previous: Option<Arc<Previous>>,
}

/// Where blocks go. Blocks come in order; block 0 (the super block) is written last, by
/// [`Sink::first`].
pub trait Sink {
    /// Appends whole blocks. The first call starts at block 1.
    fn append(&mut self, blocks: &[u8]) -> io::Result<()>;
    /// Block 0, once, at the end.
    fn first(&mut self, block: &[u8; BLOCK]) -> io::Result<()>;
}

/// What was written.
#[derive(Debug, Clone, Copy, Default)]
pub struct Written {
    /// All blocks, the super block included.
    pub blocks: u64,
    /// Inodes.
    pub inodes: u64,
    /// Bytes of file content before compression.
    pub content: u64,
    /// Whether the previous image's places were taken.
    pub stays: bool,
}

/// Writes the tree as a file system.
pub fn write(tree: &Tree, options: &Options, sink: &mut dyn Sink) -> Result<Written> {
    write::write(tree, options, sink)
}
