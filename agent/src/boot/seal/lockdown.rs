//! Level `lockdown`: the kernel can't be changed through modules, kexec, its memory or its
//! settings.
//!
//! Every setting is read back. The level needs some settings; this kernel may lack the others.

use std::fs;
use std::io;

use adamant_contract::policy::Allow;
use adamant_contract::sysctls::{
    LOCKDOWN, NO_MODULES, PTRACE, SECURITY, SETTINGS, is_as_strict, is_locked, lockdown,
    ptrace_scope,
};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};

use super::super::Context;
use super::{enforced, missing};

/// Puts the level in force, except for [`close_module_loading`].
pub fn apply_lockdown_level(allow: &Allow, context: &mut Context) {
    match lock() {
        Ok(()) => enforced(context, "lockdown=integrity"),
        Err(why) => missing(context, why),
    }
    set(PTRACE, ptrace_scope(allow.debug), false, context);
    for (path, value, needed) in SETTINGS {
        set(path, value, needed, context);
    }
}

/// Disables module loading until the next boot.
pub fn close_module_loading(context: &mut Context) {
    let (path, value, needed) = NO_MODULES;
    set(path, value, needed, context);
}

/// Mounts securityfs, in which the kernel lists its security modules.
pub fn mount_securityfs() -> Result<(), String> {
    match mount(
        Some("securityfs"),
        SECURITY,
        Some("securityfs"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
        None::<&str>,
    ) {
        Ok(()) | Err(Errno::EBUSY) => Ok(()),
        Err(error) => Err(format!("{SECURITY} can't be mounted: {}", error.desc())),
    }
}

/// Sets the kernel's lockdown. The mode can only become stricter.
fn lock() -> Result<(), String> {
    mount_securityfs()?;
    let read = || {
        fs::read_to_string(LOCKDOWN).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => {
                "the kernel has no lockdown (CONFIG_SECURITY_LOCKDOWN_LSM, and lockdown in lsm=)"
                    .to_owned()
            }
            _ => format!("{LOCKDOWN}: {e}"),
        })
    };
    if lockdown(&read()?) == "none" {
        fs::write(LOCKDOWN, "integrity").map_err(|e| format!("{LOCKDOWN}: {e}"))?;
    }
    let now = read()?;
    if is_locked(lockdown(&now)) {
        Ok(())
    } else {
        Err(format!("{LOCKDOWN} is {}", now.trim()))
    }
}

fn set(path: &str, value: &str, needed: bool, context: &mut Context) {
    let file = ["/proc/sys/", path].concat();
    let name = path.replace('/', ".");
    let written = fs::write(&file, value);
    match fs::read_to_string(&file) {
        Ok(now) if is_as_strict(now.trim(), value) => {
            enforced(context, [&name, "=", now.trim()].concat())
        }
        Ok(now) => missing(
            context,
            format!(
                "{name} is {} instead of {value}{}",
                now.trim(),
                written.err().map(|e| format!(": {e}")).unwrap_or_default()
            ),
        ),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !needed => {}
        Err(error) => missing(context, format!("{name}: {error}")),
    }
}
