//! Where the data of each inode is, once contents are stored.

use super::format::*;
use super::index::ClusterExtent;
use super::inline_spool::{InlineSpool, SpoolRef};
use super::stored::Stored;
use crate::error::Result;

/// An inode's data.
pub enum InodeData {
    /// None: empty files, FIFOs and sockets.
    Empty,
    /// A device, by its encoded number.
    Device(u32),
    /// Uncompressed bytes behind the inode (the tail), and no blocks.
    Tail,
    /// Uncompressed blocks whose position is not known yet: a directory too large for a tail, or a
    /// file before it is stored.
    Pending,
    /// Uncompressed blocks from this one on.
    Flat(u32),
    /// One compressed cluster. Most compressed files have just one.
    Cluster {
        /// First block.
        start: u32,
        /// Number of blocks.
        blocks: u16,
    },
    /// Several clusters, or an uncompressed one.
    Clusters(Box<Clusters>),
    /// One compressed cluster behind the inode.
    InlineCluster(SpoolRef),
    /// A part of the packed inode, from this byte on.
    Fragment(u64),
}

/// An image can have millions of inodes.
const _: () = assert!(size_of::<InodeData>() <= 16);

/// A file's clusters, one behind another.
pub struct Clusters {
    /// First block.
    pub start: u32,
    blocks: u32,
    extents: Box<[ClusterExtent]>,
}

impl InodeData {
    /// From the result of storing a file; the bytes of an inline cluster go to `spool`.
    pub fn from_stored(stored: Stored, spool: &mut InlineSpool) -> Result<InodeData> {
        Ok(match stored {
            Stored::Flat { start } => InodeData::Flat(start),
            Stored::Inline(bytes) => InodeData::InlineCluster(spool.append(&bytes)?),
            Stored::Compressed {
                start,
                blocks,
                extents,
            } => match extents[..] {
                [
                    ClusterExtent {
                        blocks,
                        plain: false,
                        ..
                    },
                ] => InodeData::Cluster { start, blocks },
                _ => InodeData::Clusters(Box::new(Clusters {
                    start,
                    blocks,
                    extents,
                })),
            },
        })
    }

    /// Whether it has compressed blocks.
    pub fn has_clusters(&self) -> bool {
        matches!(self, InodeData::Cluster { .. } | InodeData::Clusters(_))
    }

    /// `i_format`'s data layout and the field `i_u` of the inode: an address, a number of blocks,
    /// or a device number.
    pub fn layout(&self) -> (u8, u32) {
        match self {
            InodeData::Empty | InodeData::Pending => (EROFS_INODE_FLAT_PLAIN, 0),
            InodeData::Device(number) => (EROFS_INODE_FLAT_PLAIN, *number),
            InodeData::Flat(start) => (EROFS_INODE_FLAT_PLAIN, *start),
            InodeData::Tail => (EROFS_INODE_FLAT_INLINE, 0),
            InodeData::Cluster { .. }
            | InodeData::Clusters(_)
            | InodeData::InlineCluster(_)
            | InodeData::Fragment(_) => (EROFS_INODE_COMPRESSED_COMPACT, self.cluster_blocks()),
        }
    }

    /// First block, if the data has blocks whose position is known.
    pub fn start(&self) -> Option<u32> {
        match self {
            InodeData::Flat(start) | InodeData::Cluster { start, .. } => Some(*start),
            InodeData::Clusters(clusters) => Some(clusters.start),
            _ => None,
        }
    }

    /// Changes the first block of data that has one.
    pub fn set_start(&mut self, block: u32) {
        match self {
            InodeData::Flat(start) | InodeData::Cluster { start, .. } => *start = block,
            InodeData::Clusters(clusters) => clusters.start = block,
            _ => {}
        }
    }

    /// Number of blocks of its clusters; 0 for data without clusters.
    fn cluster_blocks(&self) -> u32 {
        match self {
            InodeData::Cluster { blocks, .. } => u32::from(*blocks),
            InodeData::Clusters(clusters) => clusters.blocks,
            _ => 0,
        }
    }

    /// Number of data blocks of an inode of `size` bytes.
    pub fn blocks(&self, size: u64) -> u64 {
        match self {
            InodeData::Flat(_) | InodeData::Pending => size.div_ceil(BLOCK as u64),
            _ => u64::from(self.cluster_blocks()),
        }
    }

    /// Calls `work` with the clusters of a file of `size` bytes.
    pub fn with_extents<T>(&self, size: u64, work: impl FnOnce(&[ClusterExtent]) -> T) -> T {
        let single = |blocks| ClusterExtent {
            len: size as u32,
            blocks,
            plain: false,
        };
        match self {
            InodeData::Cluster { blocks, .. } => work(&[single(*blocks)]),
            InodeData::InlineCluster(_) => work(&[single(1)]),
            InodeData::Clusters(clusters) => work(&clusters.extents),
            _ => work(&[]),
        }
    }
}
