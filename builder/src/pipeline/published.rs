//! The last stage, [`Published`]: the manifest is written and OUT has the new image.

use adamant_contract::gpt::Guid;
use adamant_contract::{hex, policy};

use super::compression;
use super::content::RootContent;
use super::root::RootWritten;
use super::signers;
use super::stages::BuildContext;
use super::staging::Staging;
use super::started::Started;
use crate::error::{Context, Result};
use crate::manifest::{self, ImageVersion, Manifest};
use crate::rootfs::check::Finding;
use crate::rootfs::scrub::Done;
use crate::rootfs::volumes;
use crate::source::{self, dpkg};

/// Sixth stage: OUT has the new image.
pub(super) struct Published {
    pub manifest: Manifest,
    pub scrubbed: Vec<Done>,
    pub findings: Vec<Finding>,
    /// Modules in the initramfs, in load order.
    pub modules: Vec<String>,
}

impl Started {
    /// Writes the manifest and moves all artifacts into OUT.
    pub fn publish(self, context: &BuildContext, mut staging: Staging) -> Result<Published> {
        let manifest = self.manifest(context)?;
        let name = format!("{}{}", context.stem, manifest::SUFFIX);
        staging.put(&name, &manifest.to_json()?)?;
        let RootWritten {
            checked,
            root_file,
            hash_tree_file,
            ..
        } = self.written;
        drop((root_file, hash_tree_file));
        context.clock.time("publish", || {
            staging.publish(&manifest, context.options.replace)
        })?;
        Ok(Published {
            manifest,
            scrubbed: checked.scrubbed,
            findings: checked.findings,
            modules: checked
                .boot_files
                .map(|boot_files| boot_files.initramfs.modules)
                .unwrap_or_default(),
        })
    }

    fn manifest(&self, context: &BuildContext) -> Result<Manifest> {
        let definition = context.definition;
        let checked = &self.written.checked;
        let RootContent {
            tree,
            sources,
            epoch,
        } = &checked.content;
        let kernel = checked.boot_files.as_ref().map(|files| &files.kernel);
        Ok(Manifest {
            version: manifest::VERSION,
            image: ImageVersion {
                id: definition.id.clone(),
                version: definition.version.clone(),
            },
            tool: format!("adamant {}", env!("CARGO_PKG_VERSION")),
            definition: hex::encode(&definition.digest),
            epoch: *epoch,
            root: self.root_record(context),
            kernel: kernel.map(|kernel| kernel.release.clone()),
            pcr11: self.measurements.regular.clone(),
            pcr11_debug: self.measurements.debug.clone(),
            credentials: definition.credentials.accept.clone(),
            signatures: signers::records(&context.signers),
            artifacts: self.artifacts.clone(),
            sources: sources.iter().map(source_record).collect::<Result<_>>()?,
            scrubbed: checked
                .scrubbed
                .iter()
                .filter(|done| !done.paths.is_empty())
                .map(|done| manifest::ScrubCount {
                    rule: done.rule.to_owned(),
                    entries: done.paths.len() as u64,
                })
                .collect(),
            packages: dpkg::installed_packages(tree, b"/")?,
            volumes: definition
                .volumes
                .iter()
                .map(|volume| {
                    let policy::Volume {
                        name,
                        mount,
                        refresh,
                        ..
                    } = volume.policy.clone();
                    let units = volumes::shipped(tree, definition, &mount).units;
                    manifest::VolumeRecord {
                        name,
                        mount,
                        refresh,
                        units,
                    }
                })
                .collect(),
            image_data: volumes::image_data(tree, definition),
        })
    }

    fn root_record(&self, context: &BuildContext) -> manifest::RootRecord {
        let root = &self.written.root;
        manifest::RootRecord {
            hash: root.hash.to_string(),
            salt: hex::encode(&root.superblock.salt),
            verity_uuid: Guid::from_text_order(root.superblock.uuid).to_string(),
            blocks: root.written.blocks,
            tree_blocks: root.hash_tree_blocks,
            compression: compression::name(self.written.checked.compression),
            cluster: context.definition.root.cluster,
            optimize: context.definition.root.optimize,
            reference: context
                .reference
                .as_ref()
                .map(|reference| hex::encode(&reference.sha256)),
            inodes: root.written.inodes,
            content: root.written.content,
        }
    }
}

fn source_record(source: &source::LoadedSource) -> Result<manifest::SourceRecord> {
    let sha256 = source.sha256.wait().context(|| source.name.clone())?;
    Ok(manifest::SourceRecord {
        kind: source.kind.to_owned(),
        name: source.name.clone(),
        sha256: hex::encode(&sha256),
        entries: source.entries,
        suites: source
            .archive
            .as_ref()
            .map(|archive| archive.suites.clone())
            .unwrap_or_default(),
    })
}
