//! Long work that gives signs of life.

use std::time::{Duration, Instant};

/// How often they are given while there is work.
const TICK: Duration = Duration::from_secs(1);
/// The clock is asked once in so many bytes.
const BYTES: u64 = 1 << 20;
/// What an entry counts, bytes: it takes about as long as reading so many.
const ENTRY: u64 = 32 << 10;

/// Counts work on a volume.
pub struct Pace<'a> {
    tick: &'a mut dyn FnMut(),
    /// Work since the clock was asked.
    uncounted: u64,
    ticked: Instant,
}

impl<'a> Pace<'a> {
    /// `tick` feeds the watchdog and says on the consoles what takes long.
    pub fn new(tick: &'a mut dyn FnMut()) -> Pace<'a> {
        Pace {
            tick,
            uncounted: 0,
            ticked: Instant::now(),
        }
    }

    /// An entry was handled.
    pub fn entry(&mut self) {
        self.count(ENTRY);
    }

    /// Bytes were read, compared or written.
    pub fn read(&mut self, bytes: u64) {
        self.count(bytes);
    }

    /// Gives a sign of life before something that takes its time.
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
