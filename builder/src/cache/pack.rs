//! A pack: values one behind another, then an index, then a footer with the index's place and
//! digest. It is written without a name and gets one when it is whole, so a pack that is there was
//! finished; what happened to it since, digests tell.
//!
//! | bytes | what |
//! |---|---|
//! | the first 16 | `adamant results2` |
//! | then | values |
//! | then, 60 for each value | key (32), where it begins (8), its length (4), the first 16 bytes of BLAKE3 of key and value |
//! | the last 64 | where the index begins (8), number of values (8), BLAKE3 of the index (32), `adamant results2` |
//!
//! Numbers are little-endian. BLAKE3, since all that is found is hashed, as its input is: with
//! SHA-256 that was a quarter of a build with few changes.

use std::fs::{self, File, FileTimes, OpenOptions};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use adamant_contract::hex;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::libc;

use super::Key;

const MAGIC: &[u8; 16] = b"adamant results2";
const ENTRY: usize = 60;
const FOOTER: u64 = 64;
/// What a pack's name ends with.
const ENDING: &str = "pack";
/// Largest value, bytes: a segment that did not shrink, and what is said about it.
const VALUE_MAX: u32 = 64 << 20;

/// Where a value is in its pack.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    at: u64,
    len: u32,
    check: [u8; 16],
}

/// A pack that is read.
#[derive(Debug)]
pub struct Pack {
    /// Where it is.
    pub path: PathBuf,
    /// When it was used last.
    pub time: SystemTime,
    file: File,
    index: Vec<u8>,
}

/// All packs in a folder, whole or not.
pub fn paths(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == ENDING) {
            paths.push(path);
        }
    }
    paths.sort_unstable();
    Ok(paths)
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("a damaged pack: {what}"),
    )
}

fn check(key: &Key, value: &[u8]) -> [u8; 16] {
    let digest = blake3::Hasher::new()
        .update(&key.0)
        .update(value)
        .finalize();
    let mut check = [0; 16];
    check.copy_from_slice(&digest.as_bytes()[..16]);
    check
}

fn number(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

impl Pack {
    /// Opens a pack whose index is whole.
    pub fn open(path: &Path) -> io::Result<Pack> {
        let mut file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path)?;
        let meta = file.metadata()?;
        let footer_at = meta
            .len()
            .checked_sub(FOOTER)
            .ok_or_else(|| damaged("too short"))?;
        let mut footer = [0; FOOTER as usize];
        file.read_exact_at(&mut footer, footer_at)?;
        let (index_at, count) = (number(&footer[..8]), number(&footer[8..16]));
        let len = count
            .checked_mul(ENTRY as u64)
            .filter(|len| index_at.checked_add(*len) == Some(footer_at) && &footer[48..] == MAGIC);
        let len = len.ok_or_else(|| damaged("its end is not that of a pack"))?;
        file.seek(SeekFrom::Start(index_at))?;
        let mut index = Vec::new();
        Read::by_ref(&mut file).take(len).read_to_end(&mut index)?;
        if index.len() as u64 != len || blake3::hash(&index).as_bytes()[..] != footer[16..48] {
            return Err(damaged("its index has another digest"));
        }
        Ok(Pack {
            path: path.to_owned(),
            time: meta.modified()?,
            file,
            index,
        })
    }

    /// What is in it.
    pub fn entries(&self) -> impl Iterator<Item = (Key, Place)> {
        self.index.as_chunks::<ENTRY>().0.iter().map(|entry| {
            let (mut key, mut check) = ([0; 32], [0; 16]);
            key.copy_from_slice(&entry[..32]);
            check.copy_from_slice(&entry[44..]);
            (
                Key(key),
                Place {
                    at: number(&entry[32..40]),
                    len: number(&entry[40..44]) as u32,
                    check,
                },
            )
        })
    }

    /// A value, if it is still the one that was kept.
    pub fn read(&self, key: &Key, place: &Place) -> Option<Vec<u8>> {
        if place.len > VALUE_MAX {
            return None;
        }
        let mut value = vec![0; place.len as usize];
        self.file.read_exact_at(&mut value, place.at).ok()?;
        (check(key, &value) == place.check).then_some(value)
    }

    /// Notes that it was used.
    pub fn touch(&self) {
        // A cache that nobody may write to can't be marked; it is not pruned by us either.
        let _ = self
            .file
            .set_times(FileTimes::new().set_modified(SystemTime::now()));
    }

    /// Takes it away.
    pub fn remove(&self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// A pack that is written.
#[derive(Debug)]
pub struct Writer {
    out: BufWriter<File>,
    at: u64,
    index: Vec<u8>,
    /// The name that it has already, on file systems without unnamed files.
    named: Option<PathBuf>,
}

impl Writer {
    /// An empty one.
    pub fn new(folder: &Path) -> io::Result<Writer> {
        let unnamed = OpenOptions::new()
            .read(true)
            .write(true)
            .mode(0o600)
            .custom_flags(libc::O_TMPFILE)
            .open(folder);
        let (file, named) = match unnamed {
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::EOPNOTSUPP | libc::EISDIR | libc::EINVAL)
                ) =>
            {
                let path = folder.join(format!(".{}.new", std::process::id()));
                (
                    OpenOptions::new()
                        .write(true)
                        .mode(0o600)
                        .create(true)
                        .truncate(true)
                        .open(&path)?,
                    Some(path),
                )
            }
            other => (other?, None),
        };
        let mut out = BufWriter::with_capacity(1 << 20, file);
        out.write_all(MAGIC)?;
        Ok(Writer {
            out,
            at: MAGIC.len() as u64,
            index: Vec::new(),
            named,
        })
    }

    /// Appends a value.
    pub fn put(&mut self, key: Key, value: &[u8]) -> io::Result<()> {
        let len = u32::try_from(value.len())
            .ok()
            .filter(|len| *len <= VALUE_MAX);
        // What is too large to be kept is made again each time.
        let Some(len) = len else { return Ok(()) };
        self.out.write_all(value)?;
        self.index.extend_from_slice(&key.0);
        self.index.extend_from_slice(&self.at.to_le_bytes());
        self.index.extend_from_slice(&len.to_le_bytes());
        self.index.extend_from_slice(&check(&key, value));
        self.at += u64::from(len);
        Ok(())
    }

    /// Ends it, and gives it its name.
    pub fn finish(mut self, folder: &Path) -> io::Result<()> {
        let digest = *blake3::hash(&self.index).as_bytes();
        let count = self.index.len() / ENTRY;
        self.out.write_all(&self.index)?;
        for part in [
            &self.at.to_le_bytes()[..],
            &(count as u64).to_le_bytes(),
            &digest,
            MAGIC,
        ] {
            self.out.write_all(part)?;
        }
        let file = self
            .out
            .into_inner()
            .map_err(io::IntoInnerError::into_error)?;
        let name = folder.join(format!("{}.{ENDING}", hex::encode(&digest[..16])));
        let done = match &self.named {
            Some(path) => fs::rename(path, &name),
            None => {
                let source = format!("/proc/self/fd/{}", file.as_raw_fd());
                nix::unistd::linkat(
                    AT_FDCWD,
                    source.as_str(),
                    AT_FDCWD,
                    &name,
                    AtFlags::AT_SYMLINK_FOLLOW,
                )
                .map_err(io::Error::from)
            }
        };
        match done {
            // Another build kept the same.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        }
    }
}
