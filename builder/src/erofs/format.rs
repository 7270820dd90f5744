//! EROFS on disk: structures and constants, named as in the kernel's fs/erofs/erofs_fs.h (6.1 to
//! 6.18). Everything is little-endian.
//!
//! Only what this project writes is here: 4096-byte blocks, flat and compressed-compact inodes, no
//! chunks, no extra devices, and fragments that are whole files.

/// File system block size, bytes.
pub const BLOCK: usize = 4096;
/// `BLOCK` as a shift.
pub const BLOCK_BITS: u32 = 12;

pub const EROFS_SUPER_MAGIC_V1: u32 = 0xE0F5_E1E2;
/// Where the super block stands in block 0.
pub const EROFS_SUPER_OFFSET: usize = 1024;
/// Size of the super block without extension slots.
pub const SUPER_SIZE: usize = 128;

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
/// Size of an inode in its two forms.
pub const INODE_COMPACT: usize = 32;
pub const INODE_EXTENDED: usize = 64;
/// An inode's number counts slots of this size from the start of the metadata area.
pub const SLOT: usize = 32;

pub const EROFS_XATTR_INDEX_USER: u8 = 1;
pub const EROFS_XATTR_INDEX_POSIX_ACL_ACCESS: u8 = 2;
pub const EROFS_XATTR_INDEX_POSIX_ACL_DEFAULT: u8 = 3;
pub const EROFS_XATTR_INDEX_TRUSTED: u8 = 4;
pub const EROFS_XATTR_INDEX_SECURITY: u8 = 6;
/// Size of `erofs_xattr_ibody_header`.
pub const XATTR_IBODY_HEADER: usize = 12;
/// Size of `erofs_xattr_entry` before its name.
pub const XATTR_ENTRY: usize = 4;

/// Size of `erofs_dirent`.
pub const DIRENT: usize = 12;

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
/// Size of `z_erofs_map_header`.
pub const Z_MAP_HEADER: usize = 8;
/// In the header as one number: a file that is wholly in the packed inode, from the byte on that
/// the other bits say.
pub const Z_EROFS_FRAGMENT_INODE: u64 = 1 << 63;

/// Reads a little-endian number; `None` beyond the end.
pub fn get<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

/// A 16-bit number.
pub fn get16(bytes: &[u8], at: usize) -> Option<u16> {
    get(bytes, at).map(u16::from_le_bytes)
}

/// A 32-bit number.
pub fn get32(bytes: &[u8], at: usize) -> Option<u32> {
    get(bytes, at).map(u32::from_le_bytes)
}

/// A 64-bit number.
pub fn get64(bytes: &[u8], at: usize) -> Option<u64> {
    get(bytes, at).map(u64::from_le_bytes)
}

/// `erofs_super_block`, the fields that vary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SuperBlock {
    pub feature_incompat: u32,
    pub root_nid: u16,
    pub inos: u64,
    /// Seconds that compact inodes have as their modification time.
    pub epoch: u64,
    /// Nanoseconds of the same.
    pub fixed_nsec: u32,
    pub blocks: u32,
    pub meta_blkaddr: u32,
    pub xattr_blkaddr: u32,
    /// The inode that fragments are in; 0 without one.
    pub packed_nid: u64,
    pub uuid: [u8; 16],
    pub volume_name: [u8; 16],
    pub available_compr_algs: u16,
    /// Compression configurations, each behind its length, as they follow the super block.
    pub compr_cfgs: Vec<u8>,
}

impl SuperBlock {
    /// Block 0 with its checksum.
    pub fn encode(&self) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        let s = &mut block[EROFS_SUPER_OFFSET..];
        s[0..4].copy_from_slice(&EROFS_SUPER_MAGIC_V1.to_le_bytes());
        s[8..12].copy_from_slice(
            &(EROFS_FEATURE_COMPAT_SB_CHKSUM | EROFS_FEATURE_COMPAT_MTIME).to_le_bytes(),
        );
        s[12] = BLOCK_BITS as u8;
        s[14..16].copy_from_slice(&self.root_nid.to_le_bytes());
        s[16..24].copy_from_slice(&self.inos.to_le_bytes());
        s[24..32].copy_from_slice(&self.epoch.to_le_bytes());
        s[32..36].copy_from_slice(&self.fixed_nsec.to_le_bytes());
        s[36..40].copy_from_slice(&self.blocks.to_le_bytes());
        s[40..44].copy_from_slice(&self.meta_blkaddr.to_le_bytes());
        s[44..48].copy_from_slice(&self.xattr_blkaddr.to_le_bytes());
        s[48..64].copy_from_slice(&self.uuid);
        s[64..80].copy_from_slice(&self.volume_name);
        s[80..84].copy_from_slice(&self.feature_incompat.to_le_bytes());
        s[84..86].copy_from_slice(&self.available_compr_algs.to_le_bytes());
        s[96..104].copy_from_slice(&self.packed_nid.to_le_bytes());
        let cfgs = &self.compr_cfgs[..self.compr_cfgs.len().min(256)];
        s[SUPER_SIZE..SUPER_SIZE + cfgs.len()].copy_from_slice(cfgs);
        let checksum = crc32c(!0, s);
        s[4..8].copy_from_slice(&checksum.to_le_bytes());
        block
    }

    /// Reads block 0. `Err` says in a clause what is wrong.
    pub fn parse(block: &[u8; BLOCK]) -> Result<SuperBlock, String> {
        let mut s = block[EROFS_SUPER_OFFSET..].to_vec();
        let u16_at = |at| get16(&block[EROFS_SUPER_OFFSET..], at).unwrap_or_default();
        let u32_at = |at| get32(&block[EROFS_SUPER_OFFSET..], at).unwrap_or_default();
        let u64_at = |at| get64(&block[EROFS_SUPER_OFFSET..], at).unwrap_or_default();
        if u32_at(0) != EROFS_SUPER_MAGIC_V1 {
            return Err("no EROFS super block (magic number missing)".to_owned());
        }
        s[4..8].fill(0);
        let checksum = crc32c(!0, &s);
        if checksum != u32_at(4) {
            return Err(format!(
                "checksum {:08x} where {checksum:08x} is right",
                u32_at(4)
            ));
        }
        if u32_at(8) != EROFS_FEATURE_COMPAT_SB_CHKSUM | EROFS_FEATURE_COMPAT_MTIME {
            return Err(format!(
                "compatible features {:#x}, which this program never writes",
                u32_at(8)
            ));
        }
        let feature_incompat = u32_at(80);
        const KNOWN: u32 = EROFS_FEATURE_INCOMPAT_LZ4_0PADDING
            | EROFS_FEATURE_INCOMPAT_COMPR_CFGS
            | EROFS_FEATURE_INCOMPAT_ZTAILPACKING
            | EROFS_FEATURE_INCOMPAT_FRAGMENTS;
        if feature_incompat & !KNOWN != 0 {
            return Err(format!(
                "incompatible features {feature_incompat:#x}, which this program never writes"
            ));
        }
        if s[12] != BLOCK_BITS as u8 || s[13] != 0 || s[90] != 0 {
            return Err("block size, extension slots or directory block size are not those this program writes".to_owned());
        }
        let available_compr_algs = u16_at(84);
        let mut compr_cfgs = Vec::new();
        let mut at = SUPER_SIZE;
        for algorithm in 0..16 {
            if available_compr_algs & 1 << algorithm == 0 {
                continue;
            }
            let size = usize::from(u16_at(at));
            if size > 64 {
                return Err(format!(
                    "{size} bytes of configuration for one compression algorithm"
                ));
            }
            compr_cfgs.extend_from_slice(&s[at..at + 2 + size]);
            at += 2 + size;
        }
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&s[48..64]);
        let mut volume_name = [0; 16];
        volume_name.copy_from_slice(&s[64..80]);
        Ok(SuperBlock {
            feature_incompat,
            root_nid: u16_at(14),
            inos: u64_at(16),
            epoch: u64_at(24),
            fixed_nsec: u32_at(32),
            blocks: u32_at(36),
            meta_blkaddr: u32_at(40),
            xattr_blkaddr: u32_at(44),
            packed_nid: if feature_incompat & EROFS_FEATURE_INCOMPAT_FRAGMENTS != 0 {
                u64_at(96)
            } else {
                0
            },
            uuid,
            volume_name,
            available_compr_algs,
            compr_cfgs,
        })
    }
}

/// `erofs_inode_compact` and `erofs_inode_extended` as one.
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
    /// Seconds and nanoseconds; compact inodes have the super block's.
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

    /// The bytes on disk. What doesn't fit the compact form must have been given as extended.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(INODE_EXTENDED);
        let format = u16::from(self.datalayout) << EROFS_I_DATALAYOUT_BIT
            | if self.extended {
                EROFS_INODE_LAYOUT_EXTENDED
            } else {
                0
            };
        out.extend_from_slice(&format.to_le_bytes());
        out.extend_from_slice(&self.xattr_icount.to_le_bytes());
        out.extend_from_slice(&self.mode.to_le_bytes());
        if self.extended {
            out.extend_from_slice(&[0; 2]);
            out.extend_from_slice(&self.size.to_le_bytes());
            out.extend_from_slice(&self.u.to_le_bytes());
            out.extend_from_slice(&self.ino.to_le_bytes());
            out.extend_from_slice(&self.uid.to_le_bytes());
            out.extend_from_slice(&self.gid.to_le_bytes());
            out.extend_from_slice(&self.mtime.0.to_le_bytes());
            out.extend_from_slice(&self.mtime.1.to_le_bytes());
            out.extend_from_slice(&self.nlink.to_le_bytes());
            out.extend_from_slice(&[0; 16]);
        } else {
            out.extend_from_slice(&(self.nlink as u16).to_le_bytes());
            out.extend_from_slice(&(self.size as u32).to_le_bytes());
            out.extend_from_slice(&[0; 4]);
            out.extend_from_slice(&self.u.to_le_bytes());
            out.extend_from_slice(&self.ino.to_le_bytes());
            out.extend_from_slice(&(self.uid as u16).to_le_bytes());
            out.extend_from_slice(&(self.gid as u16).to_le_bytes());
            out.extend_from_slice(&[0; 4]);
        }
        out
    }

    /// Reads an inode from the start of `bytes`; `fixed` is the time of compact ones. `None` where
    /// bytes are missing or a bit is set that this program never sets.
    pub fn parse(bytes: &[u8], fixed: (i64, u32)) -> Option<Inode> {
        let format = get16(bytes, 0)?;
        if format & !0xf != 0 {
            return None;
        }
        let extended = format & EROFS_INODE_LAYOUT_EXTENDED != 0;
        let (xattr_icount, mode) = (get16(bytes, 2)?, get16(bytes, 4)?);
        let datalayout = (format >> EROFS_I_DATALAYOUT_BIT) as u8 & 7;
        Some(if extended {
            Inode {
                extended,
                datalayout,
                xattr_icount,
                mode,
                size: get64(bytes, 8)?,
                u: get32(bytes, 16)?,
                ino: get32(bytes, 20)?,
                uid: get32(bytes, 24)?,
                gid: get32(bytes, 28)?,
                mtime: (get64(bytes, 32)? as i64, get32(bytes, 40)?),
                nlink: get32(bytes, 44)?,
            }
        } else {
            Inode {
                extended,
                datalayout,
                xattr_icount,
                mode,
                nlink: u32::from(get16(bytes, 6)?),
                size: u64::from(get32(bytes, 8)?),
                u: get32(bytes, 16)?,
                ino: get32(bytes, 20)?,
                uid: u32::from(get16(bytes, 24)?),
                gid: u32::from(get16(bytes, 26)?),
                mtime: fixed,
            }
        })
    }
}

/// The kernel's `new_encode_dev`; `None` for numbers it can't hold.
pub fn encode_dev(major: u32, minor: u32) -> Option<u32> {
    (major < 1 << 12 && minor < 1 << 20)
        .then_some(minor & 0xff | major << 8 | (minor & !0xff) << 12)
}

/// Its inverse: major and minor.
pub fn decode_dev(dev: u32) -> (u32, u32) {
    ((dev & 0xf_ff00) >> 8, dev & 0xff | dev >> 12 & 0xf_ff00)
}

/// CRC-32C (Castagnoli) as the kernel's `crc32c(seed, ...)` has it: no inversion before or after.
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
