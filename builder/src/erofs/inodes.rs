//! The tree's inodes in the order of their first paths, with all that is known of each before
//! contents are stored.

use std::collections::HashMap;

use super::dir;
use super::format::*;
use super::layout::Key;
use super::xattr;
use crate::error::{Error, Result};
use crate::tree::{Kind, Node, NodeId, Time, Tree};

/// The 64-byte form is needed.
const EXTENDED: u32 = 1 << 31;
/// No extended attributes.
const NO_SET: u32 = EXTENDED - 1;

/// One inode to be written.
pub struct Item {
    /// Where it is in the tree.
    pub node: NodeId,
    /// The directory its first name stands in, as an index of items; the root's own for the root.
    pub parent: u32,
    /// Number of its set of extended attributes, and in the highest bit whether the 64-byte form
    /// is needed: there can be millions.
    set: u32,
    /// Link count as stat shows it.
    pub links: u32,
    /// Bytes of content, names or target.
    pub size: u64,
    /// Its first path's.
    pub key: Key,
}

impl Item {
    /// The inode that the contents of others are in, of so many bytes. It is no node of the tree,
    /// and has no name.
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
            key: Key(u64::MAX),
        }
    }

    /// Whether the 64-byte form is needed.
    pub fn extended(&self) -> bool {
        self.set & EXTENDED != 0
    }
}

/// There is one for each inode.
const _: () = assert!(size_of::<Item>() <= 32);

/// All of them; the root comes first.
pub struct Inodes {
    pub items: Vec<Item>,
    /// Index of the item for each node of the tree.
    by_node: Vec<u32>,
    pub xattrs: xattr::Tables,
    /// The time that compact inodes have.
    pub fixed: Time,
}

impl Inodes {
    /// Walks the tree. Compact inodes have the time that most have; or `kept`, where half as many
    /// have it: another one would make all of them others.
    pub fn collect(tree: &Tree, kept: Option<Time>) -> Result<Inodes> {
        let mut walk = Walk {
            tree,
            items: Vec::new(),
            by_node: vec![u32::MAX; tree.capacity()],
            xattrs: xattr::Tables::default(),
            times: HashMap::new(),
            path: Vec::new(),
        };
        walk.run()?;
        // The earliest of several.
        let (most, fixed) = walk
            .times
            .iter()
            .map(|(&time, &count)| (count, std::cmp::Reverse(time)))
            .max()
            .map(|(count, time)| (count, time.0))
            .unwrap_or_default();
        let fixed = kept
            .filter(|kept| {
                walk.times
                    .get(kept)
                    .is_some_and(|count| count.saturating_mul(2) >= most)
            })
            .unwrap_or(fixed);
        walk.xattrs.build();
        let Walk {
            mut items,
            by_node,
            xattrs,
            ..
        } = walk;
        for item in &mut items {
            let meta = &tree.node(item.node).meta;
            let short = meta.mtime == fixed
                && meta.uid <= u32::from(u16::MAX)
                && meta.gid <= u32::from(u16::MAX)
                && item.links <= u32::from(u16::MAX)
                && item.size <= u64::from(u32::MAX);
            item.set |= if short { 0 } else { EXTENDED };
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

    /// Inline body of an item's extended attributes.
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

    /// Whether what it holds fits behind its header, as it is. What does not has no tail there
    /// either (the format could): its address would change the block that the tail is in.
    pub fn inline(&self, item: &Item) -> bool {
        item.size > 0 && item.size <= (BLOCK - self.header(item).min(BLOCK)) as u64
    }
}

struct Walk<'a> {
    tree: &'a Tree,
    items: Vec<Item>,
    by_node: Vec<u32>,
    xattrs: xattr::Tables,
    times: HashMap<Time, u64>,
    path: Vec<u8>,
}

impl Walk<'_> {
    fn run(&mut self) -> Result<()> {
        let tree = self.tree;
        self.see(Tree::ROOT, 0)?;
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
            let index = self.see(node, directory)?;
            if matches!(tree.node(node).kind, Kind::Directory(_)) {
                stack.push((index, self.path.len(), tree.children(node)));
            }
        }
        Ok(())
    }

    fn see(&mut self, id: NodeId, parent: u32) -> Result<u32> {
        let index = u32::try_from(self.items.len())
            .ok()
            .filter(|i| *i < u32::MAX)
            .ok_or_else(|| Error::new("more inodes than EROFS holds"))?;
        let node = self.tree.node(id);
        let path = &self.path;
        let set = match &node.meta.xattrs {
            Some(set) if !set.is_empty() => self.xattrs.add(set, || shown(path))?,
            _ => NO_SET,
        };
        let (links, size) = measure(self.tree, id, node)
            .map_err(|why| Error::new(format!("{}: {why}", shown(path))))?;
        *self.times.entry(node.meta.mtime).or_default() += 1;
        self.by_node[id.0 as usize] = index;
        self.items.push(Item {
            node: id,
            parent,
            set,
            links,
            size,
            key: Key::of(path),
        });
        Ok(index)
    }
}

/// Link count and size; refuses what the format can't hold.
fn measure(tree: &Tree, id: NodeId, node: &Node) -> Result<(u32, u64), String> {
    if node.meta.mtime.nanoseconds > 999_999_999 {
        return Err(format!(
            "modification time with {} nanoseconds",
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
                2 + u32::try_from(below).map_err(|_| "too many directories in it")?,
                dir::size(names.map(|(name, ())| name)),
            )
        }
        Kind::File(content) => (node.links, content.len()),
        Kind::Symlink(target) => {
            if target.is_empty() || target.len() > crate::tree::TARGET_MAX || target.contains(&0) {
                return Err(
                    "the link's target is empty, longer than 4095 bytes or has a NUL in it"
                        .to_owned(),
                );
            }
            (node.links, target.len() as u64)
        }
        Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => {
            if encode_dev(*major, *minor).is_none() {
                return Err(format!(
                    "device {major}:{minor} is beyond what the kernel has (4095:1048575)"
                ));
            }
            (node.links, 0)
        }
        Kind::Fifo | Kind::Socket => (node.links, 0),
    })
}

fn shown(path: &[u8]) -> String {
    if path.is_empty() {
        "/".to_owned()
    } else {
        String::from_utf8_lossy(path).into_owned()
    }
}

/// A node's first path, for messages. Slow.
pub fn path_of(tree: &Tree, wanted: NodeId) -> String {
    let mut found = None;
    tree.visit(&mut |path, id| {
        if id == wanted && found.is_none() {
            found = Some(shown(path));
        }
    });
    found.unwrap_or_else(|| "/".to_owned())
}
