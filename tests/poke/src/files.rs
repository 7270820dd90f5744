//! Files and devices as files.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use crate::arguments::Arguments;
use crate::failure::{Named, Result};
use crate::kernel::{self, Plain, call, plain};

/// A block of a disk, aligned as direct I/O needs it.
#[repr(C, align(4096))]
struct Block([u8; 4096]);

/// `write PATH OFFSET [TEXT]`: writes the text. Without it, writes the 4,096 bytes that are there
/// already, with direct I/O.
pub fn write(arguments: &Arguments) -> Result {
    let path = arguments.path(0)?;
    let offset = arguments.number(1)?;
    let mut block = Block([0; 4096]);
    let mut options = OpenOptions::new();
    options.write(true);
    let file = match arguments.optional(2) {
        Some(text) => {
            let file = options.open(path).named("open for writing")?;
            file.write_all_at(text.as_bytes(), offset).named("write")?;
            file
        }
        None => {
            // A device that refuses reads may accept writes: then the block is zero.
            let _ = File::open(path).and_then(|file| file.read_at(&mut block.0, offset));
            let file = options
                .custom_flags(libc::O_DIRECT)
                .open(path)
                .named("open for writing")?;
            file.write_all_at(&block.0, offset).named("write")?;
            file
        }
    };
    file.sync_all().named("fsync")
}

plain! {
    /// The kernel's `struct file_handle` with room for every file system's handle.
    struct FileHandle {
        handle_bytes: u32,
        handle_type: i32,
        handle: [u8; 128],
    }
}

/// `handle PATH FLAGS [TEXT]`: opens the file by its handle instead of its path, and writes the
/// text.
pub fn open_by_handle(arguments: &Arguments) -> Result {
    let path = arguments.c_string(0)?;
    let flags = arguments.number(1)?;
    let mut handle = FileHandle {
        handle_bytes: 128,
        ..FileHandle::ZERO
    };
    let mut mount_id = [0; 4];
    call!(
        NameToHandleAt,
        libc::AT_FDCWD,
        &path,
        handle.bytes_mut(),
        &mut mount_id[..],
        0
    )
    .named("name_to_handle_at")?;
    let parent = match Path::new(arguments.path(0)?).parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let parent = File::open(parent).named("open of the directory")?;
    let file = call!(OpenByHandleAt, &parent, handle.bytes(), flags);
    let file = kernel::owned(file).named("open_by_handle_at")?;
    match arguments.optional(2) {
        Some(text) => File::from(file).write_all(text.as_bytes()).named("write"),
        None => Ok(()),
    }
}

/// `exchange PATH PATH`: renameat2 with RENAME_EXCHANGE.
pub fn exchange(arguments: &Arguments) -> Result {
    let (first, second) = (arguments.c_string(0)?, arguments.c_string(1)?);
    call!(
        Renameat2,
        libc::AT_FDCWD,
        &first,
        libc::AT_FDCWD,
        &second,
        libc::RENAME_EXCHANGE
    )
    .named("renameat2")
    .map(drop)
}
