//! The policy: the image's instructions to the agent. It is a JSON file inside the verified root,
//! so it needs no signature of its own.
//!
//! The builder derives it from the definition. The agent refuses a policy with an unknown `version`
//! or an unknown key: it never ignores an instruction.

mod error;
mod reactions;
mod seal;
#[cfg(test)]
mod tests;
mod volume;

use serde::{Deserialize, Serialize};

use self::error::refuse;
pub use self::error::{PolicyError, PolicyKey};
pub use self::reactions::{
    DriftPolicy, FailureAction, FailurePolicy, FaultReaction, OnCorruption, OnViolation, Reaction,
    Verify, VerifyBoot,
};
pub use self::seal::{Allow, Enforce, Level, ModuleLoading, START_PLACES, Seal};
use self::volume::is_mount_point;
pub use self::volume::{FileSystem, OnDamage, Refresh, Volume, VolumeCheck, is_below};
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
/// Largest number of requests in `seal.allow.ioctls`: the size of the guard's array (`ioctls` in
/// agent/bpf/guard.bpf.c).
pub const MAX_IOCTLS: usize = 16;
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
    pub drift: DriftPolicy,
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
            if !is_mount_point(path) || self.volume_of(path).is_none() {
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
