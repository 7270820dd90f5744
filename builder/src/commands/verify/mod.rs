//! `adamant verify`: every hash in the manifest, the whole verity tree, and the file system's
//! structure; what is in the files as well where that is asked for. Nothing is trusted but the root
//! hash and the manifest; what is wrong is named by artifact, block and, in the root, the file it
//! belongs to.

mod bytes;
pub mod disk;
pub mod root;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use adamant_contract::root_hash::RootHash;
use serde::Serialize;

use crate::commands::selection::Selection;
use crate::error::{Context, Error, Result};
use crate::io::part::Part;
use crate::manifest::{Manifest, SUFFIX as MANIFEST};
use crate::term::output::Output;
use crate::term::progress;

const ROOT: &str = ".root.erofs";

/// What was found whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// `ID_VERSION`, or the disk partition's label.
    pub image: String,
    /// Root hash, hexadecimal.
    pub root_hash: String,
    /// Data blocks of 4096 bytes.
    pub blocks: u64,
    /// Inodes of the root file system.
    pub inodes: u64,
    /// Artifacts whose hash is what the manifest says.
    pub artifacts: usize,
}

/// VerifyOptions much is looked at, and by options many.
#[derive(Debug, Clone, Copy)]
pub struct VerifyOptions {
    /// Also unpack every file. The hashes say already that its bytes are those that were built;
    /// this says that a server can read them.
    pub read_data: bool,
    /// Worker threads.
    pub jobs: usize,
}

/// Verifies a build's OUT directory, one image of it by its manifest, a root with its sidecars, or
/// a disk image.
pub fn verify_target(target: &Path, options: VerifyOptions, output: &Output) -> Result<()> {
    let name = target
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    let found = if target.is_dir() || !target.exists() || name.ends_with(MANIFEST) {
        let selection = Selection::resolve(target)?;
        selection.announce(output);
        vec![image(&selection, options)?]
    } else if let Some(stem) = name.strip_suffix(ROOT) {
        vec![root::with_sidecars(target, stem, options)?]
    } else if name.ends_with(".raw") {
        disk::verify(target, options)?
    } else if let Ok(selection) = Selection::resolve(target) {
        vec![image(&selection, options)?]
    } else {
        return Err(Error::new(format!("{}: neither an artifact of a build nor a raw disk image", target.display()))
            .hint("give a build's OUT directory, OUT@VERSION, an artifact, or a disk image whose name ends in .raw"));
    };
    let mut text = String::new();
    for whole in &found {
        let hashes = if whole.artifacts > 0 {
            format!("{} artifacts, ", whole.artifacts)
        } else {
            String::new()
        };
        text += &format!(
            "{}: whole: {hashes}{} blocks, {} inodes, root hash {}\n",
            whole.image, whole.blocks, whole.inodes, whole.root_hash
        );
    }
    output.answer(&text, &serde_json::json!({ "whole": found }))
}

/// One image of an OUT folder, by its manifest.
fn image(selection: &Selection, options: VerifyOptions) -> Result<Verified> {
    let (folder, manifest, path) = (
        &selection.folder,
        &selection.manifest,
        selection.manifest_path(),
    );
    let stem = selection.stem();
    let artifact = |kind: &str| folder.join(format!("{stem}.{kind}"));
    for wanted in ["root.erofs", "root.verity", "roothash"] {
        let name = format!("{stem}.{wanted}");
        if !manifest
            .artifacts
            .iter()
            .any(|artifact| artifact.name == name)
        {
            return Err(Error::new(format!(
                "{}: says nothing about {name}",
                path.display()
            )));
        }
    }
    check_sizes(folder, manifest)?;
    progress::begin("verify");
    // The root and its tree are read twice: block by block, and as artifacts.
    // For the eye alone: who wrote the manifest may say what they like.
    let blocks = manifest
        .root
        .blocks
        .saturating_add(manifest.root.tree_blocks);
    progress::expect(
        manifest
            .artifacts
            .iter()
            .map(|artifact| artifact.size)
            .fold(blocks.saturating_mul(4096), u64::saturating_add),
    );
    let hash: RootHash = manifest
        .root
        .hash
        .parse()
        .map_err(|why| Error::new(format!("{}: root.hash: {why}", path.display())))?;

    // The root first: a bad block there can be named, with its file; a hash only says that
    // something is wrong.
    let whole = root::verify(
        &artifact("root.erofs"),
        &artifact("root.verity"),
        &hash,
        options,
    )?;
    let bad = bytes::mismatched_artifacts(folder, manifest, options.jobs)?;
    if let Some(name) = bad.first() {
        if name.ends_with(".raw") {
            disk::verify(&folder.join(name), options)?;
        }
        return Err(Error::new(format!(
            "{}: not the bytes that the manifest was made from",
            folder.join(name).display()
        ))
        .hint("build the image again"));
    }
    if manifest
        .artifacts
        .iter()
        .any(|artifact| artifact.name == format!("{stem}.cmdline"))
    {
        let cmdline = read_small(&artifact("cmdline"))?;
        let wanted = format!("roothash={hash}");
        if !cmdline.split_whitespace().any(|word| word == wanted) {
            return Err(Error::new(format!(
                "{}: has no {wanted}",
                artifact("cmdline").display()
            )));
        }
    }
    Ok(Verified {
        image: stem,
        artifacts: manifest.artifacts.len(),
        ..whole
    })
}

/// A file of one line.
fn read_small(path: &Path) -> Result<String> {
    let mut text = String::new();
    let what = || format!("{}", path.display());
    File::open(path)
        .context(what)?
        .take(1 << 16)
        .read_to_string(&mut text)
        .context(what)?;
    Ok(text)
}

fn check_sizes(folder: &Path, manifest: &Manifest) -> Result<()> {
    for artifact in &manifest.artifacts {
        let path = folder.join(&artifact.name);
        let meta = std::fs::metadata(&path).context(|| format!("{}", path.display()))?;
        if meta.len() != artifact.size {
            return Err(Error::new(format!(
                "{}: has {} bytes, the manifest says {}",
                path.display(),
                meta.len(),
                artifact.size
            ))
            .hint("build the image again"));
        }
    }
    Ok(())
}

/// All of a file.
fn open(path: &Path) -> Result<Part> {
    File::open(path)
        .and_then(Part::whole)
        .context(|| format!("{}", path.display()))
}
