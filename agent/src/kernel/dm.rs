//! The device-mapper's ioctls for one read-only mapping.
//!
//! Interface: <linux/dm-ioctl.h>, version 4, with its field names.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;

use nix::libc;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

const CONTROL: &str = "/dev/mapper/control";

const DM_DEV_CREATE: u8 = 3;
const DM_DEV_REMOVE: u8 = 4;
const DM_DEV_SUSPEND: u8 = 6;
const DM_TABLE_LOAD: u8 = 9;
const DM_TABLE_STATUS: u8 = 12;
const DM_GET_TARGET_VERSION: u8 = 17;

const DM_READONLY_FLAG: u32 = 1 << 0;
const DM_STATUS_TABLE_FLAG: u32 = 1 << 4;
const DM_SKIP_LOCKFS_FLAG: u32 = 1 << 10;
const DM_NOFLUSH_FLAG: u32 = 1 << 11;

const DM_NAME_LEN: usize = 128;
const DM_UUID_LEN: usize = 129;
const DM_MAX_TYPE_NAME: usize = 16;

/// `struct dm_ioctl`.
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct DmIoctl {
    version: [u32; 3],
    data_size: u32,
    data_start: u32,
    target_count: u32,
    open_count: i32,
    flags: u32,
    event_nr: u32,
    padding: u32,
    dev: u64,
    name: [u8; DM_NAME_LEN],
    uuid: [u8; DM_UUID_LEN],
    data: [u8; 7],
}

/// `struct dm_target_spec`. The parameters follow, as a string with a NUL at its end.
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct DmTargetSpec {
    sector_start: u64,
    length: u64,
    status: i32,
    next: u32,
    target_type: [u8; DM_MAX_TYPE_NAME],
}

/// `struct dm_target_versions`. The target's name follows.
#[derive(FromBytes, Immutable)]
#[repr(C)]
struct DmTargetVersions {
    next: u32,
    version: [u32; 3],
}

/// Size of the data after the header: longer than any answer about one target.
const PAYLOAD: usize = 16 * 1024 - size_of::<DmIoctl>();

/// A request, and after the ioctl its answer.
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Message {
    header: DmIoctl,
    payload: [u8; PAYLOAD],
}

/// `_IOWR(DM_IOCTL, command, struct dm_ioctl)`.
const fn request(command: u8) -> libc::c_ulong {
    const DM_IOCTL: libc::c_ulong = 0xfd;
    3 << 30
        | (size_of::<DmIoctl>() as libc::c_ulong) << 16
        | DM_IOCTL << 8
        | command as libc::c_ulong
}

/// Copies a string, cut to the field's length with a NUL at its end.
fn set_text(field: &mut [u8], text: &str) {
    let text = &text.as_bytes()[..text.len().min(field.len().saturating_sub(1))];
    field[..text.len()].copy_from_slice(text);
}

impl Message {
    fn new(name: &str, flags: u32) -> Box<Message> {
        let mut message = Box::new(Message::new_zeroed());
        message.header.version[0] = 4;
        message.header.data_size = size_of::<Message>() as u32;
        message.header.data_start = size_of::<DmIoctl>() as u32;
        message.header.flags = flags;
        set_text(&mut message.header.name, name);
        message
    }

    /// The answer's data. The kernel says where it starts.
    fn data(&self) -> &[u8] {
        self.as_bytes()
            .get(self.header.data_start as usize..)
            .unwrap_or_default()
    }

    fn send(mut self: Box<Self>, control: &File, command: u8) -> io::Result<Box<Message>> {
        let message = &raw mut *self;
        // SAFETY: the request takes a buffer that begins with `struct dm_ioctl`, whose `data_size`
        // is the length of the buffer. The buffer outlives the call, and any bytes are a Message.
        match unsafe { libc::ioctl(control.as_raw_fd(), request(command), message) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(self),
        }
    }
}

/// A mapped device with one read-only target over its full length.
pub struct Mapping {
    control: File,
    name: String,
    target: String,
    sectors: u64,
    minor: u32,
}

impl Mapping {
    /// Creates the device, loads its table and starts it. `target` is the target's type, `sectors`
    /// the length in units of 512 bytes.
    pub fn create(
        name: &str,
        uuid: &str,
        target: &str,
        sectors: u64,
        parameters: &str,
    ) -> io::Result<Mapping> {
        let control = control()?;
        let mut create = Message::new(name, DM_READONLY_FLAG);
        set_text(&mut create.header.uuid, uuid);
        let answer = create.send(&control, DM_DEV_CREATE)?;
        let mapping = Mapping {
            control,
            name: name.to_owned(),
            target: target.to_owned(),
            sectors,
            minor: minor(answer.header.dev),
        };
        let started = mapping.load(parameters).and_then(|()| mapping.resume());
        if started.is_err() {
            let _ = Message::new(name, 0).send(&mapping.control, DM_DEV_REMOVE);
        }
        started.map(|()| mapping)
    }

    /// Replaces the table by another one of the same target. Mounted file systems and open files
    /// keep working.
    pub fn replace(&self, parameters: &str) -> io::Result<()> {
        self.load(parameters)?;
        self.resume()
    }

    /// The device's name in /dev and in /sys/block.
    pub fn device(&self) -> String {
        format!("dm-{}", self.minor)
    }

    fn load(&self, parameters: &str) -> io::Result<()> {
        let mut load = Message::new(&self.name, DM_READONLY_FLAG);
        load.header.target_count = 1;
        let mut spec = DmTargetSpec {
            length: self.sectors,
            ..DmTargetSpec::new_zeroed()
        };
        set_text(&mut spec.target_type, &self.target);
        let (start, rest) = load.payload.split_at_mut(size_of::<DmTargetSpec>());
        if parameters.len() >= rest.len() {
            return Err(io::Error::other(format!(
                "the table has {} bytes, at most {} are possible",
                parameters.len(),
                rest.len() - 1
            )));
        }
        start.copy_from_slice(spec.as_bytes());
        set_text(rest, parameters);
        load.send(&self.control, DM_TABLE_LOAD).map(drop)
    }

    /// Activates the loaded table. A running device is suspended for that moment only.
    fn resume(&self) -> io::Result<()> {
        // The device is read-only, so there is nothing to write back.
        Message::new(&self.name, DM_SKIP_LOCKFS_FLAG | DM_NOFLUSH_FLAG)
            .send(&self.control, DM_DEV_SUSPEND)
            .map(drop)
    }
}

/// The state of a verity target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VerityStatus {
    /// No corrupted block was read.
    Valid,
    /// A corrupted block was read.
    Corrupted,
}

impl VerityStatus {
    /// Parses a status line: `V` or `C`; other fields may follow.
    fn parse(line: &str) -> io::Result<VerityStatus> {
        match line.split_whitespace().next() {
            Some("V") => Ok(VerityStatus::Valid),
            Some("C") => Ok(VerityStatus::Corrupted),
            _ => Err(io::Error::other(format!("the verity status is {line:?}"))),
        }
    }
}

/// The status of a mapped device with a verity target.
pub fn verity_status(name: &str) -> io::Result<VerityStatus> {
    VerityStatus::parse(&query_table(name, 0)?)
}

/// The parameters of a mapped device's target.
pub fn table(name: &str) -> io::Result<String> {
    query_table(name, DM_STATUS_TABLE_FLAG)
}

fn query_table(name: &str, flags: u32) -> io::Result<String> {
    let answer = Message::new(name, flags).send(&control()?, DM_TABLE_STATUS)?;
    if answer.header.target_count == 0 {
        return Err(io::Error::other("the device has no table"));
    }
    let text = answer
        .data()
        .get(size_of::<DmTargetSpec>()..)
        .unwrap_or_default();
    Ok(String::from_utf8_lossy(text.split(|&b| b == 0).next().unwrap_or_default()).into_owned())
}

/// Version of a target type in the running kernel: major and minor.
pub fn target_version(target: &str) -> io::Result<(u32, u32)> {
    let answer = Message::new(target, 0).send(&control()?, DM_GET_TARGET_VERSION)?;
    let (found, _) = DmTargetVersions::read_from_prefix(answer.data())
        .map_err(|_| io::Error::from(io::ErrorKind::UnexpectedEof))?;
    Ok((found.version[0], found.version[1]))
}

fn control() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(CONTROL)
}

/// The minor of a device number as the kernel encodes it for user space (`huge_encode_dev`).
fn minor(dev: u64) -> u32 {
    (dev & 0xff | dev >> 12 & 0xfff00) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_those_of_dmsetup() {
        // As strace of dmsetup shows DM_DEV_CREATE and DM_TABLE_LOAD.
        assert_eq!(request(DM_DEV_CREATE), 0xc138_fd03);
        assert_eq!(request(DM_TABLE_LOAD), 0xc138_fd09);
        assert_eq!(minor(0xfd00), 0);
        assert_eq!(minor(0x10_fd01), 0x101);
    }

    #[test]
    fn structures_have_the_sizes_of_the_kernels_header() {
        assert_eq!(size_of::<DmIoctl>(), 312);
        assert_eq!(size_of::<DmTargetSpec>(), 40);
        assert_eq!(size_of::<DmTargetVersions>(), 16);
        assert_eq!(size_of::<Message>(), 16 * 1024);
    }

    #[test]
    fn a_verity_status_is_one_of_two_letters() {
        let parse = |line: &str| VerityStatus::parse(line).ok();
        assert_eq!(parse("V "), Some(VerityStatus::Valid));
        assert_eq!(parse("V - "), Some(VerityStatus::Valid));
        assert_eq!(parse("C"), Some(VerityStatus::Corrupted));
        assert_eq!(parse("").or(parse("0 8")).or(parse("Valid")), None);
    }

    #[test]
    fn texts_are_cut_to_their_field_and_end_with_a_nul() {
        let mut field = [0; 4];
        set_text(&mut field, "verity");
        assert_eq!(&field, b"ver\0");
    }
}
