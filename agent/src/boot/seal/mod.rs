//! The stage that seals the machine: from here until the next reboot it refuses changes, to the
//! extent of the policy's level.
//!
//! Each level has a module, which reads back every setting that it makes. The report lists what the
//! kernel did not accept; where the policy requires the level, the boot fails. The guard comes
//! last, so it needs no exceptions for the boot.

mod background;
mod config;
mod drivers;
mod guard;
mod linker;
mod lockdown;
mod numbers;
mod verity;

use adamant_contract::policy::{Enforce, Level};
use adamant_contract::report::{ModuleLoadingReport, ReachedLevel, StageName};
use nix::fcntl::OFlag;

use super::identity::Identified;
use super::root::{self, MountedRoot};
use super::{Context, Failure, systemd};
use drivers::Hardware;

const STAGE: StageName = StageName::Seal;

/// A root that may be entered. Only [`SealTasks::seal`] makes one.
pub struct Sealed {
    identified: Identified,
}

impl Sealed {
    /// The root to enter.
    pub fn root(&self) -> &MountedRoot {
        self.identified.root()
    }
}

/// Slow preparations for the seal, in the background. Only [`SealTasks::start`] makes them.
pub struct SealTasks {
    /// `None` if the policy does not ask for the guard.
    guard: Option<Result<guard::Attaching, String>>,
    drivers: Result<Option<drivers::Loading>, String>,
    /// Whether modules of the image can be loaded later, if the guard allows it.
    modules_on_request: bool,
}

impl SealTasks {
    /// Starts what the verified policy asks for.
    pub fn start(root: &MountedRoot) -> SealTasks {
        let seal = &root.policy().seal;
        // Without systemd-udevd, drivers would never be requested.
        let modules_on_request = seal.loads_modules_on_request()
            && root::open_inside(numbers::UDEVD, OFlag::O_PATH).is_ok();
        let hardware = if modules_on_request {
            Hardware::LeaveToUdev
        } else {
            Hardware::LoadDrivers
        };
        let drivers = if seal.level >= Level::Lockdown {
            drivers::start_loading(&seal.modules, hardware)
        } else {
            Ok(None)
        };
        let guard = (seal.level == Level::Guard)
            .then(|| lockdown::mount_securityfs().and_then(|()| guard::start_attaching()));
        SealTasks {
            guard,
            drivers,
            modules_on_request,
        }
    }

    /// Waits for the drivers, while modules can still be loaded.
    pub fn wait_for_drivers(&self, context: &mut Context) {
        finish_loading(&self.drivers, context);
    }

    /// Seals the machine.
    pub fn seal(&self, identified: Identified, context: &mut Context) -> Result<Sealed, Failure> {
        let seal = &identified.root().policy().seal;
        context.report.seal.wanted = seal.level;
        context.report.seal.enforce = seal.enforce;
        context.report.seal.reached = ReachedLevel::None;
        context.report.seal.allowances = seal.allow.used();
        let mut guarded = false;
        for level in [Level::Verity, Level::Lockdown, Level::Guard] {
            if level > seal.level {
                break;
            }
            let before = context.report.seal.missing.len();
            match (level, &self.guard) {
                (Level::Verity, _) => verity::apply_verity_level(&identified, context),
                (Level::Lockdown, _) => {
                    lockdown::apply_lockdown_level(&seal.allow, context);
                    if !self.modules_on_request {
                        close_module_loading(context);
                    }
                }
                (Level::Guard, Some(attaching)) => {
                    let on_request = self.modules_on_request;
                    guarded =
                        guard::apply_guard_level(attaching, &identified, seal, on_request, context);
                }
                // Not reached: the policy's level decides about both.
                (Level::Guard, None) => missing(context, "the guard was not started".to_owned()),
            }
            context.watchdog.alive();
            let missing = context.report.seal.missing[before..].to_vec();
            if missing.is_empty() && context.report.seal.missing.is_empty() {
                context.report.seal.reached = level.into();
            } else if !missing.is_empty() && seal.enforce == Enforce::Require {
                let what = format!("level {:?}, which the policy requires", level.name());
                let remedy = "boot a kernel that has it, with its command line as it was built, or write `enforce = \"prefer\"` in [seal]";
                return Err(Failure::new(STAGE, what, missing.join("; "), remedy));
            } else {
                for why in missing {
                    context.warn(format!(
                        "The seal lacks something of level {:?}: {why}.",
                        level.name()
                    ));
                }
            }
        }
        if self.modules_on_request {
            open_or_close_module_loading(guarded, context);
        }
        Ok(Sealed { identified })
    }
}

fn finish_loading(drivers: &Result<Option<drivers::Loading>, String>, context: &mut Context) {
    let loaded = match drivers {
        Ok(None) => Ok(()),
        Ok(Some(loading)) => drivers::finish(loading, context),
        Err(why) => Err(why.clone()),
    };
    if let Err(why) = loaded {
        context.warn(format!("No drivers were loaded: {why}."));
    }
}

/// Leaves module loading to the guard. Where the policy only prefers the guard and it is not in
/// force, loads the drivers of the present hardware and disables module loading.
fn open_or_close_module_loading(guarded: bool, context: &mut Context) {
    if !guarded {
        finish_loading(&drivers::start_loading(&[], Hardware::LoadDrivers), context);
        return close_module_loading(context);
    }
    if let Err(error) = systemd::protect_module_loaders() {
        context.warn(format!(
            "Drivers may not be loaded: systemd-udevd's unit: {error}."
        ));
    }
    enforced(
        context,
        "modules of the image alone, on request of the kernel, systemd-udevd and systemd-modules-load",
    );
    context.report.seal.module_loading = ModuleLoadingReport::Image;
}

fn close_module_loading(context: &mut Context) {
    lockdown::close_module_loading(context);
    context.report.seal.module_loading = ModuleLoadingReport::Boot;
}

/// Reports a setting that is in force.
fn enforced(context: &mut Context, what: impl Into<String>) {
    context.report.seal.enforced.push(what.into());
}

/// Reports a setting that is not in force, with the reason for the end of a sentence.
fn missing(context: &mut Context, why: String) {
    context.report.seal.missing.push(why);
}
