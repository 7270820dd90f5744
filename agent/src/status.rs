//! `adamant-agent status`: the boot report for people, on one screen, the most important first.
//!
//! The exit code is 1 when there is no report, or when the running root is not the verified one. What the report says is how the boot went. Whether the running root still is the verified one is asked of the kernel anew.

use std::fmt::{Display, Write};
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use adamant_agent::contract::{BOOT_REPORT_PATH, ROOT_MAPPING};
use adamant_agent::report::{self, BootReport, VERSION};

/// Longest report that is read, bytes.
const LIMIT: u64 = 1 << 20;

/// The report as text, as it is when `json`, and whether the running root is the verified one. `Err` is the line for a person.
pub fn run(json: bool) -> Result<(String, bool), String> {
    let fail = |why: &dyn Display, way_out: &str| format!("adamant: status: {BOOT_REPORT_PATH}: {why}: {way_out}\n");
    let text = read(Path::new(BOOT_REPORT_PATH)).map_err(|why| fail(&why, "only a server that adamant-agent has booted has one"))?;
    let report: BootReport = serde_json::from_str(&text).map_err(|e| fail(&e, "the file was changed since the boot"))?;
    if report.version != VERSION {
        return Err(fail(&format!("version {}, not {VERSION}", report.version), "use the agent of the image that is running"));
    }
    let verified = root_is_the_mapping(Path::new("/"), Path::new("/sys/dev/block"));
    Ok((if json { text } else { for_people(&report, verified, &fill) }, verified))
}

fn read(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let file = fs::File::open(path).map_err(|e| e.to_string())?;
    file.take(LIMIT + 1).read_to_string(&mut text).map_err(|e| e.to_string())?;
    if text.len() as u64 > LIMIT { Err(format!("longer than {LIMIT} bytes")) } else { Ok(text) }
}

/// Whether `root` lies on the device-mapper device that the agent made.
fn root_is_the_mapping(root: &Path, block: &Path) -> bool {
    let Ok(found) = fs::metadata(root) else { return false };
    let (major, minor) = (nix::sys::stat::major(found.dev()), nix::sys::stat::minor(found.dev()));
    fs::read_to_string(block.join(format!("{major}:{minor}/dm/name"))).is_ok_and(|name| name.trim_end() == ROOT_MAPPING)
}

/// Used and all bytes of the file system at a path.
fn fill(path: &str) -> Option<(u64, u64)> {
    let found = nix::sys::statvfs::statvfs(path).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(found.fragment_size());
    Some((bytes(found.blocks().saturating_sub(found.blocks_free())), bytes(found.blocks())))
}

fn for_people(report: &BootReport, verified: bool, fill: &dyn Fn(&str) -> Option<(u64, u64)>) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: String| {
        // Writing to a String can't fail.
        let _ = writeln!(out, "{name:10} {}", printable(&value));
    };
    let state = if verified { "verified" } else { "NOT VERIFIED: what runs is not the root that was booted" };
    line("root", format!("{state}; {} {}", report.image_id, report.image_version));
    line("hash", report.root_hash.clone());
    let signed = match &report.signature.signer {
        Some(signer) => format!("signed by {signer}, certificate {}", report.signature.fingerprint),
        None => format!("by nobody that was verified (signature: {})", report.signature.rule),
    };
    line("signed", signed);
    if !report.signature.kernel.is_empty() {
        line("", format!("the kernel on the same signature: {}", report.signature.kernel));
    }
    line("firmware", started_by(&report.firmware, &report.signature).to_owned());
    let checked = match report.root.blocks_checked {
        all if all > 0 && all >= report.root.blocks => "every block was read before init started".to_owned(),
        some => format!("{some} of {} blocks were read before init started, the others are checked when they are read", report.root.blocks),
    };
    line("", format!("{checked}; a bad block: {}", report.root.on_corruption));
    line("warnings", if report.warnings.is_empty() { "none".to_owned() } else { report.warnings.len().to_string() });
    for warning in &report.warnings {
        line("", warning.clone());
    }
    if let Some(seconds) = report.clock_was {
        line("clock", format!("stood at {seconds} s since 1970, and was set to the image's build time"));
    }
    for credential in &report.credentials.accepted {
        line("credential", format!("{} from {}", credential.name, credential.source));
    }
    for credential in report.credentials.dropped.iter().take(8) {
        line("", format!("{} from {}: dropped, {}", credential.name, credential.source, credential.why));
    }
    if report.credentials.drops > 8 {
        line("", format!("{} more were dropped", report.credentials.drops - 8));
    }
    for volume in &report.volumes {
        let used = match fill(&volume.mount) {
            Some((used, all)) => format!("{} of {}, {} % full", size(used), size(all), used.saturating_mul(100) / all.max(1)),
            None => format!("{}, NOT MOUNTED", size(volume.bytes)),
        };
        let grown = if volume.grown_by > 0 { format!(", grown by {}", size(volume.grown_by)) } else { String::new() };
        line("volume", format!("{} at {} on {}: {used}; {}{grown}", volume.name, volume.mount, volume.device, volume.state));
    }
    line("identity", format!("{} ({})", report.identity.machine_id, report.identity.source));
    line("watchdog", report.watchdog.clone().unwrap_or_else(|| "none".to_owned()));
    line("disk", format!("{} and its tree {}, mapped as {}", report.root.data, report.root.tree, report.root.mapped));
    line("kernel", format!("{}, agent {}, {} modules", report.kernel, report.agent, report.modules.len()));
    let stages: Vec<String> = report.stages.iter().map(|stage| format!("{} {}", stage.name, millis(stage.took_us))).collect();
    let total = match (report.stages.first(), report.stages.last()) {
        (Some(first), Some(last)) => last.start_us.saturating_add(last.took_us).saturating_sub(first.start_us),
        _ => 0,
    };
    line("boot", format!("{} ms: {}", millis(total), stages.join(", ")));
    out
}

/// What firmware keeps out, and what it does not.
fn started_by(firmware: &report::Firmware, signature: &report::Signature) -> &'static str {
    match (firmware.uefi, firmware.secure_boot, signature.signer.is_some()) {
        (_, Some(true), _) => "Secure Boot is on: it starts only what is signed with a key it knows",
        (true, _, true) => {
            "Secure Boot is OFF: who can write to the disk can replace boot loader, kernel and initramfs, and with them this check of the root hash's signature"
        }
        (true, _, false) => "Secure Boot is OFF: who can write to the disk can replace everything, with a root hash of their own",
        (false, ..) => "not UEFI: whoever starts the kernel decides about kernel, initramfs and root hash",
    }
}

/// The report may hold names from a disk: nothing in it steers a terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn millis(us: u64) -> String {
    if us < 10_000 { format!("{}.{}", us / 1000, us % 1000 / 100) } else { (us / 1000).to_string() }
}

fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let unit = (0..UNITS.len() - 1).find(|unit| bytes >> (10 * unit) < 10_000).unwrap_or(UNITS.len() - 1);
    format!("{} {}", bytes >> (10 * unit), UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> BootReport {
        BootReport {
            version: VERSION,
            image_id: "web".to_owned(),
            image_version: "1.0.0".to_owned(),
            root_hash: "ab".repeat(32),
            stages: vec![
                report::Stage { name: "early".to_owned(), start_us: 1_000_000, took_us: 5_250 },
                report::Stage { name: "locate".to_owned(), start_us: 1_005_250, took_us: 94_750 },
            ],
            volumes: vec![report::Volume {
                name: "state".to_owned(),
                mount: "/var".to_owned(),
                device: "/dev/vda3".to_owned(),
                bytes: 512 << 20,
                state: "clean".to_owned(),
                ..Default::default()
            }],
            warnings: vec!["A label was \x1b[31mred.".to_owned()],
            ..Default::default()
        }
    }

    #[test]
    fn fits_one_screen_with_what_matters_first() {
        let text = for_people(&sample(), true, &|_| Some((128 << 20, 480 << 20)));
        assert!(text.starts_with("root       verified; web 1.0.0\nhash       abab"), "{text}");
        assert!(text.contains("volume     state at /var on /dev/vda3: 128 MiB of 480 MiB, 26 % full; clean\n"), "{text}");
        assert!(text.contains("boot       100 ms: early 5.2, locate 94\n"), "{text}");
        assert!(text.lines().count() <= 24 && !text.contains('\x1b'), "{text}");
    }

    #[test]
    fn what_somebody_with_the_disk_could_do_is_said_unless_secure_boot_is_on() {
        let mut report = sample();
        for (uefi, secure_boot, words) in
            [(true, Some(true), "Secure Boot is on"), (true, Some(false), "Secure Boot is OFF: who can"), (false, None, "not UEFI")]
        {
            report.firmware = report::Firmware { uefi, secure_boot, ..Default::default() };
            assert!(for_people(&report, true, &|_| None).contains(&format!("firmware   {words}")), "{words}");
        }
    }

    #[test]
    fn a_root_that_is_not_the_mapping_and_a_volume_that_is_gone_are_shouted() {
        let text = for_people(&sample(), false, &|_| None);
        assert!(text.starts_with("root       NOT VERIFIED"), "{text}");
        assert!(text.contains("NOT MOUNTED"), "{text}");
        assert!(!root_is_the_mapping(Path::new("/"), Path::new("/nowhere")));
    }
}
