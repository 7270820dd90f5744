//! The tables about the machine around the root (kernel, boot programs, keys, disk), and their
//! parser.

use std::path::{Path, PathBuf};

use toml::Spanned;

use super::parse::{DefinitionReader, LARGEST_VOLUME};
use super::{keys, values};
use crate::error::Result;
use crate::sign::KeySource;

/// The table `[kernel]`.
#[derive(Debug, Clone, Default)]
pub struct Kernel {
    /// Arguments in addition to the builder's own.
    pub cmdline: String,
    /// Names of modules in addition to the builder's own.
    pub modules: Vec<String>,
}

/// The table `[boot]`.
#[derive(Debug, Clone, Default)]
pub struct Boot {
    /// systemd's stub, instead of the image's own.
    pub stub: Option<PathBuf>,
    /// systemd's boot loader, instead of the image's own.
    pub loader: Option<PathBuf>,
    /// Whether the unified kernel image contains early microcode.
    pub microcode: bool,
    /// Kernel arguments of the debug profile.
    pub debug: Option<String>,
}

/// The table `[sign]`.
#[derive(Debug, Clone, Default)]
pub struct Sign {
    /// Signs boot loader and unified kernel image.
    pub secure_boot: Option<SignBy>,
    /// Signs the root hash.
    pub verity: Option<SignBy>,
    /// Signs the predicted values of PCR 11.
    pub pcr: Option<SignBy>,
}

impl Sign {
    /// The three keys in a directory from `adamant keys new`.
    pub fn from_folder(folder: &Path) -> Sign {
        let by = |name: &str| {
            Some(SignBy {
                key: Some(KeySource::File(folder.join(format!("{name}.key")))),
                certificate: folder.join(format!("{name}.crt")),
            })
        };
        Sign {
            secure_boot: by("secure-boot"),
            verity: by("verity"),
            pcr: by("pcr"),
        }
    }
}

/// A key and its certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignBy {
    /// The key; `None` if `adamant sign` signs later.
    pub key: Option<KeySource>,
    /// Its certificate.
    pub certificate: PathBuf,
}

/// The table `[disk]`.
#[derive(Debug, Clone)]
pub struct Disk {
    /// Bytes of the EFI system partition, a multiple of 1 MiB.
    pub esp: u64,
    /// One or two; `None`: two with a boot loader, else one.
    pub slots: Option<u32>,
    /// Bytes of each slot's root partition, a multiple of 1 MiB.
    pub slot_size: Option<u64>,
    /// Minimum free space of a slot, percent.
    pub headroom: u64,
    /// Whether the disk has a black box partition.
    pub black_box: bool,
    /// Bytes of a sector.
    pub sector: u32,
}

impl Default for Disk {
    fn default() -> Self {
        Disk {
            esp: 512 << 20,
            slots: None,
            slot_size: None,
            headroom: 50,
            black_box: true,
            sector: 512,
        }
    }
}

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
