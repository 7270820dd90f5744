//! QEMU's monitor (QEMU Machine Protocol): reports when the machine restarts or powers off.
//!
//! A machine may restart when its operator asks for it, but a machine that fails and restarts
//! forever must be stopped. From outside both look the same, so restarts are counted. The count
//! starts again after the machine ran for a while.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::error::{Context, Result};
use crate::io::process;

/// A machine that ran for this long has started successfully.
const STEADY: Duration = Duration::from_secs(600);
/// Resets within this time count as one restart. A kernel tries several ways to reset the machine,
/// and SeaBIOS resets it once more. These resets come within 50 ms of each other; no machine starts
/// and restarts within this time.
const SAME: Duration = Duration::from_secs(2);
/// Longest line that is read, bytes. Events have about 200.
const LINE: u64 = 64 << 10;

/// Cause of a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// The guest.
    ByGuest,
    /// The watchdog, because the guest did not reset its timer in time.
    ByWatchdog,
}

/// An event that the monitor reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MonitorEvent {
    /// The machine restarted.
    Restart(Restart),
    /// The machine powered off.
    Off {
        /// Whether the guest did it; otherwise a person or a signal.
        by_guest: bool,
    },
}

/// The two ends of the connection to QEMU.
#[derive(Debug)]
pub struct Monitor {
    ours: UnixStream,
    theirs: UnixStream,
}

impl Monitor {
    /// Adds QEMU's end of the connection to its command line.
    pub fn attach(command: &mut Command) -> Result<Monitor> {
        let (ours, theirs) = UnixStream::pair().context(|| "connecting to QEMU's monitor")?;
        let end = process::inherit(command, theirs.as_fd());
        command
            .arg("-chardev")
            .arg(format!("socket,id=monitor,fd={end}"))
            .args(["-mon", "chardev=monitor,mode=control"]);
        Ok(Monitor { ours, theirs })
    }

    /// Receives events. Call this when QEMU runs; the connection ends with QEMU.
    pub fn listen(self) -> Receiver<MonitorEvent> {
        let (sender, events) = channel();
        let Monitor { ours, theirs } = self;
        drop(theirs);
        std::thread::spawn(move || {
            // QEMU sends no events before this command.
            let _ = (&ours).write_all(b"{\"execute\":\"qmp_capabilities\"}\n");
            let mut watchdog = false;
            let mut lines = BufReader::new(ours);
            let mut line = Vec::new();
            loop {
                line.clear();
                match (&mut lines).take(LINE).read_until(b'\n', &mut line) {
                    Ok(0) | Err(_) => return,
                    Ok(_) => {}
                }
                if let Some(event) = event(&line, &mut watchdog)
                    && sender.send(event).is_err()
                {
                    return;
                }
            }
        });
        events
    }
}

/// Parses a line of the monitor. The event of a watchdog comes before the reset that it causes, so
/// `watchdog` remembers it.
fn event(line: &[u8], watchdog: &mut bool) -> Option<MonitorEvent> {
    #[derive(Deserialize)]
    struct Line {
        event: String,
        #[serde(default)]
        data: Data,
    }
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Data {
        guest: bool,
        action: String,
    }
    let line: Line = serde_json::from_slice(line).ok()?;
    match line.event.as_str() {
        "WATCHDOG" => {
            *watchdog = line.data.action == "reset";
            None
        }
        // A reset from QEMU's own console does not count, because a person asked for it.
        "RESET" => match (std::mem::take(watchdog), line.data.guest) {
            (true, _) => Some(MonitorEvent::Restart(Restart::ByWatchdog)),
            (false, true) => Some(MonitorEvent::Restart(Restart::ByGuest)),
            (false, false) => None,
        },
        "SHUTDOWN" => Some(MonitorEvent::Off {
            by_guest: line.data.guest,
        }),
        _ => None,
    }
}

/// Counts restarts.
#[derive(Debug)]
pub struct RestartCount {
    allowed: u32,
    restarts: u32,
    since: Instant,
}

impl RestartCount {
    /// A new count that allows this many restarts in a row.
    pub fn new(allowed: u32, now: Instant) -> RestartCount {
        RestartCount {
            allowed,
            restarts: 0,
            since: now,
        }
    }

    /// Counts a reset. Returns the number of restarts, `None` if the reset belongs to the last
    /// restart, or `Err` with the number if it is too large.
    pub fn restarted(&mut self, now: Instant) -> Result<Option<u32>, u32> {
        let ran = now.duration_since(self.since);
        if ran < SAME && self.restarts > 0 {
            return Ok(None);
        }
        if ran >= STEADY {
            self.restarts = 0;
        }
        self.since = now;
        self.restarts = self.restarts.saturating_add(1);
        if self.restarts > self.allowed {
            Err(self.restarts)
        } else {
            Ok(Some(self.restarts))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recognizes_restarts_among_all_events() {
        let mut watchdog = false;
        let mut of = |line: &str| event(line.as_bytes(), &mut watchdog);
        for other in [
            "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 22, \"minor\": 2, \"major\": 7}}, \"capabilities\": [\"oob\"]}}\r\n",
            "{\"return\": {}}\r\n",
            "{\"timestamp\": {\"seconds\": 1}, \"event\": \"RESET\", \"data\": {\"guest\": false, \"reason\": \"host-qmp-system-reset\"}}\r\n",
            "{\"event\": \"RESET\"",
            "\0",
        ] {
            assert_eq!(of(other), None, "{other}");
        }
        let reset = "{\"timestamp\": {\"seconds\": 1, \"microseconds\": 2}, \"event\": \"RESET\", \"data\": {\"guest\": true, \"reason\": \"guest-reset\"}}\r\n";
        assert_eq!(of(reset), Some(MonitorEvent::Restart(Restart::ByGuest)));
        assert_eq!(
            of("{\"event\": \"WATCHDOG\", \"data\": {\"action\": \"reset\"}}"),
            None
        );
        assert_eq!(
            of("{\"event\": \"RESET\", \"data\": {\"guest\": false, \"reason\": \"host-error\"}}"),
            Some(MonitorEvent::Restart(Restart::ByWatchdog))
        );
        assert_eq!(of(reset), Some(MonitorEvent::Restart(Restart::ByGuest)));
        let off = |by_guest: bool, reason: &str| {
            format!(
                "{{\"event\": \"SHUTDOWN\", \"data\": {{\"guest\": {by_guest}, \"reason\": \"{reason}\"}}}}\r\n"
            )
        };
        assert_eq!(
            of(&off(true, "guest-shutdown")),
            Some(MonitorEvent::Off { by_guest: true })
        );
        assert_eq!(
            of(&off(false, "host-qmp-quit")),
            Some(MonitorEvent::Off { by_guest: false })
        );
    }

    #[test]
    fn only_restarts_in_a_row_count() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut count = RestartCount::new(2, start);
        // Resets that follow each other closely are one restart.
        assert_eq!(
            [
                count.restarted(at(20_000)),
                count.restarted(at(20_040)),
                count.restarted(at(20_050))
            ],
            [Ok(Some(1)), Ok(None), Ok(None)]
        );
        assert_eq!(count.restarted(at(40_000)), Ok(Some(2)));
        assert_eq!(count.restarted(at(640_000)), Ok(Some(1)));
        assert_eq!(
            [count.restarted(at(700_000)), count.restarted(at(710_000))],
            [Ok(Some(2)), Err(3)]
        );
        assert_eq!(RestartCount::new(0, start).restarted(at(1)), Err(1));
        // A machine that restarts very fast is stopped too.
        let mut count = RestartCount::new(2, start);
        assert!((0..100).any(|n| count.restarted(at(n * 500)).is_err()));
    }
}
