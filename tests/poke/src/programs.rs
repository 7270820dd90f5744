//! Programs: the attacker's own, and ways to execute it.

use std::ffi::{CString, OsStr};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;

use crate::arguments::Arguments;
use crate::failure::{Failure, Named, Result};
use crate::kernel::{self, Plain, call, plain};

/// `hello`: prints a line that shows that the attacker's program ran, and its user.
pub fn hello(_: &Arguments) -> Result {
    // SAFETY: these calls have no arguments and always work.
    let (user, effective) = unsafe { (libc::getuid(), libc::geteuid()) };
    let _ = writeln!(io::stdout(), "evil program ran uid={user} euid={effective}");
    Ok(())
}

/// Copies a program to an open file.
fn copy(program: &OsStr, to: &mut File) -> Result {
    let copied = File::open(program).and_then(|mut from| io::copy(&mut from, to));
    copied.named("copy").map(drop)
}

/// Executes an open file with the arguments NAME and `hello`. Returns only if that fails.
fn execute(file: &OwnedFd, name: &str) -> Result {
    let name = CString::new(name).map_err(|_| Failure::Usage)?;
    let arguments = [name.as_ptr(), c"hello".as_ptr(), std::ptr::null()];
    let environment = [std::ptr::null::<libc::c_char>()];
    // SAFETY: the path is empty, and both lists end with a null pointer.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_raw_fd(),
            c"".as_ptr(),
            arguments.as_ptr(),
            environment.as_ptr(),
            libc::AT_EMPTY_PATH,
        );
    }
    Err(Failure::last("execveat"))
}

/// `memfd PROGRAM`: executes a copy of it that is in memory only.
pub fn execute_memfd(arguments: &Arguments) -> Result {
    const MFD_EXEC: u32 = 0x10;
    // Linux before 6.3 does not know MFD_EXEC.
    let file = call!(MemfdCreate, c"x", MFD_EXEC).or_else(|_| call!(MemfdCreate, c"x", 0));
    let mut file = File::from(kernel::owned(file).named("memfd_create")?);
    copy(arguments.path(0)?, &mut file)?;
    execute(&file.into(), "memfd")
}

/// `tmpfile DIRECTORY PROGRAM`: executes a copy without a name, O_TMPFILE.
pub fn execute_unnamed_file(arguments: &Arguments) -> Result {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .mode(0o755)
        .custom_flags(libc::O_TMPFILE)
        .open(arguments.path(0)?)
        .named("O_TMPFILE")?;
    copy(arguments.path(1)?, &mut file)?;
    // A file that is open for writing can't be executed.
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let again = File::open(path).named("open again")?;
    drop(file);
    execute(&again.into(), "tmpfile")
}

plain! {
    /// The kernel's `struct clone_args`.
    struct CloneArgs {
        flags: u64,
        pidfd: u64,
        child_tid: u64,
        parent_tid: u64,
        exit_signal: u64,
        stack: u64,
        stack_size: u64,
        tls: u64,
        set_tid: u64,
        set_tid_size: u64,
        cgroup: u64,
    }
}

/// `into CGROUP PROGRAM...`: runs a program as a new process of that cgroup.
pub fn execute_in_cgroup(arguments: &Arguments) -> Result {
    const CLONE_INTO_CGROUP: u64 = 1 << 33;
    let cgroup =
        kernel::open(&arguments.c_string(0)?, libc::O_PATH | libc::O_DIRECTORY).named("open")?;
    let program: Vec<CString> = (arguments.from(1).iter())
        .filter_map(|word| CString::new(word.as_bytes()).ok())
        .collect();
    let mut words: Vec<_> = program.iter().map(|word| word.as_ptr()).collect();
    words.push(std::ptr::null());
    let clone = CloneArgs {
        flags: CLONE_INTO_CGROUP,
        exit_signal: libc::SIGCHLD as u64,
        cgroup: cgroup.as_raw_fd() as u64,
        ..CloneArgs::ZERO
    };
    // SAFETY: without a stack and flags that share memory, the child is a copy, as by fork(2).
    let child = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            std::ptr::from_ref(&clone),
            size_of::<CloneArgs>(),
        )
    };
    let child = kernel::checked(child).named("clone3")?;
    if child == 0 {
        // SAFETY: the list holds strings and ends with a null pointer.
        unsafe { libc::execv(words[0], words.as_ptr()) };
        kernel::exit_child(Failure::last("exec").report_code());
    }
    let child = i32::try_from(child).map_err(|_| Failure::Usage)?;
    match kernel::exit_code(kernel::wait(child, 0).named("waitpid")?) {
        0 => Ok(()),
        code => Err(Failure::Child(code)),
    }
}
