//! The stage [`Started`]: all artifacts that boot the root are written and signed.

use adamant_contract::hex;
use adamant_contract::root_hash::RootHash;

use super::artifacts::Artifacts;
use super::cmdline::with_root_hash;
use super::content::BootFiles;
use super::machine::{self, MachineParts, UnsignedPrograms};
use super::programs::{self, KernelPayload};
use super::root::RootWritten;
use super::stages::BuildContext;
use super::staging::Staging;
use crate::disk::{DiskLayout, PartitionSizes};
use crate::error::{Context, Error, Result};
use crate::manifest::{Artifact, ImageVersion, Measurement};
use crate::source::dpkg;
use crate::tree::Tree;
use crate::uki;

/// Number of packages listed if the image does not fit.
const LISTED_PACKAGES: usize = 5;

/// Fifth stage: every artifact but the manifest is complete.
pub(super) struct Started {
    pub written: RootWritten,
    /// In the order of their names.
    pub artifacts: Vec<Artifact>,
    pub measurements: Measurements,
}

/// Predicted values of PCR 11; empty without a UKI.
#[derive(Default)]
pub(super) struct Measurements {
    pub regular: Vec<Measurement>,
    pub debug: Vec<Measurement>,
}

/// A command line with its root hash, for each profile of the UKI.
struct CommandLines {
    regular: String,
    debug: Option<String>,
}

impl RootWritten {
    /// Writes kernel, initramfs, UKI and disk, and signs them.
    pub fn write_boot_artifacts(
        self,
        context: &BuildContext,
        staging: &mut Staging,
    ) -> Result<Started> {
        let mut artifacts = Artifacts::new(staging, &context.stem);
        let (root_sha256, measurements) = match &self.checked.boot_files {
            Some(boot_files) => self.write_machine(boot_files, context, &mut artifacts)?,
            None => (self.digest(context)?, Measurements::default()),
        };
        let root = &self.root;
        artifacts.note("root.erofs", root.root_bytes(), root_sha256);
        artifacts.note("root.verity", root.hash_tree_bytes(), root.hash_tree_sha256);
        artifacts.put("roothash", format!("{}\n", root.hash).as_bytes())?;
        let mut artifacts = artifacts.list;
        artifacts.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Started {
            written: self,
            artifacts,
            measurements,
        })
    }

    fn digest(&self, context: &BuildContext) -> Result<[u8; 32]> {
        context.clock.time("hash", || {
            machine::digest(&self.root_file).context(|| format!("{}.root.erofs", context.stem))
        })
    }

    /// Writes all artifacts that boot the root. Returns the SHA-256 of the root, which is read on
    /// the way, with the predicted measurements.
    fn write_machine(
        &self,
        boot_files: &BootFiles,
        context: &BuildContext,
        artifacts: &mut Artifacts,
    ) -> Result<([u8; 32], Measurements)> {
        let (definition, options) = (context.definition, context.options);
        let content = &self.checked.content;
        let cmdline = with_root_hash(&self.root.hash, &boot_files.arguments.regular)?;
        let linux = boot_files.kernel.read_image(&content.tree)?;
        artifacts.put("vmlinuz", &linux)?;
        artifacts.put("initrd", &boot_files.initramfs.bytes)?;
        artifacts.put("cmdline", format!("{cmdline}\n").as_bytes())?;
        let programs = self.unsigned_programs(boot_files, &linux, cmdline, context)?;
        let measurements = programs
            .as_ref()
            .map(|programs| Measurements {
                regular: measurements(&uki::measure::phases(&programs.uki)),
                debug: measurements(&uki::profile::debug_phases(&programs.uki).unwrap_or_default()),
            })
            .unwrap_or_default();
        let sizes = PartitionSizes {
            root: self.root.root_bytes(),
            hash_tree: self.root.hash_tree_bytes(),
            esp: programs.is_some(),
            signature: context.signers.verity.is_some(),
        };
        let layout = options
            .disk
            .then(|| disk_layout(context, &self.root.hash, sizes, &content.tree))
            .transpose()?;
        let image = ImageVersion {
            id: definition.id.clone(),
            version: definition.version.clone(),
        };
        let parts = MachineParts {
            image: &image,
            hash: self.root.hash,
            programs,
            root: &self.root_file,
            hash_tree: &self.hash_tree_file,
            layout: layout.as_ref(),
            formats: &options.formats,
            epoch: content.epoch,
        };
        let root_sha256 = machine::write_machine_image(
            parts,
            &context.signers,
            artifacts,
            &context.clock,
            options.jobs,
        )?;
        Ok((root_sha256, measurements))
    }

    /// The boot loader and the UKI, unsigned; `None` if the image has no systemd stub.
    fn unsigned_programs(
        &self,
        boot_files: &BootFiles,
        linux: &[u8],
        cmdline: String,
        context: &BuildContext,
    ) -> Result<Option<UnsignedPrograms>> {
        let tree = &self.checked.content.tree;
        let Some(found) = programs::find_programs(tree, context.definition, context.output)? else {
            if context.options.disk {
                return Ok(None);
            }
            return Err(
                Error::new("--format uki: the image does not contain systemd's stub")
                    .hint("add the package systemd-boot-efi, or write boot.stub and boot.loader"),
            );
        };
        let debug = boot_files.arguments.debug.as_deref();
        let cmdlines = CommandLines {
            regular: cmdline,
            debug: debug
                .map(|debug| with_root_hash(&self.root.hash, debug))
                .transpose()?,
        };
        let pcr_public_key = context
            .signers
            .pcr
            .as_ref()
            .map(|identity| identity.certificate.public_key_pem())
            .transpose()?;
        let payload = KernelPayload {
            linux,
            initrd: &boot_files.initramfs.bytes,
            cmdline: &cmdlines.regular,
            debug_cmdline: cmdlines.debug.as_deref(),
            pcr_public_key: pcr_public_key.as_deref().map(str::as_bytes),
        };
        let kernel = &boot_files.kernel;
        let uki = programs::compose_uki(tree, context.definition, kernel, &found.stub, payload)?;
        Ok(Some(UnsignedPrograms {
            loader: found.loader,
            uki,
        }))
    }
}

fn disk_layout(
    context: &BuildContext,
    hash: &RootHash,
    sizes: PartitionSizes,
    tree: &Tree,
) -> Result<DiskLayout> {
    DiskLayout::new(context.definition, hash, sizes)
        .map_err(|error| name_largest_packages(error, tree))
}

/// Adds the largest packages to the remedy of an error about an image that does not fit.
fn name_largest_packages(error: Error, tree: &Tree) -> Error {
    let Ok(mut packages) = dpkg::installed_sizes(tree, b"/") else {
        return error;
    };
    packages.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let largest: Vec<String> = packages
        .iter()
        .take(LISTED_PACKAGES)
        .map(|(name, kib)| format!("{name} {} MiB", kib >> 10))
        .collect();
    match error.remedy() {
        Some(remedy) if !largest.is_empty() => {
            let remedy = format!(
                "{remedy}; the largest packages, before compression: {}",
                largest.join(", ")
            );
            error.hint(remedy)
        }
        _ => error,
    }
}

fn measurements(phases: &[(String, [u8; 32])]) -> Vec<Measurement> {
    phases
        .iter()
        .map(|(phases, value)| Measurement {
            phases: phases.clone(),
            sha256: hex::encode(value),
        })
        .collect()
}
