//! Parses the tables about the machine around the root: kernel, boot programs, keys and disk.

use toml::Spanned;

use super::parse::{DefinitionReader, LARGEST_VOLUME};
use super::{Boot, Disk, Kernel, Sign, SignBy, keys, values};
use crate::error::Result;
use crate::sign::KeySource;

/// Smallest EFI system partition, bytes. FAT32 has at least 65,525 clusters (Microsoft's FAT
/// specification), and a cluster has at least one sector.
const SMALLEST_ESP: u64 = 33 << 20;

impl DefinitionReader<'_> {
    pub(super) fn kernel(&self, kernel: Option<&Spanned<keys::KernelTable>>) -> Result<Kernel> {
        let Some(kernel) = kernel.map(Spanned::get_ref) else {
            return Ok(Kernel {
                cmdline: String::new(),
                modules: Vec::new(),
            });
        };
        let cmdline = match &kernel.cmdline {
            Some(text) => self.checked(text, |text| {
                values::cmdline(text).map(|()| text.trim().to_owned())
            })?,
            None => String::new(),
        };
        Ok(Kernel {
            cmdline,
            modules: self.strings(&kernel.modules, values::module)?,
        })
    }

    pub(super) fn boot(&self, boot: Option<&Spanned<keys::BootTable>>) -> Result<Boot> {
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
            debug: boot
                .debug
                .as_ref()
                .map(|arguments| arguments.get_ref().clone()),
        })
    }

    pub(super) fn sign(&self, sign: Option<&Spanned<keys::SignTable>>) -> Result<Sign> {
        let Some(sign) = sign.map(Spanned::get_ref) else {
            return Ok(Sign::default());
        };
        let folder = sign.keys.as_ref().map(|path| self.path(path)).transpose()?;
        let all = folder.as_deref().map(Sign::from_folder).unwrap_or_default();
        let by = |written: &Option<Spanned<Spanned<keys::KeyTable>>>, otherwise| match written {
            Some(written) => self.sign_by(written.get_ref()).map(Some),
            None => Ok(otherwise),
        };
        Ok(Sign {
            secure_boot: by(&sign.secure_boot, all.secure_boot)?,
            verity: by(&sign.verity, all.verity)?,
            pcr: by(&sign.pcr, all.pcr)?,
        })
    }

    fn sign_by(&self, spanned: &Spanned<keys::KeyTable>) -> Result<SignBy> {
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

    pub(super) fn disk(&self, disk: Option<&Spanned<keys::DiskTable>>) -> Result<Disk> {
        let mut out = Disk::default();
        let Some(disk) = disk.map(Spanned::get_ref) else {
            return Ok(out);
        };
        let whole = |value: &Spanned<String>, name: &str, least: u64| {
            self.checked(value, |text| {
                match values::size(text).map_err(|why| format!("{name} {why}"))? {
                    bytes if bytes % (1 << 20) != 0 => Err(format!(
                        "{name} {text:?} is not a whole number of MiB (use for example 512M)"
                    )),
                    bytes if bytes < least => Err(format!(
                        "{name} {text:?} is too small (use {}M or more)",
                        least >> 20
                    )),
                    bytes if bytes > LARGEST_VOLUME => Err(format!(
                        "{name} {text:?} is too large (use {}T or less)",
                        LARGEST_VOLUME >> 40
                    )),
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
