//! The superblock of an ext4 file system. Nothing that it reads is trusted.
//!
//! The layout is from the kernel's Documentation/filesystems/ext4/super.rst.

use super::features::{self, Features};

/// Size of a superblock, bytes.
pub const SIZE: usize = 1024;
/// Its byte position in the file system.
pub const OFFSET: u64 = 1024;

/// The fields of an ext4 superblock that the agent needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ext4Superblock {
    /// Size of a block, bytes.
    pub block: u64,
    /// Number of blocks in the file system.
    pub blocks: u64,
    /// Number of blocks in a block group.
    pub group: u64,
    /// The first group's first block: 1 with blocks of 1 KiB, else 0.
    pub first: u64,
    /// Whether the file system was unmounted cleanly, has no recorded errors, and asks for no
    /// periodic check (tune2fs -c and -i). `e2fsck -p` does nothing then.
    pub clean: bool,
    /// Whether the checksum is wrong, so that the superblock was not changed by ext4 code. False
    /// for a file system without checksums.
    pub corrupted: bool,
    /// The optional features in use.
    pub features: Features,
    /// The journal's extents as far as the superblock lists them: first block, number of blocks.
    pub journal: Vec<(u64, u64)>,
}

impl Ext4Superblock {
    /// Parses the 1024 bytes of a superblock; `None` if they are not a valid one.
    #[inline(never)]
    pub fn parse(bytes: &[u8]) -> Option<Ext4Superblock> {
        let bytes: &[u8; SIZE] = bytes.try_into().ok()?;
        let u16_at = |at: usize| u64::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]));
        let u32_at = |at: usize| u16_at(at) | u16_at(at + 2) << 16;
        let log = u32_at(0x18);
        if u16_at(0x38) != 0xef53 || log > 6 {
            return None;
        }
        let features = Features {
            compat: u32_at(0x5c) as u32,
            incompat: u32_at(0x60) as u32,
            ro_compat: u32_at(0x64) as u32,
        };
        let blocks = u32_at(0x4)
            | if features.incompat & features::BITS_64 != 0 {
                u32_at(0x150) << 32
            } else {
                0
            };
        // s_jnl_blocks is a copy of the journal inode's i_block: an extent header (magic 0xF30A),
        // and, if its depth is 0, extents.
        const EXTENTS: usize = 0x10c;
        let leaf = u16_at(EXTENTS) == 0xf30a && u16_at(EXTENTS + 6) == 0;
        let count = if leaf {
            u16_at(EXTENTS + 2).min(4) as usize
        } else {
            0
        };
        let journal = (0..count).map(|n| {
            let at = EXTENTS + 12 + 12 * n;
            (
                u32_at(at + 8) | u16_at(at + 6) << 32,
                u16_at(at + 4).min(32768),
            )
        });
        // s_state: cleanly unmounted, without errors and orphans. s_max_mnt_count is signed, and
        // not positive where it is unused.
        const UNMOUNTED: u64 = 1;
        let asks_for_checks = (1..0x8000).contains(&u16_at(0x36)) || u32_at(0x44) != 0;
        let needs_recovery = features.incompat & features::NEEDS_RECOVERY != 0;
        let has_orphans = features.ro_compat & features::ORPHAN_PRESENT != 0 || u32_at(0xe8) != 0;
        let had_errors = u32_at(0x194) != 0;
        let corrupted = features.ro_compat & features::METADATA_CSUM != 0
            && u64::from(crc32c(&bytes[..SIZE - 4])) != u32_at(SIZE - 4);
        let clean = u16_at(0x3a) == UNMOUNTED
            && !(needs_recovery || has_orphans || had_errors || asks_for_checks || corrupted);
        let (group, first) = (u32_at(0x20).max(1), u32_at(0x14).min(1));
        (blocks > 0).then(|| Ext4Superblock {
            block: 1024 << log,
            blocks,
            group,
            first,
            clean,
            corrupted,
            features,
            journal: journal.collect(),
        })
    }

    /// Size of the file system, bytes.
    pub fn bytes(&self) -> u64 {
        self.blocks.saturating_mul(self.block)
    }
}

/// CRC-32C as ext4 uses it: initial value all ones, not inverted at the end.
fn crc32c(bytes: &[u8]) -> u32 {
    bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 }
        })
    })
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use super::super::tests::{Scratch, tool};
    use super::*;

    fn read(scratch: &Scratch) -> Ext4Superblock {
        let mut bytes = [0; SIZE];
        File::open(scratch.path())
            .unwrap()
            .read_exact_at(&mut bytes, OFFSET)
            .unwrap();
        Ext4Superblock::parse(&bytes).unwrap()
    }

    #[test]
    fn reads_the_features_and_checksum_that_e2fsprogs_writes() {
        let scratch = Scratch::new("super-features", 64 << 20);
        if !tool(
            "mkfs.ext4",
            &[
                "-q",
                "-F",
                "-O",
                "metadata_csum,metadata_csum_seed,casefold,orphan_file,project,quota",
                scratch.path(),
            ],
        ) {
            return;
        }
        let found = read(&scratch);
        let names = features::sentence(&found.features.list());
        for name in [
            "casefold",
            "orphan_file",
            "metadata_csum_seed",
            "project",
            "quota",
            "metadata_csum",
        ] {
            assert!(names.split_whitespace().any(|word| word == name), "{names}");
        }
        assert!(
            found.clean
                && !found.corrupted
                && !found.features.has_unknown()
                && found.bytes() == 64 << 20
        );
        // Only ext4 tools such as debugfs keep the checksum right.
        assert!(tool(
            "debugfs",
            &["-w", "-R", "feature FEATURE_C14", scratch.path()]
        ));
        let found = read(&scratch);
        assert!(found.features.has_unknown() && !found.corrupted);
        scratch.write(OFFSET + 0x5c, &[0xff]);
        assert!(read(&scratch).corrupted && !read(&scratch).clean);
        assert!(tool(
            "mkfs.ext4",
            &["-q", "-F", "-O", "^metadata_csum,uninit_bg", scratch.path()]
        ));
        scratch.write(OFFSET + 0x5c, &[0xff]);
        assert!(!read(&scratch).corrupted, "it has no checksum");
    }

    #[test]
    fn parses_any_superblock_without_a_panic() {
        let mut state = 1u64;
        for _ in 0..20_000 {
            let mut bytes = [0u8; SIZE];
            for byte in &mut bytes {
                state = state
                    .wrapping_mul(6364136223846793005)
                    .wrapping_add(1442695040888963407);
                *byte = (state >> 56) as u8;
            }
            bytes[0x38..0x3a].copy_from_slice(&[0x53, 0xef]);
            bytes[0x18..0x1c].copy_from_slice(&(state as u32 % 8).to_le_bytes());
            let extents = bytes[3];
            bytes[0x10c..0x114].copy_from_slice(&[0x0a, 0xf3, extents, 0, 4, 0, 0, 0]);
            if let Some(found) = Ext4Superblock::parse(&bytes) {
                assert!(found.block <= 65536 && found.journal.len() <= 4 && found.group > 0);
            }
        }
    }
}
