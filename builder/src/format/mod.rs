//! The disk image in the formats that clouds and hypervisors accept, each made from the raw disk.
//!
//! Every format is a module with the same function `write`. Its promises:
//!
//! - The bytes depend on the disk's content and the [`Facts`] alone. They do not depend on the
//!   number of threads, on the holes of the raw file, or on the machine.
//! - Holes are neither read nor stored.
//! - Memory use is at most about 64 MiB.
//! - The SHA-256 of the output is computed during writing, if the format can be written from front
//!   to end.

mod deflate;
mod gce;
mod ova;
mod pieces;
mod qcow2;
mod stream;
mod tar;
mod vhd;
mod vmdk;
mod zst;

#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::File;
use std::str::FromStr;

use adamant_contract::gpt::Guid;

use self::pieces::Raw;
use crate::error::{Context, Error, Result};

/// The disk's size must be a multiple of this, bytes.
const GRAIN: u64 = 1 << 20;

/// A format of a disk image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Format {
    /// The disk itself, which every build makes.
    Raw,
    /// The disk, compressed with zstd.
    RawZst,
    /// QEMU's copy-on-write disk, for QEMU, Proxmox and OpenStack.
    Qcow2,
    /// A fixed virtual hard disk, for Azure and Hyper-V.
    Vhd,
    /// A stream-optimized virtual machine disk, for VMware.
    Vmdk,
    /// A virtual machine with its disk, for VMware and VirtualBox.
    Ova,
    /// A tar archive, compressed with gzip, for Google Compute Engine.
    Gce,
}

impl Format {
    /// All formats.
    pub const ALL: [Format; 7] = [
        Format::Raw,
        Format::RawZst,
        Format::Qcow2,
        Format::Vhd,
        Format::Vmdk,
        Format::Ova,
        Format::Gce,
    ];

    /// The format's name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Format::Raw => "raw",
            Format::RawZst => "raw.zst",
            Format::Qcow2 => "qcow2",
            Format::Vhd => "vhd",
            Format::Vmdk => "vmdk",
            Format::Ova => "ova",
            Format::Gce => "gce",
        }
    }

    /// The suffix of the artifact's name, after `ID_VERSION.`.
    pub fn suffix(self) -> &'static str {
        match self {
            Format::Gce => "tar.gz",
            other => other.name(),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Format, String> {
        // A USB stick is written with the raw disk.
        let text = if text == "usb" { "raw" } else { text };
        let known = || Format::ALL.map(Format::name).join(", ");
        Format::ALL
            .into_iter()
            .find(|format| format.name() == text)
            .ok_or_else(|| format!("{text:?} is not a format (use some of {}, or uki)", known()))
    }
}

/// Facts about the image that some formats store.
#[derive(Debug, Clone)]
pub struct Facts {
    /// IMAGE_ID.
    pub id: String,
    /// IMAGE_VERSION.
    pub version: String,
    /// Identifies this disk, also among the versions of the image.
    pub guid: Guid,
    /// The stored time of creation, seconds since 1970.
    pub epoch: i64,
}

impl Facts {
    fn stem(&self) -> String {
        format!("{}_{}", self.id, self.version)
    }
}

/// Size and hash of a written file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WrittenFile {
    /// Size in bytes.
    pub size: u64,
    /// SHA-256.
    pub sha256: [u8; 32],
}

/// Converts the disk `raw` to a format, on up to `jobs` threads. `out` is an empty file that can
/// also be read.
pub fn write(
    format: Format,
    raw: &File,
    facts: &Facts,
    out: &File,
    jobs: usize,
) -> Result<WrittenFile> {
    let make = match format {
        Format::Raw => return Err(Error::new("the raw disk exists already")),
        Format::RawZst => zst::write,
        Format::Qcow2 => qcow2::write,
        Format::Vhd => vhd::write,
        Format::Vmdk => vmdk::write,
        Format::Ova => ova::write,
        Format::Gce => gce::write,
    };
    let what = || format!("the disk as {format}");
    let size = raw.metadata().context(what)?.len();
    if size == 0 || !size.is_multiple_of(GRAIN) {
        return Err(Error::new(format!(
            "{}: the raw disk has {size} bytes, which is not a multiple of 1 MiB",
            what()
        ))
        .hint("give a disk that `adamant build` wrote: its size is a multiple of 1 MiB"));
    }
    make(Raw { file: raw, size }, facts, out, jobs).context(what)
}
