//! The status as text for people: lines of a name and a value.

#[cfg(test)]
pub mod tests;

use adamant_contract::policy::Enforce;
use adamant_contract::report::{BootReport, ModuleLoadingReport, ReachedLevel, VolumeReport};

use super::now::{CurrentState, Fill};
use crate::monitor;

/// A volume with at least this many percent of its space in use is shown in red.
const FULL: u64 = 90;
/// Number of warnings, and of dropped credentials, that are listed.
const LISTED: usize = 8;

/// Lines of a name and a value.
struct Page {
    text: String,
    colour: bool,
}

impl Page {
    /// Appends a line. Control characters are replaced: the report holds labels from the disk, and
    /// they must not control the terminal.
    fn line(&mut self, name: &str, value: &str) {
        let shown = value.chars().map(|c| if c.is_control() { '?' } else { c });
        self.text.extend(
            name.chars()
                .chain(std::iter::repeat(' '))
                .take(name.len().max(10))
                .chain([' '])
                .chain(shown),
        );
        self.text.push('\n');
    }

    /// Appends a line in green or red.
    fn judged(&mut self, name: &str, good: bool, value: &str) {
        if self.colour {
            self.text
                .push_str(if good { "\x1b[32m" } else { "\x1b[1;31m" });
        }
        self.line(name, value);
        if self.colour {
            self.text.insert_str(self.text.len() - 1, "\x1b[0m");
        }
    }
}

/// Renders the page.
pub fn render(
    report: &BootReport,
    now: &CurrentState,
    problems: &[String],
    colour: bool,
) -> String {
    let mut page = Page {
        text: String::new(),
        colour,
    };
    let state = if now.verified {
        "verified"
    } else {
        "NOT VERIFIED: the running root is not the one that was booted"
    };
    page.judged(
        "root",
        now.verified,
        &format!(
            "{state}; {} {}, root hash {:.8}…",
            report.image_id, report.image_version, report.root_hash
        ),
    );
    seal(report, now, &mut page);
    for problem in problems {
        page.judged("PROBLEM", false, problem);
    }
    let count = match report.warnings.len() {
        0 => "none".to_owned(),
        count => count.to_string(),
    };
    page.line("warnings", &count);
    for warning in report.warnings.iter().take(LISTED) {
        page.line("", warning);
    }
    for (volume, fill) in report.volumes.iter().zip(&now.volumes) {
        volume_line(volume, fill.as_ref(), &mut page);
    }
    since_boot(now, &mut page);
    last_bad_boot(report, &mut page);
    origin(report, &mut page);
    credentials(report, &mut page);
    let identity = &report.identity;
    page.line(
        "identity",
        &format!("{} ({})", identity.machine_id, identity.source.name()),
    );
    page.line("watchdog", report.watchdog.as_deref().unwrap_or("none"));
    if let Some(seconds) = report.clock_was {
        page.line(
            "clock",
            &format!("was {seconds} s since 1970, before the image's build time; the boot set it to the build time"),
        );
    }
    stages(report, &mut page);
    page.line(
        "kernel",
        &format!(
            "{}, agent {}, up for {}",
            report.kernel,
            report.agent,
            age(now.uptime)
        ),
    );
    page.text
}

fn stages(report: &BootReport, page: &mut Page) {
    let total = match (report.stages.first(), report.stages.last()) {
        (Some(first), Some(last)) => last
            .start_us
            .saturating_add(last.took_us)
            .saturating_sub(first.start_us),
        _ => 0,
    };
    let stages: Vec<String> = report
        .stages
        .iter()
        .map(|stage| format!("{} {}", stage.name, millis(stage.took_us)))
        .collect();
    page.line(
        "boot",
        &format!("{} ms: {}", millis(total), stages.join(", ")),
    );
}

fn seal(report: &BootReport, now: &CurrentState, page: &mut Page) {
    let seal = &report.seal;
    let since = match seal.since_us / 1_000_000 {
        0 => String::new(),
        since => [" for ", &age(now.uptime.saturating_sub(since))].concat(),
    };
    let enforce = match seal.enforce {
        Enforce::Require => "required",
        Enforce::Prefer => "preferred",
    };
    let complete = seal.reached == ReachedLevel::from(seal.wanted);
    let (reached, wanted) = (seal.reached.name(), seal.wanted.name());
    let level = if complete {
        format!("at level {reached}{since} ({enforce})")
    } else {
        format!("at level {reached}, NOT at {wanted} ({enforce})")
    };
    page.judged("sealed", complete, &level);
    for missing in &seal.missing {
        page.judged("", false, &["not in force: ", missing].concat());
    }
    match seal.module_loading {
        ModuleLoadingReport::Unrestricted => {}
        ModuleLoadingReport::Image => page.line(
            "",
            "modules: only the image's, on request of the kernel and systemd-udevd",
        ),
        ModuleLoadingReport::Boot => {
            page.line("", "modules: none can be loaded until the next boot")
        }
    }
    if !seal.allowances.is_empty() {
        page.line("", &["exceptions: ", &seal.allowances.join(", ")].concat());
    }
}

fn volume_line(volume: &VolumeReport, now: Option<&Fill>, page: &mut Page) {
    let used = match now {
        Some(now) => format!(
            "{} of {}, {} % full",
            size(now.used),
            size(now.size),
            now.percent()
        ),
        None => format!("{}, NOT MOUNTED", size(volume.bytes)),
    };
    let grown = match volume.grown_by {
        0 => String::new(),
        bytes => format!(", grown by {}", size(bytes)),
    };
    let trouble = match now.and_then(|now| now.trouble.as_ref()) {
        Some(trouble) => format!(", {}", trouble.to_string().to_uppercase()),
        None => String::new(),
    };
    let line = format!(
        "{} at {} on {}: {used}; {}{grown}{trouble}",
        volume.name,
        volume.mount,
        volume.device,
        volume.state.name()
    );
    if now.is_some_and(|now| now.trouble.is_none() && now.percent() < FULL) {
        page.line("volume", &line)
    } else {
        page.judged("volume", false, &line)
    }
    if !volume.kept.is_empty() {
        let more = match volume.kept_more {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        page.line(
            "",
            &format!(
                "not updated, because changed on this server: {}{more}",
                volume.kept.join(", ")
            ),
        );
    }
}

/// The last failed boot, in red if it was the previous one.
fn last_bad_boot(report: &BootReport, page: &mut Page) {
    let Some(bad) = &report.last_bad_boot else {
        if report.black_box.is_some() {
            page.line("bad boot", "none on record");
        }
        return;
    };
    let when = match bad.starts_ago {
        1 => "the one before this".to_owned(),
        ago => format!("{ago} starts ago"),
    };
    let time = match bad.record.time {
        0 => String::new(),
        time => format!(", {} ago", age(monitor::since(time))),
    };
    let again = match bad.in_a_row {
        0 | 1 => String::new(),
        in_a_row => format!(", the last of {in_a_row} in a row"),
    };
    let line = format!(
        "{when}{time}{again}: {}, root hash {:.8}…: {}",
        bad.record.slot, bad.record.root_hash, bad.summary
    );
    page.judged("bad boot", bad.starts_ago != 1, &line);
}

/// Events since the boot: denials of the guard, and the scrub.
fn since_boot(now: &CurrentState, page: &mut Page) {
    if let Some(denials) = &now.denials {
        let each: Vec<String> = denials
            .iter()
            .map(|(hook, count)| format!("{hook} {count}"))
            .collect();
        let all = if each.is_empty() {
            "none since the boot".to_owned()
        } else {
            each.join(", ")
        };
        page.line("denials", &all);
    }
    let scrub = match &now.scrub {
        None => "never ran on this root".to_owned(),
        Some(scrub) => {
            let last = match scrub.last_full {
                0 => "no complete pass yet".to_owned(),
                time => format!("last complete pass {} ago", age(monitor::since(time))),
            };
            let here = match scrub.position {
                0 => String::new(),
                at => format!(", now at {} %", at.saturating_mul(100) / scrub.size.max(1)),
            };
            format!("{last}{here}, {} corrupted blocks", scrub.errors)
        }
    };
    page.line("scrub", &scrub);
}

/// Where the image came from, who signed it, and what the firmware checked.
fn origin(report: &BootReport, page: &mut Page) {
    page.line("hash", &report.root_hash);
    let signature = &report.signature;
    let signed = match &signature.signer {
        Some(signer) => format!("by {signer}, certificate {}", signature.fingerprint),
        None => format!("no signature was verified (rule: {})", signature.rule),
    };
    page.line("signed", &signed);
    if !signature.kernel.is_empty() {
        page.line(
            "",
            &[
                "the kernel's verdict on this signature: ",
                &signature.kernel,
            ]
            .concat(),
        );
    }
    let firmware = &report.firmware;
    page.line(
        "firmware",
        boot_trust(
            firmware.uefi,
            firmware.secure_boot,
            signature.signer.is_some(),
        ),
    );
    let root = &report.root;
    let checked = if root.blocks_checked > 0 && root.blocks_checked >= root.blocks {
        "every block was read before init started".to_owned()
    } else {
        format!(
            "{} of {} blocks were read before init started, the others are checked when they are read",
            root.blocks_checked, root.blocks
        )
    };
    page.line(
        "disk",
        &format!(
            "data {}, hash tree {}, mapped as {}",
            root.data, root.tree, root.mapped
        ),
    );
    page.line(
        "",
        &format!(
            "{checked}; on a corrupted block: {}",
            root.on_corruption.name()
        ),
    );
}

fn credentials(report: &BootReport, page: &mut Page) {
    let credentials = &report.credentials;
    for credential in &credentials.accepted {
        page.line(
            "credential",
            &format!("{} from {}", credential.name, credential.source),
        );
    }
    for credential in credentials.dropped.iter().take(LISTED) {
        page.line(
            "",
            &format!(
                "{} from {}: dropped, {}",
                credential.name, credential.source, credential.why
            ),
        );
    }
    let more = credentials.drops.saturating_sub(LISTED as u64);
    if more > 0 {
        page.line("", &format!("{more} more were dropped"));
    }
}

/// What the firmware checks, and what an attacker with write access to the disk can replace.
fn boot_trust(uefi: bool, secure_boot: Option<bool>, signed: bool) -> &'static str {
    match (uefi, secure_boot, signed) {
        (_, Some(true), _) => {
            "Secure Boot is on: it starts only programs signed with a key that it trusts"
        }
        (true, _, true) => {
            "Secure Boot is OFF: an attacker with write access to the disk can replace boot loader, kernel and initramfs, and so bypass this signature"
        }
        (true, _, false) => {
            "Secure Boot is OFF: an attacker with write access to the disk can replace everything, including the root hash"
        }
        (false, ..) => {
            "not UEFI: whatever starts the kernel chooses kernel, initramfs and root hash"
        }
    }
}

fn millis(us: u64) -> String {
    if us < 10_000 {
        format!("{}.{}", us / 1000, us % 1000 / 100)
    } else {
        (us / 1000).to_string()
    }
}

/// Formats seconds in the two largest units.
fn age(seconds: u64) -> String {
    match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min {} s", seconds % 60),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let unit = (0..UNITS.len() - 1)
        .find(|unit| bytes >> (10 * unit) < 10_000)
        .unwrap_or(UNITS.len() - 1);
    format!("{} {}", bytes >> (10 * unit), UNITS[unit])
}
