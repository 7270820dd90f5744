//! The print of an entry: its metadata and digests in 44 bytes, recorded to detect changes.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::fcntl::readlinkat;
use nix::sys::stat::{FileStat, SFlag};
use sha2::{Digest as _, Sha256};

use super::Buffers;
use super::pace::Pace;
use crate::kernel::xattr;

/// The first half of a SHA-256. A user who makes two files with the same digest can only lose a
/// change of their own.
pub type Digest = [u8; 16];

/// A digest in progress. Its functions are never inlined, to keep the agent small.
pub struct Hash(Sha256);

impl Hash {
    #[inline(never)]
    pub fn new() -> Hash {
        Hash(Sha256::new())
    }

    #[inline(never)]
    pub fn add(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn number(&mut self, number: u64) {
        self.add(&number.to_le_bytes());
    }

    /// The complete digest.
    #[inline(never)]
    pub fn digest(self) -> [u8; 32] {
        self.0.finalize().into()
    }

    /// The first half of the digest.
    pub fn half_digest(self) -> Digest {
        let mut digest = [0; 16];
        digest.copy_from_slice(&self.digest()[..16]);
        digest
    }
}

/// Whether an extended attribute is data. The others are labels of the running system, which
/// changes them by itself.
fn is_data(name: &[u8]) -> bool {
    let labels: [&[u8]; 4] = [
        b"security.selinux\0",
        b"security.ima\0",
        b"security.evm\0",
        b"system.nfs4_acl\0",
    ];
    !labels.contains(&name) && !name.starts_with(b"security.SMACK64")
}

/// An entry's metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryMetadata {
    /// Type and permissions.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    /// Seconds and nanoseconds since 1970.
    pub modified: (i64, u32),
    pub inode: u64,
    pub links: u64,
    pub device: u64,
}

impl From<&FileStat> for EntryMetadata {
    fn from(found: &FileStat) -> EntryMetadata {
        EntryMetadata {
            mode: found.st_mode,
            uid: found.st_uid,
            gid: found.st_gid,
            size: found.st_size as u64,
            modified: (found.st_mtime, found.st_mtime_nsec as u32),
            inode: found.st_ino,
            links: found.st_nlink as _,
            device: found.st_rdev,
        }
    }
}

impl EntryMetadata {
    /// The type bits of the mode.
    pub fn kind(&self) -> SFlag {
        SFlag::from_bits_truncate(self.mode & SFlag::S_IFMT.bits())
    }

    pub fn is_folder(&self) -> bool {
        self.kind() == SFlag::S_IFDIR
    }

    /// Whether a file has several names. A directory's links are not names.
    pub fn is_linked(&self) -> bool {
        self.links > 1 && !self.is_folder()
    }

    pub fn is_file(&self) -> bool {
        self.kind() == SFlag::S_IFREG
    }
}

/// The record of one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Print {
    /// Digest of path, type, permissions, owner, size, device number and number of links.
    pub shape: Digest,
    /// Digest of extended attributes and content; a symbolic link's content is its target.
    pub content: Digest,
    /// Modification time; 0 for a directory, whose time only reflects changes of its entries.
    pub modified: (i64, u32),
}

/// Size of a print in the record, bytes.
pub const PRINT_BYTES: usize = 16 + 16 + 8 + 4;

impl Print {
    /// The print of an entry at `path`, relative to the volume.
    pub fn new(path: &Path, metadata: &EntryMetadata, content: Digest) -> Print {
        Print {
            shape: shape(path, metadata),
            content,
            modified: if metadata.is_folder() {
                (0, 0)
            } else {
                metadata.modified
            },
        }
    }

    /// Whether the entries are equal except for the modification time, which differs between two
    /// builds of the same content.
    pub fn is_same_content(&self, other: &Print) -> bool {
        (self.shape, self.content) == (other.shape, other.content)
    }

    /// The print as bytes of the record.
    pub fn to_bytes(self) -> [u8; PRINT_BYTES] {
        let mut bytes = [0; PRINT_BYTES];
        bytes[..16].copy_from_slice(&self.shape);
        bytes[16..32].copy_from_slice(&self.content);
        bytes[32..40].copy_from_slice(&self.modified.0.to_le_bytes());
        bytes[40..].copy_from_slice(&self.modified.1.to_le_bytes());
        bytes
    }

    /// A print from bytes of the record.
    pub fn from_bytes(bytes: &[u8; PRINT_BYTES]) -> Print {
        let mut print = Print {
            shape: [0; 16],
            content: [0; 16],
            modified: (0, 0),
        };
        let (mut seconds, mut rest) = ([0; 8], [0; 4]);
        print.shape.copy_from_slice(&bytes[..16]);
        print.content.copy_from_slice(&bytes[16..32]);
        seconds.copy_from_slice(&bytes[32..40]);
        rest.copy_from_slice(&bytes[40..]);
        print.modified = (i64::from_le_bytes(seconds), u32::from_le_bytes(rest));
        print
    }
}

/// The digest of an entry's metadata.
pub fn shape(path: &Path, metadata: &EntryMetadata) -> Digest {
    let kind = metadata.kind();
    let is_device = kind == SFlag::S_IFCHR || kind == SFlag::S_IFBLK;
    // Linux gives a symbolic link all permissions, and a directory the size and the links that its
    // file system needs.
    let mode = if kind == SFlag::S_IFLNK {
        kind.bits()
    } else {
        metadata.mode
    };
    let size = if metadata.is_file() || kind == SFlag::S_IFLNK {
        metadata.size
    } else {
        0
    };
    let links = if metadata.is_folder() {
        0
    } else {
        metadata.links
    };
    let path = path.as_os_str().as_bytes();
    let mut hash = Hash::new();
    hash.number(path.len() as u64);
    hash.add(path);
    let device = if is_device { metadata.device } else { 0 };
    for number in [
        mode.into(),
        metadata.uid.into(),
        metadata.gid.into(),
        size,
        links,
        device,
    ] {
        hash.number(number);
    }
    hash.half_digest()
}

/// Begins the digest of an open entry's content with its extended attributes. Also returns whether
/// it has any, including those that are not data.
pub fn begin_content(open: &impl AsFd, buffers: &mut Buffers) -> io::Result<(Hash, bool)> {
    let Buffers {
        many: list,
        one: value,
        ..
    } = buffers;
    let open = open.as_fd();
    let length = xattr::list(open, list)?;
    let mut names: Vec<&[u8]> = list[..length]
        .split_inclusive(|&b| b == 0)
        .filter(|name| is_data(name))
        .collect();
    sort_names(&mut names);
    let mut hash = Hash::new();
    hash.number(names.len() as u64);
    for name in names {
        let text = CStr::from_bytes_with_nul(name).map_err(io::Error::other)?;
        let size = xattr::get(open, text, value)?;
        hash.number(name.len() as u64);
        hash.number(size as u64);
        hash.add(name);
        hash.add(&value[..size]);
    }
    Ok((hash, length > 0))
}

/// Sorts a short list of names.
fn sort_names(names: &mut [&[u8]]) {
    for end in 1..names.len() {
        let mut at = end;
        while at > 0 && names[at] < names[at - 1] {
            names.swap(at, at - 1);
            at -= 1;
        }
    }
}

/// The digest of an open directory's extended attributes, and whether it has any.
pub fn attributes_of(open: &impl AsFd, buffers: &mut Buffers) -> io::Result<(Digest, bool)> {
    begin_content(open, buffers).map(|(hash, any)| (hash.half_digest(), any))
}

/// The digest of an open file: its extended attributes and `size` bytes.
pub fn digest_of_file(
    mut file: &File,
    size: u64,
    buffers: &mut Buffers,
    pace: &mut Pace,
) -> io::Result<Digest> {
    let (mut hash, _) = begin_content(file, buffers)?;
    let mut left = size;
    while left > 0 {
        let part = left.min(buffers.many.len() as u64) as usize;
        let count = file.read(&mut buffers.many[..part])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        hash.add(&buffers.many[..count]);
        left -= count as u64;
        pace.count_bytes(count as u64);
    }
    Ok(hash.half_digest())
}

/// The digest of a symbolic link's target.
pub fn digest_of_link(folder: BorrowedFd, name: &Path) -> nix::Result<Digest> {
    let mut hash = Hash::new();
    hash.add(readlinkat(folder, name)?.as_bytes());
    Ok(hash.half_digest())
}
