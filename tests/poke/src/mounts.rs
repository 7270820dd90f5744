//! Mounts, without mount(2).

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::arguments::Arguments;
use crate::failure::{Failure, Named, Result};
use crate::kernel::{self, NULL, Plain, call, plain};

const FSCONFIG_SET_FLAG: i32 = 0;
const FSCONFIG_SET_STRING: i32 = 1;
const FSCONFIG_CMD_CREATE: i32 = 6;
const FSCONFIG_CMD_RECONFIGURE: i32 = 7;
const OPEN_TREE_CLONE: i32 = 1;
const MOVE_MOUNT_F_EMPTY_PATH: i32 = 4;
const MOVE_MOUNT_BENEATH: i32 = 0x200;

/// Attaches a mount that has no place yet.
fn attach(mount: &OwnedFd, to: &CStr, flags: i32) -> Result {
    call!(
        MoveMount,
        mount,
        c"",
        libc::AT_FDCWD,
        to,
        MOVE_MOUNT_F_EMPTY_PATH | flags
    )
    .named("move_mount")
    .map(drop)
}

/// A copy of the mount at a path.
fn clone_tree(path: &CStr) -> Result<OwnedFd> {
    kernel::owned(call!(OpenTree, libc::AT_FDCWD, path, OPEN_TREE_CLONE)).named("open_tree")
}

/// `fsmount TYPE TARGET [KEY[=VALUE]]...`: a new file system.
pub fn mount_new(arguments: &Arguments) -> Result {
    let target = arguments.c_string(1)?;
    let context = kernel::owned(call!(Fsopen, &arguments.c_string(0)?, 0)).named("fsopen")?;
    for option in arguments.from(2) {
        let (key, value) = key_and_value(option)?;
        match value {
            Some(value) => call!(Fsconfig, &context, FSCONFIG_SET_STRING, &key, &value, 0),
            None => call!(Fsconfig, &context, FSCONFIG_SET_FLAG, &key, NULL, 0),
        }
        .named("fsconfig")?;
    }
    let mount = call!(Fsconfig, &context, FSCONFIG_CMD_CREATE, NULL, NULL, 0)
        .and_then(|_| kernel::owned(call!(Fsmount, &context, 0, 0)))
        .named("fsmount")?;
    attach(&mount, &target, 0)
}

/// Splits `KEY=VALUE`.
fn key_and_value(option: &OsStr) -> Result<(CString, Option<CString>)> {
    let mut parts = option.as_bytes().splitn(2, |byte| *byte == b'=');
    let mut next = || parts.next().map(CString::new).transpose();
    match (next(), next()) {
        (Ok(Some(key)), Ok(value)) => Ok((key, value)),
        _ => Err(Failure::Usage),
    }
}

/// `clone SOURCE TARGET`: a bind mount by open_tree and move_mount.
pub fn bind(arguments: &Arguments) -> Result {
    attach(
        &clone_tree(&arguments.c_string(0)?)?,
        &arguments.c_string(1)?,
        0,
    )
}

/// `beneath SOURCE TARGET`: a bind mount below the mount at TARGET.
pub fn bind_beneath(arguments: &Arguments) -> Result {
    let tree = clone_tree(&arguments.c_string(0)?)?;
    attach(&tree, &arguments.c_string(1)?, MOVE_MOUNT_BENEATH)
}

/// `move SOURCE TARGET`: moves the mount itself.
pub fn move_mount(arguments: &Arguments) -> Result {
    call!(
        MoveMount,
        libc::AT_FDCWD,
        &arguments.c_string(0)?,
        libc::AT_FDCWD,
        &arguments.c_string(1)?,
        0
    )
    .named("move_mount")
    .map(drop)
}

plain! {
    /// The kernel's `struct mount_attr`.
    struct MountAttr {
        attr_set: u64,
        attr_clr: u64,
        propagation: u64,
        userns_fd: u64,
    }
}

/// `setattr PATH CLEAR SET [PROPAGATION]`: changes bits of MOUNT_ATTR_*.
pub fn set_attributes(arguments: &Arguments) -> Result {
    let attributes = MountAttr {
        attr_clr: arguments.number(1)?,
        attr_set: arguments.number(2)?,
        propagation: match arguments.optional(3) {
            Some(_) => arguments.number(3)?,
            None => 0,
        },
        ..MountAttr::ZERO
    };
    call!(
        MountSetattr,
        libc::AT_FDCWD,
        &arguments.c_string(0)?,
        0,
        attributes.bytes(),
        attributes.bytes().len()
    )
    .named("mount_setattr")
    .map(drop)
}

/// `reconfigure PATH KEY`: fspick and FSCONFIG_CMD_RECONFIGURE with a flag such as `rw`.
pub fn reconfigure(arguments: &Arguments) -> Result {
    let key = arguments.c_string(1)?;
    let context = call!(Fspick, libc::AT_FDCWD, &arguments.c_string(0)?, 0);
    let context = kernel::owned(context).named("fspick")?;
    call!(Fsconfig, &context, FSCONFIG_SET_FLAG, &key, NULL, 0).named("fsconfig")?;
    call!(Fsconfig, &context, FSCONFIG_CMD_RECONFIGURE, NULL, NULL, 0)
        .named("reconfigure")
        .map(drop)
}

/// `umount PATH FLAGS`.
pub fn unmount(arguments: &Arguments) -> Result {
    call!(Umount2, &arguments.c_string(0)?, arguments.number(1)?)
        .named("umount2")
        .map(drop)
}

/// `pivot NEW OLD`: changes the root, and changes it back. OLD is below NEW.
pub fn pivot(arguments: &Arguments) -> Result {
    let (new, old) = (arguments.path(0)?, arguments.path(1)?);
    call!(PivotRoot, &arguments.c_string(0)?, &arguments.c_string(1)?).named("pivot_root")?;
    // Now NEW is the root: OLD is at its rest, and NEW is below that.
    let rest = Path::new(old)
        .strip_prefix(new)
        .map_err(|_| Failure::Usage)?;
    let old_root = Path::new("/").join(rest);
    let mut back = old_root.as_os_str().as_bytes().to_vec();
    back.extend(new.as_bytes());
    let paths = CString::new(old_root.as_os_str().as_bytes())
        .and_then(|old| Ok((old, CString::new(back)?)));
    let (old_root, back) = paths.map_err(|_| Failure::Usage)?;
    let result = std::env::set_current_dir("/")
        .and_then(|()| call!(PivotRoot, &old_root, &back))
        .named("pivot_root back");
    if let Err(failure) = result {
        failure.report_code();
    }
    Ok(())
}
