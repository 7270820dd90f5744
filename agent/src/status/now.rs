//! What of the boot's report still holds, asked of the kernel anew.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use adamant_contract::sysctls;
use nix::sys::statvfs::{FsFlags, statvfs};
use serde_json::{Map, Value, json};

use crate::monitor::{self, scrub::State};

/// A volume's file system.
pub struct Fill {
    /// Bytes in use, and all of them.
    pub used: u64,
    /// All bytes.
    pub size: u64,
    /// The kernel takes no writes: the policy of ext4 after an error.
    pub read_only: bool,
    /// nosuid, nodev and noexec.
    pub safe: bool,
}

/// What was asked.
pub struct Now {
    /// Whether the running root is the verified one.
    pub verified: bool,
    /// The word in brackets of the kernel's lockdown; empty where there is none to be read.
    pub lockdown: String,
    /// Whether modules can be loaded.
    pub modules: bool,
    /// The file systems at the volumes' mount points, in the report's order.
    pub volumes: Vec<Option<Fill>>,
    /// How often the guard refused, by hook; `None` where there is none to be asked, or somebody
    /// else than root asks.
    pub denials: Option<Vec<(&'static str, u64)>>,
    /// What reading the root has found; `None` where it was never read.
    pub scrub: Option<State>,
    /// Seconds since the kernel started.
    pub uptime: u64,
}

impl Now {
    /// Asks.
    pub fn ask(report: &Value) -> Now {
        let lockdown = fs::read_to_string(sysctls::LOCKDOWN).unwrap_or_default();
        let mounts = super::list(report, "/volumes")
            .iter()
            .map(|volume| super::text(volume, "/mount").to_owned());
        Now {
            verified: monitor::mapping_of(Path::new("/"), Path::new("/sys/dev/block")).is_some(),
            lockdown: sysctls::lockdown(&lockdown).to_owned(),
            modules: fs::read_to_string("/proc/sys/kernel/modules_disabled")
                .is_ok_and(|text| text.trim() == "0"),
            volumes: mounts.map(|mount| fill(&mount)).collect(),
            denials: monitor::denials(),
            scrub: monitor::last_scrub()
                .filter(|scrub| scrub.root_hash == super::text(report, "/root_hash")),
            uptime: nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME)
                .map_or(0, |time| time.tv_sec() as u64),
        }
    }

    /// What the policy requires and does not hold: each a sentence.
    pub fn problems(&self, report: &Value) -> Vec<String> {
        let mut out = Vec::new();
        let mut add = |text: String| out.push(text);
        if !self.verified {
            add("What runs is not the root that was booted: restart the server.".to_owned());
        }
        let wanted = super::text(report, "/seal/wanted");
        let required = super::text(report, "/seal/enforce") == "require";
        for missing in super::list(report, "/seal/missing") {
            if required {
                add([
                    "The seal lacks what the policy requires: ",
                    missing.as_str().unwrap_or_default(),
                    ".",
                ]
                .concat());
            }
        }
        if super::text(report, "/seal/reached") == "guard"
            && self.denials.is_none()
            && nix::unistd::geteuid().is_root()
        {
            add("The guard does not answer: restart the server.".to_owned());
        }
        if let Some(first) = self.scrub.as_ref().and_then(|scrub| scrub.first_error) {
            add([
                "The disk has a bad block at byte ",
                &first.to_string(),
                " of the root: replace the disk, or write the image again.",
            ]
            .concat());
        }
        let enforced = |what: &str| {
            super::list(report, "/seal/enforced")
                .iter()
                .any(|one| one.as_str().is_some_and(|one| one.starts_with(what)))
        };
        if wanted != "verity" && enforced("lockdown") && !sysctls::is_locked(&self.lockdown) {
            add(
                "The kernel's lockdown is gone, or /sys/kernel/security is not what it was."
                    .to_owned(),
            );
        }
        if enforced("kernel.modules_disabled") && self.modules {
            add("Modules can be loaded again.".to_owned());
        }
        for (volume, now) in super::list(report, "/volumes").iter().zip(&self.volumes) {
            let (name, mount) = (super::text(volume, "/name"), super::text(volume, "/mount"));
            let why = match now {
                None => "is not mounted",
                Some(now) if now.read_only => {
                    "takes no writes any more: see the kernel's log, then restart the server, which checks the volume"
                }
                Some(now) if !now.safe => "was mounted with other flags than the agent's",
                Some(_) => continue,
            };
            add(["The volume ", name, " at ", mount, " ", why, "."].concat());
        }
        out
    }

    /// For `--json`.
    pub fn to_json(&self, problems: &[String]) -> Value {
        let volume = |now: &Option<Fill>| match now {
            Some(now) => {
                json!({"mounted": true, "used": now.used, "size": now.size, "read_only": now.read_only})
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

/// The file system that is mounted here, and none that only lies above it.
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
        read_only: flags.contains(FsFlags::ST_RDONLY),
        safe: flags.contains(FsFlags::ST_NOSUID),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_that_is_not_the_mapping_and_a_folder_that_is_no_volume_are_seen() {
        assert!(monitor::mapping_of(Path::new("/"), Path::new("/nowhere")).is_none());
        assert!(fill("/usr").is_none() && fill("/proc").is_some());
    }
}
