//! Whether a build would give what is in OUT already: nothing that goes into it has changed since,
//! and neither has what came out.
//!
//! Changed is what another inode, length, time or mode says, as for make and cargo; a Debian
//! archive says it itself. What was read while it was changed counts as changed the next time,
//! since everything is looked at before the first byte is read. `--check`, `--no-cache` and
//! `--timings` do not ask.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use adamant_contract::hex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::pipeline::Built;
use super::{Options, agent};
use crate::definition::{Definition, FileKind, Origin};
use crate::error::{Context, Result};
use crate::manifest::{self, Manifest};
use crate::sign::KeySource;
use crate::source::{cache_folder, debian};

/// Part of the key: raised when a record means something else.
const FORMAT: u32 = 1;
/// Files of a source's folder that are looked at; with more, a build is never taken for unchanged.
const LOOKED_AT: usize = 1 << 20;
/// More than the kernel's coarsest clock for files: 10 ms.
const TICK: Duration = Duration::from_millis(25);

/// What there is to be said of a build, again.
#[derive(Debug, Serialize, Deserialize)]
pub struct Record {
    key: String,
    /// Names of the artifacts, and how each looked.
    artifacts: Vec<(String, String)>,
    /// Modules in the initramfs.
    pub modules: Vec<String>,
    /// What an operator should know.
    pub warnings: Vec<Warning>,
}

/// A finding as a document has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// The rule's name.
    pub rule: String,
    /// What is wrong.
    pub message: String,
    /// The way out.
    pub hint: String,
}

impl Warning {
    /// All of a build's.
    pub fn of(built: &Built) -> Vec<Warning> {
        built
            .findings
            .iter()
            .map(|f| Warning {
                rule: f.rule.to_owned(),
                message: f.message.clone(),
                hint: f.hint.clone(),
            })
            .collect()
    }
}

/// Where the record of a build is, and what it has to say for the build to be the same.
pub struct Question {
    path: PathBuf,
    key: String,
    out: PathBuf,
    manifest: String,
}

impl Question {
    /// Looks at all that goes into a build. `None` where that can't be told without building.
    pub fn of(definition: &Definition, out: &Path, options: &Options) -> Option<Question> {
        if options.check || !options.use_cache || options.timings.is_some() {
            return None;
        }
        let key = key(definition, options).ok().flatten()?;
        let place = Sha256::digest(
            std::path::absolute(out)
                .ok()?
                .join(definition.stem())
                .as_os_str()
                .as_bytes(),
        );
        let path = cache_folder(options.cache.as_deref())
            .join("builds")
            .join(format!("{}.json", hex::encode(&place[..16])));
        Some(Question {
            path,
            key: hex::encode(&key),
            out: out.to_owned(),
            manifest: format!("{}{}", definition.stem(), manifest::SUFFIX),
        })
    }

    /// The earlier build, if it was the same and its artifacts are as it left them.
    pub fn answer(&self) -> Option<(Record, Manifest)> {
        let record: Record =
            serde_json::from_slice(&crate::io::bounded::read(&self.path, 16 << 20).ok()?).ok()?;
        let same = |(name, look): &(String, String)| {
            !name.contains('/') && looks(&self.out.join(name)).as_ref() == Some(look)
        };
        if record.key != self.key
            || record.artifacts.is_empty()
            || !record.artifacts.iter().all(same)
        {
            return None;
        }
        let manifest = Manifest::read(&self.out.join(&self.manifest)).ok()?;
        Some((record, manifest))
    }

    /// Writes down what was built. Where that fails, the next build builds.
    pub fn note(&self, built: &Built) {
        let names = built
            .manifest
            .artifacts
            .iter()
            .map(|artifact| artifact.name.clone())
            .chain([self.manifest.clone()]);
        let artifacts: Option<Vec<_>> = names
            .map(|name| looks(&self.out.join(&name)).map(|look| (name, look)))
            .collect();
        let Some(artifacts) = artifacts else { return };
        let record = Record {
            key: self.key.clone(),
            artifacts,
            modules: built.modules.clone(),
            warnings: Warning::of(built),
        };
        let write = || -> std::io::Result<()> {
            let folder = self.path.parent().unwrap_or(Path::new("."));
            fs::create_dir_all(folder)?;
            let new = self
                .path
                .with_extension(format!("{}.new", std::process::id()));
            fs::write(&new, serde_json::to_vec(&record)?)?;
            fs::rename(new, &self.path)
        };
        if let Err(error) = write() {
            log::debug!("{}: {error}", self.path.display());
        }
    }
}

/// How something looks that goes into a build. `None` also where it changed just now: what changes
/// once more in the same tick of the kernel's clock would look the same.
fn settled(path: &Path) -> Option<String> {
    let (look, changed) = look_at(path)?;
    SystemTime::now()
        .duration_since(changed)
        .is_ok_and(|age| age > TICK)
        .then_some(look)
}

/// What changes when a file or folder does, of a link and of what it leads to. `None` where it is
/// not there.
fn looks(path: &Path) -> Option<String> {
    Some(look_at(path)?.0)
}

/// How it looks, and when it changed last.
fn look_at(path: &Path) -> Option<(String, SystemTime)> {
    let changed = |m: &fs::Metadata| {
        Some(UNIX_EPOCH + Duration::new(u64::try_from(m.ctime()).ok()?, m.ctime_nsec() as u32))
    };
    let look = |m: &fs::Metadata| -> String {
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
        return Some((look(&own), changed(&own)?));
    }
    // A link in a source may lead nowhere, or into the image.
    let target = fs::read_link(path).ok()?;
    let behind = fs::metadata(path).ok();
    let last = behind
        .as_ref()
        .map_or(Some(UNIX_EPOCH), changed)?
        .max(changed(&own)?);
    Some((
        format!("{} {target:?} {:?}", look(&own), behind.as_ref().map(look)),
        last,
    ))
}

fn key(definition: &Definition, options: &Options) -> Result<Option<[u8; 32]>> {
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
                if !walk(&dir.path, &mut files) {
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
        // Not by the time of its inode: where it is in OUT, building gives it another name there.
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
        // What is not there is for the build to complain about.
        let Some(look) = settled(&file) else {
            return Ok(None);
        };
        take(&format!("{} {look}", file.display()));
    }
    Ok(Some(digest.finalize().into()))
}

/// All below a folder, in order; links are taken as they are. `false` where it can't be read, or is
/// too much.
fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> bool {
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
        if files.len() > LOOKED_AT || meta.is_dir() && !walk(&path, files) {
            return false;
        }
        if !meta.is_dir() {
            files.push(path);
        }
    }
    true
}
