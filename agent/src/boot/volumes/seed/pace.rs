//! Feeds the watchdog during long work on a volume.

use std::time::{Duration, Instant};

/// Time between two ticks while there is work.
const TICK: Duration = Duration::from_secs(1);
/// The clock is read once in this number of bytes.
const BYTES: u64 = 1 << 20;
/// The weight of an entry in bytes: handling it takes about as long as reading this number of
/// bytes.
const ENTRY: u64 = 32 << 10;

/// Counts work on a volume.
pub struct Pace<'a> {
    tick: &'a mut dyn FnMut(),
    /// Work since the clock was read, bytes.
    uncounted: u64,
    ticked: Instant,
}

impl<'a> Pace<'a> {
    /// `tick` feeds the watchdog and shows long work on the consoles.
    pub fn new(tick: &'a mut dyn FnMut()) -> Pace<'a> {
        Pace {
            tick,
            uncounted: 0,
            ticked: Instant::now(),
        }
    }

    /// Counts a handled entry.
    pub fn count_entry(&mut self) {
        self.count(ENTRY);
    }

    /// Counts bytes that were read, compared or written.
    pub fn count_bytes(&mut self, bytes: u64) {
        self.count(bytes);
    }

    /// Ticks before a step that may take long.
    pub fn tick(&mut self) {
        (self.tick)();
        self.ticked = Instant::now();
    }

    fn count(&mut self, work: u64) {
        self.uncounted += work;
        if self.uncounted >= BYTES {
            self.uncounted = 0;
            if self.ticked.elapsed() >= TICK {
                self.tick();
            }
        }
    }
}
