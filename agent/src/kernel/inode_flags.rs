//! The flags of an inode (chattr(1), `FS_IOC_GETFLAGS` in <linux/fs.h>).

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::libc;
use nix::sys::stat::{Mode, SFlag, fstatat};

/// `FS_IMMUTABLE_FL` refuses all changes, `FS_APPEND_FL` all but additions.
const UNCHANGEABLE: libc::c_int = 0x10 | 0x20;

/// As [`make_changeable`], for the file or directory `name` in `folder`. Does nothing for entries
/// of other types: they have no flags.
pub fn make_entry_changeable(folder: impl AsFd, name: &CStr) -> nix::Result<()> {
    let found = fstatat(&folder, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    if !matches!(
        SFlag::from_bits_truncate(found.st_mode & SFlag::S_IFMT.bits()),
        SFlag::S_IFREG | SFlag::S_IFDIR
    ) {
        return Ok(());
    }
    // Another program may have replaced the entry since: a FIFO must not block.
    let how = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    make_changeable(openat(folder, name, how, Mode::empty())?)
}

/// Removes the flags that keep an open file or directory from being changed. Does nothing where
/// the file system has no flags.
pub fn make_changeable(file: impl AsFd) -> nix::Result<()> {
    let file = file.as_fd().as_raw_fd();
    let mut flags: libc::c_int = 0;
    // SAFETY: the kernel writes an int, whatever the type in the request's number says.
    let read = unsafe { libc::ioctl(file, libc::FS_IOC_GETFLAGS as _, &raw mut flags) };
    match Errno::result(read) {
        Err(Errno::ENOTTY | Errno::EOPNOTSUPP) => return Ok(()),
        Err(error) => return Err(error),
        Ok(_) if flags & UNCHANGEABLE == 0 => return Ok(()),
        Ok(_) => flags &= !UNCHANGEABLE,
    }
    // SAFETY: the kernel reads an int.
    let written = unsafe { libc::ioctl(file, libc::FS_IOC_SETFLAGS as _, &raw const flags) };
    Errno::result(written).map(drop)
}
