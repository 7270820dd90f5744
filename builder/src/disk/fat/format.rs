//! On-disk structures of FAT, with the field names of Microsoft's "FAT: General Overview of On-Disk
//! Format" 1.03 in snake case.

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The boot sector of a FAT32 volume. FAT12 and FAT16 have the same fields up to `tot_sec32`.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct BootSector {
    pub jmp_boot: [u8; 3],
    pub oem_name: [u8; 8],
    /// Bytes per sector.
    pub byts_per_sec: U16,
    /// Sectors per cluster.
    pub sec_per_clus: u8,
    /// Sectors before the first FAT.
    pub rsvd_sec_cnt: U16,
    pub num_fats: u8,
    /// Entries of the root directory; 0 in FAT32.
    pub root_ent_cnt: U16,
    /// Sectors of the volume; 0 if `tot_sec32` holds them.
    pub tot_sec16: U16,
    pub media: u8,
    /// Sectors of one FAT; 0 in FAT32.
    pub fat_sz16: U16,
    pub sec_per_trk: U16,
    pub num_heads: U16,
    pub hidd_sec: U32,
    pub tot_sec32: U32,
    /// Sectors of one FAT in FAT32.
    pub fat_sz32: U32,
    pub ext_flags: U16,
    pub fs_ver: U16,
    /// First cluster of the root directory.
    pub root_clus: U32,
    /// Sector of the [`FsInfo`] structure.
    pub fs_info: U16,
    /// Sector of the copy of the boot sector.
    pub bk_boot_sec: U16,
    pub reserved: [u8; 12],
    pub drv_num: u8,
    pub reserved1: u8,
    /// 0x29: the three fields after it are present.
    pub boot_sig: u8,
    pub vol_id: U32,
    pub vol_lab: [u8; 11],
    pub fil_sys_type: [u8; 8],
    pub boot_code: [u8; 420],
    /// [`BOOT_SIGNATURE`].
    pub signature: [u8; 2],
}

/// Last bytes of every boot sector.
pub const BOOT_SIGNATURE: [u8; 2] = [0x55, 0xaa];

/// FAT32's hints for the allocation of clusters.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct FsInfo {
    /// 0x41615252.
    pub lead_sig: U32,
    pub reserved1: [u8; 480],
    /// 0x61417272.
    pub struc_sig: U32,
    /// Free clusters.
    pub free_count: U32,
    /// Cluster at which the search for free ones starts.
    pub nxt_free: U32,
    pub reserved2: [u8; 12],
    /// 0xaa550000.
    pub trail_sig: U32,
}

/// An entry of a directory.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct DirEntry {
    /// Eight characters and three of the extension, padded with spaces.
    pub name: [u8; 11],
    /// Bits of [`attr`].
    pub attr: u8,
    /// Bits of [`nt_res`].
    pub nt_res: u8,
    pub crt_time_tenth: u8,
    pub crt_time: U16,
    pub crt_date: U16,
    pub lst_acc_date: U16,
    pub fst_clus_hi: U16,
    pub wrt_time: U16,
    pub wrt_date: U16,
    pub fst_clus_lo: U16,
    pub file_size: U32,
}

/// An entry that holds 13 UTF-16 units of a long name.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct LongNameEntry {
    /// Number of the entry from 1; [`LAST_LONG_ENTRY`] is set in the last.
    pub ord: u8,
    pub name1: [U16; 5],
    /// [`attr::LONG_NAME`].
    pub attr: u8,
    pub kind: u8,
    /// Checksum of the short name.
    pub chksum: u8,
    pub name2: [U16; 6],
    pub fst_clus_lo: U16,
    pub name3: [U16; 2],
}

/// Values of the first byte of an entry that is not in use.
pub mod free {
    /// This entry and all that follow it are free.
    pub const END: u8 = 0;
    /// This entry is free.
    pub const DELETED: u8 = 0xe5;
}

/// Bits of [`DirEntry::attr`].
pub mod attr {
    pub const READ_ONLY: u8 = 0x01;
    pub const VOLUME_ID: u8 = 0x08;
    pub const DIRECTORY: u8 = 0x10;
    pub const ARCHIVE: u8 = 0x20;
    /// All of the lower four: the entry is a [`LongNameEntry`](super::LongNameEntry).
    pub const LONG_NAME: u8 = 0x0f;
    /// The bits that are compared with [`LONG_NAME`].
    pub const LONG_NAME_MASK: u8 = 0x3f;
}

/// Bits of [`DirEntry::nt_res`], which Windows defined and Linux respects.
pub mod nt_res {
    /// The name is in lower case.
    pub const LOWER_NAME: u8 = 0x08;
    /// The extension is in lower case.
    pub const LOWER_EXTENSION: u8 = 0x10;
}

/// Set in [`LongNameEntry::ord`] of the last part of a name.
pub const LAST_LONG_ENTRY: u8 = 0x40;
/// The other bits of [`LongNameEntry::ord`].
pub const LONG_ORDER_MASK: u8 = 0x3f;

/// Bytes of an entry.
pub const ENTRY: usize = size_of::<DirEntry>();
/// The first cluster of a volume.
pub const FIRST_CLUSTER: u32 = 2;
/// Ends a chain of clusters in FAT32.
pub const END_OF_CHAIN: u32 = 0x0fff_ffff;

const _: () = assert!(size_of::<BootSector>() == 512 && size_of::<FsInfo>() == 512);
const _: () = assert!(ENTRY == 32 && size_of::<LongNameEntry>() == ENTRY);

impl DirEntry {
    /// First cluster of the content.
    pub fn first_cluster(&self) -> u32 {
        u32::from(self.fst_clus_hi.get()) << 16 | u32::from(self.fst_clus_lo.get())
    }
}

impl LongNameEntry {
    /// UTF-16 units in one entry.
    pub const UNITS: usize = 13;

    /// The entry's part of the name.
    pub fn units(&self) -> impl Iterator<Item = u16> {
        self.name1
            .iter()
            .chain(&self.name2)
            .chain(&self.name3)
            .map(|unit| unit.get())
    }

    /// The fields of the entry's part of the name.
    pub fn units_mut(&mut self) -> impl Iterator<Item = &mut U16> {
        self.name1
            .iter_mut()
            .chain(&mut self.name2)
            .chain(&mut self.name3)
    }
}
