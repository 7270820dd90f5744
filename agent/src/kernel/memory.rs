//! Memory mappings.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr::{self, NonNull};

use nix::errno::Errno;
use nix::libc;

/// Bytes of a page on the machines that the agent runs on.
pub const PAGE: usize = 4096;

/// Whether a shared mapping can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// It can only be read.
    Read,
    /// It can be read and written.
    ReadWrite,
}

/// A shared mapping of a file or map, unmapped when it is dropped.
pub struct SharedMapping {
    start: NonNull<u8>,
    length: usize,
}

impl SharedMapping {
    /// Maps `length` bytes from `offset` on.
    pub fn new(
        file: impl AsFd,
        length: usize,
        access: Access,
        offset: usize,
    ) -> io::Result<SharedMapping> {
        let protection = match access {
            Access::Read => libc::PROT_READ,
            Access::ReadWrite => libc::PROT_READ | libc::PROT_WRITE,
        };
        let offset = libc::off_t::try_from(offset).map_err(io::Error::other)?;
        // SAFETY: a new mapping at an address that the kernel chooses: no memory in use changes.
        let mapped = unsafe {
            libc::mmap(
                ptr::null_mut(),
                length,
                protection,
                libc::MAP_SHARED,
                file.as_fd().as_raw_fd(),
                offset,
            )
        };
        if mapped == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(mapped.cast::<u8>()).ok_or(io::ErrorKind::Other)?;
        Ok(SharedMapping { start, length })
    }

    /// The first byte. The mapping is aligned to pages.
    pub(super) fn start(&self) -> NonNull<u8> {
        self.start
    }
}

impl Drop for SharedMapping {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new` with this length, and references into it cannot
        // outlive this value: `start` is used in this module's parent only, behind `&self`.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

/// Tries to map anonymous memory that can be executed. The guard refuses that with EPERM.
pub fn try_executable_memory() -> nix::Result<()> {
    // SAFETY: a new mapping at an address that the kernel chooses: no memory in use changes.
    let mapped = unsafe {
        libc::mmap(
            ptr::null_mut(),
            PAGE,
            libc::PROT_READ | libc::PROT_EXEC,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if mapped == libc::MAP_FAILED {
        return Err(Errno::last());
    }
    // SAFETY: the mapping is the one above, and nothing refers to it.
    unsafe { libc::munmap(mapped, PAGE) };
    Ok(())
}
