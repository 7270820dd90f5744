//! What a person sees who waits for more than a second: one line on the terminal, with rate and
//! remaining time where these are known.
//!
//! A process does one thing at a time, so there is one line. Where stderr is no terminal, nothing
//! is ever drawn.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often the line is drawn.
const OFTEN: Duration = Duration::from_millis(200);
/// What takes less time than this is not worth a line.
const SHORT: Duration = Duration::from_secs(1);

static STAGE: Mutex<Option<(&'static str, Instant)>> = Mutex::new(None);
static DONE: AtomicU64 = AtomicU64::new(0);
static TOTAL: AtomicU64 = AtomicU64::new(0);
/// Whether the line stands on the terminal. Changed with stderr locked.
static DRAWN: AtomicBool = AtomicBool::new(false);
static END: AtomicBool = AtomicBool::new(false);

/// A stage begins.
pub fn begin(stage: &'static str) {
    TOTAL.store(0, Ordering::Relaxed);
    DONE.store(0, Ordering::Relaxed);
    *STAGE.lock().unwrap_or_else(PoisonError::into_inner) = Some((stage, Instant::now()));
}

/// It is about so many bytes.
pub fn expect(bytes: u64) {
    TOTAL.store(bytes, Ordering::Relaxed);
}

/// So many of them are done.
pub fn add(bytes: u64) {
    DONE.fetch_add(bytes, Ordering::Relaxed);
}

/// The stage is over.
pub fn end() {
    *STAGE.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

/// While this lives, the line is drawn.
#[derive(Debug)]
pub struct Shown(Option<JoinHandle<()>>);

/// Draws the line from now on, if there is a terminal.
pub fn show() -> Shown {
    if !io::stderr().is_terminal() {
        return Shown(None);
    }
    END.store(false, Ordering::Relaxed);
    Shown(
        std::thread::Builder::new()
            .name("progress".to_owned())
            .spawn(draw)
            .ok(),
    )
}

impl Drop for Shown {
    fn drop(&mut self) {
        END.store(true, Ordering::Relaxed);
        if let Some(thread) = self.0.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
        write(b"");
    }
}

fn draw() {
    while !END.load(Ordering::Relaxed) {
        std::thread::park_timeout(OFTEN);
        let stage = *STAGE.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((stage, since)) = stage.filter(|(_, since)| since.elapsed() >= SHORT) {
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

/// Writes to stderr; the line is taken away before, so that nothing is written behind it. A
/// terminal that went away must not end anything.
pub fn write(bytes: &[u8]) {
    let mut stderr = io::stderr().lock();
    if DRAWN.swap(false, Ordering::Relaxed) {
        let _ = stderr.write_all(b"\r\x1b[K");
    }
    let _ = stderr.write_all(bytes);
}

/// `root: 63 %, 254 of 403 MB, 18.2 MB/s, 8 s left`, or what of it is known.
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
    fn the_line_says_what_is_known() {
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
