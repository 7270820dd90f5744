//! QEMU's monitor (the QEMU Machine Protocol): what it tells of a machine that restarts itself or
//! is switched off.
//!
//! A server whose operator restarts it shall restart, and one that fails and restarts for that
//! reason, for ever, shall come to an end. From outside both look alike, so restarts are counted; a
//! machine that ran for a while in between starts the count anew.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::error::{Context, Result};
use crate::io::process;

/// A machine that ran this long did not fail to start.
const STEADY: Duration = Duration::from_secs(600);
/// One restart is several resets: a kernel tries more ways than one, and SeaBIOS resets once more
/// when it finds that it ran before. They come within 50 ms of each other; a machine needs longer
/// than this to come far enough to restart.
const SAME: Duration = Duration::from_secs(2);
/// The longest line that is listened to, bytes: events have some 200.
const LINE: u64 = 64 << 10;

/// A machine restarted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// It did so itself.
    ByGuest,
    /// Its watchdog was not fed.
    ByWatchdog,
}

/// What the monitor tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MonitorEvent {
    /// The machine restarted.
    Restart(Restart),
    /// The machine was switched off: by itself, or by a person or a signal.
    Off {
        /// Whether it did so itself.
        by_guest: bool,
    },
}

/// The two ends of the line to QEMU.
#[derive(Debug)]
pub struct Monitor {
    ours: UnixStream,
    theirs: UnixStream,
}

impl Monitor {
    /// Gives QEMU its end with its command line.
    pub fn attach(command: &mut Command) -> Result<Monitor> {
        let (ours, theirs) = UnixStream::pair().context(|| "a line to QEMU's monitor")?;
        let end = process::inherit(command, theirs.as_fd());
        command
            .arg("-chardev")
            .arg(format!("socket,id=monitor,fd={end}"))
            .args(["-mon", "chardev=monitor,mode=control"]);
        Ok(Monitor { ours, theirs })
    }

    /// Once QEMU runs: every event, as it comes. The line ends with QEMU.
    pub fn listen(self) -> Receiver<MonitorEvent> {
        let (tell, events) = channel();
        let Monitor { ours, theirs } = self;
        drop(theirs);
        std::thread::spawn(move || {
            // QEMU tells nothing before it was asked for its capabilities.
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
                    && tell.send(event).is_err()
                {
                    return;
                }
            }
        });
        events
    }
}

/// What one line of the monitor says. A watchdog announces itself before it resets the machine.
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
        // A person at QEMU's own console can restart it too: that one knows what happens.
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
    /// So many are allowed, from now on.
    pub fn new(allowed: u32, now: Instant) -> RestartCount {
        RestartCount {
            allowed,
            restarts: 0,
            since: now,
        }
    }

    /// One more, and how many there are now; `Err` with their number where that is too many,
    /// `Ok(None)` where it belongs to the last one.
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
    fn restarts_are_told_from_everything_else_that_the_monitor_says() {
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
        // Resets that belong together are one restart.
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
        // One that restarts as fast as can be comes to an end too.
        let mut count = RestartCount::new(2, start);
        assert!((0..100).any(|n| count.restarted(at(n * 500)).is_err()));
    }
}
