//! `adamant verify`: checks every hash in the manifest, the whole hash tree and the structure of
//! the file system, and on request that every file can be read.
//!
//! Only the root hash and the manifest are trusted. An error names the artifact and, in a root file
//! system, the corrupted block and the file that it belongs to.

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

/// An image that passed verification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// `ID_VERSION`, or the label of the disk's partition.
    pub image: String,
    /// Root hash, hexadecimal.
    pub root_hash: String,
    /// Data blocks of 4096 bytes.
    pub blocks: u64,
    /// Inodes of the root file system.
    pub inodes: u64,
    /// Artifacts whose hashes match the manifest.
    pub artifacts: usize,
}

/// What to verify, and on how many threads.
#[derive(Debug, Clone, Copy)]
pub struct VerifyOptions {
    /// Also decompress every file. The hashes already prove that the image is unchanged; this
    /// proves that a server can read it.
    pub read_data: bool,
    /// Worker threads.
    pub jobs: usize,
}

/// Verifies an image of an OUT directory, a root file system with its `.root.verity` and
/// `.roothash` files, or a disk image, and prints the result.
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
            "{}: OK: {hashes}{} blocks verified, {} inodes, root hash {}\n",
            whole.image, whole.blocks, whole.inodes, whole.root_hash
        );
    }
    output.answer(&text, &serde_json::json!({ "whole": found }))
}

/// Verifies an image of an OUT directory by its manifest.
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
                "{}: does not list {name}",
                path.display()
            )));
        }
    }
    check_sizes(folder, manifest)?;
    progress::start_stage("verify");
    // The root and its hash tree are read twice: block by block, and as artifacts. The numbers of a
    // manifest can be wrong, but here they only control the progress display.
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

    // The root comes first, because this error names the corrupted block and its file. The hash of
    // an artifact only shows that it was changed.
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
            "{}: its SHA-256 is not the one in the manifest",
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
                "{}: does not contain {wanted}",
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

/// Reads the start of a small text file.
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
                "{}: has {} bytes, but {} in the manifest",
                path.display(),
                meta.len(),
                artifact.size
            ))
            .hint("build the image again"));
        }
    }
    Ok(())
}

/// Opens a file as a part.
fn open(path: &Path) -> Result<Part> {
    File::open(path)
        .and_then(Part::whole)
        .context(|| format!("{}", path.display()))
}
