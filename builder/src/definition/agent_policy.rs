//! Parses the tables of the agent's policy, except volumes and seal.

use adamant_contract::policy::{self, Policy};
use toml::Spanned;

use super::parse::DefinitionReader;
use super::{keys, values};
use crate::error::Result;

impl DefinitionReader<'_> {
    pub(super) fn verify(
        &self,
        verify: Option<&Spanned<keys::VerifyTable>>,
    ) -> Result<policy::Verify> {
        let mut out = policy::Verify::default();
        let Some(verify) = verify.map(Spanned::get_ref) else {
            return Ok(out);
        };
        out.boot = verify
            .boot
            .as_ref()
            .map(|key| *key.get_ref())
            .unwrap_or_default();
        out.on_corruption = verify
            .on_corruption
            .as_ref()
            .map(|key| *key.get_ref())
            .unwrap_or_default();
        for (written, rate) in [(&verify.scrub_rate, true), (&verify.scrub_every, false)] {
            let Some(written) = written else { continue };
            *if rate {
                &mut out.scrub_rate
            } else {
                &mut out.scrub_every
            } = *written.get_ref();
            Policy {
                verify: out,
                ..super::empty_policy()
            }
            .check()
            .map_err(|why| self.error(written, why))?;
        }
        Ok(out)
    }

    pub(super) fn failure(
        &self,
        failure: Option<&Spanned<keys::FailureTable>>,
    ) -> Result<policy::FailurePolicy> {
        let mut out = policy::FailurePolicy::default();
        let Some(failure) = failure.map(Spanned::get_ref) else {
            return Ok(out);
        };
        if let Some(action) = &failure.action {
            out.action = *action.get_ref();
        }
        for (written, fault) in [
            (&failure.oops, &mut out.oops),
            (&failure.lockup, &mut out.lockup),
            (&failure.hung_task, &mut out.hung_task),
        ] {
            if let Some(written) = written {
                *fault = *written.get_ref();
            }
        }
        if let Some(after) = &failure.after {
            out.after_seconds = self.checked(after, |text| {
                match values::duration(text).map_err(|why| format!("after {why}"))? {
                    seconds @ 0..=3600 => Ok(seconds as u32),
                    _ => Err(format!("after {text:?} is too long (use 1h or less)")),
                }
            })?;
        }
        Ok(out)
    }

    pub(super) fn on_violation(
        &self,
        table: Option<&Spanned<keys::OnViolationTable>>,
    ) -> policy::OnViolation {
        let reaction = |key: &Option<Spanned<policy::Reaction>>| {
            key.as_ref().map(|key| *key.get_ref()).unwrap_or_default()
        };
        table
            .map(Spanned::get_ref)
            .map(|table| policy::OnViolation {
                mounts: reaction(&table.mounts),
                sysctls: reaction(&table.sysctls),
                verity: reaction(&table.verity),
                devices: reaction(&table.devices),
                denials: reaction(&table.denials),
            })
            .unwrap_or_default()
    }

    /// Each port is checked alone, so that an error has the position of the port.
    pub(super) fn drift(
        &self,
        table: Option<&Spanned<keys::DriftTable>>,
    ) -> Result<policy::DriftPolicy> {
        let Some(ports) = table.and_then(|table| table.get_ref().listen.as_ref()) else {
            return Ok(policy::DriftPolicy::default());
        };
        let with_ports = |ports: Vec<String>| policy::DriftPolicy {
            listen: Some(ports),
        };
        for port in ports.get_ref() {
            let alone = Policy {
                drift: with_ports(vec![port.get_ref().clone()]),
                ..super::empty_policy()
            };
            alone.check().map_err(|why| self.error(port, why))?;
        }
        let ports = ports.get_ref().iter();
        Ok(with_ports(
            ports.map(|port| port.get_ref().clone()).collect(),
        ))
    }

    /// Each name is checked alone, so that an error has the position of the name.
    pub(super) fn credentials(
        &self,
        table: Option<&Spanned<keys::CredentialsTable>>,
    ) -> Result<policy::Credentials> {
        let Some(globs) = table.and_then(|table| table.get_ref().accept.as_ref()) else {
            return Ok(policy::Credentials::default());
        };
        for glob in globs.get_ref() {
            let alone = Policy {
                credentials: policy::Credentials {
                    accept: vec![glob.get_ref().clone()],
                },
                ..super::empty_policy()
            };
            alone.check().map_err(|why| self.error(glob, why))?;
        }
        let globs = globs.get_ref().iter();
        Ok(policy::Credentials {
            accept: globs.map(|glob| glob.get_ref().clone()).collect(),
        })
    }
}
