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

/// The time, in seconds since 1970.
pub fn now() -> u64 {
    seconds(SystemTime::now())
}

/// Microseconds since the kernel started (CLOCK_BOOTTIME).
pub fn since_kernel_start() -> u64 {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0, |t| Duration::from(t).as_micros() as u64)
}

/// How far beyond the image's build time the clock may be, in seconds: 15 years, as systemd's
/// `clock-valid-range-usec-max`.
const VALID_RANGE: i64 = 473_364_000;

/// The latest time, in seconds since 1970, that the clock of a server may have whose image was
/// built at `built` (0 if unknown).
pub fn latest_time(built: i64) -> i64 {
    match built {
        ..=0 => i64::MAX,
        built => built.saturating_add(VALID_RANGE),
    }
}

/// Sets the real-time clock to the build time, in seconds since 1970, if it is before it or after
/// [`latest_time`]. Returns the previous time if the clock was set.
///
/// A machine with an empty or without a clock battery starts in 1970 or in its firmware's year.
/// Somebody may have set the hardware clock to a year so far away that time servers are not
/// believed.
pub fn correct(built: i64) -> io::Result<Option<u64>> {
    let now = now();
    let valid = built..=latest_time(built);
    let (Ok(built), false) = (
        u64::try_from(built),
        i64::try_from(now).is_ok_and(|now| valid.contains(&now)),
    ) else {
        return Ok(None);
    };
    clock_settime(
        ClockId::CLOCK_REALTIME,
        TimeSpec::from(Duration::from_secs(built)),
    )?;
    Ok(Some(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_may_be_fifteen_years_ahead_of_the_image() {
        assert_eq!(latest_time(1_700_000_000), 2_173_364_000);
        assert_eq!(latest_time(0), i64::MAX);
        assert_eq!(latest_time(i64::MAX), i64::MAX);
    }
}
