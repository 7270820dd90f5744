//! Sources: each yields entries into the tree. Everything in them is hostile until it is in the tree.

use std::path::PathBuf;

use crate::definition::Definition;
use crate::error::Result;
use crate::tree::Tree;

/// What the sources need from their surroundings.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// Folder for what is kept between builds (Debian archives that were put together).
    pub cache: PathBuf,
    /// Folder on a file system with room for spools (unnamed temporary files).
    pub spool: PathBuf,
    /// Whether caches may be used.
    pub use_cache: bool,
}

/// One source as the manifest records it.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// debian, tar, dir or file.
    pub kind: &'static str,
    /// For people: suite and packages, or the path as the definition writes it.
    pub name: String,
    /// SHA-256 over what it gave: the archive's bytes, or a canonical listing with contents.
    pub sha256: [u8; 32],
    /// Entries it gave.
    pub entries: u64,
    /// Seconds since 1970 that its archive was published; only `debian` knows.
    pub date: Option<i64>,
}

/// Applies the definition's sources in order.
pub fn load(definition: &Definition, surroundings: &Surroundings) -> Result<(Tree, Vec<Loaded>)> {
    let _ = (definition, surroundings);
    todo!()
}
