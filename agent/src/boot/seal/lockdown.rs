//! Level `lockdown`: the kernel can't be changed, by modules, another kernel, its memory or its settings.
//!
//! Every setting is read back. One that this kernel does not have is no setting; those that the level stands on must be there.

use std::fs;
use std::io;

use adamant_agent::policy::Allow;
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};

use super::super::Context;
use super::{enforced, missing};

const SECURITY: &str = "/sys/kernel/security";

/// A setting below /proc/sys: its path, its value, and whether the level stands on it.
const SETTINGS: [(&str, &str, bool); 16] = [
    ("kernel/kexec_load_disabled", "1", false),
    ("kernel/unprivileged_bpf_disabled", "1", true),
    ("net/core/bpf_jit_harden", "2", false),
    ("kernel/kptr_restrict", "2", true),
    ("kernel/dmesg_restrict", "1", true),
    ("kernel/perf_event_paranoid", "3", false),
    ("kernel/legacy_tiocsti_restrict", "1", false),
    ("kernel/randomize_va_space", "2", true),
    ("kernel/sysrq", "0", false),
    ("kernel/core_pattern", "|/bin/false", false),
    ("fs/suid_dumpable", "0", true),
    ("fs/protected_symlinks", "1", true),
    ("fs/protected_hardlinks", "1", true),
    ("fs/protected_fifos", "2", true),
    ("fs/protected_regular", "2", true),
    // The last: no module of the image's is loaded after it.
    ("kernel/modules_disabled", "1", true),
];

/// Seals.
pub fn seal(allow: &Allow, context: &mut Context) {
    match lock() {
        Ok(()) => enforced(context, "lockdown=integrity"),
        Err(why) => missing(context, why),
    }
    // With 3 it can't be lowered again; a debugger attaches with 1, to its children and with CAP_SYS_PTRACE.
    set("kernel/yama/ptrace_scope", if allow.debug { "1" } else { "3" }, false, context);
    for (path, value, needed) in SETTINGS {
        set(path, value, needed, context);
    }
}

/// The kernel's lockdown: only the words behind the one in brackets can still be chosen.
fn lock() -> Result<(), String> {
    match mount(Some("securityfs"), SECURITY, Some("securityfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC, None::<&str>) {
        Ok(()) | Err(Errno::EBUSY) => {}
        Err(error) => return Err(format!("{SECURITY} can't be mounted: {}", error.desc())),
    }
    let path = format!("{SECURITY}/lockdown");
    let read = || {
        fs::read_to_string(&path).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => "the kernel has no lockdown (CONFIG_SECURITY_LOCKDOWN_LSM, and lockdown in lsm=)".to_owned(),
            _ => format!("{path}: {e}"),
        })
    };
    if read()?.contains("[none]") {
        fs::write(&path, "integrity").map_err(|e| format!("{path}: {e}"))?;
    }
    let now = read()?;
    if now.contains("[integrity]") || now.contains("[confidentiality]") { Ok(()) } else { Err(format!("{path} says {}", now.trim())) }
}

fn set(path: &str, value: &str, needed: bool, context: &mut Context) {
    let file = ["/proc/sys/", path].concat();
    let name = path.replace('/', ".");
    let written = fs::write(&file, value);
    match fs::read_to_string(&file) {
        // Some can only be raised, and stand higher already.
        Ok(now) if now.trim() == value || now.trim().parse::<u32>().ok() > value.parse().ok() => enforced(context, [&name, "=", now.trim()].concat()),
        Ok(now) => missing(context, format!("{name} is {} instead of {value}{}", now.trim(), written.err().map(|e| format!(": {e}")).unwrap_or_default())),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !needed => {}
        Err(error) => missing(context, format!("{name}: {error}")),
    }
}
