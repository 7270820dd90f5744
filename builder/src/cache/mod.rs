//! What builds keep for the next one: results of work that depends on nothing but its input, found
//! by a digest of that input.
//!
//! Nothing that comes out of a build depends on the cache: what is found must have the digest it
//! was kept with, and compressed clusters are unpacked and compared before they are used. All of it
//! is safe to delete, at any time. Builds at the same time each read what is there, and each add a
//! pack of their own, by one rename.

mod pack;
pub mod verbs;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use self::pack::{Pack, Writer};
use crate::error::Result;

/// What the packs may take, bytes; the ones that were not used for longest go first.
pub const LIMIT: u64 = 4 << 30;
/// A build that finds things in more packs than this writes what it used into one.
const PACKS: usize = 12;
/// Part of each key: raised when the same input gives other results than before.
const FORMAT: u32 = 2;

/// Says which work on which input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key([u8; 32]);

impl Key {
    /// For work of this name, done with these settings, on this input. The versions of this program
    /// and of its libraries are part of it.
    pub fn new(work: &str, settings: &[u64], input: &[u8]) -> Key {
        let mut digest = blake3::Hasher::new();
        for part in [
            work.as_bytes(),
            env!("CARGO_PKG_VERSION").as_bytes(),
            &FORMAT.to_le_bytes(),
            &zstd_safe::version_number().to_le_bytes(),
            &crate::erofs::lz4_version().to_le_bytes(),
        ] {
            digest.update(&(part.len() as u64).to_le_bytes());
            digest.update(part);
        }
        for setting in settings {
            digest.update(&setting.to_le_bytes());
        }
        digest.update(input);
        Key(digest.finalize().into())
    }
}

/// The cache of one build.
#[derive(Debug)]
pub struct Cache {
    folder: PathBuf,
    packs: Vec<Pack>,
    /// The pack that has a key, and where in it.
    index: HashMap<Key, (u32, pack::Place)>,
    used: Vec<AtomicBool>,
    found: AtomicU64,
    new: Mutex<New>,
}

#[derive(Debug, Default)]
struct New {
    writer: Option<Writer>,
    /// Whether writing failed: a cache that can't be written to is no reason not to build.
    failed: bool,
    made: u64,
}

/// What a build found in the cache, and did not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Used {
    /// Results that were there.
    pub found: u64,
    /// Results that had to be made.
    pub made: u64,
}

/// Where the packs are, in the folder of all caches.
pub fn folder(cache: &Path) -> PathBuf {
    cache.join("results")
}

impl Cache {
    /// Opens the cache in this folder, which is made. What is damaged there is taken away.
    pub fn open(cache: &Path) -> Result<Cache> {
        let folder = folder(cache);
        let opened = fs::create_dir_all(&folder).and_then(|()| packs(&folder));
        let packs = opened.unwrap_or_else(|error| {
            log::warn!(
                "cache {}: {error}: this build goes on without it",
                folder.display()
            );
            Vec::new()
        });
        let mut index = HashMap::new();
        for (number, pack) in packs.iter().enumerate() {
            for (key, place) in pack.entries() {
                index.entry(key).or_insert((number as u32, place));
            }
        }
        let used = packs.iter().map(|_| AtomicBool::new(false)).collect();
        Ok(Cache {
            folder,
            packs,
            index,
            used,
            found: AtomicU64::new(0),
            new: Mutex::default(),
        })
    }

    /// What was kept for a key, whole.
    pub fn get(&self, key: &Key) -> Option<Vec<u8>> {
        let (number, place) = self.index.get(key)?;
        let value = self.packs.get(*number as usize)?.read(key, place)?;
        self.used[*number as usize].store(true, Ordering::Relaxed);
        self.found.fetch_add(1, Ordering::Relaxed);
        Some(value)
    }

    /// Keeps a value.
    pub fn put(&self, key: Key, value: &[u8]) {
        let mut new = self
            .new
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        new.made += 1;
        self.write(&mut new, key, value);
    }

    fn write(&self, new: &mut New, key: Key, value: &[u8]) {
        if new.failed {
            return;
        }
        let written = match &mut new.writer {
            Some(writer) => writer.put(key, value),
            none => {
                Writer::new(&self.folder).and_then(|writer| none.insert(writer).put(key, value))
            }
        };
        if let Err(error) = written {
            log::warn!(
                "cache {}: {error}: what this build made is not kept",
                self.folder.display()
            );
            new.failed = true;
        }
    }

    /// What was work on this input the last time, or is now.
    pub fn remember(
        cache: Option<&Cache>,
        key: impl FnOnce() -> Key,
        work: impl FnOnce() -> Result<Vec<u8>>,
    ) -> Result<Vec<u8>> {
        let Some(cache) = cache else { return work() };
        let key = key();
        if let Some(value) = cache.get(&key) {
            return Ok(value);
        }
        let value = work()?;
        cache.put(key, &value);
        Ok(value)
    }

    /// Keeps what was made, marks what was used, and takes away what is too much.
    pub fn finish(self) -> Used {
        let mut new = std::mem::take(
            &mut *self
                .new
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner),
        );
        let used: Vec<usize> = (0..self.packs.len())
            .filter(|&number| self.used[number].load(Ordering::Relaxed))
            .collect();
        let result = Used {
            found: self.found.load(Ordering::Relaxed),
            made: new.made,
        };
        if used.len() > PACKS {
            for (key, (number, place)) in self
                .index
                .iter()
                .filter(|(_, (number, _))| used.contains(&(*number as usize)))
            {
                if let Some(value) = self.packs[*number as usize].read(key, place) {
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
                    "cache {}: {error}: what this build made is not kept",
                    self.folder.display()
                ),
            }
        }
        if let Err(error) = verbs::prune_results(&self.folder, LIMIT) {
            log::warn!("cache {}: {error}", self.folder.display());
        }
        result
    }
}

/// All packs that are whole, the ones used last first.
fn packs(folder: &Path) -> io::Result<Vec<Pack>> {
    let mut found = Vec::new();
    for path in pack::paths(folder)? {
        match Pack::open(&path) {
            Ok(pack) => found.push(pack),
            // Taken away by another build.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                log::warn!("cache {}: {error}: taken away", path.display());
                let _ = fs::remove_file(&path);
            }
        }
    }
    found.sort_by(|a, b| b.time.cmp(&a.time).then_with(|| a.path.cmp(&b.path)));
    Ok(found)
}

#[cfg(test)]
mod tests;
