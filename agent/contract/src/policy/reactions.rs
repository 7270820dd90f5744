//! Verification in the policy, and the reactions to corrupted blocks, violations and failures.

use serde::{Deserialize, Serialize};

/// The reactions of `adamant-agent watch`, by class of violation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OnViolation {
    /// A mount over the image or a volume, or a mount whose flags changed.
    pub mounts: Reaction,
    /// A kernel setting that changed since the seal.
    pub sysctls: Reaction,
    /// A corrupted block, or a root that is not the verified device.
    pub verity: Reaction,
    /// A new block device.
    pub devices: Reaction,
    /// An operation that the guard refused.
    pub denials: Reaction,
}

/// Expectations of `adamant-agent drift` besides the image itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DriftPolicy {
    /// The ports that may be open, for example `22/tcp`. `None` allows all.
    pub listen: Option<Vec<String>>,
}

/// The reaction to a violation, besides a report.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reaction {
    /// Only the report.
    #[default]
    Log,
    /// The machine restarts.
    Reboot,
    /// The machine switches off.
    Poweroff,
}

/// Verification of the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Verify {
    /// Whether the boot reads all blocks.
    pub boot: VerifyBoot,
    /// The kernel's reaction to a corrupted block found after handover.
    pub on_corruption: OnCorruption,
    /// Read rate of `adamant-agent scrub` in MiB/s, 1 to 10,000.
    pub scrub_rate: u32,
    /// Hours from the start of one scrub pass to the start of the next, 1 to 8,760.
    pub scrub_every: u32,
}

impl Default for Verify {
    fn default() -> Self {
        Verify {
            boot: VerifyBoot::Lazy,
            on_corruption: OnCorruption::Reboot,
            scrub_rate: 20,
            scrub_every: 24,
        }
    }
}

/// Whether the boot reads all blocks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VerifyBoot {
    /// No: dm-verity checks each block when it is read.
    #[default]
    Lazy,
    /// Yes: every block is read once before init starts.
    Full,
}

/// The kernel's reaction to a corrupted block found after handover.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnCorruption {
    /// Restart at once.
    #[default]
    Reboot,
    /// Panic: the kernel restarts after `panic=` seconds and leaves a record in pstore.
    Panic,
    /// The reading program gets an I/O error.
    Error,
}

impl OnCorruption {
    /// The value in the policy.
    pub fn name(self) -> &'static str {
        match self {
            OnCorruption::Reboot => "reboot",
            OnCorruption::Panic => "panic",
            OnCorruption::Error => "error",
        }
    }
}

/// The reaction to failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FailurePolicy {
    /// The end of a failed boot.
    pub action: FailureAction,
    /// Seconds between the message and the end, at most 3600.
    pub after_seconds: u32,
    /// The kernel's reaction to an oops: a bug in itself.
    pub oops: FaultReaction,
    /// The kernel's reaction to a processor that is stuck in kernel code.
    pub lockup: FaultReaction,
    /// The kernel's reaction to a process that is stuck in a system call.
    pub hung_task: FaultReaction,
}

/// The kernel's reaction to a fault of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FaultReaction {
    /// A message in its log.
    #[default]
    Log,
    /// A panic, after which the machine restarts.
    Panic,
}

impl Default for FailurePolicy {
    fn default() -> Self {
        FailurePolicy {
            action: FailureAction::Reboot,
            after_seconds: 10,
            oops: FaultReaction::Panic,
            lockup: FaultReaction::Log,
            hung_task: FaultReaction::Log,
        }
    }
}

/// The end of a failed boot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FailureAction {
    /// Restart; with boot counting, the loader falls back after a number of attempts.
    #[default]
    Reboot,
    /// Switch off.
    Poweroff,
    /// Stop, and keep the message on the console.
    Halt,
}
