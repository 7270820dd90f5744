//! The boot: one stage a module, one function `stage in -> stage out` each. Types carry the proof that nothing runs before what it
//! depends on: only `signature` lets a root hash through, only `verify` makes a `VerifiedRoot`, only that can be mounted, only a mounted one entered.
//!
//!     early -> locate -> signature -> verify -> root -> credentials -> volumes -> identity
//!     -> drivers -> history -> seal -> handover

use std::convert::Infallible;
use std::fmt;
use std::time::Duration;

use adamant_contract::report::{self, BootReport};
use nix::time::{ClockId, clock_gettime};

mod arriving;
pub mod block;
pub mod clock;
mod console;
mod credentials;
pub mod dm;
mod driverless;
pub mod early;
mod firmware;
pub mod handover;
pub mod history;
pub mod identity;
mod keyring;
pub mod locate;
mod modules;
mod outcome;
mod paths;
pub mod root;
pub mod scan;
pub mod seal;
pub mod signature;
pub mod systemd;
mod tpm;
pub mod uevents;
pub mod verify;
pub mod volumes;
pub mod watchdog;

/// What all stages share: the report that grows, and the watchdog that must hear from us.
pub struct Context {
    /// What was found and done so far.
    pub report: BootReport,
    /// The hardware watchdog, where there is one. Whoever works or waits for long calls `alive` at least every few seconds.
    pub watchdog: watchdog::Watchdog,
    /// What listens for devices, between the stages that do.
    arriving: Option<arriving::Arriving>,
}

impl Context {
    /// Notes in the report, and says in the log, what a person should know although the boot goes on. A whole sentence.
    pub fn warn(&mut self, sentence: String) {
        log::warn!("{sentence}");
        self.report.warnings.push(sentence);
    }

    /// Gives devices that have appeared meanwhile their drivers, for the last time: a second disk with the same image must be seen.
    fn catch_up(&mut self) {
        if let Some(mut arriving) = self.arriving.take()
            && let Err(error) = arriving.catch_up(self)
        {
            self.warn(format!("Devices that appeared late may have no driver: {error}."));
        }
    }

    fn stage<T>(&mut self, name: &str, run: impl FnOnce(&mut Context) -> Result<T, Failure>) -> Result<T, Failure> {
        self.watchdog.alive();
        history::stage(name);
        let start = since_kernel_start();
        let result = run(self);
        let took_us = since_kernel_start().saturating_sub(start);
        self.report.stages.push(report::Stage { name: name.to_owned(), start_us: start, took_us });
        log::debug!("{name}: {took_us} us");
        result
    }
}

/// Why the boot can't go on. One line for a person.
#[derive(Debug)]
pub struct Failure {
    /// The stage it happened in.
    pub stage: &'static str,
    /// What was being done, to what.
    pub what: String,
    /// Why it failed.
    pub why: String,
    /// What to do about it.
    pub way_out: String,
}

impl Failure {
    /// A failure of a stage.
    pub fn new(stage: &'static str, what: impl Into<String>, why: impl fmt::Display, way_out: impl Into<String>) -> Failure {
        Failure { stage, what: what.into(), why: why.to_string(), way_out: way_out.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "adamant: {}: {}: {}: {}", self.stage, self.what, self.why, self.way_out)
    }
}

/// Microseconds since the kernel started (CLOCK_BOOTTIME).
pub fn since_kernel_start() -> u64 {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0, |t| Duration::from(t).as_micros() as u64)
}

/// Boots the image, as PID 1 of the initramfs. Whatever happens, this process never ends.
pub fn run() -> ! {
    outcome::catch_panics();
    console::start_log();
    let mut context = Context { report: BootReport::default(), watchdog: watchdog::Watchdog::default(), arriving: None };
    let Err(mut failure) = boot(&mut context);
    // `verify` names the block itself; what fails later may be only the consequence of one.
    if failure.stage != "verify"
        && let Some(damage) = verify::damage_seen_by_the_kernel()
    {
        failure.why = format!("{} ({damage})", failure.why);
    }
    outcome::end(&failure, &mut context.watchdog)
}

/// Runs all stages. Comes back only with the reason why the image's init did not start.
fn boot(context: &mut Context) -> Result<Infallible, Failure> {
    let early = context.stage("early", early::run)?;
    let located = context.stage("locate", |c| locate::run(early, c))?;
    history::begin(&located, context);
    let checked = context.stage("signature", |c| signature::run(located, c))?;
    let verified = context.stage("verify", |c| verify::run(checked, c))?;
    let mounted = context.stage("root", |c| root::run(verified, c))?;
    if cfg!(feature = "mistake") {
        panic!("made on purpose");
    }
    let begun = seal::begin(&mounted);
    let received = context.stage("credentials", |c| credentials::run(&mounted, c))?;
    let volumes = context.stage("volumes", |c| volumes::run(mounted, c))?;
    let identified = context.stage("identity", |c| identity::run(volumes, received, c))?;
    context.stage("drivers", |c| {
        c.catch_up();
        seal::load_drivers(&begun, c);
        Ok(())
    })?;
    context.stage("history", |c| {
        history::look_back(c);
        Ok(())
    })?;
    let sealed = context.stage("seal", |c| seal::run(identified, &begun, c))?;
    handover::run(sealed, context)
}
