//! The seal in the policy: level, modules and exceptions.

use serde::{Deserialize, Serialize};

use super::error::{PolicyError, PolicyKey, refuse};
use super::volume::is_absolute;
use super::{MAX_INTERPRETERS, MAX_IOCTLS, MAX_SEAL_NAMES, Volume};

/// Directories in which programs find instructions that they execute at each start or by the clock,
/// without a login. At level guard, the builder adds those of the image's programs to
/// [`Policy::image_data`](super::Policy::image_data), except those in [`Allow::at_start`].
pub const START_PLACES: [&str; 11] = [
    "/var/lib/binfmts",
    "/var/lib/cloud",
    "/var/lib/dkms",
    "/var/lib/lxc",
    "/var/lib/systemd/linger",
    "/var/lib/waagent",
    "/var/spool/at",
    "/var/spool/atjobs",
    "/var/spool/cron",
    "/var/spool/fcron",
    "/var/spool/incron",
];

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
    /// Units can be made while the system runs (`systemd-run`).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub transient_units: bool,
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
    /// Requests by ioctl(2) that everybody may send to disks and other devices.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ioctls: Vec<u32>,
    /// The [`START_PLACES`] that stay writable on their volume.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub at_start: Vec<String>,
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
            ("transient_units", self.transient_units),
        ];
        let lists = [
            ("execute", &self.execute),
            ("mounts", &self.mounts),
            ("disks", &self.disks),
            ("scripts", &self.scripts),
            ("at_start", &self.at_start),
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
            .chain(
                self.ioctls
                    .iter()
                    .map(|request| format!("ioctls {request:#x}")),
            )
            .collect()
    }
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

    pub(super) fn check(&self, volumes: &[Volume]) -> Result<(), PolicyError> {
        let Allow {
            execute,
            mounts,
            disks,
            at_start,
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
        let requests = self.allow.ioctls.len();
        if requests > MAX_IOCTLS {
            return refuse(
                PolicyKey::SealAllowIoctls,
                format!(
                    "seal.allow.ioctls has {requests} numbers, at most {MAX_IOCTLS} are possible"
                ),
            );
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
        if let Some(bad) = mounts.iter().find(|path| !is_absolute(path)) {
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
        if let Some(bad) = at_start
            .iter()
            .find(|path| !START_PLACES.contains(&path.as_str()))
        {
            return refuse(
                PolicyKey::SealAllowAtStart,
                format!("seal.allow.at_start: {bad:?} is not a known place"),
            );
        }
        Ok(())
    }
}
