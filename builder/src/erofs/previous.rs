//! The image before this one, as a hint: what is in both stays where it was, and what is new goes
//! where something else went away, or where nothing was.
//!
//! Only places are taken from it, by paths; not one byte of it is believed or copied. What a hint
//! can do wrong is to ask for much room: the writer takes none of its places when they make the
//! image larger by more than [`MOST`].

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::format::*;
use super::layout::{Key, Part as Inode};
use super::read::Image;
use crate::error::{Context, Result};
use crate::io::part::Part;
use crate::tree::Time;

/// Slots of a block.
const SLOTS: u64 = super::layout::SLOTS as u64;

/// The part of an image by which it may become larger, so that its blocks stay where they were.
pub const MOST: u64 = 100;

/// Where everything is in an image.
#[derive(Debug)]
pub struct Previous {
    /// For each path, by the number of its [`Key`], in order: there can be millions.
    places: Vec<(u64, Was)>,
    /// The time that compact inodes have.
    pub time: Time,
    /// SHA-256 of the image.
    pub sha256: [u8; 32],
}

/// Where an inode and its data are.
#[derive(Debug, Clone, Copy, Default)]
struct Was {
    /// First slot of the inode, and how many it has with all that stands behind it; none for one
    /// that begins beyond what 32 bits can say.
    number: u32,
    slots: u32,
    /// First block of the data, and how many there are; 0 for what has none.
    start: u32,
    blocks: u32,
}

impl Was {
    /// The blocks that its slots are in.
    fn slot_blocks(&self) -> Range<u64> {
        let number = u64::from(self.number);
        number / SLOTS..(number + u64::from(self.slots)).div_ceil(SLOTS)
    }
}

/// Blocks of data that want a place.
#[derive(Debug, Clone, Copy)]
pub struct Want {
    /// That of the path.
    pub key: Key,
    /// How many blocks.
    pub blocks: u32,
}

impl Previous {
    /// Reads an image of ours, whose structure is checked first.
    pub fn read(file: Part) -> Result<Previous> {
        let sha256 = file.sha256(|_| Ok(())).context(|| "reading it")?;
        let image = Image::open(file)?;
        let mut was = vec![Was::default(); image.inodes()];
        for (number, bytes, start) in image.extents() {
            match start.map(u32::try_from) {
                None => {
                    let slot = u32::try_from(image.inode_at(number) / SLOT as u64);
                    let slots = u32::try_from(bytes.div_ceil(SLOT as u64)).unwrap_or(u32::MAX);
                    (was[number].number, was[number].slots) =
                        slot.map_or((0, 0), |slot| (slot, slots));
                }
                Some(start) => {
                    was[number].start = start.unwrap_or(u32::MAX);
                    was[number].blocks = u32::try_from(bytes / BLOCK as u64).unwrap_or(u32::MAX);
                }
            }
        }
        let root = (Key::of(b"").0, was[0]);
        let mut places: Vec<(u64, Was)> = image
            .names()
            .map(|(path, number)| (Key::of(&path).0, was[number]))
            .chain([root])
            .collect();
        places.sort_unstable_by_key(|(key, was)| (*key, was.number));
        let (seconds, nanoseconds) = image.fixed_time();
        Ok(Previous {
            places,
            time: Time {
                seconds,
                nanoseconds,
            },
            sha256,
        })
    }

    fn was(&self, key: Key) -> Option<&Was> {
        let first = self.places.partition_point(|(known, _)| *known < key.0);
        self.places
            .get(first)
            .filter(|(known, _)| *known == key.0)
            .map(|(_, was)| was)
    }

    /// Places data: the first block of each. `None`: there would be too many.
    pub fn data(&self, wants: &[Want]) -> Option<Vec<u32>> {
        // The super block.
        let mut taken = Taken(BTreeMap::from([(0, 1)]));
        let mut starts = vec![None; wants.len()];
        let was = |key: Key| {
            self.was(key)
                .filter(|was| was.blocks > 0)
                .map(|was| (was.start, was.blocks))
        };
        let want = |i: usize| (wants[i].key, u64::from(wants[i].blocks));
        keep(&mut starts, &mut taken, &want, &was, &|_, _| true);
        let mut gaps = Gaps::default();
        for (start, end) in taken.gaps() {
            gaps.add(start, end - start);
        }
        let mut end = taken.end();
        let place = |(start, want): (Option<u32>, &Want)| {
            let blocks = u64::from(want.blocks);
            start.or_else(|| {
                let found = gaps.fill(blocks).unwrap_or_else(|| {
                    end += blocks;
                    end - blocks
                });
                u32::try_from(found).ok()
            })
        };
        starts.into_iter().zip(wants).map(place).collect()
    }

    /// As [`super::layout::place`].
    pub fn inodes(&self, count: usize, part: &dyn Fn(usize) -> Inode) -> Option<(Vec<u64>, u64)> {
        // The first slot of all stays unused, as in the other layout.
        let mut taken = Taken(BTreeMap::from([(0, 1)]));
        let mut numbers = vec![None; count];
        let want = |i: usize| (part(i).key, part(i).slots());
        let was = |key: Key| {
            self.was(key)
                .filter(|was| was.slots > 0)
                .map(|was| (was.number, was.slots))
        };
        // The root before all others: its number has only 16 bits.
        let (key, slots) = want(0);
        numbers[0] = was(key).map(|(number, _)| number).filter(|number| {
            is_whole(u64::from(*number), slots) && taken.take(u64::from(*number), slots)
        });
        keep(&mut numbers, &mut taken, &want, &was, &is_whole);

        // What is new goes into blocks that change anyway, since something in them is gone; then
        // into unused ones.
        let kept = numbers
            .iter()
            .enumerate()
            .filter_map(|(i, number)| Some(((*number)?, u32::try_from(want(i).1).ok()?)));
        let mut kept: Vec<(u32, u32)> = kept.collect();
        kept.sort_unstable();
        let gone = self
            .places
            .iter()
            .map(|(_, was)| was)
            .filter(|was| kept.binary_search(&(was.number, was.slots)).is_err());
        let changed: BTreeSet<u64> = gone.flat_map(Was::slot_blocks).collect();
        drop(kept);
        let mut gaps = Gaps::default();
        for block in &changed {
            for (start, end) in taken.gaps_in(block * SLOTS, (block + 1) * SLOTS) {
                gaps.add(start, end - start);
            }
        }
        let mut end = taken
            .end()
            .max(changed.last().map_or(0, |block| (block + 1) * SLOTS))
            .div_ceil(SLOTS);
        let between: Vec<(u64, u64)> = taken.gaps().collect();
        let mut unused = between
            .iter()
            .flat_map(|(start, end)| start.div_ceil(SLOTS)..end / SLOTS)
            .filter(|block| !changed.contains(block));
        // Large ones first: the others fill what they leave.
        let mut left: Vec<(Reverse<u64>, usize)> = (0..count)
            .filter(|i| numbers[*i].is_none())
            .map(|i| (Reverse(want(i).1), i))
            .collect();
        left.sort_unstable();
        for (Reverse(slots), i) in left {
            let number = gaps.fill(slots).unwrap_or_else(|| {
                let blocks = slots.div_ceil(SLOTS);
                let block = unused.next().filter(|_| blocks == 1).unwrap_or_else(|| {
                    end += blocks;
                    end - blocks
                });
                gaps.add(block * SLOTS + slots, blocks * SLOTS - slots);
                block * SLOTS
            });
            taken.take(number, slots);
            numbers[i] = Some(u32::try_from(number).ok()?);
        }
        let numbers: Vec<u64> = numbers
            .into_iter()
            .map(|number| number.map(u64::from))
            .collect::<Option<_>>()?;
        let blocks = taken.end().div_ceil(SLOTS);
        (u16::try_from(numbers[0]).is_ok() && u32::try_from(blocks).is_ok())
            .then_some((numbers, blocks))
    }
}

/// Whether what has so many slots may begin there: it does not cross into another block, unless it
/// is larger than one.
fn is_whole(number: u64, slots: u64) -> bool {
    number.is_multiple_of(SLOTS) || number % SLOTS + slots <= SLOTS
}

/// Gives what has no place yet the one that it had: first to who needs no more than it had, then to
/// who needs more and has room.
fn keep(
    places: &mut [Option<u32>],
    taken: &mut Taken,
    want: &dyn Fn(usize) -> (Key, u64),
    was: &dyn Fn(Key) -> Option<(u32, u32)>,
    fits: &dyn Fn(u64, u64) -> bool,
) {
    for grown in [false, true] {
        for (i, place) in places
            .iter_mut()
            .enumerate()
            .filter(|(_, place)| place.is_none())
        {
            let (key, len) = want(i);
            let Some((start, had)) = was(key) else {
                continue;
            };
            let at = u64::from(start);
            if (len > u64::from(had)) == grown && fits(at, len) && taken.take(at, len) {
                *place = Some(start);
            }
        }
    }
}

/// What is taken of a space: from where to where. Neighbours are one: most of an image is.
struct Taken(BTreeMap<u64, u64>);

impl Taken {
    /// Takes what is not taken yet; `false` where some of it is.
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

    /// What is free before the end of all that is taken.
    fn gaps(&self) -> impl Iterator<Item = (u64, u64)> {
        self.gaps_in(0, self.end())
    }

    /// What is free between two places.
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

    /// A place in the shortest gap that is long enough, the first of several.
    fn fill(&mut self, len: u64) -> Option<u64> {
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
