//! The progress line of a stage that takes longer than a second, with rate and remaining time if
//! they are known.
//!
//! A process has one stage at a time, so there is one line. Nothing is drawn if stderr is not a
//! terminal.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::term::printable::Printable;

/// Time between two updates of the line.
const INTERVAL: Duration = Duration::from_millis(200);
/// A stage that takes less time has no line.
const DELAY: Duration = Duration::from_secs(1);

static STAGE: Mutex<Option<(&'static str, Instant)>> = Mutex::new(None);
static DONE: AtomicU64 = AtomicU64::new(0);
static TOTAL: AtomicU64 = AtomicU64::new(0);
/// Whether the terminal shows the line. Changed only while stderr is locked.
static DRAWN: AtomicBool = AtomicBool::new(false);
static END: AtomicBool = AtomicBool::new(false);

/// Starts a stage.
pub fn start_stage(stage: &'static str) {
    TOTAL.store(0, Ordering::Relaxed);
    DONE.store(0, Ordering::Relaxed);
    *STAGE.lock().unwrap_or_else(PoisonError::into_inner) = Some((stage, Instant::now()));
}

/// Sets the number of bytes that the stage processes.
pub fn expect(bytes: u64) {
    TOTAL.store(bytes, Ordering::Relaxed);
}

/// Adds to the number of bytes that are done.
pub fn add(bytes: u64) {
    DONE.fetch_add(bytes, Ordering::Relaxed);
}

/// Ends the stage.
pub fn end_stage() {
    *STAGE.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

/// Draws the line until it is dropped.
#[derive(Debug)]
pub struct ProgressLine(Option<JoinHandle<()>>);

/// Starts to draw the line if stderr is a terminal.
pub fn show() -> ProgressLine {
    if !io::stderr().is_terminal() {
        return ProgressLine(None);
    }
    END.store(false, Ordering::Relaxed);
    ProgressLine(
        std::thread::Builder::new()
            .name("progress".to_owned())
            .spawn(draw)
            .ok(),
    )
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        END.store(true, Ordering::Relaxed);
        if let Some(thread) = self.0.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
        write(&Printable::text(""));
    }
}

fn draw() {
    while !END.load(Ordering::Relaxed) {
        std::thread::park_timeout(INTERVAL);
        let stage = *STAGE.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((stage, since)) = stage.filter(|(_, since)| since.elapsed() >= DELAY) {
            let line = line(
                stage,
                since.elapsed(),
                DONE.load(Ordering::Relaxed),
                TOTAL.load(Ordering::Relaxed),
            );
            let mut stderr = io::stderr().lock();
            let _ = stderr.write_all(format!("\r\x1b[K{line}").as_bytes());
            DRAWN.store(true, Ordering::Relaxed);
        }
    }
}

/// Writes to stderr, after removing the progress line. A closed terminal is not an error.
pub fn write(text: &Printable) {
    let mut stderr = io::stderr().lock();
    if DRAWN.swap(false, Ordering::Relaxed) {
        let _ = stderr.write_all(b"\r\x1b[K");
    }
    let _ = stderr.write_all(text.as_bytes());
}

/// `root: 63 %, 254 of 403 MB, 18.2 MB/s, 8 s left`, or only the time if the total is unknown.
fn line(stage: &str, elapsed: Duration, done: u64, total: u64) -> String {
    let seconds = elapsed.as_secs_f64();
    if done == 0 || total == 0 {
        return format!("{stage}: {seconds:.0} s");
    }
    let (done, total) = (done.min(total) as f64, total as f64);
    let rate = done / seconds;
    format!(
        "{stage}: {:.0} %, {:.0} of {:.0} MB, {:.1} MB/s, {:.0} s left",
        100.0 * done / total,
        done / 1e6,
        total / 1e6,
        rate / 1e6,
        (total - done) / rate
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_has_rate_and_remaining_time_if_the_total_is_known() {
        assert_eq!(
            line("sources", Duration::from_millis(1600), 0, 0),
            "sources: 2 s"
        );
        assert_eq!(
            line("root", Duration::from_secs(10), 100_000_000, 400_000_000),
            "root: 25 %, 100 of 400 MB, 10.0 MB/s, 30 s left"
        );
        assert_eq!(
            line("root", Duration::from_secs(10), 500, 400),
            "root: 100 %, 0 of 0 MB, 0.0 MB/s, 0 s left"
        );
    }
}
