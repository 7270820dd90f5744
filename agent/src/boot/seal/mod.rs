//! Tenth stage: the seal. From here until the next reboot the machine refuses to be changed, as far
//! as the policy's level says.
//!
//! One module a level, each of which does its part and reads back what it did. What the kernel did
//! not take is a fact in the report; where the policy requires the level, it is a refusal to go on.
//! The guard comes last of all: nothing of the boot has to be excepted from it.

mod beside;
mod decide;
mod drivers;
mod guard;
mod lockdown;
mod verity;

use adamant_contract::policy::{Enforce, Level};
use adamant_contract::sysctls::ON_REQUEST;
use nix::fcntl::OFlag;

use super::identity::Identified;
use super::root::{self, MountedRoot};
use super::{Context, Failure, systemd};
use drivers::Hardware;

const STAGE: &str = "seal";

/// A root that may be entered. Only [`run`] makes one.
pub struct Sealed {
    identified: Identified,
}

impl Sealed {
    /// The root to enter.
    pub fn root(&self) -> &MountedRoot {
        self.identified.root()
    }
}

/// What takes long to prepare, on its way while other stages run. Only [`begin`] makes one.
pub struct Begun {
    guard: Result<guard::Attaching, String>,
    drivers: Result<Option<drivers::Loading>, String>,
    /// Whether the image's modules can be loaded later, as the guard judges.
    on_request: bool,
}

/// Begins with what takes long, as the verified policy asks.
pub fn begin(root: &MountedRoot) -> Begun {
    let seal = &root.policy().seal;
    // Without udevd, nobody would ask for drivers.
    let on_request =
        seal.loads_modules_on_request() && root::open_inside(decide::UDEVD, OFlag::O_PATH).is_ok();
    let hardware = if on_request {
        Hardware::Leave
    } else {
        Hardware::Drive
    };
    let drivers = if seal.level >= Level::Lockdown {
        drivers::begin(&seal.modules, hardware)
    } else {
        Ok(None)
    };
    let guard = if seal.level == Level::Guard {
        lockdown::see().and_then(|()| guard::begin())
    } else {
        Err("not asked for".to_owned())
    };
    Begun {
        guard,
        drivers,
        on_request,
    }
}

/// Waits for the drivers of the hardware, while modules can still be loaded.
pub fn load_drivers(begun: &Begun, context: &mut Context) {
    finish(&begun.drivers, context);
}

fn finish(drivers: &Result<Option<drivers::Loading>, String>, context: &mut Context) {
    let loaded = match drivers {
        Ok(None) => Ok(()),
        Ok(Some(loading)) => drivers::finish(loading, context),
        Err(why) => Err(why.clone()),
    };
    if let Err(why) = loaded {
        context.warn(format!("No drivers were loaded: {why}."));
    }
}

/// Seals the machine.
pub fn run(
    identified: Identified,
    begun: &Begun,
    context: &mut Context,
) -> Result<Sealed, Failure> {
    let seal = &identified.root().policy().seal;
    context.report.seal.wanted = seal.level.name().to_owned();
    context.report.seal.enforce = if seal.enforce == Enforce::Require {
        "require"
    } else {
        "prefer"
    }
    .to_owned();
    context.report.seal.reached = "none".to_owned();
    context.report.seal.allowances = seal.allow.used();
    let mut guarded = false;
    for level in [Level::Verity, Level::Lockdown, Level::Guard] {
        if level > seal.level {
            break;
        }
        let before = context.report.seal.missing.len();
        match level {
            Level::Verity => verity::seal(&identified, context),
            Level::Lockdown => {
                lockdown::seal(&seal.allow, context);
                if !begun.on_request {
                    close_module_loading(context);
                }
            }
            Level::Guard => {
                guarded = guard::seal(&begun.guard, &identified, seal, begun.on_request, context)
            }
        }
        context.watchdog.alive();
        let missing = context.report.seal.missing[before..].to_vec();
        if missing.is_empty() && context.report.seal.missing.is_empty() {
            context.report.seal.reached = level.name().to_owned();
        } else if !missing.is_empty() && seal.enforce == Enforce::Require {
            let what = format!("level {:?}, which the policy requires", level.name());
            let way_out = "boot a kernel that has it, with its command line as it was built, or write `enforce = \"prefer\"` in [seal]";
            return Err(Failure::new(STAGE, what, missing.join("; "), way_out));
        } else {
            for why in missing {
                context.warn(format!(
                    "The seal lacks something of level {:?}: {why}.",
                    level.name()
                ));
            }
        }
    }
    if begun.on_request {
        open_or_close_module_loading(guarded, context);
    }
    Ok(Sealed { identified })
}

/// Leaves module loading to the guard. Where the policy only prefers the guard and it is not in
/// force, it is closed, after the drivers of the hardware that is there.
fn open_or_close_module_loading(guarded: bool, context: &mut Context) {
    if !guarded {
        finish(&drivers::begin(&[], Hardware::Drive), context);
        return close_module_loading(context);
    }
    if let Err(error) = systemd::keep_module_loaders_apart() {
        context.warn(format!(
            "Drivers may not be loaded: systemd-udevd's unit: {error}."
        ));
    }
    enforced(
        context,
        "modules of the image alone, on request of the kernel, systemd-udevd and systemd-modules-load",
    );
    context.report.seal.module_loading = ON_REQUEST.to_owned();
}

fn close_module_loading(context: &mut Context) {
    lockdown::close_module_loading(context);
    context.report.seal.module_loading = "boot".to_owned();
}

/// Something that is in force.
fn enforced(context: &mut Context, what: impl Into<String>) {
    context.report.seal.enforced.push(what.into());
}

/// Something that is not: a clause with the reason.
fn missing(context: &mut Context, why: String) {
    context.report.seal.missing.push(why);
}
