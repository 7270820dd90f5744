//! `adamant build`: from a definition to the artifacts in OUT.

mod agent;
mod artifacts;
mod cmdline;
pub mod compression;
mod fingerprint;
mod machine;
mod pipeline;
mod reproduce;
mod root;
pub mod sign_later;
mod signers;
pub mod staging;
mod start;

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use adamant_contract::hex;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::commands::selection;
use crate::definition::{Definition, Sign};
use crate::error::{Context, Error, Result};
use crate::format::Format;
use crate::manifest::{self, Manifest, SignaturePurpose};
use crate::term::output::Output;
use crate::term::timings;

pub use pipeline::Built;
pub use staging::Replace;

/// What is built, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// The definition, or a directory that holds an image.toml.
    pub definition: PathBuf,
    /// Where the artifacts go; `None`: `out` beside the definition.
    pub out: Option<PathBuf>,
    /// What may be replaced in the output folder.
    pub replace: Replace,
    /// Whether a second build is compared with the first.
    pub check: bool,
    /// Whether there is to be a disk, or a unified kernel image alone.
    pub disk: bool,
    /// The formats of the disk that are made beside the raw one.
    pub formats: Vec<Format>,
    /// Worker threads.
    pub jobs: usize,
    /// The agent's program; `None`: adamant-agent beside this program.
    pub agent: Option<PathBuf>,
    /// Where Debian archives are kept; `None`: the user's cache folder.
    pub cache: Option<PathBuf>,
    /// Whether caches may be used.
    pub use_cache: bool,
    /// Signs with the keys of this folder instead of the definition's.
    pub keys: Option<PathBuf>,
    /// The reference image whose block positions are reused, or its OUT folder.
    pub reference: Option<PathBuf>,
    /// Leaves what would be signed unsigned, for `adamant sign`.
    pub unsigned: bool,
    /// A page that shows where time went.
    pub timings: Option<PathBuf>,
    /// Overrides the definition's epoch, seconds since 1970.
    pub epoch: Option<i64>,
}

/// What the manifest says about who signs.
fn signatures(signers: &signers::Signers) -> Vec<manifest::SignatureRecord> {
    let all = [
        (SignaturePurpose::SecureBoot, &signers.secure_boot),
        (SignaturePurpose::Verity, &signers.verity),
        (SignaturePurpose::Pcr, &signers.pcr),
    ];
    let signature = |(purpose, holder): (SignaturePurpose, &Option<signers::Holder>)| {
        let holder = holder.as_ref()?;
        Some(manifest::SignatureRecord {
            purpose,
            certificate: holder.certificate.fingerprint(),
            signed: holder.signer.is_some(),
        })
    };
    all.into_iter().filter_map(signature).collect()
}

/// Builds, and gives the directory that the artifacts are in.
pub fn run(options: &Options, output: &Output) -> Result<PathBuf> {
    let mut definition = Definition::read(&options.definition)?;
    definition.epoch = options.epoch.or(definition.epoch);
    if let Some(keys) = &options.keys {
        definition.sign = Sign::from_folder(keys);
    }
    let out = options.out.clone().unwrap_or_else(|| {
        definition
            .path
            .parent()
            .unwrap_or(Path::new(""))
            .join("out")
    });
    reproduce::sweep(&out);
    // Now: a folder with one image in it may be the one that this build puts another into.
    let reference = options
        .reference
        .as_deref()
        .map(selection::root_path)
        .transpose()?;
    if let Some(reference) = reference.as_deref().filter(|_| options.check) {
        refuse_replaced_reference(reference, &out, &definition)?;
    }
    let options = &Options {
        reference,
        ..options.clone()
    };
    let question = fingerprint::Question::of(&definition, &out, options);
    if let Some((record, manifest)) = question.as_ref().and_then(fingerprint::Question::answer) {
        for warning in &record.warnings {
            output.warn(
                format_args!("{}: {}", warning.rule, warning.message),
                Some(&warning.hint),
            );
        }
        tell(&out, &manifest, output);
        output.say("nothing changed since it was built");
        let document = json!({ "out": out, "manifest": manifest, "modules": record.modules, "warnings": record.warnings, "stages": [], "check": null, "unchanged": true });
        output.document(&document)?;
        return Ok(out);
    }
    if options.timings.is_some() {
        timings::record();
    }
    let built = pipeline::build(&definition, &out, options, output)
        .map_err(|error| name_full_folder(error, &out))?;
    if let (Some(path), Some((table, page))) = (&options.timings, timings::told()) {
        output.say(table.trim_end());
        std::fs::write(path, page).context(|| path.display().to_string())?;
    }
    if let Some(question) = &question {
        question.note(&built);
    }
    tell(&built.out, &built.manifest, output);
    let compared = if options.check {
        Some(reproduce::compare(&built, &definition, options, output)?)
    } else {
        None
    };
    output.document(&json!({
        "out": built.out,
        "manifest": built.manifest,
        "modules": built.modules,
        "warnings": fingerprint::Warning::of(&built),
        "stages": built.stages.iter().map(|(name, took)| json!({ "name": name, "seconds": took.as_secs_f64() })).collect::<Vec<_>>(),
        "unchanged": false,
        "check": compared.as_ref().map(|compared| match &compared.difference {
            None => json!({ "identical": true, "varied": compared.varied }),
            Some(first) => json!({ "identical": false, "varied": compared.varied, "difference": first, "files": compared.files }),
        }),
    }))?;
    match compared.map(|compared| compared.difference) {
        Some(Some(first)) => Err(Error::new(format!("the second build differs from the first: {first}"))
            .hint("a source depends on the time, the machine or chance; for a file that the image does not need, write a [[file]] with absent = true")),
        Some(None) => {
            output.say("identical");
            Ok(built.out)
        }
        None => Ok(built.out),
    }
}

/// Names the folder where an error says only that there is no space left: temporary files are
/// beside OUT.
fn name_full_folder(error: Error, out: &Path) -> Error {
    if !error.is_storage_full() || error.message().starts_with('/') {
        return error;
    }
    let ends = [
        ": no space left on its file system",
        ": No space left on device (os error 28)",
        ": No space left on device",
    ];
    let mut doing = error.message();
    while let Some(shorter) = ends.iter().find_map(|end| doing.strip_suffix(end)) {
        doing = shorter;
    }
    let folder = out
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    Error::new(format!("{}: no space left on its file system, while {doing}", folder.display()))
        .hint("free space there, or choose a folder on another file system with --output; the cache (--cache) and TMPDIR need space too")
}

/// Where `adamant boot DEFINITION` builds: a folder of its own for each definition, below the
/// cache.
pub fn boot_folder(cache: &Path, definition: &Path) -> PathBuf {
    let digest = Sha256::digest(definition.as_os_str().as_bytes());
    cache.join("boot").join(hex::encode(&digest[..8]))
}

/// Refuses `--check` if the first build replaces the reference image that the second build needs.
fn refuse_replaced_reference(reference: &Path, out: &Path, definition: &Definition) -> Result<()> {
    let replaced = out.join(format!("{}.root.erofs", definition.stem()));
    match (reference.canonicalize(), replaced.canonicalize()) {
        (Ok(path), Ok(replaced)) if path == replaced => {
            let why = "this build would replace it, so that --check could not build from it again";
            Err(
                Error::new(format!("--reference {}: {why}", reference.display()))
                    .hint("raise [image] version, or put the artifacts elsewhere with --output"),
            )
        }
        _ => Ok(()),
    }
}

fn tell(out: &Path, manifest: &Manifest, output: &Output) {
    for artifact in &manifest.artifacts {
        output.say(format_args!(
            "{:>12}  {}",
            artifact.size,
            out.join(&artifact.name).display()
        ));
    }
    output.say(format_args!("root hash {}", manifest.root.hash));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_file_system_is_told_once_and_with_its_folder() {
        let full = || std::io::Error::from_raw_os_error(nix::libc::ENOSPC);
        for error in [
            Err::<(), _>(full())
                .context(|| "writing the root")
                .unwrap_err(),
            Error::new(format!("writing the root: {}", full())),
            Error::new(format!("writing the root: {0}: {0}", full())),
        ] {
            let told = name_full_folder(error, Path::new("/small/out"));
            assert_eq!(
                told.message(),
                "/small: no space left on its file system, while writing the root"
            );
        }
        let other = name_full_folder(
            Error::new("/cache/x: No space left on device"),
            Path::new("out"),
        );
        assert_eq!(other.message(), "/cache/x: No space left on device");
    }
}
