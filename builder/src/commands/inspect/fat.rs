//! Reads FAT file systems (Microsoft's FAT specification 1.03): 12, 16 and 32, by whoever made
//! them.
//!
//! Everything is hostile: chains that turn in circles, folders without end and sizes that lie end
//! in a reason, within bounds of time and memory.

use std::collections::HashSet;

use crate::io::part::Part;

/// More names than this are not looked at.
const MAX_ENTRIES: usize = 10_000;
/// Deeper folders are not entered.
const MAX_DEPTH: usize = 8;
/// Largest folder, bytes: FAT's own limit.
const MAX_FOLDER: u64 = 65_536 * 32;
const READ_ONLY: u8 = 0x01;
const VOLUME_LABEL: u8 = 0x08;
const DIRECTORY: u8 = 0x10;
const LONG_NAME: u8 = 0x0f;

/// A file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// With slashes, and none at its start; as it is written there.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Whether FAT's attribute says that it may not be changed.
    pub read_only: bool,
    cluster: u32,
}

/// A file system and where its parts are, in bytes.
pub struct Fat {
    part: Part,
    bits: u32,
    fat: u64,
    root: Root,
    data: u64,
    cluster: u64,
    clusters: u64,
}

#[derive(Clone, Copy)]
enum Root {
    Fixed { start: u64, bytes: u64 },
    Chain(u32),
}

impl Fat {
    /// Reads the boot sector.
    pub fn open(part: Part) -> Result<Fat, String> {
        let mut boot = [0; 512];
        part.read_exact_at(&mut boot, 0)
            .map_err(|e| format!("its boot sector can't be read: {e}"))?;
        let u16_at = |at: usize| u64::from(u16::from_le_bytes([boot[at], boot[at + 1]]));
        let u32_at = |at: usize| {
            u64::from(u32::from_le_bytes([
                boot[at],
                boot[at + 1],
                boot[at + 2],
                boot[at + 3],
            ]))
        };
        let or = |small: u64, large: u64| if small != 0 { small } else { large };
        let (sector, per_cluster, reserved, fats) = (
            u16_at(11),
            u64::from(boot[13]),
            u16_at(14),
            u64::from(boot[16]),
        );
        let (fixed, total, fat) = (
            u16_at(17) * 32,
            or(u16_at(19), u32_at(32)),
            or(u16_at(22), u32_at(36)),
        );
        let sane = boot[510..] == [0x55, 0xaa]
            && [512, 1024, 2048, 4096].contains(&sector)
            && per_cluster.is_power_of_two()
            && (1..=4).contains(&fats);
        if !sane || fat == 0 || reserved == 0 {
            return Err("no FAT".to_owned());
        }
        let root_start = (reserved + fats * fat) * sector;
        let data = root_start + fixed.next_multiple_of(sector);
        let cluster = per_cluster * sector;
        let bytes = total * sector;
        if bytes > part.len() || data > bytes {
            return Err(format!("FAT of {bytes} bytes in {}", part.len()));
        }
        let clusters = (bytes - data) / cluster;
        // Where the short field of the table's length is not used it is FAT32, as Linux sees it
        // too.
        let bits = match clusters {
            _ if u16_at(22) == 0 => 32,
            0..4085 => 12,
            _ => 16,
        };
        let root = if bits == 32 {
            Root::Chain(u32_at(44) as u32)
        } else {
            Root::Fixed {
                start: root_start,
                bytes: fixed,
            }
        };
        Ok(Fat {
            part,
            bits,
            fat: reserved * sector,
            root,
            data,
            cluster,
            clusters,
        })
    }

    /// 12, 16 or 32.
    pub fn bits(&self) -> u32 {
        self.bits
    }

    /// Every file, sorted by path.
    pub fn files(&self) -> Result<Vec<File>, String> {
        let mut files = Vec::new();
        let bytes = match self.root {
            Root::Fixed { start, bytes } => self.read_range(start, bytes)?,
            Root::Chain(first) => self.chain(first, MAX_FOLDER)?,
        };
        self.folder(&bytes, "", 0, &mut HashSet::new(), &mut files)?;
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(files)
    }

    /// A file's content, at most `limit` bytes of it.
    pub fn read(&self, file: &File, limit: u64) -> Result<Vec<u8>, String> {
        if file.size > limit {
            return Err(format!(
                "{} has {} bytes, more than {limit} are not read",
                file.path, file.size
            ));
        }
        if file.size == 0 {
            return Ok(Vec::new());
        }
        let mut bytes = self.chain(file.cluster, file.size)?;
        if (bytes.len() as u64) < file.size {
            return Err(format!("{} ends before its size", file.path));
        }
        bytes.truncate(file.size as usize);
        Ok(bytes)
    }

    fn folder(
        &self,
        bytes: &[u8],
        path: &str,
        depth: usize,
        seen: &mut HashSet<u32>,
        files: &mut Vec<File>,
    ) -> Result<(), String> {
        let mut long: Vec<(u8, Vec<u16>)> = Vec::new();
        for entry in bytes.chunks_exact(32) {
            match entry[0] {
                0 => return Ok(()),
                0xe5 => {
                    long.clear();
                    continue;
                }
                _ => {}
            }
            if entry[11] & 0x3f == LONG_NAME {
                let units = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30]
                    .map(|at| u16::from_le_bytes([entry[at], entry[at + 1]]));
                long.push((
                    entry[0] & 0x3f,
                    units.into_iter().take_while(|unit| *unit != 0).collect(),
                ));
                continue;
            }
            let parts = std::mem::take(&mut long);
            let short = short_name(entry);
            if entry[11] & VOLUME_LABEL != 0 || matches!(short.as_str(), "." | "..") {
                continue;
            }
            let path = format!("{path}{}", long_name(parts).unwrap_or(short));
            if files.len() + seen.len() >= MAX_ENTRIES {
                return Err(format!("more than {MAX_ENTRIES} names"));
            }
            let cluster = u32::from(u16::from_le_bytes([entry[20], entry[21]])) << 16
                | u32::from(u16::from_le_bytes([entry[26], entry[27]]));
            if entry[11] & DIRECTORY != 0 {
                if depth >= MAX_DEPTH || !seen.insert(cluster) {
                    return Err(format!("{path}: folders in folders without end"));
                }
                let bytes = self.chain(cluster, MAX_FOLDER)?;
                self.folder(&bytes, &format!("{path}/"), depth + 1, seen, files)?;
            } else {
                let size = u64::from(u32::from_le_bytes([
                    entry[28], entry[29], entry[30], entry[31],
                ]));
                files.push(File {
                    path,
                    size,
                    read_only: entry[11] & READ_ONLY != 0,
                    cluster,
                });
            }
        }
        Ok(())
    }

    /// The clusters of a chain, until `most` bytes are there.
    fn chain(&self, first: u32, most: u64) -> Result<Vec<u8>, String> {
        let (mut bytes, mut next) = (Vec::new(), first);
        // A chain that is longer than there are clusters turns in circles.
        for _ in 0..=self.clusters {
            let index = u64::from(next)
                .checked_sub(2)
                .filter(|index| *index < self.clusters)
                .ok_or("a chain leads out of the file system")?;
            bytes.extend(self.read_range(self.data + index * self.cluster, self.cluster)?);
            if bytes.len() as u64 >= most {
                return Ok(bytes);
            }
            match self.next(next)? {
                None => return Ok(bytes),
                Some(following) => next = following,
            }
        }
        Err("a chain turns in circles".to_owned())
    }

    fn next(&self, cluster: u32) -> Result<Option<u32>, String> {
        let at = u64::from(cluster) * u64::from(self.bits) / 8;
        let mut bytes = [0; 4];
        let length = if self.bits == 32 { 4 } else { 2 };
        self.part
            .read_exact_at(&mut bytes[..length], self.fat + at)
            .map_err(|e| e.to_string())?;
        let value = u32::from_le_bytes(bytes);
        let value = match self.bits {
            12 if cluster % 2 == 1 => value >> 4,
            12 => value & 0xfff,
            16 => value,
            _ => value & 0x0fff_ffff,
        };
        let end = match self.bits {
            12 => 0xff8,
            16 => 0xfff8,
            _ => 0x0fff_fff8,
        };
        Ok((value < end).then_some(value))
    }

    fn read_range(&self, at: u64, length: u64) -> Result<Vec<u8>, String> {
        let mut bytes = vec![0; usize::try_from(length).map_err(|e| e.to_string())?];
        self.part
            .read_exact_at(&mut bytes, at)
            .map_err(|e| e.to_string())?;
        Ok(bytes)
    }
}

fn long_name(mut parts: Vec<(u8, Vec<u16>)>) -> Option<String> {
    parts.sort_by_key(|(number, _)| *number);
    let units: Vec<u16> = parts.into_iter().flat_map(|(_, units)| units).collect();
    (!units.is_empty()).then(|| String::from_utf16_lossy(&units))
}

/// Eight and three; the flags for lower case are Windows' own, and Linux heeds them.
fn short_name(entry: &[u8]) -> String {
    let half = |bytes: &[u8], lower: bool| {
        let text: String = bytes
            .iter()
            .map(|b| char::from(*b))
            .collect::<String>()
            .trim_end()
            .to_owned();
        if lower {
            text.to_ascii_lowercase()
        } else {
            text
        }
    };
    let (name, extension) = (
        half(&entry[..8], entry[12] & 0x08 != 0),
        half(&entry[8..11], entry[12] & 0x10 != 0),
    );
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

    /// Made and filled by dosfstools and mtools.
    #[test]
    fn what_others_wrote_is_read_in_all_three_kinds() {
        let folder = std::env::temp_dir().join(format!("adamant-fat-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
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
            let fat =
                Fat::open(Part::whole(std::fs::File::open(&image).unwrap()).unwrap()).unwrap();
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
                (fat.bits(), fat.read(&files[0], 1 << 20).unwrap()),
                (bits, std::fs::read(content).unwrap())
            );
            assert!(fat.read(&files[0], 1000).is_err());
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
