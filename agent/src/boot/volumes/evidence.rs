//! What is kept of a damaged volume before a new one takes its place: its first MiBs (super block, group descriptors) and its journal,
//! for whoever wants to know what happened. Bounded, because a healthy volume's room is worth more.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use adamant_agent::contract::IDENTITY_DIR;
use adamant_agent::hash::hex;
use sha2::{Digest, Sha256};

use super::beneath;
use super::probe::Super;

/// Kept of the start of a volume, and of its journal, bytes.
const HEAD: u64 = 4 << 20;
const JOURNAL: u64 = 16 << 20;
/// Files of evidence on one volume; later ones are not kept.
const FILES: usize = 8;
/// Of a volume's free space, evidence takes at most one part in so many.
const SHARE: u64 = 4;
const CHUNK: usize = 64 << 10;

/// Parts of a damaged volume: text up to the first empty line, which says which bytes of the volume follow, in that order.
pub struct Evidence {
    /// File name: the volume's name and the start of the content's hash, so that keeping it twice makes one file.
    pub file: String,
    bytes: Vec<u8>,
}

impl Evidence {
    /// Reads it from the volume `name` of `bytes` bytes, with the journal where its super block tells where that is.
    pub fn take(name: &str, partition: &File, bytes: u64, known: Option<&Super>) -> Evidence {
        let mut ranges = vec![(0, HEAD.min(bytes))];
        let mut left = JOURNAL;
        for (first, count) in known.iter().flat_map(|found| found.journal.iter().map(|(first, count)| (first.saturating_mul(found.block), count * found.block)))
        {
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
            let chunks = content[from..].chunks_mut(CHUNK).zip((first..).step_by(CHUNK));
            // A bad disk gives some of it: the rest stays zero, and is counted.
            let unread = chunks.filter_map(|(chunk, at)| partition.read_exact_at(chunk, at).err()).count();
            text.push_str(&format!("bytes {first} to {}, {unread} of its {CHUNK}-byte pieces unreadable\n", first + length - 1));
        }
        let file = format!("{name}-{}.damaged", &hex(&Sha256::digest(&content))[..16]);
        Evidence { file, bytes: [text.as_bytes(), b"\n", &content].concat() }
    }

    /// Keeps it on a volume, durably, when there is room to spare. Returns the file's path below the volume.
    pub fn keep(&self, volume: &OwnedFd) -> io::Result<String> {
        let own = beneath::own_folder(volume, &beneath::c_name(IDENTITY_DIR.as_ref()).unwrap_or_default())?;
        let folder = beneath::own_folder(own, c"damaged")?;
        let name = beneath::c_name(self.file.as_ref()).ok_or(io::ErrorKind::InvalidFilename)?;
        let path = format!("{IDENTITY_DIR}/damaged/{}", self.file);
        let there = beneath::names(&folder)?;
        if there.contains(&name) {
            return Ok(path);
        }
        if there.len() >= FILES {
            return Err(io::Error::other(format!("{FILES} files of evidence are there already")));
        }
        let free = nix::sys::statvfs::fstatvfs(volume)?;
        if free.fragment_size().saturating_mul(free.blocks_available()) / SHARE < self.bytes.len() as u64 {
            return Err(io::Error::other("too little free space"));
        }
        beneath::write(folder, &name, &self.bytes)?;
        Ok(path)
    }
}
