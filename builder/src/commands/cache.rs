//! `adamant cache`: reports the size of the cache, and evicts entries.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::cache::prune::{CacheEntry, entries, least_recently_used, results};
use crate::cache::{LIMIT, folder};
use crate::error::{Context, Result};
use crate::manifest;
use crate::source::debian::archives;
use crate::term::output::Output;

/// The document of `adamant cache info --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CacheInfo {
    /// The directory of all caches.
    pub folder: PathBuf,
    /// Archives of Debian sources.
    pub archives: CacheUsage,
    /// Results: compressed clusters and others that depend only on their input. Builds keep them
    /// below 4 GiB.
    pub results: CacheUsage,
    /// Images that `adamant boot DEFINITION` built.
    pub booted: CacheUsage,
}

/// Number and size of some entries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct CacheUsage {
    /// Number of entries.
    pub files: u64,
    /// Size of all entries, bytes.
    pub bytes: u64,
}

/// Prints the size of each part of the cache.
pub fn print_info(cache: &Path, output: &Output) -> Result<()> {
    let info = CacheInfo {
        folder: cache.to_owned(),
        archives: usage(&debian(cache)?),
        results: usage(&results(&folder(cache))?),
        booted: usage(&booted(cache)?),
    };
    let line =
        |what: &str, usage: CacheUsage| format!("{:>12}  {what} ({})\n", usage.bytes, usage.files);
    let lines = [
        line("Debian archives", info.archives),
        line("results of builds", info.results),
        line("images of `boot DEFINITION`", info.booted),
    ];
    let text = format!("{}\n{}", cache.display(), lines.concat());
    output.answer(&text, &info)
}

/// Evicts the least recently used entries until the cache has at most `limit` bytes. Without a
/// limit, evicts the results that the next build would evict, too.
pub fn prune(cache: &Path, limit: Option<u64>, output: &Output) -> Result<()> {
    let mut entries = results(&folder(cache))?;
    if limit.is_some() {
        entries.extend(debian(cache)?);
        entries.extend(booted(cache)?);
    }
    evict(
        &least_recently_used(entries, limit.unwrap_or(LIMIT)),
        output,
    )
}

/// Evicts everything.
pub fn clear(cache: &Path, output: &Output) -> Result<()> {
    let mut entries = results(&folder(cache))?;
    entries.extend(debian(cache)?);
    entries.extend(booted(cache)?);
    evict(&entries, output)
}

fn usage(entries: &[CacheEntry]) -> CacheUsage {
    CacheUsage {
        files: entries.len() as u64,
        bytes: entries.iter().map(|entry| entry.bytes).sum(),
    }
}

fn evict(entries: &[CacheEntry], output: &Output) -> Result<()> {
    for path in entries.iter().flat_map(|entry| &entry.files) {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).context(|| format!("removing {}", path.display()));
            }
            _ => {}
        }
        if let Some(work) = path
            .parent()
            .filter(|folder| folder.parent().is_some_and(|above| above.ends_with("boot")))
        {
            // Fails as long as the directory is not empty.
            let _ = fs::remove_dir(work);
        }
    }
    let gone = usage(entries);
    output.answer(
        &format!("{:>12}  bytes evicted ({})\n", gone.bytes, gone.files),
        &serde_json::json!({ "gone": gone }),
    )
}

fn debian(cache: &Path) -> Result<Vec<CacheEntry>> {
    entries(|| archives(cache)).context(|| format!("reading the cache {}", cache.display()))
}

/// The work directories of `adamant boot DEFINITION`, each as one entry. Their disks are sparse, so
/// their size is the room that they take on the host's disk.
fn booted(cache: &Path) -> Result<Vec<CacheEntry>> {
    let folder = cache.join("boot");
    let mut found = Vec::new();
    for work in fs::read_dir(&folder).into_iter().flatten().flatten() {
        let mut files: Vec<PathBuf> = fs::read_dir(work.path())
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .collect();
        // The manifest is removed last: as long as it exists, it names the other files.
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
                .context(|| format!("reading the time of {}", work.path().display()))?;
            found.push(CacheEntry {
                used,
                bytes: metas.iter().map(|meta| meta.blocks() * 512).sum(),
                files,
            });
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_directories_of_boot_are_counted_and_cleared() {
        let scratch = tempfile::tempdir().unwrap();
        let cache = scratch.path();
        let work = cache.join("boot/0123");
        fs::create_dir_all(&work).unwrap();
        fs::write(work.join("a_1.manifest.json"), "x").unwrap();
        fs::write(work.join("a_1.raw"), "x").unwrap();
        let found = booted(cache).unwrap();
        assert!(
            found.len() == 1
                && found[0].bytes > 0
                && found[0].files[1].ends_with("a_1.manifest.json")
        );
        clear(cache, &Output::new(true, false, false)).unwrap();
        assert!(!work.exists() && booted(cache).unwrap().is_empty());
    }
}
