//! The kernel's key retention service, from which device-mapper takes a signature (keyrings(7)).

use std::ffi::CString;
use std::io;

use nix::libc;

/// Adds a key of type `user` to the keyring of this thread.
pub fn add_key(name: &str, bytes: &[u8]) -> io::Result<()> {
    let name = CString::new(name)?;
    // SAFETY: the kernel reads two strings that end with a NUL, and a payload of the given length.
    // All three outlive the call.
    let key = unsafe {
        libc::syscall(
            libc::SYS_add_key,
            c"user".as_ptr(),
            name.as_ptr(),
            bytes.as_ptr(),
            bytes.len(),
            libc::KEY_SPEC_THREAD_KEYRING,
        )
    };
    if key < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
