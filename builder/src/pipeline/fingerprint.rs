//! The fingerprint of a build's inputs. A build whose inputs and artifacts have not changed since
//! it last ran is skipped.
//!
//! As in make and cargo, a file counts as changed if its inode, length, times or mode changed. For
//! a Debian archive, its own state counts. The fingerprint is computed before any input is read, so
//! an input that changes during the build counts as changed in the next one. `--check`,
//! `--no-cache` and `--timings` always build.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use adamant_contract::hex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::stages::Built;
use super::{BuildOptions, agent};
use crate::definition::{Definition, FileKind, Origin};
use crate::error::{Context, Result};
use crate::manifest::{self, Manifest};
use crate::sign::KeySource;
use crate::source::{cache_folder, debian};

/// Part of the fingerprint. It changes whenever the meaning of a record does.
const FORMAT: u32 = 1;
/// Number of files in the fingerprint. A build with more files is never skipped.
const MAX_FILES: usize = 1 << 20;
/// Longer than the coarsest resolution of the kernel's file times, 10 ms.
const TICK: Duration = Duration::from_millis(25);

/// The record of a build in the cache: its fingerprint, and results that are reported again.
#[derive(Debug, Serialize, Deserialize)]
pub struct BuildRecord {
    key: String,
    /// Names of the artifacts, with the state of each file.
    artifacts: Vec<(String, String)>,
    /// Modules in the initramfs.
    pub modules: Vec<String>,
    /// Warnings for the operator.
    pub warnings: Vec<BuildWarning>,
}

/// A warning of a build, as in the JSON document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildWarning {
    /// The name of the rule.
    pub rule: String,
    /// The problem.
    pub message: String,
    /// The remedy.
    pub hint: String,
}

impl BuildWarning {
    /// All warnings of a build.
    pub fn list(built: &Built) -> Vec<BuildWarning> {
        built
            .findings
            .iter()
            .map(|f| BuildWarning {
                rule: f.rule.to_owned(),
                message: f.message.clone(),
                hint: f.hint.clone(),
            })
            .collect()
    }
}

/// The fingerprint of a build, with the path of its record.
pub struct Fingerprint {
    record_path: PathBuf,
    key: String,
    out: PathBuf,
    manifest: String,
}

impl Fingerprint {
    /// Computes the fingerprint. The result is `None` if the build cannot be skipped.
    pub fn compute(
        definition: &Definition,
        out: &Path,
        options: &BuildOptions,
    ) -> Option<Fingerprint> {
        if options.check || !options.use_cache || options.timings.is_some() {
            return None;
        }
        let key = key(definition, options).ok().flatten()?;
        let location = Sha256::digest(
            std::path::absolute(out)
                .ok()?
                .join(definition.stem())
                .as_os_str()
                .as_bytes(),
        );
        let record_path = cache_folder(options.cache.as_deref())
            .join("builds")
            .join(format!("{}.json", hex::encode(&location[..16])));
        Some(Fingerprint {
            record_path,
            key: hex::encode(&key),
            out: out.to_owned(),
            manifest: format!("{}{}", definition.stem(), manifest::SUFFIX),
        })
    }

    /// The record and manifest of the last build, if it had the same fingerprint and its artifacts
    /// are unchanged.
    pub fn up_to_date(&self) -> Option<(BuildRecord, Manifest)> {
        let record: BuildRecord =
            serde_json::from_slice(&crate::io::bounded::read(&self.record_path, 16 << 20).ok()?)
                .ok()?;
        let is_unchanged = |(name, state): &(String, String)| {
            !name.contains('/') && file_state(&self.out.join(name)).as_ref() == Some(state)
        };
        if record.key != self.key
            || record.artifacts.is_empty()
            || !record.artifacts.iter().all(is_unchanged)
        {
            return None;
        }
        let manifest = Manifest::read(&self.out.join(&self.manifest)).ok()?;
        Some((record, manifest))
    }

    /// Records a build. After a failure, the next build is not skipped.
    pub fn record(&self, built: &Built) {
        let names = built
            .manifest
            .artifacts
            .iter()
            .map(|artifact| artifact.name.clone())
            .chain([self.manifest.clone()]);
        let artifacts: Option<Vec<_>> = names
            .map(|name| file_state(&self.out.join(&name)).map(|state| (name, state)))
            .collect();
        let Some(artifacts) = artifacts else { return };
        let record = BuildRecord {
            key: self.key.clone(),
            artifacts,
            modules: built.modules.clone(),
            warnings: BuildWarning::list(built),
        };
        let write = || -> std::io::Result<()> {
            let folder = self.record_path.parent().unwrap_or(Path::new("."));
            fs::create_dir_all(folder)?;
            let new = self
                .record_path
                .with_extension(format!("{}.new", std::process::id()));
            fs::write(&new, serde_json::to_vec(&record)?)?;
            fs::rename(new, &self.record_path)
        };
        if let Err(error) = write() {
            log::debug!("{}: {error}", self.record_path.display());
        }
    }
}

/// The state of an input. The result is `None` if the input changed just now, because a second
/// change within the same tick of the kernel's clock would give the same state.
fn settled_state(path: &Path) -> Option<String> {
    let (state, changed) = state_and_time(path)?;
    SystemTime::now()
        .duration_since(changed)
        .is_ok_and(|age| age > TICK)
        .then_some(state)
}

/// The state of a file or directory, and of a symbolic link with its target. The result is `None`
/// if it does not exist.
fn file_state(path: &Path) -> Option<String> {
    Some(state_and_time(path)?.0)
}

/// The state, and the time of the last change.
fn state_and_time(path: &Path) -> Option<(String, SystemTime)> {
    let changed = |m: &fs::Metadata| {
        Some(UNIX_EPOCH + Duration::new(u64::try_from(m.ctime()).ok()?, m.ctime_nsec() as u32))
    };
    let state = |m: &fs::Metadata| -> String {
        let times = (m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec());
        format!(
            "{}:{} {:o} {} {} {times:?}",
            m.dev(),
            m.ino(),
            m.mode(),
            m.uid(),
            m.len()
        )
    };
    let own = fs::symlink_metadata(path).ok()?;
    if !own.is_symlink() {
        return Some((state(&own), changed(&own)?));
    }
    // The target of a link in a source may be missing, or be a path of the image.
    let target = fs::read_link(path).ok()?;
    let followed = fs::metadata(path).ok();
    let last = followed
        .as_ref()
        .map_or(Some(UNIX_EPOCH), changed)?
        .max(changed(&own)?);
    Some((
        format!(
            "{} {target:?} {:?}",
            state(&own),
            followed.as_ref().map(state)
        ),
        last,
    ))
}

/// The key, or `None` if the build cannot be skipped.
fn key(definition: &Definition, options: &BuildOptions) -> Result<Option<[u8; 32]>> {
    let mut digest = Sha256::new();
    let mut take = |text: &str| {
        digest.update((text.len() as u64).to_le_bytes());
        digest.update(text);
    };
    take(&format!(
        "{FORMAT} {} {definition:?}",
        env!("CARGO_PKG_VERSION")
    ));
    take(&format!(
        "{} {:?} {} {:?}",
        options.disk, options.formats, options.unsigned, options.epoch
    ));
    let mut files = vec![
        std::env::current_exe().unwrap_or_default(),
        agent::find(options.agent.as_deref())?,
    ];
    for source in &definition.sources {
        match &source.origin {
            Origin::Debian(debian) => take(&hex::encode(&debian::state(debian)?)),
            Origin::Tar(path) => files.push(path.clone()),
            Origin::Dir(dir) => {
                if !list_files(&dir.path, &mut files) {
                    return Ok(None);
                }
            }
            Origin::File(file) => {
                if let FileKind::Copy(path) = &file.kind {
                    files.push(path.clone());
                }
            }
        }
    }
    if let Some(reference) = &options.reference {
        // Without the inode's change time: if the file is in OUT, a build links it into a new
        // directory.
        let meta = fs::metadata(reference).context(|| reference.display().to_string())?;
        take(&format!(
            "reference {} {}:{} {} {:?}",
            reference.display(),
            meta.dev(),
            meta.ino(),
            meta.len(),
            (meta.mtime(), meta.mtime_nsec())
        ));
    }
    files.extend(
        [&definition.boot.stub, &definition.boot.loader]
            .into_iter()
            .flatten()
            .cloned(),
    );
    for by in [
        &definition.sign.secure_boot,
        &definition.sign.verity,
        &definition.sign.pcr,
    ]
    .into_iter()
    .flatten()
    {
        files.push(by.certificate.clone());
        if let Some(KeySource::File(path)) = &by.key {
            files.push(path.clone());
        }
    }
    for file in files {
        // The build reports a missing file.
        let Some(state) = settled_state(&file) else {
            return Ok(None);
        };
        take(&format!("{} {state}", file.display()));
    }
    Ok(Some(digest.finalize().into()))
}

/// Adds a directory and all paths below it, in order, without following links. The result is
/// `false` if the directory cannot be read or has too many files.
fn list_files(folder: &Path, files: &mut Vec<PathBuf>) -> bool {
    let Ok(entries) = fs::read_dir(folder).and_then(Iterator::collect::<std::io::Result<Vec<_>>>)
    else {
        return false;
    };
    let mut entries: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
    entries.sort_unstable();
    files.push(folder.to_owned());
    for path in entries {
        let Ok(meta) = fs::symlink_metadata(&path) else {
            return false;
        };
        if files.len() > MAX_FILES || meta.is_dir() && !list_files(&path, files) {
            return false;
        }
        if !meta.is_dir() {
            files.push(path);
        }
    }
    true
}
