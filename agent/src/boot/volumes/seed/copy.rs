//! Copies members of the image into the staging directory with few system calls for each entry.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{
    FchmodatFlags, Mode, SFlag, UtimensatFlags, fchmod, fchmodat, futimens, mkdirat, mknodat,
    utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown, fchownat, getegid, geteuid, linkat, symlinkat, syncfs};

use super::super::probe::is_zero;
use super::pace::Pace;
use super::print::{Digest, EntryMetadata, begin_content, digest_of_link};
use super::units::{Entry, Member};
use super::{Buffers, SeedError};
use crate::kernel::{rooted_fs, xattr};

/// Written data is synced after this number of bytes, so that each wait for the disk is short.
const SYNC_BYTES: u64 = 64 << 20;

/// Copies from an image to the staging directory of a volume.
pub struct Copier<'a, 'p> {
    pub image: &'a OwnedFd,
    pub staging: &'a OwnedFd,
    pub buffers: &'a mut Buffers,
    pub pace: &'a mut Pace<'p>,
    /// Inodes with several names: number, path of the first copy in the staging directory, and
    /// digest.
    links: Vec<(u64, PathBuf, Digest)>,
    /// The umask: permission bits that new entries do not get.
    umask: u32,
    /// Owner and group of new entries.
    owner: (u32, u32),
}

impl<'a, 'p> Copier<'a, 'p> {
    /// Makes a copier that has copied nothing.
    pub fn new(
        image: &'a OwnedFd,
        staging: &'a OwnedFd,
        buffers: &'a mut Buffers,
        pace: &'a mut Pace<'p>,
        umask: u32,
    ) -> Copier<'a, 'p> {
        let owner = (geteuid().as_raw(), getegid().as_raw());
        Copier {
            image,
            staging,
            buffers,
            pace,
            links: Vec::new(),
            umask,
            owner,
        }
    }

    /// Copies a member to the name `staged` in the staging directory, and stores the digests of its
    /// content in the member.
    pub fn copy_member(&mut self, member: &mut Member, staged: &str) -> Result<(), SeedError> {
        let top = member.path.clone();
        let place = |entry: &Entry| -> PathBuf {
            match entry.path.strip_prefix(&top) {
                Ok(rest) if !rest.as_os_str().is_empty() => Path::new(staged).join(rest),
                _ => staged.into(),
            }
        };
        for entry in &mut member.entries {
            let to = place(entry);
            self.entry(entry, &to)?;
        }
        // Directories get their attributes last: making entries in one changes its time, and its
        // default ACL must not apply to the entries.
        for entry in member
            .entries
            .iter()
            .rev()
            .filter(|entry| entry.metadata.is_folder())
        {
            self.attributes(entry, &place(entry), entry.xattrs)?;
        }
        Ok(())
    }

    fn entry(&mut self, entry: &mut Entry, to: &Path) -> Result<(), SeedError> {
        self.pace.count_entry();
        let metadata = entry.metadata;
        let several = metadata.links > 1 && !metadata.is_folder();
        if several
            && let Some((_, first, content)) = self
                .links
                .iter()
                .find(|(inode, ..)| *inode == metadata.inode)
        {
            entry.content = Some(*content);
            let linked = linkat(
                self.staging,
                first.as_path(),
                self.staging,
                to,
                AtFlags::empty(),
            );
            return linked.map_err(|why| SeedError::volume(&entry.path, why));
        }
        let fail = |why: Errno| SeedError::volume(&entry.path, why);
        match metadata.kind() {
            SFlag::S_IFDIR => mkdirat(self.staging, to, Mode::S_IRWXU).map_err(fail)?,
            SFlag::S_IFREG => entry.content = Some(self.file(entry, to)?),
            SFlag::S_IFLNK => {
                let target = readlinkat(self.image, &entry.path)
                    .map_err(|why| SeedError::image(&entry.path, why))?;
                symlinkat(target.as_os_str(), self.staging, to).map_err(fail)?;
                entry.content = Some(
                    digest_of_link(self.image.as_fd(), &entry.path)
                        .map_err(|why| SeedError::image(&entry.path, why))?,
                );
                self.attributes(entry, to, true)?;
            }
            special => {
                mknodat(self.staging, to, special, Mode::S_IRWXU, metadata.device).map_err(fail)?;
                entry.content = Some(Digest::default());
                self.attributes(entry, to, true)?;
            }
        }
        if several && let Some(content) = entry.content {
            self.links.push((metadata.inode, to.to_owned(), content));
        }
        Ok(())
    }

    /// Copies a regular file. Long runs of zeros become holes.
    fn file(&mut self, entry: &Entry, to: &Path) -> Result<Digest, SeedError> {
        let read = |why: io::Error| SeedError::image(&entry.path, why);
        let write = |why: io::Error| SeedError::volume(&entry.path, why);
        let metadata = entry.metadata;
        let from = openat(
            self.image,
            &entry.path,
            OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC,
            Mode::empty(),
        );
        let mut from = File::from(from.map_err(|why| SeedError::image(&entry.path, why))?);
        let flags =
            OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let made = metadata.mode & 0o777;
        let to_file = openat(self.staging, to, flags, Mode::from_bits_truncate(made))
            .map_err(|why| SeedError::volume(&entry.path, why))?;
        let to_file = File::from(to_file);
        let (mut hash, has_xattrs) = begin_content(&from, self.buffers).map_err(read)?;
        let (mut at, mut end) = (0, 0);
        while at < metadata.size {
            let part = (metadata.size - at).min(self.buffers.many.len() as u64) as usize;
            let count = from.read(&mut self.buffers.many[..part]).map_err(read)?;
            if count == 0 {
                return Err(read(io::ErrorKind::UnexpectedEof.into()));
            }
            let bytes = &self.buffers.many[..count];
            hash.add(bytes);
            at += count as u64;
            if bytes.iter().any(|&b| b != 0) {
                to_file
                    .write_all_at(bytes, at - count as u64)
                    .map_err(write)?;
                end = at;
            }
            self.pace.count_bytes(count as u64);
            self.sync_at_times(count as u64, entry)?;
        }
        if end < metadata.size {
            to_file.set_len(metadata.size).map_err(write)?;
        }
        // A change of owner clears set-id bits and capabilities. So the order is owner,
        // permissions, attributes, time.
        if (metadata.uid, metadata.gid) != self.owner {
            fchown(
                &to_file,
                Some(Uid::from_raw(metadata.uid)),
                Some(Gid::from_raw(metadata.gid)),
            )
            .map_err(|why| write(why.into()))?;
        }
        if metadata.mode & 0o7777 != made & !self.umask {
            fchmod(&to_file, Mode::from_bits_truncate(metadata.mode & 0o7777))
                .map_err(|why| write(why.into()))?;
        }
        if has_xattrs {
            self.xattrs(entry, to)?;
        }
        futimens(&to_file, &time(&metadata), &time(&metadata)).map_err(|why| write(why.into()))?;
        Ok(hash.half_digest())
    }

    /// Syncs the volume after every [`SYNC_BYTES`] bytes.
    fn sync_at_times(&mut self, written: u64, entry: &Entry) -> Result<(), SeedError> {
        self.buffers.unsynced += written;
        if self.buffers.unsynced >= SYNC_BYTES {
            self.buffers.unsynced = 0;
            syncfs(self.staging).map_err(|why| SeedError::volume(&entry.path, why))?;
            self.pace.tick();
        }
        Ok(())
    }

    /// Copies owner, permissions, time and extended attributes of an entry that is not a regular
    /// file.
    fn attributes(&mut self, entry: &Entry, to: &Path, xattrs: bool) -> Result<(), SeedError> {
        copy_metadata(self.staging.as_fd(), to, &entry.metadata, self.owner)
            .map_err(|why| SeedError::volume(&entry.path, why))?;
        if xattrs {
            self.xattrs(entry, to)
        } else {
            Ok(())
        }
    }

    fn xattrs(&mut self, entry: &Entry, to: &Path) -> Result<(), SeedError> {
        let from = rooted_fs::through_proc(self.image.as_fd(), entry.path.as_os_str().as_bytes());
        let to = rooted_fs::through_proc(self.staging.as_fd(), to.as_os_str().as_bytes());
        copy_xattrs(&from, &to, self.buffers).map_err(|why| SeedError::volume(&entry.path, why))
    }
}

fn time(metadata: &EntryMetadata) -> TimeSpec {
    TimeSpec::new(metadata.modified.0, metadata.modified.1.into())
}

/// Copies owner, permissions and time, by name.
pub fn copy_metadata(
    to: BorrowedFd,
    name: &Path,
    metadata: &EntryMetadata,
    owner: (u32, u32),
) -> io::Result<()> {
    if (metadata.uid, metadata.gid) != owner {
        fchownat(
            to,
            name,
            Some(Uid::from_raw(metadata.uid)),
            Some(Gid::from_raw(metadata.gid)),
            AtFlags::AT_SYMLINK_NOFOLLOW,
        )?;
    }
    if metadata.kind() != SFlag::S_IFLNK {
        fchmodat(
            to,
            name,
            Mode::from_bits_truncate(metadata.mode & 0o7777),
            FchmodatFlags::FollowSymlink,
        )?;
    }
    Ok(utimensat(
        to,
        name,
        &time(metadata),
        &time(metadata),
        UtimensatFlags::NoFollowSymlink,
    )?)
}

/// Copies all extended attributes from one path to another, without following symbolic links.
pub fn copy_xattrs(from: &CStr, to: &CString, buffers: &mut Buffers) -> io::Result<()> {
    let Buffers {
        many: list,
        one: value,
        ..
    } = buffers;
    let length = xattr::list_at_path(from, list)?;
    for name in list[..length].split_inclusive(|&b| b == 0) {
        let name = CStr::from_bytes_with_nul(name).map_err(io::Error::other)?;
        let length = xattr::get_at_path(from, name, value)?;
        xattr::set_at_path(to, name, &value[..length])?;
    }
    Ok(())
}

/// Number of bytes of the image's file that are in runs of zeros which [`Copier`] turns into holes.
pub fn count_zeros(
    image: &OwnedFd,
    entry: &Entry,
    buffers: &mut Buffers,
    pace: &mut Pace,
) -> Result<u64, SeedError> {
    let fail = |why: io::Error| SeedError::image(&entry.path, why);
    let file = openat(
        image,
        &entry.path,
        OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
    .map_err(|e| fail(e.into()))?;
    let (mut file, mut zeros) = (File::from(file), 0);
    loop {
        let count = file.read(&mut buffers.many).map_err(fail)?;
        if count == 0 {
            return Ok(zeros);
        }
        if is_zero(&buffers.many[..count]) {
            zeros += count as u64;
        }
        pace.count_bytes(count as u64);
    }
}

/// This process' umask. It is read from /proc, because umask(2) can only read it by changing it,
/// which other threads would see. All bits if the kernel does not show it.
pub fn umask() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    line.and_then(|digits| u32::from_str_radix(digits.trim(), 8).ok())
        .unwrap_or(0o7777)
}
