//! Device-mapper by ioctl: just what one read-only mapping needs.
//!
//! Interface: <linux/dm-ioctl.h>, version 4.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;

use nix::libc;

const CONTROL: &str = "/dev/mapper/control";
/// An answer is never longer than this.
const BUFFER: usize = 16 * 1024;

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

// `struct dm_ioctl`, by its fields' places.
const HEADER: usize = 312;
const AT_DATA_SIZE: usize = 12;
const AT_DATA_START: usize = 16;
const AT_TARGET_COUNT: usize = 20;
const AT_FLAGS: usize = 28;
const AT_DEV: usize = 40;
const AT_NAME: usize = 48;
const AT_UUID: usize = 176;
const NAME_LEN: usize = 128;
const UUID_LEN: usize = 129;
// `struct dm_target_spec`: start, length, status, next, then 16 bytes of type.
const SPEC: usize = 40;
const AT_SPEC_TYPE: usize = 24;
// `struct dm_target_versions`: next, then three numbers.
const AT_VERSION: usize = 4;

/// `_IOWR(0xfd, command, struct dm_ioctl)`.
const fn request(command: u8) -> libc::c_ulong {
    3 << 30 | (HEADER as libc::c_ulong) << 16 | 0xfd << 8 | command as libc::c_ulong
}

/// One request, and then its answer.
struct Message(Box<[u8; BUFFER]>);

impl Message {
    fn new(name: &str, flags: u32) -> Message {
        let mut bytes = Box::new([0; BUFFER]);
        bytes[0..4].copy_from_slice(&4u32.to_ne_bytes());
        let mut message = Message(bytes);
        message.set_u32(AT_DATA_SIZE, BUFFER as u32);
        message.set_u32(AT_DATA_START, HEADER as u32);
        message.set_u32(AT_FLAGS, flags);
        message.set_text(AT_NAME, NAME_LEN, name);
        message
    }

    fn set_u32(&mut self, at: usize, value: u32) {
        self.0[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    }

    /// Cut to the room there is, with a zero byte behind it.
    fn set_text(&mut self, at: usize, room: usize, text: &str) {
        let text = &text.as_bytes()[..text.len().min(room - 1)];
        self.0[at..at + text.len()].copy_from_slice(text);
    }

    fn u32_at(&self, at: usize) -> u32 {
        self.0
            .get(at..at + 4)
            .map_or(0, |b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]))
    }

    fn u64_at(&self, at: usize) -> u64 {
        u64::from(self.u32_at(at)) | u64::from(self.u32_at(at + 4)) << 32
    }

    /// Where the answer's data begins.
    fn data_start(&self) -> usize {
        (self.u32_at(AT_DATA_START) as usize).min(BUFFER)
    }

    fn send(mut self, control: &File, command: u8) -> io::Result<Message> {
        // SAFETY: the request takes a buffer that begins with `struct dm_ioctl` and whose whole
        // length that struct tells; it outlives the call.
        match unsafe { libc::ioctl(control.as_raw_fd(), request(command), self.0.as_mut_ptr()) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(self),
        }
    }
}

/// A mapped device with one read-only target over its whole length.
pub struct Mapping {
    control: File,
    name: String,
    target: String,
    sectors: u64,
    minor: u32,
}

impl Mapping {
    /// Makes the device, loads its table and starts it. `target` is the target's type, `sectors`
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
        create.set_text(AT_UUID, UUID_LEN, uuid);
        let answer = create.send(&control, DM_DEV_CREATE)?;
        let minor = minor(answer.u64_at(AT_DEV));
        let mapping = Mapping {
            control,
            name: name.to_owned(),
            target: target.to_owned(),
            sectors,
            minor,
        };
        let started = mapping.load(parameters).and_then(|()| mapping.resume());
        if started.is_err() {
            let _ = Message::new(name, 0).send(&mapping.control, DM_DEV_REMOVE);
        }
        started.map(|()| mapping)
    }

    /// Puts another table of the same target in the place of the running one; mounted file systems
    /// and open files stay.
    pub fn replace(&self, parameters: &str) -> io::Result<()> {
        self.load(parameters)?;
        self.resume()
    }

    /// The device's name in /dev and in /sys/block.
    pub fn device(&self) -> String {
        format!("dm-{}", self.minor)
    }

    fn load(&self, parameters: &str) -> io::Result<()> {
        let room = BUFFER - HEADER - SPEC;
        if parameters.len() >= room {
            return Err(io::Error::other("the table's line is too long"));
        }
        let mut load = Message::new(&self.name, DM_READONLY_FLAG);
        load.set_u32(AT_TARGET_COUNT, 1);
        load.0[HEADER + 8..HEADER + 16].copy_from_slice(&self.sectors.to_ne_bytes());
        load.set_text(HEADER + AT_SPEC_TYPE, SPEC - AT_SPEC_TYPE, &self.target);
        load.set_text(HEADER + SPEC, room, parameters);
        load.send(&self.control, DM_TABLE_LOAD).map(|_| ())
    }

    /// Resuming takes the loaded table; a running device is stopped for just that moment.
    fn resume(&self) -> io::Result<()> {
        // There is nothing to write back: the device is read-only.
        Message::new(&self.name, DM_SKIP_LOCKFS_FLAG | DM_NOFLUSH_FLAG)
            .send(&self.control, DM_DEV_SUSPEND)
            .map(|_| ())
    }
}

/// What the target of a mapped device reports of itself: for verity `V`, or `C` once it saw
/// corruption.
pub fn status(name: &str) -> io::Result<String> {
    ask(name, 0)
}

/// The parameters that the target of a mapped device has.
pub fn table(name: &str) -> io::Result<String> {
    ask(name, DM_STATUS_TABLE_FLAG)
}

fn ask(name: &str, flags: u32) -> io::Result<String> {
    let answer = Message::new(name, flags).send(&control()?, DM_TABLE_STATUS)?;
    if answer.u32_at(AT_TARGET_COUNT) == 0 {
        return Err(io::Error::other("no table"));
    }
    let text = answer
        .0
        .get(answer.data_start() + SPEC..)
        .unwrap_or_default();
    Ok(String::from_utf8_lossy(text.split(|&b| b == 0).next().unwrap_or_default()).into_owned())
}

/// Version of a target type in the running kernel: major and minor.
pub fn target_version(target: &str) -> io::Result<(u32, u32)> {
    let answer = Message::new(target, 0).send(&control()?, DM_GET_TARGET_VERSION)?;
    let at = answer.data_start() + AT_VERSION;
    Ok((answer.u32_at(at), answer.u32_at(at + 4)))
}

fn control() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(CONTROL)
}

/// The minor of a device number as the kernel writes it for user space (`huge_encode_dev`).
fn minor(dev: u64) -> u32 {
    (dev & 0xff | dev >> 12 & 0xfff00) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_the_kernels() {
        // As in strace of dmsetup: DM_DEV_CREATE, DM_TABLE_LOAD.
        assert_eq!(request(DM_DEV_CREATE), 0xc138_fd03);
        assert_eq!(request(DM_TABLE_LOAD), 0xc138_fd09);
        assert_eq!(minor(0xfd00), 0);
        assert_eq!(minor(0x10_fd01), 0x101);
    }
}
