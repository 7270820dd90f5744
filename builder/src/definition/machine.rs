//! The tables about the machine around the root: what firmware starts, who signs, and the disk.

use toml::Spanned;

use super::parse::{LARGEST_VOLUME, Reader};
use adamant_contract::policy::{Allow, ModuleLoading, Policy, Seal};

use super::{Boot, Disk, Level, Scripts, Sign, SignBy, Volume, keys, values};
use crate::error::Result;
use crate::sign::KeySource;

/// FAT32 has at least 65,525 clusters (Microsoft's FAT specification); with one sector each that is
/// just below this, bytes.
const SMALLEST_ESP: u64 = 33 << 20;

impl Reader<'_> {
    pub(super) fn seal(
        &self,
        seal: Option<&Spanned<keys::Seal>>,
        volumes: &[Volume],
    ) -> Result<Seal> {
        let Some(table) = seal else {
            return Ok(Seal::default());
        };
        let keys::Seal {
            level,
            enforce,
            modules,
            module_loading,
            allow,
            scripts,
            interpreters,
            deny: _,
        } = table.get_ref();
        let none = keys::Allow::default();
        let allow = allow
            .as_ref()
            .map_or(&none, |allow| allow.get_ref().get_ref());
        let list = |list: &Option<Spanned<Vec<Spanned<String>>>>| -> Vec<String> {
            list.iter()
                .flat_map(|list| list.get_ref())
                .map(|one| one.get_ref().clone())
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
                execute: list(&allow.execute),
                mounts: list(&allow.mounts),
                disks: list(&allow.disks),
                scripts: list(&allow.scripts),
            },
        };
        if let Some(key) = module_loading {
            self.module_loading(key, &read)?;
        }
        let refused = scripts
            .as_ref()
            .filter(|scripts| *scripts.get_ref() == Scripts::Refuse);
        if let Some(scripts) = refused.filter(|_| read.level < Level::Guard) {
            return Err(self.error(scripts, "only level \"guard\" can refuse scripts (write level = \"guard\", or leave scripts out)"));
        }
        for list in [interpreters, &allow.scripts].into_iter().flatten() {
            if refused.is_none() {
                return Err(self.error(list, "this says nothing where scripts are allowed (write scripts = \"refuse\" in [seal], or leave it out)"));
            }
            list.get_ref()
                .iter()
                .try_for_each(|path| self.checked(path, |path| values::absolute(path)))?;
        }
        let volumes = volumes.iter().map(|volume| volume.policy.clone()).collect();
        let alone = Policy {
            seal: read.clone(),
            volumes,
            ..super::empty_policy()
        };
        alone.check().map_err(|why| self.error(table, why))?;
        Ok(read)
    }

    /// Refuses a word that would say nothing.
    fn module_loading(&self, key: &Spanned<ModuleLoading>, seal: &Seal) -> Result<()> {
        let why = match *key.get_ref() {
            ModuleLoading::Boot if seal.level < Level::Lockdown => {
                "level \"verity\" does not restrict modules (write level = \"lockdown\" or \"guard\", or leave module_loading out)"
            }
            ModuleLoading::Image if seal.level < Level::Guard => {
                "only level \"guard\" can tell who loads a module (write level = \"guard\", or leave module_loading out)"
            }
            ModuleLoading::Image if seal.allow.containers || seal.allow.debug => {
                "with the exceptions containers and debug, the guard can't tell who loads a module (write module_loading = \"boot\", and in modules what is needed later)"
            }
            _ => return Ok(()),
        };
        Err(self.error(key, why))
    }

    pub(super) fn boot(&self, boot: Option<&Spanned<keys::Boot>>) -> Result<Boot> {
        let Some(boot) = boot.map(Spanned::get_ref) else {
            return Ok(Boot::default());
        };
        Ok(Boot {
            stub: boot.stub.as_ref().map(|path| self.path(path)).transpose()?,
            loader: boot
                .loader
                .as_ref()
                .map(|path| self.path(path))
                .transpose()?,
            microcode: boot.microcode.as_ref().is_some_and(|yes| *yes.get_ref()),
            debug: boot.debug.as_ref().map(|words| words.get_ref().clone()),
        })
    }

    pub(super) fn sign(&self, sign: Option<&Spanned<keys::Sign>>) -> Result<Sign> {
        let Some(sign) = sign.map(Spanned::get_ref) else {
            return Ok(Sign::default());
        };
        let folder = sign.keys.as_ref().map(|path| self.path(path)).transpose()?;
        let all = folder.as_deref().map(Sign::from_folder).unwrap_or_default();
        let by = |written: &Option<Spanned<Spanned<keys::SignBy>>>, otherwise| match written {
            Some(written) => self.sign_by(written.get_ref()).map(Some),
            None => Ok(otherwise),
        };
        Ok(Sign {
            secure_boot: by(&sign.secure_boot, all.secure_boot)?,
            verity: by(&sign.verity, all.verity)?,
            pcr: by(&sign.pcr, all.pcr)?,
        })
    }

    fn sign_by(&self, spanned: &Spanned<keys::SignBy>) -> Result<SignBy> {
        let table = spanned.get_ref();
        let certificate =
            self.path(self.required(spanned, "certificate", &table.certificate)?)?;
        let key = match &table.key {
            None => None,
            Some(text) => Some(match self.checked(text, |text| text.parse())? {
                KeySource::File(_) => KeySource::File(self.path(text)?),
                other => other,
            }),
        };
        Ok(SignBy { key, certificate })
    }

    pub(super) fn disk(&self, disk: Option<&Spanned<keys::Disk>>) -> Result<Disk> {
        let mut out = Disk::default();
        let Some(disk) = disk.map(Spanned::get_ref) else {
            return Ok(out);
        };
        let whole = |value: &Spanned<String>, name: &str, least: u64| {
            self.checked(value, |text| {
                match values::size(text).map_err(|why| format!("{name} {why}"))? {
                    bytes if bytes % (1 << 20) != 0 => Err(format!(
                        "{name} {text:?} is not whole MiB (use for example 512M)"
                    )),
                    bytes if bytes < least => Err(format!(
                        "{name} {text:?} is too small (use {}M or more)",
                        least >> 20
                    )),
                    bytes if bytes > LARGEST_VOLUME => {
                        Err(format!("{name} {text:?} is larger than any disk"))
                    }
                    bytes => Ok(bytes),
                }
            })
        };
        if let Some(esp) = &disk.esp {
            out.esp = whole(esp, "esp", SMALLEST_ESP)?;
        }
        if let Some(size) = &disk.slot_size {
            out.slot_size = Some(whole(size, "slot_size", 1 << 20)?);
        }
        if let Some(slots) = &disk.slots {
            out.slots = Some(self.checked(slots, |slots| {
                matches!(slots, 1 | 2)
                    .then_some(*slots)
                    .ok_or_else(|| format!("slots = {slots} (use 1 or 2)"))
            })?);
        }
        if let Some(headroom) = &disk.headroom {
            out.headroom = self.checked(headroom, |text| {
                let number = text
                    .strip_suffix('%')
                    .filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))
                    .and_then(|digits| digits.parse().ok());
                number
                    .filter(|percent| *percent <= 90)
                    .ok_or_else(|| format!("headroom {text:?} is not a percentage from 0% to 90%"))
            })?;
        }
        if let Some(black_box) = &disk.black_box {
            out.black_box = *black_box.get_ref();
        }
        if let Some(sector) = &disk.sector {
            out.sector = self.checked(sector, |sector| {
                matches!(sector, 512 | 4096)
                    .then_some(*sector)
                    .ok_or_else(|| format!("sector = {sector} (use 512 or 4096)"))
            })?;
        }
        Ok(out)
    }
}
