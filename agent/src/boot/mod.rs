//! The boot stages. Each stage is one module with a function from the previous stage's type to its
//! own.
//!
//! The types prove the order: only [`signature`] accepts a root hash, only [`verify`] makes a
//! [`verify::VerifiedRoot`], only a verified root can be mounted, and only a mounted root can be
//! entered.
//!
//! ```text
//! early -> locate -> signature -> verify -> root -> credentials -> volumes -> identity
//!       -> drivers -> history -> seal -> handover
//! ```
//!
//! A verified root can be mounted:
//!
//! ```
//! use adamant_agent::boot::{Context, root, verify::VerifiedRoot};
//! fn mount(verified: VerifiedRoot, context: &mut Context) {
//!     let _ = root::mount_root(verified, context);
//! }
//! ```
//!
//! An unverified root does not compile:
//!
//! ```compile_fail,E0308
//! use adamant_agent::boot::{Context, root, locate::Located};
//! fn mount(located: Located, context: &mut Context) {
//!     let _ = root::mount_root(located, context);
//! }
//! ```

#![forbid(unsafe_code)]

use std::convert::Infallible;
use std::fmt;

use adamant_contract::report::{BootReport, StageName, StageReport};

use crate::kernel::clock::since_kernel_start;
use crate::kernel::{console, watchdog};

mod credentials;
mod driverless;
pub mod early;
mod firmware;
pub mod handover;
pub mod history;
mod hotplug;
pub mod identity;
pub mod locate;
mod modules;
mod multipath;
mod outcome;
pub mod root;
pub mod scan;
pub mod seal;
pub mod signature;
pub mod systemd;
pub mod verify;
pub mod volumes;

/// The state that all stages share: the report, and the watchdog to feed.
pub struct Context {
    /// The report so far.
    pub report: BootReport,
    /// The hardware watchdog, if there is one. Code that works or waits for long calls `alive` at
    /// least every few seconds.
    pub watchdog: watchdog::Watchdog,
    /// The listener for devices, passed between the stages that need it.
    hotplug: Option<hotplug::HotplugListener>,
}

impl Context {
    /// Adds a warning to the report and the log, for a problem that does not stop the boot.
    /// `sentence` is a complete sentence.
    pub fn warn(&mut self, sentence: String) {
        log::warn!("{sentence}");
        self.report.warnings.push(sentence);
    }

    /// Loads drivers for devices that have appeared meanwhile, for the last time, so that a second
    /// disk with the same image is found.
    fn catch_up(&mut self) {
        if let Some(mut hotplug) = self.hotplug.take()
            && let Err(error) = hotplug.catch_up(self)
        {
            self.warn(format!(
                "Devices that appeared late may have no driver: {error}."
            ));
        }
    }

    fn stage<T>(
        &mut self,
        name: StageName,
        stage: impl FnOnce(&mut Context) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        self.watchdog.alive();
        history::record_stage(name);
        let start = since_kernel_start();
        let result = stage(self);
        let took_us = since_kernel_start().saturating_sub(start);
        self.report.stages.push(StageReport {
            name,
            start_us: start,
            took_us,
        });
        log::debug!("{name}: {took_us} us");
        result
    }
}

/// Why the boot failed. Printed as one line.
#[derive(Debug)]
pub struct Failure {
    /// The stage that failed.
    pub stage: StageName,
    /// The operation, and its object.
    pub what: String,
    /// Why it failed.
    pub why: String,
    /// What to do about it.
    pub remedy: String,
}

impl Failure {
    /// A failure of a stage.
    pub fn new(
        stage: StageName,
        what: impl Into<String>,
        why: impl fmt::Display,
        remedy: impl Into<String>,
    ) -> Failure {
        Failure {
            stage,
            what: what.into(),
            why: why.to_string(),
            remedy: remedy.into(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "adamant: {}: {}: {}: {}",
            self.stage, self.what, self.why, self.remedy
        )
    }
}

/// Boots the image, as PID 1 of the initramfs. This process never ends.
pub fn boot_image() -> ! {
    outcome::catch_panics();
    console::start_log();
    let mut context = Context {
        report: BootReport::default(),
        watchdog: watchdog::Watchdog::default(),
        hotplug: None,
    };
    let Err(mut failure) = run_stages(&mut context);
    // `verify` names the block itself. A later failure may only be the consequence of a corrupted
    // block.
    if failure.stage != StageName::Verify
        && let Some(damage) = verify::damage_seen_by_the_kernel()
    {
        failure.why = format!("{} ({damage})", failure.why);
    }
    outcome::end_boot(&failure, &mut context.watchdog)
}

/// Runs all stages. Returns only if the image's init did not start.
fn run_stages(context: &mut Context) -> Result<Infallible, Failure> {
    let early = context.stage(StageName::Early, early::prepare)?;
    let located = context.stage(StageName::Locate, |c| locate::locate_root(early, c))?;
    history::open_black_box(&located, context);
    let checked = context.stage(StageName::Signature, |c| {
        signature::check_signature(located, c)
    })?;
    let verified = context.stage(StageName::Verify, |c| verify::verify_root(checked, c))?;
    let mounted = context.stage(StageName::Root, |c| root::mount_root(verified, c))?;
    if cfg!(feature = "mistake") {
        panic!("made on purpose");
    }
    let tasks = seal::SealTasks::start(&mounted);
    let credentials = context.stage(StageName::Credentials, |c| {
        credentials::pass_credentials(&mounted, c)
    })?;
    let volumes = context.stage(StageName::Volumes, |c| volumes::mount_volumes(mounted, c))?;
    let identified = context.stage(StageName::Identity, |c| {
        identity::settle_identity(volumes, credentials, c)
    })?;
    context.stage(StageName::Drivers, |c| {
        c.catch_up();
        tasks.wait_for_drivers(c);
        Ok(())
    })?;
    context.stage(StageName::History, |c| {
        history::report_earlier_boots(c);
        Ok(())
    })?;
    let sealed = context.stage(StageName::Seal, |c| tasks.seal(identified, c))?;
    handover::start_init(sealed, context)
}
