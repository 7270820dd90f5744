//! Writing data with known positions, and the inodes.

use super::contents::{PackedInode, StoredContents};
use super::placement::Placement;
use crate::erofs::block_writer::BlockWriter;
use crate::erofs::content_spool::ContentSpool;
use crate::erofs::dir::{self, Name};
use crate::erofs::format::*;
use crate::erofs::index::{self, ClusterAddress};
use crate::erofs::inline_spool::InlineSpool;
use crate::erofs::inode_data::InodeData;
use crate::erofs::inodes::{Inodes, Item, path_of};
use crate::erofs::xattr;
use crate::error::{Context, Result};
use crate::tree::{Kind, Tree};

/// Writes the data that the placement lists, and sets the first block of each.
pub fn write_data(
    tree: &Tree,
    inodes: &Inodes,
    data: &mut [InodeData],
    placement: &Placement,
    spool: Option<&ContentSpool>,
    out: &mut BlockWriter<'_>,
) -> Result<()> {
    for &(i, start) in &placement.starts {
        let i = i as usize;
        let item = &inodes.items[i];
        out.pad_to(u64::from(start) * BLOCK as u64)?;
        match spool.zip(data[i].start()) {
            Some((spool, spooled_at)) => {
                spool.copy(spooled_at, data[i].blocks(item.size) as u32, out)?;
                data[i].set_start(start);
            }
            None => {
                data[i] = InodeData::Flat(start);
                out.write(&directory(tree, inodes, item, &placement.inodes.numbers))?;
                out.pad_block()?;
            }
        }
    }
    Ok(())
}

/// The bytes of a directory.
fn directory(tree: &Tree, inodes: &Inodes, item: &Item, numbers: &[u64]) -> Vec<u8> {
    let names = dir::with_dots(
        tree.children(item.node),
        item.node,
        inodes.items[item.parent as usize].node,
    );
    dir::encode(names.map(|(name, node)| Name {
        name,
        nid: numbers[inodes.index(node)],
        file_type: file_type(&tree.node(node).kind),
    }))
}

/// The metadata area.
pub struct Metadata<'a> {
    pub tree: &'a Tree,
    pub inodes: &'a Inodes,
    pub contents: &'a StoredContents,
    pub placement: &'a Placement,
    /// Number of the compression algorithm, for map headers.
    pub algorithm: u8,
    pub inline_spool: &'a InlineSpool,
    /// First block.
    pub start: u32,
}

impl Metadata<'_> {
    /// Writes all inodes, in the order of their numbers.
    pub fn write(&self, out: &mut BlockWriter<'_>) -> Result<()> {
        let numbers = &self.placement.inodes.numbers;
        let mut order: Vec<u32> = (0..numbers.len() as u32).collect();
        order.sort_unstable_by_key(|&i| numbers[i as usize]);
        let start = u64::from(self.start) * BLOCK as u64;
        for i in order {
            let i = i as usize;
            out.pad_to(start + numbers[i] * SLOT as u64)?;
            match self
                .contents
                .packed
                .as_ref()
                .filter(|_| i == self.contents.data.len())
            {
                Some(packed) => self.write_packed(packed, out)?,
                None => self.write_inode(i, out)?,
            }
        }
        let end = start + self.placement.inodes.blocks * BLOCK as u64;
        // fsck.erofs reads the header of extended attributes behind each inode, also of an inode
        // that has none. So there must be room for it behind the last one.
        let room = end.saturating_sub(out.position());
        out.pad_to(if room < XATTR_IBODY_HEADER as u64 {
            end + BLOCK as u64
        } else {
            end
        })
    }

    fn write_inode(&self, i: usize, out: &mut BlockWriter<'_>) -> Result<()> {
        let item = &self.inodes.items[i];
        let node = self.tree.node(item.node);
        let data = &self.contents.data[i];
        let xattrs = self.inodes.xattr_body(item);
        let (datalayout, u) = data.layout();
        let inode = Inode {
            extended: item.extended(),
            datalayout,
            xattr_icount: xattr::icount(xattrs.len()),
            mode: node.meta.mode & 0o7777 | type_bits(&node.kind),
            nlink: item.links,
            size: item.size,
            u,
            // Only 32-bit programs without large file support read it. A running number would
            // change for all inodes behind a new one.
            ino: item.key.0 as u32,
            uid: node.meta.uid,
            gid: node.meta.gid,
            mtime: (node.meta.mtime.seconds, node.meta.mtime.nanoseconds),
        };
        out.write(&inode.encode())?;
        out.write(xattrs)?;
        match data {
            InodeData::Tail => self.write_tail(item, out),
            _ => self.write_index(item.size, self.inodes.header(item), data, out),
        }
    }

    fn write_tail(&self, item: &Item, out: &mut BlockWriter<'_>) -> Result<()> {
        match &self.tree.node(item.node).kind {
            Kind::Directory(_) => {
                let numbers = &self.placement.inodes.numbers;
                out.write(&directory(self.tree, self.inodes, item, numbers))
            }
            Kind::File(content) => {
                let mut bytes = vec![0; item.size as usize];
                content
                    .read_exact_at(0, &mut bytes)
                    .context(|| path_of(self.tree, item.node))?;
                out.write(&bytes)
            }
            Kind::Symlink(target) => out.write(target),
            _ => Ok(()),
        }
    }

    /// Writes the index and the inline cluster of compressed data, or the header of a fragment.
    fn write_index(
        &self,
        size: u64,
        header: usize,
        data: &InodeData,
        out: &mut BlockWriter<'_>,
    ) -> Result<()> {
        let address = match data {
            InodeData::Cluster { start, .. } => ClusterAddress::Blocks(*start),
            InodeData::Clusters(clusters) => ClusterAddress::Blocks(clusters.start),
            InodeData::InlineCluster(bytes) => ClusterAddress::Inline(bytes.len()),
            InodeData::Fragment(offset) => {
                return index::encode_fragment(*offset, header, &mut |bytes| out.write(bytes));
            }
            _ => return Ok(()),
        };
        data.with_extents(size, |extents| {
            index::encode(
                size,
                header,
                self.algorithm,
                address,
                extents,
                &mut |bytes| out.write(bytes),
            )
        })?;
        match data {
            InodeData::InlineCluster(bytes) => out.write(&self.inline_spool.read(*bytes)?),
            _ => Ok(()),
        }
    }

    fn write_packed(&self, packed: &PackedInode, out: &mut BlockWriter<'_>) -> Result<()> {
        let PackedInode { item, data } = packed;
        let fixed = self.inodes.fixed;
        let (datalayout, u) = data.layout();
        let inode = Inode {
            extended: item.extended(),
            datalayout,
            xattr_icount: 0,
            mode: 0o100000,
            nlink: item.links,
            size: item.size,
            u,
            ino: 0,
            uid: 0,
            gid: 0,
            mtime: (fixed.seconds, fixed.nanoseconds),
        };
        out.write(&inode.encode())?;
        self.write_index(item.size, self.inodes.header(item), data, out)
    }
}

fn type_bits(kind: &Kind) -> u16 {
    match kind {
        Kind::Directory(_) => 0o040000,
        Kind::File(_) => 0o100000,
        Kind::Symlink(_) => 0o120000,
        Kind::CharDevice { .. } => 0o020000,
        Kind::BlockDevice { .. } => 0o060000,
        Kind::Fifo => 0o010000,
        Kind::Socket => 0o140000,
    }
}

fn file_type(kind: &Kind) -> u8 {
    match kind {
        Kind::Directory(_) => EROFS_FT_DIR,
        Kind::File(_) => EROFS_FT_REG_FILE,
        Kind::Symlink(_) => EROFS_FT_SYMLINK,
        Kind::CharDevice { .. } => EROFS_FT_CHRDEV,
        Kind::BlockDevice { .. } => EROFS_FT_BLKDEV,
        Kind::Fifo => EROFS_FT_FIFO,
        Kind::Socket => EROFS_FT_SOCK,
    }
}
