//! The kernel settings of level `lockdown` below /proc/sys. The seal writes them, and
//! `adamant-agent drift` compares the running machine with them.

/// The settings: path below /proc/sys, value, and whether the level requires it.
pub const SETTINGS: [(&str, &str, bool); 15] = [
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
];
/// Disables module loading until the next boot. Set last, and not if the guard lets the image's
/// modules be loaded on request.
pub const NO_MODULES: (&str, &str, bool) = ("kernel/modules_disabled", "1", true);
/// The path of a further setting, whose value depends on an exception.
pub const PTRACE: &str = "kernel/yama/ptrace_scope";

/// The value of [`PTRACE`]. 3 can't be lowered again. With 1, a debugger can attach to its
/// children, and with CAP_SYS_PTRACE to all processes.
pub fn ptrace_scope(debug: bool) -> &'static str {
    if debug { "1" } else { "3" }
}

/// Whether the value `now` is at least as strict as `wanted`. Some settings can only be raised and
/// may be higher.
pub fn is_as_strict(now: &str, wanted: &str) -> bool {
    now == wanted
        || matches!((now.parse::<u32>(), wanted.parse::<u32>()), (Ok(now), Ok(wanted)) if now > wanted && wanted > 0)
}

/// The mount point of securityfs.
pub const SECURITY: &str = "/sys/kernel/security";
/// The kernel's lockdown file: all modes, with the current one in brackets.
pub const LOCKDOWN: &str = "/sys/kernel/security/lockdown";

/// The active lockdown mode, which [`LOCKDOWN`] shows in brackets; empty if it shows none.
pub fn lockdown(text: &str) -> &str {
    text.split('[')
        .nth(1)
        .and_then(|rest| rest.split(']').next())
        .unwrap_or_default()
}

/// Whether this mode keeps the kernel from being changed.
pub fn is_locked(word: &str) -> bool {
    matches!(word, "integrity" | "confidentiality")
}

#[cfg(test)]
mod tests {
    use super::{is_as_strict, is_locked, lockdown};

    #[test]
    fn finds_the_lockdown_mode_in_brackets() {
        assert_eq!(
            [
                "[none] integrity confidentiality\n",
                "none [integrity] confidentiality\n",
                "",
                "none"
            ]
            .map(lockdown),
            ["none", "integrity", "", ""]
        );
        assert!(
            is_locked("integrity")
                && is_locked("confidentiality")
                && !is_locked("none")
                && !is_locked("")
        );
    }

    #[test]
    fn accepts_stricter_values_and_refuses_looser_ones() {
        for (now, wanted, yes) in [
            ("1", "1", true),
            ("2", "1", true),
            ("0", "1", false),
            ("2", "0", false),
            ("core", "|/bin/false", false),
            ("", "1", false),
            ("-1", "3", false),
        ] {
            assert_eq!(is_as_strict(now, wanted), yes, "{now} {wanted}");
        }
    }
}
