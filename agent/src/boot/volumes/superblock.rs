//! The superblock of an ext4 file system. Nothing that it reads is trusted.
//!
//! The layout is from the kernel's Documentation/filesystems/ext4/super.rst.

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::features::{self, Features};

/// Size of a superblock, bytes.
pub const SIZE: usize = size_of::<Ext4Sb>();
/// Its byte position in the file system.
pub const OFFSET: u64 = 1024;

/// The superblock on disk: `struct ext4_super_block` of the kernel's fs/ext4/ext4.h, with its field
/// names. Runs of fields that the agent does not read are arrays named after the first field.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Ext4Sb {
    s_inodes_count: U32,
    s_blocks_count_lo: U32,
    s_r_blocks_count_lo: U32,
    s_free_blocks_count_lo: U32,
    s_free_inodes_count: U32,
    s_first_data_block: U32,
    s_log_block_size: U32,
    s_log_cluster_size: U32,
    s_blocks_per_group: U32,
    s_clusters_per_group: U32,
    s_inodes_per_group: U32,
    s_mtime: U32,
    s_wtime: U32,
    s_mnt_count: U16,
    s_max_mnt_count: U16,
    s_magic: U16,
    s_state: U16,
    s_errors: U16,
    s_minor_rev_level: U16,
    s_lastcheck: U32,
    s_checkinterval: U32,
    s_creator_os: U32,
    s_rev_level: U32,
    s_def_resuid: U16,
    s_def_resgid: U16,
    s_first_ino: U32,
    s_inode_size: U16,
    s_block_group_nr: U16,
    s_feature_compat: U32,
    s_feature_incompat: U32,
    s_feature_ro_compat: U32,
    s_uuid: [u8; 16],
    s_volume_name: [u8; 16],
    s_last_mounted: [u8; 64],
    s_algorithm_usage_bitmap: [u8; 8],
    s_journal_uuid: [u8; 16],
    s_journal_inum: U32,
    s_journal_dev: U32,
    s_last_orphan: U32,
    s_hash_seed: [u8; 20],
    s_default_mount_opts: U32,
    s_first_meta_bg: U32,
    s_mkfs_time: U32,
    s_jnl_blocks: [u8; 68],
    s_blocks_count_hi: U32,
    s_r_blocks_count_hi: [u8; 64],
    s_error_count: U32,
    s_first_error_time: [u8; 612],
    s_checksum: U32,
}

const _: () = assert!(
    std::mem::offset_of!(Ext4Sb, s_magic) == 0x38
        && std::mem::offset_of!(Ext4Sb, s_feature_compat) == 0x5c
        && std::mem::offset_of!(Ext4Sb, s_last_orphan) == 0xe8
        && std::mem::offset_of!(Ext4Sb, s_jnl_blocks) == 0x10c
        && std::mem::offset_of!(Ext4Sb, s_blocks_count_hi) == 0x150
        && std::mem::offset_of!(Ext4Sb, s_error_count) == 0x194
        && std::mem::offset_of!(Ext4Sb, s_checksum) == 0x3fc
        && SIZE == 1024
);

/// The start of an inode's i_block with extents: `struct ext4_extent_header` and four `struct
/// ext4_extent` of the kernel's fs/ext4/ext4_extents.h, with their field names.
#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct ExtentTree {
    eh_magic: U16,
    eh_entries: U16,
    eh_max: U16,
    eh_depth: U16,
    eh_generation: U32,
    extents: [Extent; 4],
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Extent {
    ee_block: U32,
    ee_len: U16,
    ee_start_hi: U16,
    ee_start_lo: U32,
}

const EXT4_SUPER_MAGIC: u16 = 0xef53;
const EXT4_EXT_MAGIC: u16 = 0xf30a;
/// `s_state` of a file system that was cleanly unmounted, without errors and orphans.
const EXT4_VALID_FS: u16 = 1;

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

impl Ext4Sb {
    /// The journal's extents, if they fit into the inode: s_jnl_blocks is a copy of its i_block.
    fn journal(&self) -> Vec<(u64, u64)> {
        let Ok((tree, _)) = ExtentTree::ref_from_prefix(&self.s_jnl_blocks) else {
            return Vec::new();
        };
        let count = if tree.eh_magic == EXT4_EXT_MAGIC && tree.eh_depth == 0 {
            usize::from(tree.eh_entries.get())
        } else {
            0
        };
        let extents = tree.extents.iter().take(count);
        extents
            .map(|extent| {
                let start =
                    u64::from(extent.ee_start_lo.get()) | u64::from(extent.ee_start_hi.get()) << 32;
                (start, u64::from(extent.ee_len.get()).min(32768))
            })
            .collect()
    }
}

impl Ext4Superblock {
    /// Parses the 1024 bytes of a superblock; `None` if they are not a valid one.
    #[inline(never)]
    pub fn parse(bytes: &[u8]) -> Option<Ext4Superblock> {
        let sb = Ext4Sb::ref_from_bytes(bytes).ok()?;
        let log = sb.s_log_block_size.get();
        if sb.s_magic != EXT4_SUPER_MAGIC || log > 6 {
            return None;
        }
        let features = Features {
            compat: sb.s_feature_compat.get(),
            incompat: sb.s_feature_incompat.get(),
            ro_compat: sb.s_feature_ro_compat.get(),
        };
        let high = if features.incompat & features::BITS_64 != 0 {
            u64::from(sb.s_blocks_count_hi.get()) << 32
        } else {
            0
        };
        let blocks = u64::from(sb.s_blocks_count_lo.get()) | high;
        // s_max_mnt_count is signed, and not positive where it is unused.
        let asks_for_checks =
            (1..0x8000).contains(&sb.s_max_mnt_count.get()) || sb.s_checkinterval != 0;
        let needs_recovery = features.incompat & features::NEEDS_RECOVERY != 0;
        let has_orphans =
            features.ro_compat & features::ORPHAN_PRESENT != 0 || sb.s_last_orphan != 0;
        let had_errors = sb.s_error_count != 0;
        let corrupted = features.ro_compat & features::METADATA_CSUM != 0
            && crc32c(&bytes[..std::mem::offset_of!(Ext4Sb, s_checksum)]) != sb.s_checksum.get();
        let clean = sb.s_state == EXT4_VALID_FS
            && !(needs_recovery || has_orphans || had_errors || asks_for_checks || corrupted);
        (blocks > 0).then(|| Ext4Superblock {
            block: 1024 << log,
            blocks,
            group: u64::from(sb.s_blocks_per_group.get()).max(1),
            first: u64::from(sb.s_first_data_block.get()).min(1),
            clean,
            corrupted,
            features,
            journal: sb.journal(),
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
