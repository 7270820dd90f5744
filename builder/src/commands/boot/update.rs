//! Writes another version of an image into a persisted machine's disk: root, hash tree and
//! signature into a slot, the programs into the EFI system partition. Volumes, black box and all
//! other partitions are unchanged.
//!
//! The result is a copy; the old disk is only read.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use adamant_contract::blackbox;
use adamant_contract::gpt::{
    self, ATTR_READ_ONLY, EFI_SYSTEM, Guid, Partition, PartitionTable, ROOT_VERITY_SIG_X86_64,
    ROOT_VERITY_X86_64, ROOT_X86_64,
};
use adamant_contract::root_hash::RootHash;
use nix::fcntl::{FallocateFlags, copy_file_range, fallocate};

use crate::commands::selection::Selection;
use crate::disk::esp::{self, EspEntry};
use crate::disk::fat::read::{FatFile, FatReader};
use crate::disk::{EMPTY, derived_guid, open_table};
use crate::error::{Context, Error, Result};
use crate::io::part::Part;
use crate::io::zeros;
use crate::version;

/// Bytes copied at a time.
const CHUNK: u64 = 4 << 20;
/// Largest file that is read from an EFI system partition, bytes.
const FILE_LIMIT: u64 = 512 << 20;

/// A disk and its partition table.
struct PartitionedDisk {
    file: File,
    name: String,
    table: PartitionTable,
}

/// Numbers of a slot's partitions in the table.
#[derive(Debug, Clone, Copy)]
struct DiskSlot {
    root: usize,
    tree: Option<usize>,
    signature: Option<usize>,
}

impl PartitionedDisk {
    fn open(path: &Path, write: bool) -> Result<PartitionedDisk> {
        let name = path.display().to_string();
        let file = File::options()
            .read(true)
            .write(write)
            .open(path)
            .context(|| name.clone())?;
        let (_, found) = open_table(path, &file)?;
        Ok(PartitionedDisk {
            file,
            name,
            table: found.table,
        })
    }

    fn partitions(&self, kind: Guid) -> Vec<usize> {
        let is = |(number, partition): (usize, &Option<Partition>)| {
            partition
                .as_ref()
                .filter(|partition| partition.kind == kind)
                .map(|_| number)
        };
        self.table
            .partitions
            .iter()
            .enumerate()
            .filter_map(is)
            .collect()
    }

    /// The slots. The n-th root, hash tree and signature belong together.
    fn slots(&self) -> Vec<DiskSlot> {
        let (trees, signatures) = (
            self.partitions(ROOT_VERITY_X86_64),
            self.partitions(ROOT_VERITY_SIG_X86_64),
        );
        let slot = |(at, root): (usize, usize)| DiskSlot {
            root,
            tree: trees.get(at).copied(),
            signature: signatures.get(at).copied(),
        };
        self.partitions(ROOT_X86_64)
            .into_iter()
            .enumerate()
            .map(slot)
            .collect()
    }

    fn get(&self, number: usize) -> Option<&Partition> {
        self.table.partitions.get(number)?.as_ref()
    }

    fn label(&self, number: usize) -> &str {
        self.get(number).map_or("", |partition| &partition.label)
    }

    /// The range of the partition on the disk, bytes.
    fn range(&self, number: usize) -> Range<u64> {
        let sector = u64::from(self.table.sector);
        self.get(number).map_or(0..0, |partition| {
            partition.first.saturating_mul(sector)
                ..(partition.last.saturating_add(1)).saturating_mul(sector)
        })
    }

    fn bytes(&self, number: Option<usize>) -> u64 {
        number.map_or(0, |number| {
            self.range(number).end - self.range(number).start
        })
    }

    /// The slot whose PARTUUIDs contain this root hash.
    fn slot_of(&self, hash: &RootHash) -> Option<DiskSlot> {
        let has = |number: Option<usize>, id: Guid| {
            number
                .and_then(|number| self.get(number))
                .is_some_and(|partition| partition.id == id)
        };
        self.slots().into_iter().find(|slot| {
            has(Some(slot.root), hash.data_partuuid()) && has(slot.tree, hash.tree_partuuid())
        })
    }

    /// All files of the EFI system partition.
    fn esp_files(&self, number: usize) -> Result<Vec<EspEntry>> {
        let wrong = |why: String| Error::new(format!("{}: EFI system partition: {why}", self.name));
        let range = self.range(number);
        let file = self.file.try_clone().context(|| self.name.clone())?;
        let part = Part::range(file.into(), range.start, range.end - range.start)
            .ok_or_else(|| wrong("its offset and size exceed 64 bits".to_owned()))?;
        let fat = FatReader::open(part).map_err(wrong)?;
        let entry = |file: &FatFile| {
            Ok(EspEntry {
                path: file.path.clone(),
                bytes: fat.read(file, FILE_LIMIT).map_err(wrong)?,
            })
        };
        fat.files().map_err(wrong)?.iter().map(entry).collect()
    }
}

/// The versions in a disk's slots, for messages.
pub fn versions(disk: &Path) -> Result<Vec<String>> {
    let disk = PartitionedDisk::open(disk, false)?;
    Ok(disk
        .slots()
        .iter()
        .map(|slot| disk.label(slot.root))
        .filter(|label| *label != EMPTY)
        .map(|label| version_of(label).to_owned())
        .collect())
}

/// Writes the selected image into `new`, a copy of the disk `old`. Returns `false`, and writes
/// nothing, if the disk already has the image.
pub fn write_version(old: &Path, new: &Path, selection: &Selection) -> Result<bool> {
    let hash: RootHash = selection.manifest.root.hash.parse().map_err(|why| {
        Error::new(format!(
            "{}: root.hash: {why}",
            selection.manifest_path().display()
        ))
    })?;
    let raw = selection.artifact("raw").ok_or_else(|| {
        Error::new(format!(
            "{}: this image has no disk",
            selection.manifest_path().display()
        ))
    })?;
    let (image, disk) = (
        PartitionedDisk::open(&raw, false)?,
        PartitionedDisk::open(old, false)?,
    );
    let source = image.slot_of(&hash).ok_or_else(|| {
        Error::new(format!(
            "{}: no partition contains the root {hash}",
            image.name
        ))
        .hint("build the image again")
    })?;
    let (image_esp, disk_esp) = (
        image.partitions(EFI_SYSTEM).first().copied(),
        disk.partitions(EFI_SYSTEM).first().copied(),
    );
    let present = disk.slot_of(&hash);
    let stem = selection.stem();
    let target = present
        .or_else(|| choose_slot(&disk, &stem))
        .ok_or_else(|| Error::new(format!("{}: has no slot for a root", disk.name)))?;
    let esp = match (image_esp, disk_esp) {
        (Some(theirs), Some(ours)) => {
            let others = disk
                .slots()
                .into_iter()
                .filter(|slot| slot.root != target.root);
            let labels: Vec<&str> = others.map(|slot| disk.label(slot.root)).collect();
            Some((
                ours,
                merged(
                    &image.esp_files(theirs)?,
                    disk.esp_files(ours)?,
                    &labels,
                    &selection.manifest.image.id,
                    &stem,
                ),
            ))
        }
        _ => None,
    };
    let esp_is_current = esp.as_ref().is_none_or(|(_, merged)| !merged.changed);
    if present.is_some() && esp_is_current {
        return Ok(false);
    }
    // Bytes of root, hash tree and signature. The signature fills its partition.
    let root = &selection.manifest.root;
    let used = [
        root.blocks.saturating_mul(4096),
        root.tree_blocks.saturating_mul(4096),
        image.bytes(source.signature),
    ];
    refuse_what_does_not_fit(&image, source, used, &disk, target, &stem)?;
    if image_esp.is_some() && disk_esp.is_none() {
        log::warn!(
            "{}: has no EFI system partition, so --uefi can't start it",
            disk.name
        );
    }

    let mut copy = PartitionedDisk {
        file: copy_disk(old, new)?,
        name: new.display().to_string(),
        ..disk
    };
    let what = |name: &str| format!("{name}: writing {stem} into it");
    for ((from, to), used) in pairs(source, target).into_iter().zip(used) {
        let Some(to) = to else { continue };
        let range = copy.range(to);
        clear(&copy.file, range.clone()).context(|| what(&copy.name))?;
        if let Some(from) = from {
            let start = image.range(from).start;
            copy_range(
                &image.file,
                start..start.saturating_add(used),
                &copy.file,
                range.start,
            )
            .context(|| what(&copy.name))?;
        }
        let theirs = from.and_then(|from| image.get(from)).cloned();
        if let Some(partition) = copy.table.partitions.get_mut(to).and_then(Option::as_mut) {
            match theirs {
                Some(theirs) => {
                    *partition = Partition {
                        first: partition.first,
                        last: partition.last,
                        attributes: ATTR_READ_ONLY,
                        ..theirs
                    }
                }
                None => partition.label = EMPTY.to_owned(),
            }
        }
    }
    if let Some((number, merged)) = esp {
        write_esp(&copy, number, merged, &selection.manifest.image.id, new)?;
    }
    gpt::disk::write_table(&mut copy.file, &copy.table).context(|| what(&copy.name))?;
    Ok(true)
}

/// Pairs of partitions: the image's, and the disk's that receives its content.
fn pairs(source: DiskSlot, target: DiskSlot) -> [(Option<usize>, Option<usize>); 3] {
    [
        (Some(source.root), Some(target.root)),
        (source.tree, target.tree),
        (source.signature, target.signature),
    ]
}

/// Chooses the slot to overwrite: one with the same version (of another build), an empty one, or
/// the one with the oldest version, in this order.
fn choose_slot(disk: &PartitionedDisk, stem: &str) -> Option<DiskSlot> {
    let slots = disk.slots();
    let labelled = |wanted: &str| {
        slots
            .iter()
            .find(|slot| disk.label(slot.root) == wanted)
            .copied()
    };
    let oldest = || {
        slots
            .iter()
            .min_by(|a, b| {
                version::compare(
                    version_of(disk.label(a.root)),
                    version_of(disk.label(b.root)),
                )
            })
            .copied()
    };
    labelled(stem).or_else(|| labelled(EMPTY)).or_else(oldest)
}

/// `VERSION` of `ID_VERSION`.
fn version_of(label: &str) -> &str {
    label.rsplit_once('_').map_or(label, |(_, version)| version)
}

/// Fails with all reasons why the image does not fit, before anything is copied.
fn refuse_what_does_not_fit(
    image: &PartitionedDisk,
    source: DiskSlot,
    used: [u64; 3],
    disk: &PartitionedDisk,
    target: DiskSlot,
    stem: &str,
) -> Result<()> {
    let mut faults = Vec::new();
    if image.table.sector != disk.table.sector {
        faults.push(format!(
            "it is for sectors of {} bytes, the disk's have {}",
            image.table.sector, disk.table.sector
        ));
    }
    for (((from, to), used), name) in
        pairs(source, target)
            .into_iter()
            .zip(used)
            .zip(["root", "hash tree", "signature"])
    {
        if from.is_none() {
            continue;
        }
        let room = disk.bytes(to);
        if to.is_none() {
            faults.push(format!("the disk has no partition for the {name}"));
        } else if used > room {
            faults.push(format!(
                "the {name} has {}, its partition {}",
                mib(used),
                mib(room)
            ));
        }
    }
    let is_volume = |partition: &&Partition| {
        ![
            EFI_SYSTEM,
            ROOT_X86_64,
            ROOT_VERITY_X86_64,
            ROOT_VERITY_SIG_X86_64,
            blackbox::PARTITION_TYPE,
        ]
        .contains(&partition.kind)
    };
    for volume in image.table.partitions.iter().flatten().filter(is_volume) {
        if !disk
            .table
            .partitions
            .iter()
            .flatten()
            .any(|ours| ours.label == volume.label)
        {
            faults.push(format!(
                "the disk has no partition for the volume {}",
                volume.label
            ));
        }
    }
    if faults.is_empty() {
        return Ok(());
    }
    Err(Error::new(format!("{}: {stem} does not fit into the persisted machine: {}", disk.name, faults.join("; ")))
        .hint("delete the machine and its volumes with `adamant boot --reset`, or start the version that it has with OUT@VERSION"))
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// The new files of an EFI system partition. Those in `older` are optional if room is short.
struct Merged {
    entries: Vec<EspEntry>,
    /// Unified kernel images of the older versions in other slots.
    older: Vec<EspEntry>,
    changed: bool,
}

/// Merges the image's files with the disk's. The image's files replace those with the same names. A
/// unified kernel image of another version stays if it is older, because the boot loader starts the
/// newest, and if its root is in another slot: `labels` has their labels.
fn merged(
    image: &[EspEntry],
    disk: Vec<EspEntry>,
    labels: &[&str],
    id: &str,
    stem: &str,
) -> Merged {
    let mut merged = Merged {
        entries: image.to_vec(),
        older: Vec::new(),
        changed: false,
    };
    let mut ours = Vec::new();
    for entry in disk {
        let unified = unified_stem(&entry.path, id);
        let same = |theirs: &&EspEntry| theirs.path.eq_ignore_ascii_case(&entry.path);
        if unified.as_deref() == Some(stem) {
            // The boot loader counts tries in its name. The file keeps its name if its content is
            // the same.
            let theirs = merged
                .entries
                .iter_mut()
                .find(|theirs| unified_stem(&theirs.path, id).as_deref() == Some(stem));
            match theirs {
                Some(theirs) if theirs.bytes == entry.bytes => theirs.path.clone_from(&entry.path),
                _ => merged.changed = true,
            }
            ours.push(entry.path);
        } else if let Some(other) = unified {
            let older = version::compare(version_of(&other), version_of(stem)).is_lt()
                && labels.contains(&other.as_str());
            if older {
                merged.older.push(entry)
            } else {
                merged.changed = true
            }
        } else if let Some(theirs) = image.iter().find(same) {
            merged.changed |= theirs.bytes != entry.bytes;
            ours.push(entry.path);
        } else {
            merged.entries.push(entry);
        }
    }
    merged.changed |= image.iter().any(|theirs| {
        unified_stem(&theirs.path, id).is_none()
            && !ours
                .iter()
                .any(|path| path.eq_ignore_ascii_case(&theirs.path))
    });
    merged.changed |= !ours
        .iter()
        .any(|path| unified_stem(path, id).as_deref() == Some(stem));
    merged
}

/// `ID_VERSION` of a unified kernel image of this id, without the boot counter (`+3-0`).
fn unified_stem(path: &str, id: &str) -> Option<String> {
    let (folder, name) = path.rsplit_once('/')?;
    let stem = name.strip_suffix(".efi")?;
    let stem = stem.rsplit_once('+').map_or(stem, |(stem, _)| stem);
    (folder.eq_ignore_ascii_case(esp::IMAGES)
        && stem.rsplit_once('_').is_some_and(|(found, _)| found == id))
    .then(|| stem.to_owned())
}

/// Writes a new file system with these files into the EFI system partition.
fn write_esp(
    copy: &PartitionedDisk,
    number: usize,
    mut merged: Merged,
    id: &str,
    beside: &Path,
) -> Result<()> {
    let range = copy.range(number);
    let size = range.end - range.start;
    // Newest first: the machine falls back to the newest of the older images.
    merged
        .older
        .sort_by(|a, b| version::compare(version_of(&b.path), version_of(&a.path)));
    let path = beside.with_extension("esp");
    let what = || path.display().to_string();
    loop {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            .context(what)?;
        let _ = std::fs::remove_file(&path);
        let entries: Vec<EspEntry> = merged
            .entries
            .iter()
            .chain(&merged.older)
            .cloned()
            .collect();
        match esp::write(
            &file,
            size,
            copy.table.sector,
            &derived_guid(id, "esp"),
            &entries,
        ) {
            Ok(_) => {
                clear(&copy.file, range.clone()).context(|| copy.name.clone())?;
                return copy_range(&file, 0..size, &copy.file, range.start)
                    .context(|| copy.name.clone());
            }
            Err(error) if merged.older.pop().is_none() => {
                return Err(error).context(|| copy.name.clone());
            }
            Err(_) => {}
        }
    }
}

/// Copies a disk and its holes.
pub fn copy_disk(from: &Path, to: &Path) -> Result<File> {
    let source = File::open(from).context(|| from.display().to_string())?;
    let what = || to.display().to_string();
    let target = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(to)
        .context(what)?;
    let len = source
        .metadata()
        .context(|| from.display().to_string())?
        .len();
    target.set_len(len).context(what)?;
    let copied = copy_range(&source, 0..len, &target, 0);
    if copied.is_err() {
        // An incomplete copy is useless.
        let _ = std::fs::remove_file(to);
    }
    copied.context(what)?;
    Ok(target)
}

/// Copies the data of a range to an offset of another file, without the holes. File systems that
/// can share blocks do so.
fn copy_range(from: &File, range: Range<u64>, to: &File, offset: u64) -> std::io::Result<()> {
    let mut at = range.start;
    while let Some(data) = zeros::next_data(from, at, range.end)? {
        at = data.start;
        while at < data.end {
            let take = (data.end - at).min(CHUNK);
            let (mut source, mut target) = (at as i64, (offset + at - range.start) as i64);
            at += match copy_file_range(
                from,
                Some(&mut source),
                to,
                Some(&mut target),
                take as usize,
            ) {
                Ok(copied) if copied > 0 => copied as u64,
                Err(nix::errno::Errno::ENOSPC) => {
                    return Err(std::io::ErrorKind::StorageFull.into());
                }
                // The kernel or the file system does not support it.
                _ => {
                    let mut buffer = vec![0; take as usize];
                    from.read_exact_at(&mut buffer, at)?;
                    to.write_all_at(&buffer, offset + at - range.start)?;
                    take
                }
            };
        }
    }
    Ok(())
}

/// Fills a range with zeros, as a hole if possible.
fn clear(file: &File, range: Range<u64>) -> std::io::Result<()> {
    let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    if range.is_empty()
        || fallocate(
            file,
            hole,
            range.start as i64,
            (range.end - range.start) as i64,
        )
        .is_ok()
    {
        return Ok(());
    }
    let zeros = vec![0; CHUNK as usize];
    let mut at = range.start;
    while at < range.end {
        let take = (range.end - at).min(CHUNK);
        file.write_all_at(&zeros[..take as usize], at)?;
        at += take;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, bytes: &str) -> EspEntry {
        EspEntry {
            path: path.to_owned(),
            bytes: bytes.as_bytes().to_vec(),
        }
    }

    fn image(version: &str) -> Vec<EspEntry> {
        vec![
            entry(esp::LOADER, "loader"),
            entry("loader/loader.conf", "x"),
            entry(&format!("EFI/Linux/web_{version}+3-0.efi"), version),
        ]
    }

    /// The paths after the merge, and whether anything changes.
    fn paths(new: &str, on_disk: Vec<EspEntry>, labels: &[&str]) -> (Vec<String>, bool) {
        let merged = merged(&image(new), on_disk, labels, "web", &format!("web_{new}"));
        let mut paths: Vec<String> = merged
            .entries
            .iter()
            .chain(&merged.older)
            .map(|entry| entry.path.clone())
            .collect();
        paths.sort();
        (paths, merged.changed)
    }

    #[test]
    fn the_new_version_becomes_the_newest_and_foreign_files_stay() {
        let labels = ["web_1", "_empty"];
        let (all, changed) = paths(
            "2",
            [
                image("1"),
                vec![
                    entry("loader/random-seed", "r"),
                    entry("EFI/Linux/db_9.efi", "d"),
                ],
            ]
            .concat(),
            &labels,
        );
        let others = ["EFI/BOOT/BOOTX64.EFI", "EFI/Linux/db_9.efi"];
        assert_eq!(
            all,
            [
                others[0],
                others[1],
                "EFI/Linux/web_1+3-0.efi",
                "EFI/Linux/web_2+3-0.efi",
                "loader/loader.conf",
                "loader/random-seed"
            ]
        );
        assert!(changed);
        // A downgrade removes the newer image, which the boot loader would start.
        let (all, changed) = paths(
            "1",
            [image("1"), image("2")[2..].to_vec()].concat(),
            &["web_2", "web_1"],
        );
        assert!(
            changed && !all.iter().any(|path| path.contains("web_2")),
            "{all:?}"
        );
        // A version whose slot is overwritten can't start.
        let (all, _) = paths("3", image("1"), &["web_2", "web_3"]);
        assert!(!all.iter().any(|path| path.contains("web_1")), "{all:?}");
    }

    #[test]
    fn a_counted_try_alone_changes_nothing() {
        let mut on_disk = image("1");
        on_disk[2].path = "EFI/Linux/web_1.efi".to_owned();
        let (all, changed) = paths("1", on_disk, &["web_1", "_empty"]);
        assert!(
            !changed && all.contains(&"EFI/Linux/web_1.efi".to_owned()) && all.len() == 3,
            "{all:?}"
        );
        let mut other_build = image("1");
        other_build[2].bytes = b"other".to_vec();
        assert!(paths("1", other_build, &["web_1"]).1);
        assert!(paths("1", Vec::new(), &["web_1"]).1);
    }
}
