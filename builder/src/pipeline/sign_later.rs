//! `adamant sign`: signs what `adamant build --unsigned` made, on another machine perhaps, where
//! the keys are. The result is what signing at once would have given, byte for byte.

use std::fs::File;
use std::path::Path;

use adamant_contract::hex;
use adamant_contract::root_hash::RootHash;
use serde_json::json;

use super::artifacts::{Artifacts, Clock};
use super::signers::{self, Signers};
use super::staging::{Replace, Staging};
use super::{machine, signatures};
use crate::commands::selection::{self, Selection};
use crate::definition::Sign;
use crate::disk::DiskLayout;
use crate::error::{Context, Error, Result};
use crate::format::Format;
use crate::io::bounded;
use crate::manifest::{self, Manifest};
use crate::term::output::Output;
use crate::uki::pe;

/// Signs every image of an output folder that is to be signed, or the one that `target` selects.
pub fn run(target: &Path, sign: &Sign, jobs: usize, output: &Output) -> Result<()> {
    let signers = signers::open(sign, false)?;
    let mut signed = Vec::new();
    for Selection {
        folder, manifest, ..
    } in selection::resolve_all(target)?
    {
        let stem = manifest.image.stem();
        if manifest.signatures.is_empty()
            || manifest.signatures.iter().all(|signature| signature.signed)
        {
            output.say(format_args!("{stem}: nothing to be signed"));
            continue;
        }
        same_certificates(&stem, &manifest, &signers)?;
        one(&folder, &stem, manifest, &signers, jobs, output)?;
        output.say(format_args!("{stem}: signed"));
        signed.push(stem);
    }
    output.document(&json!({ "signed": signed }))
}

/// The certificates decided about the image's bytes: signing for others would give an image that
/// nothing trusts.
fn same_certificates(stem: &str, manifest: &Manifest, signers: &Signers) -> Result<()> {
    let mine = signatures(signers);
    for wanted in &manifest.signatures {
        let found = mine
            .iter()
            .find(|signature| signature.purpose == wanted.purpose);
        if found.is_none_or(|found| found.certificate != wanted.certificate) {
            return Err(Error::new(format!(
                "{stem}: it was built for another {} certificate, {}",
                wanted.purpose,
                &wanted.certificate[..16.min(wanted.certificate.len())]
            ))
            .hint("give the keys that belong to the certificates it was built with, or build it again with these"));
        }
    }
    Ok(())
}

fn one(
    out: &Path,
    stem: &str,
    old: Manifest,
    signers: &Signers,
    jobs: usize,
    output: &Output,
) -> Result<()> {
    let mut clock = Clock {
        output,
        stages: Vec::new(),
    };
    let mut staging = Staging::open(out)?;
    let path = |kind: &str| out.join(format!("{stem}.{kind}"));
    let open = |kind: &str| File::open(path(kind)).context(|| path(kind).display().to_string());
    let small = |kind: &str| -> Result<Vec<u8>> {
        let bytes =
            bounded::read(&path(kind), pe::LIMIT).context(|| path(kind).display().to_string())?;
        same(
            &old,
            &format!("{stem}.{kind}"),
            &<sha2::Sha256 as sha2::Digest>::digest(&bytes).into(),
        )?;
        Ok(bytes)
    };
    let hash: RootHash = old
        .root
        .hash
        .parse()
        .map_err(|why| Error::new(format!("{stem}: root hash: {why}")))?;
    let programs = match old.artifact(".efi") {
        None => None,
        Some(_) => Some((
            small("loader.efi")?,
            pe::PeImage::parse(&format!("{stem}.efi"), &small("efi")?)?,
        )),
    };
    let (root, tree) = (open("root.erofs")?, open("root.verity")?);
    let layout = match old.artifact(".raw") {
        None => None,
        Some(_) => Some(
            DiskLayout::read_from(&open("raw")?).context(|| path("raw").display().to_string())?,
        ),
    };
    let formats: Vec<Format> = Format::ALL
        .into_iter()
        .filter(|format| {
            *format != Format::Raw
                && old
                    .artifacts
                    .iter()
                    .any(|artifact| artifact.name == format!("{stem}.{}", format.suffix()))
        })
        .collect();
    let mut artifacts = Artifacts {
        staging: &mut staging,
        stem,
        list: Vec::new(),
    };
    let parts = machine::Parts {
        image: &old.image,
        hash,
        programs,
        root: &root,
        tree: &tree,
        layout: layout.as_ref(),
        formats: &formats,
        epoch: old.epoch,
    };
    let digest = machine::make(parts, signers, &mut artifacts, &mut clock, jobs)?;
    same(&old, &format!("{stem}.root.erofs"), &digest)?;
    let mut list = artifacts.list;
    let unchanged: Vec<_> = old
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
    let manifest = Manifest {
        artifacts: list,
        signatures: signatures(signers),
        ..old
    };
    staging.put(&format!("{stem}{}", manifest::SUFFIX), &manifest.to_json()?)?;
    clock.time("publish", || {
        staging.publish(&manifest, Replace::SameVersion)
    })
}

/// Nothing is signed that is not what was built.
fn same(manifest: &Manifest, name: &str, digest: &[u8; 32]) -> Result<()> {
    match manifest
        .artifacts
        .iter()
        .find(|artifact| artifact.name == name)
    {
        Some(artifact) if artifact.sha256.as_ref() == Some(&hex::encode(digest)) => Ok(()),
        _ => Err(Error::new(format!("{name} is not what its manifest says"))
            .hint("copy the output folder again from where it is whole, or build again")),
    }
}
