//! `adamant-agent watch`: tells of what happens to the running machine that should not, once each, and does what the policy says.
//!
//! It sleeps until the kernel has something to tell: a change of the mounts, an event of the guard, a new device. What nothing tells of is looked at
//! every minute. To the journal, to [`EVENTS`] and to [`METRICS`] goes each thing once; what repeats is told once a minute, with its number of times.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use adamant_agent::blackbox;
use adamant_agent::contract::BOOT_REPORT_PATH;
use adamant_agent::guard::HOOKS;
use adamant_agent::policy::{Policy, Reaction};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, sendto, socket};

use super::findings::{self, Finding, MOUNTS};
use super::guard::{Counters, Denial, Ring};
use super::opened::Opened;
use super::scrub::{self, State};
use super::{members, now, policy, printable, read, replace, say, value};
use crate::boot::history::BlackBox;
use crate::boot::since_kernel_start;
use crate::boot::uevents::Events;

/// A line of JSON for each event.
const EVENTS: &str = "/run/adamant/events.jsonl";
/// Counters, in the text format of Prometheus.
const METRICS: &str = "/run/adamant/metrics.prom";
/// The events' file is put aside when it has that many bytes, in the place of the one before it.
const EVENTS_LIMIT: u64 = 1 << 20;
/// Seconds between two looks at what nobody tells of, and between two tellings of the same.
const MINUTE: u64 = 60;
/// Different things that are remembered; more are counted together.
const REMEMBERED: usize = 256;
/// The classes of violations, in the order of the counters.
const CLASSES: [&str; 5] = ["mounts", "sysctls", "verity", "devices", "denials"];

/// What is told.
#[derive(Debug, Clone, PartialEq)]
struct Event {
    class: &'static str,
    /// What is the same is told once.
    key: String,
    /// For a person.
    text: String,
    /// For programs: members of an object.
    members: String,
}

impl From<&Finding> for Event {
    fn from(found: &Finding) -> Event {
        Event { class: found.class, key: found.line(), text: found.line(), members: found.members() }
    }
}

impl From<Denial> for Event {
    fn from(denial: Denial) -> Event {
        let Denial { time: _, hook, pid, uid, device, inode, comm, parent, name } = denial;
        let numbers = [("pid", u64::from(pid)), ("uid", u64::from(uid)), ("inode", inode)];
        let mut members = members(&[("hook", hook), ("comm", &comm), ("parent", &parent), ("name", &name), ("device", &device)]);
        for (key, number) in numbers {
            members += &[",\"", key, "\":", &number.to_string()].concat();
        }
        let key = [hook, "\0", &comm, "\0", &name].concat();
        let text = ["denials: ", hook, " of \"", &name, "\" refused to ", &comm, " (", &pid.to_string(), ", of ", &parent, ")"].concat();
        Event { class: "denials", key, text, members }
    }
}

/// Who was told of what.
#[derive(Default)]
struct Told {
    all: Vec<One>,
    /// Different things beyond those that are remembered, since that was told.
    others: u64,
    others_told: u64,
}

struct One {
    event: Event,
    /// Seconds since the kernel started.
    at: u64,
    /// Times since then.
    more: u64,
}

impl Told {
    /// Something was seen. Whether it is to be told now.
    fn seen(&mut self, event: &Event, now: u64) -> bool {
        let full = self.all.len() >= REMEMBERED;
        match self.all.iter_mut().find(|one| one.event.key == event.key) {
            Some(one) => {
                one.more += 1;
                // The newest: its process may still be there.
                one.event = event.clone();
                false
            }
            None if full => {
                self.others += 1;
                false
            }
            None => {
                self.all.push(One { event: event.clone(), at: now, more: 0 });
                true
            }
        }
    }

    /// What is to be told again, each with its number of times. What did not come again is forgotten.
    fn due(&mut self, now: u64) -> Vec<(Event, u64)> {
        let mut due = Vec::new();
        self.all.retain_mut(|one| {
            if now < one.at + MINUTE {
                return true;
            }
            let more = std::mem::take(&mut one.more);
            one.at = now;
            if more > 0 {
                due.push((one.event.clone(), more));
            }
            more > 0
        });
        if self.others > 0 && now >= self.others_told + MINUTE {
            let event =
                Event { class: "denials", key: String::new(), text: "denials: others of many kinds".to_owned(), members: members(&[("hook", "others")]) };
            due.push((event, std::mem::take(&mut self.others)));
            self.others_told = now;
        }
        due
    }
}

struct Watch {
    policy: Policy,
    told: Told,
    /// What was found by the last look, and is therefore known.
    known: Vec<Finding>,
    /// The block devices that there were.
    devices: Vec<String>,
    violations: [u64; CLASSES.len()],
    counters: Option<Counters>,
    scrub: String,
    metrics: String,
    /// Nanoseconds since the kernel started before which the guard was only tried, by the agent itself.
    since: u64,
    /// Where it is told how this boot ended.
    black_box: Option<BlackBox>,
    /// Whether what is found has just happened, and was not there when the watch began.
    started: bool,
}

/// Watches, for as long as the machine runs.
pub fn run() -> Result<u8, String> {
    let fail = |what: &str, e: io::Error| ["adamant: watch: ", what, ": ", &e.to_string(), ": run it as root, as a service of the image's\n"].concat();
    let policy = policy()?;
    let mounts = File::open(MOUNTS).map_err(|e| fail(MOUNTS, e))?;
    let devices = Events::open().map_err(|e| fail("the kernel's events", e))?;
    let opened = Opened::watch().map_err(|e| fail("the disk's nodes", e))?;
    // Without the guard, everything else is still watched; that it is not there is told at boot.
    let guard = |e: io::Error| say(&["<4>adamant: watch: the guard's maps: ", &e.to_string()].concat());
    let mut ring = Ring::open().unwrap_or_else(|e| {
        guard(e);
        None
    });
    let counters = Counters::open().unwrap_or_else(|e| {
        guard(e);
        None
    });
    let scrub = scrub::path(&policy);
    let report = read(BOOT_REPORT_PATH).unwrap_or_default();
    let since: u64 = value(&report, "since_us").and_then(|since| since.parse().ok()).unwrap_or(0);
    let end = the_end().map_err(|e| fail("signals", e))?;
    let mut watch = Watch {
        policy,
        told: Told::default(),
        known: Vec::new(),
        devices: block_devices(),
        violations: [0; CLASSES.len()],
        counters,
        scrub,
        metrics: String::new(),
        since: since.saturating_mul(1000),
        black_box: None,
        started: false,
    };
    watch.take_denials(ring.as_mut());
    watch.look();
    watch.write_metrics();
    watch.started = true;
    watch.black_box = value(&report, "black_box").filter(|path| path.starts_with('/')).and_then(|path| {
        let refused = |e: io::Error| say(&["<4>adamant: watch: the black box: ", &e.to_string()].concat());
        BlackBox::resume(Path::new(path)).map_err(refused).ok().flatten()
    });
    watch.note(blackbox::Event::Watched, "");
    notify("READY=1");
    let mut next_look = seconds() + MINUTE;
    let mut changed = false;
    loop {
        let next = watch.told.all.iter().filter(|one| one.more > 0).map(|one| one.at + MINUTE).fold(next_look, u64::min);
        let wait = if changed { 1 } else { next.saturating_sub(seconds()).clamp(1, MINUTE) };
        let mut waits = vec![
            PollFd::new(mounts.as_fd(), PollFlags::POLLPRI),
            PollFd::new(devices.socket(), PollFlags::POLLIN),
            PollFd::new(opened.fd(), PollFlags::POLLIN),
            PollFd::new(end.as_fd(), PollFlags::POLLIN),
        ];
        waits.extend(ring.as_ref().map(|ring| PollFd::new(ring.fd(), PollFlags::POLLIN)));
        let _ = poll(&mut waits, PollTimeout::from(wait as u16 * 1000));
        let ready: Vec<bool> = waits.iter().map(|one| one.any().unwrap_or(false)).collect();
        // The last ones are written a second after they came, so that many at once are written once.
        if changed && !ready.contains(&true) {
            watch.write_metrics();
            changed = false;
        }
        if ready[3] {
            // The service manager stops this last, when the machine is shut down.
            watch.take_denials(ring.as_mut());
            watch.write_metrics();
            watch.note(blackbox::Event::Ended, "");
            return Ok(0);
        }
        if ready[0] {
            watch.look_at_mounts();
        }
        if ready[1] {
            // Events are lost where there are many, and a device may be gone again: what is there and what has come are both asked.
            let mut there = block_devices();
            let _ = devices.each(&mut |event| {
                let name = event.filter(|event| event.subsystem == "block" && event.action == "add");
                let name = name.and_then(|event| event.devpath.rsplit('/').next().map(str::to_owned));
                there.extend(name.filter(|name| !there.contains(name)));
            });
            watch.look_at_devices(there);
        }
        if ready[2] {
            opened.each(&mut |node| watch.violation((&Finding::new("verity", node, "opened for writing", "left alone")).into()));
        }
        watch.take_denials(ring.as_mut());
        changed |= ready.contains(&true);
        for (event, times) in watch.told.due(seconds()) {
            watch.tell(&event, times);
        }
        if seconds() >= next_look {
            watch.look();
            watch.write_metrics();
            (changed, next_look) = (false, seconds() + MINUTE);
            notify("WATCHDOG=1");
        }
        if ready.contains(&true) {
            // Whoever makes events without end gets twenty looks a second and no more.
            sleep(Duration::from_millis(50));
        }
    }
}

/// Seconds since the kernel started.
fn seconds() -> u64 {
    since_kernel_start() / 1_000_000
}

/// What becomes readable when this is to end.
fn the_end() -> io::Result<SignalFd> {
    let mut signals = SigSet::empty();
    signals.extend([Signal::SIGTERM, Signal::SIGINT]);
    signals.thread_block()?;
    Ok(SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?)
}

/// The block devices that there are.
fn block_devices() -> Vec<String> {
    fs::read_dir("/sys/class/block").into_iter().flatten().flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

impl Watch {
    /// For those who come after the next start.
    fn note(&mut self, event: blackbox::Event, reason: &str) {
        if let Some(black_box) = &mut self.black_box
            && let Err(error) = black_box.note(event, "", reason, Vec::new())
        {
            say(&["<4>adamant: watch: the black box takes no record: ", &error.to_string()].concat());
        }
    }

    /// At everything that nobody tells of.
    fn look(&mut self) {
        self.compare(findings::all(&self.policy), |_| true);
    }

    fn look_at_mounts(&mut self) {
        let mut found = Vec::new();
        findings::of_mounts(&self.policy, &mut found);
        self.compare(found, |class| class == "mounts");
    }

    /// Tells what is new among the findings of some classes.
    fn compare(&mut self, found: Vec<Finding>, looked_at: impl Fn(&str) -> bool) {
        let new: Vec<Event> = found.iter().filter(|finding| !self.known.contains(finding)).map(Event::from).collect();
        self.known.retain(|finding| !looked_at(finding.class));
        self.known.extend(found);
        for event in new {
            self.violation(event);
        }
    }

    /// Tells of the block devices that were not there before. An `add` can also be asked for, of one that is.
    fn look_at_devices(&mut self, there: Vec<String>) {
        let new: Vec<String> = there.iter().filter(|name| !self.devices.contains(name)).cloned().collect();
        self.devices = there;
        for name in new {
            let text = ["devices: ", &name, " is new"].concat();
            self.violation(Event { class: "devices", key: text.clone(), text, members: members(&[("name", &name)]) });
        }
    }

    fn take_denials(&mut self, ring: Option<&mut Ring>) {
        let mut denials = Vec::new();
        if let Some(ring) = ring {
            let since = self.since;
            ring.drain(&mut |record| denials.extend(Denial::parse(record).filter(|denial| denial.time >= since)));
        }
        for denial in denials {
            self.violation(denial.into());
        }
    }

    fn violation(&mut self, event: Event) {
        let class = CLASSES.iter().position(|class| *class == event.class);
        if let Some(count) = class.and_then(|class| self.violations.get_mut(class)) {
            *count += 1;
        }
        if self.told.seen(&event, seconds()) {
            self.tell(&event, 1);
        }
        let wanted = &self.policy.on_violation;
        let reaction = class.and_then(|class| [wanted.mounts, wanted.sysctls, wanted.verity, wanted.devices, wanted.denials].get(class).copied());
        if self.started
            && let Some(reaction @ (Reaction::Reboot | Reaction::Poweroff)) = reaction
        {
            self.write_metrics();
            self.note(blackbox::Event::Failed, &[&printable(&event.text), ": on_violation ended it"].concat());
            end(&event, reaction);
        }
    }

    fn tell(&self, event: &Event, times: u64) {
        let again = if times > 1 { [", ", &times.to_string(), " times"].concat() } else { String::new() };
        say(&["<4>adamant: watch: ", &printable(&event.text), &again].concat());
        let line = ["{\"time\":", &now().to_string(), ",\"class\":\"", event.class, "\",", &event.members, ",\"times\":", &times.to_string(), "}\n"].concat();
        if let Err(error) = append(EVENTS, &line) {
            say(&["<4>adamant: watch: ", EVENTS, ": ", &error.to_string(), ": only the journal has the events"].concat());
        }
    }

    fn write_metrics(&mut self) {
        let denials = self.counters.as_ref().and_then(|counters| counters.read().ok());
        let text = metrics(denials.as_ref(), &self.violations, State::read(&self.scrub).as_ref());
        if text != self.metrics && replace(METRICS, &text).is_ok() {
            self.metrics = text;
        }
    }
}

/// The counters as text.
fn metrics(denials: Option<&[u64; HOOKS.len()]>, violations: &[u64; CLASSES.len()], scrub: Option<&State>) -> String {
    let mut out = String::new();
    let mut family = |name: &str, kind: &str, values: &mut dyn Iterator<Item = (&str, &str, u64)>| {
        out += &["# TYPE adamant_", name, " ", kind, "\n"].concat();
        for (label, value, number) in values {
            let label = if label.is_empty() { String::new() } else { ["{", label, "=\"", value, "\"}"].concat() };
            out += &["adamant_", name, &label, " ", &number.to_string(), "\n"].concat();
        }
    };
    if let Some(denials) = denials {
        family("denials_total", "counter", &mut HOOKS.iter().zip(denials).map(|(hook, count)| ("hook", *hook, *count)));
    }
    family("violations_total", "counter", &mut CLASSES.iter().zip(violations).map(|(class, count)| ("class", *class, *count)));
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
    OpenOptions::new().append(true).create(true).open(path)?.write_all(line.as_bytes())
}

/// Restarts the machine or switches it off, at once: whoever did this must not go on. The journals of file systems are for that.
fn end(event: &Event, reaction: Reaction) {
    let (word, how) = match reaction {
        Reaction::Poweroff => ("switched off", libc::RB_POWER_OFF),
        _ => ("restarted", libc::RB_AUTOBOOT),
    };
    let line = ["adamant: watch: ", &printable(&event.text), ": as the policy says, this machine is ", word, " now\n"].concat();
    // The kernel's log is the one that outlives this, on a console and in pstore.
    let _ = fs::write("/dev/kmsg", &line);
    say(&["<2>", line.trim_end()].concat());
    nix::unistd::sync();
    // SAFETY: the call takes a number only.
    if unsafe { libc::reboot(how) } != 0 {
        say(&["<2>adamant: watch: that failed: ", &io::Error::last_os_error().to_string()].concat());
    }
}

/// Tells the service manager (sd_notify(3)), where there is one.
fn notify(state: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let path = path.as_encoded_bytes();
    let address = match path.strip_prefix(b"@") {
        Some(name) => UnixAddr::new_abstract(name),
        None => UnixAddr::new(path),
    };
    let socket = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None);
    if let (Ok(address), Ok(socket)) = (address, socket) {
        let _ = sendto(socket.as_raw_fd(), state.as_bytes(), &address, MsgFlags::MSG_NOSIGNAL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(key: &str) -> Event {
        Event { class: "denials", key: key.to_owned(), text: String::new(), members: String::new() }
    }

    #[test]
    fn what_repeats_is_told_once_a_minute_with_its_number_of_times() {
        let mut told = Told::default();
        assert!(told.seen(&event("a"), 10));
        for _ in 0..5 {
            assert!(!told.seen(&event("a"), 20));
        }
        assert!(told.seen(&event("b"), 30));
        assert_eq!(told.due(69), []);
        assert_eq!(told.due(70), [(event("a"), 5)]);
        assert_eq!(told.due(130), []);
        // Forgotten, and so new.
        assert!(told.seen(&event("a"), 131) && told.seen(&event("b"), 131));
    }

    #[test]
    fn memory_has_an_end_and_what_is_beyond_it_is_counted() {
        let mut told = Told::default();
        let new = (0..1000).filter(|number| told.seen(&event(&number.to_string()), 100)).count();
        assert_eq!((new, told.all.len()), (REMEMBERED, REMEMBERED));
        let due = told.due(100);
        assert_eq!((due.len(), due[0].1), (1, 1000 - REMEMBERED as u64));
        assert_eq!((told.due(161), told.all.len()), (vec![], 0));
    }

    #[test]
    fn an_event_is_a_line_of_json_whatever_a_name_holds() {
        let denial = Denial {
            time: 1,
            hook: "file_open",
            pid: 7,
            uid: 0,
            device: "254:3".to_owned(),
            inode: 9,
            comm: "s\"h".to_owned(),
            parent: "x\ny".to_owned(),
            name: "}\\".to_owned(),
        };
        let event = Event::from(denial);
        let read: serde_json::Value = serde_json::from_str(&format!("{{{}}}", event.members)).unwrap();
        assert_eq!((read["name"].as_str(), read["parent"].as_str(), read["pid"].as_u64()), (Some("}\\"), Some("x\ny"), Some(7)));
        let finding = Finding::new("mounts", "/usr", "tmpfs over it", "not mounted over");
        assert_eq!(Event::from(&finding).members, r#""what":"/usr","is":"tmpfs over it","should":"not mounted over""#);
    }

    #[test]
    fn metrics_are_in_the_text_format() {
        let mut denials = [0; HOOKS.len()];
        denials[10] = 3;
        let state = State { position: 1, size: 2, errors: 3, last_full: 4, ..State::default() };
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
