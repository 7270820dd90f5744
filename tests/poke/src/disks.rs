//! Commands to disks past the block layer. Each subcommand reads a block and writes it back.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;

use crate::arguments::Arguments;
use crate::failure::{Failure, Named, Result};
use crate::kernel::{self, Plain, plain};

/// What to do with the block.
#[derive(Clone, Copy, PartialEq)]
pub enum Direction {
    Read,
    Write,
}

/// The order in which every subcommand tries both.
pub const BOTH: [Direction; 2] = [Direction::Read, Direction::Write];

/// Bytes of a block.
const BLOCK: u32 = 512;
/// Bytes for the disk's sense data.
const SENSE: u8 = 32;
/// How long a disk may take, in milliseconds.
const TIMEOUT: u32 = 5000;

/// A command descriptor block of ten bytes, READ(10) or WRITE(10), for one sector.
fn descriptor_block(direction: Direction, sector: u32) -> [u8; 10] {
    let operation = match direction {
        Direction::Read => 0x28,
        Direction::Write => 0x2a,
    };
    let [a, b, c, d] = sector.to_be_bytes();
    [operation, 0, a, b, c, d, 0, 0, 1, 0]
}

plain! {
    /// The kernel's `struct sg_io_hdr`.
    struct SgIoHdr {
        interface_id: i32,
        dxfer_direction: i32,
        cmd_len: u8,
        mx_sb_len: u8,
        iovec_count: u16,
        dxfer_len: u32,
        dxferp: u64,
        cmdp: u64,
        sbp: u64,
        timeout: u32,
        flags: u32,
        pack_id: i32,
        padding: u32,
        usr_ptr: u64,
        status: u8,
        masked_status: u8,
        msg_status: u8,
        sb_len_wr: u8,
        host_status: u16,
        driver_status: u16,
        resid: i32,
        duration: u32,
        info: u32,
        end: u32,
    }
}

const SG_IO: u64 = 0x2285;
const SG_DXFER_TO_DEV: i32 = -2;
const SG_DXFER_FROM_DEV: i32 = -3;

fn named_direction(direction: Direction) -> &'static str {
    match direction {
        Direction::Read => "SG_IO, a read",
        Direction::Write => "SG_IO, a write",
    }
}

/// The second argument: a sector or block of a disk.
pub fn sector(arguments: &Arguments) -> Result<u32> {
    u32::try_from(arguments.number(1)?).map_err(|_| Failure::Usage)
}

/// `scsi PATH SECTOR [write]`: with SG_IO; with `write`, by write(2) and read(2) of the sg driver
/// instead of an ioctl.
pub fn scsi(arguments: &Arguments) -> Result {
    let by_write = arguments.count() > 2;
    let sector = sector(arguments)?;
    // SG_IO needs no permission to write if the caller has CAP_SYS_RAWIO.
    let mut options = OpenOptions::new();
    options.read(true).write(by_write);
    if !by_write {
        options.custom_flags(libc::O_NONBLOCK);
    }
    let mut device = options.open(arguments.path(0)?).named("open")?;
    let (mut data, mut sense) = ([0u8; BLOCK as usize], [0u8; SENSE as usize]);
    for direction in BOTH {
        let command = descriptor_block(direction, sector);
        let mut header = SgIoHdr {
            interface_id: i32::from(b'S'),
            dxfer_direction: match direction {
                Direction::Read => SG_DXFER_FROM_DEV,
                Direction::Write => SG_DXFER_TO_DEV,
            },
            cmd_len: command.len() as u8,
            mx_sb_len: SENSE,
            dxfer_len: BLOCK,
            dxferp: kernel::address_mut(&mut data),
            cmdp: kernel::address(&command),
            sbp: kernel::address_mut(&mut sense),
            timeout: TIMEOUT,
            ..SgIoHdr::ZERO
        };
        if by_write {
            device
                .write_all(header.bytes())
                .named("write of a command")?;
            device
                .read_exact(header.bytes_mut())
                .named("read of its answer")?;
        } else {
            let descriptor = OwnedFd::from(device);
            // SAFETY: SG_IO takes this structure, which holds the addresses of three buffers.
            unsafe { kernel::ioctl(&descriptor, SG_IO, kernel::address_mut(&mut header)) }
                .named(named_direction(direction))?;
            device = File::from(descriptor);
        }
        let SgIoHdr {
            status,
            host_status,
            driver_status,
            ..
        } = header;
        if (status, host_status, driver_status) != (0, 0, 0) {
            return Err(Failure::NoEffect(format!(
                "the disk said status {status}, {host_status}, {driver_status}"
            )));
        }
    }
    Ok(())
}

plain! {
    /// The kernel's `struct sg_io_v4`.
    struct SgIoV4 {
        guard: i32,
        protocol: u32,
        subprotocol: u32,
        request_len: u32,
        request: u64,
        request_tag: u64,
        request_attr: u32,
        request_priority: u32,
        request_extra: u32,
        max_response_len: u32,
        response: u64,
        dout_iovec_count: u32,
        dout_xfer_len: u32,
        din_iovec_count: u32,
        din_xfer_len: u32,
        dout_xferp: u64,
        din_xferp: u64,
        timeout: u32,
        flags: u32,
        usr_ptr: u64,
        spare_in: u32,
        driver_status: u32,
        transport_status: u32,
        device_status: u32,
        retry_delay: u32,
        info: u32,
        duration: u32,
        response_len: u32,
        din_resid: i32,
        dout_resid: i32,
        generated_tag: u64,
        spare_out: u32,
        padding: u32,
    }
}

/// `bsg PATH SECTOR`: with version 4 of SG_IO.
pub fn scsi_v4(arguments: &Arguments) -> Result {
    let sector = sector(arguments)?;
    let device = kernel::open(&arguments.c_string(0)?, libc::O_RDWR).named("open")?;
    let (mut data, mut sense) = ([0u8; BLOCK as usize], [0u8; SENSE as usize]);
    for direction in BOTH {
        let command = descriptor_block(direction, sector);
        let mut header = SgIoV4 {
            guard: i32::from(b'Q'),
            request_len: command.len() as u32,
            request: kernel::address(&command),
            response: kernel::address_mut(&mut sense),
            max_response_len: SENSE.into(),
            timeout: TIMEOUT,
            ..SgIoV4::ZERO
        };
        match direction {
            Direction::Read => {
                header.din_xfer_len = BLOCK;
                header.din_xferp = kernel::address_mut(&mut data);
            }
            Direction::Write => {
                header.dout_xfer_len = BLOCK;
                header.dout_xferp = kernel::address_mut(&mut data);
            }
        }
        // SAFETY: SG_IO takes this structure, which holds the addresses of three buffers.
        unsafe { kernel::ioctl(&device, SG_IO, kernel::address_mut(&mut header)) }
            .named(named_direction(direction))?;
        if (header.device_status, header.transport_status) != (0, 0) {
            return Err(Failure::NoEffect(format!(
                "the disk said {}, {}",
                header.device_status, header.transport_status
            )));
        }
    }
    Ok(())
}

plain! {
    /// The kernel's `struct nvme_passthru_cmd` and `struct nvme_uring_cmd`. Only the last field's
    /// name differs.
    struct NvmeCommand {
        opcode: u8,
        flags: u8,
        rsvd1: u16,
        nsid: u32,
        cdw2: u32,
        cdw3: u32,
        metadata: u64,
        addr: u64,
        metadata_len: u32,
        data_len: u32,
        cdw10: u32,
        cdw11: u32,
        cdw12: u32,
        cdw13: u32,
        cdw14: u32,
        cdw15: u32,
        timeout_ms: u32,
        result: u32,
    }

    /// The kernel's `struct nvme_passthru_cmd64`.
    struct NvmePassthruCmd64 {
        command: NvmeCommand,
        result: u64,
    }
}

const NVME_IOCTL_IO_CMD: u64 = 0xc048_4e43;
const NVME_IOCTL_IO64_CMD: u64 = 0xc050_4e48;

impl NvmeCommand {
    /// A read or write of one block between the first namespace and a buffer.
    pub fn new(direction: Direction, block: u32, data: &mut [u8; BLOCK as usize]) -> NvmeCommand {
        NvmeCommand {
            opcode: match direction {
                Direction::Read => 2,
                Direction::Write => 1,
            },
            nsid: 1,
            addr: kernel::address_mut(data),
            data_len: BLOCK,
            cdw10: block,
            ..NvmeCommand::ZERO
        }
    }
}

/// A block's bytes, aligned as the driver needs it.
#[repr(align(4096))]
pub struct AlignedBlock(pub [u8; BLOCK as usize]);

/// `nvme PATH BLOCK [io64]`: with the driver's passthrough; with `io64`, by its newer ioctl.
pub fn nvme(arguments: &Arguments) -> Result {
    let block = sector(arguments)?;
    let device = kernel::open(&arguments.c_string(0)?, libc::O_RDONLY).named("open")?;
    let mut data = AlignedBlock([0; BLOCK as usize]);
    for direction in BOTH {
        let mut command = NvmeCommand::new(direction, block, &mut data.0);
        if arguments.count() > 2 {
            let mut command = NvmePassthruCmd64 {
                command,
                ..NvmePassthruCmd64::ZERO
            };
            let address = kernel::address_mut(&mut command);
            // SAFETY: the request takes this structure, which holds the address of the block.
            unsafe { kernel::ioctl(&device, NVME_IOCTL_IO64_CMD, address) }
                .named("NVME_IOCTL_IO64_CMD")?;
        } else {
            let address = kernel::address_mut(&mut command);
            // SAFETY: as above.
            unsafe { kernel::ioctl(&device, NVME_IOCTL_IO_CMD, address) }
                .named("NVME_IOCTL_IO_CMD")?;
        }
    }
    Ok(())
}
