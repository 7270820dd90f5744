//! System calls. The calls of [`Call`] take only numbers, descriptors, strings and buffers, and are
//! safe. Calls that change this process's memory, or whose buffers hold addresses, are `unsafe`.

use std::ffi::{CStr, CString, c_int, c_long};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// A system call that reads and writes no memory except the buffers in its arguments.
#[derive(Clone, Copy)]
#[repr(i64)]
pub enum Call {
    Fsconfig = libc::SYS_fsconfig,
    Fsmount = libc::SYS_fsmount,
    Fsopen = libc::SYS_fsopen,
    Fspick = libc::SYS_fspick,
    FinitModule = libc::SYS_finit_module,
    InitModule = libc::SYS_init_module,
    IoUringEnter = libc::SYS_io_uring_enter,
    IoUringSetup = libc::SYS_io_uring_setup,
    KexecFileLoad = libc::SYS_kexec_file_load,
    MemfdCreate = libc::SYS_memfd_create,
    MemfdSecret = libc::SYS_memfd_secret,
    MountSetattr = libc::SYS_mount_setattr,
    MoveMount = libc::SYS_move_mount,
    NameToHandleAt = libc::SYS_name_to_handle_at,
    OpenByHandleAt = libc::SYS_open_by_handle_at,
    OpenTree = libc::SYS_open_tree,
    PerfEventOpen = libc::SYS_perf_event_open,
    PidfdGetfd = libc::SYS_pidfd_getfd,
    PidfdOpen = libc::SYS_pidfd_open,
    PidfdSendSignal = libc::SYS_pidfd_send_signal,
    PivotRoot = libc::SYS_pivot_root,
    Prlimit64 = libc::SYS_prlimit64,
    Renameat2 = libc::SYS_renameat2,
    Swapoff = libc::SYS_swapoff,
    Swapon = libc::SYS_swapon,
    Umount2 = libc::SYS_umount2,
    Userfaultfd = libc::SYS_userfaultfd,
}

/// An argument of a [`Call`].
pub enum Argument<'a> {
    /// A number, or a null pointer.
    Number(i64),
    /// A string.
    Text(&'a CStr),
    /// Bytes that the kernel reads.
    Input(&'a [u8]),
    /// Bytes that the kernel writes.
    Output(&'a mut [u8]),
}

/// The null pointer of an optional argument.
pub const NULL: i64 = 0;

macro_rules! argument {
    ($($from:ty => $value:ident: $argument:expr;)*) => {
        $(impl<'a> From<$from> for Argument<'a> {
            fn from($value: $from) -> Self {
                $argument
            }
        })*
    };
}

argument! {
    i64 => number: Argument::Number(number);
    i32 => number: Argument::Number(number.into());
    u32 => number: Argument::Number(number.into());
    u64 => number: Argument::Number(number.cast_signed());
    usize => number: Argument::Number((number as u64).cast_signed());
    &'a CStr => text: Argument::Text(text);
    &'a CString => text: Argument::Text(text);
    &OwnedFd => descriptor: Argument::Number(descriptor.as_raw_fd().into());
    &File => file: Argument::Number(file.as_raw_fd().into());
    &'a [u8] => bytes: Argument::Input(bytes);
    &'a mut [u8] => bytes: Argument::Output(bytes);
}

/// Makes a system call with up to six arguments.
pub fn make_call(call: Call, arguments: &mut [Argument]) -> io::Result<c_long> {
    let mut words = [0; 6];
    for (word, argument) in words.iter_mut().zip(arguments) {
        *word = match argument {
            Argument::Number(number) => *number,
            Argument::Text(text) => text.as_ptr() as c_long,
            Argument::Input(bytes) => bytes.as_ptr() as c_long,
            Argument::Output(bytes) => bytes.as_mut_ptr() as c_long,
        };
    }
    let [a, b, c, d, e, f] = words;
    // SAFETY: these calls use no memory but the buffers, which the arguments borrow until the end.
    checked(unsafe { libc::syscall(call as c_long, a, b, c, d, e, f) })
}

/// `call!(Umount2, path, flags)`: makes a [`Call`].
macro_rules! call {
    ($call:ident $(, $argument:expr)* $(,)?) => {
        $crate::kernel::make_call(
            $crate::kernel::Call::$call,
            &mut [$($crate::kernel::Argument::from($argument)),*],
        )
    };
}
pub(crate) use call;

/// The result of a system call, or its error.
pub fn checked(result: c_long) -> io::Result<c_long> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// The descriptor that a call has returned.
pub fn owned(result: io::Result<c_long>) -> io::Result<OwnedFd> {
    let number = c_int::try_from(result?).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
    // SAFETY: the kernel has just opened this descriptor for the caller.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Opens a file with exactly these flags.
pub fn open(path: &CStr, flags: c_int) -> io::Result<OwnedFd> {
    // SAFETY: the path is a string that lives until the end of the call.
    owned(checked(
        unsafe { libc::open(path.as_ptr(), flags, 0o755) }.into(),
    ))
}

/// Makes an ioctl.
///
/// # Safety
/// `argument` is what the request takes: a number, or the address of a structure of its type. All
/// addresses in that structure are of buffers of the length that it names.
pub unsafe fn ioctl(descriptor: &OwnedFd, request: u64, argument: u64) -> io::Result<c_long> {
    // SAFETY: as the caller promises.
    checked(unsafe { libc::ioctl(descriptor.as_raw_fd(), request, argument) }.into())
}

/// A structure of the kernel's interface: it has no padding, and every value of its bytes is valid.
///
/// # Safety
/// As above.
pub unsafe trait Plain: Sized {
    /// The structure with all bytes zero.
    const ZERO: Self;

    /// The structure's bytes.
    fn bytes(&self) -> &[u8] {
        // SAFETY: the value has this length, and no padding.
        unsafe { std::slice::from_raw_parts(std::ptr::from_ref(self).cast(), size_of_val(self)) }
    }

    /// The structure's bytes, for the kernel to write.
    fn bytes_mut(&mut self) -> &mut [u8] {
        let length = size_of_val(self);
        // SAFETY: the value has this length and no padding, and any bytes are a valid value.
        unsafe { std::slice::from_raw_parts_mut(std::ptr::from_mut(self).cast(), length) }
    }
}

/// `plain! { struct Name { field: type, ... } }`: a `repr(C)` structure that is [`Plain`]. Its
/// fields are integers, arrays of them, and other such structures.
macro_rules! plain {
    ($($(#[$attribute:meta])* struct $name:ident { $($field:ident: $type:ty,)* })*) => {
        $(
            $(#[$attribute])*
            #[derive(Clone, Copy)]
            #[repr(C)]
            pub(crate) struct $name {
                $(pub(crate) $field: $type,)*
            }

            const _: () = {
                let fields = 0 $(+ size_of::<$type>())*;
                assert!(size_of::<$name>() == fields, "the structure has padding");
            };

            // SAFETY: the fields are integers, and there is no padding, as the assertion checks.
            unsafe impl $crate::kernel::Plain for $name {
                // SAFETY: the fields are integers, for which zero is valid.
                const ZERO: $name = unsafe { std::mem::zeroed() };
            }
        )*
    };
}
pub(crate) use plain;

/// A structure's address, as the kernel's structures hold it.
pub fn address<T: ?Sized>(value: &T) -> u64 {
    std::ptr::from_ref(value).cast::<u8>().expose_provenance() as u64
}

/// The address of a structure that the kernel writes to.
pub fn address_mut<T: ?Sized>(value: &mut T) -> u64 {
    std::ptr::from_mut(value).cast::<u8>().expose_provenance() as u64
}

/// Creates a child process as a copy of this one; returns 0 in the child.
pub fn fork() -> io::Result<i32> {
    // SAFETY: this program has one thread.
    let child = unsafe { libc::fork() };
    checked(child.into()).map(|_| child)
}

/// Ends a child process without this process's exit handlers.
pub fn exit_child(code: u8) -> ! {
    // SAFETY: _exit takes any number.
    unsafe { libc::_exit(code.into()) }
}

/// Waits for a change of a child process and returns its status.
pub fn wait(child: i32, flags: c_int) -> io::Result<c_int> {
    let mut status = 0;
    // SAFETY: the status is a number that lives until the end of the call.
    checked(unsafe { libc::waitpid(child, &mut status, flags) }.into()).map(|_| status)
}

/// The exit code in a status of [`wait`]; 1 if a signal ended or stopped the child.
pub fn exit_code(status: c_int) -> u8 {
    if libc::WIFEXITED(status) {
        u8::try_from(libc::WEXITSTATUS(status)).unwrap_or(1)
    } else {
        1
    }
}

/// Gives the signal of broken pipes its default action again, which Rust's start code changes.
/// Programs that this one starts would inherit the change.
pub fn restore_broken_pipe_signal() {
    // SAFETY: the default action is no function of this program.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}
