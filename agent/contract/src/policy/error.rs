//! Why a policy is refused.

use thiserror::Error;

use super::{POLICY_LIMIT, VERSION};

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
    SealAllowIoctls,
    SealAllowAtStart,
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

pub(super) fn refuse<T>(key: PolicyKey, reason: String) -> Result<T, PolicyError> {
    Err(PolicyError::Value { key, reason })
}
