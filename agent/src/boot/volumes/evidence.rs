//! Evidence of a damaged volume, saved before the volume is repaired or made again: its first MiBs
//! (superblock, group descriptors) and its journal. The size is bounded, so that evidence never
//! fills a healthy volume.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::rc::Rc;

use adamant_contract::hex;
use adamant_contract::paths::IDENTITY_DIR;
use nix::mount::{MntFlags, umount2};
use sha2::{Digest, Sha256};

use super::super::Failure;
use super::superblock::Ext4Superblock;
use super::{AssessedVolume, Assessment, VolumesStage, ext4_kernel, failure};
use crate::kernel::rooted_fs;

/// Bytes saved from the start of a volume, and bytes saved from its journal.
const HEAD: u64 = 4 << 20;
const JOURNAL: u64 = 16 << 20;
/// Most files of evidence on one volume. Later evidence is not saved.
const FILES: usize = 8;
/// Evidence takes at most 1/`SHARE` of a volume's free space.
const SHARE: u64 = 4;
const CHUNK: usize = 64 << 10;

/// Parts of a damaged volume. The content is a text up to the first empty line, which lists ranges
/// of the volume, and then the bytes of those ranges in the same order.
pub struct Evidence {
    /// File name: the volume's name and the start of the content's hash, so that the same evidence
    /// makes one file however often it is saved.
    pub file: String,
    bytes: Vec<u8>,
}

impl Evidence {
    /// Reads the evidence from the volume `name` of `bytes` bytes. The journal is included if the
    /// superblock says where it is.
    pub fn collect(
        name: &str,
        partition: &File,
        bytes: u64,
        known: Option<&Ext4Superblock>,
    ) -> Evidence {
        let mut ranges = vec![(0, HEAD.min(bytes))];
        let mut left = JOURNAL;
        for (first, count) in known.iter().flat_map(|found| {
            found
                .journal
                .iter()
                .map(|(first, count)| (first.saturating_mul(found.block), count * found.block))
        }) {
            let length = count.min(left).min(bytes.saturating_sub(first));
            if length > 0 {
                ranges.push((first, length));
                left -= length;
            }
        }
        let mut text = format!("adamant: parts of the damaged volume {name} of {bytes} bytes\n");
        let mut content = Vec::new();
        for (first, length) in ranges {
            let from = content.len();
            content.resize(from + length as usize, 0);
            let chunks = content[from..]
                .chunks_mut(CHUNK)
                .zip((first..).step_by(CHUNK));
            // A failing disk returns part of it. Unreadable bytes stay zero and are counted.
            let unread = chunks
                .filter_map(|(chunk, at)| partition.read_exact_at(chunk, at).err())
                .count();
            text.push_str(&format!(
                "bytes {first} to {}, {unread} of its {CHUNK}-byte pieces unreadable\n",
                first + length - 1
            ));
        }
        let file = format!(
            "{name}-{}.damaged",
            &hex::encode(&Sha256::digest(&content))[..16]
        );
        Evidence {
            file,
            bytes: [text.as_bytes(), b"\n", &content].concat(),
        }
    }

    /// Saves the evidence durably on a volume that has room to spare. Returns the file's path below
    /// the volume.
    pub fn save(&self, volume: &OwnedFd) -> io::Result<String> {
        let own = rooted_fs::own_folder(
            volume,
            &rooted_fs::c_name(IDENTITY_DIR.as_ref()).unwrap_or_default(),
        )?;
        let folder = rooted_fs::own_folder(own, c"damaged")?;
        let name = rooted_fs::c_name(self.file.as_ref()).ok_or(io::ErrorKind::InvalidFilename)?;
        let path = format!("{IDENTITY_DIR}/damaged/{}", self.file);
        let there = rooted_fs::names(&folder)?;
        if there.contains(&name) {
            return Ok(path);
        }
        if there.len() >= FILES {
            return Err(io::Error::other(format!(
                "{FILES} files of evidence are there already"
            )));
        }
        let free = nix::sys::statvfs::fstatvfs(volume)?;
        if free.fragment_size().saturating_mul(free.blocks_available()) / SHARE
            < self.bytes.len() as u64
        {
            return Err(io::Error::other("too little free space"));
        }
        rooted_fs::write_file(folder, &name, &self.bytes)?;
        Ok(path)
    }
}

/// Where a volume's evidence is.
#[derive(Clone, Default)]
pub enum EvidenceState {
    /// None was taken, because none was needed.
    #[default]
    Nothing,
    /// On another volume: its path in the running image.
    Elsewhere(String),
    /// In memory, because no other volume had room for it.
    InMemory(Rc<Evidence>),
}

/// A part of a sentence about the volume.
impl fmt::Display for EvidenceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EvidenceState::Nothing => f.write_str("no evidence of it is kept"),
            EvidenceState::Elsewhere(place) => write!(f, "evidence of it is kept as {place}"),
            EvidenceState::InMemory(_) => f.write_str("no other volume had room for evidence"),
        }
    }
}

impl VolumesStage<'_> {
    /// Saves evidence of a volume on a sound one or, if none has room, in memory until the volume
    /// itself is sound again. Earlier evidence is not replaced, because it is closest to the cause.
    pub(super) fn save_evidence(
        &self,
        position: usize,
        known: &mut [AssessedVolume],
    ) -> Result<(), Failure> {
        if !matches!(known[position].kept, EvidenceState::Nothing) {
            return Ok(());
        }
        let (volume, AssessedVolume { device, found, .. }) =
            (&self.volumes[position], &known[position]);
        let opened = File::open(&device.path).map_err(|e| {
            failure(
                format!("volume {:?} ({})", volume.name, device.path.display()),
                e,
                "replace the disk",
            )
        })?;
        let evidence = Evidence::collect(&volume.name, &opened, device.bytes, found.as_ref());
        known[position].kept = match self.save_on_another_volume(position, known, &evidence) {
            Some(place) => EvidenceState::Elsewhere(place),
            None => EvidenceState::InMemory(Rc::new(evidence)),
        };
        Ok(())
    }

    /// Writes evidence to the first sound volume with room, other than the one at `position`.
    /// Returns the path in the running image.
    fn save_on_another_volume(
        &self,
        position: usize,
        known: &[AssessedVolume],
        evidence: &Evidence,
    ) -> Option<String> {
        let others = (0..)
            .zip(known.iter().zip(self.volumes))
            .filter(|(other, _)| *other != position)
            .map(|(_, other)| other);
        for (known, volume) in
            others.filter(|(known, _)| matches!(known.finding, Assessment::Sound { .. }))
        {
            if fs::create_dir_all(self.evidence_mount).is_err() {
                return None;
            }
            let kept = rooted_fs::open_trusted(self.evidence_mount)
                .and_then(|folder| ext4_kernel::mount_on(&known.device.path, &folder, false))
                .map(|()| {
                    let kept = rooted_fs::open_trusted(self.evidence_mount)
                        .map_err(io::Error::from)
                        .and_then(|volume| evidence.save(&volume));
                    // Nothing is open on the volume any more.
                    let unmounted = umount2(self.evidence_mount, MntFlags::empty());
                    kept.and_then(|path| unmounted.map(|()| path).map_err(io::Error::from))
                });
            if let Ok(Ok(path)) = kept {
                return Some(format!("{}/{path}", volume.mount));
            }
        }
        None
    }
}
