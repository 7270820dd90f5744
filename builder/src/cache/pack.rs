//! A pack: values one behind another, then an index, then a footer with the index's position and
//! digest. A pack is written without a name, and gets one when it is complete. Digests detect
//! corruption after that.
//!
//! | part | bytes | content |
//! |---|---|---|
//! | header | 16 | `adamant results2` |
//! | values | | |
//! | index | 60 for each value | [`IndexRecord`] |
//! | footer | 64 | [`Footer`] |
//!
//! Numbers are little-endian. Every key and every value that is used is hashed, therefore BLAKE3:
//! SHA-256 took a quarter of the time of a build with few changes.

use std::fs::{self, File, FileTimes, OpenOptions};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use adamant_contract::hex;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::libc;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::CacheKey;
use crate::io::unnamed::create_unnamed;

const MAGIC: &[u8; 16] = b"adamant results2";
/// Extension of a pack's name.
const EXTENSION: &str = "pack";
/// Largest value, bytes. Larger ones are not cached.
const VALUE_MAX: u32 = 64 << 20;

/// A record of the index.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct IndexRecord {
    key: [u8; 32],
    entry: PackEntry,
}

/// Position and digest of a value in its pack.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct PackEntry {
    offset: U64,
    len: U32,
    /// The first 16 bytes of BLAKE3 of key and value.
    digest: [u8; 16],
}

/// The end of a pack.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Footer {
    index_offset: U64,
    count: U64,
    /// BLAKE3 of the index.
    index_digest: [u8; 32],
    magic: [u8; 16],
}

const _: () = assert!(size_of::<IndexRecord>() == 60 && size_of::<Footer>() == 64);

/// A pack, open for reading.
#[derive(Debug)]
pub struct Pack {
    /// Its file.
    pub path: PathBuf,
    /// Time of its last use.
    pub time: SystemTime,
    file: File,
    index: Vec<u8>,
}

/// All packs in a directory, valid or not.
pub fn paths(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == EXTENSION)
        {
            paths.push(path);
        }
    }
    paths.sort_unstable();
    Ok(paths)
}

fn corrupted(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the pack is corrupted: {what}"),
    )
}

fn value_digest(key: &CacheKey, value: &[u8]) -> [u8; 16] {
    let digest = blake3::Hasher::new()
        .update(&key.0)
        .update(value)
        .finalize();
    let mut first = [0; 16];
    first.copy_from_slice(&digest.as_bytes()[..16]);
    first
}

impl Pack {
    /// Opens a pack and checks its index.
    pub fn open(path: &Path) -> io::Result<Pack> {
        let mut file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path)?;
        let meta = file.metadata()?;
        let footer_at = meta
            .len()
            .checked_sub(size_of::<Footer>() as u64)
            .ok_or_else(|| corrupted("it is too short"))?;
        let mut footer = [0; size_of::<Footer>()];
        file.read_exact_at(&mut footer, footer_at)?;
        let footer: Footer = zerocopy::transmute!(footer);
        let index_at = footer.index_offset.get();
        let len = footer
            .count
            .get()
            .checked_mul(size_of::<IndexRecord>() as u64)
            .filter(|len| index_at.checked_add(*len) == Some(footer_at) && footer.magic == *MAGIC);
        let len = len.ok_or_else(|| corrupted("its footer is not that of a pack"))?;
        file.seek(SeekFrom::Start(index_at))?;
        let mut index = Vec::new();
        Read::by_ref(&mut file).take(len).read_to_end(&mut index)?;
        if index.len() as u64 != len || *blake3::hash(&index).as_bytes() != footer.index_digest {
            return Err(corrupted("its index has a wrong digest"));
        }
        Ok(Pack {
            path: path.to_owned(),
            time: meta.modified()?,
            file,
            index,
        })
    }

    /// All keys, with the positions of their values.
    pub fn entries(&self) -> impl Iterator<Item = (CacheKey, PackEntry)> {
        let records = <[IndexRecord]>::ref_from_bytes(&self.index).unwrap_or_default();
        records
            .iter()
            .map(|record| (CacheKey(record.key), record.entry))
    }

    /// A value, if it still has its digest.
    pub fn read(&self, key: &CacheKey, entry: &PackEntry) -> Option<Vec<u8>> {
        if entry.len > VALUE_MAX {
            return None;
        }
        let mut value = vec![0; entry.len.get() as usize];
        self.file
            .read_exact_at(&mut value, entry.offset.get())
            .ok()?;
        (value_digest(key, &value) == entry.digest).then_some(value)
    }

    /// Marks it as used now.
    pub fn touch(&self) {
        // Fails for a cache without write permission, from which adamant evicts nothing either.
        let _ = self
            .file
            .set_times(FileTimes::new().set_modified(SystemTime::now()));
    }

    /// Deletes its file.
    pub fn remove(&self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// A pack in the making.
#[derive(Debug)]
pub struct PackWriter {
    out: BufWriter<File>,
    at: u64,
    index: Vec<u8>,
    /// The name that it has already, on file systems without unnamed files.
    named: Option<PathBuf>,
}

impl PackWriter {
    /// An empty one.
    pub fn new(folder: &Path) -> io::Result<PackWriter> {
        let (file, named) = match create_unnamed(folder)? {
            Some(file) => (file, None),
            None => {
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
        };
        let mut out = BufWriter::with_capacity(1 << 20, file);
        out.write_all(MAGIC)?;
        Ok(PackWriter {
            out,
            at: MAGIC.len() as u64,
            index: Vec::new(),
            named,
        })
    }

    /// Appends a value.
    pub fn put(&mut self, key: CacheKey, value: &[u8]) -> io::Result<()> {
        let len = u32::try_from(value.len())
            .ok()
            .filter(|len| *len <= VALUE_MAX);
        // Too large a value is computed again in each build.
        let Some(len) = len else { return Ok(()) };
        self.out.write_all(value)?;
        let record = IndexRecord {
            key: key.0,
            entry: PackEntry {
                offset: self.at.into(),
                len: len.into(),
                digest: value_digest(&key, value),
            },
        };
        self.index.extend_from_slice(record.as_bytes());
        self.at += u64::from(len);
        Ok(())
    }

    /// Writes index and footer, and gives the pack its name.
    pub fn finish(mut self, folder: &Path) -> io::Result<()> {
        let digest = *blake3::hash(&self.index).as_bytes();
        let footer = Footer {
            index_offset: self.at.into(),
            count: ((self.index.len() / size_of::<IndexRecord>()) as u64).into(),
            index_digest: digest,
            magic: *MAGIC,
        };
        self.out.write_all(&self.index)?;
        self.out.write_all(footer.as_bytes())?;
        let file = self
            .out
            .into_inner()
            .map_err(io::IntoInnerError::into_error)?;
        let name = folder.join(format!("{}.{EXTENSION}", hex::encode(&digest[..16])));
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
            // Another build has written the same pack.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        }
    }
}
