//! This process and its children: descriptors, signals, priority, the switch of a child's root.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

// <linux/ioprio.h>
const IOPRIO_WHO_PROCESS: libc::c_int = 1;
const IOPRIO_CLASS_IDLE: libc::c_int = 3 << 13;

/// Marks all descriptors but the standard ones to be closed by exec.
pub fn close_other_descriptors_on_exec() {
    // SAFETY: the call takes numbers only. It marks descriptors and closes none.
    unsafe {
        libc::close_range(
            3,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC as libc::c_int,
        )
    };
}

/// Gives all signals their default disposition, and blocks none.
pub fn reset_signals() {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    for signal in Signal::iterator() {
        // SAFETY: the default disposition calls no handler.
        let _ = unsafe { sigaction(signal, &default) };
    }
    let _ = SigSet::empty().thread_set_mask();
}

/// Gives this process the processors and the disk only when no other process wants them. If the
/// kernel refuses, nothing changes.
pub fn lower_priority_to_idle() {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the call takes numbers only.
    unsafe {
        libc::syscall(
            libc::SYS_ioprio_set,
            IOPRIO_WHO_PROCESS,
            0,
            IOPRIO_CLASS_IDLE,
        )
    };
    // SAFETY: the kernel reads a structure that outlives the call.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const parameters) };
}

/// Lets `command` run with `root` as its root directory, in a mount namespace of its own with the
/// initramfs' /dev and /proc. Its standard error goes where its standard output goes. It inherits
/// `inherited`, under the same number.
pub fn run_in_root(command: &mut Command, root: &Path, inherited: OwnedFd) {
    let (root, dev, proc) = (root.to_owned(), root.join("dev"), root.join("proc"));
    let enter = move || {
        nix::unistd::dup2_stderr(io::stdout())?;
        fcntl(&inherited, FcntlArg::F_SETFD(FdFlag::empty()))?;
        unshare(CloneFlags::CLONE_NEWNS)?;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>)?;
        for (from, to) in [("/dev", &dev), ("/proc", &proc)] {
            mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
        }
        nix::unistd::chroot(&root)?;
        nix::unistd::chdir("/")?;
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes system calls only. Its paths were allocated
    // before, and nix copies paths of this length to the stack.
    unsafe { command.pre_exec(enter) };
}

/// How a machine ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MachineEnd {
    /// It restarts.
    Restart,
    /// It is switched off.
    PowerOff,
}

/// Restarts the machine or switches it off at once, without stopping anything. Returns only on
/// failure.
pub fn end_machine(end: MachineEnd) -> io::Error {
    let how = match end {
        MachineEnd::Restart => libc::RB_AUTOBOOT,
        MachineEnd::PowerOff => libc::RB_POWER_OFF,
    };
    // SAFETY: the call takes a number only.
    unsafe { libc::reboot(how) };
    io::Error::last_os_error()
}

/// Fills an array with random bytes from the kernel.
pub fn random_bytes<const LENGTH: usize>() -> io::Result<[u8; LENGTH]> {
    let mut bytes = [0u8; LENGTH];
    // SAFETY: the kernel writes at most the length given.
    let length = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    match usize::try_from(length) {
        Ok(length) if length == LENGTH => Ok(bytes),
        Ok(_) => Err(io::ErrorKind::UnexpectedEof.into()),
        Err(_) => Err(io::Error::last_os_error()),
    }
}
