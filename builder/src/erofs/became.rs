//! What inodes' data became, once it is stored.

use super::data::Stored;
use super::format::*;
use super::index::Extent;
use super::small::{Kept, Small};
use crate::error::Result;

/// What an inode's data became.
pub enum Data {
    /// Nothing, or a device's number.
    Number(u32),
    /// Whole blocks, from this one on.
    Flat(u32),
    /// One cluster, of so many blocks: what most compressed files are.
    Cluster {
        /// First block.
        start: u32,
        /// Blocks.
        blocks: u16,
    },
    /// Several.
    Clusters(Box<Clusters>),
    /// One cluster, which is among what was kept for the inodes.
    Inline(Kept),
    /// A part of the packed inode, from this byte on.
    Fragment(u64),
}

/// There is one for each inode.
const _: () = assert!(size_of::<Data>() <= 16);

/// A file's clusters.
pub struct Clusters {
    pub start: u32,
    blocks: u32,
    extents: Box<[Extent]>,
}

impl Data {
    /// What a file became; what is to be kept for its inode goes to `small`.
    pub fn of(stored: Stored, small: &mut Small) -> Result<Data> {
        Ok(match stored {
            Stored::Flat { start } => Data::Flat(start),
            Stored::Inline(bytes) => Data::Inline(small.keep(&bytes)?),
            Stored::Compressed { start, extents, .. }
                if let [
                    Extent {
                        blocks,
                        plain: false,
                        ..
                    },
                ] = extents[..] =>
            {
                Data::Cluster { start, blocks }
            }
            Stored::Compressed {
                start,
                blocks,
                extents,
            } => Data::Clusters(Box::new(Clusters {
                start,
                blocks,
                extents,
            })),
        })
    }

    /// Whether it is compressed, and has blocks.
    pub fn has_clusters(&self) -> bool {
        matches!(self, Data::Cluster { .. } | Data::Clusters(_))
    }

    /// The data layout of its inode, and what that has for it: an address, a number of blocks, or a
    /// device. `inline`: what has no blocks is kept with the inode.
    pub fn layout(&self, inline: bool) -> (u8, u32) {
        match self {
            Data::Number(u) | Data::Flat(u) => (
                if inline {
                    EROFS_INODE_FLAT_INLINE
                } else {
                    EROFS_INODE_FLAT_PLAIN
                },
                *u,
            ),
            _ => (EROFS_INODE_COMPRESSED_COMPACT, self.blocks()),
        }
    }

    /// First block of what has blocks.
    pub fn start(&self) -> Option<u32> {
        match self {
            Data::Flat(start) | Data::Cluster { start, .. } => Some(*start),
            Data::Clusters(clusters) => Some(clusters.start),
            Data::Number(_) | Data::Inline(_) | Data::Fragment(_) => None,
        }
    }

    /// The same blocks, in another place.
    pub fn move_to(&mut self, block: u32) {
        match self {
            Data::Flat(start) | Data::Cluster { start, .. } => *start = block,
            Data::Clusters(clusters) => clusters.start = block,
            Data::Number(_) | Data::Inline(_) | Data::Fragment(_) => {}
        }
    }

    /// How many blocks its clusters have; 0 where there are none.
    pub fn blocks(&self) -> u32 {
        match self {
            Data::Cluster { blocks, .. } => u32::from(*blocks),
            Data::Clusters(clusters) => clusters.blocks,
            _ => 0,
        }
    }

    /// Its clusters, of a file of so many bytes.
    pub fn with_extents<T>(&self, size: u64, work: impl FnOnce(&[Extent]) -> T) -> T {
        match self {
            Data::Cluster { blocks, .. } => work(&[Extent {
                len: size as u32,
                blocks: *blocks,
                plain: false,
            }]),
            Data::Inline(_) => work(&[Extent {
                len: size as u32,
                blocks: 1,
                plain: false,
            }]),
            Data::Clusters(clusters) => work(&clusters.extents),
            Data::Number(_) | Data::Flat(_) | Data::Fragment(_) => work(&[]),
        }
    }
}
