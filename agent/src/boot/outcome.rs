//! How a boot that failed ends: its line, the delay, then reboot, poweroff or halt. Never a shell,
//! a hang or the end of PID 1.

use std::fs;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use adamant_contract::policy::{self, FailureAction, FaultReaction};
use adamant_contract::report::StageName;
use nix::sys::reboot::{RebootMode, reboot};

use super::{Context, Failure, history};
use crate::kernel::console;
use crate::kernel::watchdog::Watchdog;

/// Until the policy is read nothing but the default is known.
static OUTCOME: Mutex<Option<policy::FailurePolicy>> = Mutex::new(None);
/// Time for the consoles to print the line, also when the policy asks for no delay.
const LEAST_DELAY: Duration = Duration::from_millis(500);

/// From now on a failure ends as this policy says, and so does one of the kernel's.
pub fn set(outcome: policy::FailurePolicy, context: &mut Context) {
    *OUTCOME.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
    // Seconds after a panic; 0 is no restart. The kernel can't switch off instead.
    let panic = if outcome.action == FailureAction::Halt {
        0
    } else {
        outcome.after_seconds.max(1)
    };
    let word = |fault: FaultReaction| {
        if fault == FaultReaction::Panic {
            "1"
        } else {
            "0"
        }
    };
    for (name, value) in [
        ("panic", panic.to_string().as_str()),
        ("panic_on_oops", word(outcome.oops)),
        ("softlockup_panic", word(outcome.lockup)),
        ("hung_task_panic", word(outcome.hung_task)),
    ] {
        let path = ["/proc/sys/kernel/", name].concat();
        let _ = fs::write(&path, value);
        // A kernel without the detector has no such setting: nothing is lost where nothing is asked
        // for.
        let now = fs::read_to_string(&path).unwrap_or_else(|_| "0".to_owned());
        if now.trim() != value {
            context.warn(format!("The kernel does not take kernel.{name} = {value}, which the policy's `failure` stands for: use one that has this detector."));
        }
    }
}

/// A panic of the agent is a failed boot like any other.
pub fn catch_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic
            .location()
            .map(|l| format!("{}:{}: ", l.file(), l.line()))
            .unwrap_or_default();
        let payload = panic.payload();
        let text = payload
            .downcast_ref::<&str>()
            .copied()
            .or(payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("panic");
        let failure = Failure::new(
            StageName::Agent,
            format!("{place}a mistake in the agent"),
            text,
            "boot another version of the image, and report this line",
        );
        end(&failure, &mut Watchdog::default())
    }));
}

/// Says why, waits, and ends the boot.
pub fn end(failure: &Failure, watchdog: &mut Watchdog) -> ! {
    console::announce(&failure.to_string());
    history::record_failure(failure);
    let outcome = OUTCOME
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .unwrap_or_default();
    // A disk that hangs must not keep the machine from its outcome.
    let _ = thread::Builder::new().spawn(nix::unistd::sync);
    let start = Instant::now();
    let delay = Duration::from_secs(outcome.after_seconds.into()).max(LEAST_DELAY);
    while start.elapsed() < delay {
        watchdog.alive();
        thread::sleep((delay - start.elapsed().min(delay)).min(Duration::from_secs(1)));
    }
    let mode = match outcome.action {
        FailureAction::Reboot => RebootMode::RB_AUTOBOOT,
        FailureAction::Poweroff => RebootMode::RB_POWER_OFF,
        FailureAction::Halt => {
            watchdog.disarm();
            RebootMode::RB_HALT_SYSTEM
        }
    };
    loop {
        // It does not come back, unless this process lacks the right, as it does when it is not the
        // machine's PID 1.
        let Err(error) = reboot(mode);
        console::announce(&format!(
            "adamant: reboot: the kernel refuses: {error}: reset the machine"
        ));
        thread::sleep(Duration::from_secs(60));
    }
}
