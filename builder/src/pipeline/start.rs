//! What firmware starts: boot loader and unified kernel image, from the image's own packages or
//! from the definition's paths.

use std::path::Path;

use super::signers::{self, Signers};
use crate::definition::Definition;
use crate::error::{Context, Error, Result};
use crate::initramfs::{ImageKernel, microcode};
use crate::io::bounded;
use crate::sign::{authenticode, pcr};
use crate::term::output::Output;
use crate::tree::Tree;
use crate::uki::{self, UkiParts, pe};

const STUB: &str = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub";
const LOADER: &str = "/usr/lib/systemd/boot/efi/systemd-bootx64.efi";
const OS_RELEASE: &str = "/usr/lib/os-release";
/// Stub and boot loader have some 150 KB.
const PROGRAM_LIMIT: u64 = 16 << 20;
const OS_RELEASE_LIMIT: u64 = 64 << 10;

/// The programs that firmware starts, unsigned as they come.
pub struct Programs {
    /// systemd's stub.
    pub stub: Vec<u8>,
    /// systemd's boot loader.
    pub loader: Vec<u8>,
}

/// Both programs; `None` where the image has neither and the definition names none.
pub fn programs(tree: &Tree, definition: &Definition, output: &Output) -> Result<Option<Programs>> {
    let stub = program(tree, definition.boot.stub.as_deref(), STUB)?;
    let loader = program(tree, definition.boot.loader.as_deref(), LOADER)?;
    match (stub, loader) {
        (Some(stub), Some(loader)) => {
            pe::PeImage::parse("the boot loader", &loader).map_err(|e| {
                e.hint("give systemd's systemd-bootx64.efi (Debian: systemd-boot-efi)")
            })?;
            Ok(Some(Programs { stub, loader }))
        }
        (None, None) => {
            let what = "neither systemd's stub nor its boot loader is in the image: firmware can't start this disk, `adamant boot` and network boot can";
            output.warn(
                what,
                Some("add the package systemd-boot-efi, or write boot.stub and boot.loader"),
            );
            Ok(None)
        }
        (stub, _) => {
            let (there, missing) = if stub.is_some() {
                ("stub", "loader")
            } else {
                ("loader", "stub")
            };
            Err(Error::new(format!(
                "there is systemd's {there}, but boot.{missing} is missing"
            ))
            .hint("both are in Debian's package systemd-boot-efi"))
        }
    }
}

fn program(tree: &Tree, given: Option<&Path>, own: &str) -> Result<Option<Vec<u8>>> {
    match given {
        Some(path) => bounded::read(path, PROGRAM_LIMIT)
            .map(Some)
            .context(|| path.display().to_string()),
        None => tree
            .file_content(own.as_bytes())
            .map(|content| content.to_vec(PROGRAM_LIMIT))
            .transpose()
            .context(|| own.to_owned()),
    }
}

/// What the kernel is started with.
#[derive(Debug, Clone, Copy)]
pub struct Started<'a> {
    /// The initramfs.
    pub initrd: &'a [u8],
    /// The command line, without a line end.
    pub cmdline: &'a str,
    /// Public key (PEM) that signs values of PCR 11.
    pub pcr_public_key: Option<&'a [u8]>,
    /// The command line of the debug profile.
    pub debug: Option<&'a str>,
}

/// The unified kernel image, unsigned.
pub fn unified(
    tree: &Tree,
    definition: &Definition,
    kernel: &ImageKernel,
    stub: &[u8],
    linux: &[u8],
    started: Started,
) -> Result<pe::PeImage> {
    let Started {
        initrd,
        cmdline,
        pcr_public_key,
        debug,
    } = started;
    let os_release = tree
        .file_content(OS_RELEASE.as_bytes())
        .map(|content| content.to_vec(OS_RELEASE_LIMIT))
        .transpose()
        .context(|| OS_RELEASE)?;
    let microcode = if definition.boot.microcode {
        Some(microcode::early_archive(tree)?)
    } else {
        None
    };
    let parts = UkiParts {
        stub,
        linux,
        initrd,
        cmdline,
        os_release: &os_release.unwrap_or_default(),
        release: &kernel.release,
        microcode: microcode.as_deref(),
        pcr_public_key,
        debug,
    };
    uki::compose(&parts)
}

/// Boot loader and image, signed where there is a key: the values of PCR 11 first, because the
/// signature over the whole covers them.
pub fn sign(
    loader: Vec<u8>,
    mut image: pe::PeImage,
    signers: &Signers,
) -> Result<(Vec<u8>, Vec<u8>)> {
    if let Some(signer) = signers::signer(&signers.pcr) {
        let signature = pcr::sign(signer, &image)?;
        uki::profile::add_shared(&mut image, ".pcrsig", signature)?;
    }
    let image = image.write()?;
    match signers::signer(&signers.secure_boot) {
        None => Ok((loader, image)),
        Some(signer) => Ok((
            authenticode::sign(signer, "the boot loader", &loader)?,
            authenticode::sign(signer, "the unified kernel image", &image)?,
        )),
    }
}
