//! What the agent says: to the kernel's log, and the reason of a failure to every console.
//!
//! Promise: no call here blocks for longer than [`PATIENCE`] a console, and none fails: there would
//! be nobody to tell.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use adamant_contract::paths::SYSROOT;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Longest wait for a console that takes no more characters (flow control).
const PATIENCE: Duration = Duration::from_secs(1);
/// The kernel refuses longer records (1024 bytes with the prefix).
const LINE_LIMIT: usize = 900;

/// The level of a failure in the kernel's log: LOG_CRIT, which `quiet` does not hide.
const CRITICAL: u8 = 2;
/// LOG_INFO, which `quiet` hides.
const INFORMATION: u8 = 6;

struct KernelLog;

impl log::Log for KernelLog {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &log::Record<'_>) {
        let level = match record.level() {
            log::Level::Error => 3,
            log::Level::Warn => 4,
            log::Level::Info => 6,
            log::Level::Debug | log::Level::Trace => 7,
        };
        let _ = kernel_log(level, &format!("adamant: {}", record.args()));
    }

    fn flush(&self) {}
}

/// Sends what is logged to the kernel's log.
pub fn start_log() {
    if log::set_logger(&KernelLog).is_ok() {
        log::set_max_level(log::LevelFilter::Info);
    }
}

/// Says a failure's line: in the kernel's log, and once on every console.
pub fn announce(line: &str) {
    announce_at(CRITICAL, line);
}

/// Says what takes long: in the kernel's log, and once on every console, also with `quiet`.
pub fn say(line: &str) {
    announce_at(INFORMATION, line);
}

fn announce_at(level: u8, line: &str) {
    let logged = kernel_log(level, line).is_ok();
    if logged && kernel_prints(level) {
        return;
    }
    let text = format!("\r{}\n", printable(line));
    for console in consoles() {
        write_bounded(&console, text.as_bytes());
    }
}

fn kernel_log(level: u8, line: &str) -> io::Result<()> {
    // Opened anew each time: the kernel limits the rate for each opening, and would drop the one
    // line that matters.
    let mut log = OpenOptions::new().write(true).open(device("kmsg"))?;
    log.write_all(format!("<{level}>{}\n", printable(line)).as_bytes())
}

/// The newest line of the kernel's log that contains a text.
pub fn last_logged(text: &str) -> Option<String> {
    let mut found = None;
    each_logged(|line| {
        if line.contains(text) {
            found = Some(line.to_owned());
        }
    });
    found
}

/// The last lines of the kernel's log, oldest first.
pub fn last_lines(count: usize) -> Vec<String> {
    let mut lines = VecDeque::with_capacity(count + 1);
    each_logged(|line| {
        lines.push_back(printable(line));
        if lines.len() > count {
            lines.pop_front();
        }
    });
    lines.into()
}

fn each_logged(mut look: impl FnMut(&str)) {
    let Ok(mut log) = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(device("kmsg"))
    else {
        return;
    };
    let mut record = [0; 8192];
    // Reading ends with EAGAIN; a record overwritten meanwhile gives EPIPE, and the next one then.
    // The bound is more than the log holds.
    for _ in 0..1_000_000 {
        match log.read(&mut record) {
            Ok(length) => {
                // `level,sequence,time,flags;text`, then lines that begin with a space.
                let line = String::from_utf8_lossy(&record[..length]);
                look(
                    line.split_once(';')
                        .map_or("", |(_, line)| line.lines().next().unwrap_or_default()),
                );
            }
            Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {}
            Err(_) => break,
        }
    }
}

/// Whether the kernel itself prints what it logs at this level on the consoles.
fn kernel_prints(level: u8) -> bool {
    let setting = |name: &str| {
        fs::read_to_string(Path::new("/proc/sys/kernel").join(name)).unwrap_or_default()
    };
    let console_level = setting("printk")
        .split_whitespace()
        .next()
        .and_then(|n| n.parse::<u8>().ok());
    console_level.is_some_and(|limit| level < limit) && setting("printk_devkmsg").trim() != "off"
}

/// The line without what would move a cursor or end the record, bounded. Names from disks may be in
/// it.
pub fn printable(line: &str) -> String {
    let mut text = String::new();
    for c in line.chars() {
        if text.len() + c.len_utf8() > LINE_LIMIT {
            text.push('…');
            break;
        }
        text.push(if c.is_control() { '?' } else { c });
    }
    text
}

fn consoles() -> Vec<PathBuf> {
    let active = fs::read_to_string("/sys/class/tty/console/active").unwrap_or_default();
    let mut consoles: Vec<PathBuf> = active.split_whitespace().map(device).collect();
    if consoles.is_empty() {
        consoles.push(device("console"));
    }
    consoles
}

/// A node in /dev, which moves when the root is switched.
fn device(name: &str) -> PathBuf {
    let path = Path::new("/dev").join(name);
    if path.exists() {
        path
    } else {
        Path::new(SYSROOT).join("dev").join(name)
    }
}

fn write_bounded(console: &Path, mut text: &[u8]) {
    let Ok(mut tty) = OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(console)
    else {
        return;
    };
    let end = Instant::now() + PATIENCE;
    while !text.is_empty() {
        match tty.write(text) {
            Ok(written) if written > 0 => text = &text[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error)
                if error.kind() == io::ErrorKind::WouldBlock && wait_until_writable(&tty, end) => {}
            _ => return,
        }
    }
}

fn wait_until_writable(tty: &File, end: Instant) -> bool {
    let left = end.saturating_duration_since(Instant::now());
    let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
    !left.is_zero()
        && matches!(
            poll(&mut [PollFd::new(tty.as_fd(), PollFlags::POLLOUT)], timeout),
            Ok(1..)
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_stays_one_line_of_bounded_length() {
        assert_eq!(printable("a\nb\x1b[2Jc"), "a?b?[2Jc");
        assert!(printable(&"é".repeat(1000)).len() <= LINE_LIMIT + '…'.len_utf8());
    }
}
