//! Where things go. This file alone decides it:
//!
//! | blocks | what |
//! |---|---|
//! | 0 | super block |
//! | then | contents of files, in the order of their first paths |
//! | then | directories that are longer than a block, in the same order |
//! | then | shared extended attributes |
//! | then | inodes, each with its extended attributes, then what it holds where that is short, or its index |
//!
//! An inode that fits into a block with all that belongs to it never crosses into the next one.
//!
//! The next version of an image is to have as many blocks in common with this one as can be. What
//! makes blocks differ is not what changed but what that moves: addresses are in inodes, and
//! numbers of inodes in directories. So inodes have an [`Area`] by what they tell of: other inodes,
//! data, or no place at all; the last stay the same wherever they are, and are most of the
//! metadata. Each area is cut into groups where a path's key says so, not where a block is full:
//! what is inserted or grows moves its neighbours in its group, and no others. Several groups make
//! a region, at whose end some blocks are left free, so that one more block in it does not change
//! the numbers in all regions behind it.
//!
//! Who names the image before ([`super::previous`]) gets its places instead of these.

use sha2::{Digest, Sha256};

use super::format::*;

/// Slots of a block.
pub const SLOTS: usize = BLOCK / SLOT;

/// A number made of a path, evenly distributed: equal in all images that have the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key(pub u64);

impl Key {
    /// That of a path.
    pub fn of(path: &[u8]) -> Key {
        let mut first = [0; 8];
        first.copy_from_slice(&Sha256::digest(path)[..8]);
        Key(u64::from_le_bytes(first))
    }

    /// Whether something of this size begins here, when one is to begin in every `each` (same unit)
    /// on average, in the long run. `purpose` (0 or 1): its answers are independent of the
    /// other's.
    fn begins(self, purpose: u32, size: u64, each: u64) -> bool {
        let part = (self.0 >> (32 * purpose)) & 0xffff_ffff;
        // size / each as a part of 2^32, without a product that overflows.
        size >= each || part < (size << 32) / each
    }
}

/// Where an inode's metadata goes, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Area {
    /// Directories whose entries are with their inode: it holds numbers of inodes. The root is
    /// always one, since its number has only 16 bits.
    Names,
    /// What has blocks of data: it holds their addresses, and nothing else.
    Addresses,
    /// All else.
    Rest,
}

/// An arena of data: about so many bytes of files. Small changes in it do not move what is in the
/// next one, and so change no address there.
const ARENA: u64 = 32 << 20;
/// Arenas end at a multiple of so many blocks.
pub const ARENA_SPARE: u32 = 16;

/// Whether the file of this size at this path is the first of an arena.
pub fn begins_arena(key: Key, size: u64) -> bool {
    key.begins(1, size, ARENA)
}

/// How an area is cut.
struct Cut {
    area: Area,
    /// Blocks of a group, about.
    group: u64,
    /// Blocks of a region, about.
    region: u64,
    /// Regions end at a multiple of so many blocks.
    spare: u64,
}

/// Small groups change less, and leave more room unused: half a block each.
const CUTS: [Cut; 3] = [
    Cut {
        area: Area::Names,
        group: 8,
        region: 64,
        spare: 4,
    },
    Cut {
        area: Area::Addresses,
        group: 8,
        region: 64,
        spare: 8,
    },
    Cut {
        area: Area::Rest,
        group: 16,
        region: 256,
        spare: 16,
    },
];

/// An area ends at a multiple of this part of the power of two below its length: growing, it does
/// not move the next one at once.
const AREA_SPARE: u64 = 32;

/// An inode to be placed.
#[derive(Debug, Clone, Copy)]
pub struct Part {
    /// All that belongs to it, the inode included.
    pub bytes: u64,
    /// Its path's.
    pub key: Key,
    /// Where it goes.
    pub area: Area,
}

impl Part {
    /// The same, in slots.
    pub fn slots(&self) -> u64 {
        self.bytes.div_ceil(SLOT as u64)
    }
}

/// Places so many inodes, of which the first is the root's; `part` tells of each, and is asked
/// several times: a million of them are not kept. Gives their numbers, and how many blocks the
/// metadata area has. `None` when it is full.
pub fn place(count: usize, part: &dyn Fn(usize) -> Part) -> Option<(Vec<u64>, u64)> {
    let mut numbers = vec![0; count];
    let mut block = 0;
    let mut group: Vec<Member> = Vec::new();
    for cut in &CUTS {
        let (area, mut region) = (block, block);
        let mut slots = 0;
        let mut members = (0..count)
            .map(|i| (i, part(i)))
            .filter(|(_, part)| part.area == cut.area)
            .peekable();
        while let Some((index, member)) = members.next() {
            group.push(Member {
                index,
                slots: member.slots(),
            });
            slots += member.slots();
            let least = cut.group * SLOTS as u64 / 2;
            let ends = members.peek().is_none_or(|(_, next)| {
                slots >= least && next.key.begins(0, next.slots(), least) || slots >= 16 * least
            });
            if !ends {
                continue;
            }
            if block - region >= cut.region / 2
                && part(group[0].index)
                    .key
                    .begins(1, slots, cut.region / 2 * SLOTS as u64)
            {
                block = block.next_multiple_of(cut.spare);
                region = block;
            }
            block += place_group(&mut group, block, &mut numbers)?;
            group.clear();
            slots = 0;
        }
        if cut.area != Area::Rest && block > area {
            block = area
                + (block - area)
                    .next_multiple_of((1u64 << (block - area).ilog2()).div_ceil(AREA_SPARE));
        }
    }
    Some((numbers, block))
}

/// An inode of a group.
#[derive(Clone, Copy)]
struct Member {
    index: usize,
    slots: u64,
}

/// Places a group from `block` on, and gives how many blocks it takes.
fn place_group(group: &mut [Member], block: u64, numbers: &mut [u64]) -> Option<u64> {
    let mut places = Places::new();
    if let Some(root) = group.iter().find(|member| member.index == 0) {
        // The first slot of all stays unused: programs take inode number 0 for a name that was
        // deleted. Then the root.
        places.place(1)?;
        numbers[0] = places.place(root.slots)?;
    }
    // Large ones first: the others fill what they leave.
    group.sort_by_key(|member| (std::cmp::Reverse(member.slots), member.index));
    for member in group.iter().filter(|member| member.index != 0) {
        numbers[member.index] = block * SLOTS as u64 + places.place(member.slots)?;
    }
    u32::try_from(block + places.blocks)
        .ok()
        .map(|_| places.blocks)
}

/// Hands out places in a group, where the least room stays unused.
struct Places {
    /// Blocks by how many slots they have free.
    free: Vec<Vec<u32>>,
    blocks: u64,
}

impl Places {
    fn new() -> Places {
        Places {
            free: vec![Vec::new(); SLOTS + 1],
            blocks: 0,
        }
    }

    /// A place for so many slots: the first one's number. `None` when there is no more room.
    fn place(&mut self, slots: u64) -> Option<u64> {
        if slots > SLOTS as u64 {
            let first = self.blocks;
            let count = slots.div_ceil(SLOTS as u64);
            self.blocks += count;
            let unused = (count * SLOTS as u64 - slots) as usize;
            self.give(u32::try_from(self.blocks - 1).ok()?, unused);
            return Some(first * SLOTS as u64);
        }
        let slots = slots as usize;
        let (block, room) =
            match (slots..=SLOTS).find_map(|room| Some((self.free[room].pop()?, room))) {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Inodes with paths of their own, of every area and many sizes.
    fn parts(count: u64) -> Vec<(u64, Part)> {
        let part = |i: u64| {
            let key = Key::of(format!("/{i}").as_bytes());
            let area = [
                Area::Names,
                Area::Addresses,
                Area::Addresses,
                Area::Rest,
                Area::Rest,
                Area::Rest,
            ][(key.0 % 6) as usize];
            let bytes = 32 + (key.0 >> 20) % if area == Area::Rest { 3900 } else { 300 };
            let bytes = if area == Area::Addresses && key.0.is_multiple_of(97) {
                70_000
            } else {
                bytes
            };
            Part {
                bytes,
                key,
                area: if i == 0 { Area::Names } else { area },
            }
        };
        (0..count).map(|i| (i, part(i))).collect()
    }

    fn numbers(parts: &[(u64, Part)]) -> (Vec<u64>, u64) {
        place(parts.len(), &|i| parts[i].1).unwrap()
    }

    #[test]
    fn nothing_shares_a_place_or_crosses_into_another_block() {
        for count in [1, 2, 100, 20_000] {
            let parts = parts(count);
            let (numbers, blocks) = numbers(&parts);
            let mut places: Vec<(u64, u64)> = numbers
                .iter()
                .zip(&parts)
                .map(|(number, (_, part))| (*number, number + part.slots()))
                .collect();
            places.sort_unstable();
            assert!(
                places[0].0 > 0
                    && places.last().unwrap().1 <= blocks * SLOTS as u64
                    && numbers[0] < 1 << 16
            );
            assert!(places.windows(2).all(|pair| pair[0].1 <= pair[1].0));
            let slots = SLOTS as u64;
            assert!(
                places
                    .iter()
                    .all(|(start, end)| start / slots == (end - 1) / slots
                        || start.is_multiple_of(slots))
            );
        }
    }

    #[test]
    fn what_is_inserted_moves_little() {
        let before = parts(20_000);
        let (old, blocks) = numbers(&before);
        let mut moved = Vec::new();
        for at in (1..20_000).step_by(1999) {
            let mut after = before.clone();
            let key = Key::of(format!("/{at}-").as_bytes());
            after.insert(
                at,
                (
                    u64::MAX,
                    Part {
                        bytes: 900,
                        key,
                        area: Area::Rest,
                    },
                ),
            );
            let (new, _) = numbers(&after);
            let kept = new
                .iter()
                .zip(&after)
                .filter(|(number, (id, _))| old.get(*id as usize) == Some(number))
                .count();
            moved.push(before.len() - kept);
        }
        moved.sort_unstable();
        // A group, usually; where a region has no room left, all behind it.
        assert!(
            moved[moved.len() / 2] < 100,
            "{moved:?} of 20000 in {blocks} blocks"
        );
    }

    #[test]
    fn little_room_is_lost() {
        let parts = parts(50_000);
        let wanted: u64 = parts.iter().map(|(_, part)| part.slots()).sum();
        let (_, blocks) = numbers(&parts);
        let lost = 1.0 - wanted as f64 / (blocks * SLOTS as u64) as f64;
        assert!(lost < 0.12, "{lost}");
    }
}
