//! A directory as a source.
//!
//! Symbolic links are copied and never followed. Mounted file systems below the directory are
//! entered only with `cross_mounts = true`. Each file is read once, into the spool, so that the
//! hash describes the built content.
//!
//! By default, differences between two checkouts of the same files do not change the image: root
//! owns everything, times are the epoch of the image, group and others cannot write unless the
//! sticky bit is set (umasks differ), and access control lists and attributes are skipped. A
//! directory that an earlier source created keeps its metadata.
//!
//! `owner = "keep"` copies owners, modes, access control lists, attributes and times unchanged.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::libc;
use sha2::{Digest, Sha256};

use super::report::{EntryType, Report};
use super::spool::Spool;
use super::{
    Budget, HIDING_HINT, LoadedSource, attributes, directory_landing, is_whiteout_name, landing,
    put,
};
use crate::definition::Dir;
use crate::error::{Context, Error, Result, from_io};
use crate::io::hashing::HashingReader;
use crate::tree::{Bytes, Content, ContentExtent, Kind, Meta, NodeId, TARGET_MAX, Time, Tree};

/// Maximum directory depth.
const DEPTH: usize = 512;

/// Adds all entries of the directory below `at`.
pub fn load(
    tree: &mut Tree,
    at: &[u8],
    dir: &Dir,
    budget: &mut Budget,
    spool: &Path,
    epoch: Option<i64>,
) -> Result<LoadedSource> {
    let meta = fs::metadata(&dir.path).context(|| format!("{}", dir.path.display()))?;
    if !meta.is_dir() {
        return Err(
            Error::new(format!("{}: not a directory", dir.path.display()))
                .hint("use tar = for an archive, [[file]] for one file"),
        );
    }
    let mut walk = DirectoryWalk {
        dir,
        at,
        epoch,
        device: meta.dev(),
        tree,
        budget,
        spool: Spool::new(spool)?,
        linked: HashMap::new(),
        digest: Sha256::new(),
        entries: 0,
        report: Report::default(),
    };
    // The directory itself may be a symbolic link in the definition. Links below it are not
    // followed.
    let handle = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECTORY)
        .open(&dir.path)
        .context(|| format!("{}", dir.path.display()))?;
    if dir.keep_owner {
        let (meta, _) = walk.meta(
            &handle
                .metadata()
                .context(|| format!("{}", dir.path.display()))?,
            &self_path(&handle),
            b"",
        )?;
        put(
            walk.tree,
            at,
            b"",
            meta,
            Kind::Directory(BTreeMap::new()),
            &mut walk.report,
        )?;
    }
    walk.folder(handle.into(), &mut Vec::new(), 0)?;
    let findings = walk
        .report
        .finish(HIDING_HINT)
        .context(|| dir.path.display().to_string())?;
    Ok(LoadedSource {
        kind: "dir",
        name: String::new(),
        findings,
        sha256: super::ArchiveHash::known(walk.digest.finalize().into()),
        expected: None,
        entries: walk.entries,
        date: None,
        archive: None,
        databases: Vec::new(),
    })
}

struct DirectoryWalk<'a> {
    dir: &'a Dir,
    at: &'a [u8],
    epoch: Option<i64>,
    device: u64,
    tree: &'a mut Tree,
    budget: &'a mut Budget,
    spool: Spool,
    /// Files with several hard links, by device and inode: their node and first path.
    linked: HashMap<(u64, u64), (NodeId, Vec<u8>)>,
    digest: Sha256,
    entries: u64,
    report: Report,
}

impl DirectoryWalk<'_> {
    fn shown(&self, path: &[u8]) -> PathBuf {
        self.dir.path.join(OsStr::from_bytes(path))
    }

    /// Adds all entries of an open directory, in byte order. `path` is relative to the source.
    fn folder(&mut self, folder: OwnedFd, path: &mut Vec<u8>, depth: usize) -> Result<()> {
        let here = self_path(&folder);
        if depth > DEPTH {
            return Err(Error::new(format!(
                "{}: more than {DEPTH} directories deep",
                self.shown(path).display()
            )));
        }
        let names = fs::read_dir(&here).and_then(|list| {
            list.map(|entry| entry.map(|entry| entry.file_name()))
                .collect::<io::Result<Vec<OsString>>>()
        });
        let mut names = names.context(|| format!("{}", self.shown(path).display()))?;
        names.sort();
        for name in names {
            let length = path.len();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name.as_bytes());
            // An error below a directory already names its own path.
            if let Some(below) = self
                .entry(&here.join(&name), path)
                .context(|| format!("{}", self.shown(path).display()))?
            {
                self.folder(below, path, depth + 1)?;
            }
            path.truncate(length);
        }
        Ok(())
    }

    /// Adds one entry; `place` is its path through the open parent directory. Returns a handle if
    /// it is a directory, whose entries are read next.
    fn entry(&mut self, place: &Path, path: &[u8]) -> Result<Option<OwnedFd>> {
        self.budget.entry()?;
        self.entries += 1;
        let found = fs::symlink_metadata(place).context(|| "reading its metadata")?;
        let kind = found.file_type();
        if is_whiteout(path, &found) {
            self.report.whiteout(path);
            return Ok(None);
        }
        if let Some((first, name)) = self
            .linked
            .get(&(found.dev(), found.ino()))
            .cloned()
            .filter(|_| !kind.is_dir() && found.nlink() > 1)
        {
            self.note(path, b"name", &Meta::default(), &name);
            let landed = landing(self.tree, self.at, path)?;
            if self.report.admits(self.tree, &landed, EntryType::File) {
                self.tree.link(&landed, first)?;
            }
            return Ok(None);
        }
        let ((meta, mode), made, handle) = if kind.is_file() {
            let file = OpenOptions::new()
                .read(true)
                .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
                .open(place)
                .context(|| "opening")?;
            let found = file.metadata().context(|| "reading its metadata")?;
            if !found.is_file() {
                return Err(Error::new("was replaced while it was read")
                    .hint("build again when nothing writes to it"));
            }
            let meta = self.meta(&found, place, path)?;
            let (content, digest) = self.content(&file, &found)?;
            self.note(path, b"file", &meta.0, &digest);
            (meta, Kind::File(content), None)
        } else if kind.is_dir() {
            let handle = OpenOptions::new()
                .read(true)
                .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW)
                .open(place)
                .context(|| "opening")?;
            let found = handle.metadata().context(|| "reading its metadata")?;
            if found.dev() != self.device && !self.dir.cross_mounts {
                return Err(Error::new("another file system is mounted there")
                    .hint("unmount it, or write cross_mounts = true for this source"));
            }
            let meta = self.meta(&found, place, path)?;
            self.note(path, b"folder", &meta.0, b"");
            (meta, Kind::Directory(BTreeMap::new()), Some(handle))
        } else {
            let meta = self.meta(&found, place, path)?;
            let (major, minor) = (libc::major(found.rdev()), libc::minor(found.rdev()));
            let made = if kind.is_symlink() {
                let target = fs::read_link(place)
                    .context(|| "reading the link's target")?
                    .into_os_string()
                    .into_vec();
                if target.len() > TARGET_MAX {
                    return Err(Error::new(format!(
                        "the target of the symbolic link has {} bytes, more than the {TARGET_MAX} of Linux",
                        target.len()
                    )));
                }
                Kind::Symlink(target.into())
            } else if kind.is_char_device() {
                Kind::CharDevice { major, minor }
            } else if kind.is_block_device() {
                Kind::BlockDevice { major, minor }
            } else if kind.is_fifo() {
                Kind::Fifo
            } else {
                Kind::Socket
            };
            let what = format!("{made:?}");
            self.note(path, b"other", &meta.0, what.as_bytes());
            (meta, made, None)
        };
        let id = match self.passes_through(path, &made)? {
            Some(there) => Some(there),
            None => {
                if mode != meta.mode && mode & 0o6000 != 0 {
                    self.report.mode(&self.in_image(path), mode, meta.mode);
                }
                put(self.tree, self.at, path, meta, made, &mut self.report)?
            }
        };
        if handle.is_none()
            && found.nlink() > 1
            && let Some(id) = id
        {
            self.linked
                .insert((found.dev(), found.ino()), (id, path.to_owned()));
        }
        Ok(handle.map(OwnedFd::from))
    }

    /// A directory that an earlier source created keeps its metadata: an overlay with `tmp/x` must
    /// not change the mode of /tmp.
    fn passes_through(&self, path: &[u8], made: &Kind) -> Result<Option<NodeId>> {
        if self.dir.keep_owner || !matches!(made, Kind::Directory(_)) {
            return Ok(None);
        }
        let landed = directory_landing(self.tree, self.at, path)?;
        Ok(self
            .tree
            .lookup(&landed)
            .filter(|there| matches!(self.tree.node(*there).kind, Kind::Directory(_))))
    }

    /// An entry's metadata in the image, and its mode in the directory.
    fn meta(&mut self, found: &Metadata, place: &Path, path: &[u8]) -> Result<(Meta, u16)> {
        let keep_owner = self.dir.keep_owner;
        let attributes = attributes::read(place, path, keep_owner, &mut self.report)
            .context(|| "reading its extended attributes")?;
        if attributes.is_layer {
            self.report.whiteout(path);
        }
        let (mode, xattrs) = ((found.mode() & 0o7777) as u16, attributes.kept);
        if keep_owner {
            let mtime = Time {
                seconds: found.mtime(),
                nanoseconds: found.mtime_nsec() as u32,
            };
            return Ok((
                Meta {
                    mode,
                    uid: found.uid(),
                    gid: found.gid(),
                    mtime,
                    xattrs,
                },
                mode,
            ));
        }
        // With an access control list, the group bits of the mode hold the list's mask.
        let own = attributes
            .group
            .map_or(mode, |group| mode & !0o070 | group << 3);
        let mode = if found.is_symlink() {
            own
        } else {
            mode_of_root(own, found.is_dir())
        };
        Ok((
            Meta {
                mode,
                uid: 0,
                gid: 0,
                mtime: Time {
                    seconds: self.epoch.unwrap_or(0),
                    nanoseconds: 0,
                },
                xattrs,
            },
            own,
        ))
    }

    /// An entry's path in the image, for messages.
    fn in_image(&self, path: &[u8]) -> Vec<u8> {
        landing(self.tree, self.at, path)
            .map_or_else(|_| path.to_owned(), |landed| [b"/", &*landed].concat())
    }

    /// Copies a file's data into the spool; holes stay holes.
    fn content(&mut self, file: &File, found: &Metadata) -> Result<(Content, [u8; 32])> {
        let length = found.len();
        let mut digest = Sha256::new();
        digest.update(length.to_le_bytes());
        let mut extents = Vec::new();
        let mut at = 0;
        while at < length {
            let Some(start) = seek(file, at, libc::SEEK_DATA)?.filter(|&start| start < length)
            else {
                break;
            };
            let end = seek(file, start, libc::SEEK_HOLE)?
                .unwrap_or(length)
                .clamp(start + 1, length);
            // Holes need no disk space and are not read.
            self.budget.bytes(end - start)?;
            let mut range = HashingReader {
                inner: FileRange {
                    file,
                    at: start,
                    end,
                },
                sha256: &mut digest,
            };
            let (offset, count) = self
                .spool
                .append(&mut range, &|error| from_io("reading", &error))?;
            if count != end - start {
                return Err(Error::new("became shorter while it was read")
                    .hint("build again when nothing writes to it"));
            }
            extents.push(ContentExtent {
                at: start,
                len: count,
                bytes: Bytes::File(self.spool.file().clone(), offset),
            });
            digest.update(start.to_le_bytes());
            at = end;
        }
        let now = file.metadata().context(|| "reading its metadata again")?;
        if (now.len(), now.mtime(), now.mtime_nsec()) != (length, found.mtime(), found.mtime_nsec())
        {
            return Err(Error::new("changed while it was read")
                .hint("build again when nothing writes to it"));
        }
        Ok((Content::sparse(length, extents)?, digest.finalize().into()))
    }

    /// Adds one line to the canonical listing. Every field has a length prefix, so different
    /// listings never have equal bytes.
    fn note(&mut self, path: &[u8], what: &[u8], meta: &Meta, rest: &[u8]) {
        let Time {
            seconds,
            nanoseconds,
        } = meta.mtime;
        let numbers = format!(
            "{:o} {} {} {seconds} {nanoseconds}",
            meta.mode, meta.uid, meta.gid
        );
        let mut fields: Vec<&[u8]> = vec![path, what, numbers.as_bytes(), rest];
        fields.extend(
            meta.xattrs
                .iter()
                .flat_map(|set| set.iter())
                .flat_map(|(name, value)| [&**name, &**value]),
        );
        self.digest.update((fields.len() as u64).to_le_bytes());
        for field in fields {
            self.digest.update((field.len() as u64).to_le_bytes());
            self.digest.update(field);
        }
    }
}

/// Whether this entry deletes an entry of a lower layer: the names of the OCI image specification
/// ("Whiteouts") and of aufs, and the device number of overlayfs.
fn is_whiteout(path: &[u8], found: &Metadata) -> bool {
    path.rsplit(|byte| *byte == b'/')
        .next()
        .is_some_and(is_whiteout_name)
        || found.file_type().is_char_device() && found.rdev() == 0
}

/// The mode in the image of an entry that root will own: group and others cannot write, as with
/// umask 022. A directory with the sticky bit keeps its mode: no umask sets that bit, so write
/// access for all is intended.
fn mode_of_root(mode: u16, is_directory: bool) -> u16 {
    if is_directory && mode & 0o1000 != 0 {
        mode
    } else {
        mode & !0o022
    }
}

/// A path that leads to an open file even if its names change.
fn self_path(handle: &impl AsRawFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", handle.as_raw_fd()))
}

/// The next data or hole from `at` on. `None` at the end, or if the file system cannot report holes
/// (all is data then).
fn seek(file: &File, at: u64, whence: i32) -> Result<Option<u64>> {
    // SAFETY: lseek takes an open descriptor and two numbers.
    let found = unsafe { libc::lseek(file.as_raw_fd(), at as i64, whence) };
    match nix::errno::Errno::result(found) {
        Ok(found) => Ok(Some(found as u64)),
        Err(nix::errno::Errno::ENXIO) => Ok(None),
        Err(nix::errno::Errno::EINVAL | nix::errno::Errno::EOPNOTSUPP) => {
            Ok((whence == libc::SEEK_DATA).then_some(at))
        }
        Err(error) => Err(Error::new(format!("finding holes: {}", error.desc()))),
    }
}

/// A range of a file.
struct FileRange<'a> {
    file: &'a File,
    at: u64,
    end: u64,
}

impl Read for FileRange<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let take = (self.end - self.at).min(buffer.len() as u64) as usize;
        let count = self.file.read_at(&mut buffer[..take], self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::Limits;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use tempfile::TempDir;

    struct Scratch(TempDir);

    impl Scratch {
        fn new() -> Scratch {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir(dir.path().join("source")).unwrap();
            Scratch(dir)
        }

        fn load(&self, keep_owner: bool, limits: Limits) -> Result<(Tree, LoadedSource)> {
            let mut tree = Tree::new();
            let dir = Dir {
                path: self.0.path().join("source"),
                keep_owner,
                cross_mounts: false,
            };
            let loaded = load(
                &mut tree,
                b"/srv",
                &dir,
                &mut Budget::new(limits),
                self.0.path(),
                Some(7),
            )?;
            Ok((tree, loaded))
        }
    }

    #[test]
    fn copies_symbolic_links_unchanged_and_keeps_hard_links() {
        let scratch = Scratch::new();
        let source = scratch.0.path().join("source");
        fs::write(scratch.0.path().join("secret"), "outside").unwrap();
        symlink("../secret", source.join("out")).unwrap();
        symlink("/etc", source.join("etc")).unwrap();
        fs::write(source.join("a"), "text").unwrap();
        fs::hard_link(source.join("a"), source.join("b")).unwrap();
        let (tree, loaded) = scratch.load(false, Limits::default()).unwrap();
        assert_eq!(loaded.entries, 4);
        assert!(
            matches!(&tree.node(tree.lookup(b"/srv/out").unwrap()).kind, Kind::Symlink(to) if **to == *b"../secret")
        );
        assert!(matches!(
            &tree.node(tree.lookup(b"/srv/etc").unwrap()).kind,
            Kind::Symlink(_)
        ));
        assert_eq!(tree.lookup(b"/srv/a"), tree.lookup(b"/srv/b"));
        assert_eq!(tree.node(tree.lookup(b"/srv/a").unwrap()).links, 2);
    }

    #[test]
    fn two_checkouts_are_equal_unless_the_owner_is_kept() {
        let scratch = Scratch::new();
        let file = scratch.0.path().join("source/a");
        let digest = |mode, time: u64, keep| {
            fs::write(&file, "text").unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            File::options()
                .write(true)
                .open(&file)
                .unwrap()
                .set_modified(std::time::UNIX_EPOCH + std::time::Duration::new(time, 5))
                .unwrap();
            let (tree, loaded) = scratch.load(keep, Limits::default()).unwrap();
            let meta = tree.node(tree.lookup(b"/srv/a").unwrap()).meta.clone();
            (loaded.sha256.wait().unwrap(), meta.mode, meta.mtime)
        };
        assert_eq!(digest(0o664, 1, false), digest(0o644, 2, false));
        assert_ne!(digest(0o664, 1, true), digest(0o664, 2, true));
        assert_eq!(digest(0o664, 1, true).1, 0o664);
        assert_eq!(
            digest(0o664, 1, true).2,
            Time {
                seconds: 1,
                nanoseconds: 5
            }
        );
        assert_eq!(
            digest(0o664, 1, false).2,
            Time {
                seconds: 7,
                nanoseconds: 0
            }
        );
    }

    #[test]
    fn a_directory_of_an_earlier_source_keeps_its_metadata_by_default() {
        let scratch = Scratch::new();
        let source = scratch.0.path().join("source");
        fs::create_dir_all(source.join("tmp/new")).unwrap();
        fs::create_dir_all(source.join("bin")).unwrap();
        fs::write(source.join("bin/tool"), "x").unwrap();
        fs::set_permissions(source.join("tmp"), fs::Permissions::from_mode(0o755)).unwrap();
        let load = |keep_owner| {
            let mut tree = Tree::new();
            let folder = |mode, uid| {
                (
                    Meta {
                        mode,
                        uid,
                        ..Meta::default()
                    },
                    Kind::Directory(BTreeMap::new()),
                )
            };
            for (path, (meta, kind)) in [
                (&b"/tmp"[..], folder(0o1777, 3)),
                (b"/usr/bin", folder(0o711, 4)),
            ] {
                tree.insert(path, meta, kind).unwrap();
            }
            tree.insert(
                b"/bin",
                Meta::default(),
                Kind::Symlink(b"usr/bin"[..].into()),
            )
            .unwrap();
            let dir = Dir {
                path: source.clone(),
                keep_owner,
                cross_mounts: false,
            };
            super::load(
                &mut tree,
                b"/",
                &dir,
                &mut Budget::new(Limits::default()),
                scratch.0.path(),
                Some(7),
            )
            .unwrap();
            let of = |path: &[u8]| {
                let meta = &tree.node(tree.lookup(path).unwrap()).meta;
                (meta.mode, meta.uid)
            };
            assert!(tree.lookup(b"/usr/bin/tool").is_some());
            (of(b"/tmp"), of(b"/usr/bin"), of(b"/tmp/new").0)
        };
        assert_eq!(load(false), ((0o1777, 3), (0o711, 4), 0o755));
        let owner = fs::metadata(&source).unwrap().uid();
        assert_eq!(load(true).0, (0o755, owner));
        assert_eq!(load(true).1.1, owner);
    }

    #[test]
    fn warns_of_removed_mode_bits_except_with_the_sticky_bit() {
        let scratch = Scratch::new();
        let source = scratch.0.path().join("source");
        for (name, mode) in [
            ("drop", 0o1777),
            ("team", 0o3770),
            ("shared", 0o2775),
            ("open", 0o777),
        ] {
            fs::create_dir(source.join(name)).unwrap();
            fs::set_permissions(source.join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        fs::write(source.join("program"), "x").unwrap();
        fs::set_permissions(source.join("program"), fs::Permissions::from_mode(0o4775)).unwrap();
        let (tree, loaded) = scratch.load(false, Limits::default()).unwrap();
        let modes = ["drop", "team", "shared", "open", "program"].map(|name| {
            tree.node(tree.lookup(format!("/srv/{name}").as_bytes()).unwrap())
                .meta
                .mode
        });
        assert_eq!(modes, [0o1777, 0o3770, 0o2755, 0o755, 0o4755]);
        let [finding] = &loaded.findings[..] else {
            panic!("{:?}", loaded.findings)
        };
        assert!(
            finding.message.contains(
                "/srv/program (4755 instead of 4775), /srv/shared (2755 instead of 2775)"
            ),
            "{finding:?}"
        );
        assert!(
            finding.hint.contains("owner = \"keep\"") && !finding.message.contains("open"),
            "{finding:?}"
        );
        let (tree, loaded) = scratch.load(true, Limits::default()).unwrap();
        assert_eq!(
            (
                tree.node(tree.lookup(b"/srv/shared").unwrap()).meta.mode,
                loaded.findings.len()
            ),
            (0o2775, 0)
        );
    }

    #[test]
    fn refuses_image_layers_and_names_all_whiteouts() {
        let scratch = Scratch::new();
        let source = scratch.0.path().join("source");
        fs::create_dir_all(source.join("etc/.wh..wh.plnk")).unwrap();
        fs::write(source.join("etc/.wh.old"), "").unwrap();
        let error = scratch
            .load(false, Limits::default())
            .unwrap_err()
            .to_string();
        assert!(
            ["etc/.wh..wh.plnk", "etc/.wh.old", "merge the layers"]
                .iter()
                .all(|word| error.contains(word)),
            "{error}"
        );
        fs::remove_dir_all(source.join("etc")).unwrap();
        fs::create_dir(source.join("opaque")).unwrap();
        if xattr::set(source.join("opaque"), "user.overlay.opaque", b"y").is_ok() {
            let error = scratch
                .load(true, Limits::default())
                .unwrap_err()
                .to_string();
            assert!(error.contains("opaque"), "{error}");
        }
    }

    #[test]
    fn a_link_or_file_never_hides_a_directory_of_an_earlier_source() {
        let scratch = Scratch::new();
        let source = scratch.0.path().join("source");
        symlink("usr/bin", source.join("bin")).unwrap();
        fs::write(source.join("lib"), "x").unwrap();
        fs::hard_link(source.join("lib"), source.join("opt")).unwrap();
        let mut tree = Tree::new();
        for path in [&b"/bin/tool"[..], b"/lib/app/data", b"/opt/x"] {
            tree.insert(path, Meta::default(), Kind::Fifo).unwrap();
        }
        let dir = Dir {
            path: source,
            keep_owner: false,
            cross_mounts: false,
        };
        let error = load(
            &mut tree,
            b"/",
            &dir,
            &mut Budget::new(Limits::default()),
            scratch.0.path(),
            None,
        )
        .unwrap_err()
        .to_string();
        for word in [
            "symbolic link /bin",
            "/bin/tool",
            "file /lib",
            "/lib/app/data",
            "file /opt",
            "put the source with the links first",
        ] {
            assert!(error.contains(word), "{word}: {error}");
        }
    }

    #[test]
    fn an_error_in_a_subdirectory_names_its_path_once() {
        let scratch = Scratch::new();
        fs::create_dir_all(scratch.0.path().join("source/a/b/c")).unwrap();
        fs::write(scratch.0.path().join("source/a/b/c/large"), [1; 100]).unwrap();
        let error = scratch
            .load(
                false,
                Limits {
                    bytes: 99,
                    entries: 10,
                },
            )
            .unwrap_err();
        assert_eq!(error.message().matches("a/b/c/large").count(), 1, "{error}");
    }

    #[test]
    fn holes_count_only_when_the_image_is_written() {
        let scratch = Scratch::new();
        let file = File::create(scratch.0.path().join("source/lastlog")).unwrap();
        file.write_all_at(b"x", 400_000_000_000).unwrap();
        let limits = Limits {
            bytes: 1 << 20,
            entries: 10,
        };
        let (mut tree, _) = scratch.load(false, limits).unwrap();
        let error = crate::source::bound_lengths(&tree, limits).unwrap_err();
        assert!(
            error
                .message()
                .contains("/srv/lastlog: the file is 400000000001 bytes long")
                && error.message().contains("hole"),
            "{error}"
        );
        tree.replace_content(&[b"/srv/lastlog"], Content::default())
            .unwrap();
        crate::source::bound_lengths(&tree, limits).unwrap();
    }

    #[test]
    fn keeps_holes_and_with_the_owner_attributes() {
        let scratch = Scratch::new();
        let path = scratch.0.path().join("source/sparse");
        let file = File::create(&path).unwrap();
        file.write_all_at(b"end", (8 << 20) - 3).unwrap();
        file.set_len(9 << 20).unwrap();
        let with_xattr = xattr::set(&path, "user.note", b"x\0y").is_ok();
        let (tree, _) = scratch.load(false, Limits::default()).unwrap();
        assert_eq!(
            tree.node(tree.lookup(b"/srv/sparse").unwrap()).meta.xattrs,
            None
        );
        let (tree, _) = scratch.load(true, Limits::default()).unwrap();
        let node = tree.node(tree.lookup(b"/srv/sparse").unwrap());
        let Kind::File(content) = &node.kind else {
            panic!()
        };
        assert_eq!(content.len(), 9 << 20);
        assert!(
            content.extents().map(|e| e.len).sum::<u64>() <= 1 << 20,
            "{content:?}"
        );
        let mut end = [0; 4];
        content.read_exact_at((8 << 20) - 3, &mut end).unwrap();
        assert_eq!(&end, b"end\0");
        if with_xattr {
            assert_eq!(
                &*node.meta.xattrs.as_ref().unwrap()[&b"user.note"[..]],
                b"x\0y"
            );
        }
    }

    #[test]
    fn the_digest_does_not_depend_on_earlier_sources() {
        let scratch = Scratch::new();
        let source = scratch.0.path().join("source");
        fs::write(source.join("a"), "text").unwrap();
        fs::hard_link(source.join("a"), source.join("b")).unwrap();
        let dir = Dir {
            path: source,
            keep_owner: false,
            cross_mounts: false,
        };
        let digest = |mut tree: Tree| {
            load(
                &mut tree,
                b"/",
                &dir,
                &mut Budget::new(Limits::default()),
                scratch.0.path(),
                None,
            )
            .unwrap()
            .sha256
            .wait()
            .unwrap()
        };
        let mut earlier = Tree::new();
        earlier.insert(b"/x", Meta::default(), Kind::Fifo).unwrap();
        assert_eq!(digest(Tree::new()), digest(earlier));
    }

    #[test]
    fn refuses_a_directory_beyond_the_limits() {
        let scratch = Scratch::new();
        fs::write(scratch.0.path().join("source/a"), [0; 100]).unwrap();
        let error = scratch
            .load(
                false,
                Limits {
                    bytes: 99,
                    entries: 10,
                },
            )
            .unwrap_err();
        assert!(
            error.message().contains("more than 99 bytes") && error.message().contains("source/a"),
            "{error}"
        );
    }
}
