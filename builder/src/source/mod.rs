//! Sources: each one adds entries to the tree. All of their input is hostile and is checked before
//! it enters the tree.
//!
//! A source is placed below a directory of the image. A symbolic link in that path which an earlier
//! source created is followed as the kernel of the image would follow it, and never leads out of
//! the image: on Debian `/bin/x` lands in `/usr/bin/x`.

mod attributes;
pub mod debian;
pub mod dir;
pub mod dpkg;
mod file;
mod hash;
mod report;
pub mod spool;
pub mod tar;

use std::collections::HashSet;
use std::path::{Path, PathBuf};

pub use self::hash::{ArchiveHash, ExpectedHash};
use self::report::{EntryType, Report};
use crate::definition::{Definition, Dir, Limits, Origin};
use crate::error::{Context, Error, Result};
use crate::rootfs::check::Finding;
use crate::tree::{Kind, LinkPolicy, Meta, NodeId, Tree, parts, show};

/// How far archives of the cache are trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheTrust {
    /// The digest of an archive is checked before its use.
    Verified,
    /// An archive is used while it is hashed, which saves time. The caller must check
    /// [`LoadedSource::is_corrupted`] before it publishes a result, and also after an error.
    Optimistic,
}

/// Settings for loading sources.
#[derive(Debug, Clone)]
pub struct LoadContext {
    /// Directory of the cache (archives of installed Debian packages).
    pub cache: PathBuf,
    /// Directory for spools (unnamed temporary files); its file system needs free space for them.
    pub spool: PathBuf,
    /// Whether caches may be used.
    pub use_cache: bool,
    /// How far cached archives are trusted.
    pub trust_cache: CacheTrust,
}

/// The cache directory: the given one, else `adamant` in the user's cache directory.
pub fn cache_folder(named: Option<&Path>) -> PathBuf {
    let environment = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let user = || {
        environment("XDG_CACHE_HOME")
            .or_else(|| Some(environment("HOME")?.join(".cache")))
            .unwrap_or_else(std::env::temp_dir)
    };
    named.map_or_else(|| user().join("adamant"), Path::to_owned)
}

/// One source as the manifest records it.
#[derive(Debug)]
pub struct LoadedSource {
    /// debian, tar, dir or file.
    pub kind: &'static str,
    /// For people: suite and packages, or the path as written in the definition.
    pub name: String,
    /// SHA-256 of the archive, or of a canonical listing with the contents.
    pub sha256: ArchiveHash,
    /// The digest that an archive from the cache must have.
    pub expected: Option<ExpectedHash>,
    /// Number of entries added to the tree.
    pub entries: u64,
    /// Publication date of the archive, seconds since 1970; only for `debian`.
    pub date: Option<i64>,
    /// The package archives; only for `debian`.
    pub archive: Option<debian::Archive>,
    /// Databases that package scripts created; only for `debian`.
    pub databases: Vec<debian::Database>,
    /// Warnings for the operator.
    pub findings: Vec<Finding>,
}

impl LoadedSource {
    /// Whether the cached archive is corrupted. Waits for its hash.
    pub fn is_corrupted(&self) -> bool {
        self.expected
            .as_ref()
            .is_some_and(|expected| !expected.matches())
    }
}

/// The unused part of the limits, shared by all sources.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    limits: Limits,
    bytes: u64,
    entries: u64,
}

impl Budget {
    /// The full limits.
    pub fn new(limits: Limits) -> Budget {
        Budget {
            limits,
            bytes: limits.bytes,
            entries: limits.entries,
        }
    }

    /// Counts one entry.
    pub fn entry(&mut self) -> Result<()> {
        self.entries = self.entries.checked_sub(1).ok_or_else(|| {
            Error::new(format!(
                "with this entry the sources have more than {} entries",
                self.limits.entries
            ))
            .hint("raise `entries` under [limits] if the sources really have that many")
        })?;
        Ok(())
    }

    /// Counts bytes of content.
    pub fn bytes(&mut self, count: u64) -> Result<()> {
        self.bytes = self.bytes.checked_sub(count).ok_or_else(|| {
            Error::new(format!(
                "with this file the sources have more than {} bytes of files",
                self.limits.bytes
            ))
            .hint("raise `bytes` under [limits] if the sources really have that much")
        })?;
        Ok(())
    }
}

/// Loads the definition's sources in order. After an error, `loaded` holds the sources before the
/// failed one.
pub fn load(
    definition: &Definition,
    context: &LoadContext,
    loaded: &mut Vec<LoadedSource>,
) -> Result<Tree> {
    let mut tree = Tree::new();
    let mut budget = Budget::new(definition.limits);
    loaded.clear();
    for source in &definition.sources {
        let at = source.at.as_bytes();
        let result = match &source.origin {
            Origin::Debian(debian) => debian::load(&mut tree, at, debian, &mut budget, context),
            Origin::Tar(path) => tar::load(&mut tree, at, path, &mut budget, &context.spool),
            Origin::Dir(dir) => dir::load(
                &mut tree,
                at,
                dir,
                &mut budget,
                &context.spool,
                definition.epoch,
            ),
            Origin::File(file) => file::load(
                &mut tree,
                at,
                file,
                &mut budget,
                &context.spool,
                definition.epoch,
            ),
        };
        let mut summary = result.context(|| source.location.clone())?;
        if let Origin::Tar(path) | Origin::Dir(Dir { path, .. }) = &source.origin {
            // As the definition writes it: where the definition itself is does not count.
            let base = definition.path.parent().unwrap_or(&definition.path);
            summary.name = path
                .strip_prefix(base)
                .unwrap_or(path)
                .display()
                .to_string();
        }
        loaded.push(summary);
    }
    Ok(tree)
}

/// Whether an entry of this name marks another one as deleted in a layer of a container image.
fn is_whiteout_name(name: &[u8]) -> bool {
    name.starts_with(b".wh.")
}

/// Where an entry lands: `path` below `at`, with symbolic links on the way (not the last part)
/// followed within the tree. Parts that are not there yet stay as they are.
pub fn landing(tree: &Tree, at: &[u8], path: &[u8]) -> Result<Vec<u8>> {
    land(tree, at, path, false)
}

/// Where a directory lands: over a link to a directory that an earlier source made, where that
/// leads.
pub fn directory_landing(tree: &Tree, at: &[u8], path: &[u8]) -> Result<Vec<u8>> {
    land(tree, at, path, true)
}

fn land(tree: &Tree, at: &[u8], path: &[u8], is_directory: bool) -> Result<Vec<u8>> {
    let end = tree.follow(
        parts(at).chain(parts(path)),
        &mut |link| match link.is_last {
            true if !(is_directory && tree.is_directory(&link.path())) => LinkPolicy::NoFollow,
            _ => LinkPolicy::Follow,
        },
    );
    end.map(|end| end.path()).map_err(|_| link_loop(path))
}

/// The error for a path that leads through a symbolic link loop.
fn link_loop(path: &[u8]) -> Error {
    Error::new(format!(
        "{}: the path leads through a symbolic link loop",
        show(path)
    ))
    .hint("remove one of the links, or leave this path out of the source")
}

/// What to do about an entry of a source that would hide a directory.
const HIDING_HINT: &str = "put the source with the links first, so that later sources follow them;\n\
                           or leave the entry out of this source, or the directory out of the earlier one";

/// Puts an entry where it lands. A directory where there is one gives its metadata to that one.
/// `None`: the report refuses it.
fn put(
    tree: &mut Tree,
    at: &[u8],
    path: &[u8],
    meta: Meta,
    kind: Kind,
    report: &mut Report,
) -> Result<Option<NodeId>> {
    let landed = land(tree, at, path, matches!(kind, Kind::Directory(_)))?;
    if parts(&landed).next().is_none() {
        return match kind {
            Kind::Directory(_) => {
                tree.node_mut(Tree::ROOT).meta = meta;
                Ok(Some(Tree::ROOT))
            }
            _ => Err(Error::new(format!(
                "{}: the root of the image can only be a directory",
                show(path)
            ))),
        };
    }
    if !report.admits(tree, &landed, EntryType::from_kind(&kind)) {
        return Ok(None);
    }
    tree.insert(&landed, meta, kind).map(Some)
}

/// Bounds the lengths of all files together, holes included: the image stores a hole as zeroes.
/// Sources count data alone, so that a long hole in a file that scrubbing empties does no harm.
pub fn bound_lengths(tree: &Tree, limits: Limits) -> Result<()> {
    let (mut total, mut seen) = (0u64, HashSet::new());
    let mut longest_hole: (u64, Vec<u8>, u64) = Default::default();
    tree.visit(&mut |path, id| {
        let Kind::File(content) = &tree.node(id).kind else {
            return;
        };
        if tree.node(id).links > 1 && !seen.insert(id) {
            return;
        }
        total = total.saturating_add(content.len());
        let data = content.data_len();
        if content.len() - data > longest_hole.0 {
            longest_hole = (content.len() - data, path.to_vec(), data);
        }
    });
    if total <= limits.bytes {
        return Ok(());
    }
    let (hole, path, data) = longest_hole;
    let what = format!(
        "{}: the file is {} bytes long, of which {data} are data and the rest is a hole; with it the image has more than {} bytes of files",
        show(&path),
        hole.saturating_add(data),
        limits.bytes
    );
    Err(Error::new(what).hint("an image stores holes as zeroes: leave the file out ([[file]] absent = true), or raise `bytes` under [limits]"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn folder() -> Kind {
        Kind::Directory(BTreeMap::new())
    }

    fn link(to: &[u8]) -> Kind {
        Kind::Symlink(to.into())
    }

    #[test]
    fn entries_follow_links_inside_the_image() {
        let mut tree = Tree::new();
        tree.insert(b"/usr/bin", Meta::default(), folder()).unwrap();
        tree.insert(b"/bin", Meta::default(), link(b"usr/bin"))
            .unwrap();
        tree.insert(b"/out", Meta::default(), link(b"../../../../etc"))
            .unwrap();
        tree.insert(b"/loop", Meta::default(), link(b"loop/x"))
            .unwrap();
        assert_eq!(landing(&tree, b"/", b"bin/sh").unwrap(), b"usr/bin/sh");
        assert_eq!(landing(&tree, b"/", b"bin").unwrap(), b"bin");
        assert_eq!(landing(&tree, b"/", b"out/passwd").unwrap(), b"etc/passwd");
        assert_eq!(
            landing(&tree, b"/srv/web", b"index.html").unwrap(),
            b"srv/web/index.html"
        );
        assert!(landing(&tree, b"/", b"loop/y").is_err());
        // A directory over a link to a directory leaves the link, and the directory it leads to
        // gets the metadata.
        put(
            &mut tree,
            b"/",
            b"bin",
            Meta {
                mode: 0o750,
                ..Meta::default()
            },
            folder(),
            &mut Report::default(),
        )
        .unwrap();
        assert!(matches!(
            tree.node(tree.lookup(b"/bin").unwrap()).kind,
            Kind::Symlink(_)
        ));
        assert_eq!(
            tree.node(tree.lookup(b"/usr/bin").unwrap()).meta.mode,
            0o750
        );
    }

    #[test]
    fn refuses_more_entries_or_bytes_than_the_limits() {
        let mut budget = Budget::new(Limits {
            bytes: 10,
            entries: 1,
        });
        budget.entry().unwrap();
        assert!(
            budget
                .entry()
                .unwrap_err()
                .message()
                .contains("more than 1 entries")
        );
        budget.bytes(10).unwrap();
        assert!(budget.bytes(1).is_err());
    }
}
