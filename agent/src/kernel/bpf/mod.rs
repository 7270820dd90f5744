//! The commands of the bpf() system call that the guard needs: for maps and for programs. Numbers
//! and structures: <linux/bpf.h>, with its field names.

mod map;
mod program;

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::libc;
use zerocopy::{FromBytes, IntoBytes};

pub use self::map::{ProgramAccess, ValueMap, create_ring, open_ring};
pub use self::program::{attach, load_lsm_program, pin};

/// Bytes of names, with a NUL at the end.
const BPF_OBJ_NAME_LEN: usize = 16;

/// Calls bpf().
///
/// # Safety
///
/// Pointers in the attributes must be valid for what the command reads and writes.
unsafe fn bpf<A: FromBytes + IntoBytes>(
    command: libc::c_int,
    attributes: &mut A,
) -> io::Result<libc::c_int> {
    let length = size_of::<A>();
    // SAFETY: the kernel reads and writes at most `length` bytes of the attributes. The caller
    // vouches for pointers in them.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            (&raw mut *attributes).cast::<u8>(),
            length,
        )
    };
    if answer < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(answer as libc::c_int)
    }
}

/// Calls bpf() with a command that returns a new descriptor.
///
/// # Safety
///
/// As for [`bpf`]; and the command must be one that returns a new descriptor.
unsafe fn bpf_fd<A: FromBytes + IntoBytes>(
    command: libc::c_int,
    attributes: &mut A,
) -> io::Result<OwnedFd> {
    // SAFETY: the caller vouches for the pointers.
    let fd = unsafe { bpf(command, attributes) }?;
    // SAFETY: the command returned a new descriptor, which nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn raw(fd: BorrowedFd) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

/// A name as the kernel keeps it: at most 15 characters.
fn object_name(name: &str) -> [u8; BPF_OBJ_NAME_LEN] {
    let mut bytes = [0; BPF_OBJ_NAME_LEN];
    let length = name.len().min(BPF_OBJ_NAME_LEN - 1);
    bytes[..length].copy_from_slice(&name.as_bytes()[..length]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_is_cut_and_ends_with_a_nul() {
        assert_eq!(&object_name("adamant_denials"), b"adamant_denials\0");
        assert_eq!(&object_name("adamant_path_truncate"), b"adamant_path_tr\0");
    }
}
