//! The merged file tree in memory: names, metadata, and the position of each file's bytes. The
//! bytes stay in their source or its spool, so memory grows only with the number of entries.

mod content;
mod resolve;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::{Error, Result};

pub use content::{Bytes, Content, ContentExtent, ContentReader};
pub use resolve::{LinkPolicy, ResolveError, Resolved, SymlinkStep};

/// Longest name of an entry, bytes (NAME_MAX).
pub const NAME_MAX: usize = 255;
/// Longest link target, bytes (PATH_MAX without its NUL).
pub const TARGET_MAX: usize = 4095;

/// Index of a node in its tree. Hard links are several names for one node.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct NodeId(pub u32);

/// Seconds and nanoseconds since 1970 in UTC; the seconds may be negative. Packed, because there
/// can be millions.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
#[repr(C, packed(4))]
pub struct Time {
    /// Whole seconds, rounded towards the past.
    pub seconds: i64,
    /// 0 to 999,999,999.
    pub nanoseconds: u32,
}

/// Extended attributes by full name (`user.x`, `security.capability`), sorted by name; equal sets
/// share memory.
pub type Xattrs = Arc<BTreeMap<Box<[u8]>, Box<[u8]>>>;

/// Metadata of an entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// Permission bits, set-id bits and sticky bit: 0 to 0o7777.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time.
    pub mtime: Time,
    /// Extended attributes; `None` for an entry without any.
    pub xattrs: Option<Xattrs>,
}

/// Type of an entry, and the data that belongs to the type.
#[derive(Clone, Debug)]
pub enum Kind {
    /// Names in byte order.
    Directory(BTreeMap<Box<[u8]>, NodeId>),
    /// A regular file.
    File(Content),
    /// A symbolic link, with its target unchanged.
    Symlink(Box<[u8]>),
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// A Unix socket.
    Socket,
}

/// A file, directory or other entry. It becomes an inode.
#[derive(Clone, Debug)]
pub struct Node {
    /// Owner, mode, time, extended attributes.
    pub meta: Meta,
    /// Type and data.
    pub kind: Kind,
    /// Number of names; 1 for directories.
    pub links: u32,
}

/// There can be millions of nodes.
const _: () = assert!(size_of::<Node>() <= 72);

/// A file tree. It always has a root directory.
#[derive(Debug, Clone)]
pub struct Tree {
    nodes: Vec<Node>,
}

impl Default for Tree {
    fn default() -> Self {
        Tree::new()
    }
}

impl Tree {
    /// The node of the root directory.
    pub const ROOT: NodeId = NodeId(0);

    /// A tree with only a root directory: 0755 root:root, time 0.
    pub fn new() -> Tree {
        Tree {
            nodes: vec![Node {
                meta: Meta {
                    mode: 0o755,
                    ..Meta::default()
                },
                kind: Kind::Directory(BTreeMap::new()),
                links: 1,
            }],
        }
    }

    /// The node with this index.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize]
    }

    /// The node with this index, mutable. A caller that changes the names of a directory must keep
    /// `links` correct.
    pub fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id.0 as usize]
    }

    /// One more than the highest node index, removed nodes included.
    pub fn capacity(&self) -> usize {
        self.nodes.len()
    }

    /// Names in a directory, in byte order; none for another entry.
    pub fn children(&self, id: NodeId) -> impl Iterator<Item = (&[u8], NodeId)> {
        let names = match &self.node(id).kind {
            Kind::Directory(names) => Some(names),
            _ => None,
        };
        names.into_iter().flatten().map(|(name, id)| (&**name, *id))
    }

    /// The node at a path; symbolic links are not followed. `path` may start with a slash; empty
    /// components are skipped.
    pub fn lookup(&self, path: &[u8]) -> Option<NodeId> {
        let mut at = Tree::ROOT;
        for part in parts(path) {
            match &self.node(at).kind {
                Kind::Directory(names) => at = *names.get(part)?,
                _ => return None,
            }
        }
        Some(at)
    }

    /// The content of the regular file at a path. Symbolic links are followed inside the tree.
    pub fn file_content(&self, path: &[u8]) -> Option<&Content> {
        match &self.node(self.resolve(path)?).kind {
            Kind::File(content) => Some(content),
            _ => None,
        }
    }

    /// Puts a node at a path, which must not be the root. Creates missing parents (0755 root:root,
    /// time 0). It replaces another entry at the path; but a directory only gives its metadata to a
    /// directory, whose names stay.
    pub fn insert(&mut self, path: &[u8], meta: Meta, kind: Kind) -> Result<NodeId> {
        let (parent, name) = self.make_parents(path)?;
        if let Some(existing) = self.child(parent, name) {
            if let (Kind::Directory(_), Kind::Directory(_)) = (&self.node(existing).kind, &kind) {
                self.node_mut(existing).meta = meta;
                return Ok(existing);
            }
            self.unlink(parent, name);
        }
        let id = NodeId(
            u32::try_from(self.nodes.len())
                .map_err(|_| Error::new("the tree has more than 4,294,967,295 entries"))?,
        );
        self.nodes.push(Node {
            meta,
            kind,
            links: 1,
        });
        self.add_name(parent, name, id);
        Ok(id)
    }

    /// Gives an existing node another name. Directories have only one.
    pub fn link(&mut self, path: &[u8], target: NodeId) -> Result<()> {
        if matches!(self.node(target).kind, Kind::Directory(_)) {
            return Err(Error::new(format!(
                "{}: a directory can't have a second name",
                show(path)
            )));
        }
        let (parent, name) = self.make_parents(path)?;
        let existing = self.child(parent, name);
        if existing == Some(target) {
            return Ok(());
        }
        // Before the removal: the old entry can be a directory that contains the node's only name.
        self.node_mut(target).links += 1;
        if existing.is_some() {
            self.unlink(parent, name);
        }
        self.add_name(parent, name, target);
        Ok(())
    }

    /// Replaces the content of these names of one file. If the file has other names, these keep the
    /// old content, and the given names become a new file with the same metadata.
    pub fn replace_content(&mut self, paths: &[&[u8]], content: Content) -> Result<()> {
        let Some((first, others)) = paths.split_first() else {
            return Ok(());
        };
        let old = self
            .lookup(first)
            .ok_or_else(|| Error::new(format!("{}: no such entry", show(first))))?;
        if self.node(old).links as usize == paths.len() {
            self.node_mut(old).kind = Kind::File(content);
            return Ok(());
        }
        let meta = self.node(old).meta.clone();
        let new = self.insert(first, meta, Kind::File(content))?;
        others.iter().try_for_each(|path| self.link(path, new))
    }

    /// Removes the entry at a path, and everything below it. A missing entry is no error.
    pub fn remove(&mut self, path: &[u8]) {
        let path: Vec<&[u8]> = parts(path).collect();
        if let Some((name, parents)) = path.split_last()
            && let Some(parent) = self.lookup(&parents.join(&b'/'))
        {
            self.unlink(parent, name);
        }
    }

    /// Path and node of every entry but the root. Parents come before children, and names in byte
    /// order. Paths start with a slash. A node with several names comes once for each.
    pub fn walk(&self) -> Vec<(Vec<u8>, NodeId)> {
        let mut out = Vec::new();
        self.visit(&mut |path, id| out.push((path.to_vec(), id)));
        out
    }

    /// Like [`Tree::walk`], but calls `visitor` instead of collecting the paths.
    pub fn visit(&self, visitor: &mut dyn FnMut(&[u8], NodeId)) {
        let mut path = Vec::new();
        let mut stack = vec![(Tree::ROOT, 0usize, self.children(Tree::ROOT))];
        while let Some((_, length, children)) = stack.last_mut() {
            let length = *length;
            path.truncate(length);
            let Some((name, id)) = children.next() else {
                stack.pop();
                continue;
            };
            path.push(b'/');
            path.extend_from_slice(name);
            visitor(&path, id);
            if matches!(self.node(id).kind, Kind::Directory(_)) {
                stack.push((id, path.len(), self.children(id)));
            }
        }
    }

    fn child(&self, parent: NodeId, name: &[u8]) -> Option<NodeId> {
        match &self.node(parent).kind {
            Kind::Directory(names) => names.get(name).copied(),
            _ => None,
        }
    }

    fn add_name(&mut self, parent: NodeId, name: &[u8], id: NodeId) {
        if let Kind::Directory(names) = &mut self.node_mut(parent).kind {
            names.insert(name.into(), id);
        }
    }

    fn unlink(&mut self, parent: NodeId, name: &[u8]) {
        let Kind::Directory(names) = &mut self.node_mut(parent).kind else {
            return;
        };
        let Some(id) = names.remove(name) else { return };
        let mut removed = vec![id];
        while let Some(id) = removed.pop() {
            let node = self.node_mut(id);
            node.links -= 1;
            if node.links > 0 {
                continue;
            }
            // The slot stays, because callers have indices; its data is freed.
            match std::mem::replace(&mut node.kind, Kind::Fifo) {
                Kind::Directory(names) => removed.extend(names.into_values()),
                _ => node.meta.xattrs = None,
            }
        }
    }

    fn make_parents<'a>(&mut self, path: &'a [u8]) -> Result<(NodeId, &'a [u8])> {
        let mut rest = parts(path).peekable();
        let mut at = Tree::ROOT;
        loop {
            let name = rest.next().ok_or_else(|| {
                Error::new(format!(
                    "{}: the path names no entry below the root",
                    show(path)
                ))
            })?;
            if name.len() > NAME_MAX || name == b"." || name == b".." || name.contains(&0) {
                return Err(Error::new(format!(
                    "{}: {:?} is not a valid file name",
                    show(path),
                    String::from_utf8_lossy(name)
                )));
            }
            if rest.peek().is_none() {
                return Ok((at, name));
            }
            at = match self.child(at, name) {
                Some(id) if matches!(self.node(id).kind, Kind::Directory(_)) => id,
                Some(_) => {
                    return Err(Error::new(format!(
                        "{}: its component {:?} is not a directory",
                        show(path),
                        String::from_utf8_lossy(name)
                    )));
                }
                None => {
                    let id =
                        NodeId(u32::try_from(self.nodes.len()).map_err(|_| {
                            Error::new("the tree has more than 4,294,967,295 entries")
                        })?);
                    self.nodes.push(Node {
                        meta: Meta {
                            mode: 0o755,
                            ..Meta::default()
                        },
                        kind: Kind::Directory(BTreeMap::new()),
                        links: 1,
                    });
                    self.add_name(at, name, id);
                    id
                }
            };
        }
    }
}

/// The non-empty components of a path.
pub fn parts(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|&b| b == b'/').filter(|part| !part.is_empty())
}

/// A path for messages. Bytes that are not printable UTF-8 are escaped.
pub fn show(path: &[u8]) -> String {
    match std::str::from_utf8(path) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => path.escape_ascii().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Kind {
        Kind::File(Content::from_memory(text.as_bytes()))
    }

    #[test]
    fn a_later_entry_replaces_an_earlier_one_and_link_counts_follow() {
        let mut tree = Tree::new();
        let a = tree
            .insert(b"/usr/bin/a", Meta::default(), file("a"))
            .unwrap();
        tree.link(b"/usr/bin/b", a).unwrap();
        assert_eq!(tree.node(a).links, 2);
        tree.insert(
            b"usr/bin/a",
            Meta::default(),
            Kind::Symlink(b"b"[..].into()),
        )
        .unwrap();
        assert_eq!(tree.node(a).links, 1);
        assert_eq!(tree.resolve(b"/usr/bin/a"), Some(a));
        tree.insert(
            b"/usr",
            Meta {
                mode: 0o700,
                ..Meta::default()
            },
            Kind::Directory(BTreeMap::new()),
        )
        .unwrap();
        assert_eq!(tree.lookup(b"/usr/bin/b"), Some(a));
        tree.insert(b"/usr", Meta::default(), file("no longer a directory"))
            .unwrap();
        assert_eq!(tree.walk().len(), 1);
        assert!(tree.insert(b"/usr/x", Meta::default(), Kind::Fifo).is_err());
    }

    #[test]
    fn a_link_that_replaces_its_own_directory_keeps_the_content() {
        let mut tree = Tree::new();
        let file = tree.insert(b"/a/b", Meta::default(), file("b")).unwrap();
        tree.link(b"/a", file).unwrap();
        assert_eq!((tree.lookup(b"/a"), tree.node(file).links), (Some(file), 1));
        assert!(matches!(&tree.node(file).kind, Kind::File(content) if content.len() == 1));
    }

    #[test]
    fn new_content_changes_only_the_given_names() {
        let mut tree = Tree::new();
        let a = tree
            .insert(
                b"/a",
                Meta {
                    mode: 0o640,
                    ..Meta::default()
                },
                file("text"),
            )
            .unwrap();
        tree.link(b"/b", a).unwrap();
        tree.link(b"/c", a).unwrap();
        tree.replace_content(&[b"/a", b"/b"], Content::default())
            .unwrap();
        let (new, old) = (tree.lookup(b"/a").unwrap(), tree.lookup(b"/c").unwrap());
        assert_eq!(
            (
                tree.lookup(b"/b"),
                old,
                tree.node(new).links,
                tree.node(old).links
            ),
            (Some(new), a, 2, 1)
        );
        assert_eq!(tree.node(new).meta.mode, 0o640);
        assert!(matches!(&tree.node(new).kind, Kind::File(content) if content.is_empty()));
        assert!(matches!(&tree.node(old).kind, Kind::File(content) if content.len() == 4));
        // With all names of a file, the file itself changes.
        tree.replace_content(&[b"/a", b"/b"], Content::from_memory(&b"x"[..]))
            .unwrap();
        assert_eq!(tree.lookup(b"/a"), Some(new));
    }
}
