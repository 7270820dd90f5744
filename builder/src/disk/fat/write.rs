//! Writes a FAT32 file system whose files are all known, sparse and in one pass.
//!
//! The same files give the same bytes, and fsck.vfat finds nothing to repair. It is our own writer
//! because the existing crates leave directories that fsck.vfat reports as damaged.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromZeros, IntoBytes};

use super::format::{
    BOOT_SIGNATURE, BootSector, DirEntry, END_OF_CHAIN, ENTRY, FIRST_CLUSTER, FsInfo,
    LAST_LONG_ENTRY, LongNameEntry, attr,
};

/// Smallest number of clusters of FAT32. A volume with fewer is FAT16.
pub const LEAST_CLUSTERS: u64 = 65_525;
/// Sectors before the first FAT.
const RESERVED_SECTORS: u64 = 32;
/// Copies of the FAT.
const FATS: u64 = 2;
/// Cluster of the root directory.
const ROOT: u32 = FIRST_CLUSTER;
/// Sector of the copy of the boot sector.
const BACKUP_SECTOR: u64 = 6;
/// 1980-01-01, the earliest date of FAT. The time of the build is not part of an image.
const DATE: U16 = U16::new(0x21);

/// Files and directories by name.
#[derive(Debug, Default)]
pub struct FatDirectory<'a> {
    entries: BTreeMap<&'a str, FatNode<'a>>,
}

#[derive(Debug)]
enum FatNode<'a> {
    File(&'a [u8]),
    Directory(FatDirectory<'a>),
}

impl<'a> FatDirectory<'a> {
    /// Adds a file at a path below this directory, and the directories that lead to it. Fails if
    /// the path exists, or if one of its directories is a file.
    pub fn add(&mut self, path: &'a str, bytes: &'a [u8]) -> Result<(), String> {
        match path.split_once('/') {
            None => match self.entries.insert(path, FatNode::File(bytes)) {
                None => Ok(()),
                Some(_) => Err(format!("{path} exists twice")),
            },
            Some((name, rest)) => match self
                .entries
                .entry(name)
                .or_insert_with(|| FatNode::Directory(FatDirectory::default()))
            {
                FatNode::Directory(directory) => directory.add(rest, bytes),
                FatNode::File(_) => Err(format!("{name} is a file and a directory")),
            },
        }
    }
}

/// Sizes of a volume's areas.
#[derive(Debug, Clone, Copy)]
pub struct FatGeometry {
    /// Bytes of a sector.
    sector: u64,
    /// Sectors of the volume.
    sectors: u64,
    cluster_sectors: u64,
    /// Sectors of one FAT.
    fat_sectors: u64,
    /// Number of clusters.
    pub clusters: u64,
}

impl FatGeometry {
    /// The geometry of a volume of this many bytes. `cluster` is a multiple of `sector`; both are
    /// in bytes.
    pub fn new(bytes: u64, sector: u32, cluster: u32) -> FatGeometry {
        let sector = u64::from(sector);
        let (sectors, cluster_sectors) = (bytes / sector, u64::from(cluster) / sector);
        // The FAT gets an entry for each cluster that would exist without the FATs. That is a few
        // entries more than needed, and never too few.
        let fat_sectors =
            (((sectors - RESERVED_SECTORS) / cluster_sectors + 2) * 4).div_ceil(sector);
        let clusters =
            sectors.saturating_sub(RESERVED_SECTORS + FATS * fat_sectors) / cluster_sectors;
        FatGeometry {
            sector,
            sectors,
            cluster_sectors,
            fat_sectors,
            clusters,
        }
    }

    fn cluster_bytes(&self) -> u64 {
        self.cluster_sectors * self.sector
    }

    /// Byte offset of a cluster in the volume.
    fn cluster_offset(&self, cluster: u32) -> u64 {
        (RESERVED_SECTORS + FATS * self.fat_sectors) * self.sector
            + u64::from(cluster - FIRST_CLUSTER) * self.cluster_bytes()
    }
}

/// Writes the volume into an empty file that has its final size already. `label` is in upper case,
/// padded with spaces. Returns the number of bytes from the start that are in use; the rest is
/// zeros.
pub fn write_volume(
    out: &File,
    geometry: &FatGeometry,
    volume_id: u32,
    label: &[u8; 11],
    root: &FatDirectory,
) -> io::Result<u64> {
    let mut writer = Writer {
        out,
        geometry,
        // Two entries that stand for no cluster: the media type, and an end of chain.
        fat: vec![U32::new(0x0fff_fff8), U32::new(END_OF_CHAIN)],
    };
    writer.directory(root, None, Some(label))?;
    let used = writer.fat.len() as u32 - FIRST_CLUSTER;
    for number in 0..FATS {
        out.write_all_at(
            writer.fat.as_bytes(),
            (RESERVED_SECTORS + number * geometry.fat_sectors) * geometry.sector,
        )?;
    }
    let boot = boot_sector(geometry, volume_id, label);
    let info = fs_info(geometry.clusters - u64::from(used), used + FIRST_CLUSTER);
    for base in [0, BACKUP_SECTOR] {
        out.write_all_at(boot.as_bytes(), base * geometry.sector)?;
        out.write_all_at(info.as_bytes(), (base + 1) * geometry.sector)?;
    }
    Ok(geometry.cluster_offset(writer.fat.len() as u32))
}

fn boot_sector(geometry: &FatGeometry, volume_id: u32, label: &[u8; 11]) -> BootSector {
    BootSector {
        // x86 code: jump behind this structure, and no operation.
        jmp_boot: [0xeb, 0x58, 0x90],
        oem_name: *b"MSWIN4.1",
        byts_per_sec: U16::new(geometry.sector as u16),
        sec_per_clus: geometry.cluster_sectors as u8,
        rsvd_sec_cnt: U16::new(RESERVED_SECTORS as u16),
        num_fats: FATS as u8,
        media: 0xf8,
        sec_per_trk: U16::new(63),
        num_heads: U16::new(255),
        tot_sec32: U32::new(geometry.sectors as u32),
        fat_sz32: U32::new(geometry.fat_sectors as u32),
        root_clus: U32::new(ROOT),
        fs_info: U16::new(1),
        bk_boot_sec: U16::new(BACKUP_SECTOR as u16),
        drv_num: 0x80,
        boot_sig: 0x29,
        vol_id: U32::new(volume_id),
        vol_lab: *label,
        fil_sys_type: *b"FAT32   ",
        signature: BOOT_SIGNATURE,
        ..BootSector::new_zeroed()
    }
}

fn fs_info(free: u64, next: u32) -> FsInfo {
    FsInfo {
        lead_sig: U32::new(0x4161_5252),
        struc_sig: U32::new(0x6141_7272),
        free_count: U32::new(free as u32),
        nxt_free: U32::new(next),
        trail_sig: U32::new(0xaa55_0000),
        ..FsInfo::new_zeroed()
    }
}

struct Writer<'a> {
    out: &'a File,
    geometry: &'a FatGeometry,
    fat: Vec<U32>,
}

impl Writer<'_> {
    /// Allocates a chain of adjacent clusters for this many bytes, and returns the first; `None`
    /// for 0 bytes.
    fn allocate(&mut self, bytes: usize) -> io::Result<Option<u32>> {
        let count = (bytes as u64).div_ceil(self.geometry.cluster_bytes());
        let used = self.fat.len() as u64 - u64::from(FIRST_CLUSTER);
        if used + count > self.geometry.clusters {
            return Err(io::Error::other(
                "the files need more clusters than the volume has",
            ));
        }
        let first = self.fat.len() as u32;
        self.fat
            .extend((1..count as u32).map(|number| U32::new(first + number)));
        if count == 0 {
            return Ok(None);
        }
        self.fat.push(U32::new(END_OF_CHAIN));
        Ok(Some(first))
    }

    /// Writes a directory and everything below it, and returns its first cluster. Only the root
    /// directory has a label. The root has no `..`, and its children refer to it as cluster 0.
    fn directory(
        &mut self,
        directory: &FatDirectory,
        parent: Option<u32>,
        label: Option<&[u8; 11]>,
    ) -> io::Result<u32> {
        let shorts = short_names(directory.entries.keys().copied())?;
        // The label in the root; `.` and `..` in the others.
        let own = if label.is_some() { 1 } else { 2 };
        let slots: usize = own
            + directory
                .entries
                .keys()
                .zip(&shorts)
                .map(|(name, short)| 1 + long_entries(name, short).len())
                .sum::<usize>();
        // One more for the end mark. It may be left out if the entries fill the clusters exactly,
        // but few readers are tested with that.
        let first = self.allocate((slots + 1) * ENTRY)?.unwrap_or(ROOT);
        let mut bytes = Vec::with_capacity((slots + 1) * ENTRY);
        let push = |bytes: &mut Vec<u8>, entry: DirEntry| {
            bytes.extend_from_slice(entry.as_bytes());
        };
        if let Some(label) = label {
            push(&mut bytes, dir_entry(label, attr::VOLUME_ID, 0, 0));
        } else {
            let parent = parent.unwrap_or(0);
            push(
                &mut bytes,
                dir_entry(b".          ", attr::DIRECTORY, first, 0),
            );
            push(
                &mut bytes,
                dir_entry(b"..         ", attr::DIRECTORY, parent, 0),
            );
        }
        let here = label.is_none().then_some(first);
        for ((name, node), short) in directory.entries.iter().zip(&shorts) {
            bytes.extend_from_slice(long_entries(name, short).as_bytes());
            let (attribute, cluster, size) = match node {
                FatNode::Directory(below) => {
                    (attr::DIRECTORY, self.directory(below, here, None)?, 0)
                }
                FatNode::File(content) => {
                    let size = u32::try_from(content.len())
                        .map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
                    let cluster = self.allocate(content.len())?;
                    if let Some(cluster) = cluster {
                        let offset = self.geometry.cluster_offset(cluster);
                        self.out.write_all_at(content, offset)?;
                    }
                    (attr::ARCHIVE, cluster.unwrap_or(0), size)
                }
            };
            push(&mut bytes, dir_entry(short, attribute, cluster, size));
        }
        let offset = self.geometry.cluster_offset(first);
        self.out.write_all_at(&bytes, offset)?;
        Ok(first)
    }
}

fn dir_entry(name: &[u8; 11], attribute: u8, cluster: u32, size: u32) -> DirEntry {
    DirEntry {
        name: *name,
        attr: attribute,
        crt_date: DATE,
        lst_acc_date: DATE,
        wrt_date: DATE,
        fst_clus_hi: U16::new((cluster >> 16) as u16),
        fst_clus_lo: U16::new(cluster as u16),
        file_size: U32::new(size),
        ..DirEntry::new_zeroed()
    }
}

/// Short names (eight characters and three of the extension) of a directory's names, in their
/// order. A name that fits is used in upper case; any other becomes its beginning, `~` and a
/// number.
fn short_names<'n>(names: impl Iterator<Item = &'n str>) -> io::Result<Vec<[u8; 11]>> {
    let mut taken: Vec<[u8; 11]> = Vec::new();
    for name in names {
        let (base, extension) = name.rsplit_once('.').unwrap_or((name, ""));
        let clean = |text: &str| {
            text.bytes()
                .filter(u8::is_ascii_alphanumeric)
                .map(|b| b.to_ascii_uppercase())
                .collect::<Vec<u8>>()
        };
        let (mut base_bytes, extension_bytes) = (clean(base), clean(extension));
        let fits = base_bytes.len() == base.len()
            && extension_bytes.len() == extension.len()
            && base.len() <= 8
            && extension.len() <= 3;
        let pack = |base: &[u8]| {
            let mut short = [b' '; 11];
            short[..base.len().min(8)].copy_from_slice(&base[..base.len().min(8)]);
            let extension = &extension_bytes[..extension_bytes.len().min(3)];
            short[8..8 + extension.len()].copy_from_slice(extension);
            short
        };
        let mut candidates = fits
            .then(|| pack(&base_bytes))
            .into_iter()
            .chain((1..=9).map(|number| {
                base_bytes.truncate(6);
                pack(&[&base_bytes[..], b"~", number.to_string().as_bytes()].concat())
            }));
        let short = candidates.find(|candidate| !taken.contains(candidate));
        taken.push(short.ok_or_else(|| {
            io::Error::other(format!("{name}: more than nine names begin like it"))
        })?);
    }
    Ok(taken)
}

/// The entries of a long name, last part first; none if the short name is the same.
fn long_entries(name: &str, short: &[u8; 11]) -> Vec<LongNameEntry> {
    let text = |part: &[u8]| String::from_utf8_lossy(part).trim_end().to_owned();
    let (base, extension) = (text(&short[..8]), text(&short[8..]));
    let same = if extension.is_empty() {
        name == base
    } else {
        name == format!("{base}.{extension}")
    };
    if same {
        return Vec::new();
    }
    let checksum = short
        .iter()
        .fold(0u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
    let mut units: Vec<u16> = name.encode_utf16().collect();
    if !units.len().is_multiple_of(LongNameEntry::UNITS) {
        units.push(0);
        units.resize(units.len().next_multiple_of(LongNameEntry::UNITS), 0xffff);
    }
    let parts: Vec<&[u16]> = units.chunks(LongNameEntry::UNITS).collect();
    let entry = |(index, part): (usize, &&[u16])| {
        let last = if index + 1 == parts.len() {
            LAST_LONG_ENTRY
        } else {
            0
        };
        let mut entry = LongNameEntry {
            ord: (index + 1) as u8 | last,
            attr: attr::LONG_NAME,
            chksum: checksum,
            ..LongNameEntry::new_zeroed()
        };
        for (field, unit) in entry.units_mut().zip(part.iter()) {
            *field = U16::new(*unit);
        }
        entry
    };
    parts.iter().enumerate().rev().map(entry).collect()
}
