//! EROFS on disk: structures and constants, named as in the kernel's fs/erofs/erofs_fs.h (6.1 to
//! 6.18). Everything is little-endian.
//!
//! Only what this project writes is here: 4096-byte blocks, flat and compressed-compact inodes, no
//! chunks, no extra devices, and fragments that are whole files.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// File system block size, bytes.
pub const BLOCK: usize = 4096;
/// `BLOCK` as a shift.
pub const BLOCK_BITS: u32 = 12;

pub const EROFS_SUPER_MAGIC_V1: u32 = 0xE0F5_E1E2;
/// Offset of the superblock in block 0, bytes.
pub const EROFS_SUPER_OFFSET: usize = 1024;

pub const EROFS_FEATURE_COMPAT_SB_CHKSUM: u32 = 0x1;
pub const EROFS_FEATURE_COMPAT_MTIME: u32 = 0x2;
pub const EROFS_FEATURE_INCOMPAT_LZ4_0PADDING: u32 = 0x1;
/// Also called EROFS_FEATURE_INCOMPAT_BIG_PCLUSTER: one bit for both.
pub const EROFS_FEATURE_INCOMPAT_COMPR_CFGS: u32 = 0x2;
pub const EROFS_FEATURE_INCOMPAT_ZTAILPACKING: u32 = 0x10;
pub const EROFS_FEATURE_INCOMPAT_FRAGMENTS: u32 = 0x20;

pub const EROFS_INODE_FLAT_PLAIN: u8 = 0;
pub const EROFS_INODE_FLAT_INLINE: u8 = 2;
pub const EROFS_INODE_COMPRESSED_COMPACT: u8 = 3;

pub const EROFS_INODE_LAYOUT_EXTENDED: u16 = 1;
pub const EROFS_I_DATALAYOUT_BIT: u32 = 1;
/// Size of an inode in its two forms, bytes.
pub const INODE_COMPACT: usize = size_of::<ErofsInodeCompact>();
pub const INODE_EXTENDED: usize = size_of::<ErofsInodeExtended>();
/// An inode's number (nid) counts slots of this size from the start of the metadata area.
pub const SLOT: usize = 32;

pub const EROFS_XATTR_INDEX_USER: u8 = 1;
pub const EROFS_XATTR_INDEX_POSIX_ACL_ACCESS: u8 = 2;
pub const EROFS_XATTR_INDEX_POSIX_ACL_DEFAULT: u8 = 3;
pub const EROFS_XATTR_INDEX_TRUSTED: u8 = 4;
pub const EROFS_XATTR_INDEX_SECURITY: u8 = 6;
/// Size of the header of an inode's extended attributes, bytes.
pub const XATTR_IBODY_HEADER: usize = size_of::<ErofsXattrIbodyHeader>();
/// Size of an extended attribute's entry before its name, bytes.
pub const XATTR_ENTRY: usize = size_of::<ErofsXattrEntry>();

/// Size of a directory entry without its name, bytes.
pub const DIRENT: usize = size_of::<ErofsDirent>();
pub const EROFS_FT_REG_FILE: u8 = 1;
pub const EROFS_FT_DIR: u8 = 2;
pub const EROFS_FT_CHRDEV: u8 = 3;
pub const EROFS_FT_BLKDEV: u8 = 4;
pub const EROFS_FT_FIFO: u8 = 5;
pub const EROFS_FT_SOCK: u8 = 6;
pub const EROFS_FT_SYMLINK: u8 = 7;

pub const Z_EROFS_COMPRESSION_LZ4: u8 = 0;
pub const Z_EROFS_COMPRESSION_ZSTD: u8 = 3;
/// Largest physical cluster, bytes.
pub const Z_EROFS_PCLUSTER_MAX_SIZE: usize = 1 << 20;
/// Largest zstd window, bytes.
pub const Z_EROFS_ZSTD_MAX_DICT_SIZE: usize = 1 << 20;
/// Largest decoded size of a physical cluster, bytes.
pub const Z_EROFS_PCLUSTER_MAX_DSIZE: u64 = 12 << 20;

pub const Z_EROFS_ADVISE_COMPACTED_2B: u16 = 0x1;
pub const Z_EROFS_ADVISE_BIG_PCLUSTER_1: u16 = 0x2;
pub const Z_EROFS_ADVISE_BIG_PCLUSTER_2: u16 = 0x4;
pub const Z_EROFS_ADVISE_INLINE_PCLUSTER: u16 = 0x8;
pub const Z_EROFS_LCLUSTER_TYPE_PLAIN: u32 = 0;
pub const Z_EROFS_LCLUSTER_TYPE_HEAD1: u32 = 1;
pub const Z_EROFS_LCLUSTER_TYPE_NONHEAD: u32 = 2;
/// Marks the first NONHEAD of a cluster, which holds the number of its blocks.
pub const Z_EROFS_LI_D0_CBLKCNT: u32 = 1 << 11;
/// Size of the map header, bytes.
pub const Z_MAP_HEADER: usize = size_of::<ZErofsMapHeader>();
/// Bit of the map header as one 64-bit number: the whole file is in the packed inode, and the other
/// bits are its offset there.
pub const Z_EROFS_FRAGMENT_INODE: u64 = 1 << 63;

/// `erofs_super_block`.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    FromBytes,
    IntoBytes,
    KnownLayout,
    Immutable,
    Unaligned,
)]
#[repr(C)]
pub struct ErofsSuperBlock {
    pub magic: U32,
    pub checksum: U32,
    pub feature_compat: U32,
    pub blkszbits: u8,
    pub sb_extslots: u8,
    pub root_nid: U16,
    pub inos: U64,
    /// Modification time of compact inodes, seconds since 1970.
    pub epoch: U64,
    /// Nanoseconds of the same.
    pub fixed_nsec: U32,
    pub blocks: U32,
    pub meta_blkaddr: U32,
    pub xattr_blkaddr: U32,
    pub uuid: [u8; 16],
    pub volume_name: [u8; 16],
    pub feature_incompat: U32,
    pub available_compr_algs: U16,
    pub extra_devices: U16,
    pub devt_slotoff: U16,
    pub dirblkbits: u8,
    pub xattr_prefix_count: u8,
    pub xattr_prefix_start: U32,
    /// Number of the packed inode; 0 without one.
    pub packed_nid: U64,
    pub xattr_filter_reserved: u8,
    pub reserved2: [u8; 23],
}

/// `erofs_inode_compact`.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct ErofsInodeCompact {
    pub i_format: U16,
    pub i_xattr_icount: U16,
    pub i_mode: U16,
    pub i_nlink: U16,
    pub i_size: U32,
    pub i_reserved: U32,
    pub i_u: U32,
    pub i_ino: U32,
    pub i_uid: U16,
    pub i_gid: U16,
    pub i_reserved2: U32,
}

/// `erofs_inode_extended`.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct ErofsInodeExtended {
    pub i_format: U16,
    pub i_xattr_icount: U16,
    pub i_mode: U16,
    pub i_reserved: U16,
    pub i_size: U64,
    pub i_u: U32,
    pub i_ino: U32,
    pub i_uid: U32,
    pub i_gid: U32,
    pub i_mtime: U64,
    pub i_mtime_nsec: U32,
    pub i_nlink: U32,
    pub i_reserved2: [u8; 16],
}

/// `erofs_xattr_ibody_header`.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct ErofsXattrIbodyHeader {
    pub h_name_filter: U32,
    pub h_shared_count: u8,
    pub h_reserved2: [u8; 7],
}

/// `erofs_xattr_entry`, which name and value follow.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct ErofsXattrEntry {
    pub e_name_len: u8,
    pub e_name_index: u8,
    pub e_value_size: U16,
}

/// `erofs_dirent`.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct ErofsDirent {
    pub nid: U64,
    pub nameoff: U16,
    pub file_type: u8,
    pub reserved: u8,
}

/// `z_erofs_map_header`, without fragments.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct ZErofsMapHeader {
    pub h_reserved1: U16,
    pub h_idata_size: U16,
    pub h_advise: U16,
    pub h_algorithmtype: u8,
    pub h_clusterbits: u8,
}

/// `z_erofs_lz4_cfgs`, behind its length.
#[derive(Debug, Clone, Copy, Default, IntoBytes, Immutable, Unaligned)]
#[repr(C)]
pub struct ZErofsLz4Cfgs {
    pub size: U16,
    pub max_distance: U16,
    pub max_pclusterblks: U16,
    pub reserved: [u8; 10],
}

/// `z_erofs_zstd_cfgs`, behind its length.
#[derive(Debug, Clone, Copy, Default, IntoBytes, Immutable, Unaligned)]
#[repr(C)]
pub struct ZErofsZstdCfgs {
    pub size: U16,
    pub format: u8,
    /// The window's size as a power of two, minus 10.
    pub windowlog: u8,
    pub reserved: [u8; 4],
}

const _: () = assert!(size_of::<ErofsSuperBlock>() == 128 && INODE_COMPACT == 32);
const _: () = assert!(INODE_EXTENDED == 64 && XATTR_IBODY_HEADER == 12 && XATTR_ENTRY == 4);
const _: () = assert!(DIRENT == 12 && Z_MAP_HEADER == 8);

const FEATURE_COMPAT: u32 = EROFS_FEATURE_COMPAT_SB_CHKSUM | EROFS_FEATURE_COMPAT_MTIME;

impl ErofsSuperBlock {
    /// Block 0 with this superblock, behind it the configurations of its compression algorithms
    /// (each starts with its length). Sets magic number, block size, compatible features and
    /// checksum.
    pub fn encode(mut self, compr_cfgs: &[u8]) -> [u8; BLOCK] {
        self.magic = EROFS_SUPER_MAGIC_V1.into();
        self.feature_compat = FEATURE_COMPAT.into();
        self.blkszbits = BLOCK_BITS as u8;
        self.checksum = 0.into();
        let mut block = [0; BLOCK];
        let behind = EROFS_SUPER_OFFSET + size_of::<ErofsSuperBlock>();
        block[behind..behind + compr_cfgs.len()].copy_from_slice(compr_cfgs);
        block[EROFS_SUPER_OFFSET..behind].copy_from_slice(self.as_bytes());
        self.checksum = crc32c(!0, &block[EROFS_SUPER_OFFSET..]).into();
        block[EROFS_SUPER_OFFSET..behind].copy_from_slice(self.as_bytes());
        block
    }

    /// Reads the superblock from block 0. The error is a phrase for a message.
    pub fn parse(block: &[u8; BLOCK]) -> Result<ErofsSuperBlock, String> {
        let bytes = &block[EROFS_SUPER_OFFSET..];
        let (mut superblock, behind) = ErofsSuperBlock::read_from_prefix(bytes)
            .map_err(|_| "shorter than an EROFS superblock")?;
        if superblock.magic != EROFS_SUPER_MAGIC_V1 {
            return Err("no EROFS superblock (magic number missing)".to_owned());
        }
        let stored = superblock.checksum;
        superblock.checksum = 0.into();
        let checksum = crc32c(crc32c(!0, superblock.as_bytes()), behind);
        superblock.checksum = stored;
        if stored != checksum {
            return Err(format!("checksum {stored:08x}, expected {checksum:08x}"));
        }
        if superblock.feature_compat != FEATURE_COMPAT {
            return Err(format!(
                "compatible features {:#x}, which adamant never writes",
                superblock.feature_compat
            ));
        }
        const KNOWN: u32 = EROFS_FEATURE_INCOMPAT_LZ4_0PADDING
            | EROFS_FEATURE_INCOMPAT_COMPR_CFGS
            | EROFS_FEATURE_INCOMPAT_ZTAILPACKING
            | EROFS_FEATURE_INCOMPAT_FRAGMENTS;
        let feature_incompat = superblock.feature_incompat.get();
        if feature_incompat & !KNOWN != 0 {
            return Err(format!(
                "incompatible features {feature_incompat:#x}, which adamant never writes"
            ));
        }
        if superblock.blkszbits != BLOCK_BITS as u8
            || superblock.sb_extslots != 0
            || superblock.dirblkbits != 0
        {
            return Err(
                "block size, extension slots or directory block size that adamant never writes"
                    .to_owned(),
            );
        }
        let mut cfgs = behind;
        for _ in 0..superblock.available_compr_algs.get().count_ones() {
            let (size, rest) = U16::read_from_prefix(cfgs).map_err(|_| "configuration missing")?;
            let size = usize::from(size.get());
            if size > 64 {
                return Err(format!(
                    "{size} bytes of configuration for one compression algorithm"
                ));
            }
            cfgs = rest.get(size..).unwrap_or_default();
        }
        if feature_incompat & EROFS_FEATURE_INCOMPAT_FRAGMENTS == 0 {
            superblock.packed_nid = 0.into();
        }
        Ok(superblock)
    }
}

/// An inode in either of its forms, `erofs_inode_compact` or `erofs_inode_extended`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inode {
    pub extended: bool,
    pub datalayout: u8,
    pub xattr_icount: u16,
    pub mode: u16,
    pub nlink: u32,
    pub size: u64,
    /// Start block of flat inodes, number of compressed blocks, or device number.
    pub u: u32,
    pub ino: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds and nanoseconds; compact inodes have the superblock's.
    pub mtime: (i64, u32),
}

impl Inode {
    /// Size on disk, bytes.
    pub fn len(&self) -> usize {
        if self.extended {
            INODE_EXTENDED
        } else {
            INODE_COMPACT
        }
    }

    /// The bytes on disk. The caller sets `extended` for an inode that the compact form can't hold.
    pub fn encode(&self) -> Vec<u8> {
        let i_format = u16::from(self.datalayout) << EROFS_I_DATALAYOUT_BIT;
        if self.extended {
            let inode = ErofsInodeExtended {
                i_format: (i_format | EROFS_INODE_LAYOUT_EXTENDED).into(),
                i_xattr_icount: self.xattr_icount.into(),
                i_mode: self.mode.into(),
                i_size: self.size.into(),
                i_u: self.u.into(),
                i_ino: self.ino.into(),
                i_uid: self.uid.into(),
                i_gid: self.gid.into(),
                i_mtime: (self.mtime.0 as u64).into(),
                i_mtime_nsec: self.mtime.1.into(),
                i_nlink: self.nlink.into(),
                ..Default::default()
            };
            inode.as_bytes().to_vec()
        } else {
            let inode = ErofsInodeCompact {
                i_format: i_format.into(),
                i_xattr_icount: self.xattr_icount.into(),
                i_mode: self.mode.into(),
                i_nlink: (self.nlink as u16).into(),
                i_size: (self.size as u32).into(),
                i_u: self.u.into(),
                i_ino: self.ino.into(),
                i_uid: (self.uid as u16).into(),
                i_gid: (self.gid as u16).into(),
                ..Default::default()
            };
            inode.as_bytes().to_vec()
        }
    }

    /// Reads an inode from the start of `bytes`; `fixed` is the time of compact inodes. `None` for
    /// missing bytes, or a bit of the format that adamant never sets.
    pub fn parse(bytes: &[u8], fixed: (i64, u32)) -> Option<Inode> {
        let (format, _) = U16::read_from_prefix(bytes).ok()?;
        let format = format.get();
        if format & !0xf != 0 {
            return None;
        }
        let datalayout = (format >> EROFS_I_DATALAYOUT_BIT) as u8 & 7;
        if format & EROFS_INODE_LAYOUT_EXTENDED != 0 {
            let (inode, _) = ErofsInodeExtended::read_from_prefix(bytes).ok()?;
            Some(Inode {
                extended: true,
                datalayout,
                xattr_icount: inode.i_xattr_icount.get(),
                mode: inode.i_mode.get(),
                nlink: inode.i_nlink.get(),
                size: inode.i_size.get(),
                u: inode.i_u.get(),
                ino: inode.i_ino.get(),
                uid: inode.i_uid.get(),
                gid: inode.i_gid.get(),
                mtime: (inode.i_mtime.get() as i64, inode.i_mtime_nsec.get()),
            })
        } else {
            let (inode, _) = ErofsInodeCompact::read_from_prefix(bytes).ok()?;
            Some(Inode {
                extended: false,
                datalayout,
                xattr_icount: inode.i_xattr_icount.get(),
                mode: inode.i_mode.get(),
                nlink: u32::from(inode.i_nlink.get()),
                size: u64::from(inode.i_size.get()),
                u: inode.i_u.get(),
                ino: inode.i_ino.get(),
                uid: u32::from(inode.i_uid.get()),
                gid: u32::from(inode.i_gid.get()),
                mtime: fixed,
            })
        }
    }
}

/// A device number in the kernel's encoding (`new_encode_dev`); `None` for numbers that it can't
/// hold.
pub fn encode_dev(major: u32, minor: u32) -> Option<u32> {
    (major < 1 << 12 && minor < 1 << 20)
        .then_some(minor & 0xff | major << 8 | (minor & !0xff) << 12)
}

/// Major and minor of an encoded device number.
pub fn decode_dev(dev: u32) -> (u32, u32) {
    ((dev & 0xf_ff00) >> 8, dev & 0xff | dev >> 12 & 0xf_ff00)
}

/// CRC-32C (Castagnoli) like the kernel's `crc32c(seed, ...)`: no inversion before or after.
pub fn crc32c(seed: u32, bytes: &[u8]) -> u32 {
    let mut crc = seed;
    for &byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
        }
    }
    crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_survive_the_round_trip() {
        for (major, minor) in [(0, 0), (8, 1), (4095, 1_048_575), (259, 256), (1, 255)] {
            assert_eq!(
                decode_dev(encode_dev(major, minor).unwrap()),
                (major, minor)
            );
        }
        assert_eq!(encode_dev(4096, 0), None);
        assert_eq!(encode_dev(0, 1 << 20), None);
    }

    #[test]
    fn checksum_is_castagnoli() {
        // The standard check value, which is inverted at the end.
        assert_eq!(!crc32c(!0, b"123456789"), 0xe306_9283);
    }
}
