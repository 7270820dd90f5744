//! Extended attributes (xattr(7)). Each function writes to the caller's buffer and returns the
//! number of bytes.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::libc;

/// Lists the names of an open file's attributes, each with a NUL at its end.
pub fn list(file: BorrowedFd, names: &mut [u8]) -> nix::Result<usize> {
    // SAFETY: the kernel writes at most the buffer's length.
    let length =
        unsafe { libc::flistxattr(file.as_raw_fd(), names.as_mut_ptr().cast(), names.len()) };
    Ok(Errno::result(length)? as usize)
}

/// Reads an attribute of an open file.
pub fn get(file: BorrowedFd, name: &CStr, value: &mut [u8]) -> nix::Result<usize> {
    // SAFETY: the name ends with a NUL, and the kernel writes at most the buffer's length.
    let length = unsafe {
        libc::fgetxattr(
            file.as_raw_fd(),
            name.as_ptr(),
            value.as_mut_ptr().cast(),
            value.len(),
        )
    };
    Ok(Errno::result(length)? as usize)
}

/// Lists the names of the attributes at a path, whose last symbolic link is not followed.
pub fn list_at_path(path: &CStr, names: &mut [u8]) -> nix::Result<usize> {
    // SAFETY: the path ends with a NUL, and the kernel writes at most the buffer's length.
    let length = unsafe { libc::llistxattr(path.as_ptr(), names.as_mut_ptr().cast(), names.len()) };
    Ok(Errno::result(length)? as usize)
}

/// Reads an attribute at a path, whose last symbolic link is not followed.
pub fn get_at_path(path: &CStr, name: &CStr, value: &mut [u8]) -> nix::Result<usize> {
    // SAFETY: both strings end with a NUL, and the kernel writes at most the buffer's length.
    let length = unsafe {
        libc::lgetxattr(
            path.as_ptr(),
            name.as_ptr(),
            value.as_mut_ptr().cast(),
            value.len(),
        )
    };
    Ok(Errno::result(length)? as usize)
}

/// Sets an attribute at a path, whose last symbolic link is not followed.
pub fn set_at_path(path: &CStr, name: &CStr, value: &[u8]) -> nix::Result<()> {
    // SAFETY: both strings end with a NUL, and the kernel reads the value's length.
    let set = unsafe {
        libc::lsetxattr(
            path.as_ptr(),
            name.as_ptr(),
            value.as_ptr().cast(),
            value.len(),
            0,
        )
    };
    Errno::result(set).map(drop)
}
