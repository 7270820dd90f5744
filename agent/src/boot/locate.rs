//! The stage that finds the partitions of root and hash tree, on all disks.
//!
//! - Two candidates for one partition are refused, also if the second appears later in the boot.
//! - The stage waits for missing partitions, but not longer than the deadline.
//! - If an interrupted write damaged a partition table, its backup is read; the table of the root's
//!   disk is repaired.
//! - Nothing on a disk is trusted: a found partition is only a candidate for `verify`.

use std::fs::File;
use std::time::{Duration, Instant};

use adamant_contract::cmdline::{CommandLine, DeviceName};
use adamant_contract::gpt;
use adamant_contract::report::StageName;
use adamant_contract::root_hash::RootHash;

use super::arriving::Arriving;
use super::early::Early;
use super::paths::{self, Identity, OtherPath, Surveyed};
use super::{Context, Failure, driverless};
use crate::kernel::block::{self, Disk, Partition};

const STAGE: StageName = StageName::Locate;
/// Time to wait for further disks after both partitions were found. Two disks with the same image
/// must be refused, not chosen by chance. For the same reason [`look_again`] searches once more at
/// the end of the boot.
const SETTLE: Duration = Duration::from_millis(25);
/// Time after which modules are tried that no device has asked for.
const LAST_RESORT: Duration = Duration::from_secs(3);
/// Time between two feedings of the watchdog while waiting.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);
/// The remedy for two disks that are probably one.
const ONE_PATH: &str = "attach it by one path only, or have the storage give it a world wide name (NAA, EUI-64 or UUID), by which several paths are known to be one disk; \
                        if they are two disks, detach one";

/// The located root. Nothing of it is verified yet.
pub struct Located {
    pub(super) cmdline: CommandLine,
    pub(super) root_hash: RootHash,
    pub(super) data: Partition,
    pub(super) tree: Partition,
    /// The disk with the partition `data`.
    pub(super) disk: Disk,
}

/// Waits for the partitions until the deadline.
pub fn locate_root(early: Early, context: &mut Context) -> Result<Located, Failure> {
    let Early {
        cmdline,
        mut arriving,
    } = early;
    let Some(root_hash) = cmdline.root_hash else {
        return Err(Failure::new(
            STAGE,
            "roothash=",
            "not on the kernel command line",
            "boot with the command line that was built with the image",
        ));
    };
    let [data, tree] = names(&cmdline, &root_hash);
    let survey = wait(&data, &tree, cmdline.device_timeout, &mut arriving, context)?;
    context.arriving = Some(arriving);
    survey.repair([&data, &tree], context);
    survey.close_other_paths([&data, &tree], context);
    let (disk, data) = survey.settle("root", &data)?;
    let (_, tree) = survey.settle("verity", &tree)?;
    context.report.root_hash = root_hash.to_string();
    context.report.root.data = data.path.display().to_string();
    context.report.root.tree = tree.path.display().to_string();
    Ok(Located {
        cmdline,
        root_hash,
        data,
        tree,
        disk,
    })
}

/// The names of the data and hash partitions.
fn names(cmdline: &CommandLine, root_hash: &RootHash) -> [DeviceName; 2] {
    let data = cmdline
        .root_data
        .clone()
        .unwrap_or(DeviceName::PartUuid(root_hash.data_partuuid()));
    let tree = cmdline
        .root_tree
        .clone()
        .unwrap_or(DeviceName::PartUuid(root_hash.tree_partuuid()));
    [data, tree]
}

/// Searches all disks once more, because a second disk with the same image may have been too slow
/// for the first search. Refuses such a disk, and makes other paths to the same disk read-only.
pub fn look_again(located: &Located, context: &mut Context) -> Result<(), Failure> {
    let survey = Survey::of_all_disks()?;
    let wanted = names(&located.cmdline, &located.root_hash);
    for (role, name) in ["root", "verity"].into_iter().zip(&wanted) {
        // A partition that has disappeared is in use by this boot, so its next read fails.
        survey.find(role, name)?;
    }
    let [data, tree] = &wanted;
    survey.close_other_paths([data, tree], context);
    Ok(())
}

/// Searches the disks, and again whenever a block device appears, until both partitions exist
/// exactly once and no other disk appears.
fn wait(
    data: &DeviceName,
    tree: &DeviceName,
    timeout: Duration,
    arriving: &mut Arriving,
    context: &mut Context,
) -> Result<Survey, Failure> {
    let start = Instant::now();
    let (deadline, mut last_resort) = (start + timeout, Some(start + LAST_RESORT.min(timeout / 2)));
    let mut said = false;
    loop {
        let survey = Survey::of_all_disks()?;
        let found =
            [("root", data), ("verity", tree)].map(|(role, wanted)| survey.find(role, wanted));
        let missing = found.into_iter().find_map(|f| f.transpose()).transpose()?;
        let now = Instant::now();
        let until = match &missing {
            None => now + SETTLE,
            Some(why) if now >= deadline => {
                let attach = "attach the disk that holds the image with this root hash, or boot with the command line that was built with it";
                let (driver, remedy) =
                    driverless::explain(&driverless::find(), &context.report.modules, attach)
                        .map_or((String::new(), attach.to_owned()), |(driver, remedy)| {
                            (format!("; {driver}"), remedy)
                        });
                return Err(Failure::new(
                    STAGE,
                    why.what.clone(),
                    format!("{}{driver}", why.why),
                    remedy,
                ));
            }
            Some(why) => {
                if !said {
                    log::info!("waiting up to {} s for the {}", timeout.as_secs(), why.what);
                    said = true;
                }
                if last_resort.is_some_and(|at| now >= at) {
                    last_resort = None;
                    let loaded = arriving.load_the_rest(context);
                    log::info!(
                        "the {} has not appeared: {loaded} more modules were loaded, which no device had asked for",
                        why.what
                    );
                }
                deadline
                    .min(now + SIGN_OF_LIFE)
                    .min(last_resort.unwrap_or(deadline))
            }
        };
        context.watchdog.alive();
        let changed = arriving
            .wait_for_disk(until, context)
            .map_err(|e| Failure::new(STAGE, "waiting for disks", e, "report this"))?;
        if missing.is_none() && !changed {
            return Ok(survey);
        }
    }
}

/// Why a partition was not found.
#[derive(Debug)]
struct Missing {
    what: String,
    why: String,
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
struct Survey {
    disks: Vec<Surveyed>,
    /// The identity of each disk.
    identities: Vec<Identity>,
    other_paths: Vec<OtherPath>,
}

/// A partition or disk that a name refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place<'a> {
    disk: &'a Disk,
    /// Number in the table, from 1; 0 is the complete disk.
    number: u32,
}

impl Survey {
    fn of_all_disks() -> Result<Survey, Failure> {
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
            let (found, identity) = (read(&disk), Identity::read(&disk.name));
            ((disk, found), identity)
        });
        let (kept, other_paths) = paths::merge(disks.collect());
        let (disks, identities) = kept.into_iter().unzip();
        Ok(Survey {
            disks,
            identities,
            other_paths,
        })
    }

    /// Makes all other paths to the disk of these partitions read-only, because writes through one
    /// path do not reach the caches of the others.
    fn close_other_paths(&self, wanted: [&DeviceName; 2], context: &mut Context) {
        let used: Vec<&str> = wanted
            .iter()
            .flat_map(|name| self.places(name))
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
    fn find(&self, role: &str, wanted: &DeviceName) -> Result<Option<Missing>, Failure> {
        let places = self.places(wanted);
        let what = format!("{role} partition {}", describe(wanted));
        match places[..] {
            [] => Ok(Some(Missing {
                what,
                why: self.why_not(),
            })),
            [_] => Ok(None),
            _ => {
                let all: Vec<String> = places.iter().map(Place::to_string).collect();
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
    fn same_by_name(&self, places: &[Place<'_>]) -> Option<String> {
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
    fn places(&self, wanted: &DeviceName) -> Vec<Place<'_>> {
        let mut places = Vec::new();
        for (disk, found) in &self.disks {
            if let DeviceName::Node(name) = wanted {
                if *name == disk.name {
                    places.push(Place { disk, number: 0 });
                } else if let Some(number) = block::partition_number(&disk.name, name) {
                    places.push(Place { disk, number });
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
                    places.push(Place { disk, number });
                }
            }
        }
        places
    }

    /// Describes what each disk has instead.
    fn why_not(&self) -> String {
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
    fn repair(&self, wanted: [&DeviceName; 2], context: &mut Context) {
        let places: Vec<Place<'_>> = wanted.iter().flat_map(|name| self.places(name)).collect();
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
    fn settle(&self, role: &str, wanted: &DeviceName) -> Result<(Disk, Partition), Failure> {
        let what = format!("{role} partition {}", describe(wanted));
        let gone = || {
            Failure::new(
                STAGE,
                what.clone(),
                "disappeared while it was read",
                "check the disk's connection",
            )
        };
        let [Place { disk, number }] = self.places(wanted)[..] else {
            return Err(gone());
        };
        if number == 0 {
            let bytes = disk.sectors.saturating_mul(disk.sector.into());
            let whole = Partition {
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

impl std::fmt::Display for Place<'_> {
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
        let identities = vec![Identity::default(); disks.len()];
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
                    .places(&wanted)
                    .iter()
                    .map(Place::to_string)
                    .collect::<Vec<_>>(),
                ["/dev/vda partition 3"]
            );
            assert!(survey.find("root", &wanted).unwrap().is_none());
        }
        assert_eq!(
            survey.places(&DeviceName::Node("vda".to_owned()))[0].to_string(),
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
            .find("root", &DeviceName::PartUuid(ID))
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
            .find("root", &DeviceName::PartUuid(ID))
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
            .find("verity", &DeviceName::PartUuid(ID))
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
            super::Survey {
                disks: Vec::new(),
                identities: Vec::new(),
                other_paths: Vec::new()
            }
            .why_not(),
            "no disk appeared"
        );
    }
}
