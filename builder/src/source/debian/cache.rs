//! Cached archives of installed packages: `KEY.tar`, and `KEY.json` with its digest, its date and
//! the inputs of the key.
//!
//! Entries are created by rename, the tar file first. A corrupted entry is detected by its digest
//! and created again. An unfinished entry is `KEY.new.tar`, locked by the build that writes it:
//! builds of other sources do not wait for it, and without a lock it belongs to a killed build. All
//! files are safe to delete.

use std::fs::{self, File, FileTimes, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use adamant_contract::hex;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::archive::Archive;
use crate::cache::directory;
use crate::error::{Context, Error, Result};
use crate::io::part::Part;
use crate::source::{ArchiveHash, ExpectedHash};

/// Ending of the name of an unfinished entry.
const NEW: &str = ".new.tar";

/// The cache entries of one source.
#[derive(Debug)]
pub struct ArchiveCache {
    folder: PathBuf,
    inputs: String,
}

/// A finished entry.
#[derive(Debug)]
pub struct CachedArchive {
    path: PathBuf,
    record: Record,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    #[serde(rename = "words")]
    inputs: String,
    sha256: String,
    bytes: u64,
    /// Date of the package archives, seconds since 1970.
    date: i64,
    /// The package archives, for the manifest and for messages.
    #[serde(default)]
    archive: Archive,
}

/// The files of all entries in the cache directory; the first file of each entry is its archive.
pub fn archives(cache: &Path) -> io::Result<Vec<Vec<PathBuf>>> {
    let mut found = Vec::new();
    for file in fs::read_dir(cache.join("debian"))? {
        let path = file?.path();
        let name = path.to_string_lossy();
        if name.ends_with(".tar") && !name.ends_with(NEW) {
            found.push(vec![path.clone(), path.with_extension("json")]);
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// An unfinished entry. One build at a time holds its lock.
#[derive(Debug)]
pub struct CacheSlot<'a> {
    cache: &'a ArchiveCache,
    key: String,
    temporary: PathBuf,
    lock: Flock<File>,
    is_published: bool,
}

impl CachedArchive {
    /// The archive.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The digest that the archive must have if it is not corrupted.
    pub fn expected_hash(&self, hash: &ArchiveHash) -> ExpectedHash {
        ExpectedHash {
            hash: hash.clone(),
            sha256: self.record.sha256.clone(),
        }
    }

    /// The date of the package archives, seconds since 1970.
    pub fn seconds(&self) -> i64 {
        self.record.date
    }

    /// The package archives.
    pub fn archive(&self) -> &Archive {
        &self.record.archive
    }
}

impl ArchiveCache {
    /// The cache in this directory, which may not exist.
    pub fn at(folder: &Path, inputs: &str) -> ArchiveCache {
        ArchiveCache {
            folder: folder.join("debian"),
            inputs: inputs.to_owned(),
        }
    }

    /// Creates the directory, and deletes unfinished entries of killed builds.
    pub fn open(folder: &Path, inputs: &str) -> Result<ArchiveCache> {
        let cache = ArchiveCache::at(folder, inputs);
        directory::open(folder)?;
        fs::create_dir_all(&cache.folder)
            .context(|| format!("cache {}", cache.folder.display()))?;
        for file in fs::read_dir(&cache.folder)
            .context(|| format!("cache {}", cache.folder.display()))?
            .flatten()
        {
            if file.file_name().to_string_lossy().ends_with(NEW)
                && let Ok(left) = File::open(file.path())
                && let Ok(_lock) = Flock::lock(left, FlockArg::LockExclusiveNonblock)
            {
                let _ = fs::remove_file(file.path());
            }
        }
        Ok(cache)
    }

    /// The key for these inputs and this state of the package archives.
    pub fn key(&self, archive: &[u8; 32]) -> String {
        let digest = Sha256::new()
            .chain_update(&self.inputs)
            .chain_update([0])
            .chain_update(archive)
            .finalize();
        hex::encode(&digest[..16])
    }

    /// The entry for a key, if it exists and its digest is right.
    pub fn get(&self, key: &str) -> Result<Option<CachedArchive>> {
        let Some(entry) = self.find(key)? else {
            return Ok(None);
        };
        if sha256(&entry.path)?.0 == entry.record.sha256 {
            return Ok(Some(entry));
        }
        log::debug!("cache entry {} is damaged", entry.path.display());
        Ok(None)
    }

    /// The entry for a key, if it exists. Check the digest with
    /// [`CachedArchive::expected_hash`] after reading it.
    pub fn find(&self, key: &str) -> Result<Option<CachedArchive>> {
        let path = self.folder.join(format!("{key}.tar"));
        let Some(record) = self.record(&self.folder.join(format!("{key}.json")))? else {
            return Ok(None);
        };
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.context(|| format!("{}", path.display()))?,
        };
        let metadata = file.metadata().context(|| format!("{}", path.display()))?;
        directory::require_owner(&path, &metadata)?;
        if metadata.len() != record.bytes {
            log::warn!("cache entry {key} is corrupted and will be created again");
            return Ok(None);
        }
        // Marks the entry as used, because eviction removes the least recently used entries.
        // Without write access it stays unmarked.
        let _ = file.set_times(FileTimes::new().set_modified(SystemTime::now()));
        Ok(Some(CachedArchive { path, record }))
    }

    /// The newest uncorrupted entry for these inputs, for any state of the package archives.
    pub fn newest(&self) -> Result<Option<CachedArchive>> {
        let mut found = self.records()?;
        while let Some((_, key)) = found.pop() {
            if let Some(entry) = self.get(&key)? {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    /// The date of the newest entry for these inputs, seconds since 1970. Reads only the records.
    pub fn newest_date(&self) -> Result<Option<i64>> {
        let there = |(date, key): &(i64, String)| {
            self.folder
                .join(format!("{key}.tar"))
                .is_file()
                .then_some(*date)
        };
        Ok(self.records()?.iter().rev().find_map(there))
    }

    /// Date and key of every entry for these inputs, newest last.
    fn records(&self) -> Result<Vec<(i64, String)>> {
        let list = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.context(|| format!("cache {}", self.folder.display()))?,
        };
        let mut found = Vec::new();
        for file in list {
            let path = file
                .context(|| format!("cache {}", self.folder.display()))?
                .path();
            if path.extension().is_some_and(|ending| ending == "json")
                && let Some(record) = self.record(&path)?
                && let Some(key) = path.file_stem()
            {
                found.push((record.date, key.to_string_lossy().into_owned()));
            }
        }
        found.sort();
        Ok(found)
    }

    /// The file for the output of a failed mmdebstrap; the next failure overwrites it.
    pub fn log(&self) -> PathBuf {
        self.folder.join("mmdebstrap.log")
    }

    /// Starts a new entry. Waits while another build creates the same one, which may exist
    /// afterwards.
    pub fn lock_slot(&self, key: &str) -> Result<CacheSlot<'_>> {
        let temporary = self.folder.join(format!("{key}{NEW}"));
        let shown = || format!("{}", temporary.display());
        loop {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(&temporary)
                .context(shown)?;
            let lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => lock,
                Err((file, _)) => {
                    log::info!("another build installs the same packages; waiting for it");
                    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| {
                        Error::new(format!("{}: locking: {}", shown(), error.desc()))
                    })?
                }
            };
            // The earlier holder of the lock has renamed or deleted its file. Only a lock on the
            // current file counts.
            let ours = lock.metadata().context(shown)?;
            if fs::metadata(&temporary)
                .is_ok_and(|now| (now.dev(), now.ino()) == (ours.dev(), ours.ino()))
            {
                return Ok(CacheSlot {
                    cache: self,
                    key: key.to_owned(),
                    temporary,
                    lock,
                    is_published: false,
                });
            }
        }
    }

    fn record(&self, path: &Path) -> Result<Option<Record>> {
        let bytes = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.context(|| format!("{}", path.display()))?,
        };
        // Ignores records of another format or with other inputs.
        Ok(serde_json::from_slice::<Record>(&bytes)
            .ok()
            .filter(|record| record.inputs == self.inputs))
    }
}

impl CacheSlot<'_> {
    /// Path for the archive.
    pub fn path(&self) -> &Path {
        &self.temporary
    }

    /// Publishes it as a finished entry.
    pub fn publish(mut self, date: i64, archive: Archive) -> Result<CachedArchive> {
        let (sha256, bytes) = sha256(&self.temporary)?;
        self.lock
            .sync_all()
            .context(|| format!("{}", self.temporary.display()))?;
        let record = Record {
            inputs: self.cache.inputs.clone(),
            sha256,
            bytes,
            date,
            archive,
        };
        let folder = &self.cache.folder;
        let path = folder.join(format!("{}.tar", self.key));
        let json = serde_json::to_vec(&record).map_err(|e| Error::new(format!("cache: {e}")))?;
        let temporary = folder.join(format!("{}.new", self.key));
        fs::write(&temporary, json).context(|| format!("{}", temporary.display()))?;
        fs::rename(&self.temporary, &path).context(|| format!("{}", path.display()))?;
        self.is_published = true;
        fs::rename(&temporary, folder.join(format!("{}.json", self.key)))
            .context(|| format!("{}", path.display()))?;
        Ok(CachedArchive { path, record })
    }
}

/// SHA-256 (hexadecimal) and length in bytes of a file.
fn sha256(path: &Path) -> Result<(String, u64)> {
    let what = || format!("{}", path.display());
    let part = File::open(path).and_then(Part::whole).context(what)?;
    Ok((
        hex::encode(&part.sha256(|_| Ok(())).context(what)?),
        part.len(),
    ))
}

impl Drop for CacheSlot<'_> {
    fn drop(&mut self) {
        if !self.is_published {
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignores_corrupted_entries_and_other_inputs() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path();
        let cache = ArchiveCache::open(dir, "trixie a").unwrap();
        let (old, new) = (cache.key(&[1; 32]), cache.key(&[2; 32]));
        assert!(cache.get(&old).unwrap().is_none() && cache.newest().unwrap().is_none());
        for (key, date) in [(&old, 5), (&new, 9)] {
            let slot = cache.lock_slot(key).unwrap();
            fs::write(slot.path(), key).unwrap();
            slot.publish(date, Archive::default()).unwrap();
        }
        assert_eq!(cache.newest().unwrap().unwrap().seconds(), 9);
        let path = cache.get(&new).unwrap().unwrap().path().to_owned();
        fs::write(path, "altered").unwrap();
        assert!(cache.get(&new).unwrap().is_none());
        assert_eq!(cache.newest().unwrap().unwrap().seconds(), 5);
        let other = ArchiveCache::open(dir, "trixie b").unwrap();
        assert!(other.newest().unwrap().is_none() && other.newest_date().unwrap().is_none());
        // The records alone still list the altered entry.
        assert_eq!(
            ArchiveCache::at(dir, "trixie a").newest_date().unwrap(),
            Some(9)
        );
        assert_eq!(
            ArchiveCache::at(&dir.join("nowhere"), "trixie a")
                .newest_date()
                .unwrap(),
            None
        );
    }

    #[test]
    fn only_builds_of_the_same_entry_wait_for_each_other() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path();
        let left = dir.join("debian/00.new.tar");
        fs::create_dir_all(dir.join("debian")).unwrap();
        fs::write(&left, "a killed build's").unwrap();
        let cache = ArchiveCache::open(dir, "trixie").unwrap();
        assert!(!left.exists());
        let first = cache.lock_slot("aa").unwrap();
        fs::write(first.path(), "packages").unwrap();
        // Another entry does not wait, opening the cache does not wait, and unfinished entries
        // stay.
        drop(cache.lock_slot("bb").unwrap());
        let cache = ArchiveCache::open(dir, "trixie").unwrap();
        assert!(first.path().exists());
        std::thread::scope(|scope| {
            let second = scope.spawn(|| {
                let slot = cache.lock_slot("aa").unwrap();
                (
                    cache.get("aa").unwrap().is_some(),
                    fs::metadata(slot.path()).unwrap().len(),
                )
            });
            std::thread::sleep(std::time::Duration::from_millis(50));
            assert!(!second.is_finished());
            first.publish(7, Archive::default()).unwrap();
            assert_eq!(second.join().unwrap(), (true, 0));
        });
        let mut names: Vec<_> = fs::read_dir(dir.join("debian"))
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["aa.json", "aa.tar"]);
    }
}
