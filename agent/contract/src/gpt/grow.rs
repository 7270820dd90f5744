//! Distribution of the free space of a disk that is larger than its image.
//!
//! On the first boot, the blank volumes at the end of the disk share the free space by weight, and
//! are moved for it. A volume with a file system is never moved, so later only the last partition
//! of the disk can grow.

use super::table::{ENTRIES, LABEL_UNITS, PartitionTable};
use super::{ATTR_NO_AUTO, ATTR_READ_ONLY, Guid, LINUX_GENERIC};

/// Partitions start and end at multiples of this many bytes.
pub const GRAIN: u64 = 1 << 20;

/// A volume that may grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Growable {
    /// Index into [`PartitionTable::partitions`].
    pub index: usize,
    /// Share of the free space; 0 keeps the size.
    pub weight: u32,
    /// Whether it is blank, so that it may be moved.
    pub blank: bool,
}

/// Returns the table for the same disk with `sectors` sectors. No partition shrinks, and only blank
/// ones move.
pub fn plan(table: &PartitionTable, sectors: u64, volumes: &[Growable]) -> PartitionTable {
    let mut new = table.clone();
    new.sectors = sectors.max(table.sectors);
    let grain = GRAIN / u64::from(table.sector.max(1));
    let end = new.last_usable().saturating_add(1) / grain * grain;

    let mut order: Vec<(u64, usize)> = table
        .partitions
        .iter()
        .enumerate()
        .filter_map(|(index, p)| Some((p.as_ref()?.first, index)))
        .collect();
    order.sort_unstable();
    let volume = |index: usize| volumes.iter().find(|v| v.index == index);
    // The blank volumes at the end, in disk order.
    let blank_run = order
        .iter()
        .rev()
        .take_while(|(_, index)| volume(*index).is_some_and(|v| v.blank))
        .count();
    let last = if blank_run > 0 {
        &order[order.len() - blank_run..]
    } else {
        &order[order.len().saturating_sub(1)..]
    };
    let Some(&(start, _)) = last.first() else {
        return new;
    };
    let run: Vec<Growable> = last
        .iter()
        .filter_map(|(_, index)| volume(*index).copied())
        .collect();
    let weights: u64 = run.iter().map(|v| u64::from(v.weight)).sum();

    let sizes: Vec<u64> = run
        .iter()
        .map(|v| new.partitions[v.index].as_ref().map_or(0, |p| p.sectors()))
        .collect();
    // Computed from the next grain on, so that rounding up the starts cannot exceed the end.
    let needed: u64 = sizes
        .iter()
        .fold(start.div_ceil(grain).saturating_mul(grain), |sum, size| {
            sum.saturating_add(size.div_ceil(grain).saturating_mul(grain))
        });
    let Some(free) = end
        .checked_sub(needed)
        .filter(|free| *free >= grain && weights > 0)
    else {
        return new;
    };
    let (mut at, mut left, mut weights_left) = (start, free, weights);
    for (volume, size) in run.iter().zip(sizes) {
        let weight = u64::from(volume.weight);
        // A share of the remaining space, which is a multiple of the grain, so that rounding leaves
        // no gap; in 128 bits, because sectors times weight may exceed 64.
        let share = if weight == 0 {
            0
        } else {
            (u128::from(left) * u128::from(weight) / u128::from(weights_left)) as u64
        };
        let share = share / grain * grain;
        (left, weights_left) = (left - share, weights_left - weight);
        if let Some(partition) = &mut new.partitions[volume.index] {
            let length = if share == 0 && at == partition.first {
                size
            } else {
                (size.div_ceil(grain) * grain).saturating_add(share)
            };
            (partition.first, partition.last) = (at, at + length - 1);
            at = (at + length).div_ceil(grain) * grain;
        }
    }
    new
}

/// Renames the partition `index` to `damaged-NAME`, read-only and not mounted automatically, and
/// adds a new partition of the same size, type, label and attributes at another position. Returns
/// the new table and the new partition's index; `None` if there is no space, or no free entry.
///
/// `id` is the new partition's PARTUUID. It must be random.
pub fn set_aside(
    table: &PartitionTable,
    index: usize,
    id: Guid,
) -> Option<(PartitionTable, usize)> {
    let grain = GRAIN / u64::from(table.sector.max(1));
    let mut new = table.clone();
    new.partitions.resize(ENTRIES, None);
    let damaged = new.partitions.get_mut(index)?.as_mut()?;
    let mut fresh = damaged.clone();
    damaged.label = format!("damaged-{}", damaged.label)
        .chars()
        .take(LABEL_UNITS)
        .collect();
    damaged.kind = LINUX_GENERIC;
    damaged.attributes = ATTR_NO_AUTO | ATTR_READ_ONLY;

    let mut used: Vec<(u64, u64)> = new
        .partitions
        .iter()
        .flatten()
        .map(|p| (p.first, p.last))
        .collect();
    used.sort_unstable();
    used.push((new.last_usable().saturating_add(1), u64::MAX));
    let mut from = new.first_usable();
    let (first, last) = used.into_iter().find_map(|(first, last)| {
        let start = from.div_ceil(grain) * grain;
        let end = start.checked_add(fresh.sectors())?;
        from = last.saturating_add(1);
        (end <= first).then_some((start, end - 1))
    })?;
    (fresh.id, fresh.first, fresh.last) = (id, first, last);
    let free = new.partitions.iter().position(Option::is_none)?;
    new.partitions[free] = Some(fresh);
    Some((new, free))
}

#[cfg(test)]
mod tests {
    use super::super::table::Partition;
    use super::*;

    const MIB: u64 = 2048;

    fn table(parts: &[(u64, u64)], mib: u64) -> PartitionTable {
        let parts = parts.iter().enumerate().map(|(n, &(first, length))| {
            let (first, last) = (first * MIB, (first + length) * MIB - 1);
            Some(Partition {
                kind: Guid([1; 16]),
                id: Guid([n as u8; 16]),
                first,
                last,
                attributes: 0,
                label: n.to_string(),
            })
        });
        PartitionTable {
            disk: Guid([9; 16]),
            sector: 512,
            sectors: mib * MIB,
            partitions: parts.collect(),
        }
    }

    fn ranges(table: &PartitionTable) -> Vec<(u64, u64)> {
        table
            .partitions
            .iter()
            .flatten()
            .map(|p| (p.first / MIB, p.sectors() / MIB))
            .collect()
    }

    fn vol(index: usize, weight: u32, blank: bool) -> Growable {
        Growable {
            index,
            weight,
            blank,
        }
    }

    #[test]
    fn shares_space_among_blank_volumes_by_weight_without_a_remainder() {
        let old = table(&[(1, 10), (11, 20), (31, 10)], 42);
        let new = plan(&old, 142 * MIB, &[vol(1, 3, true), vol(2, 1, true)]);
        assert_eq!(ranges(&new), [(1, 10), (11, 95), (106, 35)]);
        assert_eq!(
            plan(&new, 142 * MIB, &[vol(1, 3, true), vol(2, 1, true)]),
            new,
            "a second time there is nothing to do"
        );
        let new = plan(&old, 142 * MIB, &[vol(1, 0, true), vol(2, 1, true)]);
        assert_eq!(ranges(&new), [(1, 10), (11, 20), (31, 110)]);
        let new = plan(&old, 142 * MIB, &[vol(1, 1, true), vol(2, 0, true)]);
        assert_eq!(ranges(&new), [(1, 10), (11, 120), (131, 10)]);
        let new = plan(&old, 142 * MIB, &[vol(1, 1, true), vol(2, 2, true)]);
        assert_eq!(ranges(&new), [(1, 10), (11, 53), (64, 77)]);
        let new = plan(&old, 43 * MIB, &[vol(1, 1, true), vol(2, 1, true)]);
        assert_eq!(ranges(&new), [(1, 10), (11, 20), (31, 11)]);
    }

    #[test]
    fn without_space_to_share_or_a_weight_every_volume_stays() {
        let gap = table(&[(1, 10), (11, 20), (33, 10)], 45);
        for volumes in [
            [vol(1, 0, true), vol(2, 0, true)],
            [vol(1, 0, false), vol(2, 0, false)],
        ] {
            assert_eq!(
                plan(&gap, 142 * MIB, &volumes).partitions,
                gap.partitions,
                "{volumes:?}"
            );
        }
        // Rounded up to the grain, both fill the disk.
        let mut full = table(&[(1, 10), (11, 20), (31, 10)], 42);
        let [_, Some(first), Some(second)] = &mut full.partitions[..] else {
            unreachable!();
        };
        first.last -= 5;
        (second.first, second.last) = (second.first - 5, second.last - 5);
        let volumes = [vol(1, 1, true), vol(2, 1, true)];
        assert_eq!(plan(&full, full.sectors, &volumes), full);
    }

    #[test]
    fn a_volume_that_moves_starts_and_ends_at_the_grain() {
        let mut old = table(&[(1, 10), (11, 20), (31, 10)], 42);
        let last = old.partitions[2].as_mut().unwrap();
        last.last -= 7;
        let new = plan(&old, 62 * MIB, &[vol(1, 1, true), vol(2, 0, true)]);
        let [_, Some(grown), Some(moved)] = &new.partitions[..] else {
            panic!("{new:?}");
        };
        assert_eq!((grown.first, grown.last), (11 * MIB, 51 * MIB - 1));
        assert_eq!((moved.first, moved.last), (51 * MIB, 61 * MIB - 1));
        let new = plan(&old, 62 * MIB, &[vol(1, 0, true), vol(2, 1, true)]);
        let [_, Some(kept), Some(grown)] = &new.partitions[..] else {
            panic!("{new:?}");
        };
        assert_eq!(kept, old.partitions[1].as_ref().unwrap());
        assert_eq!((grown.first, grown.last), (31 * MIB, 61 * MIB - 1));
    }

    #[test]
    fn a_volume_with_data_is_never_moved() {
        let old = table(&[(1, 10), (11, 20), (31, 10)], 42);
        assert_eq!(
            ranges(&plan(
                &old,
                142 * MIB,
                &[vol(1, 1, false), vol(2, 1, false)]
            )),
            [(1, 10), (11, 20), (31, 110)]
        );
        assert_eq!(
            ranges(&plan(&old, 142 * MIB, &[vol(1, 1, true), vol(2, 1, false)])),
            [(1, 10), (11, 20), (31, 110)]
        );
        assert_eq!(
            ranges(&plan(&old, 142 * MIB, &[vol(1, 1, false), vol(2, 1, true)])),
            [(1, 10), (11, 20), (31, 110)]
        );
        assert_eq!(
            ranges(&plan(&old, 142 * MIB, &[vol(1, 1, true)])),
            ranges(&old),
            "the last partition is not a volume"
        );
        assert_eq!(
            ranges(&plan(
                &old,
                142 * MIB,
                &[vol(1, 1, false), vol(2, 0, false)]
            )),
            ranges(&old)
        );
        assert_eq!(plan(&old, 142 * MIB, &[]).sectors, 142 * MIB);
    }

    #[test]
    fn sets_a_damaged_volume_aside_if_the_disk_has_space() {
        let old = table(&[(1, 10), (11, 20), (61, 10)], 92);
        let (new, index) = set_aside(&old, 1, Guid([7; 16])).unwrap();
        assert_eq!(
            (index, &ranges(&new)[..]),
            (3, &[(1, 10), (11, 20), (61, 10), (31, 20)][..])
        );
        let (damaged, fresh) = (
            new.partitions[1].as_ref().unwrap(),
            new.partitions[3].as_ref().unwrap(),
        );
        assert_eq!(
            (damaged.label.as_str(), fresh.label.as_str(), fresh.id),
            ("damaged-1", "1", Guid([7; 16]))
        );
        assert_eq!((fresh.first, fresh.last), (31 * MIB, 51 * MIB - 1));
        assert_eq!(
            PartitionTable::parse_primary(&new.primary(), 512, new.sectors),
            Ok(new.clone())
        );
        // A gap of its size is enough, one that is smaller by a sector is not.
        let mut exact = table(&[(1, 10), (11, 20), (51, 10)], 62);
        let (_, index) = set_aside(&exact, 1, Guid([7; 16])).unwrap();
        assert_eq!(index, 3);
        exact.partitions[2].as_mut().unwrap().first -= 1;
        assert_eq!(set_aside(&exact, 1, Guid([7; 16])), None);
        assert_eq!(
            set_aside(&table(&[(1, 10), (11, 20), (31, 10)], 42), 1, Guid([7; 16])),
            None
        );
        assert_eq!(set_aside(&old, 9, Guid([7; 16])), None);
    }

    #[test]
    fn makes_readable_tables_and_shrinks_no_partition_on_any_disk() {
        let mut state = 7u64;
        let mut random = |below: u64| {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (state >> 33) % below
        };
        for _ in 0..2000 {
            let (mut at, mut parts, mut volumes) = (1 + random(3), Vec::new(), Vec::new());
            for index in 0..1 + random(6) as usize {
                let length = 1 + random(9);
                parts.push((at, length));
                at += length + random(2);
                if random(4) > 0 {
                    volumes.push(vol(
                        index,
                        [0, 1, 2, u32::MAX][random(4) as usize],
                        random(2) == 0,
                    ));
                }
            }
            let mut old = table(&parts, at + 2);
            if random(3) == 0 {
                for partition in old.partitions.iter_mut().flatten() {
                    (partition.first, partition.last) =
                        (partition.first + random(5), partition.last - random(5));
                }
            }
            let new = plan(&old, old.sectors + random(1 << 22), &volumes);
            let read = PartitionTable::parse_primary(&new.primary(), 512, new.sectors).unwrap();
            for (index, (before, after)) in old
                .partitions
                .iter()
                .flatten()
                .zip(read.partitions.iter().flatten())
                .enumerate()
            {
                assert!(after.sectors() >= before.sectors());
                assert!(
                    after.first == before.first
                        || volumes.iter().any(|v| v.index == index && v.blank)
                );
            }
        }
    }
}
