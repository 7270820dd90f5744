//! `adamant build`: from a definition to the artifacts in OUT.
//!
//! [`build_definition`] decides whether to build at all, runs the stages ([`build`](stages::build))
//! and reports the result. `--check` builds a second time and compares (`reproduce`).

mod agent;
mod artifacts;
mod cmdline;
pub mod compression;
mod content;
mod fingerprint;
mod machine;
pub mod offline_sign;
mod programs;
mod published;
mod reproduce;
mod root;
mod signers;
mod stages;
pub mod staging;
mod started;

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use adamant_contract::hex;
use serde_json::json;
use sha2::{Digest, Sha256};

use self::fingerprint::{BuildRecord, BuildWarning, Fingerprint};
use self::reproduce::Comparison;
use crate::commands::selection;
use crate::definition::{Definition, Sign};
use crate::error::{Context, Error, Result};
use crate::format::Format;
use crate::manifest::Manifest;
use crate::term::output::Output;
use crate::term::timings;

pub use stages::Built;
pub use staging::Replace;

/// The options of a build.
#[derive(Debug, Clone)]
pub struct BuildOptions {
    /// The definition, or a directory with an image.toml.
    pub definition: PathBuf,
    /// The directory for the artifacts; `None`: `out` beside the definition.
    pub out: Option<PathBuf>,
    /// What may be replaced in the output directory.
    pub replace: Replace,
    /// Whether a second build is compared with the first.
    pub check: bool,
    /// Whether a disk is made, or only a unified kernel image.
    pub disk: bool,
    /// Formats of the disk besides raw.
    pub formats: Vec<Format>,
    /// Worker threads.
    pub jobs: usize,
    /// The agent's program; `None`: adamant-agent beside this program.
    pub agent: Option<PathBuf>,
    /// The cache directory; `None`: the user's cache directory.
    pub cache: Option<PathBuf>,
    /// Whether the cache may be used.
    pub use_cache: bool,
    /// Signs with the keys of this directory instead of the definition's.
    pub keys: Option<PathBuf>,
    /// The reference image whose block positions are reused, or its OUT directory.
    pub reference: Option<PathBuf>,
    /// Leaves the image unsigned, for `adamant sign`.
    pub unsigned: bool,
    /// Writes a page with the time of each stage.
    pub timings: Option<PathBuf>,
    /// Overrides the definition's epoch, seconds since 1970.
    pub epoch: Option<i64>,
}

impl BuildOptions {
    /// Reads the definition, with the overrides of these options.
    fn read_definition(&self) -> Result<Definition> {
        let mut definition = Definition::read(&self.definition)?;
        definition.epoch = self.epoch.or(definition.epoch);
        if let Some(keys) = &self.keys {
            definition.sign = Sign::from_folder(keys);
        }
        Ok(definition)
    }

    fn output_folder(&self, definition: &Definition) -> PathBuf {
        let beside = || {
            definition
                .path
                .parent()
                .unwrap_or(Path::new(""))
                .join("out")
        };
        self.out.clone().unwrap_or_else(beside)
    }
}

/// Builds a definition and returns the directory of the artifacts.
pub fn build_definition(options: &BuildOptions, output: &Output) -> Result<PathBuf> {
    let definition = options.read_definition()?;
    let out = options.output_folder(&definition);
    reproduce::sweep(&out);
    // The reference is resolved before the build, which may add a newer image to the same
    // directory.
    let reference = options
        .reference
        .as_deref()
        .map(selection::root_path)
        .transpose()?;
    if let Some(reference) = reference.as_deref().filter(|_| options.check) {
        refuse_replaced_reference(reference, &out, &definition)?;
    }
    let options = &BuildOptions {
        reference,
        ..options.clone()
    };
    // Packages are cached without it, too; their cache makes the same check.
    if options.use_cache {
        crate::cache::directory::open(&crate::source::cache_folder(options.cache.as_deref()))?;
    }
    let fingerprint = Fingerprint::compute(&definition, &out, options);
    if let Some((record, manifest)) = fingerprint.as_ref().and_then(Fingerprint::up_to_date) {
        report_unchanged(&out, &record, &manifest, output)?;
        return Ok(out);
    }
    if options.timings.is_some() {
        timings::record();
    }
    let built = stages::build(&definition, &out, options, output)
        .map_err(|error| name_full_folder(error, &out))?;
    if let (Some(path), Some((table, page))) = (&options.timings, timings::finish()) {
        output.say(table.trim_end());
        std::fs::write(path, page).context(|| format!("writing {}", path.display()))?;
    }
    if let Some(fingerprint) = &fingerprint {
        fingerprint.record(&built);
    }
    report_artifacts(&built.out, &built.manifest, output);
    let comparison = if options.check {
        Some(reproduce::compare(&built, &definition, options, output)?)
    } else {
        None
    };
    write_document(&built, comparison.as_ref(), output)?;
    match comparison.map(|comparison| comparison.difference) {
        Some(Some(first)) => Err(Error::new(format!(
            "the second build differs from the first: {first}"
        ))
        .hint("a source depends on time, machine or chance; if the image does not need the file, remove it with a [[file]] with absent = true")),
        Some(None) => {
            output.say("identical");
            Ok(built.out)
        }
        None => Ok(built.out),
    }
}

/// Reports a build that was skipped.
fn report_unchanged(
    out: &Path,
    record: &BuildRecord,
    manifest: &Manifest,
    output: &Output,
) -> Result<()> {
    for warning in &record.warnings {
        output.warn(
            format_args!("{}: {}", warning.rule, warning.message),
            Some(&warning.hint),
        );
    }
    report_artifacts(out, manifest, output);
    output.say("nothing changed since it was built");
    output.document(&json!({
        "out": out,
        "manifest": manifest,
        "modules": record.modules,
        "warnings": record.warnings,
        "stages": [],
        "check": null,
        "unchanged": true,
    }))
}

fn report_artifacts(out: &Path, manifest: &Manifest, output: &Output) {
    for artifact in &manifest.artifacts {
        output.say(format_args!(
            "{:>12}  {}",
            artifact.size,
            out.join(&artifact.name).display()
        ));
    }
    output.say(format_args!("root hash {}", manifest.root.hash));
}

fn write_document(built: &Built, comparison: Option<&Comparison>, output: &Output) -> Result<()> {
    let stages: Vec<_> = built
        .stages
        .iter()
        .map(|(name, took)| json!({ "name": name, "seconds": took.as_secs_f64() }))
        .collect();
    let check = comparison.map(|comparison| match &comparison.difference {
        None => json!({ "identical": true, "varied": comparison.varied }),
        Some(first) => json!({
            "identical": false,
            "varied": comparison.varied,
            "difference": first,
            "files": comparison.files,
        }),
    });
    output.document(&json!({
        "out": built.out,
        "manifest": built.manifest,
        "modules": built.modules,
        "warnings": BuildWarning::list(built),
        "stages": stages,
        "unchanged": false,
        "check": check,
    }))
}

/// Adds the directory to an error that says only that no space is left. Temporary files are beside
/// OUT.
fn name_full_folder(error: Error, out: &Path) -> Error {
    if !error.is_storage_full() || error.message().starts_with('/') {
        return error;
    }
    let suffixes = [
        ": no space left on its file system",
        ": No space left on device (os error 28)",
        ": No space left on device",
    ];
    let mut action = error.message();
    while let Some(shorter) = suffixes.iter().find_map(|end| action.strip_suffix(end)) {
        action = shorter;
    }
    let folder = out
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    Error::new(format!("{}: no space left on its file system, while {action}", folder.display()))
        .hint("free space there, or choose a directory on another file system with --output; the cache (--cache) and TMPDIR need space too")
}

/// The directory in which `adamant boot DEFINITION` builds: one for each definition, below the
/// cache.
pub fn boot_folder(cache: &Path, definition: &Path) -> PathBuf {
    let digest = Sha256::digest(definition.as_os_str().as_bytes());
    cache.join("boot").join(hex::encode(&digest[..8]))
}

/// Refuses `--check` if the first build replaces the reference image that the second build needs.
fn refuse_replaced_reference(reference: &Path, out: &Path, definition: &Definition) -> Result<()> {
    let replaced = out.join(format!("{}.root.erofs", definition.stem()));
    match (reference.canonicalize(), replaced.canonicalize()) {
        (Ok(path), Ok(replaced)) if path == replaced => Err(Error::new(format!(
            "--reference {}: this build would replace it, but --check needs it for the second build",
            reference.display()
        ))
        .hint("raise [image] version, or choose another directory with --output")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_about_a_full_file_system_names_the_directory_once() {
        let full = || std::io::Error::from_raw_os_error(nix::libc::ENOSPC);
        for error in [
            Err::<(), _>(full())
                .context(|| "writing the root")
                .unwrap_err(),
            Error::new(format!("writing the root: {}", full())),
            Error::new(format!("writing the root: {0}: {0}", full())),
        ] {
            let named = name_full_folder(error, Path::new("/small/out"));
            assert_eq!(
                named.message(),
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
