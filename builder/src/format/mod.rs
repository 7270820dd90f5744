//! The disk image in the formats that clouds and hypervisors take, each made from the finished raw
//! disk.
//!
//! Every format is one file with one function of one shape. Promises: bytes that depend on the
//! disk's content and the [`Facts`] alone, not on the number of threads, on where the raw file has
//! holes, or on the machine; what is zero costs neither reading nor room; at most some
//! 64 MiB of memory; and the SHA-256 of what was written, made on the way where the format lets it
//! be written from front to end.

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

/// What the disk's size must be a multiple of, bytes.
const GRAIN: u64 = 1 << 20;

/// A format of a disk image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Format {
    /// The disk itself; every build makes it.
    Raw,
    /// The disk, compressed by zstd.
    RawZst,
    /// QEMU, Proxmox, OpenStack.
    Qcow2,
    /// Azure, Hyper-V: a fixed virtual hard disk.
    Vhd,
    /// VMware: a stream-optimized virtual machine disk.
    Vmdk,
    /// VMware, VirtualBox: a virtual machine with its disk.
    Ova,
    /// Google Compute Engine: a tar archive, compressed by gzip.
    Gce,
}

impl Format {
    /// All of them.
    pub const ALL: [Format; 7] = [
        Format::Raw,
        Format::RawZst,
        Format::Qcow2,
        Format::Vhd,
        Format::Vmdk,
        Format::Ova,
        Format::Gce,
    ];

    /// As the command line has it.
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

    /// What the artifact's name has after `ID_VERSION.`.
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
        // What a USB stick or a disk is written with is the raw disk.
        let text = if text == "usb" { "raw" } else { text };
        let known = || Format::ALL.map(Format::name).join(", ");
        Format::ALL
            .into_iter()
            .find(|format| format.name() == text)
            .ok_or_else(|| format!("{text:?} is no format (use some of {}, or uki)", known()))
    }
}

/// What a format says about the image beside its content.
#[derive(Debug, Clone)]
pub struct Facts {
    /// IMAGE_ID.
    pub id: String,
    /// IMAGE_VERSION.
    pub version: String,
    /// Tells this disk from all others, other versions of the image too.
    pub guid: Guid,
    /// The time of making that is written down, seconds since 1970.
    pub epoch: i64,
}

impl Facts {
    fn stem(&self) -> String {
        format!("{}_{}", self.id, self.version)
    }
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WrittenFile {
    /// Bytes.
    pub size: u64,
    /// SHA-256.
    pub sha256: [u8; 32],
}

/// Writes the disk `raw` in a format into the empty file `out`, on up to `jobs` threads. `out` must
/// be readable too.
pub fn write(
    format: Format,
    raw: &File,
    facts: &Facts,
    out: &File,
    jobs: usize,
) -> Result<WrittenFile> {
    let make = match format {
        Format::Raw => return Err(Error::new("the raw disk is there already")),
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
            "{}: the raw disk has {size} bytes, which is no whole number of MiB",
            what()
        ))
        .hint("give a finished disk: its size, as `adamant build` makes it, is always one"));
    }
    make(Raw { file: raw, size }, facts, out, jobs).context(what)
}
