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

/// Hands out places in the metadata area.
pub struct Places {
    /// Blocks by how many slots they have free.
    free: Vec<Vec<u32>>,
    blocks: u64,
}

impl Places {
    /// An empty metadata area. Its first slot stays unused: programs take inode number 0 for a name that was deleted.
    pub fn new() -> Places {
        let mut free = vec![Vec::new(); SLOTS + 1];
        free[SLOTS - 1].push(0);
        Places { free, blocks: 1 }
    }

    /// A place for this many bytes: the inode's number. `None` when the area is full.
    pub fn place(&mut self, bytes: u64) -> Option<u64> {
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

    /// Blocks handed out so far.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    fn give(&mut self, block: u32, room: usize) {
        if room > 0 {
            self.free[room].push(block);
        }
    }
}
