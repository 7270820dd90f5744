//! Findings about one source: entries that would hide other entries, whiteouts of image layers,
//! changed modes, skipped attributes.
//!
//! Data loss is an error. It is raised after the complete source was read, so that it lists all
//! paths. Everything else is a warning.

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::rootfs::check::Finding;
use crate::term::path_list::Paths;
use crate::tree::{Kind, NodeId, Tree, show};

/// Maximum number of attribute names in one message.
const ATTRIBUTES: usize = 64;

/// Side effects of one source.
#[derive(Debug, Default)]
pub struct Report {
    /// Entries that would replace a directory that is not empty.
    hiding: Paths,
    /// Entries that replaced an entry of another type.
    replaced: Paths,
    /// Whiteouts: marks that delete entries of lower layers.
    whiteouts: Paths,
    /// Directories and programs whose mode differs in the image.
    modes: Paths,
    /// Skipped attributes: the number of entries that have each, and the first such entry.
    attributes: BTreeMap<String, (u64, String)>,
}

impl Report {
    /// Whether an entry may be inserted at this path, whose parents are no symbolic links. Only a
    /// directory can replace a directory that is not empty.
    pub fn admits(&mut self, tree: &Tree, path: &[u8], entry: EntryType) -> bool {
        // The tree itself checks that the root is a directory.
        let Some(there) = tree.lookup(path).filter(|there| *there != Tree::ROOT) else {
            return true;
        };
        let shown = || format!("/{}", show(path).trim_start_matches('/'));
        match (&tree.node(there).kind, entry) {
            (Kind::Directory(_), EntryType::Directory) => true,
            (Kind::Directory(names), _) if names.is_empty() => true,
            (Kind::Directory(_), _) => {
                self.hiding.push(format!(
                    "{} {} (the directory holds {})",
                    entry.name(),
                    shown(),
                    inside(tree, there, &shown())
                ));
                false
            }
            (old, EntryType::Directory) => {
                self.replaced.push(format!(
                    "{} (a directory instead of a {})",
                    shown(),
                    EntryType::from_kind(old).name()
                ));
                true
            }
            (Kind::Symlink(_), EntryType::Other(_) | EntryType::File)
                if tree.is_directory(path) =>
            {
                self.replaced.push(format!(
                    "{} (a {} instead of a symbolic link to a directory)",
                    shown(),
                    entry.name()
                ));
                true
            }
            _ => true,
        }
    }

    /// Records a whiteout, which never becomes an entry of the tree.
    pub fn whiteout(&mut self, path: &[u8]) {
        self.whiteouts.push(show(path));
    }

    /// Records an entry whose mode differs in the image.
    pub fn mode(&mut self, path: &[u8], was: u16, is: u16) {
        self.modes
            .push(format!("{} ({is:04o} instead of {was:04o})", show(path)));
    }

    /// Records an attribute that is not copied into the image.
    pub fn left_out(&mut self, name: &[u8], path: &[u8]) {
        let name = show(name);
        if self.attributes.len() < ATTRIBUTES || self.attributes.contains_key(&name) {
            self.attributes
                .entry(name)
                .or_insert_with(|| (0, show(path)))
                .0 += 1;
        }
    }

    /// Returns the error if this source would lose data, else the warnings. `hint` is the remedy
    /// for hidden directories.
    pub fn finish(self, hint: &str) -> Result<Vec<Finding>> {
        if !self.hiding.is_empty() {
            return Err(Error::new(format!(
                "entries would replace directories that are not empty: {}",
                self.hiding
            ))
            .hint(hint));
        }
        if !self.whiteouts.is_empty() {
            let what = format!(
                "the source is one layer of a container image or an overlay: its whiteouts delete entries of lower layers: {}",
                self.whiteouts
            );
            return Err(Error::new(what).hint(
                "merge the layers first and use the result as one source: `podman create` and `podman export` for a container image,\n\
                 the mounted file system for an overlay",
            ));
        }
        if !self.attributes.is_empty() {
            let list = self
                .attributes
                .iter()
                .map(|(name, (count, first))| match count {
                    1 => format!("{name} of {first}"),
                    _ => format!("{name} of {count} entries, first {first}"),
                });
            log::info!("extended attributes left out: {}", list.collect::<Paths>());
        }
        let mut findings = Vec::new();
        if !self.replaced.is_empty() {
            findings.push(Finding {
                is_error: false,
                rule: "source-replaces",
                message: format!("a source replaced entries of another type: {}", self.replaced),
                hint: "if that is not intended, rename the entry, or write the sources in another order".to_owned(),
            });
        }
        if !self.modes.is_empty() {
            findings.push(Finding {
                is_error: false,
                rule: "source-modes",
                message: format!("a directory source removes write permission for group and others: {}", self.modes),
                hint: "write owner = \"keep\" for this source to keep modes, owners and times,\n\
                       or set one mode with [[file]] path = \"...\", directory = true, mode = \"2775\""
                    .to_owned(),
            });
        }
        Ok(findings)
    }
}

/// The type of a new entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryType {
    /// A directory.
    Directory,
    /// A file or a hard link to one.
    File,
    /// A symbolic link.
    Symlink,
    /// Any other type, by name.
    Other(&'static str),
}

impl EntryType {
    /// The type of a node.
    pub fn from_kind(kind: &Kind) -> EntryType {
        match kind {
            Kind::Directory(_) => EntryType::Directory,
            Kind::File(_) => EntryType::File,
            Kind::Symlink(_) => EntryType::Symlink,
            Kind::CharDevice { .. } | Kind::BlockDevice { .. } => EntryType::Other("device"),
            Kind::Fifo => EntryType::Other("named pipe"),
            Kind::Socket => EntryType::Other("socket"),
        }
    }

    fn name(self) -> &'static str {
        match self {
            EntryType::Directory => "directory",
            EntryType::File => "file",
            EntryType::Symlink => "symbolic link",
            EntryType::Other(name) => name,
        }
    }
}

/// One entry below a directory that is not empty, preferably not a directory itself.
fn inside(tree: &Tree, directory: NodeId, shown: &str) -> String {
    let mut path = shown.to_owned();
    let mut at = directory;
    while let Some((name, id)) = tree
        .children(at)
        .find(|(_, id)| !matches!(tree.node(*id).kind, Kind::Directory(_)))
        .or_else(|| tree.children(at).next())
    {
        path = format!("{path}/{}", show(name));
        at = id;
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Content, Meta};

    fn tree() -> Tree {
        let mut tree = Tree::new();
        for path in [&b"/bin/deep/tool"[..], b"/file", b"/usr/bin/x"] {
            tree.insert(path, Meta::default(), Kind::File(Content::default()))
                .unwrap();
        }
        tree.insert(b"/empty", Meta::default(), Kind::Directory(BTreeMap::new()))
            .unwrap();
        tree.insert(
            b"/sbin",
            Meta::default(),
            Kind::Symlink(b"usr/bin"[..].into()),
        )
        .unwrap();
        tree.insert(
            b"/dangling",
            Meta::default(),
            Kind::Symlink(b"nowhere"[..].into()),
        )
        .unwrap();
        tree
    }

    #[test]
    fn only_a_directory_replaces_a_directory_that_is_not_empty() {
        for entry in [
            EntryType::File,
            EntryType::Symlink,
            EntryType::Other("device"),
        ] {
            let mut report = Report::default();
            assert!(!report.admits(&tree(), b"bin", entry));
            let error = report.finish("do this").unwrap_err();
            assert!(
                error
                    .message()
                    .contains("/bin (the directory holds /bin/deep/tool)")
                    && error.remedy() == Some("do this"),
                "{error}"
            );
        }
        let mut report = Report::default();
        assert!(
            report.admits(&tree(), b"bin", EntryType::Directory)
                && report.admits(&tree(), b"empty", EntryType::Symlink)
                && report.admits(&tree(), b"new", EntryType::File)
        );
        assert!(report.finish("").unwrap().is_empty());
    }

    #[test]
    fn warns_of_entries_that_replace_another_type() {
        for (path, entry, warns) in [
            ("file", EntryType::Directory, true),
            ("dangling", EntryType::Directory, true),
            ("sbin", EntryType::File, true),
            ("sbin", EntryType::Symlink, false),
            ("file", EntryType::Symlink, false),
            ("dangling", EntryType::File, false),
        ] {
            let mut report = Report::default();
            assert!(report.admits(&tree(), path.as_bytes(), entry));
            let findings = report.finish("").unwrap();
            assert_eq!(
                findings
                    .iter()
                    .any(|finding| finding.message.contains(&format!("/{path} ("))),
                warns,
                "{path} {entry:?}"
            );
        }
    }
}
