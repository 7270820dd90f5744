//! Where things go. This file alone decides it:
//!
//! | blocks | what |
//! |---|---|
//! | 0 | super block |
//! | then | contents of files, in the order of their first paths |
//! | then | whole blocks of directories, in the same order |
//! | then | shared extended attributes |
//! | then | inodes, each with its extended attributes, then its tail or its index |
//!
//! An inode that fits into a block with all that belongs to it never crosses into the next one: it goes where the least room stays unused.

use super::format::*;

const SLOTS: usize = BLOCK / SLOT;

/// Inodes that are placed together, the large ones first: they fill blocks better so, and still stand near their neighbours in the tree.
const GROUP: usize = 2048;

/// Places inodes of these sizes (bytes, all that belongs to an inode included); the root's is the first. Gives their numbers, and how many
/// blocks the metadata area has. `None` when it is full.
pub fn place(bytes: &[u64]) -> Option<(Vec<u64>, u64)> {
    let mut places = Places::new();
    let mut numbers = vec![0; bytes.len()];
    // The root's number has only 16 bits.
    *numbers.first_mut()? = places.place(bytes[0])?;
    let mut group: Vec<usize> = Vec::with_capacity(GROUP);
    for start in (1..bytes.len()).step_by(GROUP) {
        group.clear();
        group.extend(start..bytes.len().min(start + GROUP));
        group.sort_by_key(|&i| (std::cmp::Reverse(bytes[i].div_ceil(SLOT as u64)), i));
        for &i in &group {
            numbers[i] = places.place(bytes[i])?;
        }
    }
    Some((numbers, places.blocks))
}

/// Hands out places in the metadata area.
struct Places {
    /// Blocks by how many slots they have free.
    free: Vec<Vec<u32>>,
    blocks: u64,
}

impl Places {
    /// An empty metadata area. Its first slot stays unused: programs take inode number 0 for a name that was deleted.
    fn new() -> Places {
        let mut free = vec![Vec::new(); SLOTS + 1];
        free[SLOTS - 1].push(0);
        Places { free, blocks: 1 }
    }

    /// A place for this many bytes: the inode's number. `None` when the area is full.
    fn place(&mut self, bytes: u64) -> Option<u64> {
        let slots = bytes.div_ceil(SLOT as u64);
        if slots > SLOTS as u64 {
            let first = self.blocks;
            let count = slots.div_ceil(SLOTS as u64);
            self.blocks += count;
            let unused = (count * SLOTS as u64 - slots) as usize;
            self.give(u32::try_from(self.blocks - 1).ok()?, unused);
            return Some(first * SLOTS as u64);
        }
        let slots = slots as usize;
        let (block, room) = match (slots..=SLOTS).find_map(|room| Some((self.free[room].pop()?, room))) {
            Some(found) => found,
            None => {
                self.blocks += 1;
                (u32::try_from(self.blocks - 1).ok()?, SLOTS)
            }
        };
        self.give(block, room - slots);
        Some(u64::from(block) * SLOTS as u64 + (SLOTS - room) as u64)
    }

    fn give(&mut self, block: u32, room: usize) {
        if room > 0 {
            self.free[room].push(block);
        }
    }
}
