//! Where everything is in the file system. No other file decides it:
//!
//! | blocks | content |
//! |---|---|
//! | 0 | superblock |
//! | next | contents of files, in the order of their first paths |
//! | next | directories of more than a block, in the same order |
//! | next | shared extended attributes |
//! | next | inodes, each with its extended attributes, then its tail or its index |
//!
//! An inode that fits into a block with its attributes and its tail or index does not cross a block
//! boundary.
//!
//! The goal is that two versions of an image have most blocks in common. A change itself touches
//! few blocks; the positions that it moves touch many. Inodes contain block addresses, and
//! directories contain inode numbers. Therefore:
//!
//! - Inodes are sorted into [`Area`]s by what they contain: inode numbers, block addresses, or
//!   neither. Inodes of the last kind are most of the metadata, and do not change when others move.
//! - Each area is cut into groups. The key of a path decides where a group begins, not how full a
//!   block is. So an inode that is added or grows moves only the other inodes of its group.
//! - Several groups form a region, with a few free blocks at its end. So a group that grows by a
//!   block does not change the inode numbers in all regions behind it.
//!
//! With a reference image, [`super::reference`] chooses the positions instead.

use sha2::{Digest, Sha256};

use super::format::*;

/// Number of slots in a block.
pub const SLOTS: usize = BLOCK / SLOT;

/// A hash of a path: evenly distributed, and equal in all images that have the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathKey(pub u64);

impl PathKey {
    /// The key of a path, or of other bytes.
    pub fn hash(path: &[u8]) -> PathKey {
        let mut first = [0; 8];
        first.copy_from_slice(&Sha256::digest(path)[..8]);
        PathKey(u64::from_le_bytes(first))
    }

    /// Whether a unit (a group, region or arena) begins at the item with this key and size. Units
    /// have `average` bytes, or whatever unit `size` has, in the long run. The answers for the two
    /// values of `purpose`, 0 and 1, are independent of each other.
    fn begins(self, purpose: u32, size: u64, average: u64) -> bool {
        let fraction = (self.0 >> (32 * purpose)) & 0xffff_ffff;
        // size / average as a fraction of 2^32, without a product that overflows.
        size >= average || fraction < (size << 32) / average
    }
}

/// A part of the metadata, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Area {
    /// Directories whose entries are in the tail: they contain inode numbers. The root is always
    /// here, because its number has only 16 bits.
    Names,
    /// Inodes with data blocks: they contain block addresses.
    Addresses,
    /// All other inodes.
    Rest,
}

/// Average size of an arena of file contents, bytes. A small change in one arena moves no contents
/// in the next one, and so changes no addresses there.
const ARENA: u64 = 32 << 20;
/// Arenas begin at a multiple of this number of blocks.
pub const ARENA_ALIGNMENT: u32 = 16;

/// Whether a file with this key and size is the first of an arena.
pub fn begins_arena(key: PathKey, size: u64) -> bool {
    key.begins(1, size, ARENA)
}

/// How an area is cut into groups and regions.
struct Cut {
    area: Area,
    /// Average blocks of a group.
    group: u64,
    /// Average blocks of a region.
    region: u64,
    /// Regions begin at a multiple of this number of blocks.
    alignment: u64,
}

/// Small groups move fewer inodes, but each group leaves half a block unused.
const CUTS: [Cut; 3] = [
    Cut {
        area: Area::Names,
        group: 8,
        region: 64,
        alignment: 4,
    },
    Cut {
        area: Area::Addresses,
        group: 8,
        region: 64,
        alignment: 8,
    },
    Cut {
        area: Area::Rest,
        group: 16,
        region: 256,
        alignment: 16,
    },
];

/// An area's length is rounded up to a multiple of 1/32 of the power of two below it, so that an
/// area can grow without moving the next one.
const AREA_ROUNDING: u64 = 32;
/// A group ends at this multiple of its minimum size if no key ended it before.
const GROUP_MAX: u64 = 16;

/// An inode that needs a position.
#[derive(Debug, Clone, Copy)]
pub struct InodeRequest {
    /// Size of the inode, its extended attributes and its tail or index.
    pub bytes: u64,
    /// PathKey of its path.
    pub key: PathKey,
    /// The area that it belongs to.
    pub area: Area,
}

impl InodeRequest {
    /// Size in slots.
    pub fn slots(&self) -> u64 {
        self.bytes.div_ceil(SLOT as u64)
    }
}

/// The positions of inodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InodePositions {
    /// Number (nid) of each inode.
    pub numbers: Vec<u64>,
    /// Blocks of the metadata area.
    pub blocks: u64,
}

/// Chooses positions for `count` inodes; the first one is the root. `request` describes each, and
/// is called several times, since a million requests would take too much memory. `None` when the
/// metadata area is full.
pub fn place(count: usize, request: &dyn Fn(usize) -> InodeRequest) -> Option<InodePositions> {
    let mut numbers = vec![0; count];
    let mut block = 0;
    for cut in &CUTS {
        let (area_start, mut region_start) = (block, block);
        let mut members = (0..count)
            .map(|i| (i, request(i)))
            .filter(|(_, request)| request.area == cut.area)
            .peekable();
        while let Some(mut group) = next_group(&mut members, cut.group) {
            if begins_region(&group, cut, block - region_start, request) {
                block = block.next_multiple_of(cut.alignment);
                region_start = block;
            }
            block += place_group(&mut group, block, &mut numbers)?;
        }
        let length = block - area_start;
        if cut.area != Area::Rest && length > 0 {
            let unit = (1u64 << length.ilog2()).div_ceil(AREA_ROUNDING);
            block = area_start + length.next_multiple_of(unit);
        }
    }
    Some(InodePositions {
        numbers,
        blocks: block,
    })
}

/// An inode of a group.
#[derive(Clone, Copy)]
struct Member {
    index: usize,
    slots: u64,
}

/// Takes the members of the next group; `None` after the last.
fn next_group(
    members: &mut std::iter::Peekable<impl Iterator<Item = (usize, InodeRequest)>>,
    average_blocks: u64,
) -> Option<Vec<Member>> {
    let minimum = average_blocks * SLOTS as u64 / 2;
    let mut group = Vec::new();
    let mut slots = 0;
    while let Some((index, request)) = members.next() {
        group.push(Member {
            index,
            slots: request.slots(),
        });
        slots += request.slots();
        let ends = members.peek().is_none_or(|(_, next)| {
            slots >= minimum && next.key.begins(0, next.slots(), minimum)
                || slots >= GROUP_MAX * minimum
        });
        if ends {
            break;
        }
    }
    (!group.is_empty()).then_some(group)
}

/// Whether a region begins with this group, `blocks` blocks behind the beginning of the last one.
fn begins_region(
    group: &[Member],
    cut: &Cut,
    blocks: u64,
    request: &dyn Fn(usize) -> InodeRequest,
) -> bool {
    let minimum = cut.region / 2;
    let slots = group.iter().map(|member| member.slots).sum();
    blocks >= minimum
        && group.first().is_some_and(|first| {
            request(first.index)
                .key
                .begins(1, slots, minimum * SLOTS as u64)
        })
}

/// Places a group from `block` on, and gives the number of blocks that it takes.
fn place_group(group: &mut [Member], block: u64, numbers: &mut [u64]) -> Option<u64> {
    let mut allocator = SlotAllocator::new();
    if let Some(root) = group.iter().find(|member| member.index == 0) {
        // The first slot of the area stays unused, because programs take inode number 0 for a
        // deleted name. The root follows it.
        allocator.allocate(1)?;
        numbers[0] = allocator.allocate(root.slots)?;
    }
    // Large inodes first: small ones fill the gaps.
    group.sort_by_key(|member| (std::cmp::Reverse(member.slots), member.index));
    for member in group.iter().filter(|member| member.index != 0) {
        numbers[member.index] = block * SLOTS as u64 + allocator.allocate(member.slots)?;
    }
    u32::try_from(block + allocator.blocks)
        .ok()
        .map(|_| allocator.blocks)
}

/// Allocates slots in a group, in the block with the least room that is enough.
struct SlotAllocator {
    /// Blocks by their number of free slots.
    free: Vec<Vec<u32>>,
    blocks: u64,
}

impl SlotAllocator {
    fn new() -> SlotAllocator {
        SlotAllocator {
            free: vec![Vec::new(); SLOTS + 1],
            blocks: 0,
        }
    }

    /// The first of `slots` free slots; `None` when there is no more room.
    fn allocate(&mut self, slots: u64) -> Option<u64> {
        if slots > SLOTS as u64 {
            let first = self.blocks;
            let count = slots.div_ceil(SLOTS as u64);
            self.blocks += count;
            let unused = (count * SLOTS as u64 - slots) as usize;
            self.add_free(u32::try_from(self.blocks - 1).ok()?, unused);
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
        self.add_free(block, room - slots);
        Some(u64::from(block) * SLOTS as u64 + (SLOTS - room) as u64)
    }

    fn add_free(&mut self, block: u32, room: usize) {
        if room > 0 {
            self.free[room].push(block);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Inodes with distinct paths, of every area and many sizes; each with its number.
    fn requests(count: u64) -> Vec<(u64, InodeRequest)> {
        let request = |i: u64| {
            let key = PathKey::hash(format!("/{i}").as_bytes());
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
            InodeRequest {
                bytes,
                key,
                area: if i == 0 { Area::Names } else { area },
            }
        };
        (0..count).map(|i| (i, request(i))).collect()
    }

    fn place_all(requests: &[(u64, InodeRequest)]) -> InodePositions {
        place(requests.len(), &|i| requests[i].1).unwrap()
    }

    /// The invariants of every layout.
    fn check(requests: &[InodeRequest], positions: &InodePositions) {
        let slots = SLOTS as u64;
        let mut ranges: Vec<(u64, u64, Area)> = positions
            .numbers
            .iter()
            .zip(requests)
            .map(|(number, request)| (*number, number + request.slots(), request.area))
            .collect();
        ranges.sort_unstable_by_key(|(start, end, _)| (*start, *end));
        assert!(ranges[0].0 > 0, "slot 0 is used");
        assert!(ranges.last().unwrap().1 <= positions.blocks * slots);
        assert!(
            positions.numbers[0] < 1 << 16,
            "the root's number has 16 bits"
        );
        assert!(
            ranges.windows(2).all(|pair| pair[0].1 <= pair[1].0),
            "overlap"
        );
        assert!(
            ranges.windows(2).all(|pair| pair[0].2 <= pair[1].2),
            "areas are mixed"
        );
        for (start, end, _) in ranges {
            assert!(
                start / slots == (end - 1) / slots || start.is_multiple_of(slots),
                "{start}..{end} crosses a block boundary"
            );
        }
    }

    fn any_request() -> impl Strategy<Value = InodeRequest> {
        let bytes = prop_oneof![4 => 32u64..400, 2 => 32u64..4097, 1 => 4000u64..200_000];
        let area = prop_oneof![Just(Area::Names), Just(Area::Addresses), Just(Area::Rest)];
        (bytes, any::<u64>(), area).prop_map(|(bytes, key, area)| InodeRequest {
            bytes,
            key: PathKey(key),
            area,
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn inodes_never_overlap_or_cross_a_block_boundary(
            root in 32u64..2000,
            mut requests in prop::collection::vec(any_request(), 0..1500),
        ) {
            requests.insert(0, InodeRequest { bytes: root, key: PathKey::hash(b""), area: Area::Names });
            let positions = place(requests.len(), &|i| requests[i]).unwrap();
            check(&requests, &positions);
            // The same input gives the same positions.
            prop_assert_eq!(positions, place(requests.len(), &|i| requests[i]).unwrap());
        }
    }

    #[test]
    fn large_layouts_keep_the_invariants() {
        let requests = requests(20_000);
        let plain: Vec<InodeRequest> = requests.iter().map(|(_, request)| *request).collect();
        check(&plain, &place_all(&requests));
    }

    #[test]
    fn adding_an_inode_moves_few_others() {
        let before = requests(20_000);
        let old = place_all(&before);
        let mut moved = Vec::new();
        for at in (1..20_000).step_by(1999) {
            let mut after = before.clone();
            let key = PathKey::hash(format!("/{at}-").as_bytes());
            after.insert(
                at,
                (
                    u64::MAX,
                    InodeRequest {
                        bytes: 900,
                        key,
                        area: Area::Rest,
                    },
                ),
            );
            let new = place_all(&after);
            let unmoved = new
                .numbers
                .iter()
                .zip(&after)
                .filter(|(number, (id, _))| old.numbers.get(*id as usize) == Some(number))
                .count();
            moved.push(before.len() - unmoved);
        }
        moved.sort_unstable();
        // Usually one group; in a region without free blocks, all inodes behind it.
        assert!(
            moved[moved.len() / 2] < 100,
            "{moved:?} of 20000 in {} blocks",
            old.blocks
        );
    }

    #[test]
    fn less_than_12_percent_of_the_slots_are_unused() {
        let requests = requests(50_000);
        let wanted: u64 = requests.iter().map(|(_, request)| request.slots()).sum();
        let blocks = place_all(&requests).blocks;
        let unused = 1.0 - wanted as f64 / (blocks * SLOTS as u64) as f64;
        assert!(unused < 0.12, "{unused}");
    }
}
