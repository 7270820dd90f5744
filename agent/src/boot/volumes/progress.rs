//! Progress of long work: each step feeds the watchdog, and every ten seconds a line on the
//! consoles names the work and its progress.

use std::time::{Duration, Instant};

use crate::kernel::console;

/// Time between two lines on the consoles.
const INTERVAL: Duration = Duration::from_secs(10);

/// Progress of one task.
pub struct Progress<'a> {
    tick: &'a mut dyn FnMut(),
    what: String,
    started: Instant,
    next: Instant,
}

impl<'a> Progress<'a> {
    /// Starts the clock. `what` names the work and its object; `tick` feeds the watchdog.
    pub fn new(what: String, tick: &'a mut dyn FnMut()) -> Progress<'a> {
        let started = Instant::now();
        Progress {
            tick,
            what,
            started,
            next: started + INTERVAL,
        }
    }

    /// Feeds the watchdog. `how_far` is called when a line is due; it may return an empty string.
    pub fn alive(&mut self, how_far: &dyn Fn() -> String) {
        (self.tick)();
        let now = Instant::now();
        if now >= self.next {
            self.next = now + INTERVAL;
            console::show_progress(&self.line(&how_far()));
        }
    }

    fn line(&self, how_far: &str) -> String {
        let seconds = self.started.elapsed().as_secs();
        let how_far = if how_far.is_empty() {
            String::new()
        } else {
            format!("{how_far}, ")
        };
        format!("adamant: {}: {how_far}{seconds} s so far", self.what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_task_progress_and_elapsed_time() {
        let mut ticks = 0;
        let mut tick = || ticks += 1;
        let mut progress = Progress::new("checking volume \"state\"".to_owned(), &mut tick);
        assert_eq!(
            progress.line("pass 1 of 5, 40 %"),
            "adamant: checking volume \"state\": pass 1 of 5, 40 %, 0 s so far"
        );
        assert_eq!(
            progress.line(""),
            "adamant: checking volume \"state\": 0 s so far"
        );
        progress.alive(&|| panic!("no line is due"));
        progress.alive(&String::new);
        assert_eq!(ticks, 2);
    }
}
