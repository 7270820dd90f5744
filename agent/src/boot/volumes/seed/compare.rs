//! Compares a volume with what was seeded, and the image with what was seeded. Both stop at the
//! first difference.
//!
//! Unreadable data counts as changed: a comparison is never a reason to repair or remake a volume.

use std::collections::HashMap;
use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, SFlag};

use super::pace::Pace;
use super::print::{self, Digest, EntryMetadata, Print};
use super::units::{Covered, Entry, Member};
use super::{Buffers, SeedError};
use crate::kernel::rooted_fs::{self, open_folder, stat_entry};

/// For each inode with several hard links: number of names seen, and its link count.
pub type Links = HashMap<u64, (u64, u64)>;

/// What the volume has at a member's path.
pub enum PathState {
    Nothing,
    Something,
    /// A symbolic link or a file is in the position of a parent directory, or the disk does not
    /// answer.
    Unknown,
}

/// Checks whether a member's path exists on the volume.
pub fn path_state(volume: &OwnedFd, path: &Path) -> PathState {
    let Some((folder, name)) = parent_of(volume, path) else {
        return PathState::Unknown;
    };
    match folder.and_then(|folder| stat_entry(&folder, &name)) {
        Ok(Some(_)) => PathState::Something,
        Ok(None) | Err(Errno::ENOENT) => PathState::Nothing,
        Err(_) => PathState::Unknown,
    }
}

/// The open parent directory of a path on the volume, and the last name of the path. `None` for a
/// path without one.
pub fn parent_of(
    volume: &OwnedFd,
    path: &Path,
) -> Option<(nix::Result<OwnedFd>, std::ffi::CString)> {
    let name = rooted_fs::c_name(path.file_name()?)?;
    Some((rooted_fs::open_path(volume, path.parent()?), name))
}

/// A name as a path.
pub fn path_of(name: &CStr) -> PathBuf {
    OsStr::from_bytes(name.to_bytes()).into()
}

/// Compares a volume with its record.
pub struct Comparison<'a, 'p> {
    pub volume: &'a OwnedFd,
    pub covered: Covered<'a>,
    pub buffers: &'a mut Buffers,
    pub pace: &'a mut Pace<'p>,
    /// Whether data below a covered path counts as a difference, because replacing the member
    /// would move that data away.
    pub with_covered: bool,
}

/// The part of each entry that is compared.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Depth {
    Metadata,
    Content,
}

impl Comparison<'_, '_> {
    /// Whether a member matches these prints; without prints, whether it does not exist. All
    /// metadata is compared before any content, because a database that was used differs in
    /// metadata already. `links` collects the names of inodes with several.
    pub fn is_unchanged(
        &mut self,
        path: &Path,
        prints: Option<&[Print]>,
        links: &mut Links,
    ) -> bool {
        match (path_state(self.volume, path), prints) {
            (PathState::Nothing, None) => true,
            (PathState::Something, Some(prints)) => {
                self.matches(path, prints, Depth::Metadata, &mut Some(links))
                    && self.matches(path, prints, Depth::Content, &mut None)
            }
            _ => false,
        }
    }

    fn matches(
        &mut self,
        path: &Path,
        prints: &[Print],
        depth: Depth,
        links: &mut Option<&mut Links>,
    ) -> bool {
        let Some((Ok(folder), name)) = parent_of(self.volume, path) else {
            return false;
        };
        let mut left = prints.iter();
        self.entry(folder.as_fd(), &name, path, &mut left, depth, links, 0)
            .unwrap_or(false)
            && left.next().is_none()
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "a walk carries its place and its state"
    )]
    fn entry(
        &mut self,
        folder: BorrowedFd,
        name: &CStr,
        path: &Path,
        left: &mut std::slice::Iter<Print>,
        depth: Depth,
        links: &mut Option<&mut Links>,
        level: usize,
    ) -> std::io::Result<bool> {
        let (Some(print), true) = (left.next(), level <= rooted_fs::MAX_DEPTH) else {
            return Ok(false);
        };
        let metadata = EntryMetadata::from(&stat_entry(folder, name)?.ok_or(Errno::ENOENT)?);
        self.pace.count_entry();
        if print.shape != print::shape(path, &metadata)
            || (!metadata.is_folder() && print.modified != metadata.modified)
        {
            return Ok(false);
        }
        if let Some(links) = links
            && metadata.is_linked()
        {
            let seen = links.entry(metadata.inode).or_insert((0, metadata.links));
            seen.0 += 1;
        }
        if !metadata.is_folder() {
            return Ok(depth == Depth::Metadata
                || print.content == self.content(folder, name, &metadata)?);
        }
        let inside = open_folder(folder, name)?;
        if depth == Depth::Content
            && print.content != print::attributes_of(&inside, self.buffers)?.0
        {
            return Ok(false);
        }
        // More names than the record has left are a difference; the rest need not be read.
        let Some(names) = rooted_fs::names_up_to(&inside, left.len() + self.covered.0.len())?
        else {
            return Ok(false);
        };
        for name in names {
            let below = path.join(OsStr::from_bytes(name.to_bytes()));
            let same = match self.covered.covers(&below) {
                true => !self.with_covered || is_empty(inside.as_fd(), &name),
                false => {
                    self.entry(inside.as_fd(), &name, &below, left, depth, links, level + 1)?
                }
            };
            if !same {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn content(
        &mut self,
        folder: BorrowedFd,
        name: &CStr,
        metadata: &EntryMetadata,
    ) -> std::io::Result<Digest> {
        match metadata.kind() {
            SFlag::S_IFREG => {
                let flags =
                    OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
                let file = File::from(openat(folder, name, flags, Mode::empty())?);
                print::digest_of_file(&file, metadata.size, self.buffers, self.pace)
            }
            SFlag::S_IFLNK => Ok(print::digest_of_link(
                folder,
                Path::new(OsStr::from_bytes(name.to_bytes())),
            )?),
            _ => Ok(Digest::default()),
        }
    }
}

/// Whether a covered path holds only an empty directory or file. Other data below it was written by
/// a user or a program, and stays.
fn is_empty(folder: BorrowedFd, name: &CStr) -> bool {
    let Ok(Some(found)) = stat_entry(folder, name) else {
        return false;
    };
    let metadata = EntryMetadata::from(&found);
    match metadata.is_folder() {
        true => open_folder(folder, name)
            .and_then(|inside| rooted_fs::names_up_to(&inside, 0))
            .is_ok_and(|names| names.is_some()),
        false => metadata.is_file() && metadata.size == 0,
    }
}

/// Whether the image's member has the same content as these prints, except for times. Digests that
/// had to be computed are stored in the entries.
pub fn image_matches(
    image: &OwnedFd,
    member: &mut Member,
    prints: &[Print],
    buffers: &mut Buffers,
    pace: &mut Pace,
) -> Result<bool, SeedError> {
    if member.entries.len() != prints.len() {
        return Ok(false);
    }
    let shapes = member.entries.iter().zip(prints);
    if shapes
        .into_iter()
        .any(|(entry, print)| print::shape(&entry.path, &entry.metadata) != print.shape)
    {
        return Ok(false);
    }
    for (entry, print) in member.entries.iter_mut().zip(prints) {
        read_content(image, entry, buffers, pace)?;
        if entry.content != Some(print.content) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Computes the digest of an entry of the image, unless it is known.
pub fn read_content(
    image: &OwnedFd,
    entry: &mut Entry,
    buffers: &mut Buffers,
    pace: &mut Pace,
) -> Result<(), SeedError> {
    if entry.content.is_some() {
        return Ok(());
    }
    pace.count_entry();
    let mut read = || -> std::io::Result<Digest> {
        match entry.metadata.kind() {
            SFlag::S_IFREG => {
                let file = File::from(openat(
                    image,
                    &entry.path,
                    OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC,
                    Mode::empty(),
                )?);
                print::digest_of_file(&file, entry.metadata.size, buffers, pace)
            }
            SFlag::S_IFLNK => Ok(print::digest_of_link(image.as_fd(), &entry.path)?),
            _ => Ok(Digest::default()),
        }
    };
    entry.content = Some(read().map_err(|why| SeedError::image(&entry.path, why))?);
    Ok(())
}

/// Whether the volume's root has the metadata and attributes of this print.
pub fn root_matches(volume: &OwnedFd, print: Option<&Print>, buffers: &mut Buffers) -> bool {
    print.is_none_or(|print| {
        root_print(volume, buffers).is_some_and(|now| now.is_same_content(print))
    })
}

/// The print of a volume's root, or of the image's directory for it.
pub fn root_print(folder: &OwnedFd, buffers: &mut Buffers) -> Option<Print> {
    let metadata = EntryMetadata::from(&nix::sys::stat::fstat(folder).ok()?);
    let (content, _) = print::attributes_of(folder, buffers).ok()?;
    Some(Print::new(Path::new(""), &metadata, content))
}
