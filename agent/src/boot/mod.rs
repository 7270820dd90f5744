//! The boot: one stage a module, one function `stage in -> stage out` each. Types carry the proof that nothing runs before what it
//! depends on: only `verify` makes a `VerifiedRoot`, only that can be mounted, only a mounted one entered.
//!
//!     early -> locate -> verify -> root -> volumes -> identity -> handover

use std::fmt;
use std::time::{Duration, Instant};

use adamant_agent::policy;
use adamant_agent::report::BootReport;

pub mod early;
pub mod handover;
pub mod identity;
pub mod locate;
pub mod root;
pub mod verify;
pub mod volumes;

/// What all stages share: the report that grows, and what to do on failure.
pub struct Context {
    /// What was found and done so far.
    pub report: BootReport,
    /// The outcome of a failure: the default until the policy is read.
    pub failure: policy::Failure,
    /// When the agent started.
    pub started: Instant,
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

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "adamant: {}: {}: {}: {}", self.stage, self.what, self.why, self.way_out)
    }
}

/// Longest wait for the root's devices.
pub const DEVICE_DEADLINE: Duration = Duration::from_secs(30);
