//! Opens an image and checks its structure completely: super block, every inode, every directory's
//! order, every index, link counts, and that no two things share bytes. It accepts only what the
//! writer makes. Every byte is taken as hostile: work and memory are bounded by the image's length,
//! and nothing panics.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use super::compress;
use super::dir;
use super::format::*;
use super::index::{self, Extent, Place};
use super::xattr;
use crate::error::{Context, Error, Result};
use crate::io::part::Part;

/// Bytes of a flat file that are read at a time.
const CHUNK: u64 = 1 << 20;
/// How many clusters of the packed inode are remembered.
const CLUSTERS: usize = 8;
/// What stands for its path.
const PACKED: &[u8] = b"(contents of files)";

/// An image whose structure is sound.
pub struct Image {
    file: Part,
    algorithms: u16,
    /// Where the area of inodes begins, bytes.
    meta: u64,
    /// The time that compact inodes have.
    fixed: (i64, u32),
    nodes: Vec<Node>,
    names: Vec<Name>,
    /// What stands where, in bytes, in order: start, end, node (`None`: no file's).
    used: Vec<(u64, u64, Option<usize>)>,
    packed: Option<Packed>,
}

/// The inode that fragments are in.
struct Packed {
    node: usize,
    /// Its clusters, each with the byte of it that it begins with and its byte of the image; none
    /// for one that is flat.
    clusters: Vec<(u64, u64, Extent)>,
    /// What was unpacked last: neighbours are asked for one after the other.
    last: Mutex<VecDeque<(usize, Arc<[u8]>)>>,
}

/// Extended attributes by full name; shared ones share memory.
pub type Xattrs = BTreeMap<Arc<[u8]>, Arc<[u8]>>;

/// One name in a directory.
struct Name {
    parent: usize,
    name: Box<[u8]>,
    node: usize,
}

/// One inode.
struct Node {
    inode: Inode,
    /// Where it stands, bytes.
    at: u64,
    /// Index in `names` of its first name; the root has none.
    first: Option<usize>,
    /// Where in the packed inode its bytes are.
    fragment: Option<u64>,
    xattrs: Xattrs,
}

/// What an inode is, as stat shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
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
    /// Device number, major and minor; 0, 0 for what is no device.
    pub device: (u32, u32),
    /// Whether it is stored compressed.
    pub compressed: bool,
}

impl Image {
    /// Opens and checks an image.
    pub fn open(file: Part) -> Result<Image> {
        let len = file.len();
        let mut block = [0; BLOCK];
        file.read_exact_at(&mut block, 0)
            .context(|| "reading the super block")?;
        let sb =
            SuperBlock::parse(&block).map_err(|why| Error::new(format!("super block: {why}")))?;
        if u64::from(sb.blocks) * BLOCK as u64 != len {
            return Err(Error::new(format!(
                "super block: {} blocks, but the file has {len} bytes",
                sb.blocks
            )));
        }
        let mut walk = Walk {
            file: &file,
            len,
            meta: u64::from(sb.meta_blkaddr) * BLOCK as u64,
            xattrs: u64::from(sb.xattr_blkaddr) * BLOCK as u64,
            fixed: (sb.epoch as i64, sb.fixed_nsec),
            algorithms: sb.available_compr_algs,
            nodes: Vec::new(),
            names: Vec::new(),
            used: vec![(0, BLOCK as u64, None)],
            by_nid: HashMap::new(),
            shared: HashMap::new(),
            budget: len.saturating_mul(4),
            packed: None,
        };
        walk.run(u64::from(sb.root_nid), sb.packed_nid)?;
        let Walk {
            meta,
            fixed,
            nodes,
            names,
            mut used,
            packed,
            ..
        } = walk;
        if nodes.len() as u64 != sb.inos {
            return Err(Error::new(format!(
                "super block: {} inodes, but {} are there",
                sb.inos,
                nodes.len()
            )));
        }
        used.sort_unstable();
        let image = Image {
            file,
            algorithms: sb.available_compr_algs,
            meta,
            fixed,
            nodes,
            names,
            used,
            packed,
        };
        image.check_links()?;
        image.check_overlaps()?;
        Ok(image)
    }

    /// Every name but the root's: path and number of the inode.
    pub fn names(&self) -> impl Iterator<Item = (Vec<u8>, usize)> {
        (0..self.names.len()).map(|i| (self.path(Some(i)), self.names[i].node))
    }

    /// Number of inodes; number 0 is the root. One that holds parts of others may be among them,
    /// without a name.
    pub fn inodes(&self) -> usize {
        self.nodes.len()
    }

    /// What an inode is.
    pub fn stat(&self, number: usize) -> Stat {
        let i = &self.nodes[number].inode;
        let device = if matches!(i.mode >> 12, 2 | 6) {
            decode_dev(i.u)
        } else {
            (0, 0)
        };
        Stat {
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
    pub fn xattrs(&self, number: usize) -> &Xattrs {
        &self.nodes[number].xattrs
    }

    /// The file that a block belongs to, by its first path; where several share a metadata block,
    /// the first of them. `None`: none.
    pub fn owner(&self, block: u64) -> Option<Vec<u8>> {
        let (start, end) = (block * BLOCK as u64, (block + 1) * BLOCK as u64);
        let from = self.used.partition_point(|u| u.1 <= start);
        let node = self.used[from..]
            .iter()
            .take_while(|u| u.0 < end)
            .find_map(|u| u.2)?;
        Some(if self.is_packed(node) {
            PACKED.to_vec()
        } else {
            self.path(self.nodes[node].first)
        })
    }

    /// Whether a block is of the area of inodes.
    pub fn is_metadata(&self, block: u64) -> bool {
        block * BLOCK as u64 >= self.meta
    }

    /// The time that compact inodes have: seconds and nanoseconds since 1970.
    pub fn fixed_time(&self) -> (i64, u32) {
        self.fixed
    }

    /// An inode's place in the area of inodes, bytes from its start.
    pub fn inode_at(&self, number: usize) -> u64 {
        self.nodes[number].at - self.meta
    }

    /// What inodes take: for each its own bytes, with all that stands behind it, and its data's; in
    /// the order of the image. Number of the inode, how many bytes, and for data the first
    /// block.
    pub fn extents(&self) -> impl Iterator<Item = (usize, u64, Option<u64>)> {
        let extent = |&(start, end, node): &(u64, u64, Option<usize>)| {
            let node = node?;
            Some((
                node,
                end - start,
                (self.nodes[node].at != start).then_some(start / BLOCK as u64),
            ))
        };
        self.used.iter().filter_map(extent)
    }

    /// Whether an inode is a part of another, which is one of the inodes, too.
    pub fn is_fragment(&self, number: usize) -> bool {
        self.nodes[number].fragment.is_some()
    }

    fn is_packed(&self, node: usize) -> bool {
        self.packed
            .as_ref()
            .is_some_and(|packed| packed.node == node)
    }

    /// Number of inodes that have a name.
    pub fn named(&self) -> usize {
        self.nodes.len() - usize::from(self.packed.is_some())
    }

    /// Reads what an inode holds (a file's bytes, a link's target, a directory's blocks) and gives
    /// it out piece by piece.
    pub fn read(&self, number: usize, put: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> Result<()> {
        let node = &self.nodes[number];
        let what = || {
            String::from_utf8_lossy(&if self.is_packed(number) {
                PACKED.to_vec()
            } else {
                self.path(node.first)
            })
            .into_owned()
        };
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
        let (place, extents) = index_of(&node.inode, &bytes, self.algorithms)
            .map_err(|why| Error::new(format!("{}: {why}", what())))?;
        let algorithm = algorithm(self.algorithms);
        let mut at = match place {
            Place::Blocks(start) => u64::from(start) * BLOCK as u64,
            Place::Inline(_) => node.at + header(&node.inode) as u64 + bytes.len() as u64,
        };
        for extent in extents {
            let stored = match place {
                Place::Blocks(_) => usize::from(extent.blocks) * BLOCK,
                Place::Inline(bytes) => usize::from(bytes),
            };
            let bytes = read_cluster(&self.file, at, stored, extent, algorithm).context(what)?;
            put(&bytes).context(what)?;
            at += stored as u64;
        }
        Ok(())
    }

    /// A part of the packed inode, which was seen to lie in it.
    fn read_packed(
        &self,
        packed: &Packed,
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
        let first = packed.clusters.partition_point(|(from, _, _)| *from <= at) - 1;
        for (index, (from, place, extent)) in packed.clusters.iter().enumerate().skip(first) {
            if at >= end {
                break;
            }
            let last = || packed.last.lock().unwrap_or_else(PoisonError::into_inner);
            let known = last()
                .iter()
                .find(|(known, _)| *known == index)
                .map(|(_, bytes)| bytes.clone());
            let bytes = match known {
                Some(bytes) => bytes,
                None => {
                    let bytes: Arc<[u8]> = read_cluster(
                        &self.file,
                        *place,
                        usize::from(extent.blocks) * BLOCK,
                        *extent,
                        algorithm(self.algorithms),
                    )?
                    .into();
                    let mut last = last();
                    last.truncate(CLUSTERS - 1);
                    last.push_front((index, bytes.clone()));
                    bytes
                }
            };
            let until = end.min(from + bytes.len() as u64);
            put(&bytes[(at - from) as usize..(until - from) as usize])?;
            at = until;
        }
        Ok(())
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
        let path = if self.is_packed(node) {
            PACKED.to_vec()
        } else {
            self.path(self.nodes[node].first)
        };
        Error::new(format!("{}: {why}", String::from_utf8_lossy(&path)))
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
                    format!(
                        "link count {} where {} is right",
                        node.inode.nlink, links[i]
                    ),
                ));
            }
        }
        Ok(())
    }

    fn check_overlaps(&self) -> Result<()> {
        for pair in self.used.windows(2) {
            if pair[0].1 > pair[1].0 {
                let why = format!("shares bytes from {} on with something else", pair[1].0);
                return Err(match pair[1].2.or(pair[0].2) {
                    Some(node) => self.error(node, why),
                    None => Error::new(format!("the super block {why}")),
                });
            }
        }
        Ok(())
    }
}

struct Walk<'a> {
    file: &'a Part,
    len: u64,
    meta: u64,
    xattrs: u64,
    fixed: (i64, u32),
    algorithms: u16,
    nodes: Vec<Node>,
    names: Vec<Name>,
    used: Vec<(u64, u64, Option<usize>)>,
    by_nid: HashMap<u64, usize>,
    shared: HashMap<u32, Attribute>,
    /// Bytes of directories, indexes and attributes that may still be read: an image can't make
    /// more work than its length.
    budget: u64,
    packed: Option<Packed>,
}

impl Walk<'_> {
    fn run(&mut self, root: u64, packed: u64) -> Result<()> {
        self.inode(root, None)
            .map_err(|why| Error::new(format!("/: {why}")))?;
        if packed != 0 {
            self.packed(packed)
                .map_err(|why| Error::new(format!("the inode that fragments are in: {why}")))?;
        }
        if !is_dir(&self.nodes[0].inode) {
            return Err(Error::new("/: not a directory"));
        }
        let mut todo = vec![(0, 0)];
        while let Some((directory, parent)) = todo.pop() {
            let found = self
                .directory(directory, parent)
                .map_err(|why| Error::new(format!("{}: {why}", self.shown(directory))))?;
            todo.extend(found.into_iter().map(|child| (child, directory)));
        }
        Ok(())
    }

    fn packed(&mut self, nid: u64) -> Result<(), String> {
        let node = self.inode(nid, None)?;
        let Node {
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
            return Err("no file, or in parts itself".to_owned());
        }
        let mut clusters = Vec::new();
        if inode.datalayout == EROFS_INODE_COMPRESSED_COMPACT {
            let bytes = read_index(self.file, inode, *at).map_err(|e| e.to_string())?;
            let (Place::Blocks(start), extents) = index_of(inode, &bytes, self.algorithms)? else {
                return Err("kept with its inode".to_owned());
            };
            let (mut from, mut place) = (0, u64::from(start) * BLOCK as u64);
            for extent in extents {
                clusters.push((from, place, extent));
                from += u64::from(extent.len);
                place += u64::from(extent.blocks) * BLOCK as u64;
            }
        }
        self.packed = Some(Packed {
            node,
            clusters,
            last: Mutex::default(),
        });
        Ok(())
    }

    fn shown(&self, node: usize) -> String {
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
            .ok_or("more metadata than the image has bytes")?;
        Ok(())
    }

    /// Checks the inode with this number, once, and gives its index.
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
        let at = at.ok_or_else(|| format!("inode {nid} would be beyond the end of the image"))?;
        let mut bytes = [0; INODE_EXTENDED];
        let room = (self.len - at).min(INODE_EXTENDED as u64) as usize;
        self.file
            .read_exact_at(&mut bytes[..room], at)
            .map_err(|e| e.to_string())?;
        let inode = Inode::parse(&bytes[..room], self.fixed)
            .ok_or_else(|| format!("inode {nid} is damaged"))?;
        if inode.mtime.1 > 999_999_999 || !matches!(inode.mode >> 12, 1 | 2 | 4 | 6 | 8 | 10 | 12) {
            return Err(format!("inode {nid} has an impossible type or time"));
        }
        let node = self.nodes.len();
        let xattrs = self.attributes(&inode, at)?;
        let fragment = self.fragment(&inode, at)?;
        let behind = match fragment {
            Some(_) => index::fragment_len(header(&inode)),
            None => self.data(&inode, at, node)?,
        };
        let header = inode.len() as u64 + xattr::body_len(inode.xattr_icount) as u64;
        self.used.push((at, at + header + behind, Some(node)));
        self.by_nid.insert(nid, node);
        self.nodes.push(Node {
            inode,
            at,
            first: name,
            fragment,
            xattrs,
        });
        Ok(node)
    }

    /// Where in the packed inode a file's bytes are; `None` for what has data of its own.
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
            .map_err(|_| "inode beyond the end of the image")?;
        let Some(start) = index::fragment(header, &bytes) else {
            return Ok(None);
        };
        let end = start.checked_add(inode.size).filter(|end| {
            inode.size > 0 && inode.u == 0 && *end <= self.nodes[packed.node].inode.size
        });
        end.map(|_| Some(start))
            .ok_or_else(|| "a fragment beyond the end of what it is a part of".to_owned())
    }

    /// Checks where an inode's data are; gives how many bytes stand behind its header.
    fn data(&mut self, inode: &Inode, at: u64, node: usize) -> Result<u64, String> {
        let header = header(inode) as u64;
        let image = self.len;
        let end = |behind: u64| {
            (at + header)
                .checked_add(behind)
                .filter(|end| *end <= image)
                .ok_or("inode beyond the end of the image")
        };
        end(0)?;
        if matches!(inode.mode >> 12, 1 | 2 | 6 | 12) {
            return if inode.size == 0 && inode.datalayout == EROFS_INODE_FLAT_PLAIN {
                Ok(0)
            } else {
                Err("a special file with data".to_owned())
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
                let (place, extents) = index_of(inode, &bytes, self.algorithms)?;
                let (start, blocks, inline) = match place {
                    Place::Blocks(start) => {
                        (start, extents.iter().map(|e| u64::from(e.blocks)).sum(), 0)
                    }
                    Place::Inline(bytes)
                        if (at + header + behind) % BLOCK as u64 + u64::from(bytes)
                            <= BLOCK as u64 =>
                    {
                        (0, 0, u64::from(bytes))
                    }
                    Place::Inline(_) => return Err("its cluster crosses a block".to_owned()),
                };
                if blocks != u64::from(inode.u) {
                    return Err(format!("{} blocks where its index has {blocks}", inode.u));
                }
                (u64::from(start), blocks, behind + inline)
            }
            other => {
                return Err(format!(
                    "data layout {other}, which this program never writes"
                ));
            }
        };
        end(behind)?;
        if blocks > 0 {
            let last = start
                .checked_add(blocks)
                .and_then(|b| b.checked_mul(BLOCK as u64))
                .filter(|last| *last <= self.len);
            self.used.push((
                start * BLOCK as u64,
                last.ok_or("its data would be beyond the end of the image")?,
                Some(node),
            ));
        }
        Ok(behind)
    }

    fn attributes(&mut self, inode: &Inode, at: u64) -> Result<Xattrs, String> {
        let mut found = BTreeMap::new();
        let len = xattr::body_len(inode.xattr_icount);
        if len == 0 {
            return Ok(found);
        }
        let start = at + inode.len() as u64;
        if start + len as u64 > self.len {
            return Err("extended attributes beyond the end of the image".to_owned());
        }
        self.spend(len as u64)?;
        let mut body = vec![0; len];
        self.file
            .read_exact_at(&mut body, start)
            .map_err(|e| e.to_string())?;
        let shared = usize::from(body[4]);
        let mut rest = body
            .get(XATTR_IBODY_HEADER + shared * 4..)
            .ok_or("damaged extended attributes")?;
        while !rest.is_empty() {
            let ((name, value), len) = attribute(rest).ok_or("a damaged extended attribute")?;
            found.insert(name, value);
            rest = rest.get(len..).unwrap_or_default();
        }
        for i in 0..shared {
            let id = get32(&body, XATTR_IBODY_HEADER + i * 4).unwrap_or_default();
            let (name, value) = self.shared_attribute(id)?;
            found.insert(name, value);
        }
        Ok(found)
    }

    /// An attribute of the shared area, read once.
    fn shared_attribute(&mut self, id: u32) -> Result<Attribute, String> {
        if let Some(known) = self.shared.get(&id) {
            return Ok(known.clone());
        }
        let read = |entry: &mut [u8]| {
            let at = self.xattrs + u64::from(id) * 4;
            self.file
                .read_exact_at(entry, at)
                .map_err(|_| "a shared extended attribute beyond the end of the image".to_owned())
        };
        let mut head = [0; XATTR_ENTRY];
        read(&mut head)?;
        let mut entry = vec![
            0;
            XATTR_ENTRY
                + usize::from(head[0])
                + usize::from(u16::from_le_bytes([head[2], head[3]]))
        ];
        read(&mut entry)?;
        self.spend(entry.len() as u64)?;
        let (shared, _) = attribute(&entry).ok_or("a damaged shared extended attribute")?;
        self.shared.insert(id, shared.clone());
        Ok(shared)
    }

    /// Checks a directory; gives the directories in it.
    fn directory(&mut self, node: usize, parent: usize) -> Result<Vec<usize>, String> {
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
            for (name, nid, file_type) in dir::decode(block).ok_or("a damaged directory block")? {
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
                        || file_type != dir::EROFS_FT_DIR
                    {
                        return Err(format!(
                            "{:?} leads somewhere else",
                            String::from_utf8_lossy(name)
                        ));
                    }
                    continue;
                }
                self.names.push(Name {
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
                        "{:?} is the inode that fragments are in",
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
            Err("no \".\" or no \"..\"".to_owned())
        }
    }
}

/// Name and value.
type Attribute = (Arc<[u8]>, Arc<[u8]>);

/// The attribute at the start of these bytes, and how long its entry is.
fn attribute(bytes: &[u8]) -> Option<(Attribute, usize)> {
    let (name_len, index) = (usize::from(*bytes.first()?), *bytes.get(1)?);
    let value_len = usize::from(get16(bytes, 2)?);
    let name = bytes.get(XATTR_ENTRY..XATTR_ENTRY + name_len)?;
    let value = bytes.get(XATTR_ENTRY + name_len..XATTR_ENTRY + name_len + value_len)?;
    Some((
        (xattr::join(index, name)?.into(), value.into()),
        (XATTR_ENTRY + name_len + value_len).next_multiple_of(4),
    ))
}

fn is_dir(inode: &Inode) -> bool {
    inode.mode >> 12 == 4
}

fn file_type_of(inode: &Inode) -> u8 {
    match inode.mode >> 12 {
        1 => dir::EROFS_FT_FIFO,
        2 => dir::EROFS_FT_CHRDEV,
        4 => dir::EROFS_FT_DIR,
        6 => dir::EROFS_FT_BLKDEV,
        8 => dir::EROFS_FT_REG_FILE,
        10 => dir::EROFS_FT_SYMLINK,
        _ => dir::EROFS_FT_SOCK,
    }
}

fn header(inode: &Inode) -> usize {
    inode.len() + xattr::body_len(inode.xattr_icount)
}

fn read_index(file: &Part, inode: &Inode, at: u64) -> io::Result<Vec<u8>> {
    let header = header(inode);
    let mut bytes = vec![0; index::len(inode.size, header) as usize];
    file.read_exact_at(&mut bytes, at + header as u64)?;
    Ok(bytes)
}

fn algorithm(available: u16) -> u8 {
    available.trailing_zeros() as u8
}

fn index_of(inode: &Inode, bytes: &[u8], algorithms: u16) -> Result<(Place, Vec<Extent>), String> {
    if !matches!(
        algorithm(algorithms),
        Z_EROFS_COMPRESSION_LZ4 | Z_EROFS_COMPRESSION_ZSTD
    ) {
        return Err("compressed, but the super block names no algorithm".to_owned());
    }
    index::decode(inode.size, header(inode), algorithm(algorithms), bytes)
}

/// Gives out a flat inode's bytes. Its place was checked.
fn read_flat(
    file: &Part,
    inode: &Inode,
    at: u64,
    put: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let tail = if inode.datalayout == EROFS_INODE_FLAT_INLINE {
        inode.size % BLOCK as u64
    } else {
        0
    };
    let mut buffer = Vec::new();
    let mut done = 0;
    while done < inode.size - tail {
        buffer.resize((inode.size - tail - done).min(CHUNK) as usize, 0);
        file.read_exact_at(&mut buffer, u64::from(inode.u) * BLOCK as u64 + done)?;
        put(&buffer)?;
        done += buffer.len() as u64;
    }
    if tail > 0 {
        buffer.resize(tail as usize, 0);
        file.read_exact_at(&mut buffer, at + header(inode) as u64)?;
        put(&buffer)?;
    }
    Ok(())
}

/// One cluster's bytes of the file.
fn read_cluster(
    file: &Part,
    at: u64,
    stored: usize,
    extent: Extent,
    algorithm: u8,
) -> io::Result<Vec<u8>> {
    let mut stored = vec![0; stored];
    file.read_exact_at(&mut stored, at)?;
    let len = extent.len as usize;
    if extent.plain {
        stored.truncate(len);
        return Ok(stored);
    }
    let mut out = vec![0; len];
    if compress::unpack(algorithm, &stored, &mut out) {
        Ok(out)
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("the cluster at byte {at} does not decompress"),
        ))
    }
}
