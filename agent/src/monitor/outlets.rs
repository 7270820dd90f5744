//! Where the watch tells: the journal, a file of events, and a file of counters.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, sendto, socket};
use serde_json::Value;

use super::events::{CLASSES, Event};
use super::scrub::State;
use super::{now, printable, replace, say};
use crate::kernel::guard_abi::HOOKS;

/// A line of JSON for each event.
const EVENTS: &str = "/run/adamant/events.jsonl";
/// Counters, in the text format of Prometheus.
const METRICS: &str = "/run/adamant/metrics.prom";
/// The events' file is put aside when it has that many bytes, in the place of the one before it.
const EVENTS_LIMIT: u64 = 1 << 20;
/// Where the journal takes entries with fields (systemd's "Native Journal Protocol").
const JOURNAL: &[u8] = b"/run/systemd/journal/socket";

/// Tells of an event.
pub fn tell(event: &Event, times: u64) {
    let again = if times > 1 {
        [", ", &times.to_string(), " times"].concat()
    } else {
        String::new()
    };
    let text = ["adamant: watch: ", &printable(&event.text), &again].concat();
    let line = [
        "{\"time\":",
        &now().to_string(),
        ",\"class\":\"",
        event.class,
        "\",",
        &event.members,
        ",\"times\":",
        &times.to_string(),
        "}\n",
    ]
    .concat();
    if !send(JOURNAL, entry(&text, &line).as_bytes()) {
        say(&["<4>", &text].concat());
    }
    if let Err(error) = append(EVENTS, &line) {
        say(&[
            "<4>adamant: watch: ",
            EVENTS,
            ": ",
            &error.to_string(),
            ": only the journal has the events",
        ]
        .concat());
    }
}

/// An entry for the journal: the text for people, and the event's members as fields.
fn entry(text: &str, json: &str) -> String {
    let mut entry = [
        "MESSAGE=",
        text,
        "\nPRIORITY=4\nSYSLOG_IDENTIFIER=adamant-agent\n",
    ]
    .concat();
    if let Ok(Value::Object(members)) = serde_json::from_str(json) {
        for (key, value) in &members {
            let value = value.as_str().map_or_else(|| value.to_string(), printable);
            entry += &["ADAMANT_", &key.to_ascii_uppercase(), "=", &value, "\n"].concat();
        }
    }
    entry
}

/// Writes the counters, where they are others than the last time; `last` is what was written then.
pub fn write_metrics(text: String, last: &mut String) {
    if text != *last && replace(METRICS, &text).is_ok() {
        *last = text;
    }
}

/// The counters as text.
pub fn metrics(
    denials: Option<&[u64; HOOKS.len()]>,
    violations: &[u64; CLASSES.len()],
    scrub: Option<&State>,
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
            .map(|(class, count)| ("class", *class, *count)),
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
    out
}

/// Writes a line to the end of a file that does not grow without end.
fn append(path: &str, line: &str) -> io::Result<()> {
    if fs::metadata(path).is_ok_and(|found| found.len() + line.len() as u64 > EVENTS_LIMIT) {
        fs::rename(path, [path, ".1"].concat())?;
    }
    OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)?
        .write_all(line.as_bytes())
}

/// Tells the service manager (sd_notify(3)), where there is one.
pub fn notify(state: &str) {
    if let Some(path) = std::env::var_os("NOTIFY_SOCKET") {
        send(path.as_encoded_bytes(), state.as_bytes());
    }
}

/// Sends a datagram to a socket of this machine's; whether it was taken.
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
    use super::*;

    #[test]
    fn an_entry_for_the_journal_has_the_members_as_fields_on_lines_of_their_own() {
        let entry = entry(
            "adamant: watch: x",
            "{\"time\":5,\"class\":\"denials\",\"name\":\"a\\nPRIORITY=0\",\"times\":2}\n",
        );
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
    fn metrics_are_in_the_text_format() {
        let mut denials = [0; HOOKS.len()];
        denials[10] = 3;
        let state = State {
            position: 1,
            size: 2,
            errors: 3,
            last_full: 4,
            ..State::default()
        };
        let text = metrics(Some(&denials), &[1, 0, 0, 0, 0], Some(&state));
        for line in [
            "# TYPE adamant_denials_total counter",
            "adamant_denials_total{hook=\"file_open\"} 3",
            "adamant_violations_total{class=\"mounts\"} 1",
            "# TYPE adamant_scrub_errors gauge",
            "adamant_scrub_errors 3",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
        assert!(!metrics(None, &[0; 5], None).contains("denials_total"));
    }

    #[test]
    fn the_file_of_events_does_not_grow_without_end() {
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
