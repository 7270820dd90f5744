//! The flags of an inode (chattr(1), `FS_IOC_GETFLAGS` in <linux/fs.h>).

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::libc;

/// `FS_IMMUTABLE_FL` refuses all changes, `FS_APPEND_FL` all but additions.
const UNCHANGEABLE: libc::c_int = 0x10 | 0x20;

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
