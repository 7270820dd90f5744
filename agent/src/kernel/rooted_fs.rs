//! File access inside of a directory with hostile content, such as a volume: no function follows a
//! symbolic link or leaves the directory.
//!
//! Every name is resolved from an open directory, one name at a time or with openat2's
//! RESOLVE_BENEATH.

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::libc;
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, fchown, getegid, geteuid, unlinkat};

use super::inode_flags;

/// Deepest tree that is removed: programs do not make deeper ones.
pub const MAX_DEPTH: usize = 100;

const FOLDER: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);

/// Opens a directory by a trusted path.
pub fn open_trusted(path: &Path) -> nix::Result<OwnedFd> {
    nix::fcntl::open(path, FOLDER, Mode::empty())
}

/// Opens the directory `name` in `folder`. A symbolic link is an error.
pub fn open_folder(folder: impl AsFd, name: &CStr) -> nix::Result<OwnedFd> {
    openat(folder, name, FOLDER, Mode::empty())
}

/// Opens the directory at a relative path of several names. A symbolic link in it is an error;
/// mounts are crossed.
pub fn open_path(folder: impl AsFd, path: &Path) -> nix::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(FOLDER)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    openat2(folder, path, how)
}

/// Opens the directory at a relative path, and makes its missing parts. Parts of another type, such
/// as symbolic links, are renamed; the last new name is returned.
pub fn make_path(folder: impl AsFd, path: &Path) -> nix::Result<(OwnedFd, Option<CString>)> {
    let mut folder = open_path(folder, Path::new(""))?;
    let mut aside = None;
    for name in path {
        let name = c_name(name).ok_or(Errno::EINVAL)?;
        aside = folder_or_aside(&folder, &name)?.or(aside);
        folder = open_folder(&folder, &name)?;
    }
    Ok((folder, aside))
}

/// Type and attributes of `name` in `folder`. `None` if there is no such entry.
pub fn stat_entry(folder: impl AsFd, name: &CStr) -> nix::Result<Option<FileStat>> {
    match fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::ENOENT) => Ok(None),
        Err(e) => Err(e),
    }
}

/// The type bits of a mode.
pub fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits())
}

/// Opens the directory `name` in `folder`, and makes it if it is missing. An entry of another type
/// is removed: the name belongs to the agent. So do its mode, its owner and its flags, which
/// somebody may have changed to keep the agent out.
pub fn own_folder(folder: impl AsFd, name: &CStr) -> nix::Result<OwnedFd> {
    if stat_entry(&folder, name)?.is_some_and(|found| kind(&found) != SFlag::S_IFDIR) {
        unlink(&folder, name, UnlinkatFlags::NoRemoveDir)?;
    }
    let mut made = mkdirat(&folder, name, Mode::S_IRWXU);
    if made == Err(Errno::EPERM) {
        inode_flags::make_changeable(&folder)?;
        made = mkdirat(&folder, name, Mode::S_IRWXU);
    }
    match made {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(e) => return Err(e),
    }
    let own = open_folder(folder, name)?;
    let found = fstat(&own)?;
    inode_flags::make_changeable(&own)?;
    if found.st_mode & 0o7777 != Mode::S_IRWXU.bits() {
        fchmod(&own, Mode::S_IRWXU)?;
    }
    let (user, group) = (geteuid(), getegid());
    if (found.st_uid, found.st_gid) != (user.as_raw(), group.as_raw()) {
        fchown(&own, Some(user), Some(group))?;
    }
    Ok(own)
}

/// The names in a directory, sorted, without `.` and `..`.
pub fn names(folder: impl AsFd) -> nix::Result<Vec<CString>> {
    // A descriptor of its own, because reading moves the position.
    names_in(&mut Dir::openat(folder, ".", FOLDER, Mode::empty())?)
}

/// Opens the directory `name` in `folder` to read its names. A symbolic link is an error.
pub fn open_dir(folder: impl AsFd, name: &CStr) -> nix::Result<Dir> {
    Dir::openat(folder, name, FOLDER, Mode::empty())
}

/// As [`names`], of a directory that was just opened.
pub fn names_in(dir: &mut Dir) -> nix::Result<Vec<CString>> {
    some_names(dir, usize::MAX)
}

/// As [`names_in`], but not more than `limit`.
fn some_names(dir: &mut Dir, limit: usize) -> nix::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in dir.iter() {
        let entry = entry?;
        if names.len() == limit {
            break;
        }
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// The names in a directory, sorted. `None` if there are more than `limit`.
pub fn names_up_to(folder: impl AsFd, limit: usize) -> nix::Result<Option<Vec<CString>>> {
    let names = some_names(
        &mut Dir::openat(folder, ".", FOLDER, Mode::empty())?,
        limit.saturating_add(1),
    )?;
    Ok(Some(names).filter(|names| names.len() <= limit))
}

/// Removes an entry, also one that was made immutable, or that is in an immutable directory.
fn unlink(folder: impl AsFd, name: &CStr, how: UnlinkatFlags) -> nix::Result<()> {
    match unlinkat(&folder, name, how) {
        Err(Errno::EPERM) => {
            inode_flags::make_changeable(&folder)?;
            inode_flags::make_entry_changeable(&folder, name)?;
            unlinkat(&folder, name, how)
        }
        other => other,
    }
}

/// Removes `name` in `folder` with its content.
pub fn remove_tree(folder: impl AsFd, name: &CStr) -> nix::Result<()> {
    remove_tree_with(folder, name, &mut || ())
}

/// As [`remove_tree`]; `step` is called for each entry.
pub fn remove_tree_with(folder: impl AsFd, name: &CStr, step: &mut dyn FnMut()) -> nix::Result<()> {
    fn remove(
        folder: BorrowedFd,
        name: &CStr,
        depth: usize,
        step: &mut dyn FnMut(),
    ) -> nix::Result<()> {
        let Some(found) = stat_entry(folder, name)? else {
            return Ok(());
        };
        step();
        if kind(&found) != SFlag::S_IFDIR {
            return unlink(folder, name, UnlinkatFlags::NoRemoveDir);
        }
        if depth > MAX_DEPTH {
            return Err(Errno::ELOOP);
        }
        let inside = open_folder(folder, name)?;
        for name in names(&inside)? {
            remove(inside.as_fd(), &name, depth + 1, step)?;
        }
        unlink(folder, name, UnlinkatFlags::RemoveDir)
    }
    remove(folder.as_fd(), name, 0, step)
}

/// Reads the regular file `name` in `folder`. `None` if there is no such entry; an entry of
/// another type, or more than `limit` bytes, is an error.
pub fn read_file(folder: impl AsFd, name: &CStr, limit: usize) -> io::Result<Option<Vec<u8>>> {
    let bytes = read_start(folder, name, limit + 1)?;
    if bytes.as_ref().is_some_and(|bytes| bytes.len() > limit) {
        return Err(io::Error::other(format!("longer than {limit} bytes")));
    }
    Ok(bytes)
}

/// As [`read_file`], but reads the first `limit` bytes of a longer file.
pub fn read_start(folder: impl AsFd, name: &CStr, limit: usize) -> io::Result<Option<Vec<u8>>> {
    use std::io::Read;
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let file = match openat(folder, name, flags, Mode::empty()) {
        Ok(fd) => std::fs::File::from(fd),
        Err(Errno::ENOENT) => return Ok(None),
        Err(Errno::ELOOP) => return Err(io::Error::other("a symbolic link")),
        Err(e) => return Err(e.into()),
    };
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(limit as u64).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// Writes the file `name` in `folder`. After a power cut it has the old or the new content; once
/// this returns, the new one.
pub fn write_file(folder: impl AsFd, name: &CStr, bytes: &[u8]) -> io::Result<()> {
    let temporary = temporary(folder.as_fd(), name, bytes, true)?;
    nix::fcntl::renameat(&folder, temporary.as_c_str(), &folder, name)?;
    Ok(nix::unistd::fsync(folder)?)
}

/// Writes a file next to `name` in `folder`, for the caller to rename, and returns its name. A
/// power cut may still lose it.
pub fn prepare(folder: impl AsFd, name: &CStr, bytes: &[u8]) -> io::Result<CString> {
    temporary(folder.as_fd(), name, bytes, false)
}

fn temporary(folder: BorrowedFd, name: &CStr, bytes: &[u8], sync: bool) -> io::Result<CString> {
    use std::io::Write;
    let temporary = temporary_name(name);
    remove_tree(folder, &temporary)?;
    let flags =
        OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut file = std::fs::File::from(openat(
        folder,
        temporary.as_c_str(),
        flags,
        Mode::S_IRUSR | Mode::S_IWUSR,
    )?);
    let written = file
        .write_all(bytes)
        .and_then(|()| if sync { file.sync_all() } else { Ok(()) });
    if let Err(e) = written {
        // Frees the space of an incomplete file: the volume may be full.
        let _ = unlinkat(folder, temporary.as_c_str(), UnlinkatFlags::NoRemoveDir);
        return Err(e);
    }
    Ok(temporary)
}

fn temporary_name(name: &CStr) -> CString {
    // A C string with a suffix without NUL is one again.
    CString::new([name.to_bytes(), b".new"].concat()).unwrap_or_default()
}

/// A path to `below` in `folder`, for system calls that take no directory. It needs /proc.
pub fn through_proc(folder: BorrowedFd, below: &[u8]) -> CString {
    let path = [
        format!("/proc/self/fd/{}/", folder.as_raw_fd()).as_bytes(),
        below,
    ]
    .concat();
    CString::new(path).unwrap_or_default()
}

/// A name as a C string. `None` if it contains a NUL.
pub fn c_name(name: &OsStr) -> Option<CString> {
    CString::new(name.as_bytes()).ok()
}

/// A path to an open directory, for system calls that take no descriptor. It needs /proc.
pub fn path_of(folder: &OwnedFd) -> CString {
    CString::new(format!("/proc/self/fd/{}", folder.as_raw_fd())).unwrap_or_default()
}

/// Moves an entry to a name that must not exist.
pub fn move_new(from: impl AsFd, name: &CStr, to: impl AsFd, new: &CStr) -> nix::Result<()> {
    rename(from.as_fd(), name, to.as_fd(), new, libc::RENAME_NOREPLACE)
}

/// Exchanges two entries atomically.
pub fn exchange(
    one: impl AsFd,
    name: &CStr,
    other: impl AsFd,
    other_name: &CStr,
) -> nix::Result<()> {
    rename(
        one.as_fd(),
        name,
        other.as_fd(),
        other_name,
        libc::RENAME_EXCHANGE,
    )
}

fn rename(
    from: BorrowedFd,
    name: &CStr,
    to: BorrowedFd,
    new: &CStr,
    flags: libc::c_uint,
) -> nix::Result<()> {
    // SAFETY: both names end with a NUL, and they and the descriptors outlive the call.
    let renamed = unsafe {
        libc::syscall(
            libc::SYS_renameat2,
            from.as_raw_fd(),
            name.as_ptr(),
            to.as_raw_fd(),
            new.as_ptr(),
            flags,
        )
    };
    Errno::result(renamed).map(drop)
}

/// Makes sure that `name` in `folder` is a directory. An entry of another type is renamed; its new
/// name is returned. If it can't be renamed, it is removed: somebody could have made the new name
/// unusable to keep the directory out. The flags of `folder` are removed for the same reason.
pub fn folder_or_aside(folder: impl AsFd, name: &CStr) -> nix::Result<Option<CString>> {
    let found = stat_entry(&folder, name)?;
    if found.is_some_and(|found| kind(&found) == SFlag::S_IFDIR) {
        return Ok(None);
    }
    inode_flags::make_changeable(&folder)?;
    let mut aside = None;
    if found.is_some() {
        inode_flags::make_entry_changeable(&folder, name)?;
        let other = CString::new([name.to_bytes(), b".not-a-folder"].concat()).unwrap_or_default();
        if move_aside(&folder, name, &other).is_ok() {
            aside = Some(other);
        } else {
            unlink(&folder, name, UnlinkatFlags::NoRemoveDir)?;
        }
    }
    let made = mkdirat(&folder, name, Mode::from_bits_truncate(0o755));
    if made.is_err()
        && let Some(aside) = &aside
    {
        // Another attempt finds the entry again, and reports it.
        let _ = nix::fcntl::renameat(&folder, aside.as_c_str(), &folder, name);
    }
    made.map(|()| aside)
}

/// Renames `name` in `folder`, and removes an entry that has the new name.
pub fn move_aside(folder: impl AsFd, name: &CStr, new: &CStr) -> nix::Result<()> {
    inode_flags::make_changeable(&folder)?;
    inode_flags::make_entry_changeable(&folder, name)?;
    remove_tree(&folder, new)?;
    nix::fcntl::renameat(&folder, name, &folder, new)
}
