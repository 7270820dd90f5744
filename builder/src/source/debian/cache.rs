//! Archives that were put together before: `KEY.tar`, and `KEY.json` with its digest, its date and
//! the words it stands for.
//!
//! Entries appear by rename, tar first. A damaged entry is found by its digest and made again. An
//! entry in the making is `KEY.new.tar`, locked by the build that makes it: builds of other sources
//! do not wait for it, and one that nobody holds is a killed build's. All of it is safe to delete.

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
use crate::error::{Context, Error, Result};
use crate::io::part::Part;
use crate::source::{ArchiveHash, Claim};

/// What the name of an entry in the making ends with.
const NEW: &str = ".new.tar";

/// The cache, seen for one source.
#[derive(Debug)]
pub struct Cache {
    folder: PathBuf,
    words: String,
}

/// An entry that is there.
#[derive(Debug)]
pub struct Entry {
    path: PathBuf,
    record: Record,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    words: String,
    sha256: String,
    bytes: u64,
    /// Of the archive, seconds since 1970.
    date: i64,
    /// What manifest and messages say about the archives.
    #[serde(default)]
    archive: Archive,
}

/// The files of every entry in the folder of all caches, each with its archive first.
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

/// A place for a new entry. Held by one build at a time.
#[derive(Debug)]
pub struct Place<'a> {
    cache: &'a Cache,
    key: String,
    temporary: PathBuf,
    lock: Flock<File>,
    kept: bool,
}

impl Entry {
    /// The archive.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What its SHA-256 has to be for these to be the bytes it was made of.
    pub fn claim(&self, hash: &ArchiveHash) -> Claim {
        Claim {
            hash: hash.clone(),
            sha256: self.record.sha256.clone(),
        }
    }

    /// The date of the Debian archive it was made from, seconds since 1970.
    pub fn seconds(&self) -> i64 {
        self.record.date
    }

    /// The suites that it was made from.
    pub fn archive(&self) -> &Archive {
        &self.record.archive
    }
}

impl Cache {
    /// The one in this folder, which need not be there.
    pub fn at(folder: &Path, words: &str) -> Cache {
        Cache {
            folder: folder.join("debian"),
            words: words.to_owned(),
        }
    }

    /// Makes the folder, and takes away what killed builds left in it.
    pub fn open(folder: &Path, words: &str) -> Result<Cache> {
        let cache = Cache::at(folder, words);
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

    /// The key for these words and this state of the archive.
    pub fn key(&self, archive: &[u8; 32]) -> String {
        let digest = Sha256::new()
            .chain_update(&self.words)
            .chain_update([0])
            .chain_update(archive)
            .finalize();
        hex::encode(&digest[..16])
    }

    /// The entry for a key, if it is there and whole.
    pub fn get(&self, key: &str) -> Result<Option<Entry>> {
        let Some(entry) = self.find(key)? else {
            return Ok(None);
        };
        if sha256(&entry.path)?.0 == entry.record.sha256 {
            return Ok(Some(entry));
        }
        log::debug!("cache entry {} is damaged", entry.path.display());
        Ok(None)
    }

    /// The entry for a key, if it is there. Whether it is whole, [`Entry::claim`] says to who has
    /// read it.
    pub fn find(&self, key: &str) -> Result<Option<Entry>> {
        let path = self.folder.join(format!("{key}.tar"));
        let Some(record) = self.record(&self.folder.join(format!("{key}.json")))? else {
            return Ok(None);
        };
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.context(|| format!("{}", path.display()))?,
        };
        if file
            .metadata()
            .context(|| format!("{}", path.display()))?
            .len()
            != record.bytes
        {
            log::warn!("cache entry {key} is damaged and will be made again");
            return Ok(None);
        }
        // For who takes away what was not used for longest. A cache that is another's stays as it
        // is.
        let _ = file.set_times(FileTimes::new().set_modified(SystemTime::now()));
        Ok(Some(Entry { path, record }))
    }

    /// The newest whole entry for these words, whatever state of the archive it is from.
    pub fn newest(&self) -> Result<Option<Entry>> {
        let mut found = self.records()?;
        while let Some((_, key)) = found.pop() {
            if let Some(entry) = self.get(&key)? {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    /// The date of the newest entry for these words, seconds since 1970, going by its record alone.
    pub fn newest_date(&self) -> Result<Option<i64>> {
        let there = |(date, key): &(i64, String)| {
            self.folder
                .join(format!("{key}.tar"))
                .is_file()
                .then_some(*date)
        };
        Ok(self.records()?.iter().rev().find_map(there))
    }

    /// Date and key of every entry for these words, the newest last.
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

    /// Where the output of a failed mmdebstrap is left; the next failure replaces it.
    pub fn log(&self) -> PathBuf {
        self.folder.join("mmdebstrap.log")
    }

    /// A place for a new entry. Waits while another build makes the same one: then it may be there
    /// already.
    pub fn place(&self, key: &str) -> Result<Place<'_>> {
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
                    log::info!("another build puts the same packages together; waiting for it");
                    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| {
                        Error::new(format!("{}: locking: {}", shown(), error.desc()))
                    })?
                }
            };
            // Who held it before has renamed or removed it: then it is not what stands there now.
            let ours = lock.metadata().context(shown)?;
            if fs::metadata(&temporary)
                .is_ok_and(|now| (now.dev(), now.ino()) == (ours.dev(), ours.ino()))
            {
                return Ok(Place {
                    cache: self,
                    key: key.to_owned(),
                    temporary,
                    lock,
                    kept: false,
                });
            }
        }
    }

    fn record(&self, path: &Path) -> Result<Option<Record>> {
        let bytes = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.context(|| format!("{}", path.display()))?,
        };
        // A record of another format or other words is simply not ours.
        Ok(serde_json::from_slice::<Record>(&bytes)
            .ok()
            .filter(|record| record.words == self.words))
    }
}

impl Place<'_> {
    /// Where to put the archive.
    pub fn path(&self) -> &Path {
        &self.temporary
    }

    /// Makes it an entry.
    pub fn keep(mut self, date: i64, archive: Archive) -> Result<Entry> {
        let (sha256, bytes) = sha256(&self.temporary)?;
        self.lock
            .sync_all()
            .context(|| format!("{}", self.temporary.display()))?;
        let record = Record {
            words: self.cache.words.clone(),
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
        self.kept = true;
        fs::rename(&temporary, folder.join(format!("{}.json", self.key)))
            .context(|| format!("{}", path.display()))?;
        Ok(Entry { path, record })
    }
}

/// A file's SHA-256, hexadecimal, and its length in bytes.
fn sha256(path: &Path) -> Result<(String, u64)> {
    let what = || format!("{}", path.display());
    let part = File::open(path).and_then(Part::whole).context(what)?;
    Ok((
        hex::encode(&part.sha256(|_| Ok(())).context(what)?),
        part.len(),
    ))
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if !self.kept {
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_entry_and_other_words_are_not_found() {
        let dir = std::env::temp_dir().join(format!("adamant-cache-{}", std::process::id()));
        let cache = Cache::open(&dir, "trixie a").unwrap();
        let (old, new) = (cache.key(&[1; 32]), cache.key(&[2; 32]));
        assert!(cache.get(&old).unwrap().is_none() && cache.newest().unwrap().is_none());
        for (key, date) in [(&old, 5), (&new, 9)] {
            let place = cache.place(key).unwrap();
            fs::write(place.path(), key).unwrap();
            place.keep(date, Archive::default()).unwrap();
        }
        assert_eq!(cache.newest().unwrap().unwrap().seconds(), 9);
        let path = cache.get(&new).unwrap().unwrap().path().to_owned();
        fs::write(path, "altered").unwrap();
        assert!(cache.get(&new).unwrap().is_none());
        assert_eq!(cache.newest().unwrap().unwrap().seconds(), 5);
        let other = Cache::open(&dir, "trixie b").unwrap();
        assert!(other.newest().unwrap().is_none() && other.newest_date().unwrap().is_none());
        // Going by the records, the altered one is there.
        assert_eq!(Cache::at(&dir, "trixie a").newest_date().unwrap(), Some(9));
        assert_eq!(
            Cache::at(&dir.join("nowhere"), "trixie a")
                .newest_date()
                .unwrap(),
            None
        );
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn only_builds_of_the_same_entry_wait_for_each_other() {
        let dir = std::env::temp_dir().join(format!("adamant-cache-locks-{}", std::process::id()));
        let left = dir.join("debian/00.new.tar");
        fs::create_dir_all(dir.join("debian")).unwrap();
        fs::write(&left, "a killed build's").unwrap();
        let cache = Cache::open(&dir, "trixie").unwrap();
        assert!(!left.exists());
        let first = cache.place("aa").unwrap();
        fs::write(first.path(), "packages").unwrap();
        // Neither another entry nor opening the cache waits, and what is in the making is left
        // alone.
        drop(cache.place("bb").unwrap());
        let cache = Cache::open(&dir, "trixie").unwrap();
        assert!(first.path().exists());
        std::thread::scope(|scope| {
            let second = scope.spawn(|| {
                let place = cache.place("aa").unwrap();
                (
                    cache.get("aa").unwrap().is_some(),
                    fs::metadata(place.path()).unwrap().len(),
                )
            });
            std::thread::sleep(std::time::Duration::from_millis(50));
            assert!(!second.is_finished());
            first.keep(7, Archive::default()).unwrap();
            assert_eq!(second.join().unwrap(), (true, 0));
        });
        let mut names: Vec<_> = fs::read_dir(dir.join("debian"))
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["aa.json", "aa.tar"]);
        fs::remove_dir_all(&dir).unwrap();
    }
}
