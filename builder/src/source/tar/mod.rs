//! Archives: ustar, GNU and pax, uncompressed or compressed with gzip, zstd or xz.
//!
//! All metadata that the tree can hold is preserved: names of any bytes, times to the nanosecond,
//! ids, attributes, holes. Entries that cannot be preserved or are ambiguous are refused. Headers,
//! maps and lengths are bounded before memory or time is spent on them. Nothing is written outside
//! of the tree and the spool, so no name and no link can lead out of the image.
//!
//! Formats: POSIX.1-2001 `pax` ("ustar Interchange Format", "pax Interchange Format"); GNU tar
//! 1.35's manual, "Basic Tar Format" and "Storing Sparse Files"; star(4) and libarchive's tar(5)
//! for their own keys.

mod acl;
mod entry;
mod header;
mod input;
mod mount_path;
pub(super) mod packing;
mod pax;
mod sparse;
#[cfg(test)]
mod tests;
mod unpack;

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use self::acl::Acls;
use self::entry::{
    TRUNCATED, directory, end, extension, long, no_content, relative, symlink, unknown,
};
use self::header::{BLOCK, Header};
use self::input::{Input, Sink};
use self::mount_path::MountPath;
use self::packing::Packing;
use self::pax::Pax;
use self::sparse::Map;
use super::report::{EntryType, Report};
use super::{Budget, HIDING_HINT, LoadedSource, attributes, bound_lengths, is_whiteout_name};
use crate::definition::Limits;
use crate::error::{Context, Error, Result};
use crate::io::zeros::is_zero;
use crate::rootfs::check::Finding;
use crate::tree::{Content, Kind, Meta, NodeId, Time, Tree, Xattrs, parts, show};

/// Maximum memory for the names, targets, attributes and maps of one archive, bytes. A compressed
/// megabyte can hold as many as a real root.
const MEMORY_MAX: u64 = 1 << 30;
/// Maximum number of extended headers before one entry; real archives have up to three.
const EXTENSIONS_MAX: u32 = 8;

/// Loads the archive below `at`, a directory of the image.
pub fn load(
    tree: &mut Tree,
    at: &[u8],
    archive: &Path,
    budget: &mut Budget,
    spool_folder: &Path,
) -> Result<LoadedSource> {
    let (sha256, taken) = packing::open(tree, at, archive, budget, spool_folder)
        .context(|| archive.display().to_string())?;
    let Summary { entries, findings } = taken;
    Ok(LoadedSource {
        kind: "tar",
        name: archive.display().to_string(),
        sha256,
        expected: None,
        entries,
        date: None,
        findings,
        archive: None,
        databases: Vec::new(),
    })
}

/// Loads an archive from memory, without any file.
pub fn read_bytes(bytes: &[u8], limits: Limits) -> Result<Tree> {
    let mut tree = Tree::new();
    let input = Input::stream(Packing::detect(bytes).reader(bytes)?, Sink::Memory);
    Reading::new(&mut tree, b"/", &mut Budget::new(limits))?.load(input)?;
    bound_lengths(&tree, limits)?;
    Ok(tree)
}

/// The result of one archive.
pub struct Summary {
    entries: u64,
    findings: Vec<Finding>,
}

/// Memory that is left for this archive, bytes.
#[derive(Default)]
struct Memory(u64);

impl Memory {
    fn reserve(&mut self, bytes: u64) -> Result<()> {
        self.0 = self.0.saturating_add(bytes);
        if self.0 > MEMORY_MAX {
            return Err(Error::new(format!(
                "the names, links and attributes of the archive have more than {} MiB",
                MEMORY_MAX >> 20
            ))
            .hint("split the archive, or leave attributes out"));
        }
        Ok(())
    }
}

/// An archive while it is loaded into the tree.
struct Reading<'t> {
    tree: &'t mut Tree,
    budget: &'t mut Budget,
    mount_path: MountPath,
    memory: Memory,
    /// Number of entries so far, for messages and for the manifest.
    entries: u64,
    /// Name of the current entry, for messages.
    name: Vec<u8>,
    /// Keys of global extended headers.
    global: Pax,
    /// Sets of attributes in use: most entries with attributes share a set.
    attributes: HashSet<Xattrs>,
    acls: Acls,
    /// Hard links whose target has not appeared yet, by their landed path.
    links: BTreeMap<Vec<u8>, Vec<u8>>,
    report: Report,
}

impl<'t> Reading<'t> {
    fn new(tree: &'t mut Tree, at: &[u8], budget: &'t mut Budget) -> Result<Reading<'t>> {
        let mount_path = MountPath::new(tree, at)?;
        Ok(Reading {
            tree,
            budget,
            mount_path,
            memory: Memory::default(),
            entries: 0,
            name: Vec::new(),
            global: Pax::default(),
            attributes: HashSet::new(),
            acls: Acls::default(),
            links: BTreeMap::new(),
            report: Report::default(),
        })
    }

    fn load(mut self, mut input: Input) -> Result<Summary> {
        loop {
            let start = input.at();
            self.name.clear();
            let more = self
                .entry(&mut input)
                .context(|| match (self.entries, &*self.name) {
                    // The first header was invalid: this is no tar archive.
                    (0, b"") if start == input.at().saturating_sub(BLOCK as u64) => {
                        "not a tar archive, plain or compressed with gzip, zstd or xz".to_owned()
                    }
                    (_, b"") => format!("entry {} at byte {start}", self.entries + 1),
                    (_, name) => {
                        format!("entry {} at byte {start}, {}", self.entries + 1, show(name))
                    }
                })?;
            if !more {
                break;
            }
            self.entries += 1;
        }
        input.finish()?;
        self.settle_links()?;
        self.settle_acls()?;
        Ok(Summary {
            entries: self.entries,
            findings: self.report.finish(HIDING_HINT)?,
        })
    }

    /// Reads one entry with its extended headers; false at the end of the archive.
    fn entry(&mut self, input: &mut Input) -> Result<bool> {
        let mut said = None;
        let (mut long_name, mut long_link) = (None, None);
        let mut extensions = 0;
        let header = loop {
            let Some(block) = input.block()? else {
                return Err(Error::new(
                    "the archive ends without the two blocks of zeroes that mark its end",
                )
                .hint(TRUNCATED));
            };
            if is_zero(&block) {
                return end(input, extensions);
            }
            let header = Header::new(block)?;
            extensions += 1;
            match header.flag() {
                b'x' | b'X' => said
                    .get_or_insert_with(|| self.global.clone())
                    .read(&extension(&header, input)?, false)?,
                b'g' => self.global.read(&extension(&header, input)?, true)?,
                b'L' => long_name = Some(long(&extension(&header, input)?)?),
                b'K' => long_link = Some(long(&extension(&header, input)?)?),
                // A label of the archive.
                b'V' => no_content(header.size()?, "a volume label")?,
                _ => break header,
            }
            if extensions > EXTENSIONS_MAX {
                return Err(Error::new(format!(
                    "more than {EXTENSIONS_MAX} extended headers before one entry"
                )));
            }
        };
        let mut said = said.unwrap_or_else(|| self.global.clone());
        let name = said
            .sparse
            .name
            .take()
            .or(said.path.take())
            .or(long_name)
            .unwrap_or_else(|| header.name());
        let link = said
            .link
            .take()
            .or(long_link)
            .unwrap_or_else(|| header.link());
        self.name.clone_from(&name);
        self.add_entry(&header, &said, &name, &link, input)?;
        Ok(true)
    }

    /// Adds an entry to the tree.
    fn add_entry(
        &mut self,
        header: &Header,
        said: &Pax,
        name: &[u8],
        link: &[u8],
        input: &mut Input,
    ) -> Result<()> {
        self.budget.entry()?;
        let path = relative(name, "name")?;
        self.memory.reserve((path.len() + link.len()) as u64)?;
        if parts(&path).any(is_whiteout_name) || header.flag() == b'3' && header.device()? == (0, 0)
        {
            self.report.whiteout(&path);
            let size = said.size.map_or_else(|| header.size(), Ok)?;
            self.budget.bytes(size)?;
            return input.skip(size);
        }
        let size = said.size.map_or_else(|| header.size(), Ok)?;
        let kind = match header.flag() {
            // Unix V7 had no type for directories; their names end with a slash.
            0 | b'0' | b'7' if name.ends_with(b"/") => directory(size)?,
            b'5' => directory(size)?,
            0 | b'0' | b'7' => Kind::File(self.content(header, said, size, input)?),
            b'S' if header.is_gnu() => Kind::File(self.content(header, said, size, input)?),
            b'1' => {
                no_content(size, "a hard link")?;
                return self.link(&path, &relative(link, "hard link's target")?);
            }
            b'2' => {
                no_content(size, "a symbolic link")?;
                symlink(link)?
            }
            b'3' | b'4' => {
                no_content(size, "a device")?;
                let (major, minor) = header.device()?;
                if header.flag() == b'3' {
                    Kind::CharDevice { major, minor }
                } else {
                    Kind::BlockDevice { major, minor }
                }
            }
            b'6' => {
                no_content(size, "a named pipe")?;
                Kind::Fifo
            }
            flag => return Err(unknown(flag)),
        };
        let meta = self.meta(header, said)?;
        if meta
            .xattrs
            .iter()
            .flat_map(|all| all.keys())
            .any(|name| attributes::is_layer_mark(name))
        {
            self.report.whiteout(&path);
        }
        for name in &said.left_out {
            self.report.left_out(name, &path);
        }
        let is_directory = matches!(kind, Kind::Directory(_));
        match self.put(&path, meta, kind)? {
            Some(id) => self.acls.note(id, is_directory, said, &mut self.memory),
            None => Ok(()),
        }
    }

    fn content(
        &mut self,
        header: &Header,
        said: &Pax,
        mut size: u64,
        input: &mut Input,
    ) -> Result<Content> {
        let memory = &mut |bytes| self.memory.reserve(bytes);
        let map = match header.flag() {
            b'S' => Some(Map::old(header, input, memory)?),
            _ => Map::extended(&said.sparse, &mut size, input, memory)?,
        };
        // Counts data only: holes need no disk space.
        self.budget.bytes(size)?;
        let held = input.hold(size)?;
        match map {
            Some(map) => map.content(size, &held),
            None => held.content(size),
        }
    }

    fn meta(&mut self, header: &Header, said: &Pax) -> Result<Meta> {
        let uid = said.uid.map_or_else(|| header.uid(), Ok)?;
        let gid = said.gid.map_or_else(|| header.gid(), Ok)?;
        if uid == u32::MAX || gid == u32::MAX {
            return Err(Error::new(format!(
                "owner or group {}: Linux reserves this number for `none`",
                u32::MAX
            )));
        }
        let owner = said.owner.as_deref().unwrap_or_else(|| header.owner());
        let group = said.group.as_deref().unwrap_or_else(|| header.group());
        self.acls
            .names
            .learn(owner, uid, group, gid, &mut self.memory)?;
        let mtime = match said.mtime {
            Some(mtime) => mtime,
            None => Time {
                seconds: header.mtime()?,
                nanoseconds: 0,
            },
        };
        Ok(Meta {
            mode: header.mode()?,
            uid,
            gid,
            mtime,
            xattrs: self.attributes(said.xattrs())?,
        })
    }

    /// The shared copy of a set of attributes; `None` for an empty set.
    fn attributes(&mut self, all: BTreeMap<Box<[u8]>, Box<[u8]>>) -> Result<Option<Xattrs>> {
        if all.is_empty() {
            return Ok(None);
        }
        let all = Arc::new(all);
        if let Some(same) = self.attributes.get(&all) {
            return Ok(Some(same.clone()));
        }
        self.memory.reserve(
            all.iter()
                .map(|(name, value)| (name.len() + value.len()) as u64)
                .sum(),
        )?;
        self.attributes.insert(all.clone());
        Ok(Some(all))
    }

    /// Adds an entry to the tree, unless it would hide others.
    fn put(&mut self, path: &[u8], meta: Meta, kind: Kind) -> Result<Option<NodeId>> {
        let landing =
            self.mount_path
                .landing(self.tree, path, matches!(kind, Kind::Directory(_)))?;
        if parts(&landing).next().is_none() {
            if !matches!(kind, Kind::Directory(_)) {
                return Err(Error::new("the root of the image must be a directory"));
            }
            self.tree.node_mut(Tree::ROOT).meta = meta;
            return Ok(Some(Tree::ROOT));
        }
        if !self
            .report
            .admits(self.tree, &landing, EntryType::from_kind(&kind))
        {
            return Ok(None);
        }
        self.links.remove(&landing);
        let before = self.tree.capacity();
        let id = self.tree.insert(&landing, meta, kind)?;
        self.draw_parents(before)?;
        Ok(Some(id))
    }

    /// Adds a hard link, now if its target exists, else at the end of the archive.
    fn link(&mut self, path: &[u8], target: &[u8]) -> Result<()> {
        let path = self.mount_path.landing(self.tree, path, false)?;
        let target = self.mount_path.landing(self.tree, target, false)?;
        match self.tree.lookup(&target) {
            Some(id) if self.mount_path.is_own(id) => self.link_now(&path, &target, id),
            _ => {
                self.links.insert(path, target);
                Ok(())
            }
        }
    }

    fn link_now(&mut self, path: &[u8], target: &[u8], id: NodeId) -> Result<()> {
        if matches!(self.tree.node(id).kind, Kind::Directory(_)) {
            return Err(Error::new(format!(
                "a hard link to {}, which is a directory",
                show(target)
            )));
        }
        if !self.report.admits(self.tree, path, EntryType::File) {
            return Ok(());
        }
        self.links.remove(path);
        let before = self.tree.capacity();
        self.tree.link(path, id)?;
        self.draw_parents(before + 1)
    }

    /// Adds the hard links that precede their target or lead to an entry of an earlier source.
    fn settle_links(&mut self) -> Result<()> {
        let mut links = std::mem::take(&mut self.links);
        while let Some((path, mut target)) = links.pop_first() {
            let mut chain = vec![path];
            while let Some(next) = links.remove(&target) {
                chain.push(std::mem::replace(&mut target, next));
            }
            if chain.contains(&target) {
                return Err(Error::new(format!(
                    "{}: a loop of hard links",
                    show(&target)
                )));
            }
            let Some(id) = self.tree.lookup(&target) else {
                let what = format!(
                    "{}: a hard link to {}, which is neither in the archive nor in an earlier source",
                    show(&chain[chain.len() - 1]),
                    show(&target)
                );
                return Err(Error::new(what).hint("make the archive again from the complete tree"));
            };
            for path in chain.iter().rev() {
                if self
                    .tree
                    .lookup(path)
                    .is_some_and(|there| self.mount_path.is_own(there))
                {
                    return Err(Error::new(format!(
                        "{}: both a hard link and a directory",
                        show(path)
                    )));
                }
                self.link_now(path, &target, id)?;
            }
        }
        Ok(())
    }

    fn settle_acls(&mut self) -> Result<()> {
        for (id, more) in std::mem::take(&mut self.acls).settle(self.tree)? {
            let mut all = self
                .tree
                .node(id)
                .meta
                .xattrs
                .as_deref()
                .cloned()
                .unwrap_or_default();
            for (name, value) in more {
                all.entry(name.into()).or_insert(value.into());
            }
            self.tree.node_mut(id).meta.xattrs = self.attributes(all)?;
        }
        Ok(())
    }

    /// Counts missing parents as entries; the entry itself is counted already.
    fn draw_parents(&mut self, before: usize) -> Result<()> {
        (before + 1..self.tree.capacity()).try_for_each(|_| self.budget.entry())
    }
}
