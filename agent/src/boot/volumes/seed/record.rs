//! `.adamant/seeded`: which image a volume was last seeded from, and a print of every seeded entry.
//!
//! Format: a text, an empty line, numbers, and the SHA-256 of everything before it. The first line
//! names the image. A file that is missing, longer than [`LIMIT`], altered or of another format is
//! not a record; then everything on the volume counts as changed.

use std::ffi::CStr;
use std::fmt::Write;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use super::print::{Hash, PRINT_BYTES, Print};
use super::units::{CONTAINER, Covered, Division};
use super::{KeptUnits, LOST_AND_FOUND};
use crate::kernel::rooted_fs;
use adamant_contract::paths::IDENTITY_DIR;

/// The record's name in the agent's directory.
pub const NAME: &CStr = c"seeded";
/// Longest record, bytes: about 370,000 entries. Further members are not recorded, and count as
/// changed.
pub const LIMIT: usize = 16 << 20;
/// Longest text before the numbers, bytes. A boot of the same image reads only the text.
const TEXT_LIMIT: usize = 16 << 10;
/// The second line.
const FORMAT: &str = "format 2";
const DIGEST_BYTES: usize = 32;
/// Marks an absent list.
const NO_LIST: u32 = u32::MAX;

/// The recorded state of a member.
#[derive(Debug, Clone, PartialEq)]
pub enum MemberState {
    /// It was seeded with these prints.
    Settled(Vec<Print>),
    /// It was about to be exchanged with the staged copy of this number. `None` means that nothing
    /// exists.
    Moving {
        number: u32,
        old: Option<Vec<Print>>,
        new: Option<Vec<Print>>,
    },
}

/// Recorded states by path, in the order of the paths' bytes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Members(Vec<(PathBuf, MemberState)>);

impl Members {
    fn position(&self, path: &Path) -> Result<usize, usize> {
        let bytes = path.as_os_str().as_bytes();
        match self.0.last() {
            Some((last, _)) if last.as_os_str().as_bytes() < bytes => Err(self.0.len()),
            _ => self
                .0
                .binary_search_by(|(own, _)| own.as_os_str().as_bytes().cmp(bytes)),
        }
    }

    /// The prints of a member that is not moving.
    pub fn settled_prints(&self, path: &Path) -> Option<&[Print]> {
        match &self.0.get(self.position(path).ok()?)?.1 {
            MemberState::Settled(prints) => Some(prints),
            MemberState::Moving { .. } => None,
        }
    }

    /// Records a member's state, replacing an earlier one.
    pub fn insert(&mut self, path: PathBuf, state: MemberState) {
        match self.position(&path) {
            Ok(at) => self.0[at].1 = state,
            Err(at) => self.0.insert(at, (path, state)),
        }
    }

    /// Records a member as settled with these prints.
    pub fn settle(&mut self, path: &Path, prints: &[Print]) {
        self.insert(path.to_owned(), MemberState::Settled(prints.to_vec()));
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Path, &MemberState)> {
        self.0.iter().map(|(path, state)| (path.as_path(), state))
    }

    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().map(|(path, _)| path.as_path())
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Updates each member's state. Members for which the function returns nothing are removed.
    pub fn update_all(&mut self, mut change: impl FnMut(&Path, &mut MemberState) -> bool) {
        self.0.retain_mut(|(path, state)| change(path, state));
    }
}

/// A volume's record.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SeedRecord {
    pub text: RecordHeader,
    /// The print of the volume's root, if its metadata came from the image.
    pub root: Option<Print>,
    /// By path, relative to the volume.
    pub members: Members,
}

/// The text before the numbers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RecordHeader {
    /// Names the image: `ID VERSION ROOTHASH`; empty before the first seeding was finished.
    pub mark: String,
    /// Whether parts of this image did not fit; each boot tries them again.
    pub lacking: bool,
    /// Changed units, which stayed although this image has newer content for them.
    pub kept: KeptUnits,
}

impl RecordHeader {
    /// Reads the text alone. The rest of the file is not checked.
    pub fn load(own: &OwnedFd) -> Option<RecordHeader> {
        let bytes = rooted_fs::read_start(own, NAME, TEXT_LIMIT).ok()??;
        RecordHeader::parse(&bytes).map(|(text, _)| text)
    }

    /// The text, and the position where the numbers begin.
    fn parse(bytes: &[u8]) -> Option<(RecordHeader, usize)> {
        let end = bytes.windows(2).position(|pair| pair == b"\n\n")?;
        let mut lines = std::str::from_utf8(bytes.get(..end)?).ok()?.lines();
        let mut text = RecordHeader {
            mark: lines.next()?.to_owned(),
            ..RecordHeader::default()
        };
        if lines.next()? != FORMAT {
            return None;
        }
        for line in lines {
            match line.split_once(' ') {
                None if line == "lacking" => text.lacking = true,
                Some(("kept", path)) => text.kept.names.push(path.to_owned()),
                Some(("more", count)) => text.kept.more = count.parse().ok()?,
                _ => return None,
            }
        }
        Some((text, end + 2))
    }

    fn to_text(&self) -> String {
        let mut out = format!("{}\n{FORMAT}\n", self.mark);
        if self.lacking {
            out += "lacking\n";
        }
        for name in &self.kept.names {
            // Writing to a String can't fail.
            let _ = writeln!(out, "kept {name}");
        }
        if self.kept.more > 0 {
            let _ = writeln!(out, "more {}", self.kept.more);
        }
        out + "\n"
    }
}

impl SeedRecord {
    /// Reads a volume's record; `None` without a valid one. Paths that can't be members are left
    /// out.
    pub fn load(own: &OwnedFd, division: Division, covered: Covered) -> Option<SeedRecord> {
        let bytes = rooted_fs::read_file(own, NAME, LIMIT).ok()??;
        let mut record = SeedRecord::parse(&bytes)?;
        record
            .members
            .update_all(|path, _| is_member(path, division) && !covered.covers(path));
        Some(record)
    }

    /// Writes the record atomically and durably.
    pub fn store(&self, own: &OwnedFd) -> io::Result<()> {
        rooted_fs::write_file(own, NAME, &self.to_bytes())
    }

    /// The file's bytes. Members that do not fit are left out.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.text.to_text().into_bytes();
        list(&mut bytes, self.root.as_ref().map(std::slice::from_ref));
        for (path, state) in self.members.iter() {
            let before = bytes.len();
            let path = path.as_os_str().as_bytes();
            bytes.extend((path.len() as u32).to_le_bytes());
            bytes.extend(path);
            match state {
                MemberState::Settled(prints) => {
                    bytes.extend(NO_LIST.to_le_bytes());
                    list(&mut bytes, Some(prints));
                }
                MemberState::Moving { number, old, new } => {
                    bytes.extend(number.to_le_bytes());
                    list(&mut bytes, old.as_deref());
                    list(&mut bytes, new.as_deref());
                }
            }
            if bytes.len() > LIMIT - DIGEST_BYTES {
                bytes.truncate(before);
            }
        }
        let digest = digest(&bytes);
        bytes.extend_from_slice(&digest);
        bytes
    }

    /// Parses the file's bytes.
    pub fn parse(bytes: &[u8]) -> Option<SeedRecord> {
        let (bytes, digest) = bytes.split_at_checked(bytes.len().checked_sub(DIGEST_BYTES)?)?;
        if self::digest(bytes)[..] != *digest {
            return None;
        }
        let (text, start) = RecordHeader::parse(bytes)?;
        let mut rest = RecordReader(bytes.get(start..)?);
        let root = rest.list()?.and_then(|prints| prints.first().copied());
        let mut members = Members::default();
        while !rest.0.is_empty() {
            let length = rest.number()?;
            let path = PathBuf::from(std::ffi::OsString::from_vec(
                rest.take(length as usize)?.to_vec(),
            ));
            let state = match rest.number()? {
                NO_LIST => MemberState::Settled(rest.list()??),
                number => MemberState::Moving {
                    number,
                    old: rest.list()?,
                    new: rest.list()?,
                },
            };
            members.insert(path, state);
        }
        Some(SeedRecord {
            text,
            root,
            members,
        })
    }
}

fn digest(bytes: &[u8]) -> [u8; DIGEST_BYTES] {
    let mut hash = Hash::new();
    hash.add(bytes);
    hash.digest()
}

fn list(bytes: &mut Vec<u8>, prints: Option<&[Print]>) {
    let count = prints.map_or(NO_LIST, |prints| prints.len() as u32);
    bytes.extend(count.to_le_bytes());
    for print in prints.unwrap_or_default() {
        bytes.extend(print.to_bytes());
    }
}

/// The rest of the bytes to parse.
struct RecordReader<'a>(&'a [u8]);

impl<'a> RecordReader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u32> {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(self.take(4)?);
        Some(u32::from_le_bytes(bytes))
    }

    fn list(&mut self) -> Option<Option<Vec<Print>>> {
        let count = self.number()?;
        if count == NO_LIST {
            return Some(None);
        }
        let bytes = self.take((count as usize).checked_mul(PRINT_BYTES)?)?;
        let prints = bytes
            .chunks_exact(PRINT_BYTES)
            .filter_map(|chunk| chunk.try_into().ok());
        Some(Some(prints.map(Print::from_bytes).collect()))
    }
}

/// Whether a path can be a member: directly below the volume's root, or on the volume at /var below
/// /var/lib.
fn is_member(path: &Path, division: Division) -> bool {
    let names: Vec<Component> = path.components().collect();
    if !names
        .iter()
        .all(|name| matches!(name, Component::Normal(_)))
    {
        return false;
    }
    match names.len() {
        1 => path != Path::new(IDENTITY_DIR) && path != Path::new(LOST_AND_FOUND),
        2 => division == Division::EachMember && path.starts_with(CONTAINER),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> SeedRecord {
        let print = |n: u8| Print {
            shape: [n; 16],
            content: [n + 1; 16],
            modified: (-3, 7),
        };
        let members = [
            ("lib/a", MemberState::Settled(vec![print(1), print(2)])),
            (
                "www",
                MemberState::Moving {
                    number: 4,
                    old: None,
                    new: Some(vec![print(3)]),
                },
            ),
            (
                "x\n\u{fffd}",
                MemberState::Moving {
                    number: 5,
                    old: Some(vec![print(8)]),
                    new: None,
                },
            ),
        ];
        let text = RecordHeader {
            mark: "web 1 hash".to_owned(),
            lacking: true,
            kept: KeptUnits {
                names: vec!["/var/www".to_owned()],
                more: 3,
            },
        };
        SeedRecord {
            text,
            root: Some(print(9)),
            members: Members(
                members
                    .map(|(path, state)| (PathBuf::from(path), state))
                    .to_vec(),
            ),
        }
    }

    #[test]
    fn reads_the_record_it_wrote_and_refuses_an_altered_one() {
        let bytes = record().to_bytes();
        assert_eq!(SeedRecord::parse(&bytes), Some(record()));
        assert_eq!(
            RecordHeader::parse(&bytes).map(|(text, _)| text),
            Some(record().text)
        );
        for at in 0..bytes.len() {
            let mut altered = bytes.clone();
            altered[at] ^= 1;
            assert_eq!(SeedRecord::parse(&altered), None, "byte {at}");
            assert_eq!(SeedRecord::parse(&bytes[..at]), None, "cut at {at}");
        }
        assert_eq!(
            SeedRecord::parse(b"web 1 hash\n"),
            None,
            "what an earlier agent wrote"
        );
    }

    #[test]
    fn refuses_a_record_with_wrong_counts() {
        let mut bytes = record().to_bytes();
        bytes.truncate(bytes.len() - DIGEST_BYTES);
        let start = bytes.windows(2).position(|pair| pair == b"\n\n").unwrap() + 2;
        bytes[start..start + 4].copy_from_slice(&(NO_LIST - 1).to_le_bytes());
        let digest = digest(&bytes);
        bytes.extend_from_slice(&digest);
        assert_eq!(SeedRecord::parse(&bytes), None);
    }

    #[test]
    fn accepts_only_member_paths_from_a_record() {
        for (path, members, whole) in [
            ("www", true, true),
            ("lib/a", true, false),
            ("lib", true, true),
            ("www/a", false, false),
            ("lib/a/b", false, false),
            ("../etc", false, false),
            ("/etc", false, false),
            (".adamant", false, false),
            ("lost+found", false, false),
            ("", false, false),
        ] {
            assert_eq!(
                (
                    is_member(Path::new(path), Division::EachMember),
                    is_member(Path::new(path), Division::OneUnit)
                ),
                (members, whole),
                "{path}"
            );
        }
    }
}
