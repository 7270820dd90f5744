//! The check of an image's structure, which collects its inodes and names.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use zerocopy::FromBytes;
use zerocopy::little_endian::U32;

use super::data::{decode_index, header, read_flat, read_index};
use super::{DirectoryName, ImageNode, ImageXattrs, PackedCluster, PackedInode, UsedRange};
use crate::erofs::dir::{self, Name};
use crate::erofs::format::*;
use crate::erofs::index::{self, ClusterAddress};
use crate::erofs::xattr;
use crate::error::{Error, Result};
use crate::io::part::Part;

/// A check in progress.
pub struct Check<'a> {
    file: &'a Part,
    /// Length of the image, bytes.
    len: u64,
    /// First byte of the metadata area.
    meta: u64,
    /// First byte of the shared extended attributes.
    xattrs: u64,
    fixed: (i64, u32),
    algorithms: u16,
    pub nodes: Vec<ImageNode>,
    pub names: Vec<DirectoryName>,
    pub used: Vec<UsedRange>,
    /// Index of the node for each inode number.
    by_nid: HashMap<u64, usize>,
    /// Shared attributes that were read already.
    shared: HashMap<u32, NamedValue>,
    /// Bytes of directories, indexes and attributes that may still be read. It bounds the work by
    /// the image's length.
    budget: u64,
    pub packed: Option<PackedInode>,
}

impl<'a> Check<'a> {
    /// Starts with nothing but the superblock.
    pub fn new(file: &'a Part, superblock: &ErofsSuperBlock) -> Check<'a> {
        let byte = |block: u32| u64::from(block) * BLOCK as u64;
        Check {
            file,
            len: file.len(),
            meta: byte(superblock.meta_blkaddr.get()),
            xattrs: byte(superblock.xattr_blkaddr.get()),
            fixed: (superblock.epoch.get() as i64, superblock.fixed_nsec.get()),
            algorithms: superblock.available_compr_algs.get(),
            nodes: Vec::new(),
            names: Vec::new(),
            used: vec![UsedRange {
                start: 0,
                end: BLOCK as u64,
                node: None,
            }],
            by_nid: HashMap::new(),
            shared: HashMap::new(),
            budget: file.len().saturating_mul(4),
            packed: None,
        }
    }

    /// Checks everything that the root directory leads to, and the packed inode.
    pub fn visit_all(&mut self, root: u64, packed: u64) -> Result<()> {
        self.inode(root, None)
            .map_err(|why| Error::new(format!("/: {why}")))?;
        if packed != 0 {
            self.check_packed(packed)
                .map_err(|why| Error::new(format!("the packed inode: {why}")))?;
        }
        if !is_dir(&self.nodes[0].inode) {
            return Err(Error::new("/: not a directory"));
        }
        let mut todo = vec![(0, 0)];
        while let Some((directory, parent)) = todo.pop() {
            let found = self
                .check_directory(directory, parent)
                .map_err(|why| Error::new(format!("{}: {why}", self.display_path(directory))))?;
            todo.extend(found.into_iter().map(|child| (child, directory)));
        }
        Ok(())
    }

    fn check_packed(&mut self, nid: u64) -> Result<(), String> {
        let node = self.inode(nid, None)?;
        let ImageNode {
            inode,
            at,
            fragment,
            ..
        } = &self.nodes[node];
        if node == 0
            || inode.mode >> 12 != 8
            || fragment.is_some()
            || !matches!(
                inode.datalayout,
                EROFS_INODE_FLAT_PLAIN | EROFS_INODE_COMPRESSED_COMPACT
            )
        {
            return Err("it is not a file with blocks".to_owned());
        }
        let mut clusters = Vec::new();
        if inode.datalayout == EROFS_INODE_COMPRESSED_COMPACT {
            let bytes = read_index(self.file, inode, *at).map_err(|e| e.to_string())?;
            let (ClusterAddress::Blocks(start), extents) =
                decode_index(inode, &bytes, self.algorithms)?
            else {
                return Err("its only cluster is inline".to_owned());
            };
            let (mut offset, mut position) = (0, u64::from(start) * BLOCK as u64);
            for extent in extents {
                clusters.push(PackedCluster {
                    offset,
                    position,
                    extent,
                });
                offset += u64::from(extent.len);
                position += u64::from(extent.blocks) * BLOCK as u64;
            }
        }
        self.packed = Some(PackedInode {
            node,
            clusters,
            cached: Mutex::default(),
        });
        Ok(())
    }

    fn display_path(&self, node: usize) -> String {
        let mut parts = Vec::new();
        let mut name = self.nodes[node].first;
        while let Some(i) = name {
            parts.push(String::from_utf8_lossy(&self.names[i].name).into_owned());
            name = self.nodes[self.names[i].parent].first;
        }
        parts.reverse();
        format!("/{}", parts.join("/"))
    }

    fn spend(&mut self, bytes: u64) -> Result<(), String> {
        self.budget = self
            .budget
            .checked_sub(bytes)
            .ok_or("the metadata has more bytes than the image")?;
        Ok(())
    }

    /// Checks the inode with this number once, and gives the index of its node. `name` is the index
    /// of its first name.
    fn inode(&mut self, nid: u64, name: Option<usize>) -> Result<usize, String> {
        if let Some(&known) = self.by_nid.get(&nid) {
            return Ok(known);
        }
        let at = nid
            .checked_mul(SLOT as u64)
            .and_then(|o| self.meta.checked_add(o))
            .filter(|at| {
                at.checked_add(INODE_COMPACT as u64)
                    .is_some_and(|end| end <= self.len)
            });
        let at = at.ok_or_else(|| format!("inode {nid} lies beyond the end of the image"))?;
        let mut bytes = [0; INODE_EXTENDED];
        let room = (self.len - at).min(INODE_EXTENDED as u64) as usize;
        self.file
            .read_exact_at(&mut bytes[..room], at)
            .map_err(|e| e.to_string())?;
        let inode = Inode::parse(&bytes[..room], self.fixed)
            .ok_or_else(|| format!("inode {nid} is corrupted"))?;
        if inode.mtime.1 > 999_999_999 || !matches!(inode.mode >> 12, 1 | 2 | 4 | 6 | 8 | 10 | 12) {
            return Err(format!("inode {nid} has an impossible type or time"));
        }
        let node = self.nodes.len();
        let xattrs = self.attributes(&inode, at)?;
        let fragment = self.fragment(&inode, at)?;
        let behind = match fragment {
            Some(_) => index::fragment_len(header(&inode)),
            None => self.check_data(&inode, at, node)?,
        };
        let header = inode.len() as u64 + xattr::body_len(inode.xattr_icount) as u64;
        self.used.push(UsedRange {
            start: at,
            end: at + header + behind,
            node: Some(node),
        });
        self.by_nid.insert(nid, node);
        self.nodes.push(ImageNode {
            inode,
            at,
            first: name,
            fragment,
            xattrs,
        });
        Ok(node)
    }

    /// The offset of a fragment in the packed inode; `None` for an inode that is no fragment.
    fn fragment(&self, inode: &Inode, at: u64) -> Result<Option<u64>, String> {
        let header = header(inode);
        let Some(packed) = self.packed.as_ref().filter(|_| {
            inode.datalayout == EROFS_INODE_COMPRESSED_COMPACT && inode.mode >> 12 == 8
        }) else {
            return Ok(None);
        };
        let mut bytes = vec![0; index::fragment_len(header) as usize];
        self.file
            .read_exact_at(&mut bytes, at + header as u64)
            .map_err(|_| "it lies beyond the end of the image")?;
        let Some(start) = index::fragment(header, &bytes) else {
            return Ok(None);
        };
        let end = start.checked_add(inode.size).filter(|end| {
            inode.size > 0 && inode.u == 0 && *end <= self.nodes[packed.node].inode.size
        });
        end.map(|_| Some(start)).ok_or_else(|| {
            "it is a fragment that lies beyond the end of the packed inode".to_owned()
        })
    }

    /// Checks the position of an inode's data; gives the number of bytes behind its header.
    fn check_data(&mut self, inode: &Inode, at: u64, node: usize) -> Result<u64, String> {
        let header = header(inode) as u64;
        let image = self.len;
        let end = |behind: u64| {
            (at + header)
                .checked_add(behind)
                .filter(|end| *end <= image)
                .ok_or("it lies beyond the end of the image")
        };
        end(0)?;
        if matches!(inode.mode >> 12, 1 | 2 | 6 | 12) {
            return if inode.size == 0 && inode.datalayout == EROFS_INODE_FLAT_PLAIN {
                Ok(0)
            } else {
                Err("it is a special file with data".to_owned())
            };
        }
        let (start, blocks, behind) = match inode.datalayout {
            EROFS_INODE_FLAT_PLAIN => (u64::from(inode.u), inode.size.div_ceil(BLOCK as u64), 0),
            EROFS_INODE_FLAT_INLINE => {
                let tail = inode.size % BLOCK as u64;
                if tail == 0 || (at + header) % BLOCK as u64 + tail > BLOCK as u64 {
                    return Err("its tail crosses a block".to_owned());
                }
                (u64::from(inode.u), inode.size / BLOCK as u64, tail)
            }
            EROFS_INODE_COMPRESSED_COMPACT if inode.mode >> 12 == 8 && inode.size > 0 => {
                let behind = index::len(inode.size.min(1 << 60), header as usize);
                end(behind)?;
                self.spend(behind)?;
                let bytes = read_index(self.file, inode, at).map_err(|e| e.to_string())?;
                let (address, extents) = decode_index(inode, &bytes, self.algorithms)?;
                let (start, blocks, inline) = match address {
                    ClusterAddress::Blocks(start) => {
                        (start, extents.iter().map(|e| u64::from(e.blocks)).sum(), 0)
                    }
                    ClusterAddress::Inline(bytes)
                        if (at + header + behind) % BLOCK as u64 + u64::from(bytes)
                            <= BLOCK as u64 =>
                    {
                        (0, 0, u64::from(bytes))
                    }
                    ClusterAddress::Inline(_) => {
                        return Err("its cluster crosses a block".to_owned());
                    }
                };
                if blocks != u64::from(inode.u) {
                    return Err(format!(
                        "it has {} blocks, but its index has {blocks}",
                        inode.u
                    ));
                }
                (u64::from(start), blocks, behind + inline)
            }
            other => {
                return Err(format!(
                    "it has data layout {other}, which adamant never writes"
                ));
            }
        };
        end(behind)?;
        if blocks > 0 {
            let last = start
                .checked_add(blocks)
                .and_then(|b| b.checked_mul(BLOCK as u64))
                .filter(|last| *last <= self.len);
            self.used.push(UsedRange {
                start: start * BLOCK as u64,
                end: last.ok_or("its data lies beyond the end of the image")?,
                node: Some(node),
            });
        }
        Ok(behind)
    }

    fn attributes(&mut self, inode: &Inode, at: u64) -> Result<ImageXattrs, String> {
        let mut found = BTreeMap::new();
        let len = xattr::body_len(inode.xattr_icount);
        if len == 0 {
            return Ok(found);
        }
        let start = at + inode.len() as u64;
        if start + len as u64 > self.len {
            return Err("its extended attributes lie beyond the end of the image".to_owned());
        }
        self.spend(len as u64)?;
        let mut body = vec![0; len];
        self.file
            .read_exact_at(&mut body, start)
            .map_err(|e| e.to_string())?;
        let damaged = "its extended attributes are corrupted";
        let (header, rest) = ErofsXattrIbodyHeader::read_from_prefix(&body).map_err(|_| damaged)?;
        let (shared, mut rest) =
            <[U32]>::ref_from_prefix_with_elems(rest, usize::from(header.h_shared_count))
                .map_err(|_| damaged)?;
        while !rest.is_empty() {
            let ((name, value), len) = attribute(rest).ok_or(damaged)?;
            found.insert(name, value);
            rest = rest.get(len..).unwrap_or_default();
        }
        for id in shared {
            let (name, value) = self.shared_attribute(id.get())?;
            found.insert(name, value);
        }
        Ok(found)
    }

    /// An attribute of the shared area. Each is read only once.
    fn shared_attribute(&mut self, id: u32) -> Result<NamedValue, String> {
        if let Some(known) = self.shared.get(&id) {
            return Ok(known.clone());
        }
        let read = |entry: &mut [u8]| {
            let at = self.xattrs + u64::from(id) * 4;
            self.file.read_exact_at(entry, at).map_err(|_| {
                "a shared extended attribute lies beyond the end of the image".to_owned()
            })
        };
        let mut head = [0; XATTR_ENTRY];
        read(&mut head)?;
        let header: ErofsXattrEntry = zerocopy::transmute!(head);
        let len =
            XATTR_ENTRY + usize::from(header.e_name_len) + usize::from(header.e_value_size.get());
        let mut entry = vec![0; len];
        read(&mut entry)?;
        self.spend(entry.len() as u64)?;
        let (shared, _) = attribute(&entry).ok_or("a shared extended attribute is corrupted")?;
        self.shared.insert(id, shared.clone());
        Ok(shared)
    }

    /// Checks a directory; gives its subdirectories.
    fn check_directory(&mut self, node: usize, parent: usize) -> Result<Vec<usize>, String> {
        let (size, at) = (self.nodes[node].inode.size, self.nodes[node].at);
        self.spend(size)?;
        let mut bytes = Vec::new();
        read_flat(self.file, &self.nodes[node].inode, at, &mut |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })
        .map_err(|e| e.to_string())?;
        let mut last: Option<Vec<u8>> = None;
        let mut below = Vec::new();
        let mut dots = 0;
        for block in bytes.chunks(BLOCK) {
            for Name {
                name,
                nid,
                file_type,
            } in dir::decode(block).ok_or("a directory block is corrupted")?
            {
                if last.as_deref().is_some_and(|last| last >= name) {
                    return Err(format!(
                        "{:?} is out of order",
                        String::from_utf8_lossy(name)
                    ));
                }
                last = Some(name.to_vec());
                let known = self.by_nid.get(&nid).copied();
                if name == b"." || name == b".." {
                    dots += 1;
                    if known != Some(if name == b"." { node } else { parent })
                        || file_type != EROFS_FT_DIR
                    {
                        return Err(format!(
                            "{:?} leads to the wrong directory",
                            String::from_utf8_lossy(name)
                        ));
                    }
                    continue;
                }
                self.names.push(DirectoryName {
                    parent: node,
                    name: name.into(),
                    node: 0,
                });
                let index = self.names.len() - 1;
                let child = self
                    .inode(nid, Some(index))
                    .map_err(|why| format!("{:?}: {why}", String::from_utf8_lossy(name)))?;
                if self
                    .packed
                    .as_ref()
                    .is_some_and(|packed| packed.node == child)
                {
                    return Err(format!(
                        "{:?} names the packed inode, which must have no name",
                        String::from_utf8_lossy(name)
                    ));
                }
                self.names[index].node = child;
                let inode = &self.nodes[child].inode;
                if file_type_of(inode) != file_type {
                    return Err(format!(
                        "{:?} has another type in its directory than in its inode",
                        String::from_utf8_lossy(name)
                    ));
                }
                if is_dir(inode) {
                    if known.is_some() {
                        return Err(format!(
                            "{:?} is a directory with a second name",
                            String::from_utf8_lossy(name)
                        ));
                    }
                    below.push(child);
                }
            }
        }
        if dots == 2 {
            Ok(below)
        } else {
            Err("\".\" or \"..\" is missing".to_owned())
        }
    }
}

/// Name and value.
type NamedValue = (Arc<[u8]>, Arc<[u8]>);

/// The attribute at the start of `bytes`, and the length of its entry.
fn attribute(bytes: &[u8]) -> Option<(NamedValue, usize)> {
    let (header, rest) = ErofsXattrEntry::read_from_prefix(bytes).ok()?;
    let (name, rest) = rest.split_at_checked(usize::from(header.e_name_len))?;
    let value = rest.get(..usize::from(header.e_value_size.get()))?;
    Some((
        (xattr::join(header.e_name_index, name)?.into(), value.into()),
        (XATTR_ENTRY + name.len() + value.len()).next_multiple_of(4),
    ))
}

pub fn is_dir(inode: &Inode) -> bool {
    inode.mode >> 12 == 4
}

fn file_type_of(inode: &Inode) -> u8 {
    match inode.mode >> 12 {
        1 => EROFS_FT_FIFO,
        2 => EROFS_FT_CHRDEV,
        4 => EROFS_FT_DIR,
        6 => EROFS_FT_BLKDEV,
        8 => EROFS_FT_REG_FILE,
        10 => EROFS_FT_SYMLINK,
        _ => EROFS_FT_SOCK,
    }
}
