//! The volumes of a definition, and their parser.

use adamant_contract::policy::{self, Policy, PolicyKey, is_below};
use toml::Spanned;

use super::parse::{DefinitionReader, LARGEST_VOLUME};
use super::{FileSystem, OnDamage, Refresh, VolumeCheck, keys, values};
use crate::error::Result;

/// A volume: its policy and its size on the disk image.
#[derive(Debug, Clone)]
pub struct VolumeDefinition {
    /// The agent's part.
    pub policy: adamant_contract::policy::Volume,
    /// Size in bytes on the disk image, a multiple of 1 MiB.
    pub size: u64,
}

impl VolumeDefinition {
    /// The default: state at /var, and logs at /var/log so that logs cannot fill the state volume.
    pub(super) fn defaults() -> Vec<VolumeDefinition> {
        let volume = |name: &str, mount: &str, size| VolumeDefinition {
            policy: policy::Volume {
                name: name.to_owned(),
                mount: mount.to_owned(),
                filesystem: FileSystem::default(),
                weight: 1,
                on_damage: OnDamage::default(),
                refresh: Refresh::default(),
                check: VolumeCheck::default(),
            },
            size,
        };
        vec![
            volume("state", "/var", 512 << 20),
            volume("logs", "/var/log", 256 << 20),
        ]
    }
}

/// Smallest volume, bytes: ext4 with a journal needs it.
const SMALLEST_VOLUME: u64 = 16 << 20;

impl DefinitionReader<'_> {
    /// The volumes of the definition or the default, parents before children.
    pub(super) fn volumes(&self, file: &keys::DefinitionTables) -> Result<Vec<VolumeDefinition>> {
        let none = file.volumes.as_ref();
        if let Some(none) = none.filter(|list| !list.get_ref().is_empty()) {
            return Err(self.error(
                none,
                "`volumes` can only be an empty list (write a [[volume]] for each volume)",
            ));
        }
        let Some(written) = &file.volume else {
            return Ok(if none.is_some() {
                Vec::new()
            } else {
                VolumeDefinition::defaults()
            });
        };
        if none.is_some() {
            return Err(self.error(
                written,
                "`volumes = []` and a [[volume]] contradict each other (leave one out)",
            ));
        }
        let mut volumes: Vec<VolumeDefinition> = Vec::new();
        for spanned in written.get_ref() {
            let Some(volume) = self.collect(self.volume(spanned)) else {
                continue;
            };
            for earlier in &volumes {
                let twice = match (
                    earlier.policy.name == volume.policy.name,
                    earlier.policy.mount == volume.policy.mount,
                ) {
                    (true, _) => Some((
                        "name",
                        &spanned.get_ref().name,
                        "two volumes have the name",
                        &volume.policy.name,
                    )),
                    (_, true) => Some((
                        "mount",
                        &spanned.get_ref().mount,
                        "two volumes are mounted at",
                        &volume.policy.mount,
                    )),
                    _ => None,
                };
                if let Some((key, value, what, which)) = twice {
                    let span = value.as_ref().map_or(spanned.span(), Spanned::span);
                    return Err(self.text.error(
                        span,
                        format!("{what} {which:?} (give this one another {key})"),
                    ));
                }
            }
            volumes.push(volume);
        }
        if volumes.len() > policy::MAX_VOLUMES {
            return Err(self.error(
                written,
                format!(
                    "{} volumes, but at most {} are allowed",
                    volumes.len(),
                    policy::MAX_VOLUMES
                ),
            ));
        }
        // A stable order with parents before children.
        volumes.sort_by_key(|volume| volume.policy.mount.matches('/').count());
        debug_assert!(
            volumes
                .windows(2)
                .all(|pair| !is_below(&pair[0].policy.mount, &pair[1].policy.mount))
        );
        Ok(volumes)
    }

    fn volume(&self, spanned: &Spanned<keys::VolumeTable>) -> Result<VolumeDefinition> {
        let keys = spanned.get_ref();
        let name = self.required(spanned, "name", &keys.name)?;
        let mount = self.required(spanned, "mount", &keys.mount)?;
        let size = self.required(spanned, "size", &keys.size)?;
        let bytes = self.checked(size, |text| {
            values::size(text).map_err(|why| format!("volume {:?}: size {why}", name.get_ref()))
        })?;
        let wrong = |what: &str| {
            Err(self.error(
                size,
                format!(
                    "volume {:?}: size {:?} {what}",
                    name.get_ref(),
                    size.get_ref()
                ),
            ))
        };
        match bytes {
            bytes if bytes % (1 << 20) != 0 => {
                wrong("is not a whole number of MiB (use for example 512M)")?
            }
            bytes if bytes < SMALLEST_VOLUME => {
                wrong("is too small for a file system (use 16M or more)")?
            }
            bytes if bytes > LARGEST_VOLUME => wrong("is too large for ext4 (use 16T or less)")?,
            _ => {}
        }
        let volume = policy::Volume {
            name: name.get_ref().clone(),
            mount: mount.get_ref().clone(),
            filesystem: keys
                .filesystem
                .as_ref()
                .map(|key| *key.get_ref())
                .unwrap_or_default(),
            weight: keys.weight.as_ref().map_or(1, |key| *key.get_ref()),
            on_damage: keys
                .on_damage
                .as_ref()
                .map(|key| *key.get_ref())
                .unwrap_or_default(),
            refresh: keys
                .refresh
                .as_ref()
                .map(|key| *key.get_ref())
                .unwrap_or_default(),
            check: keys
                .check
                .as_ref()
                .map(|key| *key.get_ref())
                .unwrap_or_default(),
        };
        // The agent's own check decides.
        let alone = Policy {
            volumes: vec![volume.clone()],
            ..super::empty_policy()
        };
        alone.check().map_err(|why| match why.key() {
            Some(PolicyKey::VolumeName) => self.error(name, why),
            _ => self.error(mount, why),
        })?;
        Ok(VolumeDefinition {
            policy: volume,
            size: bytes,
        })
    }
}
