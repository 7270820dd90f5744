//! What of the running machine is not as the policy and the seal have it, as the kernel tells it
//! now.
//!
//! Nothing is remembered: the same question gives the same answer to `watch`, which tells what is
//! new in it, and to `drift`, which tells all.

use std::path::Path;

use adamant_contract::paths::{BOOT_REPORT_PATH, ROOT_MAPPING};
use adamant_contract::policy::{Level, Policy};
use adamant_contract::sysctls::{
    LOCKDOWN, NO_MODULES, ON_REQUEST, PTRACE, SETTINGS, holds, lockdown, ptrace_scope,
};

use super::mounts::{self, Mount};
use super::{Root, members, read, value};
use crate::kernel::block;
use crate::kernel::dm::{self, VerityStatus};

/// PID 1's: a service may have a mount namespace of its own.
pub const MOUNTS: &str = "/proc/1/mountinfo";
/// Bits of the kernel's taint that stand for another code than the image's kernel and modules:
/// proprietary, forced, force-unloaded, user, overridden ACPI table, out-of-tree, unsigned, live
/// patch, test (Documentation/admin-guide/tainted-kernels.rst).
const TAINT: u64 = 1 | 1 << 1 | 1 << 3 | 1 << 6 | 1 << 8 | 1 << 12 | 1 << 13 | 1 << 15 | 1 << 18;

/// One difference.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// mounts, sysctls, verity, units or executables.
    pub class: &'static str,
    /// What it is about.
    pub what: String,
    pub is: String,
    pub should: String,
}

impl Finding {
    pub fn new(class: &'static str, what: &str, is: &str, should: &str) -> Finding {
        Finding {
            class,
            what: what.to_owned(),
            is: is.to_owned(),
            should: should.to_owned(),
        }
    }

    /// For programs: members of an object of JSON.
    pub fn members(&self) -> String {
        members(&[
            ("what", &self.what),
            ("is", &self.is),
            ("should", &self.should),
        ])
    }

    /// For a person.
    pub fn line(&self) -> String {
        [
            self.class,
            ": ",
            &self.what,
            ": is ",
            &self.is,
            ", should be ",
            &self.should,
        ]
        .concat()
    }
}

/// All.
pub fn all(policy: &Policy) -> Vec<Finding> {
    let mut found = Vec::new();
    verity(&mut found);
    of_mounts(policy, &mut found);
    kernel(policy, &|path| read(path).ok(), &mut found);
    found
}

/// Those of mounts.
pub fn of_mounts(policy: &Policy, found: &mut Vec<Finding>) {
    let text = match read(MOUNTS) {
        Ok(text) => text,
        Err(error) => {
            return found.push(Finding::new(
                "mounts",
                MOUNTS,
                &error.to_string(),
                "readable",
            ));
        }
    };
    let table: Vec<Mount> = text.lines().filter_map(Mount::parse).collect();
    mounts::compare(&table, policy, &label, found);
}

/// The partition's label behind a device number.
fn label(device: &str) -> Option<String> {
    block::label(&Path::new("/sys/dev/block").join(device))
}

/// Those of the verified root.
fn verity(found: &mut Vec<Finding>) {
    if let Err(why) = Root::find() {
        found.push(Finding::new(
            "verity",
            "the root",
            &why,
            "the verified device",
        ));
    }
    match dm::verity_status(ROOT_MAPPING) {
        Ok(VerityStatus::Valid) => {}
        Ok(VerityStatus::Corrupted) => found.push(Finding::new(
            "verity",
            "the root",
            "corrupted: a bad block was read",
            "as its root hash says",
        )),
        Err(error) => found.push(Finding::new(
            "verity",
            "the root's device",
            &error.to_string(),
            "V",
        )),
    }
    // Version, data, tree.
    for device in dm::table(ROOT_MAPPING)
        .unwrap_or_default()
        .split(' ')
        .skip(1)
        .take(2)
    {
        let read_only = read(&["/sys/dev/block/", device, "/ro"].concat());
        if read_only.is_ok_and(|text| text.trim_end() != "1") {
            found.push(Finding::new(
                "verity",
                &["partition ", device, " below the root"].concat(),
                "writable",
                "read-only",
            ));
        }
    }
}

/// Whether the guard lets the image's modules be loaded on request: the policy says so, and the
/// seal did so. `read` reads a file.
pub fn loads_modules_on_request(policy: &Policy, read: &dyn Fn(&str) -> Option<String>) -> bool {
    // The policy in the report has the same key, behind this one.
    policy.seal.loads_modules_on_request()
        && read(BOOT_REPORT_PATH)
            .is_some_and(|report| value(&report, "module_loading") == Some(ON_REQUEST))
}

/// Those of the kernel's settings. `read` reads a file.
fn kernel(policy: &Policy, read: &dyn Fn(&str) -> Option<String>, found: &mut Vec<Finding>) {
    if policy.seal.level >= Level::Lockdown {
        let scope = (PTRACE, ptrace_scope(policy.seal.allow.debug), false);
        let closed = (!loads_modules_on_request(policy, read)).then_some(NO_MODULES);
        for (path, wanted, needed) in SETTINGS.into_iter().chain([scope]).chain(closed) {
            match read(&["/proc/sys/", path].concat()) {
                Some(now) if holds(now.trim(), wanted) => {}
                Some(now) => found.push(Finding::new(
                    "sysctls",
                    &path.replace('/', "."),
                    now.trim(),
                    wanted,
                )),
                // This kernel does not have it.
                None if !needed => {}
                None => found.push(Finding::new(
                    "sysctls",
                    &path.replace('/', "."),
                    "not readable",
                    wanted,
                )),
            }
        }
        // Where securityfs is not mounted, nobody can ask.
        if let Some(now) = read(LOCKDOWN)
            && lockdown(&now) == "none"
        {
            found.push(Finding::new("sysctls", "lockdown", "none", "integrity"));
        }
    }
    let taint = read("/proc/sys/kernel/tainted")
        .and_then(|text| text.trim().parse::<u64>().ok())
        .unwrap_or(0);
    if taint & TAINT != 0 {
        found.push(Finding::new(
            "sysctls",
            "kernel.tainted",
            &taint.to_string(),
            "0: the kernel runs what the image did not bring",
        ));
    }
}

#[cfg(test)]
mod tests {
    use adamant_contract::report::BootReport;

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
        let look = |level: &str, path: &str, value: Option<&str>| {
            let mut found = Vec::new();
            kernel(
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
        assert_eq!(look("guard", "", None), [""; 0]);
        assert_eq!(
            look("lockdown", "/proc/sys/kernel/modules_disabled", Some("0\n")),
            ["sysctls: kernel.modules_disabled: is 0, should be 1"]
        );
        assert_eq!(
            look("lockdown", LOCKDOWN, Some("[none] integrity\n")),
            ["sysctls: lockdown: is none, should be integrity"]
        );
        assert_eq!(
            look("lockdown", "/proc/sys/kernel/kexec_load_disabled", None),
            [""; 0]
        );
        assert_eq!(
            look("verity", "/proc/sys/kernel/modules_disabled", Some("0\n")),
            [""; 0]
        );
        // Open for the image's modules: only where the policy has it, and the seal has done so.
        let report = |module_loading: &str| {
            let seal = adamant_contract::report::Seal {
                module_loading: module_loading.to_owned(),
                ..Default::default()
            };
            serde_json::to_string(&BootReport {
                seal,
                policy: Some(policy("guard")),
                ..BootReport::default()
            })
            .unwrap()
        };
        let open = |level: &str, module_loading: &str| {
            let mut found = Vec::new();
            let read = |asked: &str| match asked {
                BOOT_REPORT_PATH => Some(report(module_loading)),
                "/proc/sys/kernel/modules_disabled" => Some("0\n".to_owned()),
                other => sealed(other),
            };
            kernel(&policy(level), &read, &mut found);
            found.len()
        };
        assert_eq!(
            (
                open("guard", "image"),
                open("guard", "boot"),
                open("lockdown", "image")
            ),
            (0, 1, 1)
        );
        assert!(
            look("verity", "/proc/sys/kernel/tainted", Some("4096\n"))[0]
                .starts_with("sysctls: kernel.tainted: is 4096")
        );
    }
}
