//! Writing the disk: in order, sparse, hashed on the way.

use std::fs::File;
use std::os::unix::fs::FileExt;

use nix::unistd::{Whence, lseek};
use sha2::{Digest, Sha256};

use super::{Layout, Role};
use crate::error::{Context, Error, Result};
use crate::progress;

/// Bytes read and written at a time.
const CHUNK: usize = 4 << 20;

/// What is written into the partitions. Files are read once, from their starts.
#[derive(Debug, Clone, Copy)]
pub struct Contents<'a> {
    /// The EFI system partition's file system, where the layout has one.
    pub esp: Option<&'a File>,
    /// The root file system.
    pub root: &'a File,
    /// Its verity tree.
    pub tree: &'a File,
    /// The signature partition's bytes; empty: nobody has signed yet.
    pub signature: &'a [u8],
}

/// SHA-256 of what was read and written, so that nothing is read again to be hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digests {
    /// The root file system's artifact.
    pub root: [u8; 32],
    /// The whole disk.
    pub disk: [u8; 32],
}

impl Layout {
    /// Writes the disk into an empty file.
    pub fn write(&self, contents: &Contents, out: &File) -> Result<Digests> {
        out.set_len(self.bytes()).context(|| "making room for the disk image")?;
        progress::expect(self.bytes());
        let mut disk = Writer { out, at: 0, hash: Sha256::new() };
        let mut root_hash = Sha256::new();
        disk.put(&self.table.primary())?;
        for (partition, role) in self.table.partitions.iter().flatten().zip(&self.roles) {
            disk.zeros_until(partition.first * self.sector())?;
            let room = partition.sectors() * self.sector();
            let fits = |bytes: u64| match bytes <= room {
                true => Ok(()),
                false => Err(Error::new(format!("{bytes} bytes do not fit into the {room} of partition {:?}", partition.label))),
            };
            let length = |file: &File| file.metadata().context(|| partition.label.clone()).map(|meta| meta.len());
            match role {
                Role::Esp => {
                    let Some(file) = contents.esp else { continue };
                    fits(length(file)?)?;
                    disk.copy(file, None)?;
                }
                Role::Root => {
                    fits(length(contents.root)?)?;
                    disk.copy(contents.root, Some(&mut root_hash))?;
                }
                Role::Tree => {
                    fits(length(contents.tree)?)?;
                    disk.copy(contents.tree, None)?;
                }
                Role::Signature => {
                    fits(contents.signature.len() as u64)?;
                    disk.put(contents.signature)?;
                }
                Role::Blank => {}
            }
        }
        let backup = self.table.backup();
        disk.zeros_until(self.bytes() - backup.len() as u64)?;
        disk.put(&backup)?;
        Ok(Digests { root: root_hash.finalize().into(), disk: disk.hash.finalize().into() })
    }
}

/// Writes in order and hashes on the way; what is zero stays a hole.
struct Writer<'a> {
    out: &'a File,
    at: u64,
    hash: Sha256,
}

static ZEROS: [u8; 1 << 20] = [0; 1 << 20];

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all_at(bytes, self.at).context(|| "writing the disk image")?;
        self.hash.update(bytes);
        progress::add(bytes.len() as u64);
        self.at += bytes.len() as u64;
        Ok(())
    }

    fn zeros_until(&mut self, end: u64) -> Result<()> {
        while self.at < end {
            let take = (end - self.at).min(ZEROS.len() as u64);
            self.hash.update(&ZEROS[..take as usize]);
            progress::add(take);
            self.at += take;
        }
        Ok(())
    }

    /// A whole file, whose holes stay holes. `also` is a hash of the file alone.
    fn copy(&mut self, file: &File, mut also: Option<&mut Sha256>) -> Result<()> {
        let length = file.metadata().context(|| "the disk image's parts")?.len();
        let start = self.at;
        let mut at = 0;
        let mut buffer = vec![0; CHUNK];
        while at < length {
            let data = if also.is_some() { at } else { next_data(file, at, length) };
            self.zeros_until(start + data)?;
            at = data;
            let take = (length - at).min(CHUNK as u64) as usize;
            file.read_exact_at(&mut buffer[..take], at).context(|| "reading the disk image's parts")?;
            // Two hashes of the same bytes: one core each.
            std::thread::scope(|scope| {
                if let Some(also) = also.as_deref_mut() {
                    let buffer = &buffer[..take];
                    scope.spawn(move || also.update(buffer));
                }
                self.put(&buffer[..take])
            })?;
            at += take as u64;
        }
        Ok(())
    }
}

/// Where the next data begins: at `at` itself where the file system does not know holes, at `length` where there is none.
fn next_data(file: &File, at: u64, length: u64) -> u64 {
    match lseek(file, at as i64, Whence::SeekData) {
        Ok(data) => (data as u64).clamp(at, length),
        Err(nix::errno::Errno::ENXIO) => length,
        Err(_) => at,
    }
}
