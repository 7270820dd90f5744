//! Eviction of cache entries.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::pack;
use crate::error::{Context, Result};

/// Files that are evicted together.
pub struct CacheEntry {
    /// Time of the last use.
    pub used: SystemTime,
    /// Size.
    pub bytes: u64,
    /// The first one has the time of the last use.
    pub files: Vec<PathBuf>,
}

/// Evicts the least recently used results in this directory until they have at most `limit` bytes.
pub fn prune_results(results_folder: &Path, limit: u64) -> Result<()> {
    for path in least_recently_used(results(results_folder)?, limit)
        .iter()
        .flat_map(|entry| &entry.files)
    {
        // A build without permission to remove a file goes on.
        let _ = fs::remove_file(path);
    }
    Ok(())
}

/// The least recently used entries, without which the others have at most `limit` bytes.
pub fn least_recently_used(mut entries: Vec<CacheEntry>, limit: u64) -> Vec<CacheEntry> {
    entries.sort_by(|a, b| b.used.cmp(&a.used).then_with(|| a.files.cmp(&b.files)));
    let mut remaining = 0;
    entries.retain(|entry| {
        let fits = remaining + entry.bytes <= limit;
        remaining += if fits { entry.bytes } else { 0 };
        !fits
    });
    entries
}

/// The packs of results in this directory.
pub fn results(folder: &Path) -> Result<Vec<CacheEntry>> {
    entries(|| pack::paths(folder).map(|paths| paths.into_iter().map(|path| vec![path]).collect()))
        .context(|| format!("reading the cache {}", folder.display()))
}

/// Entries from lists of files. A missing directory has no entries.
pub fn entries(
    list: impl FnOnce() -> io::Result<Vec<Vec<PathBuf>>>,
) -> io::Result<Vec<CacheEntry>> {
    let listed = match list() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        other => other?,
    };
    let mut entries = Vec::new();
    for files in listed {
        // Another build may evict it at the same time.
        let metas: Vec<fs::Metadata> = files
            .iter()
            .filter_map(|path| fs::metadata(path).ok())
            .collect();
        if let Some(first) = metas.first() {
            entries.push(CacheEntry {
                used: first.modified()?,
                bytes: metas.iter().map(fs::Metadata::len).sum(),
                files,
            });
        }
    }
    Ok(entries)
}
