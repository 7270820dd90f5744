//! The build cache: results of work that depends only on its input. It is content-addressed: the
//! key of an entry is a digest of its input.
//!
//! No artifact depends on the cache. A value must have the digest that was stored with it, and
//! compressed clusters are decompressed and compared before they are used. Everything in the cache
//! may be deleted at any time. Concurrent builds read the same packs, and each adds a pack of its
//! own by one rename.

pub mod directory;
mod pack;
pub mod prune;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use self::pack::{Pack, PackEntry, PackWriter};
use crate::error::Result;

/// Most bytes of all packs. Beyond it, the least recently used packs are evicted.
pub const LIMIT: u64 = 4 << 30;
/// A build that uses entries of more packs than this merges the used entries into one pack.
const PACKS: usize = 12;
/// Part of each key. Raise it when the code gives another result for the same input.
const FORMAT: u32 = 2;

/// The key of an entry: a digest of the work's name, settings and input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CacheKey([u8; 32]);

/// The cache of one build.
#[derive(Debug)]
pub struct Cache {
    folder: PathBuf,
    /// Start of each key's digest: the versions of this program and its libraries.
    salt: blake3::Hasher,
    packs: Vec<Pack>,
    /// The pack of each key, and the position in it.
    index: HashMap<CacheKey, (u32, PackEntry)>,
    /// Whether an entry of each pack was used.
    used: Vec<AtomicBool>,
    hits: AtomicU64,
    new: Mutex<New>,
}

#[derive(Debug, Default)]
struct New {
    writer: Option<PackWriter>,
    /// Whether writing failed. The build goes on without writing.
    failed: bool,
    misses: u64,
}

/// Statistics of a build.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheStatistics {
    /// Results that were in the cache.
    pub hits: u64,
    /// Results that were computed.
    pub misses: u64,
}

/// The directory of the packs, in the directory of all caches.
pub fn folder(cache: &Path) -> PathBuf {
    cache.join("results")
}

impl Cache {
    /// Opens the cache in this directory. Creates it if it is missing, and removes corrupted packs.
    /// `version` becomes part of each key; it must change with the versions of all libraries that
    /// decide the bytes of results.
    pub fn open(cache: &Path, version: &[u8]) -> Result<Cache> {
        let folder = folder(cache);
        let opened = fs::create_dir_all(&folder).and_then(|()| packs(&folder));
        let packs = opened.unwrap_or_else(|error| {
            log::warn!(
                "reading the cache {}: {error}; the build continues without it",
                folder.display()
            );
            Vec::new()
        });
        let mut index = HashMap::new();
        for (number, pack) in packs.iter().enumerate() {
            for (key, entry) in pack.entries() {
                index.entry(key).or_insert((number as u32, entry));
            }
        }
        let used = packs.iter().map(|_| AtomicBool::new(false)).collect();
        let mut salt = blake3::Hasher::new();
        for part in [
            env!("CARGO_PKG_VERSION").as_bytes(),
            &FORMAT.to_le_bytes(),
            version,
        ] {
            salt.update(&(part.len() as u64).to_le_bytes());
            salt.update(part);
        }
        Ok(Cache {
            folder,
            salt,
            packs,
            index,
            used,
            hits: AtomicU64::new(0),
            new: Mutex::default(),
        })
    }

    /// The key for the work of this name, with these settings, on this input.
    pub fn key(&self, work: &str, settings: &[u64], input: &[u8]) -> CacheKey {
        let mut digest = self.salt.clone();
        digest.update(&(work.len() as u64).to_le_bytes());
        digest.update(work.as_bytes());
        for setting in settings {
            digest.update(&setting.to_le_bytes());
        }
        digest.update(input);
        CacheKey(digest.finalize().into())
    }

    /// The value of a key.
    pub fn get(&self, key: &CacheKey) -> Option<Vec<u8>> {
        let (number, entry) = self.index.get(key)?;
        let value = self.packs.get(*number as usize)?.read(key, entry)?;
        self.used[*number as usize].store(true, Ordering::Relaxed);
        self.hits.fetch_add(1, Ordering::Relaxed);
        Some(value)
    }

    /// Adds a value.
    pub fn put(&self, key: CacheKey, value: &[u8]) {
        let mut new = self
            .new
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        new.misses += 1;
        self.write(&mut new, key, value);
    }

    fn write(&self, new: &mut New, key: CacheKey, value: &[u8]) {
        if new.failed {
            return;
        }
        let written = match &mut new.writer {
            Some(writer) => writer.put(key, value),
            none => {
                PackWriter::new(&self.folder).and_then(|writer| none.insert(writer).put(key, value))
            }
        };
        if let Err(error) = written {
            log::warn!(
                "writing to the cache {}: {error}; results of this build are not cached",
                self.folder.display()
            );
            new.failed = true;
        }
    }

    /// The cached value of a key, or else the computed one. Without a cache, computes it.
    pub fn get_or_compute(
        cache: Option<&Cache>,
        key: impl FnOnce(&Cache) -> CacheKey,
        compute: impl FnOnce() -> Result<Vec<u8>>,
    ) -> Result<Vec<u8>> {
        let Some(cache) = cache else {
            return compute();
        };
        let key = key(cache);
        if let Some(value) = cache.get(&key) {
            return Ok(value);
        }
        let value = compute()?;
        cache.put(key, &value);
        Ok(value)
    }

    /// Writes new results, marks used packs, and evicts packs beyond the limit.
    pub fn finish(self) -> CacheStatistics {
        let mut new = std::mem::take(
            &mut *self
                .new
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner),
        );
        let used: Vec<usize> = (0..self.packs.len())
            .filter(|&number| self.used[number].load(Ordering::Relaxed))
            .collect();
        let statistics = CacheStatistics {
            hits: self.hits.load(Ordering::Relaxed),
            misses: new.misses,
        };
        if used.len() > PACKS {
            for (key, (number, entry)) in self
                .index
                .iter()
                .filter(|(_, (number, _))| used.contains(&(*number as usize)))
            {
                if let Some(value) = self.packs[*number as usize].read(key, entry) {
                    self.write(&mut new, *key, &value);
                }
            }
        } else {
            for number in &used {
                self.packs[*number].touch();
            }
        }
        if let Some(writer) = new.writer.take().filter(|_| !new.failed) {
            match writer.finish(&self.folder) {
                Ok(()) if used.len() > PACKS => {
                    used.iter().for_each(|number| self.packs[*number].remove())
                }
                Ok(()) => {}
                Err(error) => log::warn!(
                    "writing to the cache {}: {error}; results of this build are not cached",
                    self.folder.display()
                ),
            }
        }
        if let Err(error) = prune::prune_results(&self.folder, LIMIT) {
            log::warn!("evicting from the cache {}: {error}", self.folder.display());
        }
        statistics
    }
}

/// All valid packs, the most recently used first.
fn packs(folder: &Path) -> io::Result<Vec<Pack>> {
    let mut found = Vec::new();
    for path in pack::paths(folder)? {
        match Pack::open(&path) {
            Ok(pack) => found.push(pack),
            // Another build has evicted it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                log::warn!("cache pack {}: {error}; it is removed", path.display());
                let _ = fs::remove_file(&path);
            }
        }
    }
    found.sort_by(|a, b| b.time.cmp(&a.time).then_with(|| a.path.cmp(&b.path)));
    Ok(found)
}

#[cfg(test)]
mod tests;
