//! Detects a partition's content from a few reads: nothing, an ext4 file system, or something else
//! that must not be overwritten.
//!
//! Nothing that it reads is trusted.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use adamant_contract::ext4::SMALL_VOLUME_GROUP;

use super::superblock::{Ext4Superblock, OFFSET, SIZE};

/// A partition's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PartitionContent {
    /// All bytes that were read are zero.
    Blank,
    /// ext2, ext3 or ext4: at least one superblock was found.
    Ext4(Ext4Superblock),
    /// The signature of something else. Holds its name.
    Foreign(&'static str),
    /// Data of an unknown kind, for example an ext4 file system without any superblock.
    Unknown,
}

/// Bytes at the start and at the end of the partition that are read completely.
const EDGE: u64 = 1 << 20;
/// Size and number of the samples between start and end.
const LOOK: u64 = 64 << 10;
const LOOKS: u64 = 64;
/// Positions of backup superblocks: the second block group's first block, for small volumes and for
/// full groups of 1, 2 and 4 KiB blocks.
const BACKUPS: [u64; 4] = [
    SMALL_VOLUME_GROUP << 12,
    8193 << 10,
    16384 << 11,
    32768 << 12,
];

/// Signatures that are common on disks: offset, bytes and name.
const KNOWN: [(usize, &[u8], &str); 16] = [
    (0, b"XFSB", "XFS"),
    (0x10040, b"_BHRfS_M", "btrfs"),
    (4086, b"SWAPSPACE2", "swap space"),
    (0, b"LUKS\xba\xbe", "LUKS"),
    (512, b"LABELONE", "an LVM physical volume"),
    (4096, b"\xfc\x4e\x2b\xa9", "an md RAID member"),
    (1024, b"\xe2\xe1\xf5\xe0", "EROFS"),
    (1024, b"\x10\x20\xf5\xf2", "F2FS"),
    (0, b"hsqs", "squashfs"),
    (3, b"NTFS    ", "NTFS"),
    (3, b"EXFAT   ", "exFAT"),
    (82, b"FAT32", "FAT"),
    (54, b"FAT1", "FAT"),
    (0, b"verity\0\0", "a dm-verity hash tree"),
    (32769, b"CD001", "ISO 9660"),
    (512, b"EFI PART", "a partition table"),
];

/// Detects the content of a partition of `bytes` bytes.
pub fn probe(partition: &File, bytes: u64) -> io::Result<PartitionContent> {
    // Most boots find a file system here and need no other read.
    let mut head = vec![0; 2048.min(bytes) as usize];
    partition.read_exact_at(&mut head, 0)?;
    let primary = Ext4Superblock::parse(
        head.get(OFFSET as usize..OFFSET as usize + SIZE)
            .unwrap_or_default(),
    );
    if let Some(found) = primary {
        // A corrupted superblock is replaced by its copy, if there is one.
        let copy = if found.corrupted {
            superblock_copy(partition, bytes)
        } else {
            None
        };
        return Ok(PartitionContent::Ext4(copy.map_or(found, |(_, copy)| {
            Ext4Superblock {
                clean: false,
                ..copy
            }
        })));
    }
    head.resize(EDGE.min(bytes) as usize, 0);
    partition.read_exact_at(&mut head, 0)?;
    if let Some((_, _, name)) = KNOWN
        .iter()
        .find(|(at, magic, _)| head.get(*at..at + magic.len()) == Some(magic))
    {
        return Ok(PartitionContent::Foreign(name));
    }
    let mut blank = is_zero(&head);
    let spread = (1..LOOKS).map(|n| bytes / LOOKS * n / 4096 * 4096);
    let tail = (0..EDGE / LOOK).map(|n| bytes.saturating_sub(EDGE) / 4096 * 4096 + n * LOOK);
    let mut buffer = vec![0; LOOK as usize];
    for at in BACKUPS
        .into_iter()
        .chain(spread)
        .chain(tail)
        .filter(|at| *at < bytes)
    {
        let look = &mut buffer[..LOOK.min(bytes - at) as usize];
        partition.read_exact_at(look, at)?;
        if BACKUPS.contains(&at)
            && let Some(found) = Ext4Superblock::parse(&look[..look.len().min(SIZE)])
        {
            return Ok(PartitionContent::Ext4(Ext4Superblock {
                clean: false,
                ..found
            }));
        }
        blank &= is_zero(look);
    }
    Ok(if blank {
        PartitionContent::Blank
    } else {
        PartitionContent::Unknown
    })
}

/// Block number and block size of the first valid copy of the superblock.
pub fn backup_superblock(partition: &File, bytes: u64) -> Option<(u64, u64)> {
    superblock_copy(partition, bytes).map(|(at, found)| (at / found.block, found.block))
}

/// The first valid copy of the superblock, and its byte position.
fn superblock_copy(partition: &File, bytes: u64) -> Option<(u64, Ext4Superblock)> {
    BACKUPS
        .into_iter()
        .filter(|at| at.saturating_add(SIZE as u64) <= bytes)
        .find_map(|at| {
            let mut look = [0; SIZE];
            partition.read_exact_at(&mut look, at).ok()?;
            let found = Ext4Superblock::parse(&look)?;
            (at.is_multiple_of(found.block) && !found.corrupted).then_some((at, found))
        })
}

/// Whether all bytes are zero.
pub fn is_zero(bytes: &[u8]) -> bool {
    const ZEROS: [u8; 4096] = [0; 4096];
    // One comparison of slices, because memcmp uses the processor's widest instructions.
    bytes
        .chunks(ZEROS.len())
        .all(|chunk| chunk == &ZEROS[..chunk.len()])
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Scratch, tool};
    use super::*;

    fn looked_at(scratch: &Scratch, length: u64) -> PartitionContent {
        probe(&File::open(scratch.path()).unwrap(), length).unwrap()
    }

    #[test]
    fn reports_zeros_as_blank_and_one_byte_at_an_edge_as_unknown() {
        let size = 40 << 20;
        let scratch = Scratch::new("blank", size);
        assert_eq!(looked_at(&scratch, size), PartitionContent::Blank);
        for at in [
            0,
            511,
            65536,
            (1 << 20) - 1,
            size - (1 << 20),
            size - 1,
            8193 << 10,
        ] {
            scratch.write(at, &[1]);
            assert_eq!(
                looked_at(&scratch, size),
                PartitionContent::Unknown,
                "byte {at}"
            );
            scratch.write(at, &[0]);
        }
        for size in [0, 1, 1023, 1024, 70_000] {
            assert_eq!(looked_at(&scratch, size), PartitionContent::Blank);
        }
    }

    #[test]
    fn finds_ext4_with_size_and_journal_even_from_a_backup_superblock() {
        for (block, size) in [("1024", 40u64 << 20), ("4096", 200 << 20)] {
            let scratch = Scratch::new("ext4", size);
            if !tool("mkfs.ext4", &["-q", "-F", "-b", block, scratch.path()]) {
                return;
            }
            let PartitionContent::Ext4(found) = looked_at(&scratch, size) else {
                panic!("not told")
            };
            assert_eq!(
                (found.block.to_string().as_str(), found.block * found.blocks),
                (block, size)
            );
            let (first, count) = found.journal[0];
            let mut magic = [0; 4];
            File::open(scratch.path())
                .unwrap()
                .read_exact_at(&mut magic, first * found.block)
                .unwrap();
            assert_eq!(
                (magic, count > 0),
                ([0xc0, 0x3b, 0x39, 0x98], true),
                "the journal's own superblock"
            );
            scratch.write(0, &[0; 4096]);
            let PartitionContent::Ext4(backup) = looked_at(&scratch, size) else {
                panic!("backup not told")
            };
            assert_eq!((backup.block, backup.blocks), (found.block, found.blocks));
        }
    }

    #[test]
    fn reads_a_file_system_as_clean_unless_its_superblock_asks_for_a_check() {
        let size = 40 << 20;
        let scratch = Scratch::new("clean", size);
        let is_clean = || {
            matches!(
                looked_at(&scratch, size),
                PartitionContent::Ext4(Ext4Superblock { clean: true, .. })
            )
        };
        let made = || {
            tool(
                "mkfs.ext4",
                &["-q", "-F", "-b", "4096", "-g", "2048", scratch.path()],
            )
        };
        if !made() {
            return;
        }
        assert!(is_clean());
        let asks: [(&str, &[&str]); 7] = [
            ("tune2fs", &["-c", "30"]),
            ("tune2fs", &["-i", "30d"]),
            ("debugfs", &["-w", "-R", "feature needs_recovery"]),
            ("debugfs", &["-w", "-R", "feature orphan_present"]),
            ("debugfs", &["-w", "-R", "set_super_value state 0"]),
            ("debugfs", &["-w", "-R", "set_super_value state 3"]),
            ("debugfs", &["-w", "-R", "set_super_value last_orphan 12"]),
        ];
        for (program, arguments) in asks {
            assert!(
                tool(program, &[arguments, &[scratch.path()]].concat()),
                "{program} {arguments:?}"
            );
            assert!(!is_clean(), "{program} {arguments:?}");
            assert!(made() && is_clean());
        }
        assert!(
            tool(
                "debugfs",
                &["-w", "-R", "set_super_value error_count 1", scratch.path()]
            ) && !is_clean()
        );
        assert!(made() && tool("tune2fs", &["-c", "-1", "-i", "0", scratch.path()]) && is_clean());
        scratch.write(0, &[0; 4096]);
        assert!(
            matches!(
                looked_at(&scratch, size),
                PartitionContent::Ext4(Ext4Superblock { clean: false, .. })
            ),
            "a copy of the superblock does not know"
        );
    }

    #[test]
    fn names_other_file_systems() {
        for (program, arguments, name) in [
            ("mkfs.xfs", &["-q"][..], "XFS"),
            ("mkfs.btrfs", &["-q"], "btrfs"),
            ("mkfs.vfat", &[], "FAT"),
            ("mkswap", &[], "swap space"),
        ] {
            let scratch = Scratch::new("foreign", 320 << 20);
            if tool(program, &[arguments, &[scratch.path()]].concat()) {
                assert_eq!(
                    looked_at(&scratch, 320 << 20),
                    PartitionContent::Foreign(name)
                );
            }
        }
    }
}
