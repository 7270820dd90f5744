//! `/run/adamant/boot.json`: what the agent found, chose and did. Written once, before handover;
//! read by `adamant-agent status`.

use serde::{Deserialize, Serialize};

/// The only version there is.
pub const VERSION: u32 = 1;

/// The whole report.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct BootReport {
    /// Version of this format, [`VERSION`].
    pub version: u32,
    /// Version of the agent that booted this server.
    pub agent: String,
    /// Kernel release, as `uname -r`.
    pub kernel: String,
    /// IMAGE_ID.
    pub image_id: String,
    /// IMAGE_VERSION.
    pub image_version: String,
    /// 64 lowercase hexadecimal digits.
    pub root_hash: String,
    /// The verified root.
    pub root: Root,
    /// By whom the root hash was signed.
    pub signature: Signature,
    /// What started the kernel.
    pub firmware: Firmware,
    /// The stages in the order they ran.
    pub stages: Vec<Stage>,
    /// Seconds since 1970 that the clock stood at before it was set to the image's build time;
    /// `None` when it was not behind that.
    pub clock_was: Option<u64>,
    /// What the world outside the image told it.
    pub credentials: Credentials,
    /// The modules loaded, in order.
    pub modules: Vec<String>,
    /// Seconds since 1970: the image's build time, which the clock is not set behind.
    #[serde(default)]
    pub built: i64,
    /// What the running machine refuses.
    #[serde(default)]
    pub seal: Seal,
    /// The volumes, in mount order.
    pub volumes: Vec<Volume>,
    /// Directories and files on volumes in whose place the image's own are shown, read-only.
    #[serde(default)]
    pub image_data: Vec<String>,
    /// Where the machine-id came from.
    pub identity: Identity,
    /// The black box's partition, if the disk has one: its device.
    #[serde(default)]
    pub black_box: Option<String>,
    /// The last boot that did not end as it should, where the black box or the kernel's store
    /// knows of one.
    #[serde(default)]
    pub last_bad_boot: Option<crate::blackbox::Bad>,
    /// The hardware watchdog handed to init, if there is one: its device.
    pub watchdog: Option<String>,
    /// What a person should know: each a sentence.
    pub warnings: Vec<String>,
    /// The policy as it was read.
    pub policy: Option<crate::policy::Policy>,
}

/// The verified root.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Root {
    /// Data partition, for example /dev/vda1.
    pub data: String,
    /// Verity partition.
    pub tree: String,
    /// Mapped device, for example /dev/dm-0.
    pub mapped: String,
    /// 4 KiB data blocks.
    pub blocks: u64,
    /// Blocks read through dm-verity before handover.
    pub blocks_checked: u64,
    /// What the kernel does about a bad block from now on: reboot, panic or error.
    pub on_corruption: String,
}

/// What started the kernel.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Firmware {
    /// Whether it was UEFI firmware.
    pub uefi: bool,
    /// Whether it starts only what is signed; `None` when that is not known.
    pub secure_boot: Option<bool>,
    /// Whether the stub measured the unified kernel image into the TPM's PCR 11.
    pub measured: bool,
    /// The phases that PCR 11 was extended with.
    pub phases: Vec<String>,
}

/// By whom the root hash was signed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Signature {
    /// What the initramfs asked for: require, prefer or off.
    pub rule: String,
    /// The signer's common name, `None` when the signature was not verified.
    pub signer: Option<String>,
    /// SHA-256 of the signer's certificate, 64 lowercase hexadecimal digits.
    pub fingerprint: String,
    /// What the kernel says of the same signature: `verified`, or why not; empty when it was not
    /// asked.
    pub kernel: String,
}

/// What the world outside the image told it: names, never values.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Credentials {
    /// What was passed on to the image's init, and what the agent used itself.
    pub accepted: Vec<Credential>,
    /// What was not, the first 64.
    pub dropped: Vec<Credential>,
    /// How many were not.
    pub drops: u64,
}

/// A credential's name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Credential {
    /// As the policy names it.
    pub name: String,
    /// Where it came from.
    pub source: String,
    /// Why it was dropped; empty where it was not.
    pub why: String,
}

/// What the running machine refuses.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Seal {
    /// The level that the policy asks for: verity, lockdown or guard.
    pub wanted: String,
    /// What the policy asks for when the kernel can't give it: require or prefer.
    pub enforce: String,
    /// The level that is in force: `none`, or one of the three.
    pub reached: String,
    /// What is in force, each in a few words.
    pub enforced: Vec<String>,
    /// What of the level is not in force, and why: each a clause.
    pub missing: Vec<String>,
    /// Exceptions that the policy makes.
    pub allowances: Vec<String>,
    /// How long modules can be loaded: `image`, as long as the machine runs, those of the image
    /// and on request; `boot`, none any more; empty where the level restricts nothing.
    pub module_loading: String,
    /// Microseconds since the kernel started at which the guard had been tried and its counters
    /// were set to 0; 0 without the guard.
    pub since_us: u64,
}

/// One stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    /// early, locate, signature, verify, root, credentials, volumes, identity, drivers, history,
    /// seal, handover.
    pub name: String,
    /// Microseconds since the kernel started (CLOCK_BOOTTIME).
    pub start_us: u64,
    /// Microseconds it took.
    pub took_us: u64,
}

/// One volume.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Volume {
    /// Partition label.
    pub name: String,
    /// Block device, for example /dev/vda3.
    pub device: String,
    /// Mount point in the image.
    pub mount: String,
    /// Size in bytes after growing.
    pub bytes: u64,
    /// made, clean, repaired, recreated.
    pub state: String,
    /// Bytes the partition grew by on this boot.
    pub grown_by: u64,
    /// Entries created from the image's tree on this boot.
    pub seeded: u64,
    /// Units that this boot replaced because nobody had changed them, or removed because the image
    /// has them no more.
    #[serde(default)]
    pub replaced: u64,
    /// Units that stay as somebody has changed them on this server, although the image has other
    /// content for them: absolute paths, the first 20.
    #[serde(default)]
    pub kept: Vec<String>,
    /// How many such units there are beside these.
    #[serde(default)]
    pub kept_more: u64,
    /// Units of the image that are not on the volume, because there was no room for them or for
    /// another reason: absolute paths, the first 20.
    #[serde(default)]
    pub lacking: Vec<String>,
}

/// Where the machine-id came from.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    /// kept, made, hypervisor, transient.
    pub source: String,
    /// 32 lowercase hexadecimal digits.
    pub machine_id: String,
}
