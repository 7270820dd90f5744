//! Carries out a plan: stages copies, records the moves, moves, and records the result.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::libc;
use nix::sys::stat::Mode;
use nix::sys::statvfs::fstatvfs;
use nix::unistd::{fsync, syncfs};

use super::compare::{self, PathState, path_state, root_print};
use super::copy::{self, Copier};
use super::plan::{Batch, Plan};
use super::print::{EntryMetadata, Print};
use super::record::{self, MemberState, Members, RecordHeader, SeedRecord};
use super::units::{self, CONTAINER, Division, Entry, Member};
use super::{STAGING, SeedError, SeedOutcome, Seeding, at_record, at_staging, step};
use crate::kernel::rooted_fs;

/// Bytes that are left free for the record and for directories that grow.
const RESERVE: u64 = 256 << 10;
/// The name of a new container directory. Other names in the staging directory are numbers.
const NEW_CONTAINER: &str = "container";

/// A staged member.
struct Move {
    path: PathBuf,
    number: u32,
    old: Option<Vec<Print>>,
    new: Option<Vec<Print>>,
    entries: u64,
}

/// Space that is needed or free on a volume.
#[derive(Default)]
struct Room {
    bytes: u64,
    inodes: u64,
}

impl Room {
    fn fits(&self, free: &Room) -> bool {
        self.bytes <= free.bytes && self.inodes <= free.inodes
    }
}

impl std::ops::Add for Room {
    type Output = Room;

    fn add(self, other: Room) -> Room {
        Room {
            bytes: self.bytes.saturating_add(other.bytes),
            inodes: self.inodes.saturating_add(other.inodes),
        }
    }
}

impl Seeding<'_, '_, '_> {
    /// Carries out the plan.
    pub fn carry_out(
        &mut self,
        mut plan: Plan,
        lacking: Vec<(String, String)>,
    ) -> Result<SeedOutcome, SeedError> {
        let mut outcome = SeedOutcome {
            lacking,
            kept: std::mem::take(&mut plan.kept),
            compared: plan.compared,
            ..SeedOutcome::default()
        };
        let mut moves = Vec::new();
        if !plan.batches.is_empty() || plan.set_root {
            let staging = rooted_fs::own_folder(&self.own, STAGING).map_err(at_staging)?;
            self.stage(&mut plan, &staging, &mut moves, &mut outcome)?;
            self.publish(&mut plan, &staging, moves, &mut outcome)?;
        }
        let text = RecordHeader {
            mark: self.request.mark.trim_end().to_owned(),
            lacking: !outcome.lacking.is_empty(),
            kept: outcome.kept.clone(),
        };
        self.pace.tick();
        syncfs(self.request.volume).map_err(|e| at_record(io::Error::from(e)))?;
        step();
        SeedRecord {
            text,
            root: plan.root,
            members: plan.settled,
        }
        .store(&self.own)
        .map_err(at_record)?;
        Ok(outcome)
    }

    /// Copies all batches that fit. If not all fit, the smallest are copied first.
    fn stage(
        &mut self,
        plan: &mut Plan,
        staging: &OwnedFd,
        moves: &mut Vec<Move>,
        outcome: &mut SeedOutcome,
    ) -> Result<(), SeedError> {
        let mut batches = std::mem::take(&mut plan.batches);
        let all = batches
            .iter()
            .map(|batch| needs(plan, batch))
            .fold(Room::default(), |sum, need| sum + need);
        let is_tight = !all.fits(&self.room()?);
        if is_tight {
            batches = smallest_first(plan, batches);
        }
        let (umask, mut number) = (copy::umask(), 0);
        for batch in batches {
            let begun = moves.len();
            let staged = match is_tight && !self.has_room_for(plan, &batch)? {
                true => Err(SeedError::volume(Path::new(""), Errno::ENOSPC)),
                false => self.stage_batch(plan, &batch, staging, umask, &mut number, moves),
            };
            let Err(fault) = staged else { continue };
            if fault.is_damage() {
                return Err(fault);
            }
            for left in moves.drain(begun..) {
                rooted_fs::remove_tree_with(staging, &staged_name(left.number), &mut || {
                    self.pace.count_entry()
                })
                .map_err(at_staging)?;
            }
            let (need, room) = (needs(plan, &batch), self.room()?);
            let why = match fault.why.raw_os_error() {
                Some(libc::ENOSPC | libc::EDQUOT) => {
                    format!(
                        "no room: {} bytes and {} inodes are needed, {} bytes and {} inodes are free",
                        need.bytes, need.inodes, room.bytes, room.inodes
                    )
                }
                _ => format!("{}: {}", self.name(&fault.path), fault.why),
            };
            // A unit that can't be replaced keeps its record.
            for path in batch.old.paths() {
                plan.settled
                    .settle(path, batch.old.settled_prints(path).unwrap_or_default());
            }
            if batch.adds_only() {
                let names = batch
                    .members
                    .iter()
                    .map(|position| self.name(&plan.members[*position].path));
                outcome
                    .lacking
                    .extend(names.map(|name| (name, why.clone())));
                continue;
            }
            let unit = match self.division {
                Division::EachMember => batch.old.paths().map(|path| self.name(path)).collect(),
                Division::OneUnit => vec![self.request.mount.to_owned()],
            };
            for name in unit {
                outcome.kept.add(name.clone());
                outcome.unreplaced.push((name, why.clone()));
            }
        }
        Ok(())
    }

    /// Whether a batch fits. If its size does not, its long runs of zeros are subtracted, because
    /// they take no space.
    fn has_room_for(&mut self, plan: &Plan, batch: &Batch) -> Result<bool, SeedError> {
        let (mut need, room) = (needs(plan, batch), self.room()?);
        if need.inodes > room.inodes || need.bytes <= room.bytes {
            return Ok(need.fits(&room));
        }
        for entry in batch
            .members
            .iter()
            .flat_map(|position| &plan.members[*position].entries)
            .filter(|entry| entry.metadata.is_file())
        {
            let zeros = copy::count_zeros(self.request.image, entry, &mut self.buffers, self.pace)?;
            need.bytes = need.bytes.saturating_sub(zeros);
        }
        Ok(need.fits(&room))
    }

    fn stage_batch(
        &mut self,
        plan: &mut Plan,
        batch: &Batch,
        staging: &OwnedFd,
        umask: u32,
        number: &mut u32,
        moves: &mut Vec<Move>,
    ) -> Result<(), SeedError> {
        step();
        // The members are taken out of the plan while they are worked on: hard links are only made
        // among them.
        let mut members: Vec<Member> = batch
            .members
            .iter()
            .map(|position| std::mem::take(&mut plan.members[*position]))
            .collect();
        units::count_links(&mut members);
        let staged = self.stage_members(&mut members, &batch.old, staging, umask, number, moves);
        for (position, member) in batch.members.iter().zip(members) {
            plan.members[*position] = member;
        }
        staged
    }

    fn stage_members(
        &mut self,
        members: &mut [Member],
        old: &Members,
        staging: &OwnedFd,
        umask: u32,
        number: &mut u32,
        moves: &mut Vec<Move>,
    ) -> Result<(), SeedError> {
        let mut copier = Copier::new(
            self.request.image,
            staging,
            &mut self.buffers,
            self.pace,
            umask,
        );
        for member in &mut *members {
            *number += 1;
            let old = old.settled_prints(&member.path).map(<[Print]>::to_vec);
            let path = member.path.clone();
            // Added before the copy, so that a copy that fails halfway is removed by its number.
            moves.push(Move {
                path,
                number: *number,
                old,
                new: None,
                entries: member.entries.len() as u64,
            });
            copier.copy_member(member, &number.to_string())?;
            if let Some(last) = moves.last_mut() {
                last.new = Some(member.entries.iter().map(Entry::print).collect());
            }
        }
        let mut shipped = Members::default();
        members
            .iter()
            .for_each(|member| shipped.settle(&member.path, &[]));
        for path in old
            .paths()
            .filter(|path| shipped.settled_prints(path).is_none())
        {
            *number += 1;
            moves.push(Move {
                path: path.to_owned(),
                number: *number,
                old: old.settled_prints(path).map(<[Print]>::to_vec),
                new: None,
                entries: 0,
            });
        }
        Ok(())
    }

    /// Moves staged copies into place after all of them were synced.
    fn publish(
        &mut self,
        plan: &mut Plan,
        staging: &OwnedFd,
        moves: Vec<Move>,
        outcome: &mut SeedOutcome,
    ) -> Result<(), SeedError> {
        // A new file system's root gets its metadata first: the next boot would not touch the root
        // of one that holds data.
        let was = plan.root.take();
        if plan.set_root {
            plan.root = root_print(self.request.image, &mut self.buffers);
            if was.is_none() {
                self.copy_root()?;
            }
        } else {
            plan.root = was;
        }
        if moves
            .iter()
            .any(|one| one.path.starts_with(CONTAINER) && one.path != Path::new(CONTAINER))
        {
            self.make_container(staging)?;
        }
        let mut members = plan.settled.clone();
        for Move {
            path,
            number,
            old,
            new,
            ..
        } in &moves
        {
            members.insert(
                path.clone(),
                MemberState::Moving {
                    number: *number,
                    old: old.clone(),
                    new: new.clone(),
                },
            );
        }
        // The mark is empty, so that the next boot finishes the moves whichever image it has.
        let pending = SeedRecord {
            text: RecordHeader::default(),
            root: plan.root,
            members,
        };
        let written =
            rooted_fs::prepare(&self.own, record::NAME, &pending.to_bytes()).map_err(at_record)?;
        self.pace.tick();
        // Syncs the staged copies and the record. ext4 keeps the order of renames, so no move is
        // durable before the record is.
        syncfs(self.request.volume).map_err(|e| at_staging(io::Error::from(e)))?;
        self.pace.tick();
        step();
        nix::fcntl::renameat(&self.own, written.as_c_str(), &self.own, record::NAME)
            .map_err(|e| at_record(io::Error::from(e)))?;
        if plan.set_root && was.is_some() {
            self.copy_root()?;
        }
        for Move {
            path,
            number,
            old,
            new,
            entries,
        } in moves
        {
            match exchange(
                self.request.volume,
                staging,
                number,
                &path,
                old.is_some(),
                new.is_some(),
            ) {
                Ok(()) => {
                    match old {
                        Some(_) => outcome.replaced += 1,
                        None => outcome.seeded += entries,
                    }
                    if let Some(prints) = new {
                        plan.settled.insert(path, MemberState::Settled(prints));
                    }
                }
                Err(why) => {
                    let fault = SeedError::volume(&path, why);
                    if fault.is_damage() {
                        return Err(fault);
                    }
                    outcome
                        .lacking
                        .push((self.name(&path), fault.why.to_string()));
                    if let Some(prints) = old {
                        plan.settled.insert(path, MemberState::Settled(prints));
                    }
                }
            }
        }
        Ok(())
    }

    /// Makes the container directory with the image's metadata.
    fn make_container(&mut self, staging: &OwnedFd) -> Result<(), SeedError> {
        let path = Path::new(CONTAINER);
        if !matches!(path_state(self.request.volume, path), PathState::Nothing) {
            return Ok(());
        }
        step();
        let fail = |why: io::Error| SeedError::volume(path, why);
        nix::sys::stat::mkdirat(staging, NEW_CONTAINER, Mode::S_IRWXU)
            .map_err(|e| fail(e.into()))?;
        let image = rooted_fs::open_path(self.request.image, path)
            .map_err(|e| SeedError::image(path, e))?;
        let made =
            rooted_fs::open_path(staging, Path::new(NEW_CONTAINER)).map_err(|e| fail(e.into()))?;
        self.copy_folder(&image, &made, path)?;
        // Its entries follow later, so its time does not matter yet.
        fsync(&made).map_err(|e| fail(e.into()))?;
        nix::fcntl::renameat(staging, NEW_CONTAINER, self.request.volume, path)
            .map_err(|e| fail(e.into()))
    }

    /// Gives a new file system's root the owner, permissions, attributes and time of the image's
    /// directory.
    fn copy_root(&mut self) -> Result<(), SeedError> {
        self.copy_folder(self.request.image, self.request.volume, Path::new("."))
    }

    fn copy_folder(&mut self, from: &OwnedFd, to: &OwnedFd, path: &Path) -> Result<(), SeedError> {
        let metadata = EntryMetadata::from(
            &nix::sys::stat::fstat(from).map_err(|e| SeedError::image(path, e))?,
        );
        let nobody = (u32::MAX, u32::MAX);
        let copied = copy::copy_metadata(to.as_fd(), Path::new("."), &metadata, nobody);
        let (from, to) = (
            rooted_fs::through_proc(from.as_fd(), b"."),
            rooted_fs::through_proc(to.as_fd(), b"."),
        );
        copied
            .and_then(|()| copy::copy_xattrs(&from, &to, &mut self.buffers))
            .map_err(|why| SeedError::volume(path, why))
    }

    fn room(&self) -> Result<Room, SeedError> {
        let free = fstatvfs(self.request.volume).map_err(at_staging)?;
        // Blocks that are reserved for root may be used by root; ext4 keeps 2 % for its own
        // metadata, at most 4,096 blocks.
        let blocks = free
            .blocks_free()
            .saturating_sub((free.blocks() / 50).min(4096));
        Ok(Room {
            bytes: (blocks * free.fragment_size()).saturating_sub(RESERVE),
            inodes: free.files_free().saturating_sub(8),
        })
    }
}

fn needs(plan: &Plan, batch: &Batch) -> Room {
    let members = batch
        .members
        .iter()
        .map(|position| &plan.members[*position]);
    members.fold(Room::default(), |sum, member| {
        sum + Room {
            bytes: member.bytes(),
            inodes: member.entries.len() as u64,
        }
    })
}

fn smallest_first(plan: &Plan, batches: Vec<Batch>) -> Vec<Batch> {
    let mut sorted: Vec<(u64, Batch)> = Vec::with_capacity(batches.len());
    for batch in batches {
        let bytes = needs(plan, &batch).bytes;
        sorted.insert(
            sorted.partition_point(|(other, _)| *other <= bytes),
            (bytes, batch),
        );
    }
    sorted.into_iter().map(|(_, batch)| batch).collect()
}

fn staged_name(number: u32) -> CString {
    CString::new(number.to_string()).unwrap_or_default()
}

/// Exchanges the staged copy of a number with the member's path. The previous content then is in
/// the staging directory.
pub fn exchange(
    volume: &OwnedFd,
    staging: &OwnedFd,
    number: u32,
    path: &Path,
    had: bool,
    has: bool,
) -> io::Result<()> {
    step();
    let (folder, name) = compare::parent_of(volume, path).ok_or(Errno::EINVAL)?;
    let (folder, staged) = (folder?, staged_name(number));
    match (had, has) {
        (true, true) => rooted_fs::exchange(staging, &staged, &folder, &name)?,
        (false, true) => rooted_fs::move_new(staging, &staged, &folder, &name)?,
        (true, false) => rooted_fs::move_new(&folder, &name, staging, &staged)?,
        (false, false) => {}
    }
    Ok(())
}
