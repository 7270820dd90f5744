//! The unified kernel image (UAPI.5): systemd's stub with kernel, initramfs, command line and what
//! they are called, in one EFI program that firmware starts and whose one signature covers it all.
//!
//! It promises that the same parts give the same bytes. It trusts neither stub nor kernel to be
//! what their names say.

pub mod measure;
pub mod pe;
pub mod profile;
mod sbat;

use crate::error::{Context, Error, Result};
use pe::PeImage;

/// What systemd's stub calls itself.
const STUB: &[u8] = b" systemd-stub ";

/// What a unified kernel image is made of.
#[derive(Debug, Clone, Copy)]
pub struct UkiParts<'a> {
    /// systemd's stub, an EFI program.
    pub stub: &'a [u8],
    /// Kernel image with an EFI stub of its own.
    pub linux: &'a [u8],
    /// The initramfs.
    pub initrd: &'a [u8],
    /// Kernel command line, without a line end.
    pub cmdline: &'a str,
    /// os-release(5), with IMAGE_ID and IMAGE_VERSION, which boot loaders sort by.
    pub os_release: &'a [u8],
    /// `uname -r`.
    pub release: &'a str,
    /// Early microcode: an uncompressed cpio.
    pub microcode: Option<&'a [u8]>,
    /// Public key (PEM) that PCR signatures are made with.
    pub pcr_public_key: Option<&'a [u8]>,
    /// The command line of a second profile, for looking for mistakes.
    pub debug: Option<&'a str>,
}

/// Puts the image together, unsigned.
pub fn compose(parts: &UkiParts) -> Result<PeImage> {
    let mut image = PeImage::parse("the stub", parts.stub)
        .map_err(|e| e.hint("give systemd's linuxx64.efi.stub (Debian: systemd-boot-efi)"))?;
    // The boot loader has the section too: `#### LoaderInfo: systemd-boot 257 ####`.
    let says_stub = image.section(".sdmagic").is_some_and(|section| {
        section
            .data()
            .windows(STUB.len())
            .any(|window| window == STUB)
    });
    if !says_stub || image.section(".linux").is_some() || !image.certificates().is_empty() {
        let what = match (image.section(".linux"), says_stub) {
            (Some(_), _) => "it holds a kernel already",
            (None, false) => "it does not say systemd-stub of itself",
            (None, true) => "it is signed",
        };
        return Err(Error::new(format!("the stub is not systemd's: {what}"))
            .hint("give systemd's linuxx64.efi.stub (Debian: systemd-boot-efi)"));
    }
    let linux = PeImage::parse("the kernel", parts.linux)
        .map_err(|e| e.hint("it needs CONFIG_EFI_STUB=y, as Debian's kernels have it"))?;
    if !linux.is_efi_application() {
        return Err(Error::new("the kernel is no EFI program")
            .hint("it needs CONFIG_EFI_STUB=y, as Debian's kernels have it"));
    }
    if !linux.is_nx_compatible() {
        // Firmware that insists on the flag would otherwise start what can't run that way.
        image.clear_nx_compatible();
    }
    let sbat = sbat::merge(&image, &linux).context(|| "SBAT")?;
    match image.room(".sbat") {
        None => image.add(".sbat", sbat.into_bytes(), false)?,
        Some(room) if sbat.len() as u64 <= room => image.replace(".sbat", sbat.into_bytes())?,
        // The stub's own lines stay, as in stubs before systemd 253: there is no room for more.
        Some(_) => {}
    }
    image.add(".osrel", parts.os_release.to_vec(), false)?;
    image.add(".cmdline", parts.cmdline.as_bytes().to_vec(), false)?;
    image.add(".uname", parts.release.as_bytes().to_vec(), false)?;
    if let Some(key) = parts.pcr_public_key {
        image.add(".pcrpkey", key.to_vec(), false)?;
    }
    if let Some(microcode) = parts.microcode {
        image.add(".ucode", microcode.to_vec(), false)?;
    }
    // The big ones last, the kernel before all: a stub may run it where it lies.
    image.add(".linux", parts.linux.to_vec(), true)?;
    image.add(".initrd", parts.initrd.to_vec(), false)?;
    if let Some(cmdline) = parts.debug {
        profile::add_debug(&mut image, cmdline, parts.os_release)?;
    }
    Ok(image)
}
