//! `adamant-agent status`: for a person at 3 a.m., one screen, the most important first.
//!
//! What the boot found is in its report; what of it still holds is asked of the kernel anew. The
//! exit code is 0 only when everything that the policy requires holds.

#![forbid(unsafe_code)]

mod now;
#[cfg(test)]
mod schema;

use std::fmt::Display;
use std::fs;
use std::io::{IsTerminal, Read};
use std::path::Path;

use adamant_contract::paths::BOOT_REPORT_PATH;
use adamant_contract::report::VERSION;
use adamant_contract::sysctls::ON_REQUEST;
use now::{Fill, Now};
use serde_json::Value;

use crate::monitor;

/// Longest report that is read, bytes.
const LIMIT: u64 = 1 << 20;
/// A volume that is fuller than this, in percent, is marked.
const FULL: u64 = 90;

/// The status as text, or for programs when `json`: the report, and below `now` what was asked.
/// Also whether all that is required holds. `Err` is the line for a person.
pub fn run(json: bool) -> Result<(String, bool), String> {
    let fail = |why: &dyn Display, way_out: &str| {
        format!("adamant: status: {BOOT_REPORT_PATH}: {why}: {way_out}\n")
    };
    let bytes = read(Path::new(BOOT_REPORT_PATH))
        .map_err(|why| fail(&why, "only a server that adamant-agent has booted has one"))?;
    let mut report: Value = serde_json::from_slice(&bytes)
        .map_err(|e| fail(&e, "the file was changed since the boot"))?;
    let version = number(&report, "/version");
    if version != u64::from(VERSION) {
        return Err(fail(
            &format!("version {version}, not {VERSION}"),
            "use the agent of the image that is running",
        ));
    }
    let now = Now::ask(&report);
    let problems = now.problems(&report);
    let text = if json {
        report["now"] = now.to_json(&problems);
        let mut text = serde_json::to_string_pretty(&report).unwrap_or_default();
        text.push('\n');
        text
    } else {
        let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        for_people(&report, &now, &problems, colour)
    };
    Ok((text, problems.is_empty()))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(|e| e.to_string())?;
    file.take(LIMIT + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| e.to_string())?;
    if bytes.len() as u64 > LIMIT {
        Err(format!("longer than {LIMIT} bytes"))
    } else {
        Ok(bytes)
    }
}

/// A text of the report, by its JSON pointer; empty where there is none.
fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn number(value: &Value, pointer: &str) -> u64 {
    value.pointer(pointer).and_then(Value::as_u64).unwrap_or(0)
}

fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value
        .pointer(pointer)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// Lines of a name and a value.
struct Page {
    text: String,
    colour: bool,
}

impl Page {
    /// The report may hold names from a disk: nothing in it steers a terminal.
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

    /// The same, in green or red.
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

fn for_people(report: &Value, now: &Now, problems: &[String], colour: bool) -> String {
    let mut page = Page {
        text: String::new(),
        colour,
    };
    let state = if now.verified {
        "verified"
    } else {
        "NOT VERIFIED: what runs is not the root that was booted"
    };
    page.judged(
        "root",
        now.verified,
        &format!(
            "{state}; {} {}, root hash {:.8}…",
            text(report, "/image_id"),
            text(report, "/image_version"),
            text(report, "/root_hash")
        ),
    );
    seal(report, now, &mut page);
    for problem in problems {
        page.judged("PROBLEM", false, problem);
    }
    let warnings = list(report, "/warnings");
    page.line(
        "warnings",
        &if warnings.is_empty() {
            "none".to_owned()
        } else {
            warnings.len().to_string()
        },
    );
    for warning in warnings.iter().filter_map(Value::as_str).take(8) {
        page.line("", warning);
    }
    for (volume, now) in list(report, "/volumes").iter().zip(&now.volumes) {
        line_of_volume(volume, now.as_ref(), &mut page);
    }
    happened(now, &mut page);
    last_bad_boot(report, &mut page);
    origin(report, &mut page);
    credentials(report, &mut page);
    let line = format!(
        "{} ({})",
        text(report, "/identity/machine_id"),
        text(report, "/identity/source")
    );
    page.line("identity", &line);
    let watchdog = text(report, "/watchdog");
    page.line(
        "watchdog",
        if watchdog.is_empty() {
            "none"
        } else {
            watchdog
        },
    );
    if let Some(seconds) = report.pointer("/clock_was").and_then(Value::as_u64) {
        page.line(
            "clock",
            &format!("stood at {seconds} s since 1970, and was set to the image's build time"),
        );
    }
    let stages = list(report, "/stages");
    let took = |stage: &Value| number(stage, "/took_us");
    let total = match (stages.first(), stages.last()) {
        (Some(first), Some(last)) => {
            (number(last, "/start_us") + took(last)).saturating_sub(number(first, "/start_us"))
        }
        _ => 0,
    };
    let stages: Vec<String> = stages
        .iter()
        .map(|stage| format!("{} {}", text(stage, "/name"), millis(took(stage))))
        .collect();
    page.line(
        "boot",
        &format!("{} ms: {}", millis(total), stages.join(", ")),
    );
    page.line(
        "kernel",
        &format!(
            "{}, agent {}, up for {}",
            text(report, "/kernel"),
            text(report, "/agent"),
            age(now.uptime)
        ),
    );
    page.text
}

fn seal(report: &Value, now: &Now, page: &mut Page) {
    let (wanted, reached, enforce) = (
        text(report, "/seal/wanted"),
        text(report, "/seal/reached"),
        text(report, "/seal/enforce"),
    );
    let since = number(report, "/seal/since_us") / 1_000_000;
    let since = if since > 0 {
        [" for ", &age(now.uptime.saturating_sub(since))].concat()
    } else {
        String::new()
    };
    let enforce = if enforce == "require" {
        "required"
    } else {
        "preferred"
    };
    let words = if wanted == reached {
        format!("at level {reached}{since} ({enforce})")
    } else {
        format!("at level {reached}, NOT at {wanted} ({enforce})")
    };
    page.judged("sealed", wanted == reached, &words);
    for missing in list(report, "/seal/missing")
        .iter()
        .filter_map(Value::as_str)
    {
        page.judged("", false, &["not in force: ", missing].concat());
    }
    match text(report, "/seal/module_loading") {
        ON_REQUEST => page.line(
            "",
            "modules: those of the image, on request of the kernel and systemd-udevd",
        ),
        "boot" => page.line("", "modules: no more until the next start"),
        _ => {}
    }
    let allowances: Vec<&str> = list(report, "/seal/allowances")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    if !allowances.is_empty() {
        page.line("", &["exceptions: ", &allowances.join(", ")].concat());
    }
}

fn line_of_volume(volume: &Value, now: Option<&Fill>, page: &mut Page) {
    let used = match now {
        Some(now) => format!(
            "{} of {}, {} % full",
            size(now.used),
            size(now.size),
            now.used.saturating_mul(100) / now.size.max(1)
        ),
        None => format!("{}, NOT MOUNTED", size(number(volume, "/bytes"))),
    };
    let grown = number(volume, "/grown_by");
    let grown = if grown > 0 {
        format!(", grown by {}", size(grown))
    } else {
        String::new()
    };
    let names = ["/name", "/mount", "/device", "/state"].map(|pointer| text(volume, pointer));
    let good = now
        .is_some_and(|now| !now.read_only && now.used.saturating_mul(100) / now.size.max(1) < FULL);
    let line = format!(
        "{} at {} on {}: {used}; {}{grown}{}",
        names[0],
        names[1],
        names[2],
        names[3],
        if now.is_some_and(|now| now.read_only) {
            ", READ-ONLY"
        } else {
            ""
        }
    );
    if good {
        page.line("volume", &line)
    } else {
        page.judged("volume", false, &line)
    }
    let kept: Vec<&str> = list(volume, "/kept")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    if !kept.is_empty() {
        let more = number(volume, "/kept_more");
        let more = if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        };
        page.line(
            "",
            &format!(
                "changed on this server, so not the image's: {}{more}",
                kept.join(", ")
            ),
        );
    }
}

/// The last boot that did not end as it should. In red when it was the one before this.
fn last_bad_boot(report: &Value, page: &mut Page) {
    if report.pointer("/last_bad_boot/words").is_none() {
        if report.pointer("/black_box").is_some_and(Value::is_string) {
            page.line("bad boot", "none on record");
        }
        return;
    }
    let of = |pointer: &str| text(report, &["/last_bad_boot/", pointer].concat());
    let (ago, in_a_row) = (
        number(report, "/last_bad_boot/starts_ago"),
        number(report, "/last_bad_boot/in_a_row"),
    );
    let when = match ago {
        1 => "the one before this".to_owned(),
        _ => format!("{ago} starts ago"),
    };
    let time = number(report, "/last_bad_boot/record/time");
    let time = if time > 0 {
        format!(", {} ago", age(monitor::since(time)))
    } else {
        String::new()
    };
    let again = if in_a_row > 1 {
        format!(", the last of {in_a_row} in a row")
    } else {
        String::new()
    };
    let line = format!(
        "{when}{time}{again}: {}, root hash {:.8}…: {}",
        of("record/slot"),
        of("record/root_hash"),
        of("words")
    );
    page.judged("bad boot", ago != 1, &line);
}

/// What has happened since the boot.
fn happened(now: &Now, page: &mut Page) {
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
    let words = match &now.scrub {
        None => "never: the root was not read as a whole".to_owned(),
        Some(scrub) => {
            let at = scrub.position.saturating_mul(100) / scrub.size.max(1);
            let last = if scrub.last_full > 0 {
                format!(
                    "last whole reading {} ago",
                    age(monitor::since(scrub.last_full))
                )
            } else {
                "no whole reading yet".to_owned()
            };
            let here = if scrub.position > 0 {
                format!(", now at {at} %")
            } else {
                String::new()
            };
            format!("{last}{here}, {} bad blocks", scrub.errors)
        }
    };
    page.line("scrub", &words);
}

/// Where the image came from, and who vouches for it.
fn origin(report: &Value, page: &mut Page) {
    page.line("hash", text(report, "/root_hash"));
    let signer = report.pointer("/signature/signer").and_then(Value::as_str);
    let signed = match signer {
        Some(signer) => format!(
            "by {signer}, certificate {}",
            text(report, "/signature/fingerprint")
        ),
        None => format!(
            "by nobody that was verified (signature: {})",
            text(report, "/signature/rule")
        ),
    };
    page.line("signed", &signed);
    let kernel = text(report, "/signature/kernel");
    if !kernel.is_empty() {
        page.line("", &["the kernel on the same signature: ", kernel].concat());
    }
    page.line(
        "firmware",
        started_by(
            report.pointer("/firmware/uefi") == Some(&Value::Bool(true)),
            report
                .pointer("/firmware/secure_boot")
                .and_then(Value::as_bool),
            signer.is_some(),
        ),
    );
    let (checked, blocks) = (
        number(report, "/root/blocks_checked"),
        number(report, "/root/blocks"),
    );
    let checked = if checked > 0 && checked >= blocks {
        "every block was read before init started".to_owned()
    } else {
        format!(
            "{checked} of {blocks} blocks were read before init started, the others are checked when they are read"
        )
    };
    page.line(
        "disk",
        &format!(
            "{} and its tree {}, mapped as {}",
            text(report, "/root/data"),
            text(report, "/root/tree"),
            text(report, "/root/mapped")
        ),
    );
    page.line(
        "",
        &format!(
            "{checked}; a bad block: {}",
            text(report, "/root/on_corruption")
        ),
    );
}

fn credentials(report: &Value, page: &mut Page) {
    for credential in list(report, "/credentials/accepted") {
        page.line(
            "credential",
            &format!(
                "{} from {}",
                text(credential, "/name"),
                text(credential, "/source")
            ),
        );
    }
    for credential in list(report, "/credentials/dropped").iter().take(8) {
        page.line(
            "",
            &format!(
                "{} from {}: dropped, {}",
                text(credential, "/name"),
                text(credential, "/source"),
                text(credential, "/why")
            ),
        );
    }
    let drops = number(report, "/credentials/drops");
    if drops > 8 {
        page.line("", &format!("{} more were dropped", drops - 8));
    }
}

/// What firmware keeps out, and what it does not.
fn started_by(uefi: bool, secure_boot: Option<bool>, signed: bool) -> &'static str {
    match (uefi, secure_boot, signed) {
        (_, Some(true), _) => {
            "Secure Boot is on: it starts only what is signed with a key it knows"
        }
        (true, _, true) => {
            "Secure Boot is OFF: who can write to the disk can replace boot loader, kernel and initramfs, and with them this check of the root hash's signature"
        }
        (true, _, false) => {
            "Secure Boot is OFF: who can write to the disk can replace everything, with a root hash of their own"
        }
        (false, ..) => {
            "not UEFI: whoever starts the kernel decides about kernel, initramfs and root hash"
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

/// Seconds, in the two largest units.
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

#[cfg(test)]
mod tests {
    use super::*;
    use adamant_contract::report::{self, BootReport};

    pub fn sample() -> BootReport {
        BootReport {
            version: VERSION,
            image_id: "web".to_owned(),
            image_version: "1.0.0".to_owned(),
            root_hash: "ab".repeat(32),
            stages: vec![
                report::Stage {
                    name: "early".to_owned(),
                    start_us: 1_000_000,
                    took_us: 5_250,
                },
                report::Stage {
                    name: "locate".to_owned(),
                    start_us: 1_005_250,
                    took_us: 94_750,
                },
            ],
            volumes: vec![report::Volume {
                name: "state".to_owned(),
                mount: "/var".to_owned(),
                device: "/dev/vda3".to_owned(),
                bytes: 512 << 20,
                state: "clean".to_owned(),
                kept: vec!["/var/www".to_owned()],
                ..Default::default()
            }],
            seal: report::Seal {
                wanted: "guard".to_owned(),
                enforce: "require".to_owned(),
                reached: "guard".to_owned(),
                enforced: vec![
                    "lockdown=integrity".to_owned(),
                    "kernel.modules_disabled=1".to_owned(),
                ],
                module_loading: "boot".to_owned(),
                since_us: 3_000_000,
                ..Default::default()
            },
            warnings: vec!["A label was \x1b[31mred.".to_owned()],
            ..Default::default()
        }
    }

    fn good() -> Now {
        let volume = Fill {
            used: 128 << 20,
            size: 480 << 20,
            read_only: false,
            safe: true,
        };
        Now {
            verified: true,
            lockdown: "integrity".to_owned(),
            modules: false,
            volumes: vec![Some(volume)],
            denials: Some(Vec::new()),
            scrub: None,
            uptime: 4000,
        }
    }

    fn page(report: &BootReport, now: &Now, colour: bool) -> String {
        let report = serde_json::to_value(report).unwrap();
        for_people(&report, now, &now.problems(&report), colour)
    }

    #[test]
    fn fits_one_screen_with_what_matters_first() {
        let text = page(&sample(), &good(), false);
        let start = "root       verified; web 1.0.0, root hash abababab…\nsealed     at level guard for 1 h 6 min (required)\n           modules: no more until the next start\nwarnings   1\n";
        assert!(text.starts_with(start), "{text}");
        assert!(
            text.contains(
                "volume     state at /var on /dev/vda3: 128 MiB of 480 MiB, 26 % full; clean\n"
            ),
            "{text}"
        );
        assert!(
            text.contains("boot       100 ms: early 5.2, locate 94\n"),
            "{text}"
        );
        let mut open = sample();
        open.seal.module_loading = ON_REQUEST.to_owned();
        assert!(page(&open, &good(), false).contains("(required)\n           modules: those of the image, on request of the kernel and systemd-udevd\n"));
        assert!(
            text.lines().count() <= 24 && !text.contains('\x1b'),
            "{text}"
        );
        assert!(
            page(&sample(), &good(), true).starts_with(
                "\x1b[32mroot       verified; web 1.0.0, root hash abababab…\x1b[0m\n"
            )
        );
    }

    #[test]
    fn what_does_not_hold_is_a_problem_and_comes_before_the_details() {
        let mut report = sample();
        report.seal.reached = "lockdown".to_owned();
        report.seal.missing = vec!["the kernel has no hook bpf".to_owned()];
        let now = Now {
            verified: false,
            lockdown: "none".to_owned(),
            modules: true,
            volumes: vec![None],
            denials: Some(vec![("file_open", 3)]),
            scrub: None,
            uptime: 5,
        };
        let text = page(&report, &now, false);
        assert!(text.starts_with("root       NOT VERIFIED"), "{text}");
        assert!(text.contains("sealed     at level lockdown, NOT at guard (required)\n           not in force: the kernel has no hook bpf\n"), "{text}");
        assert_eq!(
            text.lines()
                .filter(|line| line.starts_with("PROBLEM "))
                .count(),
            5,
            "{text}"
        );
        assert!(
            text.contains("The volume state at /var is not mounted.")
                && text.contains("NOT MOUNTED"),
            "{text}"
        );
        // What is only preferred is said, and is no problem.
        report.seal.enforce = "prefer".to_owned();
        let now = good();
        assert_eq!(
            now.problems(&serde_json::to_value(&report).unwrap()),
            [""; 0]
        );
    }

    #[test]
    fn what_somebody_with_the_disk_could_do_is_said_unless_secure_boot_is_on() {
        let mut report = sample();
        for (uefi, secure_boot, words) in [
            (true, Some(true), "Secure Boot is on"),
            (true, Some(false), "Secure Boot is OFF: who can"),
            (false, None, "not UEFI"),
        ] {
            report.firmware = report::Firmware {
                uefi,
                secure_boot,
                ..Default::default()
            };
            assert!(
                page(&report, &good(), false).contains(&format!("firmware   {words}")),
                "{words}"
            );
        }
    }
}
