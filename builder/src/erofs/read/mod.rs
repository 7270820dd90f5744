//! Opens an image and checks its structure completely: superblock, every inode, the order of every
//! directory, every index, link counts, and that no byte has two owners.
//!
//! It accepts only images that the writer makes. Every byte is treated as hostile: the image's
//! length bounds work and memory, and nothing panics.

mod check;
mod data;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use self::check::{Check, is_dir};
use self::data::{CHUNK, algorithm, decode_index, header, read_cluster, read_flat, read_index};
use super::format::*;
use super::index::{ClusterAddress, ClusterExtent};
use crate::error::{Context, Error, Result};
use crate::io::part::Part;

/// Number of decompressed clusters of the packed inode in the cache.
const CACHED_CLUSTERS: usize = 8;
/// Name of the packed inode in messages.
const PACKED: &[u8] = b"(contents of files)";

/// An image whose structure is correct.
pub struct ErofsImage {
    file: Part,
    /// `available_compr_algs` of the superblock.
    algorithms: u16,
    /// First byte of the metadata area.
    meta: u64,
    /// Modification time of compact inodes.
    fixed: (i64, u32),
    nodes: Vec<ImageNode>,
    names: Vec<DirectoryName>,
    /// Ranges in order.
    used: Vec<UsedRange>,
    packed: Option<PackedInode>,
}

/// A range of bytes of the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct UsedRange {
    start: u64,
    end: u64,
    /// The node that it belongs to; `None` for the superblock.
    node: Option<usize>,
}

/// The packed inode, which contains the fragments.
struct PackedInode {
    node: usize,
    /// Its clusters; empty for a flat one.
    clusters: Vec<PackedCluster>,
    /// The clusters that were decompressed last, by index, since neighbours are read one after the
    /// other.
    cached: Mutex<VecDeque<(usize, Arc<[u8]>)>>,
}

/// A cluster of the packed inode.
struct PackedCluster {
    /// Its first byte in the packed inode.
    offset: u64,
    /// Its first byte in the image.
    position: u64,
    extent: ClusterExtent,
}

/// Extended attributes by full name; shared ones share memory.
pub type ImageXattrs = BTreeMap<Arc<[u8]>, Arc<[u8]>>;

/// A name in a directory.
struct DirectoryName {
    parent: usize,
    name: Box<[u8]>,
    node: usize,
}

/// An inode of an image.
struct ImageNode {
    inode: Inode,
    /// Its first byte in the image.
    at: u64,
    /// Index of its first name; `None` for the root.
    first: Option<usize>,
    /// Offset of its data in the packed inode, for a fragment.
    fragment: Option<u64>,
    xattrs: ImageXattrs,
}

/// Bytes that belong to an inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageExtent {
    /// Number of the inode.
    pub inode: usize,
    /// Length.
    pub bytes: u64,
    /// First block of data; `None` for the inode itself and everything behind it.
    pub data_start: Option<u64>,
}

/// Metadata of an inode, as in stat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InodeStat {
    /// Type and permission bits.
    pub mode: u16,
    /// Link count.
    pub links: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes.
    pub size: u64,
    /// Modification time: seconds and nanoseconds since 1970.
    pub mtime: (i64, u32),
    /// Major and minor device number; 0, 0 for other inodes.
    pub device: (u32, u32),
    /// Whether it is stored compressed.
    pub compressed: bool,
}

impl ErofsImage {
    /// Opens and checks an image.
    pub fn open(file: Part) -> Result<ErofsImage> {
        let len = file.len();
        let mut block = [0; BLOCK];
        file.read_exact_at(&mut block, 0)
            .context(|| "reading the superblock")?;
        let superblock = ErofsSuperBlock::parse(&block)
            .map_err(|why| Error::new(format!("superblock: {why}")))?;
        if u64::from(superblock.blocks.get()) * BLOCK as u64 != len {
            return Err(Error::new(format!(
                "superblock: {} blocks, but the file has {len} bytes",
                superblock.blocks
            )));
        }
        let mut check = Check::new(&file, &superblock);
        check.visit_all(
            u64::from(superblock.root_nid.get()),
            superblock.packed_nid.get(),
        )?;
        let Check {
            nodes,
            names,
            mut used,
            packed,
            ..
        } = check;
        if nodes.len() as u64 != superblock.inos.get() {
            return Err(Error::new(format!(
                "superblock: {} inodes, but the image has {}",
                superblock.inos,
                nodes.len()
            )));
        }
        used.sort_unstable();
        let image = ErofsImage {
            file,
            algorithms: superblock.available_compr_algs.get(),
            meta: u64::from(superblock.meta_blkaddr.get()) * BLOCK as u64,
            fixed: (superblock.epoch.get() as i64, superblock.fixed_nsec.get()),
            nodes,
            names,
            used,
            packed,
        };
        image.check_links()?;
        image.check_overlaps()?;
        Ok(image)
    }

    /// Path and inode number of every name. The root has none.
    pub fn names(&self) -> impl Iterator<Item = (Vec<u8>, usize)> {
        (0..self.names.len()).map(|i| (self.path(Some(i)), self.names[i].node))
    }

    /// Number of inodes, the packed inode included. Inode 0 is the root.
    pub fn inodes(&self) -> usize {
        self.nodes.len()
    }

    /// Metadata of an inode.
    pub fn stat(&self, number: usize) -> InodeStat {
        let i = &self.nodes[number].inode;
        let device = if matches!(i.mode >> 12, 2 | 6) {
            decode_dev(i.u)
        } else {
            (0, 0)
        };
        InodeStat {
            mode: i.mode,
            links: i.nlink,
            uid: i.uid,
            gid: i.gid,
            size: i.size,
            mtime: i.mtime,
            device,
            compressed: i.datalayout == EROFS_INODE_COMPRESSED_COMPACT,
        }
    }

    /// An inode's extended attributes.
    pub fn xattrs(&self, number: usize) -> &ImageXattrs {
        &self.nodes[number].xattrs
    }

    /// First path of the file that a block belongs to. For a metadata block with several inodes,
    /// that of the first one. `None` for a block of no file.
    pub fn owner(&self, block: u64) -> Option<Vec<u8>> {
        let (start, end) = (block * BLOCK as u64, (block + 1) * BLOCK as u64);
        let from = self.used.partition_point(|used| used.end <= start);
        let node = self.used[from..]
            .iter()
            .take_while(|used| used.start < end)
            .find_map(|used| used.node)?;
        Some(self.name_of(node))
    }

    /// Whether a block belongs to the metadata area.
    pub fn is_metadata(&self, block: u64) -> bool {
        block * BLOCK as u64 >= self.meta
    }

    /// Modification time of compact inodes: seconds and nanoseconds since 1970.
    pub fn fixed_time(&self) -> (i64, u32) {
        self.fixed
    }

    /// An inode's position in the metadata area, bytes from its start.
    pub fn inode_offset(&self, number: usize) -> u64 {
        self.nodes[number].at - self.meta
    }

    /// The bytes of all inodes, in the order of the image.
    pub fn extents(&self) -> impl Iterator<Item = ImageExtent> {
        self.used.iter().filter_map(|used| {
            let inode = used.node?;
            Some(ImageExtent {
                inode,
                bytes: used.end - used.start,
                data_start: (self.nodes[inode].at != used.start)
                    .then_some(used.start / BLOCK as u64),
            })
        })
    }

    /// Whether an inode's data is a fragment of the packed inode.
    pub fn is_fragment(&self, number: usize) -> bool {
        self.nodes[number].fragment.is_some()
    }

    fn is_packed(&self, node: usize) -> bool {
        self.packed
            .as_ref()
            .is_some_and(|packed| packed.node == node)
    }

    /// Number of inodes that have a name, and the root.
    pub fn named(&self) -> usize {
        self.nodes.len() - usize::from(self.packed.is_some())
    }

    /// Gives an inode's data (a file's bytes, a link's target, a directory's blocks) to `put`,
    /// piece by piece.
    pub fn read(&self, number: usize, put: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> Result<()> {
        let node = &self.nodes[number];
        let what = || String::from_utf8_lossy(&self.name_of(number)).into_owned();
        if let (Some(at), Some(packed)) = (node.fragment, &self.packed) {
            return self
                .read_packed(packed, at, node.inode.size, put)
                .context(what);
        }
        if matches!(node.inode.mode >> 12, 1 | 2 | 6 | 12) {
            return Ok(());
        }
        if node.inode.datalayout != EROFS_INODE_COMPRESSED_COMPACT {
            return read_flat(&self.file, &node.inode, node.at, put).context(what);
        }
        let bytes = read_index(&self.file, &node.inode, node.at).context(what)?;
        let (address, extents) = decode_index(&node.inode, &bytes, self.algorithms)
            .map_err(|why| Error::new(format!("{}: {why}", what())))?;
        let algorithm = algorithm(self.algorithms);
        let mut at = match address {
            ClusterAddress::Blocks(start) => u64::from(start) * BLOCK as u64,
            ClusterAddress::Inline(_) => node.at + header(&node.inode) as u64 + bytes.len() as u64,
        };
        for extent in extents {
            let stored = match address {
                ClusterAddress::Blocks(_) => usize::from(extent.blocks) * BLOCK,
                ClusterAddress::Inline(bytes) => usize::from(bytes),
            };
            let bytes = read_cluster(&self.file, at, stored, extent, algorithm).context(what)?;
            put(&bytes).context(what)?;
            at += stored as u64;
        }
        Ok(())
    }

    /// Reads a fragment, whose range has been checked.
    fn read_packed(
        &self,
        packed: &PackedInode,
        mut at: u64,
        size: u64,
        put: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let end = at + size;
        if packed.clusters.is_empty() {
            let start = u64::from(self.nodes[packed.node].inode.u) * BLOCK as u64;
            let mut buffer = Vec::new();
            while at < end {
                buffer.resize((end - at).min(CHUNK) as usize, 0);
                self.file.read_exact_at(&mut buffer, start + at)?;
                put(&buffer)?;
                at += buffer.len() as u64;
            }
            return Ok(());
        }
        let first = packed
            .clusters
            .partition_point(|cluster| cluster.offset <= at)
            - 1;
        for (index, cluster) in packed.clusters.iter().enumerate().skip(first) {
            if at >= end {
                break;
            }
            let bytes = self.packed_cluster(packed, index, cluster)?;
            let until = end.min(cluster.offset + bytes.len() as u64);
            put(&bytes[(at - cluster.offset) as usize..(until - cluster.offset) as usize])?;
            at = until;
        }
        Ok(())
    }

    /// Decompresses a cluster of the packed inode, or takes it from the cache.
    fn packed_cluster(
        &self,
        packed: &PackedInode,
        index: usize,
        cluster: &PackedCluster,
    ) -> io::Result<Arc<[u8]>> {
        let cached = || packed.cached.lock().unwrap_or_else(PoisonError::into_inner);
        let known = cached()
            .iter()
            .find(|(known, _)| *known == index)
            .map(|(_, bytes)| bytes.clone());
        if let Some(bytes) = known {
            return Ok(bytes);
        }
        let stored = usize::from(cluster.extent.blocks) * BLOCK;
        let algorithm = algorithm(self.algorithms);
        let bytes: Arc<[u8]> = read_cluster(
            &self.file,
            cluster.position,
            stored,
            cluster.extent,
            algorithm,
        )?
        .into();
        let mut cached = cached();
        cached.truncate(CACHED_CLUSTERS - 1);
        cached.push_front((index, bytes.clone()));
        Ok(bytes)
    }

    /// First path of a node, for messages.
    fn name_of(&self, node: usize) -> Vec<u8> {
        if self.is_packed(node) {
            PACKED.to_vec()
        } else {
            self.path(self.nodes[node].first)
        }
    }

    fn path(&self, mut name: Option<usize>) -> Vec<u8> {
        let mut parts = Vec::new();
        while let Some(i) = name {
            parts.push(&*self.names[i].name);
            name = self.nodes[self.names[i].parent].first;
        }
        let mut path = Vec::new();
        for part in parts.iter().rev() {
            path.push(b'/');
            path.extend_from_slice(part);
        }
        if path.is_empty() { b"/".to_vec() } else { path }
    }

    fn error(&self, node: usize, why: String) -> Error {
        let name = self.name_of(node);
        Error::new(format!("{}: {why}", String::from_utf8_lossy(&name)))
    }

    fn check_links(&self) -> Result<()> {
        let mut links: Vec<u64> = self
            .nodes
            .iter()
            .map(|n| if is_dir(&n.inode) { 2 } else { 0 })
            .collect();
        for name in &self.names {
            match is_dir(&self.nodes[name.node].inode) {
                true => links[name.parent] += 1,
                false => links[name.node] += 1,
            }
        }
        if let Some(packed) = &self.packed {
            links[packed.node] += 1;
        }
        for (i, node) in self.nodes.iter().enumerate() {
            if u64::from(node.inode.nlink) != links[i] {
                return Err(self.error(
                    i,
                    format!("link count {}, expected {}", node.inode.nlink, links[i]),
                ));
            }
        }
        Ok(())
    }

    fn check_overlaps(&self) -> Result<()> {
        for pair in self.used.windows(2) {
            if pair[0].end > pair[1].start {
                let start = pair[1].start;
                let why = format!("its bytes from {start} on also belong to another inode");
                return Err(match pair[1].node.or(pair[0].node) {
                    Some(node) => self.error(node, why),
                    None => Error::new(format!("superblock: {why}")),
                });
            }
        }
        Ok(())
    }
}
