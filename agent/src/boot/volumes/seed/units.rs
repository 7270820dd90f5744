//! Divides the image's content for a volume into members: a member is moved into place by one
//! rename.
//!
//! On the volume at /var the entries directly below /var and below /var/lib are the members, and
//! each is a unit. On any other volume the entries directly below its root are the members, and all
//! of them together are one unit.

use std::ffi::{CStr, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::stat::SFlag;

use super::compare::Links;
use super::print::{Digest, EntryMetadata, Print, attributes_of};
use super::{Buffers, LOST_AND_FOUND, SeedError};
use crate::kernel::rooted_fs::{self, kind, names, open_folder, stat_entry};
use adamant_contract::paths::IDENTITY_DIR;

/// The directory on the volume at /var whose entries are separate units.
pub const CONTAINER: &str = "lib";

/// How a volume is divided into units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Division {
    /// Each member is a unit: the volume at /var.
    EachMember,
    /// All members are one unit.
    OneUnit,
}

/// Paths, relative to the volume, that other mounts cover once the server runs: mount points of
/// other volumes, and data that is shown from the image.
#[derive(Debug, Clone, Copy)]
pub struct Covered<'a>(pub &'a [PathBuf]);

impl Covered<'_> {
    /// Whether this path is covered.
    pub fn covers(&self, path: &Path) -> bool {
        self.0.iter().any(|place| place == path)
    }

    /// Whether a covered path is below this path.
    pub fn is_above_covered(&self, path: &Path) -> bool {
        self.0
            .iter()
            .any(|place| place != path && place.starts_with(path))
    }
}

/// An entry of the image.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Relative to the volume.
    pub path: PathBuf,
    /// Its metadata. The number of links counts only listed entries.
    pub metadata: EntryMetadata,
    /// Digest of its attributes and content, once they were read.
    pub content: Option<Digest>,
    /// Whether a directory has extended attributes. For other entries this is known once they are
    /// read.
    pub xattrs: bool,
}

impl Entry {
    /// The print for the record. Content that was not read counts as empty.
    pub fn print(&self) -> Print {
        Print::new(&self.path, &self.metadata, self.content.unwrap_or_default())
    }
}

/// A member: an entry with everything below it, parents before children and names in byte order.
#[derive(Debug, Clone, Default)]
pub struct Member {
    /// Relative to the volume.
    pub path: PathBuf,
    /// The first is the member itself.
    pub entries: Vec<Entry>,
}

impl Member {
    /// About how many bytes the entries take on ext4 with blocks of 4 KiB.
    pub fn bytes(&self) -> u64 {
        self.entries
            .iter()
            .map(|entry| {
                if entry.metadata.is_file() {
                    entry.metadata.size.next_multiple_of(4096)
                } else {
                    4096
                }
            })
            .sum()
    }
}

/// Lists the image's members in the order of names, without covered paths.
///
/// The second list has the entries that can't be listed because they are nested too deep.
pub fn list_members(
    image: &OwnedFd,
    division: Division,
    covered: Covered,
    buffers: &mut Buffers,
) -> Result<(Vec<Member>, Vec<SeedError>), SeedError> {
    let mut listing = Listing {
        covered,
        members: Vec::new(),
        unlisted: Vec::new(),
        buffers,
    };
    let fail = |path: &Path, why: Errno| SeedError::image(path, why);
    for name in names(image).map_err(|e| fail(Path::new("."), e))? {
        let path = PathBuf::from(OsStr::from_bytes(name.to_bytes()));
        if path == Path::new(IDENTITY_DIR) || path == Path::new(LOST_AND_FOUND) {
            continue;
        }
        let found = stat_entry(image, &name)
            .and_then(|found| found.ok_or(Errno::ENOENT))
            .map_err(|e| fail(&path, e))?;
        if division == Division::EachMember
            && path == Path::new(CONTAINER)
            && kind(&found) == SFlag::S_IFDIR
        {
            let container = open_folder(image, &name).map_err(|e| fail(&path, e))?;
            for name in names(&container).map_err(|e| fail(&path, e))? {
                listing.add_member(
                    container.as_fd(),
                    &name,
                    path.join(OsStr::from_bytes(name.to_bytes())),
                )?;
            }
        } else {
            listing.add_member(image.as_fd(), &name, path)?;
        }
    }
    let Listing {
        mut members,
        unlisted,
        ..
    } = listing;
    count_links(&mut members);
    Ok((members, unlisted))
}

struct Listing<'a> {
    covered: Covered<'a>,
    members: Vec<Member>,
    unlisted: Vec<SeedError>,
    buffers: &'a mut Buffers,
}

impl Listing<'_> {
    fn add_member(
        &mut self,
        folder: BorrowedFd,
        name: &CStr,
        path: PathBuf,
    ) -> Result<(), SeedError> {
        if self.covered.covers(&path) {
            return Ok(());
        }
        let mut entries = Vec::new();
        match self.entry(folder, name, path.clone(), &mut entries, 0) {
            Ok(()) => self.members.push(Member { path, entries }),
            Err(fault) if fault.is_damage() => return Err(fault),
            Err(fault) => self.unlisted.push(fault),
        }
        Ok(())
    }

    fn entry(
        &mut self,
        folder: BorrowedFd,
        name: &CStr,
        path: PathBuf,
        entries: &mut Vec<Entry>,
        depth: usize,
    ) -> Result<(), SeedError> {
        if depth > rooted_fs::MAX_DEPTH {
            return Err(SeedError::image(&path, Errno::ELOOP));
        }
        let fail = |e: Errno| SeedError::image(&path, e);
        let metadata = EntryMetadata::from(
            &stat_entry(folder, name)
                .and_then(|found| found.ok_or(Errno::ENOENT))
                .map_err(fail)?,
        );
        let mut inside = if metadata.is_folder() {
            Some(rooted_fs::open_dir(folder, name).map_err(fail)?)
        } else {
            None
        };
        let (content, xattrs) = match &inside {
            Some(inside) => attributes_of(inside, self.buffers)
                .map(|(content, any)| (Some(content), any))
                .map_err(|why| SeedError::image(&path, why))?,
            None => (None, false),
        };
        entries.push(Entry {
            path: path.clone(),
            metadata,
            content,
            xattrs,
        });
        if let Some(inside) = &mut inside {
            for name in rooted_fs::names_in(inside).map_err(fail)? {
                let below = path.join(OsStr::from_bytes(name.to_bytes()));
                if !self.covered.covers(&below) {
                    self.entry(inside.as_fd(), &name, below, entries, depth + 1)?;
                }
            }
        }
        Ok(())
    }
}

/// Counts links among these members only, because hard links to other files are not made on the
/// volume.
pub fn count_links(members: &mut [Member]) {
    let mut links = Links::new();
    for entry in members
        .iter()
        .flat_map(|member| &member.entries)
        .filter(|entry| entry.metadata.is_linked())
    {
        links.entry(entry.metadata.inode).or_insert((0, 0)).0 += 1;
    }
    for entry in members
        .iter_mut()
        .flat_map(|member| &mut member.entries)
        .filter(|entry| entry.metadata.is_linked())
    {
        entry.metadata.links = links
            .get(&entry.metadata.inode)
            .map_or(1, |(names, _)| *names);
    }
}

/// Groups the positions of members that share hard links. A group is moved into place together or
/// not at all.
pub fn group_by_links(members: &[Member]) -> Vec<Vec<usize>> {
    let mut group_of: Vec<usize> = (0..members.len()).collect();
    // For each inode: the position of the first member that has one of its names.
    let mut first = Links::new();
    for (position, member) in members.iter().enumerate() {
        for entry in member
            .entries
            .iter()
            .filter(|entry| entry.metadata.is_linked())
        {
            let other = group_of[first
                .entry(entry.metadata.inode)
                .or_insert((position as u64, 0))
                .0 as usize];
            let own = group_of[position];
            if other != own {
                group_of
                    .iter_mut()
                    .filter(|group| **group == own)
                    .for_each(|group| *group = other);
            }
        }
    }
    let mut groups: Vec<Vec<usize>> = vec![Vec::new(); members.len()];
    for (position, group) in group_of.into_iter().enumerate() {
        groups[group].push(position);
    }
    groups.retain(|group| !group.is_empty());
    groups
}
