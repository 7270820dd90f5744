//! Seeding: what the image has below a volume's mount point is put on the volume, and replaced by a
//! later image's as long as nobody has changed it.
//!
//! Promise: a member appears in its place whole, with content, owner, mode, attributes, times and
//! links, or not at all, whenever the power goes; and what somebody has added, changed or deleted
//! on the server stays as it is. Everything is first made in a staging directory on the same volume
//! and made durable; then the record says what is about to move, then it moves, and then the record
//! says what is there. A start that finds a record of moves finishes them first. Trusts the image,
//! which is verified, and not the volume: no link in it is followed, and a record that is missing
//! or altered means that everything was changed.

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
use self::record::{Record, State, Text};
use self::units::{Covered, Division};
use crate::kernel::rooted_fs;
use adamant_contract::paths::IDENTITY_DIR;
use adamant_contract::policy::Refresh;

pub use self::pace::Pace;

const STAGING: &CStr = c"seeding";
const LOST_AND_FOUND: &str = "lost+found";
/// Largest value of an xattr, and largest list of their names (Linux's XATTR_SIZE_MAX,
/// XATTR_LIST_MAX).
const XATTR_LIMIT: usize = 65536;
/// The volume whose entries are units of their own.
const STATE: &str = "/var";
/// The volume on which programs expect directories of their own, which no program makes.
const LOGS: &str = "/var/log";
/// Units that are named; the rest is counted.
pub const NAMED: usize = 20;

/// What is seeded onto what.
pub struct Request<'a> {
    /// The image's directory at the mount point: open, and not yet covered by the volume.
    pub image: &'a OwnedFd,
    /// The mounted volume's root.
    pub volume: &'a OwnedFd,
    /// The mount point in the image.
    pub mount: &'a str,
    /// Places on the volume that show something else once the server runs, relative to it: see
    /// [`Covered`].
    pub covered: &'a [PathBuf],
    /// Whether units that nobody changed are replaced.
    pub refresh: Refresh,
    /// Names the image: a volume that was seeded with the same mark is left alone.
    pub mark: &'a str,
}

/// What seeding has done.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Entries that were put where there was nothing.
    pub seeded: u64,
    /// Units whose content was replaced by this image's, or removed because it has none.
    pub replaced: u64,
    /// Units that stay as they are although this image has other content for them.
    pub kept: Kept,
    /// Whether those were found at this start.
    pub compared: bool,
    /// What could not be put on the volume, and why.
    pub lacking: Vec<(String, String)>,
    /// Units that nobody changed and that could not be replaced all the same, and why.
    pub unreplaced: Vec<(String, String)>,
}

/// Units by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kept {
    /// Absolute paths in the image, at most [`NAMED`].
    pub names: Vec<String>,
    /// How many there are beside these.
    pub more: u64,
}

impl Kept {
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

    /// For a sentence.
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
pub struct Fault {
    /// Whether it was the image that could not be read, and not the volume.
    pub of_image: bool,
    /// The entry, relative to the mount point.
    pub path: PathBuf,
    /// Why.
    pub why: io::Error,
}

impl Fault {
    fn image(path: &Path, why: impl Into<io::Error>) -> Fault {
        Fault {
            of_image: true,
            path: path.to_owned(),
            why: why.into(),
        }
    }

    fn volume(path: &Path, why: impl Into<io::Error>) -> Fault {
        Fault {
            of_image: false,
            path: path.to_owned(),
            why: why.into(),
        }
    }

    /// Whether the device or the file system is damaged, rather than full or of an unexpected
    /// shape.
    pub fn is_damage(&self) -> bool {
        matches!(
            self.why.raw_os_error(),
            Some(libc::EIO | libc::EUCLEAN | libc::EBADMSG | libc::EROFS)
        )
    }
}

/// Memory for what is copied, of one entry after the other: to be given it anew takes longer than
/// most entries.
pub struct Buffers {
    /// Content, or names of xattrs.
    many: Vec<u8>,
    /// An xattr's value.
    one: Vec<u8>,
    /// Bytes that were written since the last time that everything was made durable.
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
pub fn seed(request: &Request, pace: &mut Pace) -> Result<Outcome, Fault> {
    let own_name = rooted_fs::c_name(IDENTITY_DIR.as_ref()).unwrap_or_default();
    let own = rooted_fs::own_folder(request.volume, &own_name)
        .map_err(|e| Fault::volume(Path::new(IDENTITY_DIR), e))?;
    let text = Text::read(&own);
    let same_image = text
        .as_ref()
        .is_some_and(|text| text.mark == request.mark.trim_end());
    if let Some(text) = text.filter(|text| same_image && !text.lacking) {
        // What a power cut left of the last step.
        remove_staging(&own, pace)?;
        return Ok(Outcome {
            kept: text.kept,
            ..Outcome::default()
        });
    }
    let division = if request.mount == STATE {
        Division::Members
    } else {
        Division::Whole
    };
    let covered = Covered(request.covered);
    let mut work = Work {
        request,
        own,
        division,
        covered,
        buffers: Buffers::new(),
        pace,
    };
    let record = work.finished(Record::read(&work.own, division, covered))?;
    if record.is_none() {
        // A directory of that name would stand in the way of every record.
        rooted_fs::remove_tree(&work.own, record::NAME).map_err(at_record)?;
    }
    remove_staging(&work.own, work.pace)?;
    let (members, unlisted) = units::list(request.image, division, covered, &mut work.buffers)?;
    let plan = work.plan(members, record, same_image)?;
    let lacking = unlisted
        .into_iter()
        .map(|fault| (work.name(&fault.path), fault.why.to_string()))
        .collect();
    let done = work.carry_out(plan, lacking);
    // On failure, too: a full volume needs its room back.
    let removed = remove_staging(&work.own, work.pace);
    let outcome = done?;
    removed?;
    Ok(outcome)
}

fn at_staging(why: impl Into<io::Error>) -> Fault {
    Fault::volume(&Path::new(IDENTITY_DIR).join("seeding"), why)
}

fn at_record(why: impl Into<io::Error>) -> Fault {
    Fault::volume(&Path::new(IDENTITY_DIR).join("seeded"), why)
}

fn remove_staging(own: &OwnedFd, pace: &mut Pace) -> Result<(), Fault> {
    step();
    rooted_fs::remove_tree_with(own, STAGING, &mut || pace.entry()).map_err(at_staging)
}

/// Stands before each change of the volume: here the tests cut the power.
fn step() {
    #[cfg(test)]
    tests::step();
}

/// What all steps share.
struct Work<'a, 'p, 'q> {
    request: &'a Request<'a>,
    /// The agent's directory on the volume.
    own: OwnedFd,
    division: Division,
    covered: Covered<'a>,
    buffers: Buffers,
    pace: &'q mut Pace<'p>,
}

impl<'p> Work<'_, 'p, '_> {
    fn comparison(&mut self) -> Comparison<'_, 'p> {
        Comparison {
            volume: self.request.volume,
            covered: self.covered,
            buffers: &mut self.buffers,
            pace: self.pace,
            with_covered: true,
        }
    }

    /// A member's name in the image.
    fn name(&self, path: &Path) -> String {
        let name = format!("{}/{}", self.request.mount, path.display());
        name.chars()
            .map(|c| if c.is_control() { '?' } else { c })
            .take(256)
            .collect()
    }

    /// Finishes what a power cut left half done: what was about to move and is as it was before
    /// moves now. What somebody has changed since then is forgotten, and so counts as changed.
    fn finished(&mut self, record: Option<Record>) -> Result<Option<Record>, Fault> {
        let Some(mut record) = record else {
            return Ok(None);
        };
        if record
            .members
            .iter()
            .all(|(_, state)| matches!(state, State::Settled(_)))
        {
            return Ok(Some(record));
        }
        let staging = rooted_fs::own_folder(&self.own, STAGING).map_err(at_staging)?;
        let mut members = std::mem::take(&mut record.members);
        members.change(|path, state| {
            let State::Moving { number, old, new } = state else {
                return true;
            };
            let mut links = Links::new();
            let now = if self.comparison().is_as(path, new.as_deref(), &mut links) {
                new.take()
            } else if self.comparison().is_as(path, old.as_deref(), &mut links) {
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
            *state = State::Settled(prints);
            true
        });
        record.members = members;
        // Whether the root had its turn is not known: if not, it keeps what it has.
        if !compare::root_is_as(self.request.volume, record.root.as_ref(), &mut self.buffers) {
            record.root = None;
        }
        syncfs(self.request.volume).map_err(|e| at_record(io::Error::from(e)))?;
        record.write(&self.own).map_err(at_record)?;
        Ok(Some(record))
    }
}
