//! The kernel's key retention service: how the device-mapper gets a signature (keyrings(7)).

use std::ffi::CString;
use std::io;

use nix::libc;

/// Puts bytes, as a key of type `user` and with this name, into the keyring that only this thread
/// has.
pub fn add(name: &str, bytes: &[u8]) -> io::Result<()> {
    let name = CString::new(name)?;
    // SAFETY: the kernel reads two strings that end with NUL and `len` bytes of a payload, all of
    // which outlive the call.
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
