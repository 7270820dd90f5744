//! What the level `lockdown` sets below /proc/sys: the seal writes it, and the running machine is
//! compared with it.

/// A setting below /proc/sys: its path, its value, and whether the level stands on it.
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
/// Closes module loading until the next start. Set last, and not where the guard lets the image's
/// modules be loaded on request.
pub const NO_MODULES: (&str, &str, bool) = ("kernel/modules_disabled", "1", true);
/// Its path, beside the others: its value depends on an exception.
pub const PTRACE: &str = "kernel/yama/ptrace_scope";

/// The value of [`PTRACE`]: with 3 it can't be lowered again; a debugger attaches with 1, to its
/// children and with CAP_SYS_PTRACE.
pub fn ptrace_scope(debug: bool) -> &'static str {
    if debug { "1" } else { "3" }
}

/// Whether a setting that is read as `now` is as strict as it should be. Some can only be raised,
/// and stand higher.
pub fn holds(now: &str, wanted: &str) -> bool {
    now == wanted
        || matches!((now.parse::<u32>(), wanted.parse::<u32>()), (Ok(now), Ok(wanted)) if now > wanted && wanted > 0)
}

/// Where securityfs is mounted.
pub const SECURITY: &str = "/sys/kernel/security";
/// The kernel's lockdown: its words, the one that is in force in brackets.
pub const LOCKDOWN: &str = "/sys/kernel/security/lockdown";

/// The word in brackets of what [`LOCKDOWN`] holds; empty where there is none.
pub fn lockdown(text: &str) -> &str {
    text.split('[')
        .nth(1)
        .and_then(|rest| rest.split(']').next())
        .unwrap_or_default()
}

/// Whether that word keeps the kernel from being changed.
pub fn is_locked(word: &str) -> bool {
    matches!(word, "integrity" | "confidentiality")
}

#[cfg(test)]
mod tests {
    use super::{holds, is_locked, lockdown};

    #[test]
    fn the_word_in_brackets_is_the_one_in_force() {
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
    fn stricter_holds_and_looser_does_not() {
        for (now, wanted, yes) in [
            ("1", "1", true),
            ("2", "1", true),
            ("0", "1", false),
            ("2", "0", false),
            ("core", "|/bin/false", false),
            ("", "1", false),
            ("-1", "3", false),
        ] {
            assert_eq!(holds(now, wanted), yes, "{now} {wanted}");
        }
    }
}
