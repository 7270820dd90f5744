//! The agent's messages: to the kernel's log, and the reason of a failure to every console.
//!
//! Promise: no call blocks for longer than [`TIMEOUT`] on each console, and none returns an error.

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

/// Longest wait for a console that accepts no more characters (flow control).
const TIMEOUT: Duration = Duration::from_secs(1);
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

/// Makes the kernel's log the target of the `log` crate.
pub fn start_log() {
    if log::set_logger(&KernelLog).is_ok() {
        log::set_max_level(log::LevelFilter::Info);
    }
}

/// Reports a failure in the kernel's log, and once on every console.
pub fn announce(line: &str) {
    announce_at(CRITICAL, line);
}

/// Reports a long operation in the kernel's log, and once on every console, even with `quiet`.
pub fn show_progress(line: &str) {
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
    // Opened for each line: the kernel limits the rate for each opening and could drop the
    // important line.
    let mut log = OpenOptions::new().write(true).open(device("kmsg"))?;
    log.write_all(format!("<{level}>{}\n", printable(line)).as_bytes())
}

/// The newest line of the kernel's log that contains a text.
pub fn last_logged(text: &str) -> Option<String> {
    let mut found = None;
    for_each_logged(|line| {
        if line.contains(text) {
            found = Some(line.to_owned());
        }
    });
    found
}

/// The last lines of the kernel's log, oldest first.
pub fn last_lines(count: usize) -> Vec<String> {
    let mut lines = VecDeque::with_capacity(count + 1);
    for_each_logged(|line| {
        lines.push_back(printable(line));
        if lines.len() > count {
            lines.pop_front();
        }
    });
    lines.into()
}

fn for_each_logged(mut visit: impl FnMut(&str)) {
    let Ok(mut log) = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(device("kmsg"))
    else {
        return;
    };
    let mut record = [0; 8192];
    // Reading ends with EAGAIN. EPIPE means that the record was overwritten: the next read returns
    // the oldest one. The bound is greater than the number of records in the log.
    for _ in 0..1_000_000 {
        match log.read(&mut record) {
            Ok(length) => {
                // `level,sequence,time,flags;text`, then continuation lines that begin with a
                // space.
                let line = String::from_utf8_lossy(&record[..length]);
                visit(
                    line.split_once(';')
                        .map_or("", |(_, line)| line.lines().next().unwrap_or_default()),
                );
            }
            Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {}
            Err(_) => break,
        }
    }
}

/// Whether the kernel prints log records of this level on the consoles itself.
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

/// The line with control characters replaced, and cut to [`LINE_LIMIT`]. It may contain names from
/// disks.
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

/// A node in /dev, which is moved when the root is switched.
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
    let end = Instant::now() + TIMEOUT;
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
    fn a_message_is_one_line_of_bounded_length() {
        assert_eq!(printable("a\nb\x1b[2Jc"), "a?b?[2Jc");
        assert!(printable(&"é".repeat(1000)).len() <= LINE_LIMIT + '…'.len_utf8());
    }
}
