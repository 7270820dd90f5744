//! The kernel's clocks.

use std::io;
use std::time::{Duration, SystemTime};

use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime, clock_settime};

/// Seconds since 1970; 0 for earlier times.
pub fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// Microseconds since the kernel started (CLOCK_BOOTTIME).
pub fn since_kernel_start() -> u64 {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0, |t| Duration::from(t).as_micros() as u64)
}

/// Sets the real-time clock to `least`, in seconds since 1970, if it is earlier. Returns the
/// previous time if the clock was set.
///
/// A machine with an empty or without a clock battery starts in 1970 or in its firmware's year.
pub fn raise_to(least: u64) -> io::Result<Option<u64>> {
    let now = seconds(SystemTime::now());
    if now >= least {
        return Ok(None);
    }
    clock_settime(
        ClockId::CLOCK_REALTIME,
        TimeSpec::from(Duration::from_secs(least)),
    )?;
    Ok(Some(now))
}
