//! All disks with their partition tables, and the partitions that a name refers to.

use std::fs::File;

use adamant_contract::cmdline::DeviceName;
use adamant_contract::gpt;

use super::STAGE;
use crate::boot::multipath::{self, DiskIdentity, OtherPath, Surveyed};
use crate::boot::{Context, Failure};
use crate::kernel::block::{self, Disk, KernelPartition};

/// The remedy for two disks that are probably one.
const ONE_PATH: &str = "attach it by one path only, or have the storage give it a world wide name (NAA, EUI-64 or UUID), by which several paths are known to be one disk; \
                        if they are two disks, detach one";

/// Why a partition was not found.
#[derive(Debug)]
pub(super) struct Missing {
    pub(super) what: String,
    pub(super) why: String,
}

/// Why a disk has no usable partition table, if its table was made for another sector size. Such a
/// table has another position and counts other sectors.
fn other_sectors(file: &File, disk: &Disk) -> Option<String> {
    let other = if disk.sector == 512 { 4096 } else { 512 };
    let sectors = disk.sectors.saturating_mul(u64::from(disk.sector)) / other;
    gpt::disk::read_table(file, other as u32, sectors).ok()?;
    Some(format!(
        "it has one for sectors of {other} bytes, this disk's have {}: write an image that was built with disk.sector = {0}",
        disk.sector
    ))
}

/// All disks with their tables; each disk once, even if it has several paths.
pub(super) struct Survey {
    disks: Vec<Surveyed>,
    /// The identity of each disk.
    identities: Vec<DiskIdentity>,
    other_paths: Vec<OtherPath>,
}

/// A partition or disk that a name refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PartitionRef<'a> {
    disk: &'a Disk,
    /// Number in the table, from 1; 0 is the complete disk.
    number: u32,
}

impl Survey {
    pub(super) fn of_all_disks() -> Result<Survey, Failure> {
        let disks = Disk::all().map_err(|e| {
            Failure::new(
                STAGE,
                "listing the disks in /sys/block",
                e,
                "use a kernel with sysfs",
            )
        })?;
        let read = |disk: &Disk| {
            let file = disk.open(false).map_err(|e| e.to_string())?;
            gpt::disk::read_table(&file, disk.sector, disk.sectors)
                .map_err(|e| e.to_string())
                .map_err(|why| other_sectors(&file, disk).unwrap_or(why))
        };
        let disks = disks.into_iter().map(|disk| {
            let (found, identity) = (read(&disk), DiskIdentity::read(&disk.name));
            ((disk, found), identity)
        });
        let (kept, other_paths) = multipath::merge(disks.collect());
        let (disks, identities) = kept.into_iter().unzip();
        Ok(Survey {
            disks,
            identities,
            other_paths,
        })
    }

    /// Makes all other paths to the disk of these partitions read-only, because writes through one
    /// path do not reach the caches of the others.
    pub(super) fn close_other_paths(&self, wanted: [&DeviceName; 2], context: &mut Context) {
        let used: Vec<&str> = wanted
            .iter()
            .flat_map(|name| self.partitions(name))
            .map(|place| place.disk.name.as_str())
            .collect();
        for path in self
            .other_paths
            .iter()
            .filter(|path| used.contains(&path.of.as_str()))
        {
            let OtherPath { of, disk, wwid } = path;
            let sentence = match path.close() {
                Ok(()) => format!(
                    "{of} and {} are two paths to one disk (WWN {wwid}): {of} is used, {} is read-only.",
                    disk.name, disk.name
                ),
                Err(error) => format!(
                    "{of} and {} are two paths to one disk (WWN {wwid}), and {} could not be made read-only: {error}.",
                    disk.name, disk.name
                ),
            };
            // The second search finds the same paths again.
            if !context.report.warnings.contains(&sentence) {
                context.warn(sentence);
            }
        }
    }

    /// `Ok(None)`: there is exactly one.
    pub(super) fn find_exactly_one(
        &self,
        role: &str,
        wanted: &DeviceName,
    ) -> Result<Option<Missing>, Failure> {
        let places = self.partitions(wanted);
        let what = format!("{role} partition {}", describe(wanted));
        match places[..] {
            [] => Ok(Some(Missing {
                what,
                why: self.describe_disks(),
            })),
            [_] => Ok(None),
            _ => {
                let all: Vec<String> = places.iter().map(PartitionRef::to_string).collect();
                let why = format!("found {} times: {}", places.len(), all.join(", "));
                Err(match self.same_by_name(&places) {
                    Some(same) => Failure::new(STAGE, what, format!("{why}: {same}"), ONE_PATH),
                    None => Failure::new(
                        STAGE,
                        what,
                        why,
                        "detach all but the disk that belongs to this machine",
                    ),
                })
            }
        }
    }

    /// Evidence, though not proof, that several locations are on the same disk.
    fn same_by_name(&self, places: &[PartitionRef<'_>]) -> Option<String> {
        let identity = |disk: &Disk| {
            self.disks
                .iter()
                .zip(&self.identities)
                .find(|((known, _), _)| known == disk)
                .map(|(_, identity)| identity)
        };
        let (first, rest) = places.split_first()?;
        let (name, known) = (&first.disk.name, identity(first.disk)?);
        rest.iter()
            .filter(|place| place.disk != first.disk)
            .find_map(|place| {
                let sign = identity(place.disk)?.alike(known)?;
                Some(format!(
                    "{name} and {} are probably two paths to one disk ({sign})",
                    place.disk.name
                ))
            })
    }

    /// All locations that a name refers to.
    pub(super) fn partitions(&self, wanted: &DeviceName) -> Vec<PartitionRef<'_>> {
        let mut places = Vec::new();
        for (disk, found) in &self.disks {
            if let DeviceName::Node(name) = wanted {
                if *name == disk.name {
                    places.push(PartitionRef { disk, number: 0 });
                } else if let Some(number) = block::partition_number(&disk.name, name) {
                    places.push(PartitionRef { disk, number });
                }
                continue;
            }
            for (number, partition) in (1..).zip(found.iter().flat_map(|f| &f.table.partitions)) {
                let matches = partition.as_ref().is_some_and(|p| match wanted {
                    DeviceName::PartUuid(id) => p.id == *id,
                    DeviceName::PartLabel(label) => p.label == *label,
                    DeviceName::Node(_) => false,
                });
                if matches {
                    places.push(PartitionRef { disk, number });
                }
            }
        }
        places
    }

    /// Describes what each disk has instead.
    fn describe_disks(&self) -> String {
        if self.disks.is_empty() {
            return "no disk appeared".to_owned();
        }
        let disks: Vec<String> = self
            .disks
            .iter()
            .map(|(disk, found)| match found {
                Ok(found) => format!(
                    "{} has {} other partitions",
                    disk.name,
                    found.table.partitions.iter().flatten().count()
                ),
                Err(why) => format!("{} has no partition table ({why})", disk.name),
            })
            .collect();
        format!("not found: {}", disks.join("; "))
    }

    /// Repairs the partition tables of the root's disks, and informs the kernel if necessary.
    pub(super) fn repair(&self, wanted: [&DeviceName; 2], context: &mut Context) {
        let places: Vec<PartitionRef<'_>> = wanted
            .iter()
            .flat_map(|name| self.partitions(name))
            .collect();
        for (disk, found) in &self.disks {
            if let Ok(found) = found
                && places
                    .iter()
                    .any(|place| place.disk == disk && place.number != 0)
            {
                make_known(disk, found, context);
            }
        }
    }

    /// The kernel's partition for a name that refers to exactly one.
    pub(super) fn resolve(
        &self,
        role: &str,
        wanted: &DeviceName,
    ) -> Result<(Disk, KernelPartition), Failure> {
        let what = format!("{role} partition {}", describe(wanted));
        let gone = || {
            Failure::new(
                STAGE,
                what.clone(),
                "disappeared while it was read",
                "check the disk's connection",
            )
        };
        let [PartitionRef { disk, number }] = self.partitions(wanted)[..] else {
            return Err(gone());
        };
        if number == 0 {
            let bytes = disk.sectors.saturating_mul(disk.sector.into());
            let whole = KernelPartition {
                path: disk.path.clone(),
                name: disk.name.clone(),
                number,
                start: 0,
                bytes,
            };
            return Ok((disk.clone(), whole));
        }
        let found = self
            .disks
            .iter()
            .find(|(d, _)| d == disk)
            .and_then(|(_, found)| found.as_ref().ok());
        let partition = disk.partition(number).ok().flatten().ok_or_else(gone)?;
        let entry = found
            .and_then(|f| f.table.partitions.get(number as usize - 1))
            .and_then(Option::as_ref);
        let sector = u64::from(disk.sector);
        if entry.is_some_and(|e| {
            (
                e.first.saturating_mul(sector),
                e.sectors().saturating_mul(sector),
            ) != (partition.start, partition.bytes)
        }) {
            let why = format!(
                "the kernel has another position for {} than the partition table",
                partition.name
            );
            return Err(Failure::new(
                STAGE,
                what,
                why,
                "restore the partition table from the image",
            ));
        }
        Ok((disk.clone(), partition))
    }
}

/// Repairs a table whose write was interrupted, and informs the kernel of partitions that it does
/// not know, because it reads only the first copy of the table.
fn make_known(disk: &Disk, found: &gpt::disk::FoundTable, context: &mut Context) {
    let unknown: Vec<_> = (1..)
        .zip(&found.table.partitions)
        .filter_map(|(number, entry)| Some((number, entry.as_ref()?)))
        .filter(|(number, _)| matches!(disk.partition(*number), Ok(None)))
        .collect();
    if found.from_backup.is_some() || !unknown.is_empty() && !found.repairs.is_empty() {
        let repairs = found.repairs.join("; ");
        match disk
            .open(true)
            .and_then(|mut file| gpt::disk::write_table(&mut file, &found.table))
        {
            Ok(()) => context.warn(format!(
                "The partition table of {} was repaired: {repairs}.",
                disk.name
            )),
            Err(error) => context.warn(format!(
                "The partition table of {} could not be repaired ({error}): {repairs}.",
                disk.name
            )),
        }
    }
    for (number, entry) in unknown {
        let sector = u64::from(disk.sector);
        if let Err(error) = disk.add_partition(
            number,
            entry.first.saturating_mul(sector),
            entry.sectors().saturating_mul(sector),
        ) {
            context.warn(format!(
                "Partition {number} of {} could not be made known to the kernel: {error}.",
                disk.name
            ));
        }
    }
}

fn describe(name: &DeviceName) -> String {
    match name {
        DeviceName::PartUuid(id) => format!("PARTUUID={id}"),
        DeviceName::PartLabel(label) => format!("PARTLABEL={label}"),
        DeviceName::Node(name) => block::node(name).display().to_string(),
    }
}

impl std::fmt::Display for PartitionRef<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.number {
            0 => write!(f, "{}", self.disk.path.display()),
            number => write!(f, "{} partition {number}", self.disk.path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use adamant_contract::gpt::{Guid, PartitionTable};

    const ID: Guid = gpt::ROOT_X86_64;

    fn disk(
        name: &str,
        ids: &[Option<(Guid, &str)>],
    ) -> (Disk, Result<gpt::disk::FoundTable, String>) {
        let partition = |(at, part): (u64, &Option<(Guid, &str)>)| {
            part.map(|(id, label)| gpt::Partition {
                kind: gpt::LINUX_GENERIC,
                id,
                first: at,
                last: at,
                attributes: 0,
                label: label.to_owned(),
            })
        };
        let table = PartitionTable {
            disk: Guid::ZERO,
            sector: 512,
            sectors: 4096,
            partitions: (100..).zip(ids).map(partition).collect(),
        };
        let disk = Disk {
            path: block::node(name),
            name: name.to_owned(),
            sector: 512,
            sectors: 4096,
        };
        (
            disk,
            Ok(gpt::disk::FoundTable {
                table,
                from_backup: None,
                repairs: Vec::new(),
            }),
        )
    }

    fn survey(disks: Vec<Surveyed>) -> Survey {
        let identities = vec![DiskIdentity::default(); disks.len()];
        Survey {
            disks,
            identities,
            other_paths: Vec::new(),
        }
    }

    #[test]
    fn finds_a_partition_by_id_label_or_node_over_all_disks() {
        let survey = survey(vec![
            disk("sda", &[None, Some((gpt::VAR, "state"))]),
            disk("vda", &[Some((gpt::VAR, "x")), None, Some((ID, "web_1"))]),
        ]);
        for wanted in [
            DeviceName::PartUuid(ID),
            DeviceName::PartLabel("web_1".to_owned()),
        ] {
            assert_eq!(
                survey
                    .partitions(&wanted)
                    .iter()
                    .map(PartitionRef::to_string)
                    .collect::<Vec<_>>(),
                ["/dev/vda partition 3"]
            );
            assert!(survey.find_exactly_one("root", &wanted).unwrap().is_none());
        }
        assert_eq!(
            survey.partitions(&DeviceName::Node("vda".to_owned()))[0].to_string(),
            "/dev/vda"
        );
    }

    #[test]
    fn refuses_two_disks_with_one_image_and_names_both() {
        let survey = survey(vec![
            disk("vda", &[Some((ID, "web_1"))]),
            disk("vdb", &[None, Some((ID, "web_1"))]),
        ]);
        let failure = survey
            .find_exactly_one("root", &DeviceName::PartUuid(ID))
            .unwrap_err()
            .to_string();
        assert!(
            failure.contains("/dev/vda partition 1, /dev/vdb partition 2")
                && failure.contains("detach all but"),
            "{failure}"
        );
    }

    #[test]
    fn names_the_evidence_that_two_refused_disks_are_one() {
        let mut survey = survey(vec![
            disk("sda", &[Some((ID, "web_1"))]),
            disk("sdb", &[Some((ID, "web_1"))]),
        ]);
        for identity in &mut survey.identities {
            identity.serial = Some("lun7".to_owned());
        }
        let failure = survey
            .find_exactly_one("root", &DeviceName::PartUuid(ID))
            .unwrap_err()
            .to_string();
        assert!(
            failure.contains("sda and sdb are probably two paths to one disk (serial number lun7)")
                && !failure.contains("detach all but"),
            "{failure}"
        );
    }

    #[test]
    fn describes_what_the_disks_have_instead() {
        let mut survey = survey(vec![disk("vda", &[Some((gpt::VAR, "state"))])]);
        survey.disks.push((
            survey.disks[0].0.clone(),
            Err("header signature missing".to_owned()),
        ));
        let missing = survey
            .find_exactly_one("verity", &DeviceName::PartUuid(ID))
            .unwrap()
            .unwrap();
        assert!(missing.what.contains(&ID.to_string()));
        assert!(
            missing.why.contains("vda has 1 other partitions")
                && missing.why.contains("signature missing"),
            "{}",
            missing.why
        );
        assert_eq!(
            Survey {
                disks: Vec::new(),
                identities: Vec::new(),
                other_paths: Vec::new()
            }
            .describe_disks(),
            "no disk appeared"
        );
    }
}
