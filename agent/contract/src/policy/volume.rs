//! The volumes in the policy.

use serde::{Deserialize, Serialize};

use super::error::{PolicyError, PolicyKey, refuse};

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
    /// When the file system is checked before it is mounted.
    #[serde(default)]
    pub check: VolumeCheck,
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

/// When a volume's file system is checked before it is mounted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VolumeCheck {
    /// Unless its superblock says that it was unmounted cleanly.
    #[default]
    Unclean,
    /// At every boot, whatever its superblock says.
    Always,
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

impl Volume {
    pub(super) fn check(&self) -> Result<(), PolicyError> {
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
        let names_fit = self.mount.split('/').all(|name| name.len() <= 255);
        if !is_mount_point(&self.mount) || !names_fit {
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

/// Whether `path` is strictly below `parent`. Both must be absolute, without `.` and `..`.
pub fn is_below(path: &str, parent: &str) -> bool {
    path.strip_prefix(parent)
        .is_some_and(|rest| rest.starts_with('/'))
}

/// Whether a path is absolute and not `/`, without empty names, `.` and `..`.
pub(super) fn is_absolute(path: &str) -> bool {
    path.strip_prefix('/').is_some_and(|names| {
        names
            .split('/')
            .all(|name| !matches!(name, "" | "." | ".."))
    })
}

/// Whether something can be mounted at a path: absolute, at most 1024 bytes, without control
/// characters, white space and backslashes.
pub(super) fn is_mount_point(path: &str) -> bool {
    is_absolute(path)
        && path.len() <= 1024
        && !path
            .bytes()
            .any(|b| b.is_ascii_control() || b.is_ascii_whitespace() || b == b'\\')
}
