//! The unified kernel image (UKI, UAPI.5): systemd-stub, kernel, initramfs, kernel command line and
//! os-release in one EFI program. Firmware starts it, and one signature covers all of it.
//!
//! The same parts give the same bytes. Stub and kernel are hostile input.

pub mod measure;
pub mod pe;
pub mod profile;
mod sbat;

use crate::error::{Context, Error, Result};
use pe::PeImage;

/// Identifies systemd-stub in its section `.sdmagic`.
const STUB: &[u8] = b" systemd-stub ";

/// The parts of a unified kernel image.
#[derive(Debug, Clone, Copy)]
pub struct UkiParts<'a> {
    /// systemd-stub, an EFI program.
    pub stub: &'a [u8],
    /// Kernel image with its own EFI stub.
    pub linux: &'a [u8],
    /// The initramfs.
    pub initrd: &'a [u8],
    /// Kernel command line, without a line end.
    pub cmdline: &'a str,
    /// os-release(5). Boot loaders sort by its IMAGE_ID and IMAGE_VERSION.
    pub os_release: &'a [u8],
    /// `uname -r`.
    pub release: &'a str,
    /// Early microcode: an uncompressed cpio.
    pub microcode: Option<&'a [u8]>,
    /// Public key (PEM) of the PCR signatures.
    pub pcr_public_key: Option<&'a [u8]>,
    /// Kernel command line of the debug profile, if there is one.
    pub debug: Option<&'a str>,
}

/// Composes the unsigned image.
pub fn compose(parts: &UkiParts) -> Result<PeImage> {
    let mut image = PeImage::parse("the stub", parts.stub)
        .map_err(|e| e.hint("give systemd's linuxx64.efi.stub (Debian: systemd-boot-efi)"))?;
    // systemd-boot has this section too, with its own name.
    let is_stub = image.section(".sdmagic").is_some_and(|section| {
        section
            .data()
            .windows(STUB.len())
            .any(|window| window == STUB)
    });
    if !is_stub || image.section(".linux").is_some() || !image.certificates().is_empty() {
        let what = match (image.section(".linux"), is_stub) {
            (Some(_), _) => "it holds a kernel already",
            (None, false) => "its .sdmagic does not name systemd-stub",
            (None, true) => "it is signed",
        };
        return Err(Error::new(format!("the stub is not systemd's: {what}"))
            .hint("give systemd's linuxx64.efi.stub (Debian: systemd-boot-efi)"));
    }
    let linux = PeImage::parse("the kernel", parts.linux)
        .map_err(|e| e.hint("use a kernel with CONFIG_EFI_STUB=y, for example Debian's"))?;
    if !linux.is_efi_application() {
        return Err(Error::new("the kernel is not an EFI program")
            .hint("use a kernel with CONFIG_EFI_STUB=y, for example Debian's"));
    }
    if !linux.is_nx_compatible() {
        // Firmware that requires the flag would otherwise start a kernel that can't run with it.
        image.clear_nx_compatible();
    }
    let sbat = sbat::merge(&image, &linux).context(|| "SBAT")?;
    match image.room(".sbat") {
        None => image.add(".sbat", sbat.into_bytes(), false)?,
        Some(room) if sbat.len() as u64 <= room => image.replace(".sbat", sbat.into_bytes())?,
        // There is no room. The stub's own lines stay, as with stubs before systemd 253.
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
    // The large sections come last. The kernel is code because a stub may run it in place.
    image.add(".linux", parts.linux.to_vec(), true)?;
    image.add(".initrd", parts.initrd.to_vec(), false)?;
    if let Some(cmdline) = parts.debug {
        profile::add_debug(&mut image, cmdline, parts.os_release)?;
    }
    Ok(image)
}
