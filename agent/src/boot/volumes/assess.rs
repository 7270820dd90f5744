//! Assesses each volume: detects its content, repairs it, or prepares its replacement.

use std::fs::File;

use adamant_contract::gpt::{self, ATTR_MAKING, ATTR_NEVER_USED, PartitionTable, grow};
use adamant_contract::policy::{OnDamage, VolumeCheck};

use super::super::{Failure, identity};
use super::evidence::EvidenceState;
use super::ext4::FsckResult;
use super::partitions::Partitions;
use super::probe::{self, PartitionContent};
use super::tool::ToolError;
use super::{AssessedVolume, Assessment, Condemned, VolumesStage, failure, untouched};

impl VolumesStage<'_> {
    /// Detects a volume's content, and makes the repairs that `e2fsck -p` considers safe.
    pub(super) fn assess(
        &mut self,
        position: usize,
        index: usize,
        partitions: &Partitions,
        condemned: Option<&Condemned>,
    ) -> Result<AssessedVolume, Failure> {
        let volume = &self.volumes[position];
        let what = format!(
            "volume {:?}, partition {} of {}",
            volume.name,
            index + 1,
            self.disk.path.display()
        );
        let device = partitions.device(index).map_err(|why| {
            failure(
                &what,
                why,
                "look for messages about the disk in the kernel's log",
            )
        })?;
        let is_marked = |mark: u64| {
            partitions.table.partitions[index]
                .as_ref()
                .is_some_and(|p| p.attributes & mark != 0)
        };
        let mut known = AssessedVolume {
            index,
            finding: Assessment::Blank,
            device,
            found: None,
            kept: EvidenceState::default(),
        };
        if is_marked(ATTR_MAKING) {
            return Ok(known);
        }
        let content = File::open(&known.device.path).and_then(|file| {
            let is_blank =
                is_marked(ATTR_NEVER_USED) && untouched::is_untouched(&file, known.device.bytes)?;
            if is_blank {
                Ok(PartitionContent::Blank)
            } else {
                probe::probe(&file, known.device.bytes)
            }
        });
        if let Ok(PartitionContent::Ext4(found)) = &content {
            known.found = Some(found.clone());
        }
        if let Some(Condemned { why, kept }) = condemned {
            (known.finding, known.kept) = (Assessment::Damaged(why.clone()), kept.clone());
            return Ok(known);
        }
        known.finding = match content {
            Ok(PartitionContent::Blank) => Assessment::Blank,
            Ok(PartitionContent::Foreign(kind)) => {
                let remedy = "move its content elsewhere and take its signature away (wipefs --all), or correct [[volume]]";
                return Err(failure(&what, format!("it holds {kind}, not ext4"), remedy));
            }
            // A superblock may be left in a position that only e2fsck searches.
            Ok(PartitionContent::Unknown) => {
                Assessment::Doubtful("it holds data of an unknown kind, not ext4".to_owned())
            }
            Err(error) => {
                return Err(failure(
                    &what,
                    format!("it can't be read: {error}"),
                    "check the disk and its connection",
                ));
            }
            Ok(PartitionContent::Ext4(found)) if found.bytes() > known.device.bytes => {
                let why = format!(
                    "its file system has {} bytes, the partition only {}",
                    found.bytes(),
                    known.device.bytes
                );
                return Err(failure(
                    &what,
                    why,
                    "restore the partition table, or the whole disk",
                ));
            }
            // A clean file system skips the check, which would load a program and its libraries and
            // end with the same verdict. Errors that the superblock does not record appear when the
            // volume is mounted.
            Ok(PartitionContent::Ext4(found))
                if found.clean
                    && !found.features.has_unknown()
                    && volume.check == VolumeCheck::Unclean =>
            {
                Assessment::Sound { repaired: false }
            }
            Ok(PartitionContent::Ext4(found)) => {
                let checked =
                    self.e2fsprogs(volume)
                        .check(&known.device.path, found.features, volume.check);
                match checked.map_err(|error| failure(&what, error.why, error.remedy))? {
                    FsckResult::Clean => Assessment::Sound { repaired: false },
                    FsckResult::Repaired(said) => {
                        self.warnings
                            .push(format!("Volume {:?} was repaired: {said}.", volume.name));
                        Assessment::Sound { repaired: true }
                    }
                    FsckResult::Damaged(why) => Assessment::Doubtful(why),
                    FsckResult::Unsupported(unsupported) => Assessment::Unchecked(unsupported),
                }
            }
        };
        Ok(known)
    }

    /// Repairs file systems where `e2fsck -p` refused to. Evidence is saved first, because such a
    /// repair can delete data.
    pub(super) fn repair_doubtful(&mut self, known: &mut [AssessedVolume]) -> Result<(), Failure> {
        for position in 0..known.len() {
            let Assessment::Doubtful(doubt) = &known[position].finding else {
                continue;
            };
            let doubt = doubt.clone();
            known[position].finding = match self.repair(position, known)? {
                FsckResult::Damaged(why) => Assessment::Damaged(format!("{doubt}; {why}")),
                FsckResult::Clean | FsckResult::Repaired(_) => {
                    let (name, kept) = (&self.volumes[position].name, &known[position].kept);
                    self.warnings
                        .push(format!("Volume {name:?} was repaired: {doubt}; {kept}."));
                    Assessment::Sound { repaired: true }
                }
                FsckResult::Unsupported(unsupported) => Assessment::Unchecked(unsupported),
            };
        }
        Ok(())
    }

    /// Saves evidence of a volume, then repairs everything that can be repaired. A disk that can't
    /// be read and a program that fails end the boot, because neither proves that the file system
    /// is damaged.
    pub(super) fn repair(
        &mut self,
        position: usize,
        known: &mut [AssessedVolume],
    ) -> Result<FsckResult, Failure> {
        let volume = &self.volumes[position];
        let AssessedVolume { device, found, .. } = &known[position];
        let (device, features) = (
            device.clone(),
            found
                .as_ref()
                .map(|found| found.features)
                .unwrap_or_default(),
        );
        let what = format!("volume {:?} ({})", volume.name, device.path.display());
        let failed = |error: ToolError| failure(what.as_str(), error.why, error.remedy);
        if let Some(checked) = self
            .e2fsprogs(volume)
            .examine(&device.path, device.bytes, features)
            .map_err(failed)?
        {
            return Ok(checked);
        }
        self.save_evidence(position, known)?;
        self.e2fsprogs(volume)
            .repair(&device.path, device.bytes, features)
            .map_err(failed)
    }

    /// Ends the boot for a damaged volume if the policy says so. Otherwise evidence is saved first:
    /// the complete volume where the disk has room; else a part of it on a sound volume; and if
    /// there is none, in memory, for the volume's own new file system.
    pub(super) fn prepare_replacements(
        &mut self,
        known: &mut [AssessedVolume],
        table: &mut PartitionTable,
    ) -> Result<(), Failure> {
        for position in 0..known.len() {
            let volume = &self.volumes[position];
            let Assessment::Damaged(why) = &known[position].finding else {
                continue;
            };
            let what = format!(
                "volume {:?} ({})",
                volume.name,
                known[position].device.path.display()
            );
            if volume.on_damage == OnDamage::Fail {
                return Err(failure(
                    what,
                    why,
                    "restore the volume, or set on_damage = \"recreate\" for it in the image's definition",
                ));
            }
            let said = format!(
                "Volume {:?} was damaged ({why}) and was made anew",
                volume.name
            );
            let id = identity::random().map_err(|e| {
                failure(
                    &what,
                    format!("the kernel gives no random bytes: {e}"),
                    "try again",
                )
            })?;
            if let Some((with_new, index)) =
                grow::set_aside(table, known[position].index, gpt::Guid::from_text_order(id))
            {
                self.warnings.push(format!(
                    "{said}; the damaged one is kept completely as partition {} (damaged-{}).",
                    known[position].index + 1,
                    volume.name
                ));
                (*table, known[position].index) = (with_new, index);
                continue;
            }
            self.save_evidence(position, known)?;
            self.warnings
                .push(format!("{said}; {}.", known[position].kept));
        }
        Ok(())
    }
}
