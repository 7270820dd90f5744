//! Reads FAT12, FAT16 and FAT32 file systems, whatever program made them.
//!
//! The volume is hostile input: loops of clusters, endless directories and wrong sizes end in an
//! error, within bounds of time and memory.

use std::collections::HashSet;

use zerocopy::{FromBytes, FromZeros, IntoBytes, transmute_ref};

use super::format::{
    BOOT_SIGNATURE, BootSector, DirEntry, ENTRY, FIRST_CLUSTER, LONG_ORDER_MASK, LongNameEntry,
    attr, free, nt_res,
};
use crate::io::part::Part;

/// Largest number of files and directories that are listed.
const MAX_ENTRIES: usize = 10_000;
/// Largest depth of directories.
const MAX_DEPTH: usize = 8;
/// Largest directory, bytes: FAT's own limit.
const MAX_DIRECTORY: u64 = 65_536 * ENTRY as u64;

/// A file of the volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FatFile {
    /// Path with slashes between the names and none at its start, in the case of the volume.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// Whether the read-only attribute is set.
    pub read_only: bool,
    cluster: u32,
}

/// Width of an entry of the file allocation table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FatKind {
    /// 12 bits.
    Fat12,
    /// 16 bits.
    Fat16,
    /// 32 bits, of which 28 are used.
    Fat32,
}

impl FatKind {
    /// The number in the kind's name.
    pub fn bits(self) -> u32 {
        match self {
            FatKind::Fat12 => 12,
            FatKind::Fat16 => 16,
            FatKind::Fat32 => 32,
        }
    }

    /// Smallest value that ends a chain of clusters.
    fn end_of_chain(self) -> u32 {
        match self {
            FatKind::Fat12 => 0xff8,
            FatKind::Fat16 => 0xfff8,
            FatKind::Fat32 => 0x0fff_fff8,
        }
    }
}

/// An open volume. Offsets and sizes are in bytes.
pub struct FatReader {
    part: Part,
    kind: FatKind,
    fat_offset: u64,
    root: RootDirectory,
    data_offset: u64,
    cluster_size: u64,
    clusters: u64,
}

#[derive(Clone, Copy)]
enum RootDirectory {
    /// FAT12 and FAT16: a fixed area.
    Area { offset: u64, size: u64 },
    /// FAT32: a chain of clusters.
    Chain(u32),
}

impl FatReader {
    /// Reads the boot sector.
    pub fn open(part: Part) -> Result<FatReader, String> {
        let mut boot = BootSector::new_zeroed();
        part.read_exact_at(boot.as_mut_bytes(), 0)
            .map_err(|e| format!("reading its boot sector: {e}"))?;
        let or = |small: u16, large: u32| {
            if small == 0 {
                u64::from(large)
            } else {
                u64::from(small)
            }
        };
        let (sector, per_cluster, reserved, fats) = (
            u64::from(boot.byts_per_sec.get()),
            u64::from(boot.sec_per_clus),
            u64::from(boot.rsvd_sec_cnt.get()),
            u64::from(boot.num_fats),
        );
        let root_size = u64::from(boot.root_ent_cnt.get()) * ENTRY as u64;
        let sectors = or(boot.tot_sec16.get(), boot.tot_sec32.get());
        let fat_sectors = or(boot.fat_sz16.get(), boot.fat_sz32.get());
        let sane = boot.signature == BOOT_SIGNATURE
            && [512, 1024, 2048, 4096].contains(&sector)
            && per_cluster.is_power_of_two()
            && (1..=4).contains(&fats);
        if !sane || fat_sectors == 0 || reserved == 0 {
            return Err("not a FAT file system".to_owned());
        }
        let root_offset = (reserved + fats * fat_sectors) * sector;
        let data_offset = root_offset + root_size.next_multiple_of(sector);
        let cluster_size = per_cluster * sector;
        let size = sectors * sector;
        if size > part.len() || data_offset > size {
            return Err(format!(
                "a FAT file system of {size} bytes in a partition of {}",
                part.len()
            ));
        }
        let clusters = (size - data_offset) / cluster_size;
        // Linux also takes a volume for FAT32 if the 16-bit size of the FAT is 0.
        let kind = match clusters {
            _ if boot.fat_sz16.get() == 0 => FatKind::Fat32,
            0..4085 => FatKind::Fat12,
            _ => FatKind::Fat16,
        };
        let root = if kind == FatKind::Fat32 {
            RootDirectory::Chain(boot.root_clus.get())
        } else {
            RootDirectory::Area {
                offset: root_offset,
                size: root_size,
            }
        };
        Ok(FatReader {
            part,
            kind,
            fat_offset: reserved * sector,
            root,
            data_offset,
            cluster_size,
            clusters,
        })
    }

    /// The kind of the volume.
    pub fn kind(&self) -> FatKind {
        self.kind
    }

    /// Every file, sorted by path.
    pub fn files(&self) -> Result<Vec<FatFile>, String> {
        let mut files = Vec::new();
        let bytes = match self.root {
            RootDirectory::Area { offset, size } => self.read_range(offset, size)?,
            RootDirectory::Chain(first) => self.read_chain(first, MAX_DIRECTORY)?,
        };
        self.list_directory(&bytes, "", 0, &mut HashSet::new(), &mut files)?;
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(files)
    }

    /// A file's content. Fails if it has more than `limit` bytes.
    pub fn read(&self, file: &FatFile, limit: u64) -> Result<Vec<u8>, String> {
        if file.size > limit {
            return Err(format!(
                "{} has {} bytes, more than the {limit} that are read",
                file.path, file.size
            ));
        }
        if file.size == 0 {
            return Ok(Vec::new());
        }
        let mut bytes = self.read_chain(file.cluster, file.size)?;
        if (bytes.len() as u64) < file.size {
            return Err(format!("{} ends before its size", file.path));
        }
        bytes.truncate(file.size as usize);
        Ok(bytes)
    }

    /// Adds the files of a directory and of those below it. `seen` has the first clusters of the
    /// directories that were entered.
    fn list_directory(
        &self,
        bytes: &[u8],
        path: &str,
        depth: usize,
        seen: &mut HashSet<u32>,
        files: &mut Vec<FatFile>,
    ) -> Result<(), String> {
        let mut long: Vec<(u8, Vec<u16>)> = Vec::new();
        let (entries, _) = <[DirEntry]>::ref_from_prefix_with_elems(bytes, bytes.len() / ENTRY)
            .map_err(|_| format!("{path}: not a directory"))?;
        for entry in entries {
            match entry.name[0] {
                free::END => return Ok(()),
                free::DELETED => {
                    long.clear();
                    continue;
                }
                _ => {}
            }
            if entry.attr & attr::LONG_NAME_MASK == attr::LONG_NAME {
                let part: &LongNameEntry = transmute_ref!(entry);
                long.push((
                    part.ord & LONG_ORDER_MASK,
                    part.units().take_while(|unit| *unit != 0).collect(),
                ));
                continue;
            }
            let parts = std::mem::take(&mut long);
            let short = short_name(entry);
            if entry.attr & attr::VOLUME_ID != 0 || matches!(short.as_str(), "." | "..") {
                continue;
            }
            let path = format!("{path}{}", long_name(parts).unwrap_or(short));
            if files.len() + seen.len() >= MAX_ENTRIES {
                return Err(format!("more than {MAX_ENTRIES} files and directories"));
            }
            let cluster = entry.first_cluster();
            if entry.attr & attr::DIRECTORY != 0 {
                if depth >= MAX_DEPTH {
                    return Err(format!("{path}: more than {MAX_DEPTH} directories deep"));
                }
                if !seen.insert(cluster) {
                    return Err(format!("{path}: a loop of directories"));
                }
                let bytes = self.read_chain(cluster, MAX_DIRECTORY)?;
                self.list_directory(&bytes, &format!("{path}/"), depth + 1, seen, files)?;
            } else {
                files.push(FatFile {
                    path,
                    size: u64::from(entry.file_size.get()),
                    read_only: entry.attr & attr::READ_ONLY != 0,
                    cluster,
                });
            }
        }
        Ok(())
    }

    /// The content of a chain of clusters, up to the cluster that reaches `limit` bytes.
    fn read_chain(&self, first: u32, limit: u64) -> Result<Vec<u8>, String> {
        let (mut bytes, mut next) = (Vec::new(), first);
        // A chain that has more links than the volume has clusters is a loop.
        for _ in 0..=self.clusters {
            let index = u64::from(next)
                .checked_sub(u64::from(FIRST_CLUSTER))
                .filter(|index| *index < self.clusters)
                .ok_or("a chain of clusters leads out of the file system")?;
            let offset = self.data_offset + index * self.cluster_size;
            bytes.extend(self.read_range(offset, self.cluster_size)?);
            if bytes.len() as u64 >= limit {
                return Ok(bytes);
            }
            match self.next_cluster(next)? {
                None => return Ok(bytes),
                Some(following) => next = following,
            }
        }
        Err("a loop of clusters".to_owned())
    }

    /// The cluster that follows another in its chain; `None` after the last.
    fn next_cluster(&self, cluster: u32) -> Result<Option<u32>, String> {
        let offset = u64::from(cluster) * u64::from(self.kind.bits()) / 8;
        let mut bytes = [0; 4];
        let length = if self.kind == FatKind::Fat32 { 4 } else { 2 };
        self.part
            .read_exact_at(&mut bytes[..length], self.fat_offset + offset)
            .map_err(|e| e.to_string())?;
        let value = u32::from_le_bytes(bytes);
        // Two entries of FAT12 share three bytes.
        let value = match self.kind {
            FatKind::Fat12 if cluster % 2 == 1 => value >> 4,
            FatKind::Fat12 => value & 0xfff,
            FatKind::Fat16 => value,
            FatKind::Fat32 => value & 0x0fff_ffff,
        };
        Ok((value < self.kind.end_of_chain()).then_some(value))
    }

    fn read_range(&self, offset: u64, length: u64) -> Result<Vec<u8>, String> {
        let mut bytes = vec![0; usize::try_from(length).map_err(|e| e.to_string())?];
        self.part
            .read_exact_at(&mut bytes, offset)
            .map_err(|e| e.to_string())?;
        Ok(bytes)
    }
}

fn long_name(mut parts: Vec<(u8, Vec<u16>)>) -> Option<String> {
    parts.sort_by_key(|(number, _)| *number);
    let units: Vec<u16> = parts.into_iter().flat_map(|(_, units)| units).collect();
    (!units.is_empty()).then(|| String::from_utf16_lossy(&units))
}

/// The short name of an entry, with the lower case that [`nt_res`] marks.
fn short_name(entry: &DirEntry) -> String {
    let half = |bytes: &[u8], lower: bool| {
        let text: String = bytes.iter().map(|b| char::from(*b)).collect();
        let text = text.trim_end();
        if lower {
            text.to_ascii_lowercase()
        } else {
            text.to_owned()
        }
    };
    let (name, extension) = entry.name.split_at(8);
    let name = half(name, entry.nt_res & nt_res::LOWER_NAME != 0);
    let extension = half(extension, entry.nt_res & nt_res::LOWER_EXTENSION != 0);
    if extension.is_empty() {
        name
    } else {
        format!("{name}.{extension}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use adamant_skip::skip;
    use std::process::Command;

    #[test]
    fn reads_fat12_fat16_and_fat32_volumes_of_dosfstools() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = scratch.path();
        let (image, content) = (folder.join("fat"), folder.join("content"));
        std::fs::write(
            &content,
            (0..70_000u32)
                .flat_map(u32::to_le_bytes)
                .collect::<Vec<u8>>(),
        )
        .unwrap();
        for (bits, size) in [(12, 4u64 << 20), (16, 40 << 20), (32, 80 << 20)] {
            std::fs::File::create(&image)
                .unwrap()
                .set_len(size)
                .unwrap();
            let run = |program: &str, arguments: &[&str]| {
                Command::new(program)
                    .args(arguments)
                    .output()
                    .is_ok_and(|output| output.status.success() || panic!("{program}: {output:?}"))
            };
            let (image_name, content) = (image.to_str().unwrap(), content.to_str().unwrap());
            if !run("mkfs.vfat", &["-F", &bits.to_string(), image_name])
                || !run("mmd", &["-i", image_name, "::EFI", "::EFI/Linux"])
            {
                skip!(Program("mkfs.vfat or mmd"));
            }
            run(
                "mcopy",
                &[
                    "-i",
                    image_name,
                    content,
                    "::EFI/Linux/name-that-is-long_1+3-0.efi",
                ],
            );
            run("mcopy", &["-i", image_name, content, "::SHORT.TXT"]);
            run("mattrib", &["-i", image_name, "+r", "::SHORT.TXT"]);
            let fat = FatReader::open(Part::whole(std::fs::File::open(&image).unwrap()).unwrap())
                .unwrap();
            let files = fat.files().unwrap();
            let seen: Vec<_> = files
                .iter()
                .map(|f| (f.path.as_str(), f.size, f.read_only))
                .collect();
            assert_eq!(
                seen,
                [
                    ("EFI/Linux/name-that-is-long_1+3-0.efi", 280_000, false),
                    ("SHORT.TXT", 280_000, true)
                ],
                "FAT{bits}"
            );
            assert_eq!(
                (fat.kind().bits(), fat.read(&files[0], 1 << 20).unwrap()),
                (bits, std::fs::read(content).unwrap())
            );
            assert!(fat.read(&files[0], 1000).is_err());
        }
    }
}
