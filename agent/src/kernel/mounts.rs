//! Mounted file systems.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use nix::NixPath;
use nix::errno::Errno;
use nix::libc;
use nix::mount::{MsFlags, mount};

// <linux/mount.h>
const OPEN_TREE_CLONE: libc::c_int = 1;

mod ioctl {
    // EXT4_IOC_RESIZE_FS
    nix::ioctl_write_ptr!(ext4_resize_fs, b'f', 16, u64);
}

/// Makes a bind mount read-only, nosuid, nodev and noexec. Binding itself keeps the flags of the
/// bound mount. `path` must lead to the new mount, which is on top.
pub fn restrict_bind_mount<P: ?Sized + NixPath>(path: &P) -> nix::Result<()> {
    let flags = MsFlags::MS_REMOUNT
        | MsFlags::MS_BIND
        | MsFlags::MS_RDONLY
        | MsFlags::MS_NOSUID
        | MsFlags::MS_NODEV
        | MsFlags::MS_NOEXEC;
    mount(None::<&str>, path, None::<&str>, flags, None::<&str>)
}

/// Clones the mount at a path without the mounts below it: a tree that no path leads to.
pub fn clone_mount(path: &CStr) -> nix::Result<OwnedFd> {
    // SAFETY: the path ends with a NUL and outlives the call.
    let tree = unsafe {
        libc::syscall(
            libc::SYS_open_tree,
            libc::AT_FDCWD,
            path.as_ptr(),
            OPEN_TREE_CLONE | libc::O_CLOEXEC,
        )
    };
    let tree = Errno::result(tree)? as libc::c_int;
    // SAFETY: the call returned a new descriptor, which nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(tree) })
}

/// Grows a mounted ext4 file system, given by any of its directories, to this number of blocks
/// (EXT4_IOC_RESIZE_FS).
pub fn resize_ext4(directory: impl AsFd, blocks: u64) -> nix::Result<()> {
    // SAFETY: the request reads one 64-bit number, which outlives the call.
    unsafe { ioctl::ext4_resize_fs(directory.as_fd().as_raw_fd(), &raw const blocks) }.map(drop)
}
