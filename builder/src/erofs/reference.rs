//! A reference image: an earlier image whose positions are reused.
//!
//! A file, directory or inode that exists in the reference image and has not grown keeps its
//! position. New ones go to positions that are no longer used, or to free ones.
//!
//! Only positions are taken from the reference image, by path. None of its bytes are trusted or
//! copied. The worst that it can do is to ask for much room: the writer ignores it if the image
//! would grow by more than 1/[`MAX_GROWTH`].

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::format::*;
use super::layout::{InodePositions, InodeRequest, PathKey};
use super::read::ErofsImage;
use crate::error::{Context, Result};
use crate::io::part::Part;
use crate::tree::Time;

/// Number of slots in a block.
const SLOTS: u64 = super::layout::SLOTS as u64;

/// Reused positions may make an image larger by this part of it.
pub const MAX_GROWTH: u64 = 100;

/// The positions in a reference image.
#[derive(Debug)]
pub struct Reference {
    /// Sorted by the number of the path's [`PathKey`]. A list, because there can be millions.
    placements: Vec<(u64, OldPlacement)>,
    /// Modification time of compact inodes.
    pub time: Time,
    /// SHA-256 of the image.
    pub sha256: [u8; 32],
}

/// Positions of an inode and its data.
#[derive(Debug, Clone, Copy, Default)]
struct OldPlacement {
    /// First slot of the inode.
    number: u32,
    /// Slots of the inode and everything behind it; 0 if it begins beyond what 32 bits can hold.
    slots: u32,
    /// First block of the data.
    start: u32,
    /// Blocks of the data; 0 without any.
    blocks: u32,
}

impl OldPlacement {
    /// The blocks that contain its slots.
    fn slot_blocks(&self) -> Range<u64> {
        let number = u64::from(self.number);
        number / SLOTS..(number + u64::from(self.slots)).div_ceil(SLOTS)
    }
}

/// Data blocks that need a position.
#[derive(Debug, Clone, Copy)]
pub struct BlockRequest {
    /// PathKey of the path.
    pub key: PathKey,
    /// Number of blocks.
    pub blocks: u32,
}

impl Reference {
    /// Reads an image that adamant built, and checks its structure first.
    pub fn read(file: Part) -> Result<Reference> {
        let sha256 = file.sha256(|_| Ok(())).context(|| "reading it")?;
        let image = ErofsImage::open(file)?;
        let mut old = vec![OldPlacement::default(); image.inodes()];
        for extent in image.extents() {
            let old = &mut old[extent.inode];
            match extent.data_start.map(u32::try_from) {
                None => {
                    let slot = u32::try_from(image.inode_offset(extent.inode) / SLOT as u64);
                    let slots =
                        u32::try_from(extent.bytes.div_ceil(SLOT as u64)).unwrap_or(u32::MAX);
                    (old.number, old.slots) = slot.map_or((0, 0), |slot| (slot, slots));
                }
                Some(start) => {
                    old.start = start.unwrap_or(u32::MAX);
                    old.blocks = u32::try_from(extent.bytes / BLOCK as u64).unwrap_or(u32::MAX);
                }
            }
        }
        let root = (PathKey::hash(b"").0, old[0]);
        let mut placements: Vec<(u64, OldPlacement)> = image
            .names()
            .map(|(path, inode)| (PathKey::hash(&path).0, old[inode]))
            .chain([root])
            .collect();
        placements.sort_unstable_by_key(|(key, old)| (*key, old.number));
        let (seconds, nanoseconds) = image.fixed_time();
        Ok(Reference {
            placements,
            time: Time {
                seconds,
                nanoseconds,
            },
            sha256,
        })
    }

    fn placement(&self, key: PathKey) -> Option<&OldPlacement> {
        let first = self.placements.partition_point(|(known, _)| *known < key.0);
        self.placements
            .get(first)
            .filter(|(known, _)| *known == key.0)
            .map(|(_, old)| old)
    }

    /// Places data, and gives the first block of each request. `None` for too many blocks.
    pub fn place_data(&self, requests: &[BlockRequest]) -> Option<Vec<u32>> {
        // The superblock.
        let mut taken = Taken(BTreeMap::from([(0, 1)]));
        let mut starts = vec![None; requests.len()];
        let old = |key: PathKey| {
            self.placement(key)
                .filter(|old| old.blocks > 0)
                .map(|old| (old.start, old.blocks))
        };
        let request = |i: usize| (requests[i].key, u64::from(requests[i].blocks));
        reuse(&mut starts, &mut taken, &request, &old, &|_, _| true);
        let mut gaps = Gaps::default();
        for (start, end) in taken.gaps() {
            gaps.add(start, end - start);
        }
        let mut end = taken.end();
        let place = |(start, request): (Option<u32>, &BlockRequest)| {
            let blocks = u64::from(request.blocks);
            start.or_else(|| {
                let found = gaps.allocate(blocks).unwrap_or_else(|| {
                    end += blocks;
                    end - blocks
                });
                u32::try_from(found).ok()
            })
        };
        starts.into_iter().zip(requests).map(place).collect()
    }

    /// Places `count` inodes, like [`super::layout::place`].
    pub fn place_inodes(
        &self,
        count: usize,
        request: &dyn Fn(usize) -> InodeRequest,
    ) -> Option<InodePositions> {
        // Slot 0 stays unused, as in a new layout.
        let mut taken = Taken(BTreeMap::from([(0, 1)]));
        let mut numbers = vec![None; count];
        let key_and_slots = |i: usize| (request(i).key, request(i).slots());
        let old = |key: PathKey| {
            self.placement(key)
                .filter(|old| old.slots > 0)
                .map(|old| (old.number, old.slots))
        };
        // The root before all others, because its number has only 16 bits.
        let (key, slots) = key_and_slots(0);
        numbers[0] = old(key).map(|(number, _)| number).filter(|number| {
            is_aligned(u64::from(*number), slots) && taken.take(u64::from(*number), slots)
        });
        reuse(&mut numbers, &mut taken, &key_and_slots, &old, &is_aligned);

        let reused = numbers
            .iter()
            .enumerate()
            .filter_map(|(i, number)| Some(((*number)?, u32::try_from(request(i).slots()).ok()?)));
        let changed = self.changed_blocks(reused.collect());
        let mut allocator = NewInodes::new(&taken, &changed);
        // Large inodes first: small ones fill the gaps.
        let mut left: Vec<(Reverse<u64>, usize)> = (0..count)
            .filter(|i| numbers[*i].is_none())
            .map(|i| (Reverse(request(i).slots()), i))
            .collect();
        left.sort_unstable();
        for (Reverse(slots), i) in left {
            let number = allocator.allocate(slots);
            taken.take(number, slots);
            numbers[i] = Some(u32::try_from(number).ok()?);
        }
        let numbers: Vec<u64> = numbers
            .into_iter()
            .map(|number| number.map(u64::from))
            .collect::<Option<_>>()?;
        let blocks = taken.end().div_ceil(SLOTS);
        (u16::try_from(numbers[0]).is_ok() && u32::try_from(blocks).is_ok())
            .then_some(InodePositions { numbers, blocks })
    }

    /// Metadata blocks that change in any case, because an inode in them is gone or has another
    /// size. `reused` is number and slots of each inode that keeps its position.
    fn changed_blocks(&self, mut reused: Vec<(u32, u32)>) -> BTreeSet<u64> {
        reused.sort_unstable();
        self.placements
            .iter()
            .map(|(_, old)| old)
            .filter(|old| reused.binary_search(&(old.number, old.slots)).is_err())
            .flat_map(OldPlacement::slot_blocks)
            .collect()
    }
}

/// Allocates slots for inodes that can't keep a position: first in blocks that change in any case,
/// then in unused blocks, then behind the last block.
struct NewInodes<'a> {
    gaps: Gaps,
    /// Lazy: the gaps of a sparse reference image can hold millions of blocks.
    unused: Box<dyn Iterator<Item = u64> + 'a>,
    /// The block behind the last one.
    end: u64,
}

impl<'a> NewInodes<'a> {
    fn new(taken: &Taken, changed: &'a BTreeSet<u64>) -> NewInodes<'a> {
        let mut gaps = Gaps::default();
        for block in changed {
            for (start, end) in taken.gaps_in(block * SLOTS, (block + 1) * SLOTS) {
                gaps.add(start, end - start);
            }
        }
        let end = taken
            .end()
            .max(changed.last().map_or(0, |block| (block + 1) * SLOTS))
            .div_ceil(SLOTS);
        let ranges: Vec<(u64, u64)> = taken.gaps().collect();
        let unused = ranges
            .into_iter()
            .flat_map(|(start, end)| start.div_ceil(SLOTS)..end / SLOTS)
            .filter(|block| !changed.contains(block));
        NewInodes {
            gaps,
            unused: Box::new(unused),
            end,
        }
    }

    fn allocate(&mut self, slots: u64) -> u64 {
        if let Some(number) = self.gaps.allocate(slots) {
            return number;
        }
        let blocks = slots.div_ceil(SLOTS);
        let block = self
            .unused
            .next()
            .filter(|_| blocks == 1)
            .unwrap_or_else(|| {
                self.end += blocks;
                self.end - blocks
            });
        self.gaps.add(block * SLOTS + slots, blocks * SLOTS - slots);
        block * SLOTS
    }
}

/// Whether an inode of `slots` slots may begin at slot `number`: it must not cross a block
/// boundary, unless it is larger than a block and begins with one.
fn is_aligned(number: u64, slots: u64) -> bool {
    number.is_multiple_of(SLOTS) || number % SLOTS + slots <= SLOTS
}

/// Reuses old positions for requests that have none yet: first for those that have not grown, then
/// for those that have grown and find the room behind them free.
///
/// `request` gives key and length, `old` the old start and length, and `allowed` says whether a
/// start and length are possible.
fn reuse(
    positions: &mut [Option<u32>],
    taken: &mut Taken,
    request: &dyn Fn(usize) -> (PathKey, u64),
    old: &dyn Fn(PathKey) -> Option<(u32, u32)>,
    allowed: &dyn Fn(u64, u64) -> bool,
) {
    for grown in [false, true] {
        for (i, position) in positions
            .iter_mut()
            .enumerate()
            .filter(|(_, position)| position.is_none())
        {
            let (key, len) = request(i);
            let Some((start, old_len)) = old(key) else {
                continue;
            };
            let at = u64::from(start);
            if (len > u64::from(old_len)) == grown && allowed(at, len) && taken.take(at, len) {
                *position = Some(start);
            }
        }
    }
}

/// Taken ranges: the end of each by its start. Adjacent ranges are merged, since nearly all of an
/// image is taken.
struct Taken(BTreeMap<u64, u64>);

impl Taken {
    /// Takes a range; false if a part of it is taken already.
    fn take(&mut self, start: u64, len: u64) -> bool {
        let Some(end) = start.checked_add(len) else {
            return false;
        };
        let before = self
            .0
            .range(..end)
            .next_back()
            .map(|(from, to)| (*from, *to));
        if before.is_some_and(|(_, to)| to > start) {
            return false;
        }
        let from = before
            .filter(|(_, to)| *to == start)
            .map_or(start, |(from, _)| from);
        let to = self.0.remove(&end).unwrap_or(end);
        self.0.insert(from, to);
        true
    }

    fn end(&self) -> u64 {
        self.0.last_key_value().map_or(0, |(_, end)| *end)
    }

    /// The free ranges before the end of the last taken one.
    fn gaps(&self) -> impl Iterator<Item = (u64, u64)> {
        self.gaps_in(0, self.end())
    }

    /// The free ranges between two positions.
    fn gaps_in(&self, from: u64, to: u64) -> impl Iterator<Item = (u64, u64)> {
        let before = self
            .0
            .range(..from)
            .next_back()
            .map_or(from, |(_, end)| from.max(*end));
        let mut at = before;
        let next = move |(start, end): (u64, u64)| {
            let gap = (at, start);
            at = end;
            gap
        };
        self.0
            .range(from..to)
            .map(|(start, end)| (*start, *end))
            .chain([(to, to)])
            .map(next)
            .filter(|(start, end)| start < end)
    }
}

/// Gaps by length.
#[derive(Default)]
struct Gaps(BTreeMap<u64, BTreeSet<u64>>);

impl Gaps {
    fn add(&mut self, start: u64, len: u64) {
        if len > 0 {
            self.0.entry(len).or_default().insert(start);
        }
    }

    /// Takes the beginning of the shortest gap that is long enough; of several, the first.
    fn allocate(&mut self, len: u64) -> Option<u64> {
        let mut found = self.0.range_mut(len..);
        let (room, starts) = found.next()?;
        let (room, start) = (*room, starts.pop_first()?);
        if starts.is_empty() {
            self.0.remove(&room);
        }
        self.add(start + len, room - len);
        Some(start)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::erofs::layout::Area;

    /// Positions of a hostile reference image: anything, also overlapping.
    fn any_old() -> impl Strategy<Value = (u64, OldPlacement)> {
        let near = |most: u32| prop_oneof![4 => 0..most, 1 => any::<u32>()];
        (0u64..60, near(3000), 0u32..300, near(900), 0u32..80).prop_map(
            |(key, number, slots, start, blocks)| {
                (
                    key,
                    OldPlacement {
                        number,
                        slots,
                        start,
                        blocks,
                    },
                )
            },
        )
    }

    fn overlap(mut ranges: Vec<(u64, u64)>) -> bool {
        ranges.sort_unstable();
        ranges.windows(2).any(|pair| pair[0].1 > pair[1].0)
    }

    proptest! {
        #[test]
        fn whatever_the_reference_says_nothing_overlaps(
            mut placements in prop::collection::vec(any_old(), 0..60),
            sizes in prop::collection::vec((1u32..70, 32u64..9000), 1..70),
        ) {
            placements.sort_by_key(|(key, old)| (*key, old.number));
            let reference = Reference { placements, time: Time::default(), sha256: [0; 32] };
            let requests: Vec<BlockRequest> = sizes
                .iter()
                .enumerate()
                .map(|(i, (blocks, _))| BlockRequest { key: PathKey(i as u64), blocks: *blocks })
                .collect();
            if let Some(starts) = reference.place_data(&requests) {
                let ranges = starts.iter().zip(&requests).map(|(start, request)| {
                    (u64::from(*start), u64::from(*start) + u64::from(request.blocks))
                });
                prop_assert!(!overlap(ranges.chain([(0, 1)]).collect()));
            }
            let inode = |i: usize| InodeRequest { bytes: sizes[i].1, key: PathKey(i as u64), area: Area::Rest };
            if let Some(positions) = reference.place_inodes(sizes.len(), &inode) {
                let ranges: Vec<(u64, u64)> = positions
                    .numbers
                    .iter()
                    .enumerate()
                    .map(|(i, number)| (*number, number + inode(i).slots()))
                    .collect();
                prop_assert!(ranges.iter().all(|(start, end)| is_aligned(*start, end - start)));
                prop_assert!(ranges.iter().all(|(_, end)| *end <= positions.blocks * SLOTS));
                prop_assert!(!overlap(ranges.into_iter().chain([(0, 1)]).collect()));
            }
        }
    }
}
