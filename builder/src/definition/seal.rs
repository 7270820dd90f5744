//! Parses the table `[seal]`.

use adamant_contract::policy::{Allow, ModuleLoading, Policy, Seal};
use toml::Spanned;

use super::parse::DefinitionReader;
use super::{Deny, Level, Scripts, VolumeDefinition, keys, values};
use crate::error::Result;

/// The values of `[seal]`. Only the first is part of the policy.
#[derive(Default)]
pub(super) struct SealSettings {
    pub seal: Seal,
    pub scripts: Scripts,
    pub interpreters: Vec<String>,
    pub deny: Vec<Deny>,
}

impl DefinitionReader<'_> {
    pub(super) fn seal(
        &self,
        seal: Option<&Spanned<keys::SealTable>>,
        volumes: &[VolumeDefinition],
    ) -> Result<SealSettings> {
        let Some(table) = seal else {
            return Ok(SealSettings::default());
        };
        let keys::SealTable {
            level,
            enforce,
            modules,
            module_loading,
            allow,
            scripts,
            interpreters,
            deny,
        } = table.get_ref();
        let none = keys::AllowTable::default();
        let allow = allow
            .as_ref()
            .map_or(&none, |allow| allow.get_ref().get_ref());
        let list = |list: &Option<Spanned<Vec<Spanned<String>>>>| -> Vec<String> {
            list.iter()
                .flat_map(|list| list.get_ref())
                .map(|entry| entry.get_ref().clone())
                .collect()
        };
        let is = |flag: &Option<Spanned<bool>>| flag.as_ref().is_some_and(|yes| *yes.get_ref());
        let read = Seal {
            level: level
                .as_ref()
                .map(|level| *level.get_ref())
                .unwrap_or_default(),
            enforce: enforce
                .as_ref()
                .map(|enforce| *enforce.get_ref())
                .unwrap_or_default(),
            modules: list(modules),
            module_loading: module_loading
                .as_ref()
                .map(|how| *how.get_ref())
                .unwrap_or_default(),
            interpreters: Vec::new(),
            allow: Allow {
                jit: is(&allow.jit),
                debug: is(&allow.debug),
                bpf: is(&allow.bpf),
                containers: is(&allow.containers),
                binfmt: is(&allow.binfmt),
                transient_units: is(&allow.transient_units),
                execute: list(&allow.execute),
                mounts: list(&allow.mounts),
                disks: list(&allow.disks),
                scripts: list(&allow.scripts),
                ioctls: allow
                    .ioctls
                    .iter()
                    .flat_map(|list| list.get_ref())
                    .map(|request| *request.get_ref())
                    .collect(),
                at_start: list(&allow.at_start),
            },
        };
        if let Some(key) = module_loading {
            self.module_loading(key, &read)?;
        }
        let refused = scripts
            .as_ref()
            .filter(|scripts| *scripts.get_ref() == Scripts::Refuse);
        if let Some(scripts) = refused.filter(|_| read.level < Level::Guard) {
            return Err(self.error(scripts, "scripts = \"refuse\" needs level \"guard\" (write level = \"guard\", or leave out scripts)"));
        }
        for list in [interpreters, &allow.scripts].into_iter().flatten() {
            if refused.is_none() {
                return Err(self.error(list, "this has no effect while scripts are allowed (write scripts = \"refuse\" in [seal], or leave it out)"));
            }
            list.get_ref()
                .iter()
                .try_for_each(|path| self.checked(path, |path| values::absolute(path)))?;
        }
        if let Some(list) = &allow.at_start {
            if read.level < Level::Guard {
                return Err(self.error(list, "this has no effect below level \"guard\" (write level = \"guard\" in [seal], or leave it out)"));
            }
            list.get_ref()
                .iter()
                .try_for_each(|path| self.checked(path, |path| values::start_place(path)))?;
        }
        let volumes = volumes.iter().map(|volume| volume.policy.clone()).collect();
        let alone = Policy {
            seal: read.clone(),
            volumes,
            ..super::empty_policy()
        };
        alone.check().map_err(|why| self.error(table, why))?;
        Ok(SealSettings {
            seal: read,
            scripts: scripts
                .as_ref()
                .map(|scripts| *scripts.get_ref())
                .unwrap_or_default(),
            interpreters: list(interpreters),
            deny: deny
                .as_ref()
                .map(|list| list.get_ref().clone())
                .unwrap_or_default(),
        })
    }

    /// Refuses a value that has no effect at this level.
    fn module_loading(&self, key: &Spanned<ModuleLoading>, seal: &Seal) -> Result<()> {
        let why = match *key.get_ref() {
            ModuleLoading::Boot if seal.level < Level::Lockdown => {
                "level \"verity\" does not restrict modules (write level = \"lockdown\" or \"guard\", or leave out module_loading)"
            }
            ModuleLoading::Image if seal.level < Level::Guard => {
                "module_loading = \"image\" needs level \"guard\" (write level = \"guard\", or leave out module_loading)"
            }
            ModuleLoading::Image if seal.allow.containers || seal.allow.debug => {
                "with the exception containers or debug, the guard can't tell which program loads a module (write module_loading = \"boot\", and list later modules in modules)"
            }
            _ => return Ok(()),
        };
        Err(self.error(key, why))
    }
}
