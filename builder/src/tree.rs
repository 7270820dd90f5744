//! The merged file tree, in memory: names, metadata and where each file's bytes are. The bytes themselves stay in their source or its
//! spool, so a tree of any size costs memory by its number of entries alone.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crate::error::{Error, Result};

/// Longest name of one entry, bytes (NAME_MAX).
pub const NAME_MAX: usize = 255;
/// Longest link target, bytes (PATH_MAX without its NUL).
pub const TARGET_MAX: usize = 4095;

/// Index of a node in its tree. Hard links are several names for one node.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct NodeId(pub u32);

/// Seconds and nanoseconds since 1970 in UTC; the seconds may be negative.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct Time {
    /// Whole seconds, rounded towards the past.
    pub seconds: i64,
    /// 0 to 999,999,999.
    pub nanoseconds: u32,
}

/// Extended attributes by full name (`user.x`, `security.capability`), sorted by name; equal sets share memory.
pub type Xattrs = Arc<BTreeMap<Box<[u8]>, Box<[u8]>>>;

/// What every entry has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// Permission bits, set-id bits and sticky: 0 to 0o7777.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time.
    pub mtime: Time,
    /// Extended attributes; `None` where there are none.
    pub xattrs: Option<Xattrs>,
}

/// What an entry is.
#[derive(Clone, Debug)]
pub enum Kind {
    /// Names in byte order.
    Directory(BTreeMap<Box<[u8]>, NodeId>),
    /// A regular file.
    File(Content),
    /// The target, as it was written.
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
    /// A Unix socket's name.
    Socket,
}

/// One inode to be.
#[derive(Clone, Debug)]
pub struct Node {
    /// Owner, mode, time, extended attributes.
    pub meta: Meta,
    /// Type and what belongs to it.
    pub kind: Kind,
    /// Number of names, for everything but directories.
    pub links: u32,
}

/// The tree. The root directory is always there.
#[derive(Debug)]
pub struct Tree {
    nodes: Vec<Node>,
}

/// A file's bytes: pieces of other files, with holes between them.
#[derive(Clone, Debug, Default)]
pub struct Content {
    len: u64,
    /// In order, not overlapping, none empty, all within `len`.
    extents: Arc<[Extent]>,
}

/// A piece of a file's bytes.
#[derive(Clone, Debug)]
pub struct Extent {
    /// Where it stands in the file, bytes.
    pub at: u64,
    /// How long it is, bytes; never 0.
    pub len: u64,
    /// Where its bytes are.
    pub bytes: Bytes,
}

/// Where bytes are.
#[derive(Clone, Debug)]
pub enum Bytes {
    /// In memory: small generated files.
    Memory(Arc<[u8]>),
    /// In an open file (an archive or a spool), from this offset on. Read with pread, so many threads can share it.
    File(Arc<File>, u64),
}

impl Content {
    /// Bytes that are in memory.
    pub fn from_memory(bytes: impl Into<Arc<[u8]>>) -> Content {
        let bytes = bytes.into();
        let len = bytes.len() as u64;
        let extents = if len == 0 { Arc::default() } else { Arc::from([Extent { at: 0, len, bytes: Bytes::Memory(bytes) }]) };
        Content { len, extents }
    }

    /// A range of an open file.
    pub fn from_file(file: Arc<File>, offset: u64, len: u64) -> Content {
        let extents = if len == 0 { Arc::default() } else { Arc::from([Extent { at: 0, len, bytes: Bytes::File(file, offset) }]) };
        Content { len, extents }
    }

    /// Pieces with holes between them. The caller has checked what `Content` promises of them; a wrong order is an error.
    pub fn sparse(len: u64, extents: Vec<Extent>) -> Result<Content> {
        let mut end = 0;
        for extent in &extents {
            let next = extent.at.checked_add(extent.len);
            if extent.at < end || extent.len == 0 || next.is_none_or(|next| next > len) {
                return Err(Error::new("pieces of a sparse file overlap or lie beyond its end"));
            }
            end = next.unwrap_or(end);
        }
        Ok(Content { len, extents: extents.into() })
    }

    /// Length in bytes, holes included.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The pieces; what lies between them is zero.
    pub fn extents(&self) -> &[Extent] {
        &self.extents
    }

    /// Fills `buf` with the bytes from `offset` on; the range must lie within the file.
    pub fn read_exact_at(&self, mut offset: u64, mut buf: &mut [u8]) -> io::Result<()> {
        if offset.checked_add(buf.len() as u64).is_none_or(|end| end > self.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut index = self.extents.partition_point(|e| e.at + e.len <= offset);
        while !buf.is_empty() {
            let gap = match self.extents.get(index) {
                Some(extent) if extent.at <= offset => 0,
                Some(extent) => extent.at - offset,
                None => self.len - offset,
            };
            let (take, skip);
            if gap > 0 {
                take = gap.min(buf.len() as u64) as usize;
                buf[..take].fill(0);
                skip = 0;
            } else {
                let extent = &self.extents[index];
                let into = offset - extent.at;
                take = (extent.len - into).min(buf.len() as u64) as usize;
                match &extent.bytes {
                    Bytes::Memory(bytes) => buf[..take].copy_from_slice(&bytes[into as usize..into as usize + take]),
                    Bytes::File(file, at) => file.read_exact_at(&mut buf[..take], at + into)?,
                }
                skip = usize::from(into + take as u64 == extent.len);
            }
            index += skip;
            offset += take as u64;
            buf = &mut buf[take..];
        }
        Ok(())
    }

    /// A sequential reader from the start.
    pub fn reader(&self) -> ContentReader {
        ContentReader { content: self.clone(), at: 0 }
    }

    /// All bytes, refused when they are more than `limit`.
    pub fn to_vec(&self, limit: u64) -> io::Result<Vec<u8>> {
        if self.len > limit {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("{} bytes, more than the {limit} expected here", self.len)));
        }
        let mut bytes = vec![0; self.len as usize];
        self.read_exact_at(0, &mut bytes)?;
        Ok(bytes)
    }
}

/// Reads a content from its start to its end.
#[derive(Debug)]
pub struct ContentReader {
    content: Content,
    at: u64,
}

impl Read for ContentReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let take = (self.content.len - self.at).min(buf.len() as u64) as usize;
        self.content.read_exact_at(self.at, &mut buf[..take])?;
        self.at += take as u64;
        Ok(take)
    }
}

impl Default for Tree {
    fn default() -> Self {
        Tree::new()
    }
}

impl Tree {
    /// The node of the root directory.
    pub const ROOT: NodeId = NodeId(0);

    /// A tree with nothing but a root directory, 0755 root:root, time 0.
    pub fn new() -> Tree {
        Tree { nodes: vec![Node { meta: Meta { mode: 0o755, ..Meta::default() }, kind: Kind::Directory(BTreeMap::new()), links: 1 }] }
    }

    /// The node with this index.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize]
    }

    /// The node with this index, to be changed. Whoever changes the names of a directory keeps `links` right.
    pub fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id.0 as usize]
    }

    /// One more than the highest index in use; removed nodes are counted too.
    pub fn capacity(&self) -> usize {
        self.nodes.len()
    }

    /// Names in a directory, in byte order; nothing for what is not a directory.
    pub fn children(&self, id: NodeId) -> impl Iterator<Item = (&[u8], NodeId)> {
        let names = match &self.node(id).kind {
            Kind::Directory(names) => Some(names),
            _ => None,
        };
        names.into_iter().flatten().map(|(name, id)| (&**name, *id))
    }

    /// What stands at a path, without following symbolic links. `path` may start with a slash; empty parts are skipped.
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

    /// What stands at a path, following symbolic links as the image's own kernel would (`..` of the root is the root, at most 40 links).
    pub fn resolve(&self, path: &[u8]) -> Option<NodeId> {
        let mut todo: Vec<Vec<u8>> = parts(path).map(<[u8]>::to_vec).collect();
        todo.reverse();
        let mut stack = vec![Tree::ROOT];
        let mut followed = 0;
        while let Some(part) = todo.pop() {
            if part == b"." {
                continue;
            }
            if part == b".." {
                if stack.len() > 1 {
                    stack.pop();
                }
                continue;
            }
            let Kind::Directory(names) = &self.node(*stack.last()?).kind else { return None };
            let next = *names.get(&*part)?;
            match &self.node(next).kind {
                Kind::Symlink(target) => {
                    followed += 1;
                    if followed > 40 {
                        return None;
                    }
                    if target.starts_with(b"/") {
                        stack.truncate(1);
                    }
                    todo.extend(parts(target).map(<[u8]>::to_vec).collect::<Vec<_>>().into_iter().rev());
                }
                _ => stack.push(next),
            }
        }
        stack.pop()
    }

    /// Puts a node at a path, which must not be the root. Missing parents are made (0755 root:root, time 0). What stood there is replaced;
    /// but a directory put where a directory stands keeps the names in it and takes the new metadata.
    pub fn insert(&mut self, path: &[u8], meta: Meta, kind: Kind) -> Result<NodeId> {
        let (parent, name) = self.make_parents(path)?;
        if let Some(existing) = self.child(parent, name) {
            if let (Kind::Directory(_), Kind::Directory(_)) = (&self.node(existing).kind, &kind) {
                self.node_mut(existing).meta = meta;
                return Ok(existing);
            }
            self.unlink(parent, name);
        }
        let id = NodeId(u32::try_from(self.nodes.len()).map_err(|_| Error::new("more than 4,294,967,295 entries"))?);
        self.nodes.push(Node { meta, kind, links: 1 });
        self.add_name(parent, name, id);
        Ok(id)
    }

    /// Gives an existing node (not a directory) one more name.
    pub fn link(&mut self, path: &[u8], target: NodeId) -> Result<()> {
        if matches!(self.node(target).kind, Kind::Directory(_)) {
            return Err(Error::new(format!("{}: a directory can't have a second name", show(path))));
        }
        let (parent, name) = self.make_parents(path)?;
        match self.child(parent, name) {
            Some(existing) if existing == target => return Ok(()),
            Some(_) => self.unlink(parent, name),
            None => {}
        }
        self.add_name(parent, name, target);
        self.node_mut(target).links += 1;
        Ok(())
    }

    /// Takes away what stands at a path, with all below it. Nothing there is no error.
    pub fn remove(&mut self, path: &[u8]) {
        let path: Vec<&[u8]> = parts(path).collect();
        if let Some((name, parents)) = path.split_last()
            && let Some(parent) = self.lookup(&parents.join(&b'/'))
        {
            self.unlink(parent, name);
        }
    }

    /// Every entry but the root, parents before children and names in byte order: path (starting with a slash) and node. A node with
    /// several names comes once for each.
    pub fn walk(&self) -> Vec<(Vec<u8>, NodeId)> {
        let mut out = Vec::new();
        self.visit(&mut |path, id| out.push((path.to_vec(), id)));
        out
    }

    /// As [`Tree::walk`], without keeping the paths.
    pub fn visit(&self, see: &mut dyn FnMut(&[u8], NodeId)) {
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
            see(&path, id);
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
        let Kind::Directory(names) = &mut self.node_mut(parent).kind else { return };
        let Some(id) = names.remove(name) else { return };
        let mut gone = vec![id];
        while let Some(id) = gone.pop() {
            let node = self.node_mut(id);
            node.links -= 1;
            if node.links > 0 {
                continue;
            }
            // The slot stays (indices are handed out), but what it held is let go.
            match std::mem::replace(&mut node.kind, Kind::Fifo) {
                Kind::Directory(names) => gone.extend(names.into_values()),
                _ => node.meta.xattrs = None,
            }
        }
    }

    fn make_parents<'a>(&mut self, path: &'a [u8]) -> Result<(NodeId, &'a [u8])> {
        let mut rest = parts(path).peekable();
        let mut at = Tree::ROOT;
        loop {
            let name = rest.next().ok_or_else(|| Error::new(format!("{}: not a path below the root", show(path))))?;
            if name.len() > NAME_MAX || name == b"." || name == b".." || name.contains(&0) {
                return Err(Error::new(format!("{}: {:?} is not a file name", show(path), String::from_utf8_lossy(name))));
            }
            if rest.peek().is_none() {
                return Ok((at, name));
            }
            at = match self.child(at, name) {
                Some(id) if matches!(self.node(id).kind, Kind::Directory(_)) => id,
                Some(_) => return Err(Error::new(format!("{}: {:?} in it is not a directory", show(path), String::from_utf8_lossy(name)))),
                None => {
                    let id = NodeId(u32::try_from(self.nodes.len()).map_err(|_| Error::new("more than 4,294,967,295 entries"))?);
                    self.nodes.push(Node { meta: Meta { mode: 0o755, ..Meta::default() }, kind: Kind::Directory(BTreeMap::new()), links: 1 });
                    self.add_name(at, name, id);
                    id
                }
            };
        }
    }
}

/// The non-empty parts of a path.
pub fn parts(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|&b| b == b'/').filter(|part| !part.is_empty())
}

/// A path for people: what is not printable UTF-8 is escaped.
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
        let a = tree.insert(b"/usr/bin/a", Meta::default(), file("a")).unwrap();
        tree.link(b"/usr/bin/b", a).unwrap();
        assert_eq!(tree.node(a).links, 2);
        tree.insert(b"usr/bin/a", Meta::default(), Kind::Symlink(b"b"[..].into())).unwrap();
        assert_eq!(tree.node(a).links, 1);
        assert_eq!(tree.resolve(b"/usr/bin/a"), Some(a));
        tree.insert(b"/usr", Meta { mode: 0o700, ..Meta::default() }, Kind::Directory(BTreeMap::new())).unwrap();
        assert_eq!(tree.lookup(b"/usr/bin/b"), Some(a));
        tree.insert(b"/usr", Meta::default(), file("no longer a directory")).unwrap();
        assert_eq!(tree.walk().len(), 1);
        assert!(tree.insert(b"/usr/x", Meta::default(), Kind::Fifo).is_err());
    }

    #[test]
    fn holes_read_as_zero() {
        let extents = vec![Extent { at: 2, len: 2, bytes: Bytes::Memory(Arc::from(*b"ab")) }, Extent { at: 4, len: 1, bytes: Bytes::Memory(Arc::from(*b"c")) }];
        let content = Content::sparse(7, extents).unwrap();
        assert_eq!(content.to_vec(7).unwrap(), b"\0\0abc\0\0");
        let mut middle = [9; 3];
        content.read_exact_at(3, &mut middle).unwrap();
        assert_eq!(&middle, b"bc\0");
        assert!(content.read_exact_at(6, &mut middle).is_err());
    }

    #[test]
    fn links_in_circles_lead_nowhere() {
        let mut tree = Tree::new();
        tree.insert(b"/a", Meta::default(), Kind::Symlink(b"b"[..].into())).unwrap();
        tree.insert(b"/b", Meta::default(), Kind::Symlink(b"/../a"[..].into())).unwrap();
        assert_eq!(tree.resolve(b"/a/x"), None);
    }
}
