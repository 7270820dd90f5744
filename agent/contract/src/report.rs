//! The boot report, `/run/adamant/boot.json`: what the agent found, chose and did. The agent writes
//! it once, before handover; `adamant-agent status`, `watch` and `drift` read it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::policy::{Enforce, Level, ModuleLoading, OnCorruption};
use crate::signature::rule::Mode;

/// The only version of this format.
pub const VERSION: u32 = 1;

/// The complete report.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct BootReport {
    /// Version of this format, [`VERSION`].
    pub version: u32,
    /// Version of the agent that booted this server.
    pub agent: String,
    /// Kernel release, as `uname -r` prints it.
    pub kernel: String,
    /// IMAGE_ID.
    pub image_id: String,
    /// IMAGE_VERSION.
    pub image_version: String,
    /// 64 lowercase hexadecimal digits.
    pub root_hash: String,
    /// The verified root.
    pub root: RootReport,
    /// The signature of the root hash.
    pub signature: SignatureReport,
    /// The firmware that started the kernel.
    pub firmware: FirmwareReport,
    /// The stages in the order in which they ran.
    pub stages: Vec<StageReport>,
    /// Clock before it was set to the image's build time, in seconds since 1970. `None` if the
    /// clock was not before the build time, nor 15 years after it.
    pub clock_was: Option<u64>,
    /// Credentials offered by the hypervisor, the firmware, the command line and the disk.
    pub credentials: CredentialsReport,
    /// The loaded modules, in load order.
    pub modules: Vec<String>,
    /// Build time of the image in seconds since 1970. The clock is never set to an earlier time.
    #[serde(default)]
    pub built: i64,
    /// The seal.
    #[serde(default)]
    pub seal: SealReport,
    /// The volumes, in mount order.
    pub volumes: Vec<VolumeReport>,
    /// Paths on volumes over which the image's own data is mounted read-only.
    #[serde(default)]
    pub image_data: Vec<String>,
    /// Origin of the machine-id.
    pub identity: IdentityReport,
    /// Device of the black box partition, if the disk has one.
    #[serde(default)]
    pub black_box: Option<String>,
    /// The last failed boot that the black box or the kernel's pstore recorded.
    #[serde(default)]
    pub last_bad_boot: Option<crate::blackbox::BadBoot>,
    /// Device of the hardware watchdog that init takes over, if the machine has one.
    pub watchdog: Option<String>,
    /// Warnings for the operator, one sentence each.
    pub warnings: Vec<String>,
    /// The policy as the agent read it.
    pub policy: Option<crate::policy::Policy>,
}

/// The verified root.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RootReport {
    /// Data device, for example /dev/vda1.
    pub data: String,
    /// Hash device.
    pub tree: String,
    /// Mapped device, for example /dev/dm-0.
    pub mapped: String,
    /// Number of 4 KiB data blocks.
    pub blocks: u64,
    /// Blocks read through dm-verity before handover.
    pub blocks_checked: u64,
    /// The kernel's reaction to a corrupted block from handover on.
    pub on_corruption: OnCorruption,
}

/// The firmware that started the kernel.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct FirmwareReport {
    /// Whether it is UEFI firmware.
    pub uefi: bool,
    /// Whether Secure Boot is on; `None` if unknown.
    pub secure_boot: Option<bool>,
    /// Whether the stub measured the UKI into the TPM's PCR 11.
    pub measured: bool,
    /// The boot phases that the agent extended PCR 11 with.
    pub phases: Vec<String>,
}

/// The signature of the root hash.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SignatureReport {
    /// The signature rule of the initramfs.
    pub rule: Mode,
    /// Common name of the signer, `None` if no signature was verified.
    pub signer: Option<String>,
    /// SHA-256 of the signer's certificate, 64 lowercase hexadecimal digits.
    pub fingerprint: String,
    /// Last second of the signer's certificate, since 1970; 0 if no signature was verified. The
    /// server starts after it, too.
    #[serde(default)]
    pub valid_until: i64,
    /// The kernel's verdict on the same signature: `verified` or the reason for its refusal. Empty
    /// if the kernel did not check it.
    pub kernel: String,
}

/// Credentials offered to this machine: names, never values.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CredentialsReport {
    /// Credentials that the agent used itself or passed on to init.
    pub accepted: Vec<CredentialReport>,
    /// The first 64 dropped credentials.
    pub dropped: Vec<CredentialReport>,
    /// Number of all dropped credentials.
    pub drops: u64,
}

/// A credential's name and origin.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CredentialReport {
    /// Name of the credential, as `accept` patterns in the policy match it.
    pub name: String,
    /// Origin of the credential.
    pub source: String,
    /// Reason for dropping it; empty for an accepted credential.
    pub why: String,
}

/// The seal of the running machine.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SealReport {
    /// The level that the policy asks for.
    pub wanted: Level,
    /// The policy's reaction to a kernel that cannot provide the level.
    pub enforce: Enforce,
    /// The level in force.
    pub reached: ReachedLevel,
    /// Parts of the seal that are in force, for example `kernel.modules_disabled=1`.
    pub enforced: Vec<String>,
    /// Parts of the level that are not in force, each with the reason.
    pub missing: Vec<String>,
    /// Exceptions in the policy.
    pub allowances: Vec<String>,
    /// Restriction of module loading.
    pub module_loading: ModuleLoadingReport,
    /// Microseconds since the kernel started at which the guard's self-test was over and its
    /// counters were reset; 0 without the guard.
    pub since_us: u64,
}

/// The seal level that is in force.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReachedLevel {
    /// Not even [`Level::Verity`] is complete.
    #[default]
    None,
    /// [`Level::Verity`] is complete.
    Verity,
    /// [`Level::Lockdown`] is complete too.
    Lockdown,
    /// [`Level::Guard`] is complete too.
    Guard,
}

impl ReachedLevel {
    /// The name in the report.
    pub fn name(self) -> &'static str {
        match self {
            ReachedLevel::None => "none",
            ReachedLevel::Verity => Level::Verity.name(),
            ReachedLevel::Lockdown => Level::Lockdown.name(),
            ReachedLevel::Guard => Level::Guard.name(),
        }
    }
}

impl From<Level> for ReachedLevel {
    fn from(level: Level) -> ReachedLevel {
        match level {
            Level::Verity => ReachedLevel::Verity,
            Level::Lockdown => ReachedLevel::Lockdown,
            Level::Guard => ReachedLevel::Guard,
        }
    }
}

/// Restriction of module loading in the running machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModuleLoadingReport {
    /// The level does not restrict module loading.
    #[default]
    #[serde(rename = "")]
    Unrestricted,
    /// Modules of the image can be loaded on request, see [`ModuleLoading::Image`].
    Image,
    /// No module can be loaded until the next boot.
    Boot,
}

impl From<ModuleLoading> for ModuleLoadingReport {
    fn from(loading: ModuleLoading) -> ModuleLoadingReport {
        match loading {
            ModuleLoading::Image => ModuleLoadingReport::Image,
            ModuleLoading::Boot => ModuleLoadingReport::Boot,
        }
    }
}

/// The name of a boot stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)] // Each is documented as a module of `boot`.
pub enum StageName {
    Early,
    Locate,
    Signature,
    Verify,
    Root,
    Credentials,
    Volumes,
    Identity,
    Drivers,
    History,
    Seal,
    Handover,
    /// No stage: a panic of the agent itself.
    Agent,
}

impl StageName {
    /// The name in reports and messages.
    pub fn name(self) -> &'static str {
        match self {
            StageName::Early => "early",
            StageName::Locate => "locate",
            StageName::Signature => "signature",
            StageName::Verify => "verify",
            StageName::Root => "root",
            StageName::Credentials => "credentials",
            StageName::Volumes => "volumes",
            StageName::Identity => "identity",
            StageName::Drivers => "drivers",
            StageName::History => "history",
            StageName::Seal => "seal",
            StageName::Handover => "handover",
            StageName::Agent => "agent",
        }
    }
}

/// One boot stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StageReport {
    /// The stage.
    pub name: StageName,
    /// Start in microseconds since the kernel started (CLOCK_BOOTTIME).
    pub start_us: u64,
    /// Duration in microseconds.
    pub took_us: u64,
}

/// One volume.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct VolumeReport {
    /// Partition label.
    pub name: String,
    /// Block device, for example /dev/vda3.
    pub device: String,
    /// Mount point in the image.
    pub mount: String,
    /// Size in bytes after growing.
    pub bytes: u64,
    /// What this boot did to the file system.
    pub state: VolumeState,
    /// Bytes by which the partition grew during this boot.
    pub grown_by: u64,
    /// Entries created from the image's tree during this boot.
    pub seeded: u64,
    /// Units replaced or removed during this boot, because the image has another version of them
    /// or none. Only units that were unchanged on this server are replaced.
    #[serde(default)]
    pub replaced: u64,
    /// The first 20 units that were changed on this server and therefore not replaced by the
    /// image's version: absolute paths.
    #[serde(default)]
    pub kept: Vec<String>,
    /// Number of such units beyond the first 20.
    #[serde(default)]
    pub kept_more: u64,
    /// The first 20 units of the image that are missing on the volume, for lack of space or for
    /// another reason: absolute paths.
    #[serde(default)]
    pub lacking: Vec<String>,
}

/// What a boot did to a volume's file system.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VolumeState {
    /// Made: the partition was empty.
    Made,
    /// Checked, without a finding.
    #[default]
    Clean,
    /// Checked and repaired.
    Repaired,
    /// Replaced by a new one because it was damaged.
    Recreated,
    /// Mounted without a check, because the image's e2fsck cannot check it.
    Unchecked,
}

impl VolumeState {
    /// The name in the report.
    pub fn name(self) -> &'static str {
        match self {
            VolumeState::Made => "made",
            VolumeState::Clean => "clean",
            VolumeState::Repaired => "repaired",
            VolumeState::Recreated => "recreated",
            VolumeState::Unchecked => "unchecked",
        }
    }
}

/// The machine-id and its origin.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct IdentityReport {
    /// Origin of the machine-id.
    pub source: IdentitySource,
    /// 32 lowercase hexadecimal digits.
    pub machine_id: String,
}

/// Origin of the machine-id.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IdentitySource {
    /// The state volume had it.
    Kept,
    /// This boot made it and stored it on the state volume.
    Made,
    /// The hypervisor passed it.
    Hypervisor,
    /// This boot made it, and no volume could store it.
    #[default]
    Transient,
}

impl IdentitySource {
    /// The name in the report.
    pub fn name(self) -> &'static str {
        match self {
            IdentitySource::Kept => "kept",
            IdentitySource::Made => "made",
            IdentitySource::Hypervisor => "hypervisor",
            IdentitySource::Transient => "transient",
        }
    }
}

/// Displays a type by its `name()`.
macro_rules! display_name {
    ($($type:ty),*) => {$(
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }
    )*};
}

display_name!(
    StageName,
    ReachedLevel,
    VolumeState,
    IdentitySource,
    OnCorruption
);
