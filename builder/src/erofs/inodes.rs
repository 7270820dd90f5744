//! The tree's inodes in the order of their first paths, with everything that is known before
//! contents are stored.

use std::collections::HashMap;

use super::dir;
use super::format::*;
use super::layout::PathKey;
use super::xattr::XattrTables;
use crate::error::{Error, Result};
use crate::tree::{Kind, Node, NodeId, Time, Tree};

/// Flag in [`Item::set`]: the inode needs the extended form.
const EXTENDED: u32 = 1 << 31;
/// Value of [`Item::set`] for an inode without extended attributes.
const NO_SET: u32 = EXTENDED - 1;

/// An inode to be written.
pub struct Item {
    /// Its node in the tree.
    pub node: NodeId,
    /// Index of the item of the directory with its first name; the root's own for the root.
    pub parent: u32,
    /// Number of its set of extended attributes, and [`EXTENDED`]. Packed, because there can be
    /// millions of items.
    set: u32,
    /// Link count, as in stat.
    pub links: u32,
    /// Bytes of a file's content, a directory's names, or a link's target.
    pub size: u64,
    /// PathKey of its first path.
    pub key: PathKey,
}

impl Item {
    /// The packed inode, of `size` bytes. It has no name, and no node in the tree.
    pub fn packed(size: u64) -> Item {
        let extended = if size > u64::from(u32::MAX) {
            EXTENDED
        } else {
            0
        };
        Item {
            node: Tree::ROOT,
            parent: 0,
            set: NO_SET | extended,
            links: 1,
            size,
            key: PathKey(u64::MAX),
        }
    }

    /// Whether it needs the extended form.
    pub fn extended(&self) -> bool {
        self.set & EXTENDED != 0
    }
}

/// An image can have millions of inodes.
const _: () = assert!(size_of::<Item>() <= 32);

/// All inodes; the root is the first.
pub struct Inodes {
    /// In the order of their first paths.
    pub items: Vec<Item>,
    /// Index of the item for each node of the tree.
    by_node: Vec<u32>,
    /// Their extended attributes.
    pub xattrs: XattrTables,
    /// Modification time of compact inodes.
    pub fixed: Time,
}

impl Inodes {
    /// Walks the tree. Compact inodes get the most frequent modification time. `reference_time` is
    /// preferred if at least half as many inodes have it, because another time would change every
    /// compact inode.
    pub fn collect(tree: &Tree, reference_time: Option<Time>) -> Result<Inodes> {
        let mut walk = InodeWalk {
            tree,
            items: Vec::new(),
            by_node: vec![u32::MAX; tree.capacity()],
            xattrs: XattrTables::default(),
            times: HashMap::new(),
            path: Vec::new(),
        };
        walk.visit_all()?;
        // Of several equally frequent times, the earliest.
        let (most, fixed) = walk
            .times
            .iter()
            .map(|(&time, &count)| (count, std::cmp::Reverse(time)))
            .max()
            .map(|(count, time)| (count, time.0))
            .unwrap_or_default();
        let fixed = reference_time
            .filter(|time| {
                walk.times
                    .get(time)
                    .is_some_and(|count| count.saturating_mul(2) >= most)
            })
            .unwrap_or(fixed);
        walk.xattrs.build();
        let InodeWalk {
            mut items,
            by_node,
            xattrs,
            ..
        } = walk;
        for item in &mut items {
            let meta = &tree.node(item.node).meta;
            let compact = meta.mtime == fixed
                && meta.uid <= u32::from(u16::MAX)
                && meta.gid <= u32::from(u16::MAX)
                && item.links <= u32::from(u16::MAX)
                && item.size <= u64::from(u32::MAX);
            item.set |= if compact { 0 } else { EXTENDED };
        }
        Ok(Inodes {
            items,
            by_node,
            xattrs,
            fixed,
        })
    }

    /// Index of a node's item.
    pub fn index(&self, node: NodeId) -> usize {
        self.by_node[node.0 as usize] as usize
    }

    /// Inline body of an item's extended attributes; empty without any.
    pub fn xattr_body(&self, item: &Item) -> &[u8] {
        match item.set & !EXTENDED {
            NO_SET => &[],
            set => self.xattrs.body(set),
        }
    }

    /// Bytes of inode and extended attributes.
    pub fn header(&self, item: &Item) -> usize {
        let inode = if item.extended() {
            INODE_EXTENDED
        } else {
            INODE_COMPACT
        };
        inode + self.xattr_body(item).len()
    }

    /// Whether all of its data fits behind its header, uncompressed. The format also allows to put
    /// only the last bytes of larger data there. adamant does not, because a change of the data's
    /// address would then change the block with these bytes.
    pub fn fits_tail(&self, item: &Item) -> bool {
        item.size > 0 && item.size <= (BLOCK - self.header(item).min(BLOCK)) as u64
    }
}

struct InodeWalk<'a> {
    tree: &'a Tree,
    items: Vec<Item>,
    by_node: Vec<u32>,
    xattrs: XattrTables,
    times: HashMap<Time, u64>,
    path: Vec<u8>,
}

impl InodeWalk<'_> {
    fn visit_all(&mut self) -> Result<()> {
        let tree = self.tree;
        self.add(Tree::ROOT, 0)?;
        let mut stack = vec![(0, 0, tree.children(Tree::ROOT))];
        while let Some((directory, length, children)) = stack.last_mut() {
            let (directory, length) = (*directory, *length);
            let Some((name, node)) = children.next() else {
                stack.pop();
                continue;
            };
            self.path.truncate(length);
            self.path.push(b'/');
            self.path.extend_from_slice(name);
            if self.by_node[node.0 as usize] != u32::MAX {
                continue;
            }
            let index = self.add(node, directory)?;
            if matches!(tree.node(node).kind, Kind::Directory(_)) {
                stack.push((index, self.path.len(), tree.children(node)));
            }
        }
        Ok(())
    }

    fn add(&mut self, id: NodeId, parent: u32) -> Result<u32> {
        let index = u32::try_from(self.items.len())
            .ok()
            .filter(|i| *i < u32::MAX)
            .ok_or_else(|| Error::new("more inodes than EROFS holds"))?;
        let node = self.tree.node(id);
        let path = &self.path;
        let set = match &node.meta.xattrs {
            Some(set) if !set.is_empty() => self.xattrs.add(set, || display_path(path))?,
            _ => NO_SET,
        };
        let (links, size) = measure(self.tree, id, node)
            .map_err(|why| Error::new(format!("{}: {why}", display_path(path))))?;
        *self.times.entry(node.meta.mtime).or_default() += 1;
        self.by_node[id.0 as usize] = index;
        self.items.push(Item {
            node: id,
            parent,
            set,
            links,
            size,
            key: PathKey::hash(path),
        });
        Ok(index)
    }
}

/// Link count and size of an inode, or a clause that says why EROFS can't hold it.
fn measure(tree: &Tree, id: NodeId, node: &Node) -> Result<(u32, u64), String> {
    if node.meta.mtime.nanoseconds > 999_999_999 {
        return Err(format!(
            "the modification time has {} nanoseconds, more than a second",
            node.meta.mtime.nanoseconds
        ));
    }
    Ok(match &node.kind {
        Kind::Directory(_) => {
            let below = tree
                .children(id)
                .filter(|(_, child)| matches!(tree.node(*child).kind, Kind::Directory(_)))
                .count();
            let names = dir::with_dots(tree.children(id).map(|(name, _)| (name, ())), (), ());
            (
                2 + u32::try_from(below).map_err(|_| "it has too many subdirectories")?,
                dir::size(names.map(|(name, ())| name)),
            )
        }
        Kind::File(content) => (node.links, content.len()),
        Kind::Symlink(target) => {
            if target.is_empty() || target.len() > crate::tree::TARGET_MAX || target.contains(&0) {
                return Err(
                    "the link's target is empty, longer than 4095 bytes, or contains a NUL byte"
                        .to_owned(),
                );
            }
            (node.links, target.len() as u64)
        }
        Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => {
            if encode_dev(*major, *minor).is_none() {
                return Err(format!(
                    "device {major}:{minor} exceeds the kernel's largest number (4095:1048575)"
                ));
            }
            (node.links, 0)
        }
        Kind::Fifo | Kind::Socket => (node.links, 0),
    })
}

fn display_path(path: &[u8]) -> String {
    if path.is_empty() {
        "/".to_owned()
    } else {
        String::from_utf8_lossy(path).into_owned()
    }
}

/// A node's first path, for messages. It walks the tree, so it is slow.
pub fn path_of(tree: &Tree, wanted: NodeId) -> String {
    let mut found = None;
    tree.visit(&mut |path, id| {
        if id == wanted && found.is_none() {
            found = Some(display_path(path));
        }
    });
    found.unwrap_or_else(|| "/".to_owned())
}
