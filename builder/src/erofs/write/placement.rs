//! The positions of inodes and data.

use super::contents::{PackedInode, StoredContents};
use crate::erofs::block_writer::too_large;
use crate::erofs::index;
use crate::erofs::inode_data::InodeData;
use crate::erofs::inodes::{Inodes, Item};
use crate::erofs::layout::{self, Area, InodePositions, InodeRequest};
use crate::erofs::reference::{BlockRequest, MAX_GROWTH, Reference};
use crate::error::{Error, Result};
use crate::tree::{Kind, Tree};

/// The positions of everything but shared extended attributes.
pub struct Placement {
    /// Positions of the inodes; the packed inode is the last one.
    pub inodes: InodePositions,
    /// Data that must still be written: index of its inode, and first block. In this order.
    pub starts: Vec<(u32, u32)>,
    /// The block behind all data.
    end: u64,
}

impl Placement {
    /// Number of blocks in all, without shared attributes.
    fn total(&self) -> u64 {
        self.end + self.inodes.blocks
    }

    /// Number (nid) of the packed inode.
    pub fn packed_number(&self, inodes: &Inodes) -> Option<u64> {
        self.inodes.numbers.get(inodes.items.len()).copied()
    }
}

/// Gives every inode a position, and blocks behind the contents to each directory that needs them.
/// `spooled` contents must still be written, too.
pub fn place(
    tree: &Tree,
    inodes: &Inodes,
    contents: &StoredContents,
    spooled: bool,
) -> Result<Placement> {
    let StoredContents { data, packed, end } = contents;
    let count = inodes.items.len() + usize::from(packed.is_some());
    let request = |i: usize| match packed.as_ref().filter(|_| i == inodes.items.len()) {
        Some(PackedInode { item, data }) => InodeRequest {
            bytes: bytes_in_metadata(inodes, item, data),
            key: item.key,
            area: Area::Addresses,
        },
        None => inode_request(tree, inodes, i, &data[i]),
    };
    let positions = layout::place(count, &request)
        .ok_or_else(|| Error::new("the metadata would be larger than 16 TiB"))?;
    let mut starts: Vec<(u32, u32)> = (0..)
        .zip(data)
        .filter(|_| spooled)
        .filter_map(|(i, data)| Some((i, data.start()?)))
        .collect();
    let mut block = u64::from(*end);
    for (i, (item, data)) in (0..).zip(inodes.items.iter().zip(data)) {
        if matches!(data, InodeData::Pending) {
            starts.push((i, u32::try_from(block).map_err(|_| too_large())?));
            block += data.blocks(item.size);
        }
    }
    Ok(Placement {
        inodes: positions,
        starts,
        end: block,
    })
}

/// The positions of the reference image where possible; `None` if the image would grow too much.
pub fn reuse_placement(
    tree: &Tree,
    inodes: &Inodes,
    data: &[InodeData],
    reference: &Reference,
    new: &Placement,
) -> Option<Placement> {
    let blocks_of = |i: u32| data[i as usize].blocks(inodes.items[i as usize].size);
    let requests: Vec<BlockRequest> = new
        .starts
        .iter()
        .map(|(i, _)| {
            Some(BlockRequest {
                key: inodes.items[*i as usize].key,
                blocks: u32::try_from(blocks_of(*i)).ok()?,
            })
        })
        .collect::<Option<_>>()?;
    let mut starts: Vec<(u32, u32)> = new
        .starts
        .iter()
        .map(|(i, _)| *i)
        .zip(reference.place_data(&requests)?)
        .collect();
    drop(requests);
    starts.sort_unstable_by_key(|(_, start)| *start);
    let positions = reference.place_inodes(inodes.items.len(), &|i| {
        inode_request(tree, inodes, i, &data[i])
    })?;
    let end = starts
        .last()
        .map_or(1, |(i, start)| u64::from(*start) + blocks_of(*i));
    Some(Placement {
        inodes: positions,
        starts,
        end,
    })
    .filter(|reused| reused.total() <= new.total() + new.total() / MAX_GROWTH)
}

fn inode_request(tree: &Tree, inodes: &Inodes, index: usize, data: &InodeData) -> InodeRequest {
    let item = &inodes.items[index];
    let is_directory = matches!(tree.node(item.node).kind, Kind::Directory(_));
    let area = match data {
        _ if index == 0 => Area::Names,
        InodeData::Flat(_)
        | InodeData::Cluster { .. }
        | InodeData::Clusters(_)
        | InodeData::Pending => Area::Addresses,
        InodeData::Tail if is_directory => Area::Names,
        _ => Area::Rest,
    };
    InodeRequest {
        bytes: bytes_in_metadata(inodes, item, data),
        key: item.key,
        area,
    }
}

/// Size of an inode, its extended attributes, and its tail or index.
fn bytes_in_metadata(inodes: &Inodes, item: &Item, data: &InodeData) -> u64 {
    let header = inodes.header(item);
    let behind = match data {
        InodeData::Cluster { .. } | InodeData::Clusters(_) => index::len(item.size, header),
        InodeData::InlineCluster(bytes) => index::len(item.size, header) + u64::from(bytes.len()),
        InodeData::Fragment(_) => index::fragment_len(header),
        InodeData::Tail => item.size,
        InodeData::Empty | InodeData::Device(_) | InodeData::Flat(_) | InodeData::Pending => 0,
    };
    header as u64 + behind
}
