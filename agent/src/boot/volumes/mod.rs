//! The stage that finds, makes, checks, grows, mounts and seeds the volumes, which outlive images.
//!
//! Volumes are partitions of the root's own disk, found by label and type. Nothing in a volume is
//! trusted: it is hostile input to the programs of the verified image.
//!
//! - An unused partition gets a new file system.
//! - An ext4 file system is checked, unless it was unmounted cleanly, and grown to its partition's
//!   size.
//! - A volume is made again only if the policy allows it, an e2fsck that knows all its features
//!   cannot repair it, and evidence was saved. An unknown feature, an unreadable sector or a
//!   failing program is never a reason.
//! - After a power cut at any moment, the next boot finishes the work.
//!
//! The order makes this safe: assess all volumes; save evidence, then make repairs that can lose
//! data; write one partition table that grows partitions and marks those to be made (ATTR_MAKING);
//! make their file systems; write the table without the marks; mount, grow and seed.

mod assess;
mod evidence;
mod ext4;
mod ext4_kernel;
mod features;
mod image_data;
mod mounting;
#[cfg(test)]
mod never_replaced;
mod partitions;
mod probe;
mod progress;
pub mod reserve;
mod seed;
mod superblock;
#[cfg(test)]
pub mod tests;
pub mod tool;
mod untouched;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::Path;

use adamant_contract::gpt::{ATTR_MAKING, ATTR_NEVER_USED, PartitionTable, grow};
use adamant_contract::paths::SYSROOT;
use adamant_contract::policy;
use adamant_contract::report::{self, StageName};

use self::evidence::EvidenceState;
use self::ext4::{E2fsprogs, Unsupported};
use self::partitions::Partitions;
use self::superblock::Ext4Superblock;
use super::root::MountedRoot;
use super::{Context, Failure};
use crate::kernel::block::{Disk, KernelPartition};

pub use crate::kernel::rooted_fs::{move_aside, own_folder, path_of, read_file, write_file};

/// Where a healthy volume is mounted for the short time in which evidence is written to it.
const EVIDENCE_MOUNT: &str = "/run/adamant/evidence";

/// The root with its volumes mounted below it. Only [`mount_volumes`] makes one.
pub struct MountedVolumes {
    root: MountedRoot,
    folders: Vec<(String, OwnedFd)>,
}

impl MountedVolumes {
    /// The root that the volumes are mounted on.
    pub fn root(&self) -> &MountedRoot {
        &self.root
    }

    /// The open directory of the volume with the server's identity: the volume at /var, else the
    /// first. `None` if there are no volumes.
    pub fn state(&self) -> Option<&OwnedFd> {
        self.folders
            .iter()
            .find(|(mount, _)| mount == "/var")
            .or(self.folders.first())
            .map(|(_, folder)| folder)
    }
}

/// Mounts the policy's volumes.
pub fn mount_volumes(root: MountedRoot, context: &mut Context) -> Result<MountedVolumes, Failure> {
    let policy = root.policy();
    if policy.volumes.is_empty() {
        return Ok(MountedVolumes {
            root,
            folders: Vec::new(),
        });
    }
    let mark = format!(
        "{} {} {}\n",
        policy.image.id, policy.image.version, context.report.root_hash
    );
    let mut warnings = Vec::new();
    let watchdog = &mut context.watchdog;
    let mut stage = VolumesStage {
        disk: root.disk(),
        sysroot: Path::new(SYSROOT),
        evidence_mount: Path::new(EVIDENCE_MOUNT),
        volumes: &policy.volumes,
        image_data: &policy.image_data,
        executable: &policy.seal.allow.execute,
        mark: &mark,
        warnings: &mut warnings,
        tick: &mut || watchdog.alive(),
        shown: Vec::new(),
    };
    let mounted = stage.mount_all_attempts();
    let shown = std::mem::take(&mut stage.shown);
    for warning in warnings {
        context.warn(warning);
    }
    let mut folders = Vec::new();
    for mounted in mounted? {
        folders.push((mounted.report.mount.clone(), mounted.folder));
        context.report.volumes.push(mounted.report);
    }
    context.report.image_data = shown;
    Ok(MountedVolumes { root, folders })
}

/// The stage's input and the state that its steps share.
struct VolumesStage<'a> {
    disk: &'a Disk,
    sysroot: &'a Path,
    evidence_mount: &'a Path,
    volumes: &'a [policy::Volume],
    /// Absolute paths of the image's data that are to be shown on volumes.
    image_data: &'a [String],
    /// Names of the volumes from which programs may be executed.
    executable: &'a [String],
    /// Names the image in the seeding record.
    mark: &'a str,
    warnings: &'a mut Vec<String>,
    tick: &'a mut dyn FnMut(),
    /// The paths of `image_data` that were shown.
    shown: Vec<String>,
}

/// A mounted volume.
struct Mounted {
    report: report::VolumeReport,
    folder: OwnedFd,
}

/// The result of assessing a volume, which decides the next step.
#[derive(Debug)]
enum Assessment {
    /// It holds nothing: a file system is made.
    Blank,
    /// It has no errors, or no longer has any.
    Sound { repaired: bool },
    /// Made by newer programs, so that the image's e2fsck can't check it. It is mounted if the
    /// kernel can, and never made again.
    Unchecked(Unsupported),
    /// `e2fsck -p` does not repair its errors. Holds e2fsck's output.
    Doubtful(String),
    /// Not ext4, or an e2fsck that knows all of its features can't repair it. Holds the reason.
    /// Only such a volume is made again.
    Damaged(String),
}

impl Assessment {
    /// Whether a new file system replaces the partition's content.
    fn is_to_be_made(&self) -> bool {
        matches!(self, Assessment::Blank | Assessment::Damaged(_))
    }
}

/// A volume's partition with the result of its assessment.
struct AssessedVolume {
    index: usize,
    finding: Assessment,
    device: KernelPartition,
    found: Option<Ext4Superblock>,
    kept: EvidenceState,
}

/// A volume that seemed to be sound and is not.
#[derive(Clone)]
struct Condemned {
    why: String,
    kept: EvidenceState,
}

/// Why an attempt to mount all volumes ended.
enum AttemptError {
    /// The boot fails.
    Failed(Failure),
    /// The volume at this position turned out to be damaged.
    Condemned(usize, Condemned),
}

impl From<Failure> for AttemptError {
    fn from(failure: Failure) -> AttemptError {
        AttemptError::Failed(failure)
    }
}

fn failure(what: impl Into<String>, why: impl std::fmt::Display, remedy: &str) -> Failure {
    Failure::new(StageName::Volumes, what, why, remedy)
}

impl VolumesStage<'_> {
    /// Repeats attempts until all volumes are mounted. Each failed attempt condemns one more
    /// volume, so the number of attempts is bounded.
    fn mount_all_attempts(&mut self) -> Result<Vec<Mounted>, Failure> {
        let mut condemned = BTreeMap::new();
        loop {
            let (position, now) = match self.attempt(&condemned) {
                Ok(mounted) => return Ok(mounted),
                Err(AttemptError::Failed(failure)) => return Err(failure),
                Err(AttemptError::Condemned(position, now)) => (position, now),
            };
            if let Some(before) = condemned.insert(position, now.clone()) {
                let what = format!("volume {:?}", self.volumes[position].name);
                return Err(failure(
                    what,
                    format!(
                        "{}, after it was made anew because: {}",
                        now.why, before.why
                    ),
                    "replace the disk",
                ));
            }
        }
    }

    fn attempt(
        &mut self,
        condemned: &BTreeMap<usize, Condemned>,
    ) -> Result<Vec<Mounted>, AttemptError> {
        let on_disk = |why: String| {
            failure(
                self.disk.path.display().to_string(),
                why,
                "write the disk image anew, or restore the disk",
            )
        };
        let mut partitions = Partitions::open(self.disk).map_err(on_disk)?;
        let repairs = partitions.repairs.join("; ");
        let mut places = Vec::new();
        for volume in self.volumes {
            let found = partitions.find_volume(volume);
            let what = || format!("volume {:?} on {}", volume.name, self.disk.path.display());
            places.push(found.map_err(|why| {
                failure(
                    what(),
                    why,
                    "use the disk image that belongs to this image, or correct [[volume]]",
                )
            })?);
        }
        partitions
            .save(partitions.table.clone(), &places)
            .map_err(on_disk)?;
        if !repairs.is_empty() {
            self.warnings.push(format!(
                "The partition table of {} was repaired: {repairs}.",
                self.disk.path.display()
            ));
        }

        let mut known = Vec::new();
        for (position, &index) in places.iter().enumerate() {
            known.push(self.assess(position, index, &partitions, condemned.get(&position))?);
        }
        self.repair_doubtful(&mut known)?;
        let mut table = partitions.table.clone();
        self.prepare_replacements(&mut known, &mut table)?;
        let table = self.plan_table(&known, table);
        let before: Vec<u64> = known.iter().map(|known| known.device.bytes).collect();
        let indexes: Vec<usize> = known.iter().map(|known| known.index).collect();
        partitions.save(table, &indexes).map_err(on_disk)?;
        for known in &mut known {
            known.device = partitions.device(known.index).map_err(on_disk)?;
        }
        self.make_file_systems(&known)?;
        let mut made = partitions.table.clone();
        for &index in &indexes {
            if let Some(partition) = &mut made.partitions[index] {
                partition.attributes &= !ATTR_MAKING;
            }
        }
        partitions.save(made, &indexes).map_err(on_disk)?;
        self.mount_all(&mut known, &before)
    }

    /// Plans the new table: grows the volumes into the disk's free space, and marks the partitions
    /// whose file systems will be made.
    fn plan_table(&self, known: &[AssessedVolume], table: PartitionTable) -> PartitionTable {
        let volumes = known.iter().zip(self.volumes);
        let growable: Vec<grow::Growable> = volumes
            .map(|(known, volume)| grow::Growable {
                index: known.index,
                weight: volume.weight,
                blank: matches!(known.finding, Assessment::Blank),
            })
            .collect();
        let mut table = grow::plan(&table, self.disk.sectors, &growable);
        for known in known {
            if let Some(partition) = &mut table.partitions[known.index] {
                partition.attributes &= !ATTR_NEVER_USED;
                if known.finding.is_to_be_made() {
                    partition.attributes |= ATTR_MAKING;
                }
            }
        }
        table
    }

    fn make_file_systems(&mut self, known: &[AssessedVolume]) -> Result<(), Failure> {
        for (known, volume) in known.iter().zip(self.volumes) {
            if !known.finding.is_to_be_made() {
                continue;
            }
            let made = self
                .e2fsprogs(volume)
                .make_file_system(&known.device.path, known.device.bytes);
            let what = || {
                format!(
                    "making a file system for volume {:?} on {}",
                    volume.name,
                    known.device.path.display()
                )
            };
            made.map_err(|error| failure(what(), error.why, error.remedy))?;
        }
        Ok(())
    }

    fn e2fsprogs<'b>(&'b mut self, volume: &'b policy::Volume) -> E2fsprogs<'b> {
        E2fsprogs {
            sysroot: self.sysroot,
            volume: &volume.name,
            tick: &mut *self.tick,
        }
    }
}
