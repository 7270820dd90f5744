//! Seeding: copies the image's content below a volume's mount point to the volume, and replaces it
//! by a later image's content unless it was changed on the server.
//!
//! Promise: after a power cut at any moment, a member exists completely, with content, owner, mode,
//! attributes, times and links, or not at all. Anything that was added, changed or deleted on the
//! server stays as it is.
//!
//! All copies are first made in a staging directory on the same volume, and synced. Then the record
//! lists the moves; then the members are moved; then the record lists the result. A boot that finds
//! a record of moves finishes them first. The image is trusted, because it is verified. The volume
//! is not: no symbolic link in it is followed, and a record that is missing or altered means that
//! everything counts as changed.

mod compare;
mod copy;
mod pace;
mod plan;
mod print;
mod publish;
mod record;
#[cfg(test)]
mod tests;
mod units;

use std::ffi::CStr;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::libc;
use nix::unistd::syncfs;

use self::compare::{Comparison, Links};
use self::record::{MemberState, RecordHeader, SeedRecord};
use self::units::{Covered, Division};
use crate::kernel::rooted_fs;
use adamant_contract::paths::IDENTITY_DIR;
use adamant_contract::policy::Refresh;

pub use self::pace::Pace;

const STAGING: &CStr = c"seeding";
const LOST_AND_FOUND: &str = "lost+found";
/// Largest value of an extended attribute, and largest list of their names (Linux's XATTR_SIZE_MAX,
/// XATTR_LIST_MAX).
const XATTR_LIMIT: usize = 65536;
/// The mount point of the volume whose entries are separate units.
const STATE: &str = "/var";
/// The mount point of the volume where programs expect their own directories, which packages ship
/// and programs do not make.
const LOGS: &str = "/var/log";
/// Largest number of units that are listed by name. Others are only counted.
pub const NAMED: usize = 20;

/// The input of seeding one volume.
pub struct SeedRequest<'a> {
    /// The image's directory at the mount point, opened before the volume covers it.
    pub image: &'a OwnedFd,
    /// The mounted volume's root.
    pub volume: &'a OwnedFd,
    /// The mount point in the image.
    pub mount: &'a str,
    /// Paths relative to the volume that will be covered by other mounts: see [`Covered`].
    pub covered: &'a [PathBuf],
    /// Whether unchanged units are replaced.
    pub refresh: Refresh,
    /// Names the image. A volume that was seeded with the same mark is left alone.
    pub mark: &'a str,
}

/// The result of seeding.
#[derive(Debug, Default)]
pub struct SeedOutcome {
    /// Number of entries that were copied to paths where nothing existed.
    pub seeded: u64,
    /// Number of units that were replaced by this image's, or removed because the image no longer
    /// has them.
    pub replaced: u64,
    /// Changed units, which stay although this image has other content for them.
    pub kept: KeptUnits,
    /// Whether those were found at this boot.
    pub compared: bool,
    /// Paths that could not be copied to the volume, and why.
    pub lacking: Vec<(String, String)>,
    /// Unchanged units that could not be replaced, and why.
    pub unreplaced: Vec<(String, String)>,
}

/// Names of units.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeptUnits {
    /// Absolute paths in the image, at most [`NAMED`].
    pub names: Vec<String>,
    /// Number of further units.
    pub more: u64,
}

impl KeptUnits {
    fn add(&mut self, name: String) {
        if self.names.contains(&name) {
            return;
        }
        if self.names.len() < NAMED {
            self.names.push(name)
        } else {
            self.more += 1
        }
    }

    /// The names as a list for a sentence.
    pub fn listed(&self) -> String {
        let more = if self.more > 0 {
            format!(" and {} more", self.more)
        } else {
            String::new()
        };
        format!("{}{more}", self.names.join(", "))
    }
}

/// Why seeding stopped.
#[derive(Debug)]
pub struct SeedError {
    /// Whether the image could not be read. Otherwise the volume failed.
    pub of_image: bool,
    /// The entry, relative to the mount point.
    pub path: PathBuf,
    /// Why.
    pub why: io::Error,
}

impl SeedError {
    fn image(path: &Path, why: impl Into<io::Error>) -> SeedError {
        SeedError {
            of_image: true,
            path: path.to_owned(),
            why: why.into(),
        }
    }

    fn volume(path: &Path, why: impl Into<io::Error>) -> SeedError {
        SeedError {
            of_image: false,
            path: path.to_owned(),
            why: why.into(),
        }
    }

    /// Whether the device or the file system is damaged. False if it is full or has an unexpected
    /// shape.
    pub fn is_damage(&self) -> bool {
        matches!(
            self.why.raw_os_error(),
            Some(libc::EIO | libc::EUCLEAN | libc::EBADMSG | libc::EROFS)
        )
    }
}

/// Buffers that are reused for all entries, because allocating them again takes longer than most
/// entries.
pub struct Buffers {
    /// Content, or names of extended attributes.
    many: Vec<u8>,
    /// The value of an extended attribute.
    one: Vec<u8>,
    /// Number of bytes written since the last sync.
    unsynced: u64,
}

impl Buffers {
    fn new() -> Buffers {
        Buffers {
            many: vec![0; XATTR_LIMIT],
            one: vec![0; XATTR_LIMIT],
            unsynced: 0,
        }
    }
}

/// Seeds a volume.
pub fn seed(request: &SeedRequest, pace: &mut Pace) -> Result<SeedOutcome, SeedError> {
    let own_name = rooted_fs::c_name(IDENTITY_DIR.as_ref()).unwrap_or_default();
    let own = rooted_fs::own_folder(request.volume, &own_name)
        .map_err(|e| SeedError::volume(Path::new(IDENTITY_DIR), e))?;
    let text = RecordHeader::load(&own);
    let same_image = text
        .as_ref()
        .is_some_and(|text| text.mark == request.mark.trim_end());
    if let Some(text) = text.filter(|text| same_image && !text.lacking) {
        // Remains of a step that a power cut interrupted.
        remove_staging(&own, pace)?;
        return Ok(SeedOutcome {
            kept: text.kept,
            ..SeedOutcome::default()
        });
    }
    let division = if request.mount == STATE {
        Division::EachMember
    } else {
        Division::OneUnit
    };
    let covered = Covered(request.covered);
    let mut work = Seeding {
        request,
        own,
        division,
        covered,
        buffers: Buffers::new(),
        pace,
    };
    let record = work.finished(SeedRecord::load(&work.own, division, covered))?;
    if record.is_none() {
        // A directory of that name would prevent every record from being written.
        rooted_fs::remove_tree(&work.own, record::NAME).map_err(at_record)?;
    }
    remove_staging(&work.own, work.pace)?;
    let (members, unlisted) =
        units::list_members(request.image, division, covered, &mut work.buffers)?;
    let plan = work.plan(members, record, same_image)?;
    let lacking = unlisted
        .into_iter()
        .map(|fault| (work.name(&fault.path), fault.why.to_string()))
        .collect();
    let done = work.carry_out(plan, lacking);
    // Also on failure: a full volume needs the space of the staged copies.
    let removed = remove_staging(&work.own, work.pace);
    let outcome = done?;
    removed?;
    Ok(outcome)
}

fn at_staging(why: impl Into<io::Error>) -> SeedError {
    SeedError::volume(&Path::new(IDENTITY_DIR).join("seeding"), why)
}

fn at_record(why: impl Into<io::Error>) -> SeedError {
    SeedError::volume(&Path::new(IDENTITY_DIR).join("seeded"), why)
}

fn remove_staging(own: &OwnedFd, pace: &mut Pace) -> Result<(), SeedError> {
    step();
    rooted_fs::remove_tree_with(own, STAGING, &mut || pace.count_entry()).map_err(at_staging)
}

/// Called before each change of the volume. Tests simulate power cuts here.
fn step() {
    #[cfg(test)]
    tests::step();
}

/// The state that all steps share.
struct Seeding<'a, 'p, 'q> {
    request: &'a SeedRequest<'a>,
    /// The agent's directory on the volume.
    own: OwnedFd,
    division: Division,
    covered: Covered<'a>,
    buffers: Buffers,
    pace: &'q mut Pace<'p>,
}

impl<'p> Seeding<'_, 'p, '_> {
    fn comparison(&mut self) -> Comparison<'_, 'p> {
        Comparison {
            volume: self.request.volume,
            covered: self.covered,
            buffers: &mut self.buffers,
            pace: self.pace,
            with_covered: true,
        }
    }

    /// A member's absolute path in the image.
    fn name(&self, path: &Path) -> String {
        let name = format!("{}/{}", self.request.mount, path.display());
        name.chars()
            .map(|c| if c.is_control() { '?' } else { c })
            .take(256)
            .collect()
    }

    /// Finishes moves that a power cut interrupted. A member that was not
    /// changed since then is moved now. A changed member is dropped from the record, and so counts
    /// as changed.
    fn finished(&mut self, record: Option<SeedRecord>) -> Result<Option<SeedRecord>, SeedError> {
        let Some(mut record) = record else {
            return Ok(None);
        };
        if record
            .members
            .iter()
            .all(|(_, state)| matches!(state, MemberState::Settled(_)))
        {
            return Ok(Some(record));
        }
        let staging = rooted_fs::own_folder(&self.own, STAGING).map_err(at_staging)?;
        let mut members = std::mem::take(&mut record.members);
        members.update_all(|path, state| {
            let MemberState::Moving { number, old, new } = state else {
                return true;
            };
            let mut links = Links::new();
            let now = if self
                .comparison()
                .is_unchanged(path, new.as_deref(), &mut links)
            {
                new.take()
            } else if self
                .comparison()
                .is_unchanged(path, old.as_deref(), &mut links)
            {
                let moved = publish::exchange(
                    self.request.volume,
                    &staging,
                    *number,
                    path,
                    old.is_some(),
                    new.is_some(),
                );
                if moved.is_ok() {
                    new.take()
                } else {
                    old.take()
                }
            } else {
                None
            };
            let Some(prints) = now else { return false };
            *state = MemberState::Settled(prints);
            true
        });
        record.members = members;
        // The record does not show whether the root's metadata was set. If it was not, the root
        // stays as it is.
        if !compare::root_matches(self.request.volume, record.root.as_ref(), &mut self.buffers) {
            record.root = None;
        }
        syncfs(self.request.volume).map_err(|e| at_record(io::Error::from(e)))?;
        record.store(&self.own).map_err(at_record)?;
        Ok(Some(record))
    }
}
