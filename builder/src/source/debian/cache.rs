//! Archives that were put together before: `KEY.tar`, and `KEY.json` with its digest, its date and the words it stands for.
//!
//! Entries appear by rename, tar first. A damaged entry is found by its digest and made again. All of it is safe to delete.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use adamant_agent::hash::hex;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Context, Error, Result};

/// Part of the key: raised when what is done with mmdebstrap's output changes.
const FORMAT: u32 = 1;

/// The cache, seen for one source. Held by one build at a time.
#[derive(Debug)]
pub struct Cache {
    folder: PathBuf,
    words: String,
    _lock: Flock<File>,
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
}

/// A place for a new entry.
#[derive(Debug)]
pub struct Place<'a> {
    cache: &'a Cache,
    key: String,
    temporary: PathBuf,
}

impl Entry {
    /// The archive.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The date of the Debian archive it was made from, seconds since 1970.
    pub fn seconds(&self) -> i64 {
        self.record.date
    }

    /// The same for people: days before now would need a clock, so the number it is.
    pub fn date(&self) -> String {
        format!("@{}", self.record.date)
    }
}

impl Cache {
    /// Waits until no other build uses the same folder.
    pub fn open(folder: &Path, words: &str) -> Result<Cache> {
        let folder = folder.join("debian");
        fs::create_dir_all(&folder).context(|| format!("cache {}", folder.display()))?;
        let dir = File::open(&folder).context(|| format!("cache {}", folder.display()))?;
        let lock =
            Flock::lock(dir, FlockArg::LockExclusive).map_err(|(_, error)| Error::new(format!("cache {}: locking: {}", folder.display(), error.desc())))?;
        Ok(Cache { folder, words: words.to_owned(), _lock: lock })
    }

    /// The key for these words and this state of the archive.
    pub fn key(&self, archive: &[u8; 32]) -> String {
        let digest = Sha256::new().chain_update(FORMAT.to_le_bytes()).chain_update(&self.words).chain_update([0]).chain_update(archive).finalize();
        hex(&digest[..16])
    }

    /// The entry for a key, if it is there and whole.
    pub fn get(&self, key: &str) -> Result<Option<Entry>> {
        let path = self.folder.join(format!("{key}.tar"));
        let Some(record) = self.record(&self.folder.join(format!("{key}.json")))? else { return Ok(None) };
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.context(|| format!("{}", path.display()))?,
        };
        if digest(&file).context(|| format!("{}", path.display()))? != (record.sha256.clone(), record.bytes) {
            log::warn!("cache entry {key} is damaged and will be made again");
            return Ok(None);
        }
        Ok(Some(Entry { path, record }))
    }

    /// The newest whole entry for these words, whatever state of the archive it is from.
    pub fn newest(&self) -> Result<Option<Entry>> {
        let mut found = Vec::new();
        for file in fs::read_dir(&self.folder).context(|| format!("cache {}", self.folder.display()))? {
            let path = file.context(|| format!("cache {}", self.folder.display()))?.path();
            if path.extension().is_some_and(|ending| ending == "json")
                && let Some(record) = self.record(&path)?
                && let Some(key) = path.file_stem()
            {
                found.push((record.date, key.to_string_lossy().into_owned()));
            }
        }
        found.sort();
        while let Some((_, key)) = found.pop() {
            if let Some(entry) = self.get(&key)? {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    /// A place for a new entry.
    pub fn place(&self, key: &str) -> Result<Place<'_>> {
        // We hold the lock: what is there is a killed build's.
        let temporary = self.folder.join("new.tar");
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Error::new(format!("{}: {error}", temporary.display()))),
            _ => {}
        }
        Ok(Place { cache: self, key: key.to_owned(), temporary })
    }

    fn record(&self, path: &Path) -> Result<Option<Record>> {
        let bytes = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.context(|| format!("{}", path.display()))?,
        };
        // A record of another format or other words is simply not ours.
        Ok(serde_json::from_slice::<Record>(&bytes).ok().filter(|record| record.words == self.words))
    }
}

impl Place<'_> {
    /// Where to put the archive.
    pub fn path(&self) -> &Path {
        &self.temporary
    }

    /// Makes it an entry.
    pub fn keep(self, date: i64) -> Result<Entry> {
        let file = File::open(&self.temporary).context(|| format!("{}", self.temporary.display()))?;
        let (sha256, bytes) = digest(&file).context(|| format!("{}", self.temporary.display()))?;
        file.sync_all().context(|| format!("{}", self.temporary.display()))?;
        let record = Record { words: self.cache.words.clone(), sha256, bytes, date };
        let folder = &self.cache.folder;
        let path = folder.join(format!("{}.tar", self.key));
        let json = serde_json::to_vec(&record).map_err(|e| Error::new(format!("cache: {e}")))?;
        let temporary = folder.join("new.json");
        fs::write(&temporary, json).context(|| format!("{}", temporary.display()))?;
        fs::rename(&self.temporary, &path).context(|| format!("{}", path.display()))?;
        fs::rename(&temporary, folder.join(format!("{}.json", self.key))).context(|| format!("{}", path.display()))?;
        Ok(Entry { path, record })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.temporary);
    }
}

fn digest(file: &File) -> io::Result<(String, u64)> {
    let mut hash = Sha256::new();
    let mut reader = io::BufReader::with_capacity(1 << 20, file);
    let mut bytes = 0;
    loop {
        let chunk = io::BufRead::fill_buf(&mut reader)?;
        if chunk.is_empty() {
            return Ok((hex(&hash.finalize()), bytes));
        }
        hash.update(chunk);
        let count = chunk.len();
        bytes += count as u64;
        io::BufRead::consume(&mut reader, count);
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
            place.keep(date).unwrap();
        }
        assert_eq!(cache.newest().unwrap().unwrap().seconds(), 9);
        let path = cache.get(&new).unwrap().unwrap().path().to_owned();
        fs::write(path, "altered").unwrap();
        assert!(cache.get(&new).unwrap().is_none());
        assert_eq!(cache.newest().unwrap().unwrap().seconds(), 5);
        drop(cache);
        let other = Cache::open(&dir, "trixie b").unwrap();
        assert!(other.newest().unwrap().is_none());
        fs::remove_dir_all(&dir).unwrap();
    }
}
