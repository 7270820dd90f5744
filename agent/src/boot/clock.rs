//! The clock: a machine whose battery is empty, or that never had one, begins in 1970 or in its firmware's year.

use std::time::{Duration, SystemTime};

use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_settime};

use super::Context;

/// Seconds since 1970; 0 for what was before.
pub fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Sets a clock that is behind the image's build time, seconds since 1970, to it: no certificate, no log and no time stamp is right before.
pub fn not_before(built: i64, context: &mut Context) {
    let Ok(seconds) = u64::try_from(built) else { return };
    let built = Duration::from_secs(seconds);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    if now >= built {
        return;
    }
    match clock_settime(ClockId::CLOCK_REALTIME, TimeSpec::from(built)) {
        Ok(()) => {
            log::warn!("the clock stood at {} s since 1970, before the image was built: set to {seconds}", now.as_secs());
            context.report.clock_was = Some(now.as_secs());
        }
        Err(error) => context.warn(format!("The clock is before the image's build time, and could not be set: {}.", error.desc())),
    }
}
