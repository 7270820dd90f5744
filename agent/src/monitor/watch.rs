//! `adamant-agent watch`: reports violations of the policy in the running machine, and reacts as
//! the policy's `on_violation` says.
//!
//! It sleeps until the kernel reports a change of the mounts, an event of the guard or a new
//! device. State without events is compared every minute. `outlets` are the outputs, `events`
//! limits the rate.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use adamant_contract::blackbox::BootEvent;
use adamant_contract::policy::{Policy, Reaction};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::events::{CLASSES, Details, MINUTE, RateLimit, Violation};
use super::finding::{Class, Finding};
use super::findings::{self, MOUNTS};
use super::guard::{Denial, DenialCounters};
use super::json::printable;
use super::opened::DiskWatch;
use super::outlets::{metrics, notify, report, write_metrics};
use super::scrub::{self, ScrubState};
use super::{boot_report, policy, print_line, services};
use crate::boot::history::BlackBox;
use crate::kernel::clock::since_kernel_start;
use crate::kernel::guard_abi::EVENTS;
use crate::kernel::process::{MachineEnd, end_machine};
use crate::kernel::ring_buffer::RingBuffer;
use crate::kernel::uevents::UeventSocket;

/// Positions of the descriptors that the watch waits for. The disk has one if inotify works, the
/// ring of the guard is the last.
const MOUNT_TABLE: usize = 0;
const DEVICES: usize = 1;
const END: usize = 2;
const DISK: usize = 3;

struct Watch {
    policy: Policy,
    limit: RateLimit,
    /// The findings of the last comparison.
    known: Vec<Finding>,
    /// The block devices at the last comparison.
    devices: Vec<String>,
    violations: [u64; CLASSES.len()],
    counters: Option<DenialCounters>,
    /// Path of the scrub's state.
    scrub: String,
    /// The counters that were written last.
    metrics: String,
    /// End of the guard's self-test in nanoseconds since the kernel started. Earlier denials are
    /// part of that test.
    since: u64,
    /// Denials that came through the ring or were reported as lost. The ring had no room for those
    /// that the guard counted beyond them.
    accounted: u64,
    /// Last second of the certificate that signed the image, since 1970; `None` without one.
    certificate_end: Option<u64>,
    /// Records the end of this boot.
    black_box: Option<BlackBox>,
    /// Whether the scrub did not run at the last comparison.
    scrub_was_idle: bool,
    /// When everything was compared, in seconds since the kernel started.
    compared: u64,
    /// False during the first comparison: its findings are older than the watch, so the policy's
    /// reaction does not apply to them.
    started: bool,
}

/// Watches until SIGTERM or SIGINT. Returns the exit code; `Err` is a line for the standard error.
pub fn watch_machine() -> Result<u8, String> {
    let fail = |what: &str, e: io::Error| {
        [
            "adamant: watch: ",
            what,
            ": ",
            &e.to_string(),
            ": run it as root, as a service of the image\n",
        ]
        .concat()
    };
    let policy = policy()?;
    let mounts = File::open(MOUNTS).map_err(|e| fail(MOUNTS, e))?;
    let devices = UeventSocket::open().map_err(|e| fail("the kernel's events", e))?;
    // Root can forbid inotify. At level guard nothing is lost: the guard refuses writes to the
    // disk.
    let disk = DiskWatch::start()
        .map_err(|e| {
            print_line(
                &[
                    "<4>adamant: watch: writers of the disk are not reported: ",
                    &e.to_string(),
                ]
                .concat(),
            )
        })
        .ok();
    // Without the guard's maps, everything else is still watched. The boot has reported whether the
    // guard is in force.
    let guard = |e: io::Error| {
        print_line(
            &[
                "<4>adamant: watch: the guard's maps cannot be opened, so its denials are not reported: ",
                &e.to_string(),
            ]
            .concat(),
        )
    };
    let mut ring = RingBuffer::open(EVENTS).unwrap_or_else(|e| {
        guard(e);
        None
    });
    let counters = DenialCounters::open().unwrap_or_else(|e| {
        guard(e);
        None
    });
    let scrub = scrub::path(&policy);
    let boot_report = boot_report().unwrap_or_default();
    let end = end_signals().map_err(|e| fail("signals", e))?;
    let mut watch = Watch {
        policy,
        limit: RateLimit::default(),
        known: Vec::new(),
        devices: block_devices(),
        violations: [0; CLASSES.len()],
        counters,
        scrub,
        metrics: String::new(),
        since: boot_report.seal.since_us.saturating_mul(1000),
        accounted: 0,
        certificate_end: u64::try_from(boot_report.signature.valid_until)
            .ok()
            .filter(|end| *end != 0),
        black_box: None,
        scrub_was_idle: false,
        compared: 0,
        started: false,
    };
    watch.take_denials(ring.as_mut());
    // An earlier watch has reported the denials so far.
    watch.accounted = watch.counted();
    watch.compare_all();
    watch.write_metrics();
    watch.started = true;
    watch.black_box = boot_report.black_box.and_then(|path| {
        BlackBox::resume(Path::new(&path))
            .map_err(|e| {
                print_line(&["<4>adamant: watch: black box ", &path, ": ", &e.to_string()].concat())
            })
            .ok()
            .flatten()
    });
    watch.record(BootEvent::Watched, "");
    notify("READY=1");
    let mut next_comparison = seconds() + MINUTE;
    let mut changed = false;
    loop {
        let next = watch.limit.due_times().fold(next_comparison, u64::min);
        let wait = if changed {
            1
        } else {
            next.saturating_sub(seconds()).clamp(1, MINUTE)
        };
        let mut waits = vec![
            PollFd::new(mounts.as_fd(), PollFlags::POLLPRI),
            PollFd::new(devices.socket(), PollFlags::POLLIN),
            PollFd::new(end.as_fd(), PollFlags::POLLIN),
        ];
        waits.extend(
            disk.as_ref()
                .map(|disk| PollFd::new(disk.fd(), PollFlags::POLLIN)),
        );
        waits.extend(
            ring.as_ref()
                .map(|ring| PollFd::new(ring.as_fd(), PollFlags::POLLIN)),
        );
        let _ = poll(&mut waits, PollTimeout::from(wait as u16 * 1000));
        let ready: Vec<bool> = waits
            .iter()
            .map(|wait| wait.any().unwrap_or(false))
            .collect();
        // The counters are written after a second without events, so that a burst of events causes
        // one write.
        if changed && !ready.contains(&true) {
            watch.write_metrics();
            changed = false;
        }
        if ready[END] {
            // The service manager stops this service last when the machine shuts down.
            watch.take_denials(ring.as_mut());
            watch.write_metrics();
            watch.record(BootEvent::Ended, "");
            return Ok(0);
        }
        if ready[MOUNT_TABLE] {
            watch.compare_mounts();
        }
        if ready[DEVICES] {
            // The kernel drops events when many come at once, and a device may be gone again: both
            // the list of devices and the events count.
            let mut devices_now = block_devices();
            let _ = devices.for_each(&mut |event| {
                let name =
                    event.filter(|event| event.subsystem == "block" && event.action == "add");
                let name =
                    name.and_then(|event| event.devpath.rsplit('/').next().map(str::to_owned));
                devices_now.extend(name.filter(|name| !devices_now.contains(name)));
            });
            watch.compare_devices(devices_now);
        }
        if let Some(disk) = &disk
            && ready.get(DISK) == Some(&true)
        {
            disk.for_each_event(&mut |node| {
                let finding = Finding::new(Class::Verity, node, "opened for writing", "left alone");
                watch.violation((&finding).into())
            });
        }
        watch.take_denials(ring.as_mut());
        changed |= ready.contains(&true);
        for (violation, times) in watch.limit.due(seconds()) {
            report(&violation, times);
        }
        if seconds() >= next_comparison {
            watch.report_lost_denials(ring.as_mut());
            watch.compare_all();
            watch.write_metrics();
            (changed, next_comparison) = (false, seconds() + MINUTE);
            notify("WATCHDOG=1");
        }
        if ready.contains(&true) {
            // An endless stream of events is handled at most twenty times a second.
            sleep(Duration::from_millis(50));
        }
    }
}

/// Seconds since the kernel started.
fn seconds() -> u64 {
    since_kernel_start() / 1_000_000
}

/// A descriptor that becomes readable at SIGTERM or SIGINT.
fn end_signals() -> io::Result<SignalFd> {
    let mut signals = SigSet::empty();
    signals.extend([Signal::SIGTERM, Signal::SIGINT]);
    signals.thread_block()?;
    Ok(SignalFd::with_flags(
        &signals,
        SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK,
    )?)
}

/// The names of all block devices.
fn block_devices() -> Vec<String> {
    fs::read_dir("/sys/class/block")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

impl Watch {
    /// Adds a record to the black box, for the next boot.
    fn record(&mut self, event: BootEvent, reason: &str) {
        if let Some(black_box) = &mut self.black_box
            && let Err(error) = black_box.add_record(event, "", reason, Vec::new())
        {
            print_line(
                &[
                    "<4>adamant: watch: the black box: writing a record: ",
                    &error.to_string(),
                ]
                .concat(),
            );
        }
    }

    fn compare_all(&mut self) {
        self.compared = seconds();
        let mut found = findings::all_findings(&self.policy);
        // Of its own service it knows that it runs. The scrub may be starting: it counts if it is
        // idle in two comparisons.
        let mut idle = Vec::new();
        services::check_services(&[services::SCRUB], &mut idle);
        if std::mem::replace(&mut self.scrub_was_idle, !idle.is_empty()) {
            found.extend(idle);
        }
        self.update_known(found, |_| true);
    }

    fn compare_mounts(&mut self) {
        let mut found = Vec::new();
        findings::check_mounts(&self.policy, &mut found);
        self.update_known(found, |class| class == Class::Mounts);
    }

    /// Replaces the known findings of the checked classes, and reports the new ones.
    fn update_known(&mut self, found: Vec<Finding>, is_checked: impl Fn(Class) -> bool) {
        let new: Vec<Violation> = found
            .iter()
            .filter(|finding| !self.known.contains(finding))
            .map(Violation::from)
            .collect();
        self.known.retain(|finding| !is_checked(finding.class));
        self.known.extend(found);
        for violation in new {
            self.violation(violation);
        }
    }

    /// Reports new block devices. A process can also request an `add` event of an existing device
    /// (uevent in sysfs), which is none.
    fn compare_devices(&mut self, devices: Vec<String>) {
        let new: Vec<String> = devices
            .iter()
            .filter(|name| !self.devices.contains(name))
            .cloned()
            .collect();
        self.devices = devices;
        for name in new {
            let text = ["devices: ", &name, " is new"].concat();
            self.violation(Violation {
                class: Class::Devices,
                key: text.clone(),
                text,
                details: Details::Device { name },
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

    /// Number of denials that the guard has counted.
    fn counted(&self) -> u64 {
        self.counters
            .as_ref()
            .and_then(|counters| counters.read().ok())
            .map_or(0, |counts| counts.iter().sum())
    }

    /// Reports the number of denials that the ring had no room for.
    fn report_lost_denials(&mut self, ring: Option<&mut RingBuffer>) {
        // The counters are read first: denials in between are in the ring by then.
        let counted = self.counted();
        self.take_denials(ring);
        if let lost @ 1.. = counted.saturating_sub(self.accounted) {
            self.accounted = counted;
            let text = "denials: more than the guard's ring had room for".to_owned();
            let violation = Violation {
                class: Class::Denials,
                key: text.clone(),
                text,
                details: Details::Denials { hook: "lost" },
            };
            self.count(Class::Denials, lost);
            report(&violation, lost);
            self.react_to(&violation);
        }
    }

    fn violation(&mut self, violation: Violation) {
        self.count(violation.class, 1);
        if self.limit.is_new(&violation, seconds()) {
            report(&violation, 1);
        }
        self.react_to(&violation);
    }

    fn count(&mut self, class: Class, times: u64) {
        let class = CLASSES.iter().position(|known| *known == class);
        if let Some(count) = class.and_then(|class| self.violations.get_mut(class)) {
            *count = count.saturating_add(times);
        }
    }

    /// Ends the machine if the policy says so.
    fn react_to(&mut self, violation: &Violation) {
        let on_violation = &self.policy.on_violation;
        let reaction = match violation.class {
            Class::Mounts => Some(on_violation.mounts),
            Class::Sysctls => Some(on_violation.sysctls),
            Class::Verity => Some(on_violation.verity),
            Class::Devices => Some(on_violation.devices),
            Class::Denials => Some(on_violation.denials),
            Class::Cmdline
            | Class::Units
            | Class::Executables
            | Class::Instructions
            | Class::Sockets
            | Class::Services
            | Class::Guard => None,
        };
        if self.started
            && let Some(reaction @ (Reaction::Reboot | Reaction::Poweroff)) = reaction
        {
            self.write_metrics();
            self.record(
                BootEvent::Failed,
                &[&printable(&violation.text), ": on_violation ended it"].concat(),
            );
            react(violation, reaction);
        }
    }

    fn write_metrics(&mut self) {
        let denials = self
            .counters
            .as_ref()
            .and_then(|counters| counters.read().ok());
        let text = metrics(
            self.compared,
            denials.as_ref(),
            &self.violations,
            ScrubState::read(&self.scrub).as_ref(),
            self.certificate_end,
        );
        write_metrics(text, &mut self.metrics);
    }
}

/// Restarts the machine or switches it off at once, without an orderly shutdown: an attacker must
/// not get more time. The volumes' journals make that safe.
fn react(violation: &Violation, reaction: Reaction) {
    let (verb, how) = match reaction {
        Reaction::Poweroff => ("switched off", MachineEnd::PowerOff),
        _ => ("restarted", MachineEnd::Restart),
    };
    let line = [
        "adamant: watch: ",
        &printable(&violation.text),
        ": as the policy says, this machine is ",
        verb,
        " now\n",
    ]
    .concat();
    // Consoles and pstore keep the kernel's log.
    let _ = fs::write("/dev/kmsg", &line);
    print_line(&["<2>", line.trim_end()].concat());
    nix::unistd::sync();
    let error = end_machine(how);
    print_line(
        &[
            "<2>adamant: watch: the kernel refuses to end the machine: reset it: ",
            &error.to_string(),
        ]
        .concat(),
    );
}
