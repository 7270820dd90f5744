//! Seeding: what the image has at a volume's mount point and the volume has not is created there; what it has is never touched.
//!
//! Promise: an entry appears in its place whole, with content, owner, mode, xattrs, times and links, or not at all, whenever the power goes.
//! Everything is first made in a staging folder on the same volume, made durable, and then moved into place; the record of the image that was seeded
//! comes last, so an unfinished seeding is done again. Trusts the image (it is verified), not the volume: no link in it is followed.

use std::collections::HashMap;
use std::ffi::{CStr, CString, OsStr};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat, renameat};
use nix::libc;
use nix::sys::stat::{FileStat, Mode, SFlag, UtimensatFlags, mkdirat, mknodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchownat, linkat, symlinkat, syncfs};

use super::beneath::{self, kind, look, names, open_folder};
use adamant_agent::contract::IDENTITY_DIR;

const STAGING: &CStr = c"seeding";
const RECORD: &CStr = c"seeded";
const LOST_AND_FOUND: &str = "lost+found";
/// How often copying a large file feeds the watchdog, bytes.
const TICK_BYTES: u64 = 16 << 20;
/// Largest value of an xattr, and largest list of their names (Linux's XATTR_SIZE_MAX, XATTR_LIST_MAX).
const XATTR_LIMIT: usize = 65536;

/// Why seeding stopped.
#[derive(Debug)]
pub struct Unseeded {
    /// The entry, relative to the volume.
    pub path: PathBuf,
    /// Why.
    pub why: io::Error,
}

impl Unseeded {
    /// Whether the file system is damaged, rather than full or of an unexpected shape.
    pub fn is_damage(&self) -> bool {
        matches!(self.why.raw_os_error(), Some(libc::EIO | libc::EUCLEAN | libc::EBADMSG | libc::EROFS))
    }
}

/// Seeds `volume` from `image`, both open folders. `others` are the mount points of other volumes below this one, relative: they are made as
/// folders and stay empty. `mark` names the image; a volume that was seeded with the same mark is left alone. `tick` is called often, to keep a
/// watchdog fed. Returns the number of entries created.
pub fn seed(image: &OwnedFd, volume: &OwnedFd, others: &[PathBuf], mark: &str, tick: &mut dyn FnMut()) -> Result<u64, Unseeded> {
    let own_name = beneath::c_name(IDENTITY_DIR.as_ref()).unwrap_or_default();
    let own = beneath::own_folder(volume, &own_name).map_err(|e| failed(Path::new(IDENTITY_DIR), e))?;
    let at_record = |why: io::Error| Unseeded { path: Path::new(IDENTITY_DIR).join("seeded"), why };
    // A record that can't be read is as good as none.
    let record = beneath::read(&own, RECORD, 4096).unwrap_or_default();
    if record.as_deref() == Some(mark.as_bytes()) {
        return Ok(0);
    }
    let at_staging = |e: Errno| failed(&Path::new(IDENTITY_DIR).join("seeding"), e);
    beneath::remove_tree(&own, STAGING).map_err(at_staging)?;
    let staging = beneath::own_folder(&own, STAGING).map_err(at_staging)?;
    let mut work = Seeding { staging, others, moves: Vec::new(), links: HashMap::new(), created: 0, buffers: Buffers::new(), tick };
    let done = work.missing(image.as_fd(), volume.as_fd(), Path::new("")).and_then(|()| work.publish(volume));
    // On failure, too: a full volume needs its room back.
    let removed = beneath::remove_tree(&own, STAGING).map_err(at_staging);
    done?;
    removed?;
    if record.is_none() {
        // A new file system's root is the image's folder in this, too.
        let found = nix::sys::stat::fstat(image).map_err(|e| failed(Path::new("."), e))?;
        let (from, to, here) = (image.as_fd(), volume.as_fd(), Path::new("."));
        let copied = copy_attributes(to, here, &found).and_then(|()| copy_xattrs(from, c".", to, here, &mut work.buffers));
        copied.map_err(|why| Unseeded { path: here.into(), why })?;
    }
    syncfs(volume).map_err(|e| at_record(e.into()))?;
    beneath::write(&own, RECORD, mark.as_bytes()).map_err(at_record)?;
    Ok(work.created)
}

struct Seeding<'a> {
    staging: OwnedFd,
    others: &'a [PathBuf],
    /// Staged entries by number: the folder each belongs in, and its name there.
    moves: Vec<(PathBuf, CString)>,
    /// Image inodes with several names: where the first copy is staged.
    links: HashMap<u64, PathBuf>,
    created: u64,
    buffers: Buffers,
    tick: &'a mut dyn FnMut(),
}

/// Memory for what is copied, of one entry after the other: to be given it anew takes longer than most entries.
struct Buffers {
    /// Content, or names of xattrs.
    many: Vec<u8>,
    /// An xattr's value.
    one: Vec<u8>,
}

impl Buffers {
    fn new() -> Buffers {
        Buffers { many: vec![0; XATTR_LIMIT], one: vec![0; XATTR_LIMIT] }
    }
}

impl Seeding<'_> {
    /// Stages what `image` has and `volume` has not; both are the folder `path`.
    fn missing(&mut self, image: BorrowedFd, volume: BorrowedFd, path: &Path) -> Result<(), Unseeded> {
        for name in names(image).map_err(|e| failed(path, e))? {
            let below = path.join(OsStr::from_bytes(name.to_bytes()));
            if below == Path::new(IDENTITY_DIR) || below == Path::new(LOST_AND_FOUND) {
                continue;
            }
            let fail = |e: Errno| failed(&below, e);
            let found = look(image, &name).and_then(|found| found.ok_or(Errno::ENOENT)).map_err(fail)?;
            match look(volume, &name).map_err(fail)? {
                None => {
                    self.copy(image, &name, Path::new(&self.moves.len().to_string()), &below, 0)?;
                    self.moves.push((path.to_owned(), name));
                }
                // What the volume has wins, unless both are folders: then it is what is missing inside.
                Some(there) if kind(&there) == SFlag::S_IFDIR && kind(&found) == SFlag::S_IFDIR && !self.is_other(&below) => {
                    let (image, volume) = (open_folder(image, &name).map_err(fail)?, open_folder(volume, &name).map_err(fail)?);
                    self.missing(image.as_fd(), volume.as_fd(), &below)?;
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Moves what is staged to where it belongs, once all of it is durable.
    fn publish(&self, volume: &OwnedFd) -> Result<(), Unseeded> {
        syncfs(volume).map_err(|e| failed(Path::new("."), e))?;
        for (number, (folder, name)) in self.moves.iter().enumerate() {
            let moved = beneath::open_path(volume, folder).and_then(|to| renameat(&self.staging, number.to_string().as_str(), &to, name.as_c_str()));
            moved.map_err(|e| failed(&folder.join(OsStr::from_bytes(name.to_bytes())), e))?;
        }
        Ok(())
    }

    fn is_other(&self, path: &Path) -> bool {
        self.others.iter().any(|other| other == path)
    }

    /// Copies the entry `name` of `image`, with everything below it, to `staged` in the staging folder, whose names are all the agent's own work.
    /// `path` is where it will be.
    fn copy(&mut self, image: BorrowedFd, name: &CStr, staged: &Path, path: &Path, depth: usize) -> Result<(), Unseeded> {
        let fail = |e: Errno| failed(path, e);
        let broken = |why: io::Error| Unseeded { path: path.to_owned(), why };
        if depth > beneath::MAX_DEPTH {
            return Err(fail(Errno::ELOOP));
        }
        let found = look(image, name).and_then(|found| found.ok_or(Errno::ENOENT)).map_err(fail)?;
        let to = &self.staging;
        self.created += 1;
        (self.tick)();
        let several = found.st_nlink > 1 && kind(&found) != SFlag::S_IFDIR;
        if several && let Some(first) = self.links.get(&found.st_ino) {
            return linkat(to, first.as_path(), to, staged, AtFlags::empty()).map_err(fail);
        }
        let may_have_xattrs = match kind(&found) {
            SFlag::S_IFDIR => {
                mkdirat(to, staged, Mode::S_IRWXU).map_err(fail)?;
                let inside = open_folder(image, name).map_err(fail)?;
                for name in if self.is_other(path) { Vec::new() } else { names(&inside).map_err(fail)? } {
                    let last = OsStr::from_bytes(name.to_bytes());
                    self.copy(inside.as_fd(), &name, &staged.join(last), &path.join(last), depth + 1)?;
                }
                has_xattrs(&inside).map_err(broken)?
            }
            SFlag::S_IFREG => {
                let read = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                let from = std::fs::File::from(openat(image, name, read, Mode::empty()).map_err(fail)?);
                copy_content(&from, to.as_fd(), staged, &mut self.buffers.many, self.tick).map_err(broken)?;
                has_xattrs(&from).map_err(broken)?
            }
            SFlag::S_IFLNK => symlinkat(readlinkat(image, name).map_err(fail)?.as_os_str(), to, staged).map(|()| true).map_err(fail)?,
            special => mknodat(to, staged, special, Mode::S_IRWXU, found.st_rdev).map(|()| true).map_err(fail)?,
        };
        copy_attributes(self.staging.as_fd(), staged, &found).map_err(broken)?;
        if may_have_xattrs {
            copy_xattrs(image, name, self.staging.as_fd(), staged, &mut self.buffers).map_err(broken)?;
        }
        if several {
            self.links.insert(found.st_ino, staged.to_owned());
        }
        Ok(())
    }
}

fn failed(path: &Path, why: Errno) -> Unseeded {
    Unseeded { path: path.to_owned(), why: why.into() }
}

/// Copies a regular file's bytes; long runs of zeros become holes.
fn copy_content(mut from: &std::fs::File, to: BorrowedFd, new: &Path, buffer: &mut [u8], tick: &mut dyn FnMut()) -> io::Result<()> {
    use std::os::unix::fs::FileExt;
    let write = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let to = std::fs::File::from(openat(to, new, write, Mode::S_IRUSR | Mode::S_IWUSR)?);
    let mut at = 0;
    loop {
        let count = from.read(buffer)?;
        if count == 0 {
            return to.set_len(at);
        }
        if buffer[..count].iter().any(|&b| b != 0) {
            to.write_all_at(&buffer[..count], at)?;
        }
        at += count as u64;
        if at.is_multiple_of(TICK_BYTES) {
            tick();
        }
    }
}

/// Owner, mode and time, in the order in which none undoes another. Xattrs come after it: a new owner takes capabilities away.
fn copy_attributes(to: BorrowedFd, new: &Path, found: &FileStat) -> io::Result<()> {
    fchownat(to, new, Some(Uid::from_raw(found.st_uid)), Some(Gid::from_raw(found.st_gid)), AtFlags::AT_SYMLINK_NOFOLLOW)?;
    if kind(found) != SFlag::S_IFLNK {
        let mode = Mode::from_bits_truncate(found.st_mode & 0o7777);
        nix::sys::stat::fchmodat(to, new, mode, nix::sys::stat::FchmodatFlags::FollowSymlink)?;
    }
    let modified = TimeSpec::new(found.st_mtime, found.st_mtime_nsec);
    utimensat(to, new, &modified, &modified, UtimensatFlags::NoFollowSymlink)?;
    Ok(())
}

/// Whether it has any. Asked of an open file, since the way by a path through /proc takes longer than what else is done with most files.
fn has_xattrs(open: &impl AsRawFd) -> io::Result<bool> {
    // SAFETY: with a length of 0 the kernel writes nothing.
    Ok(Errno::result(unsafe { libc::flistxattr(open.as_raw_fd(), std::ptr::null_mut(), 0) })? > 0)
}

fn copy_xattrs(image: BorrowedFd, name: &CStr, to: BorrowedFd, new: &Path, buffers: &mut Buffers) -> io::Result<()> {
    let (from, to) = (beneath::through_proc(image, name.to_bytes()), beneath::through_proc(to, new.as_os_str().as_bytes()));
    let Buffers { many: list, one: value } = buffers;
    // SAFETY: the path is NUL-terminated and the kernel writes at most the buffer's length.
    let length = unsafe { libc::llistxattr(from.as_ptr(), list.as_mut_ptr().cast(), list.len()) };
    for name in list[..Errno::result(length)? as usize].split_inclusive(|&b| b == 0) {
        let name = CStr::from_bytes_with_nul(name).map_err(io::Error::other)?;
        // SAFETY: both strings are NUL-terminated and the kernel writes at most the buffer's length.
        let length = unsafe { libc::lgetxattr(from.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
        let length = Errno::result(length)? as usize;
        // SAFETY: both strings are NUL-terminated, and the first `length` bytes of the buffer were just written.
        let set = unsafe { libc::lsetxattr(to.as_ptr(), name.as_ptr(), value.as_ptr().cast(), length, 0) };
        Errno::result(set)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
    use std::process::Command;

    use super::super::tests::{Folder, alone, is_root};
    use super::*;

    fn sh(folder: &Folder, script: &str) -> String {
        let _alone = alone();
        let output = Command::new("sh").args(["-ec", script]).current_dir(folder.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn lsetxattr(path: &Path, name: &CStr, value: &[u8]) -> bool {
        let path = CString::new(path.as_os_str().as_bytes()).unwrap();
        // SAFETY: both strings are NUL-terminated and the value's length is its own.
        unsafe { libc::lsetxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) == 0 }
    }

    fn lgetxattr(path: &Path, name: &CStr) -> Vec<u8> {
        let path = CString::new(path.as_os_str().as_bytes()).unwrap();
        let mut value = vec![0; 4096];
        // SAFETY: both strings are NUL-terminated and the kernel writes at most the buffer's length.
        let length = unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
        value.truncate(usize::try_from(length).unwrap_or(0));
        value
    }

    /// Type, mode, owner, size, blocks' worth of holes aside, mtime to the nanosecond, links, target, device, path.
    const LIST: &str = r"find . -mindepth 1 ! -path './.adamant*' -printf '%y %m %U:%G %s %T@ %n %l %p\n'";

    const TREE: &str = r"
        mkdir -p lib/deep/er log/inner empty; chown 5:6 lib/deep; chmod 2770 lib/deep
        echo content > lib/file; chown 7:8 lib/file; chmod 4751 lib/file
        ln lib/file lib/deep/second; ln lib/file third
        ln -s ../nowhere lib/link; chown -h 9:9 lib/link; ln lib/link lib/link2
        mkfifo lib/fifo; mknod lib/null c 1 3; mknod lib/disk b 7 200
        printf x > lib/holes; truncate -s 3M lib/holes; printf y >> lib/holes
        touch lib/empty; printf 'a name\nwith a line feed' > 'lib/new
line'; touch $(printf 'lib/\\351')
        echo in-other > log/inner/x
        find . -mindepth 1 -depth -exec touch -h -d '1999-12-31 23:59:59.123456789' {} +
        touch -h -d '1965-01-02 03:04:05.5' lib/file";

    #[test]
    fn every_kind_of_entry_arrives_as_it_was() {
        if !is_root() {
            return;
        }
        let (image, volume) = (Folder::new("seed-image"), Folder::new("seed-volume"));
        sh(&image, TREE);
        let xattrs = [(c"user.one", &b"value\0two"[..]), (c"trusted.two", b""), (c"security.capability", b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0")];
        for (name, value) in xattrs {
            assert!(lsetxattr(&image.path().join("lib/file"), name, value));
        }
        assert!(lsetxattr(&image.path().join("lib/link"), c"trusted.link", b"on the link"));
        let acl =
            b"\x02\0\0\0\x01\0\x06\0\xff\xff\xff\xff\x02\0\x04\0\xe8\x03\0\0\x04\0\x04\0\xff\xff\xff\xff\x10\0\x06\0\xff\xff\xff\xff\x20\0\0\0\xff\xff\xff\xff";
        for name in [c"system.posix_acl_access", c"system.posix_acl_default"] {
            assert!(lsetxattr(&image.path().join("lib/deep"), name, acl));
        }
        sh(&image, "touch -d '1999-12-31 23:59:59.123456789' lib/deep .; chmod 751 .; chown 3:4 .");
        let before = sh(&image, LIST);
        let created = seed(&image.open(), &volume.open(), &[PathBuf::from("log")], "one", &mut || ()).unwrap();
        let expected: String = before.split_inclusive('\n').filter(|line| !line.contains("./log/")).collect();
        // A folder's size is its file system's affair, and `log` has one link less than with a folder in it.
        let plain = |text: &str| {
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            for line in lines.iter_mut().filter(|line| line.starts_with('d')) {
                let fields: Vec<&str> = line.split(' ').filter(|field| !field.is_empty()).collect();
                *line = [fields[..3].join(" "), fields[4].to_owned(), fields[6..].join(" ")].join(" ");
            }
            lines.sort();
            lines
        };
        assert_eq!(plain(&sh(&volume, LIST)), plain(&expected));
        assert_eq!(created as usize, expected.lines().count() - 1, "a name with a line feed is two lines");
        for (name, value) in xattrs {
            assert_eq!(lgetxattr(&volume.path().join("lib/file"), name), value, "{name:?}");
        }
        assert_eq!(lgetxattr(&volume.path().join("lib/link"), c"trusted.link"), b"on the link");
        assert_eq!(lgetxattr(&volume.path().join("lib/deep"), c"system.posix_acl_default"), acl);
        let ino = |path: &str| fs::symlink_metadata(volume.path().join(path)).unwrap().ino();
        assert_eq!((ino("lib/file"), ino("lib/link")), (ino("third"), ino("lib/link2")));
        let holes = fs::metadata(volume.path().join("lib/holes")).unwrap();
        assert!(holes.blocks() * 512 < 1 << 20 && holes.len() == (3 << 20) + 1);
        assert_eq!(sh(&image, "cksum lib/holes lib/file"), sh(&volume, "cksum lib/holes lib/file"));
        assert!(fs::symlink_metadata(volume.path().join("lib/disk")).unwrap().file_type().is_block_device());
        let root = fs::metadata(volume.path()).unwrap();
        assert_eq!((root.mode() & 0o7777, root.uid(), root.gid()), (0o751, 3, 4));
    }

    #[test]
    fn what_is_there_is_never_touched_and_what_is_missing_comes_with_the_next_image() {
        if !is_root() {
            return;
        }
        let (image, volume) = (Folder::new("keep-image"), Folder::new("keep-volume"));
        sh(&image, "mkdir -p a/b c; echo image > a/file; echo image > a/b/file; echo image > c/file; echo image > d");
        sh(&volume, "mkdir -p a/b d; echo own > a/file; chmod 600 a/file; ln -s /etc c; echo own > d/own");
        let kept = "find a/file c d/own -printf '%y %m %T@ %l\n'; cat a/file";
        let before = sh(&volume, kept);
        assert_eq!(seed(&image.open(), &volume.open(), &[], "one", &mut || ()).unwrap(), 1);
        assert_eq!(sh(&volume, kept), before);
        assert_eq!(sh(&volume, "cat a/b/file"), "image\n");
        sh(&image, "echo new > new; echo changed > a/b/file");
        assert_eq!(seed(&image.open(), &volume.open(), &[], "one", &mut || ()).unwrap(), 0, "the same image again");
        assert_eq!(seed(&image.open(), &volume.open(), &[], "two", &mut || ()).unwrap(), 1);
        assert_eq!(sh(&volume, "cat a/b/file new"), "image\nnew\n");
    }

    #[test]
    fn an_unfinished_seeding_is_done_again_from_the_start() {
        let (image, volume) = (Folder::new("again-image"), Folder::new("again-volume"));
        fs::create_dir_all(image.path().join("a/b")).unwrap();
        fs::write(image.path().join("a/b/file"), "whole").unwrap();
        fs::create_dir_all(volume.path().join(".adamant/seeding/0/b")).unwrap();
        fs::write(volume.path().join(".adamant/seeding/0/b/file"), "").unwrap();
        fs::write(volume.path().join(".adamant/seeded.new"), "one").unwrap();
        seed(&image.open(), &volume.open(), &[], "one", &mut || ()).unwrap();
        assert_eq!(fs::read_to_string(volume.path().join("a/b/file")).unwrap(), "whole");
        assert_eq!(fs::read_dir(volume.path().join(".adamant")).unwrap().count(), 1, "only the record is left");
    }

    #[test]
    fn an_image_of_absurd_depth_and_a_volume_of_links_are_survived() {
        let (image, volume, outside) = (Folder::new("absurd-image"), Folder::new("absurd-volume"), Folder::new("absurd-outside"));
        fs::create_dir_all(image.path().join("d/".repeat(150))).unwrap();
        let error = seed(&image.open(), &volume.open(), &[], "one", &mut || ()).unwrap_err();
        assert!(!error.is_damage() && error.why.raw_os_error() == Some(libc::ELOOP));
        fs::write(outside.path().join("seeded"), "two").unwrap();
        fs::remove_dir_all(image.path().join("d")).unwrap();
        fs::write(image.path().join("file"), "x").unwrap();
        fs::remove_dir_all(volume.path().join(".adamant")).unwrap();
        fs::create_dir(volume.path().join(".adamant")).unwrap();
        for name in ["seeding", "seeded", "seeded.new"] {
            symlink(outside.path().join("seeded"), volume.path().join(".adamant").join(name)).unwrap();
        }
        assert_eq!(seed(&image.open(), &volume.open(), &[], "two", &mut || ()).unwrap(), 1);
        assert_eq!(fs::read_to_string(outside.path().join("seeded")).unwrap(), "two");
        assert!(!volume.path().join(".adamant/seeded").is_symlink());
    }
}
