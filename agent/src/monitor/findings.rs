//! Differences between the running machine and its policy, as the kernel reports them now.
//!
//! Nothing is stored. `drift` reports all findings; `watch` compares twice and reports the new
//! ones.

use std::path::Path;

use adamant_contract::paths::{BOOT_REPORT_PATH, ROOT_MAPPING};
use adamant_contract::policy::{Level, Policy};
use adamant_contract::report::{BootReport, ModuleLoadingReport};
use adamant_contract::sysctls::{
    LOCKDOWN, NO_MODULES, PTRACE, SETTINGS, is_as_strict, lockdown, ptrace_scope,
};

use super::finding::{Class, Finding};
use super::mounts::{self, Mount};
use super::{VerifiedDevice, read};
use crate::kernel::block;
use crate::kernel::dm::{self, VerityStatus};

/// The mounts of PID 1. A service may have a mount namespace of its own.
pub const MOUNTS: &str = "/proc/1/mountinfo";
/// Taint bits that mean that the kernel runs other code than the image's kernel and modules:
/// proprietary, forced, force-unloaded, user, overridden ACPI table, out-of-tree, unsigned, live
/// patch, test (Documentation/admin-guide/tainted-kernels.rst).
const TAINT: u64 = 1 | 1 << 1 | 1 << 3 | 1 << 6 | 1 << 8 | 1 << 12 | 1 << 13 | 1 << 15 | 1 << 18;

/// Returns all findings.
pub fn all_findings(policy: &Policy) -> Vec<Finding> {
    let mut found = Vec::new();
    check_verity(&mut found);
    check_mounts(policy, &mut found);
    check_kernel(policy, &|path| read(path).ok(), &mut found);
    found
}

/// Adds the findings about mounts.
pub fn check_mounts(policy: &Policy, found: &mut Vec<Finding>) {
    let text = match read(MOUNTS) {
        Ok(text) => text,
        Err(error) => {
            return found.push(Finding::new(
                Class::Mounts,
                MOUNTS,
                &error.to_string(),
                "readable",
            ));
        }
    };
    let table: Vec<Mount> = text.lines().filter_map(Mount::parse).collect();
    mounts::compare(&table, policy, &label, found);
}

/// The label of the partition with a device number.
fn label(device: &str) -> Option<String> {
    block::label(&Path::new("/sys/dev/block").join(device))
}

/// Adds the findings about the verified root.
fn check_verity(found: &mut Vec<Finding>) {
    let mut add = |object: &str, actual: &str, expected: &str| {
        found.push(Finding::new(Class::Verity, object, actual, expected));
    };
    if let Err(error) = VerifiedDevice::find() {
        add("the root", &error.to_string(), "the verified device");
    }
    match dm::verity_status(ROOT_MAPPING) {
        Ok(VerityStatus::Valid) => {}
        Ok(VerityStatus::Corrupted) => add(
            "the root",
            "corrupted: dm-verity found a corrupted block",
            "as its root hash says",
        ),
        Err(error) => add("the root's device", &error.to_string(), "V"),
    }
    // The table begins with the version, the data device and the hash device.
    for device in dm::table(ROOT_MAPPING)
        .unwrap_or_default()
        .split(' ')
        .skip(1)
        .take(2)
    {
        let read_only = read(&["/sys/dev/block/", device, "/ro"].concat());
        if read_only.is_ok_and(|text| text.trim_end() != "1") {
            let partition = ["partition ", device, " below the root"].concat();
            add(&partition, "writable", "read-only");
        }
    }
}

/// Whether the guard allows modules of the image to be loaded on request: both the policy and the
/// boot report must say so. `read` reads a file.
pub fn loads_modules_on_request(policy: &Policy, read: &dyn Fn(&str) -> Option<String>) -> bool {
    policy.seal.loads_modules_on_request()
        && read(BOOT_REPORT_PATH)
            .and_then(|report| crate::monitor::json::from_text::<BootReport>(&report))
            .is_some_and(|report| report.seal.module_loading == ModuleLoadingReport::Image)
}

/// Adds the findings about the kernel's settings. `read` reads a file.
fn check_kernel(policy: &Policy, read: &dyn Fn(&str) -> Option<String>, found: &mut Vec<Finding>) {
    let mut add = |setting: &str, actual: &str, expected: &str| {
        found.push(Finding::new(Class::Sysctls, setting, actual, expected));
    };
    if policy.seal.level >= Level::Lockdown {
        let scope = (PTRACE, ptrace_scope(policy.seal.allow.debug), false);
        let closed = (!loads_modules_on_request(policy, read)).then_some(NO_MODULES);
        for (path, wanted, needed) in SETTINGS.into_iter().chain([scope]).chain(closed) {
            let name = path.replace('/', ".");
            match read(&["/proc/sys/", path].concat()) {
                Some(now) if is_as_strict(now.trim(), wanted) => {}
                Some(now) => add(&name, now.trim(), wanted),
                // This kernel does not have the setting.
                None if !needed => {}
                None => add(&name, "not readable", wanted),
            }
        }
        // Without securityfs the lockdown mode cannot be read.
        if let Some(now) = read(LOCKDOWN)
            && lockdown(&now) == "none"
        {
            add("lockdown", "none", "integrity");
        }
    }
    let taint = read("/proc/sys/kernel/tainted")
        .and_then(|text| text.trim().parse::<u64>().ok())
        .unwrap_or(0);
    if taint & TAINT != 0 {
        add(
            "kernel.tainted",
            &taint.to_string(),
            "0: the kernel runs code that is not from the image",
        );
    }
}

#[cfg(test)]
mod tests {
    use adamant_contract::report::SealReport;

    use super::*;

    fn policy(level: &str) -> Policy {
        Policy::parse(format!(r#"{{"version": 1, "image": {{"id": "a", "version": "1"}}, "seal": {{"level": "{level}"}}}}"#).as_bytes()).unwrap()
    }

    fn sealed(path: &str) -> Option<String> {
        match path {
            LOCKDOWN => Some("none [integrity] confidentiality\n".to_owned()),
            "/proc/sys/kernel/tainted" => Some("512\n".to_owned()),
            "/proc/sys/kernel/yama/ptrace_scope" => Some("3\n".to_owned()),
            _ => SETTINGS
                .iter()
                .chain([&NO_MODULES])
                .find(|setting| ["/proc/sys/", setting.0].concat() == path)
                .map(|setting| [setting.1, "\n"].concat()),
        }
    }

    #[test]
    fn a_sealed_kernel_has_no_findings_and_each_change_is_one() {
        let lines = |level: &str, path: &str, value: Option<&str>| {
            let mut found = Vec::new();
            check_kernel(
                &policy(level),
                &|asked| {
                    if asked == path {
                        value.map(str::to_owned)
                    } else {
                        sealed(asked)
                    }
                },
                &mut found,
            );
            found.iter().map(Finding::line).collect::<Vec<_>>()
        };
        assert_eq!(lines("guard", "", None), [""; 0]);
        assert_eq!(
            lines("lockdown", "/proc/sys/kernel/modules_disabled", Some("0\n")),
            ["sysctls: kernel.modules_disabled: is 0, should be 1"]
        );
        assert_eq!(
            lines("lockdown", LOCKDOWN, Some("[none] integrity\n")),
            ["sysctls: lockdown: is none, should be integrity"]
        );
        assert_eq!(
            lines("lockdown", "/proc/sys/kernel/kexec_load_disabled", None),
            [""; 0]
        );
        assert_eq!(
            lines("verity", "/proc/sys/kernel/modules_disabled", Some("0\n")),
            [""; 0]
        );
        // Module loading may be open only if both the policy and the boot report say so.
        let report = |module_loading: ModuleLoadingReport| {
            let seal = SealReport {
                module_loading,
                ..Default::default()
            };
            serde_json::to_string(&BootReport {
                seal,
                policy: Some(policy("guard")),
                ..BootReport::default()
            })
            .unwrap()
        };
        let open = |level: &str, module_loading: ModuleLoadingReport| {
            let mut found = Vec::new();
            let read = |asked: &str| match asked {
                BOOT_REPORT_PATH => Some(report(module_loading)),
                "/proc/sys/kernel/modules_disabled" => Some("0\n".to_owned()),
                other => sealed(other),
            };
            check_kernel(&policy(level), &read, &mut found);
            found.len()
        };
        assert_eq!(
            (
                open("guard", ModuleLoadingReport::Image),
                open("guard", ModuleLoadingReport::Boot),
                open("lockdown", ModuleLoadingReport::Image)
            ),
            (0, 1, 1)
        );
        assert!(
            lines("verity", "/proc/sys/kernel/tainted", Some("4096\n"))[0]
                .starts_with("sysctls: kernel.tainted: is 4096")
        );
    }
}
