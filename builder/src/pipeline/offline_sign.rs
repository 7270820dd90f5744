//! `adamant sign`: signs the artifacts of `adamant build --unsigned`, for example on another
//! machine that has the keys. The bytes are the same as with signing during the build.

use std::fs::File;
use std::path::Path;

use adamant_contract::hex;
use adamant_contract::root_hash::RootHash;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::artifacts::{Artifacts, Clock};
use super::machine::{self, MachineParts, UnsignedPrograms};
use super::signers::{self, Signers};
use super::staging::{Replace, Staging};
use crate::commands::selection::{self, Selection};
use crate::definition::Sign;
use crate::disk::DiskLayout;
use crate::error::{Context, Error, Result};
use crate::format::Format;
use crate::io::bounded;
use crate::manifest::{self, Manifest};
use crate::term::output::Output;
use crate::uki::pe::{self, PeImage};

/// Signs every unsigned image of an output directory, or the one that `target` selects.
pub fn sign_output_folder(target: &Path, sign: &Sign, jobs: usize, output: &Output) -> Result<()> {
    let signers = signers::open(sign, false)?;
    let mut signed = Vec::new();
    for Selection {
        folder, manifest, ..
    } in selection::resolve_all(target)?
    {
        let stem = manifest.image.stem();
        if manifest.signatures.iter().all(|signature| signature.signed) {
            output.say(format_args!("{stem}: nothing to sign"));
            continue;
        }
        require_same_certificates(&stem, &manifest, &signers)?;
        sign_image(&folder, manifest, &signers, jobs, output)?;
        output.say(format_args!("{stem}: signed"));
        signed.push(stem);
    }
    output.document(&json!({ "signed": signed }))
}

/// The image contains its certificates, so another key would sign an image that nothing trusts.
fn require_same_certificates(stem: &str, manifest: &Manifest, signers: &Signers) -> Result<()> {
    let available = signers::records(signers);
    for wanted in &manifest.signatures {
        let found = available
            .iter()
            .find(|signature| signature.purpose == wanted.purpose);
        if found.is_none_or(|found| found.certificate != wanted.certificate) {
            return Err(Error::new(format!(
                "{stem}: it was built for another {} certificate, {}",
                wanted.purpose,
                &wanted.certificate[..16.min(wanted.certificate.len())]
            ))
            .hint("pass the keys of the certificates that it was built with, or build it again with these keys"));
        }
    }
    Ok(())
}

/// The artifacts of an unsigned image.
struct UnsignedImage<'a> {
    folder: &'a Path,
    stem: String,
    manifest: Manifest,
}

impl UnsignedImage<'_> {
    fn open(&self, kind: &str) -> Result<File> {
        let path = self.folder.join(format!("{}.{kind}", self.stem));
        File::open(&path).context(|| path.display().to_string())
    }

    /// Reads an artifact and compares it with the manifest.
    fn read(&self, kind: &str) -> Result<Vec<u8>> {
        let name = format!("{}.{kind}", self.stem);
        let path = self.folder.join(&name);
        let bytes = bounded::read(&path, pe::LIMIT).context(|| path.display().to_string())?;
        require_digest(&self.manifest, &name, &Sha256::digest(&bytes).into())?;
        Ok(bytes)
    }

    fn programs(&self) -> Result<Option<UnsignedPrograms>> {
        if self.manifest.artifact(".efi").is_none() {
            return Ok(None);
        }
        Ok(Some(UnsignedPrograms {
            loader: self.read("loader.efi")?,
            uki: PeImage::parse(&format!("{}.efi", self.stem), &self.read("efi")?)?,
        }))
    }

    fn layout(&self) -> Result<Option<DiskLayout>> {
        if self.manifest.artifact(".raw").is_none() {
            return Ok(None);
        }
        let path = self.folder.join(format!("{}.raw", self.stem));
        DiskLayout::read_from(&self.open("raw")?)
            .map(Some)
            .context(|| path.display().to_string())
    }

    /// The disk's formats besides raw.
    fn formats(&self) -> Vec<Format> {
        let has = |format: &Format| {
            let name = format!("{}.{}", self.stem, format.suffix());
            let artifacts = &self.manifest.artifacts;
            artifacts.iter().any(|artifact| artifact.name == name)
        };
        Format::ALL
            .into_iter()
            .filter(|format| *format != Format::Raw && has(format))
            .collect()
    }
}

fn sign_image(
    folder: &Path,
    manifest: Manifest,
    signers: &Signers,
    jobs: usize,
    output: &Output,
) -> Result<()> {
    let clock = Clock::new(output);
    let mut staging = Staging::open(folder)?;
    let unsigned = UnsignedImage {
        folder,
        stem: manifest.image.stem(),
        manifest,
    };
    let stem = &unsigned.stem;
    let hash: RootHash = unsigned
        .manifest
        .root
        .hash
        .parse()
        .map_err(|why| Error::new(format!("{stem}: root hash: {why}")))?;
    let programs = unsigned.programs()?;
    let (root, hash_tree) = (unsigned.open("root.erofs")?, unsigned.open("root.verity")?);
    let layout = unsigned.layout()?;
    let parts = MachineParts {
        image: &unsigned.manifest.image,
        hash,
        programs,
        root: &root,
        hash_tree: &hash_tree,
        layout: layout.as_ref(),
        formats: &unsigned.formats(),
        epoch: unsigned.manifest.epoch,
    };
    let mut artifacts = Artifacts::new(&mut staging, stem);
    let digest = machine::write_machine_image(parts, signers, &mut artifacts, &clock, jobs)?;
    let mut list = artifacts.list;
    require_digest(&unsigned.manifest, &format!("{stem}.root.erofs"), &digest)?;
    let unchanged: Vec<_> = unsigned
        .manifest
        .artifacts
        .iter()
        .filter(|artifact| !list.iter().any(|new| new.name == artifact.name))
        .cloned()
        .collect();
    for artifact in &unchanged {
        staging.keep(&artifact.name);
    }
    list.extend(unchanged);
    list.sort_by(|a, b| a.name.cmp(&b.name));
    let signed = Manifest {
        artifacts: list,
        signatures: signers::records(signers),
        ..unsigned.manifest
    };
    staging.put(&format!("{stem}{}", manifest::SUFFIX), &signed.to_json()?)?;
    clock.time("publish", || staging.publish(&signed, Replace::SameVersion))
}

/// Refuses to sign an artifact that differs from the one that was built.
fn require_digest(manifest: &Manifest, name: &str, digest: &[u8; 32]) -> Result<()> {
    let artifact = manifest
        .artifacts
        .iter()
        .find(|artifact| artifact.name == name);
    match artifact {
        Some(artifact) if artifact.sha256.as_ref() == Some(&hex::encode(digest)) => Ok(()),
        _ => Err(Error::new(format!(
            "{name} is not the file that its manifest describes"
        ))
        .hint("copy the output directory again from an undamaged copy, or build again")),
    }
}
