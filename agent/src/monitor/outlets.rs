//! The outputs of `watch`: the journal, a file of events, and a file of counters.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

use nix::libc;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, sendto, socket};
use serde::Serialize;
use serde_json::Value;

use super::events::{CLASSES, Details, Violation};
use super::finding::Class;
use super::json::{self, printable};
use super::scrub::ScrubState;
use super::{print_line, read, replace};
use crate::kernel::clock;
use crate::kernel::guard_abi::HOOKS;

/// File of violations, one JSON object a line.
const EVENTS: &str = "/run/adamant/events.jsonl";
/// File of counters, in the text format of Prometheus.
const METRICS: &str = "/run/adamant/metrics.prom";
/// Gauge of the last comparison.
const COMPARED: &str = "watch_compared_boot_seconds";
/// The file of violations is rotated at this size in bytes; one rotated file is kept.
const EVENTS_LIMIT: u64 = 1 << 20;
/// Socket for journal entries with fields (systemd's "Native Journal Protocol").
const JOURNAL: &[u8] = b"/run/systemd/journal/socket";

/// A line of the file of violations.
#[derive(Serialize)]
struct EventLine<'a> {
    time: u64,
    class: Class,
    #[serde(flatten)]
    details: &'a Details,
    times: u64,
}

/// Reports a violation that occurred `times` times.
pub fn report(violation: &Violation, times: u64) {
    let again = if times > 1 {
        [", ", &times.to_string(), " times"].concat()
    } else {
        String::new()
    };
    let text = ["adamant: watch: ", &printable(&violation.text), &again].concat();
    let line = EventLine {
        time: clock::now(),
        class: violation.class,
        details: &violation.details,
        times,
    };
    if !send(JOURNAL, journal_entry(&text, &line).as_bytes()) {
        print_line(&["<4>", &text].concat());
    }
    if let Err(error) = append(EVENTS, &(json::to_line(&line) + "\n")) {
        print_line(
            &[
                "<4>adamant: watch: ",
                EVENTS,
                ": ",
                &error.to_string(),
                ": only the journal has this event",
            ]
            .concat(),
        );
    }
}

/// Returns a journal entry: the text for people, and the members of the JSON object as fields.
fn journal_entry(text: &str, line: &EventLine) -> String {
    let mut entry = [
        "MESSAGE=",
        text,
        "\nPRIORITY=4\nSYSLOG_IDENTIFIER=adamant-agent\n",
    ]
    .concat();
    if let Ok(Value::Object(members)) = serde_json::to_value(line) {
        for (key, value) in &members {
            let value = value.as_str().map_or_else(|| value.to_string(), printable);
            entry += &["ADAMANT_", &key.to_ascii_uppercase(), "=", &value, "\n"].concat();
        }
    }
    entry
}

/// Writes the counters if they changed; `last` is the text that was written last.
pub fn write_metrics(text: String, last: &mut String) {
    if text != *last && replace(METRICS, &text).is_ok() {
        *last = text;
    }
}

/// Seconds since the kernel started at which the watch last compared everything; `None` if it has
/// written no counters.
pub fn last_comparison() -> Option<u64> {
    let text = read(METRICS).ok()?;
    let start = ["adamant_", COMPARED, " "].concat();
    text.lines()
        .find_map(|line| line.strip_prefix(&start)?.parse().ok())
}

/// The counters as text. `compared` is in seconds since the kernel started.
pub fn metrics(
    compared: u64,
    denials: Option<&[u64; HOOKS.len()]>,
    violations: &[u64; CLASSES.len()],
    scrub: Option<&ScrubState>,
    certificate_end: Option<u64>,
) -> String {
    let mut out = String::new();
    let mut family =
        |name: &str, kind: &str, values: &mut dyn Iterator<Item = (&str, &str, u64)>| {
            out += &["# TYPE adamant_", name, " ", kind, "\n"].concat();
            for (label, value, number) in values {
                let label = if label.is_empty() {
                    String::new()
                } else {
                    ["{", label, "=\"", value, "\"}"].concat()
                };
                out += &["adamant_", name, &label, " ", &number.to_string(), "\n"].concat();
            }
        };
    family(COMPARED, "gauge", &mut std::iter::once(("", "", compared)));
    if let Some(denials) = denials {
        family(
            "denials_total",
            "counter",
            &mut HOOKS
                .iter()
                .zip(denials)
                .map(|(hook, count)| ("hook", *hook, *count)),
        );
    }
    family(
        "violations_total",
        "counter",
        &mut CLASSES
            .iter()
            .zip(violations)
            .map(|(class, count)| ("class", class.name(), *count)),
    );
    if let Some(scrub) = scrub {
        for (name, number) in [
            ("scrub_position_bytes", scrub.position),
            ("scrub_size_bytes", scrub.size),
            ("scrub_errors", scrub.errors),
            ("scrub_last_full_seconds", scrub.last_full),
        ] {
            family(name, "gauge", &mut std::iter::once(("", "", number)));
        }
    }
    if let Some(end) = certificate_end {
        family(
            "certificate_end_seconds",
            "gauge",
            &mut std::iter::once(("", "", end)),
        );
    }
    out
}

/// Appends a line, and rotates the file before it exceeds its limit.
fn append(path: &str, line: &str) -> io::Result<()> {
    if fs::metadata(path).is_ok_and(|found| found.len() + line.len() as u64 > EVENTS_LIMIT) {
        fs::rename(path, [path, ".1"].concat())?;
    }
    OpenOptions::new()
        .append(true)
        .custom_flags(libc::O_NOFOLLOW)
        .create(true)
        .open(path)?
        .write_all(line.as_bytes())
}

/// Notifies the service manager, if there is one (sd_notify(3)).
pub fn notify(state: &str) {
    if let Some(path) = std::env::var_os("NOTIFY_SOCKET") {
        send(path.as_encoded_bytes(), state.as_bytes());
    }
}

/// Sends a datagram to a Unix socket. False if that failed.
fn send(path: &[u8], text: &[u8]) -> bool {
    let address = match path.strip_prefix(b"@") {
        Some(name) => UnixAddr::new_abstract(name),
        None => UnixAddr::new(path),
    };
    let socket = socket(
        AddressFamily::Unix,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        None,
    );
    let (Ok(address), Ok(socket)) = (address, socket) else {
        return false;
    };
    sendto(socket.as_raw_fd(), text, &address, MsgFlags::MSG_NOSIGNAL)
        .is_ok_and(|sent| sent == text.len())
}

#[cfg(test)]
mod tests {
    use super::super::finding::Finding;
    use super::super::guard::Denial;
    use super::*;

    #[test]
    fn a_journal_entry_has_one_line_for_each_member() {
        let line = EventLine {
            time: 5,
            class: Class::Denials,
            details: &Details::Device {
                name: "a\nPRIORITY=0".to_owned(),
            },
            times: 2,
        };
        assert_eq!(
            json::to_line(&line),
            r#"{"time":5,"class":"denials","name":"a\nPRIORITY=0","times":2}"#
        );
        let entry = journal_entry("adamant: watch: x", &line);
        let lines: Vec<&str> = entry.lines().collect();
        assert_eq!(
            lines[..3],
            [
                "MESSAGE=adamant: watch: x",
                "PRIORITY=4",
                "SYSLOG_IDENTIFIER=adamant-agent"
            ]
        );
        assert!(
            lines.contains(&"ADAMANT_TIME=5")
                && lines.contains(&"ADAMANT_CLASS=denials")
                && lines.contains(&"ADAMANT_TIMES=2"),
            "{entry}"
        );
        assert!(
            lines.contains(&"ADAMANT_NAME=a\\u000aPRIORITY=0") && lines.len() == 7,
            "{entry}"
        );
    }

    #[test]
    fn an_event_is_one_line_of_json_with_hostile_names() {
        let denial = Denial {
            hook: "file_open",
            comm: "s\"h".to_owned(),
            parent: "x\ny".to_owned(),
            name: "}\\".to_owned(),
            device: "254:3".to_owned(),
            pid: 7,
            uid: 0,
            inode: 9,
            time: 1,
        };
        let line = |violation: Violation| {
            json::to_line(&EventLine {
                time: 5,
                class: violation.class,
                details: &violation.details,
                times: 2,
            })
        };
        assert_eq!(
            line(denial.into()),
            r#"{"time":5,"class":"denials","hook":"file_open","comm":"s\"h","parent":"x\ny","name":"}\\","device":"254:3","pid":7,"uid":0,"inode":9,"times":2}"#
        );
        let finding = Finding::new(Class::Mounts, "/usr", "tmpfs over it", "not mounted over");
        assert_eq!(
            line((&finding).into()),
            r#"{"time":5,"class":"mounts","what":"/usr","is":"tmpfs over it","should":"not mounted over","times":2}"#
        );
    }

    #[test]
    fn metrics_are_in_the_text_format() {
        let mut denials = [0; HOOKS.len()];
        denials[10] = 3;
        let state = ScrubState {
            position: 1,
            size: 2,
            errors: 3,
            last_full: 4,
            ..ScrubState::default()
        };
        let text = metrics(
            61,
            Some(&denials),
            &[1, 0, 0, 0, 0, 0],
            Some(&state),
            Some(5),
        );
        for line in [
            "# TYPE adamant_denials_total counter",
            "adamant_denials_total{hook=\"file_open\"} 3",
            "adamant_violations_total{class=\"mounts\"} 1",
            "# TYPE adamant_scrub_errors gauge",
            "adamant_scrub_errors 3",
            "adamant_certificate_end_seconds 5",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
        assert!(!metrics(0, None, &[0; 6], None, None).contains("denials_total"));
    }

    #[test]
    fn the_file_of_events_is_rotated_at_its_limit() {
        let folder = std::env::temp_dir().join(format!("adamant-events-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("events.jsonl").display().to_string();
        let line = ["x".repeat(999), "\n".to_owned()].concat();
        for _ in 0..2200 {
            append(&path, &line).unwrap();
        }
        let length = |path: &str| fs::metadata(path).unwrap().len();
        assert!(length(&path) <= EVENTS_LIMIT && length(&format!("{path}.1")) <= EVENTS_LIMIT);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 2);
        fs::remove_dir_all(&folder).unwrap();
    }
}
