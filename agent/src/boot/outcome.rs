//! Ends a failed boot: prints the failure, waits, then reboots, powers off or halts. It never
//! starts a shell, hangs or lets PID 1 end.

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

/// `None` until the policy was read; then the default applies.
static OUTCOME: Mutex<Option<policy::FailurePolicy>> = Mutex::new(None);
/// Shortest delay, so that the consoles can print the line.
const LEAST_DELAY: Duration = Duration::from_millis(500);

/// Sets the outcome of later failures and of kernel panics.
pub fn set_outcome(outcome: policy::FailurePolicy, context: &mut Context) {
    *OUTCOME.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
    // Seconds between a panic and the restart; 0 is no restart. The kernel can't power off instead.
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
        // A kernel without the detector does not have this setting. That is no problem if the
        // policy does not ask for it.
        let now = fs::read_to_string(&path).unwrap_or_else(|_| "0".to_owned());
        if now.trim() != value {
            context.warn(format!("The kernel has no setting kernel.{name}, which the policy's `failure` sets to {value}: use a kernel with this detector."));
        }
    }
}

/// Treats a panic of the agent as a failed boot.
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
        end_boot(&failure, &mut Watchdog::default())
    }));
}

/// Prints the failure, waits, and ends the boot.
pub fn end_boot(failure: &Failure, watchdog: &mut Watchdog) -> ! {
    console::announce(&failure.to_string());
    history::record_failure(failure);
    let outcome = OUTCOME
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .unwrap_or_default();
    // A disk that hangs must not delay the configured outcome.
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
        // It only returns if this process lacks the permission because it is not the machine's PID
        // 1.
        let Err(error) = reboot(mode);
        console::announce(&format!(
            "adamant: reboot: the kernel refuses: {error}: reset the machine"
        ));
        thread::sleep(Duration::from_secs(60));
    }
}
