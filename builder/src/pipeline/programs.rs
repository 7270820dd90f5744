//! The programs that firmware starts: boot loader and unified kernel image (UKI), from the image's
//! own packages or from the definition's paths.

use std::path::Path;

use super::signers::{self, Signers};
use crate::definition::Definition;
use crate::error::{Context, Error, Result};
use crate::initramfs::{ImageKernel, microcode};
use crate::io::bounded;
use crate::sign::{authenticode, pcr};
use crate::term::output::Output;
use crate::tree::Tree;
use crate::uki::{self, UkiParts, pe::PeImage};

const STUB: &str = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub";
const LOADER: &str = "/usr/lib/systemd/boot/efi/systemd-bootx64.efi";
const OS_RELEASE: &str = "/usr/lib/os-release";
/// Largest stub or boot loader, bytes; systemd's have about 150 KB.
const PROGRAM_LIMIT: u64 = 16 << 20;
const OS_RELEASE_LIMIT: u64 = 64 << 10;

/// systemd's stub and boot loader, as the image ships them.
pub struct SystemdPrograms {
    /// The stub, which becomes the UKI.
    pub stub: Vec<u8>,
    /// The boot loader.
    pub loader: Vec<u8>,
}

/// Boot loader and UKI as bytes, signed if there is a key.
pub struct SignedPrograms {
    /// The boot loader.
    pub loader: Vec<u8>,
    /// The unified kernel image.
    pub uki: Vec<u8>,
}

/// Finds both programs. The result is `None` if the image has neither and the definition names
/// none.
pub fn find_programs(
    tree: &Tree,
    definition: &Definition,
    output: &Output,
) -> Result<Option<SystemdPrograms>> {
    let stub = read_program(tree, definition.boot.stub.as_deref(), STUB)?;
    let loader = read_program(tree, definition.boot.loader.as_deref(), LOADER)?;
    let missing = match (stub, loader) {
        (Some(stub), Some(loader)) => {
            PeImage::parse("the boot loader", &loader).map_err(|error| {
                error.hint("name systemd's systemd-bootx64.efi (Debian: systemd-boot-efi)")
            })?;
            return Ok(Some(SystemdPrograms { stub, loader }));
        }
        (None, None) => {
            output.warn(
                "the image contains neither systemd's stub nor its boot loader: firmware can't start this disk, but `adamant boot` and network boot can",
                Some("add the package systemd-boot-efi, or write boot.stub and boot.loader"),
            );
            return Ok(None);
        }
        (Some(_), None) => ["stub", "loader"],
        (None, Some(_)) => ["loader", "stub"],
    };
    let [found, missing] = missing;
    Err(Error::new(format!(
        "the image has systemd's {found}, but boot.{missing} is missing"
    ))
    .hint("Debian's package systemd-boot-efi has both"))
}

fn read_program(tree: &Tree, given: Option<&Path>, default: &str) -> Result<Option<Vec<u8>>> {
    match given {
        Some(path) => bounded::read(path, PROGRAM_LIMIT)
            .map(Some)
            .context(|| path.display().to_string()),
        None => tree
            .file_content(default.as_bytes())
            .map(|content| content.to_vec(PROGRAM_LIMIT))
            .transpose()
            .context(|| default.to_owned()),
    }
}

/// The parts of a UKI that the pipeline makes.
#[derive(Debug, Clone, Copy)]
pub struct KernelPayload<'a> {
    /// The kernel image.
    pub linux: &'a [u8],
    /// The initramfs.
    pub initrd: &'a [u8],
    /// The kernel command line, without a line end.
    pub cmdline: &'a str,
    /// The command line of the debug profile.
    pub debug_cmdline: Option<&'a str>,
    /// The public key (PEM) that verifies values of PCR 11.
    pub pcr_public_key: Option<&'a [u8]>,
}

/// Composes the UKI, unsigned.
pub fn compose_uki(
    tree: &Tree,
    definition: &Definition,
    kernel: &ImageKernel,
    stub: &[u8],
    payload: KernelPayload,
) -> Result<PeImage> {
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
    uki::compose(&UkiParts {
        stub,
        linux: payload.linux,
        initrd: payload.initrd,
        cmdline: payload.cmdline,
        os_release: &os_release.unwrap_or_default(),
        release: &kernel.release,
        microcode: microcode.as_deref(),
        pcr_public_key: payload.pcr_public_key,
        debug: payload.debug_cmdline,
    })
}

/// Signs boot loader and UKI where there are keys. The values of PCR 11 are signed first, because
/// the UKI's own signature covers them.
pub fn sign(loader: Vec<u8>, mut uki: PeImage, signers: &Signers) -> Result<SignedPrograms> {
    if let Some(signer) = signers::signer(&signers.pcr) {
        let signature = pcr::sign(signer, &uki)?;
        uki::profile::add_shared(&mut uki, ".pcrsig", signature)?;
    }
    let uki = uki.write()?;
    match signers::signer(&signers.secure_boot) {
        None => Ok(SignedPrograms { loader, uki }),
        Some(signer) => Ok(SignedPrograms {
            loader: authenticode::sign(signer, "the boot loader", &loader)?,
            uki: authenticode::sign(signer, "the unified kernel image", &uki)?,
        }),
    }
}
