//! Block devices and their ioctls.

use std::ffi::CStr;

use crate::arguments::Arguments;
use crate::failure::{Failure, Named, Result};
use crate::kernel::{self, Plain, call, plain};

/// Bytes of the buffer that [`ioctl`] passes.
const BUFFER: usize = 4096;

/// `ioctl PATH REQUEST [NUMBER | @HEX] [w]`: `@HEX` passes a buffer of 4,096 bytes that begins with
/// these bytes; `w` opens the file for writing too.
pub fn ioctl(arguments: &Arguments) -> Result {
    let path = arguments.c_string(0)?;
    let request = arguments.number(1)?;
    let mut buffer = [0; BUFFER];
    let argument = match arguments.text(2).strip_prefix('@') {
        Some(digits) => {
            for (byte, digits) in buffer.iter_mut().zip(digits.as_bytes().chunks(2)) {
                let digits = std::str::from_utf8(digits).map_err(|_| Failure::Usage)?;
                *byte = u8::from_str_radix(digits, 16).map_err(|_| Failure::Usage)?;
            }
            kernel::address_mut(&mut buffer)
        }
        None if arguments.count() > 2 => arguments.number(2)?,
        None => 0,
    };
    let access = if arguments.count() > 3 {
        libc::O_RDWR
    } else {
        libc::O_RDONLY
    };
    let device = kernel::open(&path, access | libc::O_NONBLOCK).named("open")?;
    // SAFETY: the attack names a request that takes a number, or a structure that fits the buffer.
    unsafe { kernel::ioctl(&device, request, argument) }
        .named("ioctl")
        .map(drop)
}

plain! {
    /// The kernel's `struct blkpg_partition`.
    struct BlkpgPartition {
        start: i64,
        length: i64,
        pno: i32,
        devname: [u8; 64],
        volname: [u8; 64],
        padding: u32,
    }

    /// The kernel's `struct blkpg_ioctl_arg`.
    struct BlkpgIoctlArg {
        op: i32,
        flags: i32,
        datalen: i32,
        padding: u32,
        data: u64,
    }
}

const BLKPG: u64 = 0x1269;
const BLKPG_ADD_PARTITION: i32 = 1;
const BLKPG_DEL_PARTITION: i32 = 2;
const BLKPG_RESIZE_PARTITION: i32 = 3;

/// `blkpg PATH delete|add|resize NUMBER START LENGTH`: changes the kernel's list of partitions.
/// START and LENGTH are in bytes.
pub fn change_partition(arguments: &Arguments) -> Result {
    let path = arguments.c_string(0)?;
    let optional = |index| match arguments.optional(index) {
        Some(_) => arguments.number(index).map(u64::cast_signed),
        None => Ok(0),
    };
    let mut partition = BlkpgPartition {
        pno: arguments.small_number(2)?,
        start: optional(3)?,
        length: optional(4)?,
        ..BlkpgPartition::ZERO
    };
    let mut argument = BlkpgIoctlArg {
        op: match arguments.text(1) {
            "add" => BLKPG_ADD_PARTITION,
            "delete" => BLKPG_DEL_PARTITION,
            "resize" => BLKPG_RESIZE_PARTITION,
            _ => return Err(Failure::Usage),
        },
        datalen: partition.bytes().len() as i32,
        data: kernel::address_mut(&mut partition),
        ..BlkpgIoctlArg::ZERO
    };
    let device = kernel::open(&path, libc::O_RDONLY).named("open")?;
    // SAFETY: BLKPG takes this structure, which holds the address of the partition.
    unsafe { kernel::ioctl(&device, BLKPG, kernel::address_mut(&mut argument)) }
        .named("BLKPG")
        .map(drop)
}

plain! {
    /// The kernel's `struct loop_info64`.
    struct LoopInfo64 {
        lo_device: u64,
        lo_inode: u64,
        lo_rdevice: u64,
        lo_offset: u64,
        lo_sizelimit: u64,
        lo_number: u32,
        lo_encrypt_type: u32,
        lo_encrypt_key_size: u32,
        lo_flags: u32,
        lo_file_name: [u8; 64],
        lo_crypt_name: [u8; 64],
        lo_encrypt_key: [u8; 32],
        lo_init: [u64; 2],
    }

    /// The kernel's `struct loop_config`.
    struct LoopConfig {
        fd: u32,
        block_size: u32,
        info: LoopInfo64,
        reserved: [u64; 8],
    }
}

const LOOP_CONFIGURE: u64 = 0x4c0a;
const LO_FLAGS_READ_ONLY: u32 = 1;

/// `loop DEVICE FILE`: LOOP_CONFIGURE with two descriptors that are open for reading only.
pub fn configure_loop(arguments: &Arguments) -> Result {
    let open = |path: &CStr| kernel::open(path, libc::O_RDONLY).named("open");
    let device = open(&arguments.c_string(0)?)?;
    let file = open(&arguments.c_string(1)?)?;
    let mut config = LoopConfig {
        fd: std::os::fd::AsRawFd::as_raw_fd(&file).cast_unsigned(),
        ..LoopConfig::ZERO
    };
    config.info.lo_flags = LO_FLAGS_READ_ONLY;
    // SAFETY: LOOP_CONFIGURE takes this structure, which holds no addresses.
    unsafe { kernel::ioctl(&device, LOOP_CONFIGURE, kernel::address_mut(&mut config)) }
        .named("LOOP_CONFIGURE")
        .map(drop)
}

/// `swapon PATH`: swaps to a file or device, and stops it again.
pub fn swap_on(arguments: &Arguments) -> Result {
    let path = arguments.c_string(0)?;
    call!(Swapon, &path, 0).named("swapon")?;
    let _ = call!(Swapoff, &path);
    Ok(())
}
