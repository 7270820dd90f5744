//! Device mapper.

use std::ffi::{CString, OsStr};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use crate::arguments::Arguments;
use crate::failure::{Failure, Named, Result};
use crate::kernel::{self, Plain, plain};

const DM_VERSION_MAJOR: u32 = 4;
const DM_READONLY_FLAG: u32 = 1;
const DM_SUSPEND_FLAG: u32 = 2;
const DM_NOFLUSH_FLAG: u32 = 1 << 11;
const DM_DEFERRED_REMOVE: u32 = 1 << 17;

/// A request: its ioctl and its name in messages.
#[derive(Clone, Copy)]
struct Request(u64, &'static str);

const DEV_CREATE: Request = Request(0xc138_fd03, "DM_DEV_CREATE");
const DEV_REMOVE: Request = Request(0xc138_fd04, "DM_DEV_REMOVE");
const DEV_RENAME: Request = Request(0xc138_fd05, "DM_DEV_RENAME");
const DEV_SUSPEND: Request = Request(0xc138_fd06, "DM_DEV_SUSPEND");
const DEV_RESUME: Request = Request(0xc138_fd06, "DM_DEV_SUSPEND, a resume");
const TABLE_LOAD: Request = Request(0xc138_fd09, "DM_TABLE_LOAD");

/// Bytes for the text behind the headers.
const TEXT: usize = 16 << 10;

plain! {
    /// The kernel's `struct dm_ioctl`.
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
        name: [u8; 128],
        uuid: [u8; 129],
        data: [u8; 7],
    }

    /// The kernel's `struct dm_target_spec`.
    struct DmTargetSpec {
        sector_start: u64,
        length: u64,
        status: i32,
        next: u32,
        target_type: [u8; 16],
    }

    /// A request with a table.
    struct TableMessage {
        header: DmIoctl,
        target: DmTargetSpec,
        text: [u8; TEXT],
    }

    /// A request with a text, such as a new name.
    struct TextMessage {
        header: DmIoctl,
        text: [u8; TEXT],
    }
}

/// Copies a string with its end to a field.
fn fill(field: &mut [u8], text: &OsStr) -> Result {
    let text = text.as_bytes();
    let room = field.get_mut(..text.len() + 1).ok_or(Failure::Usage)?;
    room[..text.len()].copy_from_slice(text);
    room[text.len()] = 0;
    Ok(())
}

fn header(name: &OsStr, length: usize) -> Result<DmIoctl> {
    let mut header = DmIoctl {
        version: [DM_VERSION_MAJOR, 0, 0],
        data_size: length as u32,
        data_start: size_of::<DmIoctl>() as u32,
        ..DmIoctl::ZERO
    };
    fill(&mut header.name, name)?;
    Ok(header)
}

/// The control device of device mapper.
struct Control(OwnedFd);

impl Control {
    fn open() -> Result<Control> {
        let path = CString::from(c"/dev/mapper/control");
        kernel::open(&path, libc::O_RDONLY)
            .named("open /dev/mapper/control")
            .map(Control)
    }

    /// Makes a request with a text, which may be empty.
    fn request(&self, request: Request, name: &OsStr, flags: u32, text: &OsStr) -> Result {
        let mut message = TextMessage::ZERO;
        message.header = header(name, size_of::<TextMessage>())?;
        message.header.flags = flags;
        fill(&mut message.text, text)?;
        // SAFETY: device mapper reads and writes this structure, whose length is in the header.
        unsafe { kernel::ioctl(&self.0, request.0, kernel::address_mut(&mut message)) }
            .named(request.1)
            .map(drop)
    }

    /// Loads a table with one target and activates it.
    fn load(&self, name: &OsStr, target: &Target) -> Result {
        let mut message = TableMessage::ZERO;
        message.header = header(name, size_of::<TableMessage>())?;
        message.header.target_count = 1;
        message.header.flags = target.flags;
        message.target.length = target.sectors;
        fill(&mut message.target.target_type, target.kind)?;
        fill(&mut message.text, target.parameters)?;
        // SAFETY: device mapper reads and writes this structure, whose length is in the header.
        unsafe { kernel::ioctl(&self.0, TABLE_LOAD.0, kernel::address_mut(&mut message)) }
            .named(TABLE_LOAD.1)?;
        self.request(DEV_RESUME, name, 0, OsStr::new(""))
    }
}

/// A table's only target.
struct Target<'a> {
    sectors: u64,
    kind: &'a OsStr,
    parameters: &'a OsStr,
    flags: u32,
}

/// `dm create|load NAME SECTORS TYPE PARAMETERS`, `dm remove|defer|suspend NAME`, `dm rename NAME
/// NEW`.
pub fn change_device(arguments: &Arguments) -> Result {
    let (command, name, none) = (arguments.text(0), arguments.path(1)?, OsStr::new(""));
    let control = Control::open()?;
    let target = |flags| {
        Ok(Target {
            sectors: arguments.number(2)?,
            kind: arguments.path(3)?,
            parameters: arguments.path(4)?,
            flags,
        })
    };
    match command {
        "create" => {
            let verity = arguments.text(3).contains("verity");
            let target = target(if verity { DM_READONLY_FLAG } else { 0 })?;
            control.request(DEV_CREATE, name, 0, none)?;
            let loaded = control.load(name, &target);
            if loaded.is_err() {
                let _ = control.request(DEV_REMOVE, name, 0, none);
            }
            loaded
        }
        "load" => control.load(name, &target(DM_READONLY_FLAG)?),
        "remove" => control.request(DEV_REMOVE, name, 0, none),
        "defer" => control.request(DEV_REMOVE, name, DM_DEFERRED_REMOVE, none),
        "suspend" => {
            // Resumed at once: a machine whose root is suspended hangs.
            control.request(DEV_SUSPEND, name, DM_SUSPEND_FLAG | DM_NOFLUSH_FLAG, none)?;
            control.request(DEV_RESUME, name, 0, none)
        }
        "rename" => control.request(DEV_RENAME, name, 0, arguments.path(2)?),
        _ => Err(Failure::Usage),
    }
}
