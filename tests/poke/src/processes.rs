//! Other processes.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

use crate::arguments::Arguments;
use crate::failure::{Failure, Named, Result};
use crate::kernel::{self, NULL, Plain, call, plain};

/// <linux/fcntl.h>
const F_SETSIG: i32 = 10;

/// `trace PID [seize]`: attaches to a process and detaches again; with `seize`, by PTRACE_SEIZE.
pub fn trace(arguments: &Arguments) -> Result {
    let process = arguments.small_number(0)?;
    let (request, name) = match arguments.optional(1) {
        Some(_) => (libc::PTRACE_SEIZE, "PTRACE_SEIZE"),
        None => (libc::PTRACE_ATTACH, "PTRACE_ATTACH"),
    };
    // SAFETY: takes no addresses.
    kernel::checked(unsafe { libc::ptrace(request, process, 0, 0) }).named(name)?;
    if request == libc::PTRACE_ATTACH {
        let _ = kernel::wait(process, libc::__WALL);
        // SAFETY: takes no addresses.
        unsafe { libc::ptrace(libc::PTRACE_DETACH, process, 0, 0) };
    }
    Ok(())
}

/// The last eight bytes of a process's stack, which are always zero.
fn end_of_stack(process: i32) -> Result<u64> {
    let maps = std::fs::read(format!("/proc/{process}/maps")).named("the memory map")?;
    let maps = String::from_utf8_lossy(&maps);
    let end = maps
        .lines()
        .find(|line| line.ends_with("[stack]"))
        .and_then(|line| line.split([' ', '-']).nth(1))
        .and_then(|end| u64::from_str_radix(end, 16).ok());
    match end {
        Some(end) => Ok(end - 8),
        None => Err(Failure::NoEffect(
            "the memory map shows no stack".to_owned(),
        )),
    }
}

/// `vm-write PID`: writes the end of its stack with the bytes that are there, by
/// process_vm_writev.
pub fn write_by_vm_writev(arguments: &Arguments) -> Result {
    let process = arguments.small_number(0)?;
    let to = libc::iovec {
        iov_base: std::ptr::with_exposed_provenance_mut(end_of_stack(process)? as usize),
        iov_len: 8,
    };
    let zero = [0u8; 8];
    let from = libc::iovec {
        iov_base: zero.as_ptr().cast_mut().cast(),
        iov_len: 8,
    };
    // SAFETY: writes to the other process's memory only.
    let written = unsafe { libc::process_vm_writev(process, &from, 1, &to, 1, 0) };
    kernel::checked(written as i64)
        .named("process_vm_writev")
        .map(drop)
}

/// `mem-write PID`: the same through /proc/PID/mem.
pub fn write_by_proc(arguments: &Arguments) -> Result {
    let process = arguments.small_number(0)?;
    let at = end_of_stack(process)?;
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(format!("/proc/{process}/mem"))
        .named("open")?
        .write_all_at(&[0; 8], at)
        .named("write")
}

fn open_process(arguments: &Arguments) -> Result<OwnedFd> {
    kernel::owned(call!(PidfdOpen, arguments.small_number(0)?, 0)).named("pidfd_open")
}

/// `steal PID FD`: copies a descriptor of another process.
pub fn take_descriptor(arguments: &Arguments) -> Result {
    let process = open_process(arguments)?;
    call!(PidfdGetfd, &process, arguments.small_number(1)?, 0)
        .named("pidfd_getfd")
        .map(drop)
}

/// `signal PID SIGNAL`: sends a signal by pidfd_send_signal.
pub fn send_signal(arguments: &Arguments) -> Result {
    let process = open_process(arguments)?;
    let signal = arguments.small_number(1)?;
    call!(PidfdSendSignal, &process, signal, NULL, 0)
        .named("pidfd_send_signal")
        .map(drop)
}

plain! {
    /// The kernel's `struct rlimit64`.
    struct Rlimit64 {
        rlim_cur: u64,
        rlim_max: u64,
    }
}

/// `sigio PID SIGNAL`: lets a pipe send the signal when it has something to read.
pub fn signal_by_descriptor(arguments: &Arguments) -> Result {
    let (process, signal) = (arguments.small_number(0)?, arguments.small_number(1)?);
    let (reader, mut writer) = std::io::pipe().named("pipe")?;
    let descriptor = reader.as_raw_fd();
    for (request, value, name) in [
        (libc::F_SETOWN, process, "F_SETOWN"),
        (F_SETSIG, signal, "F_SETSIG"),
        (libc::F_SETFL, libc::O_ASYNC | libc::O_NONBLOCK, "O_ASYNC"),
    ] {
        // SAFETY: these requests take a number.
        let set = unsafe { libc::fcntl(descriptor, request, value) };
        kernel::checked(set.into()).named(name)?;
    }
    writer.write_all(b"x").named("write")
}

/// `limit PID SECONDS`: ends its processor time after so many seconds, by prlimit.
pub fn limit_processor_time(arguments: &Arguments) -> Result {
    let seconds = arguments.number(1)?;
    let limit = Rlimit64 {
        rlim_cur: seconds,
        rlim_max: seconds,
    };
    call!(
        Prlimit64,
        arguments.small_number(0)?,
        libc::RLIMIT_CPU,
        limit.bytes(),
        NULL
    )
    .named("prlimit")
    .map(drop)
}
