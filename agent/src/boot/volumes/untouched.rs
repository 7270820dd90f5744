//! The short probe of a partition that the builder marked as never used. It checks that the bytes
//! are zero at every position of a signature of a file system, a volume manager or a RAID, or of a
//! copy of an ext4 superblock.
//!
//! The positions are those that libblkid and `wipefs` search, and those of the copies that mke2fs
//! writes. A partition without the mark gets the long probe ([`super::probe`]).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use adamant_contract::ext4::{SMALL_VOLUME_GROUP, superblock_copies};

use super::probe::is_zero;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// Bytes at the start that are read completely. They contain nearly all signatures; swap of all
/// page sizes; LVM's labels; md 1.1 and 1.2; the first two headers of LUKS2; btrfs and UFS at 64
/// KiB; the first ZFS label and the start of the second; UFS2 at 256 KiB.
const HEAD: u64 = 288 * KIB;
/// Bytes at the end that are read completely. They contain md 0.90 and 1.0, firmware RAIDs, DRBD,
/// the second superblock of NILFS2, and a backup partition table.
const TAIL: u64 = 192 * KIB;
/// Bytes that are read at each position in between.
const LOOK: u64 = 4 * KIB;
/// The second header of LUKS2 for each size of its first one, beyond [`HEAD`]; VMFS at 1 and 2 MiB.
const LUKS_HEADERS: [u64; 4] = [512 * KIB, MIB, 2 * MIB, 4 * MIB];
/// Copies of a btrfs superblock: 64 MiB, 256 GiB and 1 PiB.
const BTRFS_COPIES: [u64; 3] = [64 * MIB, 256 << 30, 1 << 50];
/// Blocks in an ext4 group, and bytes in a block: mke2fs' defaults for each block size, and the
/// agent's own choice for small volumes.
const EXT4_GROUPS: [(u64, u64); 8] = [
    (SMALL_VOLUME_GROUP, 4 * KIB),
    (8192, KIB),
    (16384, 2 * KIB),
    (32768, 4 * KIB),
    (65528, 8 * KIB),
    (65528, 16 * KIB),
    (65528, 32 * KIB),
    (65528, 64 * KIB),
];
/// Size of a ZFS label. Two labels are at the start, and two at the end of the last full multiple
/// of this size. After it: positions of names and values and of the first uberblock in a label.
const ZFS_LABEL: u64 = 256 * KIB;
const ZFS_PARTS: [u64; 2] = [16 * KIB, 128 * KIB];
/// Number of XFS allocation groups, each of which begins with a superblock, on all but the largest
/// disks.
const XFS_GROUPS: u64 = 4;

/// Whether a partition of `bytes` bytes is zero at all positions.
#[inline(never)]
pub fn is_untouched(partition: &File, bytes: u64) -> io::Result<bool> {
    let mut buffer = vec![0; HEAD as usize];
    let mut is_zero_at = |at: u64, length: u64| {
        let look = &mut buffer[..length.min(bytes.saturating_sub(at)) as usize];
        partition.read_exact_at(look, at).map(|()| is_zero(look))
    };
    if !is_zero_at(0, HEAD)? || !is_zero_at(bytes.saturating_sub(TAIL), TAIL)? {
        return Ok(false);
    }
    for at in places(bytes) {
        if !is_zero_at(at, LOOK)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The positions between head and tail.
#[inline(never)]
fn places(bytes: u64) -> Vec<u64> {
    let mut places = [&LUKS_HEADERS[..], &BTRFS_COPIES].concat();
    for (group, block) in EXT4_GROUPS {
        // The first block of a file system with 1 KiB blocks is outside of its groups.
        let first = if block == KIB { KIB } else { 0 };
        let group = group * block;
        let last = bytes.saturating_sub(first + 1) / group;
        // The copies of sparse_super, and the last group's (sparse_super2).
        places.extend(superblock_copies(last).map(|number| first + number * group));
        places.push(first + last * group);
    }
    let end = bytes / ZFS_LABEL * ZFS_LABEL;
    for label in [
        ZFS_LABEL,
        end.saturating_sub(2 * ZFS_LABEL),
        end.saturating_sub(ZFS_LABEL),
    ] {
        places.extend(ZFS_PARTS.map(|part| label + part));
    }
    let blocks = (bytes / LOOK).div_ceil(XFS_GROUPS);
    places.extend((1..XFS_GROUPS).map(|number| number * blocks * LOOK));
    places.retain(|at| *at >= HEAD && *at < bytes);
    places
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Scratch, tool};
    use super::*;

    fn is_untouched_after(scratch: &Scratch, bytes: u64) -> bool {
        is_untouched(&File::open(scratch.path()).unwrap(), bytes).unwrap()
    }

    #[test]
    fn accepts_zeros_of_any_size_as_untouched() {
        for bytes in [
            0,
            1,
            512,
            4096,
            300 * KIB,
            16 * MIB,
            24 * MIB + 512,
            8 << 40,
        ] {
            let scratch = Scratch::new("untouched", bytes);
            assert!(is_untouched_after(&scratch, bytes), "{bytes}");
            assert!(places(bytes).len() < 250, "{bytes}: the look is short");
        }
    }

    /// Offsets that libblkid and wipefs search, by signature; negative ones count from the end.
    #[test]
    fn finds_one_byte_at_each_position_of_a_signature() {
        let bytes = 300 * MIB + 4096;
        let end = |from: u64| bytes - from;
        let places: [(&str, Vec<u64>); 18] = [
            ("ext", vec![1024 + 0x38]),
            (
                "copies of ext superblocks",
                vec![
                    (8193 << 10) + 0x38,
                    (3 * 8192 + 1) << 10,
                    16384 << 11,
                    32768 << 12,
                    2048 << 12,
                    (25 * 2048) << 12,
                    (27 * 2048) << 12,
                ],
            ),
            ("xfs", vec![0, 75 * MIB + 4096]),
            ("btrfs", vec![0x10040, (64 << 20) + 0x40]),
            (
                "LUKS",
                vec![
                    0, 0x4000, 0x8000, 0x10000, 0x20000, 0x40000, 0x80000, 0x100000, 0x200000,
                    0x400000,
                ],
            ),
            ("LVM", vec![0x18, 512 + 0x18, 1024 + 0x18, 1536 + 0x18]),
            ("md 1.1 and 1.2", vec![0, 4096]),
            ("md 0.90", vec![(bytes & !0xffff) - 0x10000]),
            ("md 1.0", vec![(bytes / 512 - 16) / 8 * 8 * 512]),
            ("swap", vec![0xff6, 0x1ff6, 0x3ff6, 0x7ff6, 0xfff6]),
            (
                "zfs",
                vec![
                    16 << 10,
                    128 << 10,
                    272 << 10,
                    384 << 10,
                    (bytes & !0x3ffff) - 0x80000 + 0x4000,
                    (bytes & !0x3ffff) - 0x40000 + 0x20000,
                ],
            ),
            ("bcache and bcachefs", vec![4096 + 0x18]),
            ("f2fs", vec![1024, 5120]),
            ("reiserfs", vec![8192 + 0x34, 65536 + 0x34]),
            ("jfs", vec![0x8000, 0xf000]),
            ("nilfs2", vec![1024 + 6, (bytes / 512 - 8) * 512 + 6]),
            ("partition tables", vec![510, 512, end(512), end(33 * 512)]),
            (
                "drbd and firmware RAIDs",
                vec![
                    end(4096),
                    end(512),
                    end(1024),
                    end(9 * 512),
                    end(63 * 512),
                    end(255 * 512),
                    end(257 * 512),
                ],
            ),
        ];
        let scratch = Scratch::new("signatures", bytes);
        for (name, offsets) in places {
            for at in offsets {
                scratch.write(at, &[1]);
                assert!(!is_untouched_after(&scratch, bytes), "{name} at {at}");
                scratch.write(at, &[0]);
            }
        }
        assert!(is_untouched_after(&scratch, bytes));
    }

    #[test]
    fn finds_what_other_programs_make_even_without_its_start() {
        let makers: [(&str, &[&str], bool); 11] = [
            ("mkfs.ext4", &["-q", "-F", "-b", "1024"], true),
            ("mkfs.ext4", &["-q", "-F", "-b", "2048"], true),
            ("mkfs.ext4", &["-q", "-F", "-b", "4096"], true),
            ("mkfs.ext4", &["-q", "-F", "-b", "4096", "-g", "2048"], true),
            (
                "mkfs.ext4",
                &["-q", "-F", "-O", "sparse_super2,^resize_inode"],
                true,
            ),
            ("mkfs.xfs", &["-q"], true),
            ("mkfs.btrfs", &["-q"], true),
            ("mkfs.vfat", &[], false),
            ("mkswap", &[], false),
            ("mkfs.f2fs", &["-q"], false),
            (
                "cryptsetup",
                &[
                    "luksFormat",
                    "--batch-mode",
                    "--pbkdf",
                    "pbkdf2",
                    "--pbkdf-force-iterations",
                    "1000",
                    "--key-file",
                    "/etc/hostname",
                ],
                false,
            ),
        ];
        let bytes = 320 * MIB;
        for (program, arguments, has_copies) in makers {
            let scratch = Scratch::new("made", bytes);
            if !tool(program, &[arguments, &[scratch.path()]].concat()) {
                continue;
            }
            assert!(
                !is_untouched_after(&scratch, bytes),
                "{program} {arguments:?}"
            );
            scratch.write(0, &vec![0; 1 << 20]);
            assert!(
                !has_copies || !is_untouched_after(&scratch, bytes),
                "{program} {arguments:?} without its first MiB"
            );
        }
    }
}
