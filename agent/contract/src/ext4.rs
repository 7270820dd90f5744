//! The geometry of ext4 file systems.

/// Volumes below this size, in bytes, get small block groups. With ext4's default groups of 128 MiB
/// they would have fewer than two full groups, and so no copy of the superblock.
pub const SMALL_VOLUME: u64 = 2 * 32768 * 4096;
/// Blocks of 4 KiB in a block group of a small volume.
pub const SMALL_VOLUME_GROUP: u64 = 2048;

/// The block groups from 1 to `last` that hold a copy of the superblock (`sparse_super`): group 1,
/// and the powers of 3, 5 and 7.
pub fn superblock_copies(last: u64) -> impl Iterator<Item = u64> {
    let powers =
        |base: u64| std::iter::successors(Some(base), move |power| power.checked_mul(base));
    std::iter::once(1)
        .filter(move |group| *group <= last)
        .chain(
            [3, 5, 7]
                .into_iter()
                .flat_map(move |base| powers(base).take_while(move |power| *power <= last)),
        )
}

#[cfg(test)]
mod tests {
    use super::superblock_copies;

    #[test]
    fn copies_are_in_group_1_and_in_powers_of_3_5_and_7() {
        let groups = |last| superblock_copies(last).collect::<Vec<_>>();
        assert!(groups(0).is_empty());
        assert_eq!(groups(1), [1]);
        assert_eq!(groups(50), [1, 3, 9, 27, 5, 25, 7, 49]);
        assert!(groups(u64::MAX).iter().all(|group| *group > 0));
    }
}
