//! `adamant cache`: how much is kept between builds, and taking it away.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Serialize;

use super::{LIMIT, folder, pack};
use crate::error::{Context, Result};
use crate::manifest;
use crate::source::debian::archives;
use crate::term::output::Output;

/// What is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Info {
    /// The folder of all caches.
    pub folder: PathBuf,
    /// Debian archives that were put together.
    pub archives: Kept,
    /// Results: compressed clusters, and what else only depends on its input. A build keeps them
    /// below 4 GiB.
    pub results: Kept,
    /// Images that `adamant boot DEFINITION` built.
    pub booted: Kept,
}

/// Files, and their bytes together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Kept {
    /// How many.
    pub files: u64,
    /// Bytes.
    pub bytes: u64,
}

/// One thing that can be taken away: its files, the one that says when it was used last first.
struct Thing {
    used: SystemTime,
    bytes: u64,
    files: Vec<PathBuf>,
}

/// How much there is.
pub fn info(cache: &Path, output: &Output) -> Result<()> {
    let sum = |things: &[Thing]| Kept {
        files: things.len() as u64,
        bytes: things.iter().map(|thing| thing.bytes).sum(),
    };
    let info = Info {
        folder: cache.to_owned(),
        archives: sum(&debian(cache)?),
        results: sum(&results(&folder(cache))?),
        booted: sum(&booted(cache)?),
    };
    let line = |what: &str, kept: Kept| format!("{:>12}  {what} ({})\n", kept.bytes, kept.files);
    let lines = [
        line("Debian archives", info.archives),
        line("results of builds", info.results),
        line("images of `boot DEFINITION`", info.booted),
    ];
    let text = format!("{}\n{}", cache.display(), lines.concat());
    output.answer(&text, &info)
}

/// Takes away what was not used for longest, until no more than `limit` bytes are left; without
/// one, what builds would take away themselves.
pub fn prune(cache: &Path, limit: Option<u64>, output: &Output) -> Result<()> {
    let mut things = results(&folder(cache))?;
    if limit.is_some() {
        things.extend(debian(cache)?);
        things.extend(booted(cache)?);
    }
    take_away(&too_much(things, limit.unwrap_or(LIMIT)), output)
}

/// As [`prune`], of the results in this folder alone, and without a word.
pub fn prune_results(results_folder: &Path, limit: u64) -> Result<()> {
    for path in too_much(results(results_folder)?, limit)
        .iter()
        .flat_map(|thing| &thing.files)
    {
        // Who may not take it away may still build.
        let _ = fs::remove_file(path);
    }
    Ok(())
}

/// Those that were not used for longest, without which the others have no more than `limit` bytes
/// together.
fn too_much(mut things: Vec<Thing>, limit: u64) -> Vec<Thing> {
    things.sort_by(|a, b| b.used.cmp(&a.used).then_with(|| a.files.cmp(&b.files)));
    let mut kept = 0;
    things.retain(|thing| {
        let fits = kept + thing.bytes <= limit;
        kept += if fits { thing.bytes } else { 0 };
        !fits
    });
    things
}

/// Takes away all of it.
pub fn clear(cache: &Path, output: &Output) -> Result<()> {
    let mut things = results(&folder(cache))?;
    things.extend(debian(cache)?);
    things.extend(booted(cache)?);
    take_away(&things, output)
}

fn take_away(things: &[Thing], output: &Output) -> Result<()> {
    for path in things.iter().flat_map(|thing| &thing.files) {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).context(|| path.display().to_string());
            }
            _ => {}
        }
        if let Some(work) = path
            .parent()
            .filter(|folder| folder.parent().is_some_and(|above| above.ends_with("boot")))
        {
            // Only once it is empty.
            let _ = fs::remove_dir(work);
        }
    }
    let gone = Kept {
        files: things.len() as u64,
        bytes: things.iter().map(|thing| thing.bytes).sum(),
    };
    output.answer(
        &format!("{:>12}  bytes taken away ({})\n", gone.bytes, gone.files),
        &serde_json::json!({ "gone": gone }),
    )
}

fn results(folder: &Path) -> Result<Vec<Thing>> {
    things(|| pack::paths(folder).map(|paths| paths.into_iter().map(|path| vec![path]).collect()))
        .context(|| folder.display().to_string())
}

fn debian(cache: &Path) -> Result<Vec<Thing>> {
    things(|| archives(cache)).context(|| cache.display().to_string())
}

/// The work directories of `adamant boot DEFINITION`, each one thing. Their disks are sparse: what
/// they take on the disk counts.
fn booted(cache: &Path) -> Result<Vec<Thing>> {
    let folder = cache.join("boot");
    let mut found = Vec::new();
    for work in fs::read_dir(&folder).into_iter().flatten().flatten() {
        let mut files: Vec<PathBuf> = fs::read_dir(work.path())
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .collect();
        // The manifest goes last: as long as it is there, it names the rest.
        files.sort_by_key(|path| {
            (
                path.as_os_str()
                    .as_encoded_bytes()
                    .ends_with(manifest::SUFFIX.as_bytes()),
                path.clone(),
            )
        });
        let metas: Vec<fs::Metadata> = files
            .iter()
            .filter_map(|path| fs::metadata(path).ok())
            .collect();
        if let Some(last) = metas.last() {
            let used = last
                .modified()
                .context(|| work.path().display().to_string())?;
            found.push(Thing {
                used,
                bytes: metas.iter().map(|meta| meta.blocks() * 512).sum(),
                files,
            });
        }
    }
    Ok(found)
}

/// A folder that is not there has nothing in it.
fn things(list: impl FnOnce() -> io::Result<Vec<Vec<PathBuf>>>) -> io::Result<Vec<Thing>> {
    let listed = match list() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        other => other?,
    };
    let mut things = Vec::new();
    for files in listed {
        // Another build may take it away meanwhile.
        let metas: Vec<fs::Metadata> = files
            .iter()
            .filter_map(|path| fs::metadata(path).ok())
            .collect();
        if let Some(first) = metas.first() {
            things.push(Thing {
                used: first.modified()?,
                bytes: metas.iter().map(fs::Metadata::len).sum(),
                files,
            });
        }
    }
    Ok(things)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_directories_of_boot_are_counted_and_cleared() {
        let cache =
            std::env::temp_dir().join(format!("adamant-cache-booted-{}", std::process::id()));
        let work = cache.join("boot/0123");
        fs::create_dir_all(&work).unwrap();
        fs::write(work.join("a_1.manifest.json"), "x").unwrap();
        fs::write(work.join("a_1.raw"), "x").unwrap();
        let found = booted(&cache).unwrap();
        assert!(
            found.len() == 1
                && found[0].bytes > 0
                && found[0].files[1].ends_with("a_1.manifest.json")
        );
        clear(&cache, &Output::new(true, false, false)).unwrap();
        assert!(!work.exists() && booted(&cache).unwrap().is_empty());
        fs::remove_dir_all(&cache).unwrap();
    }
}
