//! Code for the kernel: modules, events that load them, and the next kernel.

use std::fs::File;
use std::os::unix::ffi::OsStrExt;

use crate::arguments::Arguments;
use crate::failure::{Failure, Named, Result};
use crate::kernel::{self, NULL, Plain, call, plain};

/// `module PATH`: finit_module.
pub fn load_file(arguments: &Arguments) -> Result {
    let file = File::open(arguments.path(0)?).named("open")?;
    call!(FinitModule, &file, c"", 0)
        .named("finit_module")
        .map(drop)
}

/// `module-bytes PATH`: init_module.
pub fn load_bytes(arguments: &Arguments) -> Result {
    let bytes = std::fs::read(arguments.path(0)?).named("open")?;
    call!(InitModule, &bytes[..], bytes.len(), c"")
        .named("init_module")
        .map(drop)
}

plain! {
    /// The kernel's `struct nlmsghdr`.
    struct Nlmsghdr {
        nlmsg_len: u32,
        nlmsg_type: u16,
        nlmsg_flags: u16,
        nlmsg_seq: u32,
        nlmsg_pid: u32,
    }
}

/// `uevent DEVPATH SUBSYSTEM MODALIAS`: lets the kernel send an event as if it were its own.
pub fn send_uevent(arguments: &Arguments) -> Result {
    const NLMSG_MIN_TYPE: u16 = 0x10;
    const NLM_F_REQUEST: u16 = 1;
    let (path, subsystem, alias) = (arguments.path(0)?, arguments.path(1)?, arguments.path(2)?);
    let mut text = Vec::new();
    for (key, value) in [
        ("add@", path.as_bytes()),
        ("ACTION=", b"add"),
        ("DEVPATH=", path.as_bytes()),
        ("SUBSYSTEM=", subsystem.as_bytes()),
        ("MODALIAS=", alias.as_bytes()),
    ] {
        text.extend(key.as_bytes());
        text.extend(value);
        text.push(0);
    }
    let length = size_of::<Nlmsghdr>() + text.len();
    let header = Nlmsghdr {
        nlmsg_len: u32::try_from(length).map_err(|_| Failure::Usage)?,
        nlmsg_type: NLMSG_MIN_TYPE,
        nlmsg_flags: NLM_F_REQUEST,
        ..Nlmsghdr::ZERO
    };
    let message = [header.bytes(), &text].concat();
    // SAFETY: takes numbers.
    let socket = unsafe {
        libc::socket(
            libc::AF_NETLINK,
            libc::SOCK_RAW,
            libc::NETLINK_KOBJECT_UEVENT,
        )
    };
    kernel::checked(socket.into()).named("socket")?;
    // SAFETY: an address of zeros but for its family is the kernel's.
    let mut kernel_address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
    kernel_address.nl_family = libc::AF_NETLINK as u16;
    // SAFETY: the message and the address live until the end of the call.
    let sent = unsafe {
        libc::sendto(
            socket,
            message.as_ptr().cast(),
            message.len(),
            0,
            std::ptr::from_ref(&kernel_address).cast(),
            size_of::<libc::sockaddr_nl>() as u32,
        )
    };
    kernel::checked(sent as i64).named("sendto").map(drop)
}

/// `kexec-file PATH`: loads a kernel to be started next, and unloads it again.
pub fn kexec_file(arguments: &Arguments) -> Result {
    const KEXEC_FILE_UNLOAD: u32 = 1;
    const KEXEC_FILE_NO_INITRAMFS: u32 = 4;
    let file = File::open(arguments.path(0)?).named("open")?;
    call!(KexecFileLoad, &file, -1, 1, c"", KEXEC_FILE_NO_INITRAMFS).named("kexec_file_load")?;
    let _ = call!(KexecFileLoad, -1, -1, 0, NULL, KEXEC_FILE_UNLOAD);
    Ok(())
}

plain! {
    /// The kernel's `struct kexec_segment`.
    struct KexecSegment {
        buf: u64,
        bufsz: u64,
        mem: u64,
        memsz: u64,
    }
}

/// `kexec`: loads a page of zeros to be started next, by the older call.
pub fn kexec_segment(_: &Arguments) -> Result {
    const KEXEC_ARCH_X86_64: u64 = 62 << 16;
    const ADDRESS: u64 = 0x100_0000;
    const PAGE: usize = 4096;
    let page = [0u8; PAGE];
    let segment = KexecSegment {
        buf: kernel::address(&page),
        bufsz: PAGE as u64,
        mem: ADDRESS,
        memsz: PAGE as u64,
    };
    // SAFETY: the kernel reads the segment and the page.
    let loaded = unsafe {
        libc::syscall(
            libc::SYS_kexec_load,
            ADDRESS,
            1,
            std::ptr::from_ref(&segment),
            KEXEC_ARCH_X86_64,
        )
    };
    kernel::checked(loaded).named("kexec_load")?;
    // SAFETY: unloads it; takes no segments.
    unsafe { libc::syscall(libc::SYS_kexec_load, 0, 0, NULL, KEXEC_ARCH_X86_64) };
    Ok(())
}
