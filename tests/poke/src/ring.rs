//! io_uring: opens, writes and changes paths without the usual system calls.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::arguments::Arguments;
use crate::disks::{AlignedBlock, BOTH, Direction, NvmeCommand, sector};
use crate::failure::{Failure, Named, Result};
use crate::kernel::{self, Plain, call, plain};
use crate::memory::map;

plain! {
    /// The kernel's `struct io_sqring_offsets`.
    struct SqringOffsets {
        head: u32,
        tail: u32,
        ring_mask: u32,
        ring_entries: u32,
        flags: u32,
        dropped: u32,
        array: u32,
        resv1: u32,
        user_addr: u64,
    }

    /// The kernel's `struct io_cqring_offsets`.
    struct CqringOffsets {
        head: u32,
        tail: u32,
        ring_mask: u32,
        ring_entries: u32,
        overflow: u32,
        cqes: u32,
        flags: u32,
        resv1: u32,
        user_addr: u64,
    }

    /// The kernel's `struct io_uring_params`.
    struct Params {
        sq_entries: u32,
        cq_entries: u32,
        flags: u32,
        sq_thread_cpu: u32,
        sq_thread_idle: u32,
        features: u32,
        wq_fd: u32,
        resv: [u32; 3],
        sq_off: SqringOffsets,
        cq_off: CqringOffsets,
    }

    /// The kernel's `struct io_uring_sqe`, in the size that NVMe commands need (SQE128).
    struct Submission {
        opcode: u8,
        flags: u8,
        ioprio: u16,
        fd: i32,
        off: u64,
        addr: u64,
        len: u32,
        op_flags: u32,
        user_data: u64,
        buf_index: u16,
        personality: u16,
        splice_fd_in: i32,
        command: NvmeCommand,
        end: u64,
    }

    /// The kernel's `struct io_uring_cqe`.
    struct Completion {
        user_data: u64,
        res: i32,
        flags: u32,
    }
}

const IORING_OFF_SQ_RING: i64 = 0;
const IORING_OFF_SQES: i64 = 0x1000_0000;
const IORING_ENTER_GETEVENTS: u32 = 1;
const IORING_SETUP_SQE128: u32 = 1 << 10;
const IORING_SETUP_CQE32: u32 = 1 << 11;
const IORING_OP_OPENAT: u8 = 18;
const IORING_OP_WRITE: u8 = 23;
const IORING_OP_RENAMEAT: u8 = 35;
const IORING_OP_UNLINKAT: u8 = 36;
const IORING_OP_MKDIRAT: u8 = 37;
const IORING_OP_SYMLINKAT: u8 = 38;
const IORING_OP_URING_CMD: u8 = 46;
const NVME_URING_CMD_IO: u64 = 0xc048_4e80;

/// Size of submissions and completions.
#[derive(Clone, Copy)]
enum Size {
    Normal,
    /// As NVMe commands need them.
    Large,
}

impl Size {
    fn setup_flags(self) -> u32 {
        match self {
            Size::Normal => 0,
            Size::Large => IORING_SETUP_SQE128 | IORING_SETUP_CQE32,
        }
    }

    /// Bytes of a submission.
    fn submission(self) -> usize {
        match self {
            Size::Normal => 64,
            Size::Large => size_of::<Submission>(),
        }
    }

    /// Bytes of a completion.
    fn completion(self) -> usize {
        match self {
            Size::Normal => size_of::<Completion>(),
            Size::Large => 2 * size_of::<Completion>(),
        }
    }
}

/// A ring with one submission at a time.
struct Ring {
    descriptor: OwnedFd,
    size: Size,
    params: Params,
    /// Both rings, in one mapping.
    rings: *mut u8,
    submissions: *mut u8,
}

impl Ring {
    fn new(size: Size) -> io::Result<Ring> {
        const ENTRIES: u32 = 4;
        let mut params = Params {
            flags: size.setup_flags(),
            ..Params::ZERO
        };
        let descriptor = kernel::owned(call!(IoUringSetup, ENTRIES, params.bytes_mut()))?;
        let submissions_end = params.sq_off.array as usize + params.sq_entries as usize * 4;
        let completions_end =
            params.cq_off.cqes as usize + params.cq_entries as usize * size.completion();
        let shared = |length, offset| {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            map(
                length,
                access,
                libc::MAP_SHARED,
                descriptor.as_raw_fd(),
                offset,
            )
        };
        Ok(Ring {
            rings: shared(submissions_end.max(completions_end), IORING_OFF_SQ_RING)?,
            submissions: shared(
                params.sq_entries as usize * size.submission(),
                IORING_OFF_SQES,
            )?,
            descriptor,
            size,
            params,
        })
    }

    /// A number in the rings, which the kernel reads and writes too.
    fn number(&self, offset: u32) -> &AtomicU32 {
        // SAFETY: the kernel gives offsets of aligned numbers in the mapping, which is never
        // unmapped.
        unsafe { AtomicU32::from_ptr(self.rings.add(offset as usize).cast()) }
    }

    /// Submits an entry and waits for its completion.
    fn submit(&mut self, entry: &Submission) -> io::Result<i32> {
        let length = self.size.submission();
        // SAFETY: the mapping has room for several entries of this length. The kernel reads an
        // entry only in io_uring_enter.
        unsafe {
            std::ptr::copy_nonoverlapping(entry.bytes().as_ptr(), self.submissions, length);
        }
        let SqringOffsets {
            tail,
            ring_mask,
            array,
            ..
        } = self.params.sq_off;
        let position = self.number(tail).load(Ordering::Relaxed);
        let slot = position & self.number(ring_mask).load(Ordering::Relaxed);
        self.number(array + 4 * slot).store(0, Ordering::Relaxed);
        self.number(tail)
            .store(position.wrapping_add(1), Ordering::Release);
        call!(
            IoUringEnter,
            &self.descriptor,
            1,
            1,
            IORING_ENTER_GETEVENTS,
            kernel::NULL,
            0
        )?;
        let CqringOffsets {
            head,
            ring_mask,
            cqes,
            ..
        } = self.params.cq_off;
        let position = self.number(head).load(Ordering::Acquire);
        let slot = (position & self.number(ring_mask).load(Ordering::Relaxed)) as usize;
        let at = cqes as usize + slot * self.size.completion();
        // SAFETY: the mapping has room for all completions, and the kernel has written this one.
        let completion: Completion = unsafe { self.rings.add(at).cast::<Completion>().read() };
        self.number(head)
            .store(position.wrapping_add(1), Ordering::Release);
        match completion.res {
            error if error < 0 => Err(io::Error::from_raw_os_error(-error)),
            result => Ok(result),
        }
    }
}

/// `uring PATH OFFSET [TEXT]`: opens and writes a file. Without a text, writes the 512 bytes that
/// are there already.
pub fn write(arguments: &Arguments) -> Result {
    let path = arguments.c_string(0)?;
    let offset = arguments.number(1)?;
    let mut block = [0; 512];
    let data = match arguments.optional(2) {
        Some(text) => text.as_bytes(),
        None => {
            // A device that refuses reads may accept writes: then the block is zero.
            let _ =
                File::open(arguments.path(0)?).and_then(|file| file.read_at(&mut block, offset));
            &block
        }
    };
    let mut ring = Ring::new(Size::Normal).named("io_uring_setup")?;
    let file = ring
        .submit(&Submission {
            opcode: IORING_OP_OPENAT,
            fd: libc::AT_FDCWD,
            addr: path.as_ptr().expose_provenance() as u64,
            op_flags: libc::O_RDWR.cast_unsigned(),
            ..Submission::ZERO
        })
        .named("IORING_OP_OPENAT")?;
    // SAFETY: the kernel has just opened this descriptor.
    let file = unsafe { File::from_raw_fd(file) };
    let written = ring
        .submit(&Submission {
            opcode: IORING_OP_WRITE,
            fd: file.as_raw_fd(),
            off: offset,
            addr: kernel::address(data),
            len: data.len() as u32,
            ..Submission::ZERO
        })
        .named("IORING_OP_WRITE")?;
    file.sync_all().named("fsync")?;
    if usize::try_from(written) == Ok(data.len()) {
        Ok(())
    } else {
        Err(Failure::NoEffect(format!("only {written} bytes written")))
    }
}

/// `uring-nvme PATH BLOCK`: IORING_OP_URING_CMD with NVME_URING_CMD_IO; reads a block and writes it
/// back.
pub fn nvme(arguments: &Arguments) -> Result {
    let block = sector(arguments)?;
    let device = kernel::open(&arguments.c_string(0)?, libc::O_RDWR).named("open")?;
    let mut ring = Ring::new(Size::Large).named("io_uring_setup")?;
    let mut data = AlignedBlock([0; 512]);
    for direction in BOTH {
        ring.submit(&Submission {
            opcode: IORING_OP_URING_CMD,
            fd: device.as_raw_fd(),
            off: NVME_URING_CMD_IO,
            command: NvmeCommand::new(direction, block, &mut data.0),
            ..Submission::ZERO
        })
        .named(match direction {
            Direction::Read => "URING_CMD, a read",
            Direction::Write => "URING_CMD, a write",
        })?;
    }
    Ok(())
}

/// `uring-path mkdir|unlink|rename|symlink PATH [PATH]`: changes a directory.
pub fn change_path(arguments: &Arguments) -> Result {
    let path = arguments.c_string(1)?;
    let second = match arguments.count() {
        2 => path.clone(),
        _ => arguments.c_string(2)?,
    };
    let second_address = second.as_ptr().expose_provenance() as u64;
    let mut entry = Submission {
        fd: libc::AT_FDCWD,
        addr: path.as_ptr().expose_provenance() as u64,
        ..Submission::ZERO
    };
    match arguments.text(0) {
        "mkdir" => {
            entry.opcode = IORING_OP_MKDIRAT;
            entry.len = 0o755;
        }
        "unlink" => entry.opcode = IORING_OP_UNLINKAT,
        "rename" => {
            entry.opcode = IORING_OP_RENAMEAT;
            entry.len = libc::AT_FDCWD.cast_unsigned();
            entry.off = second_address;
        }
        "symlink" => {
            entry.opcode = IORING_OP_SYMLINKAT;
            entry.off = second_address;
        }
        _ => return Err(Failure::Usage),
    }
    Ring::new(Size::Normal)
        .named("io_uring_setup")?
        .submit(&entry)
        .named("io_uring")
        .map(drop)
}
