//! The policy: the image's instructions to the agent. It is a JSON file inside the verified root,
//! so it needs no signature of its own.
//!
//! The builder derives it from the definition. The agent refuses a policy with an unknown `version`
//! or an unknown key: it never ignores an instruction.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::paths::POLICY_LIMIT;

/// The only version of this format.
pub const VERSION: u32 = 1;
/// Largest number of volumes.
pub const MAX_VOLUMES: usize = 32;
/// Largest number of names in a list of `seal`.
pub const MAX_SEAL_NAMES: usize = 16;
/// Largest number of interpreters: the size of the guard's array (INTERPRETERS in
/// agent/bpf/guard.bpf.c).
pub const MAX_INTERPRETERS: usize = 32;
/// Largest number of ports.
pub const MAX_PORTS: usize = 64;
/// Largest number of paths in `image_data`.
pub const MAX_IMAGE_DATA: usize = 32;
/// Largest number of patterns in `credentials.accept`.
pub const MAX_ACCEPTED_NAMES: usize = 64;

/// `/usr/lib/adamant/policy.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Version of this format, [`VERSION`].
    pub version: u32,
    /// The image's name.
    pub image: Image,
    /// Verification of the root.
    #[serde(default)]
    pub verify: Verify,
    /// The reaction to failures.
    #[serde(default)]
    pub failure: FailurePolicy,
    /// The credentials that the agent passes to init.
    #[serde(default)]
    pub credentials: Credentials,
    /// The seal of the running machine.
    #[serde(default)]
    pub seal: Seal,
    /// The reactions of `adamant-agent watch` to violations.
    #[serde(default)]
    pub on_violation: OnViolation,
    /// Expectations of `adamant-agent drift` besides the image itself.
    #[serde(default)]
    pub drift: Drift,
    /// The volumes, parents before children.
    #[serde(default, rename = "volume", skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Volume>,
    /// Absolute paths below a volume's mount point, at which the image's own data is mounted
    /// read-only because it describes the image. The builder finds them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub image_data: Vec<String>,
}

/// The image's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// IMAGE_ID.
    pub id: String,
    /// IMAGE_VERSION.
    pub version: String,
}

/// The credentials that the agent passes to init.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Credentials {
    /// Patterns for credential names; `*` matches any characters. Other credentials are dropped.
    pub accept: Vec<String>,
}

impl Default for Credentials {
    /// Accepts only the machine-id.
    fn default() -> Self {
        Credentials {
            accept: vec!["system.machine_id".to_owned()],
        }
    }
}

/// The seal of the running machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Seal {
    /// The level.
    pub level: Level,
    /// The reaction to a kernel that cannot provide the level.
    pub enforce: Enforce,
    /// Names of kernel modules that the agent loads before it seals.
    pub modules: Vec<String>,
    /// How long modules can be loaded.
    pub module_loading: ModuleLoading,
    /// Paths of the image's interpreters, which may read scripts only from the image. Needs level
    /// guard. The builder finds them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub interpreters: Vec<String>,
    /// Exceptions.
    pub allow: Allow,
}

/// A level of the seal. Each includes the previous ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// The root is read-only, and programs on volumes and in memory cannot be executed unless root
    /// changes mounts.
    #[default]
    Verity,
    /// The kernel cannot be changed either.
    Lockdown,
    /// Root cannot execute other programs than the image's: a BPF-LSM program refuses it.
    Guard,
}

impl Level {
    /// The value in the policy.
    pub fn name(self) -> &'static str {
        match self {
            Level::Verity => "verity",
            Level::Lockdown => "lockdown",
            Level::Guard => "guard",
        }
    }
}

/// How long kernel modules can be loaded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModuleLoading {
    /// As long as the machine runs: the kernel, systemd-udevd and systemd-modules-load can load
    /// modules of the image. Only the guard can identify them, so lower levels act as with
    /// [`ModuleLoading::Boot`].
    #[default]
    Image,
    /// Until the agent seals, from level lockdown on.
    Boot,
}

/// The reaction to a kernel that cannot provide a level.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Enforce {
    /// The boot continues with the parts that work, and the report lists the missing ones.
    #[default]
    Prefer,
    /// The boot fails.
    Require,
}

/// Exceptions from the seal.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Allow {
    /// Processes may execute memory that they have written: just-in-time compilers.
    pub jit: bool,
    /// Processes may be traced.
    pub debug: bool,
    /// Other programs than systemd may load BPF programs.
    pub bpf: bool,
    /// Programs on overlay file systems may be executed in other mount namespaces than the host's.
    pub containers: bool,
    /// Interpreters can be registered with binfmt_misc.
    pub binfmt: bool,
    /// Names of the volumes from which programs may be executed.
    pub execute: Vec<String>,
    /// Absolute directories below which file systems may be mounted.
    pub mounts: Vec<String>,
    /// Labels of partitions of the root's disk that may be written and mounted.
    pub disks: Vec<String>,
    /// Paths of interpreters that may read scripts from anywhere. The builder leaves them out of
    /// [`Seal::interpreters`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub scripts: Vec<String>,
}

impl Allow {
    /// Returns the exceptions that the policy makes, for people.
    pub fn used(&self) -> Vec<String> {
        let flags = [
            ("jit", self.jit),
            ("debug", self.debug),
            ("bpf", self.bpf),
            ("containers", self.containers),
            ("binfmt", self.binfmt),
        ];
        let lists = [
            ("execute", &self.execute),
            ("mounts", &self.mounts),
            ("disks", &self.disks),
            ("scripts", &self.scripts),
        ];
        let flags = flags
            .iter()
            .filter(|flag| flag.1)
            .map(|flag| flag.0.to_owned());
        flags
            .chain(lists.iter().flat_map(|(key, list)| {
                list.iter()
                    .map(move |value| [key, " ", value.as_str()].concat())
            }))
            .collect()
    }
}

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
pub struct Drift {
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

/// A volume: a partition of the root's disk that outlives images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Volume {
    /// Partition label.
    pub name: String,
    /// Absolute mount point, without `.` or `..`.
    pub mount: String,
    /// The file system that the first boot makes.
    #[serde(default)]
    pub filesystem: FileSystem,
    /// The volume's share of the free space on a disk that is larger than the image; with 0 the
    /// volume keeps its size.
    #[serde(default = "default_weight")]
    pub weight: u32,
    /// The reaction to damage that e2fsck cannot repair.
    #[serde(default)]
    pub on_damage: OnDamage,
    /// Whether a later image replaces files that an earlier one has seeded.
    #[serde(default)]
    pub refresh: Refresh,
}

fn default_weight() -> u32 {
    1
}

/// A file system that the agent can make, check and grow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileSystem {
    /// ext4, by the image's e2fsprogs.
    #[default]
    Ext4,
}

/// Whether a later image replaces files that an earlier one has seeded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Refresh {
    /// It replaces units that were not changed on the server.
    #[default]
    Unchanged,
    /// It replaces nothing.
    Never,
}

/// The reaction to a damaged volume that e2fsck cannot repair.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnDamage {
    /// The boot fails.
    #[default]
    Fail,
    /// The agent keeps the damaged file system as evidence and makes a new one.
    Recreate,
}

/// Why a policy is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PolicyError {
    /// The file is too long.
    #[error("{0} bytes, more than the {POLICY_LIMIT} a policy may have")]
    TooLong(usize),
    /// The file is not JSON, has an unknown key, lacks a key or has a value of another type.
    #[error("{0}")]
    Json(String),
    /// The agent does not know this version of the format.
    #[error("version {0}, this agent knows version {VERSION}")]
    UnknownVersion(i64),
    /// The file has no version.
    #[error("no `version`")]
    NoVersion,
    /// A value breaks a rule.
    #[error("{reason}")]
    Value {
        /// The key with the value.
        key: PolicyKey,
        /// The rule, with the value.
        reason: String,
    },
}

/// A key of the policy whose values have rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // Each is named like its key.
pub enum PolicyKey {
    Volumes,
    VolumeName,
    VolumeMount,
    ImageData,
    FailureAfterSeconds,
    VerifyScrubRate,
    VerifyScrubEvery,
    CredentialsAccept,
    DriftListen,
    SealModules,
    SealInterpreters,
    SealAllowExecute,
    SealAllowMounts,
    SealAllowDisks,
}

impl PolicyError {
    /// The key whose value is refused; `None` if the error is about the whole file.
    pub fn key(&self) -> Option<PolicyKey> {
        match self {
            PolicyError::Value { key, .. } => Some(*key),
            _ => None,
        }
    }
}

fn refuse<T>(key: PolicyKey, reason: String) -> Result<T, PolicyError> {
    Err(PolicyError::Value { key, reason })
}

impl Policy {
    /// Returns the content of the policy file.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut json = serde_json::to_vec_pretty(self)?;
        json.push(b'\n');
        Ok(json)
    }

    /// Parses and checks a policy file.
    pub fn parse(bytes: &[u8]) -> Result<Policy, PolicyError> {
        #[derive(Deserialize)]
        struct Version {
            version: Option<i64>,
        }
        if bytes.len() > POLICY_LIMIT {
            return Err(PolicyError::TooLong(bytes.len()));
        }
        let json = |e: serde_json::Error| PolicyError::Json(e.to_string());
        // The version is checked first, so that a newer policy is refused for its version and not
        // for its first unknown key.
        let found: Version = serde_json::from_slice(bytes).map_err(json)?;
        match found.version {
            Some(version) if version == i64::from(VERSION) => {}
            Some(version) => return Err(PolicyError::UnknownVersion(version)),
            None => return Err(PolicyError::NoVersion),
        }
        let policy: Policy = serde_json::from_slice(bytes).map_err(json)?;
        policy.check()?;
        Ok(policy)
    }

    /// Returns the volume that holds a path: of the volumes mounted above it, the one with the
    /// longest mount point.
    pub fn volume_of(&self, path: &str) -> Option<&Volume> {
        self.volumes
            .iter()
            .filter(|volume| is_below(path, &volume.mount))
            .max_by_key(|volume| volume.mount.len())
    }

    fn check_image_data(&self) -> Result<(), PolicyError> {
        if self.image_data.len() > MAX_IMAGE_DATA {
            return refuse(
                PolicyKey::ImageData,
                format!(
                    "image_data has {} paths, at most {MAX_IMAGE_DATA} are possible",
                    self.image_data.len()
                ),
            );
        }
        for path in &self.image_data {
            let parts_are_names = path.len() <= 1024
                && path.get(1..).is_some_and(|rest| {
                    rest.split('/').all(|part| !matches!(part, "" | "." | ".."))
                });
            if !parts_are_names
                || path
                    .bytes()
                    .any(|b| b.is_ascii_control() || b.is_ascii_whitespace() || b == b'\\')
                || self.volume_of(path).is_none()
            {
                return refuse(
                    PolicyKey::ImageData,
                    format!("image_data: {path:?} is no path below a volume's mount point"),
                );
            }
            if self
                .volumes
                .iter()
                .any(|volume| volume.mount == *path || is_below(&volume.mount, path))
            {
                return refuse(
                    PolicyKey::ImageData,
                    format!("image_data: a volume is mounted at or below {path}"),
                );
            }
            if self.image_data.iter().any(|other| is_below(other, path)) {
                return refuse(
                    PolicyKey::ImageData,
                    format!("image_data: {path} is above another path of the list"),
                );
            }
        }
        Ok(())
    }

    /// Checks the rules that the types do not express.
    pub fn check(&self) -> Result<(), PolicyError> {
        if self.volumes.len() > MAX_VOLUMES {
            return refuse(
                PolicyKey::Volumes,
                format!(
                    "{} volumes, at most {MAX_VOLUMES} are possible",
                    self.volumes.len()
                ),
            );
        }
        if self.failure.after_seconds > 3600 {
            return refuse(
                PolicyKey::FailureAfterSeconds,
                format!(
                    "failure.after_seconds is {}, at most 3600 is possible",
                    self.failure.after_seconds
                ),
            );
        }
        let Verify {
            scrub_rate,
            scrub_every,
            ..
        } = self.verify;
        for (key, name, value, most) in [
            (PolicyKey::VerifyScrubRate, "scrub_rate", scrub_rate, 10_000),
            (
                PolicyKey::VerifyScrubEvery,
                "scrub_every",
                scrub_every,
                8760,
            ),
        ] {
            if value == 0 || value > most {
                let reason = format!("verify.{name} is {value}, 1 to {most} is possible");
                return refuse(key, reason);
            }
        }
        let accept = &self.credentials.accept;
        if accept.len() > MAX_ACCEPTED_NAMES {
            return refuse(
                PolicyKey::CredentialsAccept,
                format!(
                    "credentials.accept has {} names, at most {MAX_ACCEPTED_NAMES} are possible",
                    accept.len()
                ),
            );
        }
        if let Some(bad) = accept
            .iter()
            .find(|glob| !crate::credentials::is_glob(glob))
        {
            return refuse(
                PolicyKey::CredentialsAccept,
                format!(
                    "credentials.accept: {bad:?} is not a credential's name (printable ASCII without / and :, with * for any characters)"
                ),
            );
        }
        if let Some(ports) = &self.drift.listen {
            if ports.len() > MAX_PORTS {
                return refuse(
                    PolicyKey::DriftListen,
                    format!(
                        "drift.listen has {} ports, at most {MAX_PORTS} are possible",
                        ports.len()
                    ),
                );
            }
            let is_port = |text: &String| {
                let port = text
                    .strip_suffix("/tcp")
                    .or_else(|| text.strip_suffix("/udp"));
                port.is_some_and(|port| {
                    port.parse::<u16>()
                        .is_ok_and(|number| number > 0 && number.to_string() == port)
                })
            };
            if let Some(bad) = ports.iter().find(|port| !is_port(port)) {
                return refuse(
                    PolicyKey::DriftListen,
                    format!("drift.listen: {bad:?} is not a port (for example 22/tcp or 123/udp)"),
                );
            }
        }
        self.seal.check(&self.volumes)?;
        for (index, volume) in self.volumes.iter().enumerate() {
            volume.check()?;
            for earlier in &self.volumes[..index] {
                if earlier.name == volume.name {
                    return refuse(
                        PolicyKey::VolumeName,
                        format!("two volumes are named {:?}", volume.name),
                    );
                }
                if earlier.mount == volume.mount {
                    return refuse(
                        PolicyKey::VolumeMount,
                        format!(
                            "volumes {:?} and {:?} both mount at {}",
                            earlier.name, volume.name, volume.mount
                        ),
                    );
                }
                if is_below(&earlier.mount, &volume.mount) {
                    return refuse(
                        PolicyKey::VolumeMount,
                        format!(
                            "volume {:?} ({}) must come before {:?} ({})",
                            volume.name, volume.mount, earlier.name, earlier.mount
                        ),
                    );
                }
            }
        }
        self.check_image_data()
    }
}

/// Whether `path` is strictly below `parent`. Both must be absolute, without `.` and `..`.
pub fn is_below(path: &str, parent: &str) -> bool {
    path.strip_prefix(parent)
        .is_some_and(|rest| rest.starts_with('/'))
}

impl Seal {
    /// Whether modules of the image can be loaded on request. Not with the exceptions `containers`,
    /// which lets processes enter any cgroup, and `debug`, which lets them trace systemd-udevd's
    /// children: the guard could no longer identify the requesting process.
    pub fn loads_modules_on_request(&self) -> bool {
        self.level == Level::Guard
            && self.module_loading == ModuleLoading::Image
            && !self.allow.containers
            && !self.allow.debug
    }

    fn check(&self, volumes: &[Volume]) -> Result<(), PolicyError> {
        let Allow {
            execute,
            mounts,
            disks,
            ..
        } = &self.allow;
        for (key, name, list, most) in [
            (
                PolicyKey::SealModules,
                "modules",
                &self.modules,
                MAX_SEAL_NAMES,
            ),
            (
                PolicyKey::SealAllowExecute,
                "allow.execute",
                execute,
                MAX_SEAL_NAMES,
            ),
            (
                PolicyKey::SealAllowMounts,
                "allow.mounts",
                mounts,
                MAX_SEAL_NAMES,
            ),
            (
                PolicyKey::SealAllowDisks,
                "allow.disks",
                disks,
                MAX_SEAL_NAMES,
            ),
            (
                PolicyKey::SealInterpreters,
                "interpreters",
                &self.interpreters,
                MAX_INTERPRETERS,
            ),
        ] {
            if list.len() > most {
                let reason = format!(
                    "seal.{name} has {} names, at most {most} are possible",
                    list.len()
                );
                return refuse(key, reason);
            }
        }
        let is_module = |name: &String| {
            !name.is_empty()
                && name.len() <= 64
                && name
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
        };
        if let Some(bad) = self.modules.iter().find(|name| !is_module(name)) {
            return refuse(
                PolicyKey::SealModules,
                format!("seal.modules: {bad:?} is not a module's name"),
            );
        }
        if let Some(bad) = execute
            .iter()
            .find(|name| !volumes.iter().any(|volume| volume.name == **name))
        {
            return refuse(
                PolicyKey::SealAllowExecute,
                format!("seal.allow.execute: no volume is named {bad:?}"),
            );
        }
        let is_path = |path: &String| {
            path.len() > 1
                && path.starts_with('/')
                && path[1..]
                    .split('/')
                    .all(|part| !matches!(part, "" | "." | ".."))
        };
        if let Some(bad) = mounts.iter().find(|path| !is_path(path)) {
            return refuse(
                PolicyKey::SealAllowMounts,
                format!("seal.allow.mounts: {bad:?} is not an absolute path without . and .."),
            );
        }
        if let Some(bad) = disks
            .iter()
            .find(|label| label.is_empty() || label.len() > 36)
        {
            return refuse(
                PolicyKey::SealAllowDisks,
                format!("seal.allow.disks: {bad:?} is not a partition's label"),
            );
        }
        Ok(())
    }
}

impl Volume {
    fn check(&self) -> Result<(), PolicyError> {
        let name_ok = !self.name.is_empty()
            && self.name.len() <= 36
            && self
                .name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b));
        // The agent would mistake the black box's partition for the volume.
        if self.name == crate::blackbox::LABEL {
            return refuse(
                PolicyKey::VolumeName,
                format!(
                    "{:?} is the label of another partition: give the volume another name",
                    self.name
                ),
            );
        }
        if !name_ok || self.name.starts_with('_') {
            return refuse(
                PolicyKey::VolumeName,
                format!(
                    "{:?} is not a volume name (1 to 36 of a-z 0-9 . _ -, not starting with _)",
                    self.name
                ),
            );
        }
        let mount_ok = self.mount.len() <= 1024
            && self.mount.starts_with('/')
            && self.mount.len() > 1
            && self.mount[1..]
                .split('/')
                .all(|part| !part.is_empty() && part != "." && part != ".." && part.len() <= 255)
            && !self
                .mount
                .bytes()
                .any(|b| b.is_ascii_control() || b.is_ascii_whitespace() || b == b'\\');
        if !mount_ok {
            return refuse(
                PolicyKey::VolumeMount,
                format!(
                    "volume {:?}: {:?} is not a mount point (an absolute path without . or .. or white space)",
                    self.name, self.mount
                ),
            );
        }
        for reserved in [
            "/proc", "/sys", "/dev", "/run", "/usr", "/etc", "/boot", "/efi",
        ] {
            if self.mount == reserved || is_below(&self.mount, reserved) {
                return refuse(
                    PolicyKey::VolumeMount,
                    format!(
                        "volume {:?}: {} can't be a volume's mount point: {reserved} belongs to the image or the kernel",
                        self.name, self.mount
                    ),
                );
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"version": 1, "image": {"id": "web", "version": "1"}, "volume": [{"name": "state", "mount": "/var"}]}"#;

    fn with_volume(name: &str, mount: &str) -> String {
        GOOD.replace(
            "}]}",
            &format!("}}, {{\"name\": {name:?}, \"mount\": {mount:?}}}]}}"),
        )
    }

    fn with_image_data(paths: &str) -> String {
        GOOD.replace("}]}", &format!("}}], \"image_data\": [\"{paths}\"]}}"))
    }

    #[test]
    fn image_data_belongs_to_the_closest_volume_above_it() {
        let policy = with_volume("db", "/var/lib").replace(
            "}]}",
            "}], \"image_data\": [\"/var/lib/dpkg\", \"/var/cache/x\"]}",
        );
        let policy = Policy::parse(policy.as_bytes()).unwrap();
        assert_eq!(policy.volume_of("/var/lib/dpkg").unwrap().name, "db");
        assert_eq!(policy.volume_of("/var/cache/x").unwrap().name, "state");
        assert_eq!(policy.volumes[0].refresh, Refresh::Unchanged);
    }

    #[test]
    fn reads_a_policy_with_defaults() {
        let policy = Policy::parse(GOOD.as_bytes()).unwrap();
        assert_eq!(policy.failure.after_seconds, 10);
        assert_eq!(policy.volumes[0].weight, 1);
        assert_eq!(Policy::parse(&policy.to_json().unwrap()), Ok(policy));
    }

    #[test]
    fn leaves_module_loading_open_only_if_the_guard_knows_the_requester() {
        let open = |seal: &str| {
            let text = GOOD.replacen(
                "\"volume\"",
                &format!("\"seal\": {{{seal}}}, \"volume\""),
                1,
            );
            Policy::parse(text.as_bytes())
                .unwrap()
                .seal
                .loads_modules_on_request()
        };
        assert!(
            open(r#""level": "guard""#)
                && open(
                    r#""level": "guard", "module_loading": "image", "allow": {"jit": true, "bpf": true, "mounts": ["/mnt"]}"#
                )
        );
        for seal in [
            "",
            r#""level": "verity", "module_loading": "image""#,
            r#""level": "lockdown", "module_loading": "image""#,
            r#""level": "guard", "module_loading": "boot""#,
            r#""level": "guard", "allow": {"containers": true}"#,
            r#""level": "guard", "allow": {"debug": true}"#,
        ] {
            assert!(!open(seal), "{seal}");
        }
    }

    #[test]
    fn refuses_unknown_keys_and_invalid_values() {
        for (text, why) in [
            (
                GOOD.replace(
                    "\"version\": 1, \"image\"",
                    "\"version\": 2, \"new\": 1, \"image\"",
                ),
                "version 2, this agent knows version 1",
            ),
            (
                GOOD.replace(
                    "\"version\": 1, \"image\"",
                    "\"version\": 1, \"new\": 1, \"image\"",
                ),
                "unknown field `new`",
            ),
            (
                GOOD.replace("\"version\": 1, \"image\"", "\"image\""),
                "no `version`",
            ),
            (GOOD.replace("/var", "/var/../etc"), "not a mount point"),
            (
                GOOD.replace("/var", "/usr/local"),
                "can't be a volume's mount point",
            ),
            (GOOD.replace("\"state\"", "\"_empty\""), "not a volume name"),
            (with_volume("x", "/var"), "both mount"),
            (
                with_volume("x", "/var").replacen("/var", "/var/log", 1),
                "must come before",
            ),
            (
                with_image_data("/etc/x"),
                "no path below a volume's mount point",
            ),
            (
                with_image_data("/var/../etc"),
                "no path below a volume's mount point",
            ),
            (
                with_image_data("/var/a b"),
                "no path below a volume's mount point",
            ),
            (
                with_image_data("/var"),
                "no path below a volume's mount point",
            ),
            (
                with_image_data("/var/x\", \"/var/x/y"),
                "above another path",
            ),
            (
                with_image_data("/var/lib").replace(
                    "}], \"image",
                    "}, {\"name\": \"x\", \"mount\": \"/var/lib/x\"}], \"image",
                ),
                "mounted at or below",
            ),
            (format!("{GOOD}x"), "trailing"),
        ] {
            let error = Policy::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
