//! A FAT32 file system with files known beforehand (Microsoft's FAT specification 1.03), written
//! sparse and in one go.
//!
//! It promises the same bytes for the same files, and a volume in which fsck.vfat finds nothing to
//! say. Our own, because the crates there are leave directories that fsck.vfat takes for damage.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Least number of clusters of FAT32; with fewer it would be FAT16.
pub const LEAST_CLUSTERS: u64 = 65_525;
/// Sectors before the first FAT.
const RESERVED: u64 = 32;
const FATS: u64 = 2;
/// Cluster of the root directory: the first there is.
const ROOT: u32 = 2;
const END_OF_CHAIN: u32 = 0x0fff_ffff;
/// Sector of the copy of the boot sector.
const BACKUP: u64 = 6;
/// Bytes of a directory entry.
const ENTRY: usize = 32;
/// UTF-16 units in an entry of a long name.
const UNITS: usize = 13;
const DIRECTORY: u8 = 0x10;
const VOLUME_LABEL: u8 = 0x08;
const ARCHIVE: u8 = 0x20;
const LONG_NAME: u8 = 0x0f;
/// 1980-01-01, FAT's earliest date: when something was put into the image is not part of the image.
const DATE: u16 = 0x21;

/// Files and directories by name.
#[derive(Debug, Default)]
pub struct FatDirectory<'a> {
    entries: BTreeMap<&'a str, Node<'a>>,
}

#[derive(Debug)]
enum Node<'a> {
    File(&'a [u8]),
    Directory(FatDirectory<'a>),
}

impl<'a> FatDirectory<'a> {
    /// Adds a file below this directory, and the directories on its way. Fails where a file is in
    /// the way.
    pub fn add(&mut self, path: &'a str, bytes: &'a [u8]) -> Result<(), String> {
        match path.split_once('/') {
            None => match self.entries.insert(path, Node::File(bytes)) {
                None => Ok(()),
                Some(_) => Err(format!("{path} is there twice")),
            },
            Some((name, rest)) => match self
                .entries
                .entry(name)
                .or_insert_with(|| Node::Directory(FatDirectory::default()))
            {
                Node::Directory(directory) => directory.add(rest, bytes),
                Node::File(_) => Err(format!("{name} is a file and a directory")),
            },
        }
    }
}

/// Where everything is.
#[derive(Debug, Clone, Copy)]
pub struct FatGeometry {
    sector: u64,
    sectors: u64,
    cluster_sectors: u64,
    fat_sectors: u64,
    /// Number of clusters.
    pub clusters: u64,
}

impl FatGeometry {
    /// For a volume of this many bytes. `cluster` is a multiple of `sector`, both in bytes.
    pub fn new(bytes: u64, sector: u32, cluster: u32) -> FatGeometry {
        let sector = u64::from(sector);
        let (sectors, cluster_sectors) = (bytes / sector, u64::from(cluster) / sector);
        // As many entries as there would be clusters without the FATs: some too many, never too
        // few.
        let fat_sectors = (((sectors - RESERVED) / cluster_sectors + 2) * 4).div_ceil(sector);
        let clusters = sectors.saturating_sub(RESERVED + FATS * fat_sectors) / cluster_sectors;
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

    fn place(&self, cluster: u32) -> u64 {
        (RESERVED + FATS * self.fat_sectors) * self.sector
            + u64::from(cluster - ROOT) * self.cluster_bytes()
    }
}

/// Writes the volume into an empty file that has its size already. `label` is in upper case, padded
/// with spaces. Gives the bytes from its start that are in use: behind them are only zeros.
pub fn write(
    out: &File,
    geometry: &FatGeometry,
    volume_id: u32,
    label: &[u8; 11],
    root: &FatDirectory,
) -> io::Result<u64> {
    let mut writer = Writer {
        out,
        geometry,
        fat: vec![0x0fff_fff8, END_OF_CHAIN],
    };
    writer.directory(root, None, Some(label))?;
    let used = (writer.fat.len() - 2) as u64;
    let mut fat: Vec<u8> = writer
        .fat
        .iter()
        .flat_map(|entry| entry.to_le_bytes())
        .collect();
    fat.resize(fat.len().next_multiple_of(geometry.sector as usize), 0);
    for number in 0..FATS {
        out.write_all_at(
            &fat,
            (RESERVED + number * geometry.fat_sectors) * geometry.sector,
        )?;
    }
    let (boot, information) = (
        boot_sector(geometry, volume_id, label),
        information_sector(geometry.clusters - used, used as u32 + ROOT),
    );
    for base in [0, BACKUP] {
        out.write_all_at(&boot, base * geometry.sector)?;
        out.write_all_at(&information, (base + 1) * geometry.sector)?;
    }
    Ok(geometry.place(writer.fat.len() as u32))
}

fn boot_sector(geometry: &FatGeometry, volume_id: u32, label: &[u8; 11]) -> [u8; 512] {
    let mut sector = [0; 512];
    let mut put = |at: usize, bytes: &[u8]| sector[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &[0xeb, 0x58, 0x90]);
    put(3, b"MSWIN4.1");
    put(11, &(geometry.sector as u16).to_le_bytes());
    put(13, &[geometry.cluster_sectors as u8]);
    put(14, &(RESERVED as u16).to_le_bytes());
    put(16, &[FATS as u8]);
    put(21, &[0xf8]);
    put(24, &63u16.to_le_bytes());
    put(26, &255u16.to_le_bytes());
    put(32, &(geometry.sectors as u32).to_le_bytes());
    put(36, &(geometry.fat_sectors as u32).to_le_bytes());
    put(44, &ROOT.to_le_bytes());
    put(48, &1u16.to_le_bytes());
    put(50, &(BACKUP as u16).to_le_bytes());
    put(64, &[0x80, 0, 0x29]);
    put(67, &volume_id.to_le_bytes());
    put(71, label);
    put(82, b"FAT32   ");
    put(510, &[0x55, 0xaa]);
    sector
}

fn information_sector(free: u64, next: u32) -> [u8; 512] {
    let mut sector = [0; 512];
    let mut put = |at: usize, value: u32| sector[at..at + 4].copy_from_slice(&value.to_le_bytes());
    put(0, 0x4161_5252);
    put(484, 0x6141_7272);
    put(488, free as u32);
    put(492, next);
    put(508, 0xaa55_0000);
    sector
}

struct Writer<'a> {
    out: &'a File,
    geometry: &'a FatGeometry,
    fat: Vec<u32>,
}

impl Writer<'_> {
    /// A chain of neighbouring clusters for so many bytes; `None` for none.
    fn chain(&mut self, bytes: usize) -> io::Result<Option<u32>> {
        let count = (bytes as u64).div_ceil(self.geometry.cluster_bytes());
        if (self.fat.len() as u64 - 2) + count > self.geometry.clusters {
            return Err(io::Error::other("the files need more clusters than it has"));
        }
        let first = self.fat.len() as u32;
        self.fat
            .extend((1..count as u32).map(|number| first + number));
        if count == 0 {
            return Ok(None);
        }
        self.fat.push(END_OF_CHAIN);
        Ok(Some(first))
    }

    /// Writes a directory and all below it, and gives its first cluster. The root's `..` does not
    /// exist, and is cluster 0 to its children.
    fn directory(
        &mut self,
        directory: &FatDirectory,
        parent: Option<u32>,
        label: Option<&[u8; 11]>,
    ) -> io::Result<u32> {
        let shorts = short_names(directory.entries.keys().copied())?;
        let own = usize::from(label.is_some()) + if label.is_none() { 2 } else { 0 };
        let slots: usize = own
            + directory
                .entries
                .keys()
                .zip(&shorts)
                .map(|(name, short)| 1 + long_entries(name, short).len() / ENTRY)
                .sum::<usize>();
        // One more: a directory that fills its clusters has no end mark, which is right, but
        // nothing that is read often.
        let first = self.chain((slots + 1) * ENTRY)?.unwrap_or(ROOT);
        let mut bytes = Vec::with_capacity((slots + 1) * ENTRY);
        if let Some(label) = label {
            bytes.extend_from_slice(&entry(label, VOLUME_LABEL, 0, 0));
        } else {
            bytes.extend_from_slice(&entry(b".          ", DIRECTORY, first, 0));
            bytes.extend_from_slice(&entry(b"..         ", DIRECTORY, parent.unwrap_or(0), 0));
        }
        let here = label.is_none().then_some(first);
        for ((name, node), short) in directory.entries.iter().zip(&shorts) {
            bytes.extend_from_slice(&long_entries(name, short));
            let (attribute, cluster, size) = match node {
                Node::Directory(below) => (DIRECTORY, self.directory(below, here, None)?, 0),
                Node::File(content) => {
                    let size = u32::try_from(content.len())
                        .map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
                    let cluster = self.chain(content.len())?;
                    if let Some(cluster) = cluster {
                        self.out
                            .write_all_at(content, self.geometry.place(cluster))?;
                    }
                    (ARCHIVE, cluster.unwrap_or(0), size)
                }
            };
            bytes.extend_from_slice(&entry(short, attribute, cluster, size));
        }
        self.out.write_all_at(&bytes, self.geometry.place(first))?;
        Ok(first)
    }
}

fn entry(name: &[u8; 11], attribute: u8, cluster: u32, size: u32) -> [u8; ENTRY] {
    let mut entry = [0; ENTRY];
    entry[..11].copy_from_slice(name);
    entry[11] = attribute;
    for at in [16, 18, 24] {
        entry[at..at + 2].copy_from_slice(&DATE.to_le_bytes());
    }
    entry[20..22].copy_from_slice(&((cluster >> 16) as u16).to_le_bytes());
    entry[26..28].copy_from_slice(&(cluster as u16).to_le_bytes());
    entry[28..].copy_from_slice(&size.to_le_bytes());
    entry
}

/// Names of eight and three upper-case letters, one for each long name: the same where it fits,
/// else its beginning and a number.
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
            io::Error::other(format!("{name}: too many files with names like it"))
        })?);
    }
    Ok(taken)
}

/// The entries that hold a long name, last part first; none where the short name says it all.
fn long_entries(name: &str, short: &[u8; 11]) -> Vec<u8> {
    let text = |part: &[u8]| String::from_utf8_lossy(part).trim_end().to_owned();
    let (base, extension) = (text(&short[..8]), text(&short[8..]));
    if name
        == if extension.is_empty() {
            base.clone()
        } else {
            format!("{base}.{extension}")
        }
    {
        return Vec::new();
    }
    let checksum = short
        .iter()
        .fold(0u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
    let mut units: Vec<u16> = name.encode_utf16().collect();
    if !units.len().is_multiple_of(UNITS) {
        units.push(0);
        units.resize(units.len().next_multiple_of(UNITS), 0xffff);
    }
    let parts: Vec<&[u16]> = units.chunks(UNITS).collect();
    let mut bytes = Vec::with_capacity(parts.len() * ENTRY);
    for (index, part) in parts.iter().enumerate().rev() {
        let mut entry = [0; ENTRY];
        entry[0] = (index + 1) as u8 | if index + 1 == parts.len() { 0x40 } else { 0 };
        entry[11] = LONG_NAME;
        entry[13] = checksum;
        let places = (1..11)
            .step_by(2)
            .chain((14..26).step_by(2))
            .chain([28, 30]);
        for (unit, at) in part.iter().zip(places) {
            entry[at..at + 2].copy_from_slice(&unit.to_le_bytes());
        }
        bytes.extend_from_slice(&entry);
    }
    bytes
}
