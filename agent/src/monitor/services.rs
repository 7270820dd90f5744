//! Whether the agent's services run. A server whose watch has stopped reports nothing, so status
//! and drift check it.
//!
//! The image decides which services it has. Their cgroups tell whether they run: the guard lets
//! only systemd put processes there.

use std::fs;
use std::path::Path;

use super::finding::{Class, Finding};
use super::outlets;
use crate::kernel::clock::since_kernel_start;

/// The service that reports violations.
const WATCH: &str = "adamant-watch.service";
/// The service that reads the root.
pub const SCRUB: &str = "adamant-scrub.service";
/// All of them.
pub const ALL: [&str; 2] = [WATCH, SCRUB];
/// Directories of units and of the links that enable them.
const UNITS: [&str; 2] = ["etc/systemd/system", "usr/lib/systemd/system"];
/// In the first seconds after the kernel's start, a missing service counts as starting.
const STARTING: u64 = 120;
/// Seconds without a comparison after which the watch counts as hung. It compares each minute.
const HANGS: u64 = 300;

/// Adds a finding for each of these services that is enabled and does not run.
pub fn check_services(services: &[&'static str], found: &mut Vec<Finding>) {
    found.extend(
        idle_services(services)
            .into_iter()
            .map(|(service, actual)| Finding::new(Class::Services, service, &actual, "running")),
    );
}

/// Those of these services that are enabled and do not run, each with its state.
pub fn idle_services(services: &[&'static str]) -> Vec<(&'static str, String)> {
    let now = since_kernel_start() / 1_000_000;
    idle_at(Path::new("/"), services, now, outlets::last_comparison())
}

/// As [`idle_services`], with the seconds since the kernel started, now and at the last comparison
/// of the watch.
fn idle_at(
    root: &Path,
    services: &[&'static str],
    now: u64,
    compared: Option<u64>,
) -> Vec<(&'static str, String)> {
    let cgroups = root.join("sys/fs/cgroup");
    // Without cgroup v2 the guard does not know the services either.
    if now < STARTING || !cgroups.join("cgroup.controllers").exists() {
        return Vec::new();
    }
    let state = |service| {
        let events = cgroups
            .join("system.slice")
            .join(service)
            .join("cgroup.events");
        let events = fs::read_to_string(events).unwrap_or_default();
        let is = |line| events.lines().any(|found| found == line);
        if !is("populated 1") {
            Some("not running".to_owned())
        } else if is("frozen 1") {
            Some("frozen".to_owned())
        } else if service == WATCH {
            let quiet = now.saturating_sub(compared.unwrap_or(0));
            (quiet > HANGS).then(|| format!("without a result for {quiet} seconds"))
        } else {
            None
        }
    };
    services
        .iter()
        .copied()
        .filter(|service| is_enabled(root, service))
        .filter_map(|service| Some((service, state(service)?)))
        .collect()
}

/// Whether a target of the image wants or requires the service.
fn is_enabled(root: &Path, service: &str) -> bool {
    UNITS
        .iter()
        .flat_map(|units| fs::read_dir(root.join(units)).into_iter().flatten())
        .flatten()
        .any(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            (name.ends_with(".wants") || name.ends_with(".requires"))
                && fs::symlink_metadata(entry.path().join(service)).is_ok()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_that_is_enabled_and_does_not_run_is_found() {
        let root = std::env::temp_dir().join(format!("adamant-services-{}", std::process::id()));
        let write = |path: String, text: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let wants = "etc/systemd/system/multi-user.target.wants";
        write(format!("{wants}/{WATCH}"), "");
        let idle = |now, compared| idle_at(&root, &ALL, now, compared);
        assert_eq!(idle(500, None), []);
        write("sys/fs/cgroup/cgroup.controllers".to_owned(), "");
        assert_eq!(idle(STARTING - 1, None), []);
        let stopped = vec![(WATCH, "not running".to_owned())];
        assert_eq!(idle(500, Some(500)), stopped);
        let events = format!("sys/fs/cgroup/system.slice/{WATCH}/cgroup.events");
        for (text, expected) in [
            ("populated 0\nfrozen 0\n", "not running"),
            ("populated 1\nfrozen 1\n", "frozen"),
        ] {
            write(events.clone(), text);
            assert_eq!(idle(500, Some(500)), [(WATCH, expected.to_owned())]);
        }
        write(events, "populated 1\nfrozen 0\n");
        assert_eq!(idle(500, Some(200)), []);
        let silent = |seconds| vec![(WATCH, format!("without a result for {seconds} seconds"))];
        assert_eq!(idle(501, Some(200)), silent(301));
        assert_eq!(idle(600, None), silent(600));
        // The scrub counts as soon as the image enables it, in any way.
        write(
            format!("usr/lib/systemd/system/basic.target.requires/{SCRUB}"),
            "",
        );
        assert_eq!(idle(500, Some(500)), [(SCRUB, "not running".to_owned())]);
        fs::remove_dir_all(&root).unwrap();
    }
}
