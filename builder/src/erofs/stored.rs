//! The result of storing one file.

use super::index::ClusterExtent;

/// How a file was stored.
#[derive(Debug)]
pub enum Stored {
    /// Uncompressed, in whole blocks. For a file that its inode's tail can hold there are none.
    Flat {
        /// First block.
        start: u32,
    },
    /// Compressed into one cluster that is small enough to be written behind the inode.
    Inline(Vec<u8>),
    /// Compressed, in whole blocks.
    Compressed {
        /// First block.
        start: u32,
        /// Number of blocks of all clusters.
        blocks: u32,
        /// The clusters.
        extents: Box<[ClusterExtent]>,
    },
}
