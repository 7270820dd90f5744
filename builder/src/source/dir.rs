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
#[path = "dir_tests.rs"]
mod tests;
