//! Code that the attacker wrote into memory, and ways to make it executable.

use std::ffi::{CStr, c_int, c_void};
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::ptr::null_mut;

use crate::arguments::Arguments;
use crate::failure::{Failure, Named, Result};
use crate::kernel::{self, Plain, call, plain};

/// x86-64 code: `mov eax, 42; ret`.
const CODE: [u8; 6] = [0xb8, 42, 0, 0, 0, 0xc3];
/// What the code returns.
const ANSWER: c_int = 42;
const PAGE: usize = 4096;

const READ: c_int = libc::PROT_READ;
const WRITE: c_int = libc::PROT_READ | libc::PROT_WRITE;
const EXECUTE: c_int = libc::PROT_READ | libc::PROT_EXEC;
const ALL: c_int = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
const PRIVATE: c_int = libc::MAP_PRIVATE;
const ANONYMOUS: c_int = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
const SHARED: c_int = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
/// Descriptor of a mapping without a file.
const NO_FILE: c_int = -1;

/// A way to execute memory without a file.
type Technique = fn() -> Result;
/// A way to execute memory with a file, which is open for reading.
type FileTechnique = fn(c_int) -> Result;

const TECHNIQUES: &[(&str, Technique)] = &[
    ("anonymous", || execute_mapping(ALL, ANONYMOUS, NO_FILE)),
    ("shared", || execute_mapping(ALL, SHARED, NO_FILE)),
    ("mprotect", mprotect_anonymous),
    ("pkey", pkey_mprotect),
    ("heap", mprotect_heap),
    ("stack", || mprotect_stack(0)),
    // PROT_GROWSDOWN reaches to the beginning of the area.
    ("grow-stack", || mprotect_stack(libc::PROT_GROWSDOWN)),
    ("memfd", map_memfd),
    ("memfd-secret", map_memfd_secret),
    ("huge", map_huge_page),
    ("shm", attach_shared_memory),
    ("personality", map_with_personality),
    ("brk", grow_heap_with_personality),
    ("remap", remap_file_pages),
    ("uffd", fill_by_userfaultfd),
];

const FILE_TECHNIQUES: &[(&str, FileTechnique)] = &[
    ("map", map_file),
    ("map-later", mprotect_file),
    ("private", mprotect_written_page),
    ("private-rwx", |file| execute_mapping(ALL, PRIVATE, file)),
    ("fork", mprotect_in_child),
    ("mremap", move_written_page),
    ("self", write_by_proc_self_mem),
    ("writev", write_by_vm_writev),
    ("ptrace", write_by_debugger),
];

/// `memory TECHNIQUE [FILE]`: executes code that this process wrote, or the code in FILE.
pub fn execute(arguments: &Arguments) -> Result {
    let name = arguments.text(0);
    if let Some((_, technique)) = TECHNIQUES.iter().find(|(known, _)| *known == name) {
        return technique();
    }
    let technique = FILE_TECHNIQUES.iter().find(|(known, _)| *known == name);
    let (_, technique) = technique.ok_or(Failure::Usage)?;
    let file = kernel::open(&arguments.c_string(1)?, libc::O_RDONLY).named("open")?;
    technique(file.as_raw_fd())
}

/// Maps memory at an address that the kernel chooses.
pub fn map(
    length: usize,
    access: c_int,
    flags: c_int,
    file: c_int,
    offset: i64,
) -> io::Result<*mut u8> {
    // SAFETY: without MAP_FIXED, the kernel chooses an address that is not in use.
    let at = unsafe { libc::mmap(null_mut(), length, access, flags, file, offset) };
    if at == libc::MAP_FAILED {
        Err(io::Error::last_os_error())
    } else {
        Ok(at.cast())
    }
}

fn map_page(access: c_int, flags: c_int, file: c_int) -> Result<*mut u8> {
    map(PAGE, access, flags, file, 0).named("mmap")
}

/// Changes the access to memory that this module has mapped, or to a page of the heap or stack,
/// which stays readable and writable.
fn protect(at: *mut u8, length: usize, access: c_int) -> Result {
    // SAFETY: as above, no Rust value loses the access that it needs.
    kernel::checked(unsafe { libc::mprotect(at.cast(), length, access) }.into())
        .named("mprotect")
        .map(drop)
}

/// Copies the code to writable memory that this module has mapped.
fn write_code(at: *mut u8) {
    // SAFETY: callers pass the start of at least a page that is mapped for writing.
    unsafe { std::ptr::copy_nonoverlapping(CODE.as_ptr(), at, CODE.len()) };
}

/// Calls the code at this address. If the memory is not executable, a signal ends this process.
fn call_code(at: *const u8) -> Result {
    // SAFETY: the address holds `CODE`, a function of this type, or the process gets a signal.
    let answer = unsafe {
        let code: extern "C" fn() -> c_int = std::mem::transmute(at);
        code()
    };
    let _ = writeln!(io::stdout(), "code ran: {answer}");
    if answer == ANSWER {
        Ok(())
    } else {
        Err(Failure::NoEffect("it returned another number".to_owned()))
    }
}

fn write_and_call(at: *mut u8) -> Result {
    write_code(at);
    call_code(at)
}

/// Maps a page that is writable and executable at once.
fn execute_mapping(access: c_int, flags: c_int, file: c_int) -> Result {
    write_and_call(map_page(access, flags, file)?)
}

fn mprotect_anonymous() -> Result {
    let at = map_page(WRITE, ANONYMOUS, NO_FILE)?;
    write_code(at);
    protect(at, PAGE, EXECUTE)?;
    call_code(at)
}

fn pkey_mprotect() -> Result {
    const NO_KEY: c_int = -1;
    let at = map_page(WRITE, ANONYMOUS, NO_FILE)?;
    write_code(at);
    // SAFETY: this page belongs to this function.
    let result = unsafe { libc::syscall(libc::SYS_pkey_mprotect, at, PAGE, EXECUTE, NO_KEY) };
    kernel::checked(result).named("mprotect")?;
    call_code(at)
}

/// The start of the page of an address.
fn page_of(at: *mut u8) -> *mut u8 {
    at.map_addr(|address| address & !(PAGE - 1))
}

fn mprotect_heap() -> Result {
    // SAFETY: malloc takes any length.
    let at: *mut u8 = unsafe { libc::malloc(PAGE) }.cast();
    if at.is_null() {
        return Err(Failure::last("malloc"));
    }
    write_code(at);
    protect(page_of(at), PAGE, ALL)?;
    call_code(at)
}

/// Memory on the stack that does not cross a page's end.
#[repr(C, align(64))]
struct Local([u8; 64]);

fn mprotect_stack(flags: c_int) -> Result {
    let mut local = Local([0; 64]);
    let at = std::hint::black_box(local.0.as_mut_ptr());
    write_code(at);
    protect(page_of(at), PAGE, ALL | flags)?;
    call_code(at)
}

/// Name of files in memory.
const NAME: &CStr = c"x";

fn map_memfd() -> Result {
    let file = kernel::owned(call!(MemfdCreate, NAME, 0)).named("memfd_create")?;
    let file = std::fs::File::from(file);
    file.write_all_at(&CODE, 0).named("write")?;
    call_code(map_page(EXECUTE, PRIVATE, file.as_raw_fd())?)
}

fn map_memfd_secret() -> Result {
    let file = kernel::owned(call!(MemfdSecret, 0)).named("memfd_secret")?;
    let file = std::fs::File::from(file);
    file.set_len(PAGE as u64).named("ftruncate")?;
    let at = map_page(WRITE, libc::MAP_SHARED, file.as_raw_fd())?;
    write_code(at);
    protect(at, PAGE, EXECUTE)?;
    call_code(at)
}

fn map_huge_page() -> Result {
    const HUGE_PAGE: usize = 2 << 20;
    let flags = ANONYMOUS | libc::MAP_HUGETLB;
    write_and_call(map(HUGE_PAGE, ALL, flags, NO_FILE, 0).named("mmap")?)
}

/// System V shared memory, attached a second time as executable.
fn attach_shared_memory() -> Result {
    const SHM_EXEC: c_int = 0o100_000;
    let attach = |id, flags| {
        // SAFETY: the kernel chooses an address that is not in use.
        let at = unsafe { libc::shmat(id, std::ptr::null(), flags) };
        if at.addr() == usize::MAX {
            Err(Failure::last("shmat"))
        } else {
            Ok(at.cast::<u8>())
        }
    };
    // SAFETY: makes a new segment.
    let id = unsafe { libc::shmget(libc::IPC_PRIVATE, PAGE, libc::IPC_CREAT | 0o700) };
    kernel::checked(id.into()).named("shmget")?;
    let at = attach(id, 0).and_then(|at| {
        write_code(at);
        attach(id, SHM_EXEC)
    });
    // SAFETY: IPC_RMID takes no buffer. The segment lives until it is detached.
    unsafe { libc::shmctl(id, libc::IPC_RMID, null_mut()) };
    call_code(at?)
}

/// From now on, readable memory is executable.
fn set_personality() -> Result {
    // SAFETY: the personality is a number.
    let result = unsafe { libc::personality(libc::READ_IMPLIES_EXEC as libc::c_ulong) };
    kernel::checked(result.into())
        .named("personality")
        .map(drop)
}

fn map_with_personality() -> Result {
    set_personality()?;
    let at = map(PAGE, WRITE, ANONYMOUS, NO_FILE, 0).named("memory with READ_IMPLIES_EXEC")?;
    write_and_call(at)
}

fn grow_heap_with_personality() -> Result {
    const GROWTH: isize = 64 << 10;
    set_personality()?;
    // SAFETY: sbrk(0) changes nothing.
    let end: *mut u8 = unsafe { libc::sbrk(0) }.cast();
    // SAFETY: the heap grows by memory that nothing uses; malloc(3) allows that.
    let grown = unsafe { libc::sbrk(GROWTH) };
    if grown.addr() == usize::MAX {
        return Err(Failure::last("memory with READ_IMPLIES_EXEC"));
    }
    write_and_call(page_of(end.map_addr(|address| address + 2 * PAGE - 1)))
}

/// remap_file_pages makes a new mapping from the flags of an old one.
fn remap_file_pages() -> Result {
    let at = map(2 * PAGE, WRITE, SHARED, NO_FILE, 0).named("mmap")?;
    write_code(at);
    set_personality()?;
    // SAFETY: replaces a page of the mapping above.
    let result = unsafe { libc::syscall(libc::SYS_remap_file_pages, at, PAGE, 0, 0, 0) };
    kernel::checked(result).named("remap_file_pages")?;
    call_code(at)
}

plain! {
    /// The kernel's `struct uffdio_api`.
    struct UffdioApi {
        api: u64,
        features: u64,
        ioctls: u64,
    }

    /// The kernel's `struct uffdio_register`, with its `struct uffdio_range`.
    struct UffdioRegister {
        start: u64,
        len: u64,
        mode: u64,
        ioctls: u64,
    }

    /// The kernel's `struct uffdio_copy`.
    struct UffdioCopy {
        dst: u64,
        src: u64,
        len: u64,
        mode: u64,
        copy: i64,
    }
}

const UFFD_API: u64 = 0xaa;
const UFFDIO_API: u64 = 0xc018_aa3f;
const UFFDIO_REGISTER: u64 = 0xc020_aa00;
const UFFDIO_COPY: u64 = 0xc028_aa03;
const UFFDIO_REGISTER_MODE_MISSING: u64 = 1;

/// userfaultfd: becomes the handler of page faults in this process, also of the kernel's.
pub fn handle_faults(_: &Arguments) -> Result {
    kernel::owned(call!(Userfaultfd, libc::O_CLOEXEC))
        .map(drop)
        .named("userfaultfd")
}

/// A page that is filled after it was made executable.
fn fill_by_userfaultfd() -> Result {
    #[repr(align(4096))]
    struct Page([u8; PAGE]);

    let uffd = kernel::owned(call!(Userfaultfd, libc::O_CLOEXEC)).named("userfaultfd")?;
    let request = |request, name, structure: &mut [u8]| {
        // SAFETY: the structure is the request's. Its addresses are of pages of this function.
        unsafe { kernel::ioctl(&uffd, request, kernel::address_mut(structure)) }.named(name)
    };
    let mut api = UffdioApi {
        api: UFFD_API,
        ..UffdioApi::ZERO
    };
    request(UFFDIO_API, "UFFDIO_API", api.bytes_mut())?;
    let at = map_page(WRITE, ANONYMOUS, NO_FILE)?;
    let mut area = UffdioRegister {
        start: at.expose_provenance() as u64,
        len: PAGE as u64,
        mode: UFFDIO_REGISTER_MODE_MISSING,
        ..UffdioRegister::ZERO
    };
    request(UFFDIO_REGISTER, "UFFDIO_REGISTER", area.bytes_mut())?;
    protect(at, PAGE, EXECUTE)?;
    let mut page = Page([0; PAGE]);
    page.0[..CODE.len()].copy_from_slice(&CODE);
    let mut copy = UffdioCopy {
        dst: at.expose_provenance() as u64,
        src: kernel::address(&page),
        len: PAGE as u64,
        ..UffdioCopy::ZERO
    };
    request(UFFDIO_COPY, "UFFDIO_COPY", copy.bytes_mut())?;
    call_code(at)
}

/// A file that holds the code, executable at once.
fn map_file(file: c_int) -> Result {
    call_code(map_page(EXECUTE, PRIVATE, file)?)
}

/// A file that holds the code, executable later.
fn mprotect_file(file: c_int) -> Result {
    let at = map_page(READ, PRIVATE, file)?;
    protect(at, PAGE, EXECUTE)?;
    call_code(at)
}

/// A private page of a file, written, then executed.
fn mprotect_written_page(file: c_int) -> Result {
    let at = map_page(WRITE, PRIVATE, file)?;
    write_code(at);
    protect(at, PAGE, EXECUTE)?;
    call_code(at)
}

/// Runs a part in a child process, and ends with its exit code.
fn in_child(part: impl FnOnce() -> Result) -> Result<i32> {
    match kernel::fork().named("fork")? {
        0 => kernel::exit_child(match part() {
            Ok(()) => 0,
            Err(failure) => failure.report_code(),
        }),
        child => Ok(child),
    }
}

fn child_result(status: c_int) -> Result {
    match kernel::exit_code(status) {
        0 => Ok(()),
        code => Err(Failure::Child(code)),
    }
}

/// The parent writes the page; the child executes it, and inherits the page but not the record of
/// the write.
fn mprotect_in_child(file: c_int) -> Result {
    let at = map_page(WRITE, PRIVATE, file)?;
    write_code(at);
    let child = in_child(|| {
        protect(at, PAGE, EXECUTE)?;
        call_code(at)
    })?;
    child_result(kernel::wait(child, 0).named("waitpid")?)
}

/// A written page, moved next to a clean one.
fn move_written_page(file: c_int) -> Result {
    let two = map(2 * PAGE, READ, PRIVATE, file, 0).named("mmap")?;
    let at = map_page(WRITE, PRIVATE, file)?;
    write_code(at);
    protect(at, PAGE, READ)?;
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    // SAFETY: both are mappings of this function.
    let moved = unsafe { libc::mremap(at.cast(), PAGE, PAGE, flags, two.cast::<c_void>()) };
    if moved == libc::MAP_FAILED {
        return Err(Failure::last("mremap"));
    }
    protect(two, 2 * PAGE, EXECUTE)?;
    call_code(two)
}

/// /proc/self/mem writes to pages that are not writable.
fn write_by_proc_self_mem(file: c_int) -> Result {
    let at = map_page(EXECUTE, PRIVATE, file)?;
    let memory = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/proc/self/mem")
        .named("open /proc/self/mem")?;
    memory
        .write_all_at(&CODE, at.expose_provenance() as u64)
        .named("write to /proc/self/mem")?;
    call_code(at)
}

/// process_vm_writev to the own process needs no permission.
fn write_by_vm_writev(file: c_int) -> Result {
    let at = map_page(EXECUTE, PRIVATE, file)?;
    let from = libc::iovec {
        iov_base: CODE.as_ptr().cast_mut().cast(),
        iov_len: CODE.len(),
    };
    let to = libc::iovec {
        iov_base: at.cast(),
        iov_len: CODE.len(),
    };
    // SAFETY: writes to a page of this function.
    let written = unsafe { libc::process_vm_writev(libc::getpid(), &from, 1, &to, 1, 0) };
    kernel::checked(written as i64).named("process_vm_writev")?;
    call_code(at)
}

/// A debugger writes to pages of its child that are not writable.
fn write_by_debugger(file: c_int) -> Result {
    let at = map_page(EXECUTE, PRIVATE, file)?;
    let child = in_child(|| {
        // SAFETY: takes no addresses.
        let traced = unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) };
        kernel::checked(traced).named("PTRACE_TRACEME")?;
        // SAFETY: stops this process until its parent continues it.
        unsafe { libc::raise(libc::SIGSTOP) };
        call_code(at)
    })?;
    let status = kernel::wait(child, 0).named("waitpid")?;
    if libc::WIFEXITED(status) {
        return child_result(status);
    }
    let mut word = [0; 8];
    word[..CODE.len()].copy_from_slice(&CODE);
    let word = u64::from_ne_bytes(word);
    // SAFETY: writes to the child's memory only.
    let written = unsafe { libc::ptrace(libc::PTRACE_POKETEXT, child, at, word) };
    kernel::checked(written).named("PTRACE_POKETEXT")?;
    // SAFETY: takes no addresses.
    unsafe { libc::ptrace(libc::PTRACE_CONT, child, 0, 0) };
    child_result(kernel::wait(child, 0).named("waitpid")?)
}
