//! The current state, read from the kernel: whether the boot report still holds.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use adamant_contract::policy::{Enforce, Level};
use adamant_contract::report::{BootReport, ReachedLevel};
use adamant_contract::sysctls;
use nix::sys::statvfs::{FsFlags, statvfs};
use serde_json::{Map, Value, json};

use crate::kernel::clock;
use crate::monitor::{self, scrub::ScrubState, services, volume_trouble::VolumeTrouble};

/// The file system of a volume.
pub struct Fill {
    /// Bytes in use.
    pub used: u64,
    /// All bytes.
    pub size: u64,
    /// Why it does not take writes.
    pub trouble: Option<VolumeTrouble>,
    /// Whether it is mounted nosuid, as the agent mounts volumes.
    pub safe: bool,
}

impl Fill {
    /// Percentage in use.
    pub fn percent(&self) -> u64 {
        self.used.saturating_mul(100) / self.size.max(1)
    }
}

/// The current state of the machine.
pub struct CurrentState {
    /// Whether the running root is the verified one.
    pub verified: bool,
    /// The kernel's lockdown mode; empty if it cannot be read.
    pub lockdown: String,
    /// Whether modules can be loaded.
    pub modules: bool,
    /// The file systems at the volumes' mount points, in the report's order.
    pub volumes: Vec<Option<Fill>>,
    /// Denials of the guard by hook; `None` without a guard, or if the caller is not root.
    pub denials: Option<Vec<(&'static str, u64)>>,
    /// State of the scrub; `None` if it never ran on this root.
    pub scrub: Option<ScrubState>,
    /// The agent's services that do not run, each with its state.
    pub idle_services: Vec<(&'static str, String)>,
    /// Seconds since the kernel started.
    pub uptime: u64,
    /// The clock, in seconds since 1970.
    pub clock: u64,
}

impl CurrentState {
    /// Reads the current state.
    pub fn read(report: &BootReport) -> CurrentState {
        let lockdown = fs::read_to_string(sysctls::LOCKDOWN).unwrap_or_default();
        CurrentState {
            verified: monitor::mapping_of(Path::new("/"), Path::new("/sys/dev/block")).is_some(),
            lockdown: sysctls::lockdown(&lockdown).to_owned(),
            modules: fs::read_to_string("/proc/sys/kernel/modules_disabled")
                .is_ok_and(|text| text.trim() == "0"),
            volumes: report
                .volumes
                .iter()
                .map(|volume| fill(&volume.mount))
                .collect(),
            denials: monitor::denials(),
            scrub: monitor::last_scrub().filter(|scrub| scrub.root_hash == report.root_hash),
            idle_services: services::idle_services(&services::ALL),
            uptime: nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME)
                .map_or(0, |time| time.tv_sec() as u64),
            clock: clock::now(),
        }
    }

    /// Returns a sentence for each requirement of the policy that does not hold.
    pub fn problems(&self, report: &BootReport) -> Vec<String> {
        let mut out = Vec::new();
        let mut add = |text: String| out.push(text);
        if !self.verified {
            add("The running root is not the one that was booted: restart the server.".to_owned());
        }
        let seal = &report.seal;
        if seal.enforce == Enforce::Require {
            for missing in &seal.missing {
                add([
                    "The seal lacks a part that the policy requires: ",
                    missing,
                    ".",
                ]
                .concat());
            }
        }
        if seal.reached == ReachedLevel::Guard
            && self.denials.is_none()
            && nix::unistd::geteuid().is_root()
        {
            add("The guard's counters cannot be read: restart the server.".to_owned());
        }
        if let Some(first) = self.scrub.as_ref().and_then(|scrub| scrub.first_error) {
            add([
                "The root has a corrupted block at byte ",
                &first.to_string(),
                ": replace the disk, or write the image to it again.",
            ]
            .concat());
        }
        let signature = &report.signature;
        let end = u64::try_from(signature.valid_until).unwrap_or(0);
        if let Some(signer) = &signature.signer
            && end != 0
            && self.clock > end
        {
            add([
                "The certificate of ",
                signer,
                ", which signed this image, expired ",
                &((self.clock - end) / 86_400).to_string(),
                " days ago. The server still starts. Sign the next image with a new certificate; if the date is wrong, correct the clock.",
            ]
            .concat());
        }
        let enforced = |prefix: &str| seal.enforced.iter().any(|part| part.starts_with(prefix));
        if seal.wanted != Level::Verity
            && enforced("lockdown")
            && !sysctls::is_locked(&self.lockdown)
        {
            add("The kernel's lockdown is off, or securityfs is no longer mounted at /sys/kernel/security: restart the server.".to_owned());
        }
        if enforced("kernel.modules_disabled") && self.modules {
            add(
                "Modules can be loaded although the seal disabled it: restart the server."
                    .to_owned(),
            );
        }
        for (service, state) in &self.idle_services {
            add([
                service,
                " is ",
                state,
                ": read its log (journalctl -u ",
                service,
                "), then restart the server.",
            ]
            .concat());
        }
        for (volume, now) in report.volumes.iter().zip(&self.volumes) {
            let why = match now {
                None => "is not mounted".to_owned(),
                Some(Fill {
                    trouble: Some(trouble),
                    ..
                }) => {
                    format!(
                        "is {trouble}. Read the kernel's log, then restart the server, which checks the volume"
                    )
                }
                Some(now) if !now.safe => "is mounted with other flags than the agent's".to_owned(),
                Some(_) => continue,
            };
            add([
                "The volume ",
                &volume.name,
                " at ",
                &volume.mount,
                " ",
                &why,
                ".",
            ]
            .concat());
        }
        out
    }

    /// Returns the member `now` of `status --json`.
    pub fn to_json(&self, problems: &[String]) -> Value {
        let volume = |now: &Option<Fill>| match now {
            Some(now) => {
                json!({"mounted": true, "used": now.used, "size": now.size, "read_only": now.trouble == Some(VolumeTrouble::ReadOnly), "trouble": now.trouble.as_ref().map(ToString::to_string)})
            }
            None => json!({"mounted": false}),
        };
        let volumes: Vec<Value> = self.volumes.iter().map(volume).collect();
        let denials = self.denials.as_ref().map(|all| {
            all.iter()
                .map(|(hook, count)| ((*hook).to_owned(), Value::from(*count)))
                .collect::<Map<_, _>>()
        });
        let scrub = self.scrub.as_ref().map(|scrub| json!({"position": scrub.position, "size": scrub.size, "last_full": scrub.last_full, "errors": scrub.errors, "first_error": scrub.first_error}));
        json!({"denials": denials, "scrub": scrub, "holds": problems.is_empty(), "problems": problems, "verified": self.verified, "lockdown": self.lockdown, "uptime": self.uptime, "volumes": volumes})
    }
}

/// Returns the file system that is mounted at `path`; `None` if `path` is no mount point.
fn fill(path: &str) -> Option<Fill> {
    let above = Path::new(path)
        .parent()
        .and_then(|parent| fs::metadata(parent).ok())
        .map(|found| found.dev());
    if fs::metadata(path).ok().map(|found| found.dev()) == above {
        return None;
    }
    let found = statvfs(path).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(found.fragment_size());
    let flags = found.flags();
    Some(Fill {
        used: bytes(found.blocks().saturating_sub(found.blocks_free())),
        size: bytes(found.blocks()),
        trouble: VolumeTrouble::find(Path::new(path)),
        safe: flags.contains(FsFlags::ST_NOSUID),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_root_and_a_folder_without_a_mount_are_recognized() {
        assert!(monitor::mapping_of(Path::new("/"), Path::new("/nowhere")).is_none());
        assert!(fill("/usr").is_none() && fill("/proc").is_some());
    }
}
