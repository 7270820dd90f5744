//! `adamant-agent watch`: tells of what happens to the running machine that should not, once each,
//! and does what the policy says.
//!
//! It sleeps until the kernel has something to tell: a change of the mounts, an event of the guard,
//! a new device. What nothing tells of is looked at every minute. Where it tells is `outlets`, and
//! how often `events`.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use adamant_contract::blackbox;
use adamant_contract::paths::BOOT_REPORT_PATH;
use adamant_contract::policy::{Policy, Reaction};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::events::{CLASSES, Event, MINUTE, Told};
use super::findings::{self, Finding, MOUNTS};
use super::guard::{Counters, Denial};
use super::opened::Opened;
use super::outlets::{metrics, notify, tell, write_metrics};
use super::scrub::{self, State};
use super::{members, policy, printable, read, say, value};
use crate::boot::history::BlackBox;
use crate::kernel::clock::since_kernel_start;
use crate::kernel::guard_abi::EVENTS;
use crate::kernel::process::{End, end_machine};
use crate::kernel::ring_buffer::RingBuffer;
use crate::kernel::uevents::Events;

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
    /// Nanoseconds since the kernel started before which the guard was only tried, by the agent
    /// itself.
    since: u64,
    /// Denials that came through the ring, or were told of as lost; what the guard has counted
    /// beyond them, the ring had no room for.
    accounted: u64,
    /// Where it is told how this boot ended.
    black_box: Option<BlackBox>,
    /// Whether what is found has just happened, and was not there when the watch began.
    started: bool,
}

/// Watches, for as long as the machine runs.
pub fn run() -> Result<u8, String> {
    let fail = |what: &str, e: io::Error| {
        [
            "adamant: watch: ",
            what,
            ": ",
            &e.to_string(),
            ": run it as root, as a service of the image's\n",
        ]
        .concat()
    };
    let policy = policy()?;
    let mounts = File::open(MOUNTS).map_err(|e| fail(MOUNTS, e))?;
    let devices = Events::open().map_err(|e| fail("the kernel's events", e))?;
    let opened = Opened::watch().map_err(|e| fail("the disk's nodes", e))?;
    // Without the guard, everything else is still watched; that it is not there is told at boot.
    let guard =
        |e: io::Error| say(&["<4>adamant: watch: the guard's maps: ", &e.to_string()].concat());
    let mut ring = RingBuffer::open(EVENTS).unwrap_or_else(|e| {
        guard(e);
        None
    });
    let counters = Counters::open().unwrap_or_else(|e| {
        guard(e);
        None
    });
    let scrub = scrub::path(&policy);
    let report = read(BOOT_REPORT_PATH).unwrap_or_default();
    let since: u64 = value(&report, "since_us")
        .and_then(|since| since.parse().ok())
        .unwrap_or(0);
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
        accounted: 0,
        black_box: None,
        started: false,
    };
    watch.take_denials(ring.as_mut());
    // Those before this watch were for the one before it.
    watch.accounted = watch.counted();
    watch.look();
    watch.write_metrics();
    watch.started = true;
    watch.black_box = value(&report, "black_box")
        .filter(|path| path.starts_with('/'))
        .and_then(|path| {
            let refused = |e: io::Error| {
                say(&["<4>adamant: watch: the black box: ", &e.to_string()].concat())
            };
            BlackBox::resume(Path::new(path))
                .map_err(refused)
                .ok()
                .flatten()
        });
    watch.note(blackbox::Event::Watched, "");
    notify("READY=1");
    let mut next_look = seconds() + MINUTE;
    let mut changed = false;
    loop {
        let next = watch.told.next().fold(next_look, u64::min);
        let wait = if changed {
            1
        } else {
            next.saturating_sub(seconds()).clamp(1, MINUTE)
        };
        let mut waits = vec![
            PollFd::new(mounts.as_fd(), PollFlags::POLLPRI),
            PollFd::new(devices.socket(), PollFlags::POLLIN),
            PollFd::new(opened.fd(), PollFlags::POLLIN),
            PollFd::new(end.as_fd(), PollFlags::POLLIN),
        ];
        waits.extend(
            ring.as_ref()
                .map(|ring| PollFd::new(ring.as_fd(), PollFlags::POLLIN)),
        );
        let _ = poll(&mut waits, PollTimeout::from(wait as u16 * 1000));
        let ready: Vec<bool> = waits.iter().map(|one| one.any().unwrap_or(false)).collect();
        // The last ones are written a second after they came, so that many at once are written
        // once.
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
            // Events are lost where there are many, and a device may be gone again: what is there
            // and what has come are both asked.
            let mut there = block_devices();
            let _ = devices.for_each(&mut |event| {
                let name =
                    event.filter(|event| event.subsystem == "block" && event.action == "add");
                let name =
                    name.and_then(|event| event.devpath.rsplit('/').next().map(str::to_owned));
                there.extend(name.filter(|name| !there.contains(name)));
            });
            watch.look_at_devices(there);
        }
        if ready[2] {
            opened.each(&mut |node| {
                watch.violation(
                    (&Finding::new("verity", node, "opened for writing", "left alone")).into(),
                )
            });
        }
        watch.take_denials(ring.as_mut());
        changed |= ready.contains(&true);
        for (event, times) in watch.told.due(seconds()) {
            tell(&event, times);
        }
        if seconds() >= next_look {
            watch.tell_of_lost_denials(ring.as_mut());
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
    Ok(SignalFd::with_flags(
        &signals,
        SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK,
    )?)
}

/// The block devices that there are.
fn block_devices() -> Vec<String> {
    fs::read_dir("/sys/class/block")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

impl Watch {
    /// For those who come after the next start.
    fn note(&mut self, event: blackbox::Event, reason: &str) {
        if let Some(black_box) = &mut self.black_box
            && let Err(error) = black_box.note(event, "", reason, Vec::new())
        {
            say(&[
                "<4>adamant: watch: the black box takes no record: ",
                &error.to_string(),
            ]
            .concat());
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
        let new: Vec<Event> = found
            .iter()
            .filter(|finding| !self.known.contains(finding))
            .map(Event::from)
            .collect();
        self.known.retain(|finding| !looked_at(finding.class));
        self.known.extend(found);
        for event in new {
            self.violation(event);
        }
    }

    /// Tells of the block devices that were not there before. An `add` can also be asked for, of
    /// one that is.
    fn look_at_devices(&mut self, there: Vec<String>) {
        let new: Vec<String> = there
            .iter()
            .filter(|name| !self.devices.contains(name))
            .cloned()
            .collect();
        self.devices = there;
        for name in new {
            let text = ["devices: ", &name, " is new"].concat();
            self.violation(Event {
                class: "devices",
                key: text.clone(),
                text,
                members: members(&[("name", &name)]),
            });
        }
    }

    fn take_denials(&mut self, ring: Option<&mut RingBuffer>) {
        let mut denials = Vec::new();
        if let Some(ring) = ring {
            let since = self.since;
            ring.drain(&mut |record| {
                denials.extend(Denial::parse(record).filter(|denial| denial.time >= since))
            });
        }
        self.accounted += denials.len() as u64;
        for denial in denials {
            self.violation(denial.into());
        }
    }

    /// How many denials the guard has counted.
    fn counted(&self) -> u64 {
        self.counters
            .as_ref()
            .and_then(|counters| counters.read().ok())
            .map_or(0, |counts| counts.iter().sum())
    }

    /// Tells how many denials the ring had no room for.
    fn tell_of_lost_denials(&mut self, ring: Option<&mut RingBuffer>) {
        // Counted first: what comes between is in the ring by then.
        let counted = self.counted();
        self.take_denials(ring);
        if let lost @ 1.. = counted.saturating_sub(self.accounted) {
            self.accounted = counted;
            let text = "denials: more than the guard's ring had room for".to_owned();
            tell(
                &Event {
                    class: "denials",
                    key: text.clone(),
                    text,
                    members: members(&[("hook", "lost")]),
                },
                lost,
            );
        }
    }

    fn violation(&mut self, event: Event) {
        let class = CLASSES.iter().position(|class| *class == event.class);
        if let Some(count) = class.and_then(|class| self.violations.get_mut(class)) {
            *count += 1;
        }
        if self.told.seen(&event, seconds()) {
            tell(&event, 1);
        }
        let wanted = &self.policy.on_violation;
        let reaction = class.and_then(|class| {
            [
                wanted.mounts,
                wanted.sysctls,
                wanted.verity,
                wanted.devices,
                wanted.denials,
            ]
            .get(class)
            .copied()
        });
        if self.started
            && let Some(reaction @ (Reaction::Reboot | Reaction::Poweroff)) = reaction
        {
            self.write_metrics();
            self.note(
                blackbox::Event::Failed,
                &[&printable(&event.text), ": on_violation ended it"].concat(),
            );
            end(&event, reaction);
        }
    }

    fn write_metrics(&mut self) {
        let denials = self
            .counters
            .as_ref()
            .and_then(|counters| counters.read().ok());
        let text = metrics(
            denials.as_ref(),
            &self.violations,
            State::read(&self.scrub).as_ref(),
        );
        write_metrics(text, &mut self.metrics);
    }
}

/// Restarts the machine or switches it off, at once: whoever did this must not go on. The journals
/// of file systems are for that.
fn end(event: &Event, reaction: Reaction) {
    let (word, how) = match reaction {
        Reaction::Poweroff => ("switched off", End::PowerOff),
        _ => ("restarted", End::Restart),
    };
    let line = [
        "adamant: watch: ",
        &printable(&event.text),
        ": as the policy says, this machine is ",
        word,
        " now\n",
    ]
    .concat();
    // The kernel's log is the one that outlives this, on a console and in pstore.
    let _ = fs::write("/dev/kmsg", &line);
    say(&["<2>", line.trim_end()].concat());
    nix::unistd::sync();
    let error = end_machine(how);
    say(&["<2>adamant: watch: that failed: ", &error.to_string()].concat());
}
