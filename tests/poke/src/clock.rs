//! The clock.

use std::io::{self, Write};
use std::ptr::null;

use crate::arguments::Arguments;
use crate::failure::{Failure, Named, Result};
use crate::kernel;

fn time(seconds: i64) -> libc::timespec {
    libc::timespec {
        tv_sec: seconds,
        tv_nsec: 0,
    }
}

fn now() -> libc::timespec {
    let mut now = time(0);
    // SAFETY: writes to this structure. The realtime clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &mut now) };
    now
}

fn set(to: &libc::timespec) -> i64 {
    // SAFETY: reads this structure.
    unsafe { libc::clock_settime(libc::CLOCK_REALTIME, to) }.into()
}

/// Seconds by which the clock must differ, so that other changes do not count.
const CLEARLY: i64 = 1000;

/// `clock settime|settimeofday|adjtimex|adjtime SECONDS`: sets the clock back to this time, checks
/// it, and sets it forward again.
pub fn set_back(arguments: &Arguments) -> Result {
    let wanted = arguments.number(1)?.cast_signed();
    let before = now();
    let (result, call) = match arguments.text(0) {
        "settime" => (set(&time(wanted)), "clock_settime"),
        "settimeofday" => {
            let wanted = libc::timeval {
                tv_sec: wanted,
                tv_usec: 0,
            };
            // SAFETY: reads this structure.
            let result = unsafe { libc::settimeofday(&wanted, null()) };
            (result.into(), "settimeofday")
        }
        kind @ ("adjtimex" | "adjtime") => {
            // SAFETY: the structure holds numbers, for which zero is valid.
            let mut change: libc::timex = unsafe { std::mem::zeroed() };
            change.modes = libc::ADJ_SETOFFSET;
            change.time.tv_sec = wanted - before.tv_sec;
            let result = if kind == "adjtimex" {
                // SAFETY: reads and writes this structure.
                unsafe { libc::adjtimex(&mut change) }
            } else {
                // SAFETY: as above.
                unsafe { libc::clock_adjtime(libc::CLOCK_REALTIME, &mut change) }
            };
            (result.into(), "adjtimex")
        }
        _ => return Err(Failure::Usage),
    };
    kernel::checked(result).named(call)?;
    let changed = now().tv_sec;
    set(&before);
    let _ = writeln!(io::stdout(), "the clock said {changed}");
    if changed < before.tv_sec - CLEARLY {
        Ok(())
    } else {
        Err(Failure::NoEffect("the clock was not set back".to_owned()))
    }
}
