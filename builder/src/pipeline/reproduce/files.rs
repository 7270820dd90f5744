//! Compares two root file systems file by file: content and metadata, but not block positions.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::Path;

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::erofs::read::ErofsImage;
use crate::error::{Context, Result};
use crate::io::part::Part;
use crate::tree::show;

/// Number of files in a message; the JSON document has all.
const NAMED: usize = 20;
/// The directory of dpkg's file lists and maintainer scripts.
const DPKG: &[u8] = b"/var/lib/dpkg/info/";
/// Largest list or script that is read, bytes.
const LIMIT: usize = 4 << 20;

/// A path with its differences.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileDifference {
    /// The path.
    pub path: String,
    /// The aspects that differ.
    pub differs: Vec<Aspect>,
    /// The Debian package that ships the file, or whose script names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
}

/// An aspect in which two files differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Aspect {
    /// The file is only in the first build.
    OnlyFirst,
    /// The file is only in the second build.
    OnlySecond,
    /// The file types differ.
    Type,
    /// Bytes, or the target of a symbolic link.
    Content,
    /// Permission bits.
    Mode,
    /// Owner or group.
    Owner,
    /// Modification time.
    Time,
    /// Extended attributes.
    Attributes,
    /// Number of hard links.
    Links,
}

impl Aspect {
    fn text(self) -> &'static str {
        match self {
            Aspect::OnlyFirst => "only in the first build",
            Aspect::OnlySecond => "only in the second build",
            Aspect::Type => "file type",
            Aspect::Content => "content",
            Aspect::Mode => "mode",
            Aspect::Owner => "owner",
            Aspect::Time => "time",
            Aspect::Attributes => "attributes",
            Aspect::Links => "number of hard links",
        }
    }
}

/// Compares two root file systems file by file.
pub fn compare(first: &Path, second: &Path) -> Result<Vec<FileDifference>> {
    let open = |path: &Path| {
        File::open(path)
            .and_then(Part::whole)
            .context(|| path.display().to_string())
            .and_then(ErofsImage::open)
    };
    let (a, b) = (open(first)?, open(second)?);
    let names = |image: &ErofsImage| -> BTreeMap<Vec<u8>, usize> {
        image.names().chain([(b"/".to_vec(), 0)]).collect()
    };
    let (in_a, in_b) = (names(&a), names(&b));
    let (mut of_a, mut of_b) = (ContentDigests::new(&a), ContentDigests::new(&b));
    let mut changed = Vec::new();
    let mut add = |path: &[u8], differs: Vec<Aspect>| {
        if !differs.is_empty() {
            changed.push((path.to_vec(), differs));
        }
    };
    for (path, &one) in &in_a {
        match in_b.get(path) {
            Some(&other) => add(path, aspects(&mut of_a, one, &mut of_b, other)?),
            None => add(path, vec![Aspect::OnlyFirst]),
        }
    }
    in_b.keys()
        .filter(|path| !in_a.contains_key(*path))
        .for_each(|path| add(path, vec![Aspect::OnlySecond]));
    changed.sort();
    let packages = Packages::read(&a, &in_a, &changed)?;
    let changed = changed.into_iter().map(|(path, differs)| FileDifference {
        package: packages.package(&path),
        path: show(&path),
        differs,
    });
    Ok(changed.collect())
}

/// Digests of files. Each file is read once.
struct ContentDigests<'a> {
    image: &'a ErofsImage,
    known: HashMap<usize, [u8; 32]>,
}

impl ContentDigests<'_> {
    fn new(image: &ErofsImage) -> ContentDigests<'_> {
        ContentDigests {
            image,
            known: HashMap::new(),
        }
    }

    fn digest(&mut self, number: usize) -> Result<[u8; 32]> {
        if let Some(digest) = self.known.get(&number) {
            return Ok(*digest);
        }
        let mut sha256 = Sha256::new();
        self.image.read(number, &mut |bytes| {
            sha256.update(bytes);
            Ok(())
        })?;
        let digest = sha256.finalize().into();
        self.known.insert(number, digest);
        Ok(digest)
    }
}

fn aspects(
    a: &mut ContentDigests,
    one: usize,
    b: &mut ContentDigests,
    other: usize,
) -> Result<Vec<Aspect>> {
    const DIRECTORY: u16 = 4;
    let (x, y) = (a.image.stat(one), b.image.stat(other));
    if x.mode >> 12 != y.mode >> 12 {
        return Ok(vec![Aspect::Type]);
    }
    let mut differs = Vec::new();
    let is_directory = x.mode >> 12 == DIRECTORY;
    // The entries of a directory are compared as paths.
    if !is_directory
        && (x.size != y.size || x.device != y.device || a.digest(one)? != b.digest(other)?)
    {
        differs.push(Aspect::Content);
    }
    let pairs = [
        (x.mode != y.mode, Aspect::Mode),
        ((x.uid, x.gid) != (y.uid, y.gid), Aspect::Owner),
        (x.mtime != y.mtime, Aspect::Time),
        (
            a.image.xattrs(one) != b.image.xattrs(other),
            Aspect::Attributes,
        ),
        (!is_directory && x.links != y.links, Aspect::Links),
    ];
    differs.extend(
        pairs
            .into_iter()
            .filter(|(is, _)| *is)
            .map(|(_, aspect)| aspect),
    );
    Ok(differs)
}

/// The package of each path, from dpkg's database in the image.
struct Packages(HashMap<Vec<u8>, String>);

impl Packages {
    /// The package whose list contains the path, or else the first one with a script that names it.
    fn read(
        image: &ErofsImage,
        names: &BTreeMap<Vec<u8>, usize>,
        changed: &[(Vec<u8>, Vec<Aspect>)],
    ) -> Result<Packages> {
        let mut listed = HashMap::new();
        let mut scripted = HashMap::new();
        if changed.is_empty() {
            return Ok(Packages(listed));
        }
        for (path, &number) in names
            .range(DPKG.to_vec()..)
            .take_while(|(path, _)| path.starts_with(DPKG))
        {
            let name = String::from_utf8_lossy(&path[DPKG.len()..]).into_owned();
            let Some((package, kind)) = name.rsplit_once('.') else {
                continue;
            };
            let package = package.split(':').next().unwrap_or(package);
            if !matches!(kind, "list" | "postinst" | "preinst" | "config")
                || image.stat(number).size > LIMIT as u64
            {
                continue;
            }
            let mut text = Vec::new();
            image.read(number, &mut |bytes| {
                text.extend_from_slice(bytes);
                Ok(())
            })?;
            if kind == "list" {
                let lines: std::collections::HashSet<&[u8]> =
                    text.split(|byte| *byte == b'\n').collect();
                let of = changed.iter().filter(|(path, _)| lines.contains(&path[..]));
                of.for_each(|(path, _)| {
                    listed
                        .entry(path.clone())
                        .or_insert_with(|| package.to_owned());
                });
            } else {
                let of = changed.iter().filter(|(path, _)| {
                    path.len() > 1 && text.windows(path.len()).any(|part| part == &path[..])
                });
                of.for_each(|(path, _)| {
                    scripted
                        .entry(path.clone())
                        .or_insert_with(|| package.to_owned());
                });
            }
        }
        scripted.extend(listed);
        Ok(Packages(scripted))
    }

    fn package(&self, path: &[u8]) -> Option<String> {
        self.0.get(path).cloned()
    }
}

/// The differences as text, one path a line.
pub fn text(changed: &[FileDifference]) -> String {
    let mut text = match changed.len() {
        0 => return "no file differs in content or metadata".to_owned(),
        1 => "1 file differs".to_owned(),
        count => format!("{count} files differ"),
    };
    for file in changed.iter().take(NAMED) {
        let aspects: Vec<&str> = file.differs.iter().map(|aspect| aspect.text()).collect();
        let package = file
            .package
            .as_ref()
            .map(|package| format!(" (package {package})"))
            .unwrap_or_default();
        text += &format!("\n    {}: {}{package}", file.path, aspects.join(", "));
    }
    if changed.len() > NAMED {
        text += &format!("\n    and {} more; --json lists all", changed.len() - NAMED);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Content, Kind, Meta, Time, Tree};
    use tempfile::NamedTempFile;

    struct Disk(Vec<u8>);

    impl crate::erofs::BlockSink for Disk {
        fn append(&mut self, blocks: &[u8]) -> std::io::Result<()> {
            self.0.extend_from_slice(blocks);
            Ok(())
        }

        fn first(&mut self, block: &[u8; crate::erofs::BLOCK]) -> std::io::Result<()> {
            self.0[..block.len()].copy_from_slice(block);
            Ok(())
        }
    }

    fn file(bytes: &[u8]) -> Kind {
        Kind::File(Content::from_memory(bytes))
    }

    fn image(change: impl Fn(&mut Tree)) -> NamedTempFile {
        let mut tree = Tree::new();
        let mut add = |path: &str, kind: Kind| {
            tree.insert(
                path.as_bytes(),
                Meta {
                    mode: 0o644,
                    ..Meta::default()
                },
                kind,
            )
            .map(|_| ())
            .unwrap()
        };
        add("/etc/same", file(b"same"));
        add("/etc/gshadow", file(b"root:*::"));
        add("/etc/aliases.db", file(b"one"));
        add("/etc/link", Kind::Symlink(b"same"[..].into()));
        add(
            "/var/lib/dpkg/info/postfix.postinst",
            file(b"newaliases >/etc/aliases.db"),
        );
        add(
            "/var/lib/dpkg/info/base-files.list",
            file(b"/.\n/etc/link\n"),
        );
        change(&mut tree);
        let options = crate::erofs::ErofsOptions {
            compression: None,
            cluster: 65536,
            fragments: false,
            uuid: [0; 16],
            label: "x".to_owned(),
            jobs: 1,
            spool: std::env::temp_dir(),
            cache: None,
            reference: None,
        };
        let mut disk = Disk(vec![0; crate::erofs::BLOCK]);
        crate::erofs::write(&tree, &options, &mut disk).unwrap();
        let file = NamedTempFile::new().unwrap();
        std::fs::write(file.path(), disk.0).unwrap();
        file
    }

    #[test]
    fn names_the_files_that_differ_and_no_others() {
        let first = image(|_| ());
        let second = image(|tree| {
            let id = tree.lookup(b"/etc/aliases.db").unwrap();
            tree.node_mut(id).kind = file(b"two, and longer, so that all behind it moves");
            let id = tree.lookup(b"/etc/link").unwrap();
            tree.node_mut(id).kind = Kind::Symlink(b"gshadow"[..].into());
            tree.node_mut(id).meta.mtime = Time {
                seconds: 5,
                nanoseconds: 0,
            };
            let id = tree.lookup(b"/etc/same").unwrap();
            tree.node_mut(id).meta.uid = 7;
            tree.insert(b"/etc/new", Meta::default(), file(b""))
                .unwrap();
        });
        let changed = compare(first.path(), second.path()).unwrap();
        let shown: Vec<String> = text(&changed)
            .lines()
            .map(|line| line.trim().to_owned())
            .collect();
        assert_eq!(
            shown,
            [
                "4 files differ",
                "/etc/aliases.db: content (package postfix)",
                "/etc/link: content, time (package base-files)",
                "/etc/new: only in the second build",
                "/etc/same: owner"
            ]
        );
        assert_eq!(compare(first.path(), first.path()).unwrap(), []);
        assert_eq!(text(&[]), "no file differs in content or metadata");
    }
}
