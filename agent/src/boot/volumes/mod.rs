//! Fifth stage: the volumes, which outlive images.
//!
//! They are partitions of the root's own disk, found by label and type. Promise: a partition that holds nothing becomes a file system, one that
//! holds an ext4 is checked and grown, and one that holds anything else is never overwritten unless the policy says so, and then only after evidence
//! was kept. Whenever the power goes, the next boot finishes what was begun. Nothing in a volume is trusted: it is hostile input to verified programs.
//!
//! The order is what makes it safe. Look at all of them; keep evidence; write one partition table, which grows and claims (ATTR_MAKING) what
//! is to be made; make; write the table that ends the claims; only then mount, grow and seed.

mod beneath;
mod evidence;
mod ext4;
mod partitions;
mod probe;
mod seed;
#[cfg(test)]
pub mod tests;
mod tool;

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use adamant_agent::contract::SYSROOT;
use adamant_agent::gpt::{self, ATTR_MAKING, Table, grow};
use adamant_agent::policy::{self, OnDamage, is_below};
use adamant_agent::report;
use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};

use self::evidence::Evidence;
use self::ext4::{Checked, Programs};
use self::partitions::Partitions;
use self::probe::{Content, Super};
use super::block::{Disk, Partition};
use super::root::MountedRoot;
use super::{Context, Failure};

pub use beneath::{move_aside, own_folder, path_of, read as read_beneath, write as write_beneath};

/// Where a healthy volume is mounted for the moment in which evidence is written to it.
const EVIDENCE_MOUNT: &str = "/run/adamant/evidence";

/// The root with its volumes mounted below it. Only [`run`] makes one.
pub struct MountedVolumes {
    root: MountedRoot,
    folders: Vec<(String, OwnedFd)>,
}

impl MountedVolumes {
    /// The root the volumes are mounted on.
    pub fn root(&self) -> &MountedRoot {
        &self.root
    }

    /// The volume that keeps what makes this server itself, an open folder: the one at /var, else the first. `None` when there are no volumes.
    pub fn state(&self) -> Option<&OwnedFd> {
        self.folders.iter().find(|(mount, _)| mount == "/var").or(self.folders.first()).map(|(_, folder)| folder)
    }
}

/// Mounts the policy's volumes.
pub fn run(root: MountedRoot, context: &mut Context) -> Result<MountedVolumes, Failure> {
    let policy = root.policy();
    if policy.volumes.is_empty() {
        return Ok(MountedVolumes { root, folders: Vec::new() });
    }
    let mark = format!("{} {} {}\n", policy.image.id, policy.image.version, context.report.root_hash);
    let mut warnings = Vec::new();
    let watchdog = &mut context.watchdog;
    let mut stage = Stage {
        disk: root.disk(),
        sysroot: Path::new(SYSROOT),
        evidence_mount: Path::new(EVIDENCE_MOUNT),
        volumes: &policy.volumes,
        mark: &mark,
        warnings: &mut warnings,
        tick: &mut || watchdog.alive(),
    };
    let mounted = stage.run();
    for warning in warnings {
        context.warn(warning);
    }
    let mut folders = Vec::new();
    for mounted in mounted? {
        folders.push((mounted.report.mount.clone(), mounted.folder));
        context.report.volumes.push(mounted.report);
    }
    Ok(MountedVolumes { root, folders })
}

/// What the stage works on.
struct Stage<'a> {
    disk: &'a Disk,
    sysroot: &'a Path,
    evidence_mount: &'a Path,
    volumes: &'a [policy::Volume],
    /// Names the image, in the record of what was seeded.
    mark: &'a str,
    warnings: &'a mut Vec<String>,
    tick: &'a mut dyn FnMut(),
}

/// A mounted volume.
struct Mounted {
    report: report::Volume,
    folder: OwnedFd,
}

/// What is to be done with a volume.
#[derive(Debug)]
enum Finding {
    /// It holds nothing: make a file system.
    Blank,
    /// In order, or put in order again.
    Sound { repaired: bool },
    /// Not usable: why.
    Damaged(String),
}

/// A volume's place and what is known of it.
struct Known {
    index: usize,
    finding: Finding,
    device: Partition,
    found: Option<Super>,
    /// Evidence that no other volume could take, for its own new file system.
    evidence: Option<Evidence>,
}

/// Why an attempt ended.
enum Stop {
    /// The boot can't go on.
    Failed(Failure),
    /// A volume that seemed to be sound is not: its position and why.
    Condemned(usize, String),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Stop {
        Stop::Failed(failure)
    }
}

fn failure(what: impl Into<String>, why: impl std::fmt::Display, way_out: &str) -> Failure {
    Failure::new("volumes", what, why, way_out)
}

impl Stage<'_> {
    /// Tries until all is mounted. Each try that ends otherwise has condemned one more volume, so there are few.
    fn run(&mut self) -> Result<Vec<Mounted>, Failure> {
        let mut condemned = BTreeMap::new();
        loop {
            let (position, why) = match self.attempt(&condemned) {
                Ok(mounted) => return Ok(mounted),
                Err(Stop::Failed(failure)) => return Err(failure),
                Err(Stop::Condemned(position, why)) => (position, why),
            };
            if let Some(before) = condemned.insert(position, why.clone()) {
                let what = format!("volume {:?}", self.volumes[position].name);
                return Err(failure(what, format!("{why}, after it was made anew because: {before}"), "replace the disk"));
            }
        }
    }

    fn attempt(&mut self, condemned: &BTreeMap<usize, String>) -> Result<Vec<Mounted>, Stop> {
        let on_disk = |why: String| failure(self.disk.path.display().to_string(), why, "write the disk image anew, or restore the disk");
        let mut partitions = Partitions::open(self.disk).map_err(on_disk)?;
        let repairs = partitions.repairs.join("; ");
        let mut places = Vec::new();
        for volume in self.volumes {
            let found = partitions.find(volume);
            let what = || format!("volume {:?} on {}", volume.name, self.disk.path.display());
            places.push(found.map_err(|why| failure(what(), why, "use the disk image that belongs to this image, or correct [[volume]]"))?);
        }
        partitions.save(partitions.table.clone(), &places).map_err(on_disk)?;
        if !repairs.is_empty() {
            self.warnings.push(format!("The partition table of {} was repaired: {repairs}.", self.disk.path.display()));
        }

        let mut known = Vec::new();
        for (position, &index) in places.iter().enumerate() {
            known.push(self.assess(position, index, &partitions, condemned.get(&position))?);
        }
        let mut table = partitions.table.clone();
        self.prepare_replacements(&mut known, &mut table)?;
        let table = self.grown(&known, table);
        let before: Vec<u64> = known.iter().map(|known| known.device.bytes).collect();
        let indexes: Vec<usize> = known.iter().map(|known| known.index).collect();
        partitions.save(table, &indexes).map_err(on_disk)?;
        for known in &mut known {
            known.device = partitions.device(known.index).map_err(on_disk)?;
        }
        self.make_all(&known)?;
        let mut made = partitions.table.clone();
        for &index in &indexes {
            if let Some(partition) = &mut made.partitions[index] {
                partition.attributes &= !ATTR_MAKING;
            }
        }
        partitions.save(made, &indexes).map_err(on_disk)?;
        self.mount_all(known, &before)
    }

    /// Looks at a volume, and repairs what can be repaired.
    fn assess(&mut self, position: usize, index: usize, partitions: &Partitions, condemned: Option<&String>) -> Result<Known, Failure> {
        let volume = &self.volumes[position];
        let what = format!("volume {:?}, partition {} of {}", volume.name, index + 1, self.disk.path.display());
        let device = partitions.device(index).map_err(|why| failure(&what, why, "look for messages about the disk in the kernel's log"))?;
        let making = partitions.table.partitions[index].as_ref().is_some_and(|p| p.attributes & ATTR_MAKING != 0);
        let mut known = Known { index, finding: Finding::Blank, device, found: None, evidence: None };
        if making {
            return Ok(known);
        }
        let content = File::open(&known.device.path).and_then(|file| probe::probe(&file, known.device.bytes));
        known.finding = match (content, condemned) {
            (Ok(Content::Ext4(found)), Some(why)) => {
                known.found = Some(found);
                Finding::Damaged(why.clone())
            }
            (_, Some(why)) => Finding::Damaged(why.clone()),
            (Ok(Content::Blank), None) => Finding::Blank,
            (Ok(Content::Foreign(kind)), None) => Finding::Damaged(format!("it holds {kind}, not ext4")),
            (Err(error), None) => Finding::Damaged(format!("it can't be read: {error}")),
            (Ok(Content::Ext4(found)), None) => {
                known.found = Some(found);
                let checked = self.programs().check(&known.device.path, known.device.bytes, false);
                match checked.map_err(|why| failure(&what, why, "put e2fsprogs into the image"))? {
                    Checked::Clean => Finding::Sound { repaired: false },
                    Checked::Repaired(said) => {
                        self.warnings.push(format!("Volume {:?} was repaired: {said}.", volume.name));
                        Finding::Sound { repaired: true }
                    }
                    Checked::Damaged(why) => Finding::Damaged(why),
                }
            }
        };
        Ok(known)
    }

    /// Ends the boot for a damaged volume, or sees to it that evidence is kept: the whole volume where the disk has room, parts on a sound volume
    /// else, and if there is none in memory, for its own new file system.
    fn prepare_replacements(&mut self, known: &mut [Known], table: &mut Table) -> Result<(), Failure> {
        for position in 0..known.len() {
            let volume = &self.volumes[position];
            let Finding::Damaged(why) = &known[position].finding else { continue };
            let what = format!("volume {:?} ({})", volume.name, known[position].device.path.display());
            if volume.on_damage == OnDamage::Fail {
                return Err(failure(what, why, "restore the volume, or let the image say on_damage = \"recreate\" for it"));
            }
            let said = format!("Volume {:?} was damaged ({why}) and was made anew", volume.name);
            let id = super::identity::random().map_err(|e| failure(&what, format!("the kernel gives no random bytes: {e}"), "try again"))?;
            if let Some((with_new, index)) = grow::set_aside(table, known[position].index, gpt::Guid::from_text_order(id)) {
                self.warnings.push(format!("{said}; the damaged one is kept whole as partition {} (damaged-{}).", known[position].index + 1, volume.name));
                (*table, known[position].index) = (with_new, index);
                continue;
            }
            let device = &known[position].device;
            let opened = File::open(&device.path).map_err(|e| failure(&what, e, "replace the disk"))?;
            let evidence = Evidence::take(&volume.name, &opened, device.bytes, known[position].found.as_ref());
            match self.keep_elsewhere(known, &evidence) {
                Some(place) => self.warnings.push(format!("{said}; parts of the damaged one are kept as {place}.")),
                None => {
                    self.warnings.push(format!("{said}; no other volume could take parts of the damaged one before."));
                    known[position].evidence = Some(evidence);
                }
            }
        }
        Ok(())
    }

    /// Writes evidence to the first sound volume that takes it; where that is.
    fn keep_elsewhere(&self, known: &[Known], evidence: &Evidence) -> Option<String> {
        let sound = known.iter().zip(self.volumes).filter(|(known, _)| matches!(known.finding, Finding::Sound { .. }));
        for (known, volume) in sound {
            if std::fs::create_dir_all(self.evidence_mount).is_err() {
                return None;
            }
            let kept = beneath::open_trusted(self.evidence_mount).and_then(|folder| ext4::mount_on(&known.device.path, &folder)).map(|()| {
                let kept = beneath::open_trusted(self.evidence_mount).map_err(std::io::Error::from).and_then(|volume| evidence.keep(&volume));
                // Nothing is open in it any more.
                let unmounted = umount2(self.evidence_mount, MntFlags::empty());
                kept.and_then(|path| unmounted.map(|()| path).map_err(std::io::Error::from))
            });
            if let Ok(Ok(path)) = kept {
                return Some(format!("{}/{path}", volume.mount));
            }
        }
        None
    }

    /// The table with the disk's free space given out and what is to be made claimed.
    fn grown(&self, known: &[Known], table: Table) -> Table {
        let volumes = known.iter().zip(self.volumes);
        let growable: Vec<grow::Growable> = volumes
            .map(|(known, volume)| grow::Growable { index: known.index, weight: volume.weight, blank: matches!(known.finding, Finding::Blank) })
            .collect();
        let mut table = grow::plan(&table, self.disk.sectors, &growable);
        for known in known.iter().filter(|known| !matches!(known.finding, Finding::Sound { .. })) {
            if let Some(partition) = &mut table.partitions[known.index] {
                partition.attributes |= ATTR_MAKING;
            }
        }
        table
    }

    fn make_all(&mut self, known: &[Known]) -> Result<(), Failure> {
        for (known, volume) in known.iter().zip(self.volumes) {
            if matches!(known.finding, Finding::Sound { .. }) {
                continue;
            }
            let made = self.programs().make(&known.device.path, known.device.bytes, &volume.name);
            let what = || format!("making a file system for volume {:?} on {}", volume.name, known.device.path.display());
            made.map_err(|why| failure(what(), why, "put e2fsprogs into the image, or write volumes = []"))?;
        }
        Ok(())
    }

    fn programs(&mut self) -> Programs<'_> {
        Programs { sysroot: self.sysroot, tick: &mut *self.tick }
    }

    /// Mounts all, parents first, and seeds each before the next is mounted in it.
    fn mount_all(&mut self, known: Vec<Known>, before: &[u64]) -> Result<Vec<Mounted>, Stop> {
        let way_out = "add the mount point to the image as a folder";
        let sysroot = beneath::open_trusted(self.sysroot).map_err(|e| failure("the root", e, "report this"))?;
        // All of the image's folders while nothing hides them.
        let mut images = Vec::new();
        for volume in self.volumes {
            images.push(match beneath::open_path(&sysroot, below_root(&volume.mount)) {
                Ok(folder) => Some(folder),
                Err(Errno::ENOENT) if self.volumes.iter().any(|parent| is_below(&volume.mount, &parent.mount)) => None,
                Err(error) => return Err(failure(format!("volume {:?}: the image's {}", volume.name, volume.mount), error, way_out).into()),
            });
        }
        let mut mounted: Vec<Mounted> = Vec::new();
        for (position, (known, image)) in known.into_iter().zip(images).enumerate() {
            match self.mount_one(position, known, before[position], image.as_ref(), &sysroot, &mounted) {
                Ok(one) => mounted.push(one),
                Err(stop) => {
                    // For the next try. What can't be unmounted will be found busy there, and be said.
                    while let Some(one) = mounted.pop() {
                        drop(one.folder);
                        let _ = umount2(&self.sysroot.join(below_root(&one.report.mount)), MntFlags::UMOUNT_NOFOLLOW);
                    }
                    return Err(stop);
                }
            }
        }
        Ok(mounted)
    }

    fn mount_one(
        &mut self,
        position: usize,
        known: Known,
        before: u64,
        image: Option<&OwnedFd>,
        sysroot: &OwnedFd,
        mounted: &[Mounted],
    ) -> Result<Mounted, Stop> {
        let volume = &self.volumes[position];
        let device = &known.device;
        let what = format!("volume {:?} ({}) at {}", volume.name, device.path.display(), volume.mount);
        let parent = mounted.iter().filter(|one| is_below(&volume.mount, &one.report.mount)).max_by_key(|one| one.report.mount.len());
        let (base, path) = match parent {
            Some(parent) => (&parent.folder, Path::new(&volume.mount[parent.report.mount.len() + 1..])),
            None => (sysroot, below_root(&volume.mount)),
        };
        let others: Vec<PathBuf> = (self.volumes.iter())
            .filter(|other| is_below(&other.mount, &volume.mount))
            .map(|other| PathBuf::from(&other.mount[volume.mount.len() + 1..]))
            .collect();
        let mut repaired = matches!(known.finding, Finding::Sound { repaired: true });
        let mut doubted = false;
        let (folder, seeded) = loop {
            let point = mount_point(base, path, parent.is_some(), self.warnings);
            let point = point.map_err(|e| failure(format!("{what}: its mount point"), e, "make it a folder in the image"))?;
            let trouble = match ext4::mount_on(&device.path, &point) {
                Ok(()) => {
                    let folder = beneath::open_path(base, path).map_err(|e| failure(format!("{what}: opening it"), e, "look for messages about the disk"))?;
                    self.grow_file_system(volume, device, &folder);
                    match image.map_or(Ok(0), |image| seed::seed(image, &folder, &others, self.mark, self.tick)) {
                        Ok(seeded) => break (folder, seeded),
                        Err(unseeded) if !unseeded.is_damage() => {
                            let (path, why) = (unseeded.path.display(), &unseeded.why);
                            self.warnings.push(format!("Volume {:?} lacks some of what the image has for it: {path}: {why}.", volume.name));
                            break (folder, 0);
                        }
                        Err(unseeded) => {
                            drop(folder);
                            drop(point);
                            let unmounted = umount2(&self.sysroot.join(below_root(&volume.mount)), MntFlags::UMOUNT_NOFOLLOW);
                            unmounted.map_err(|e| failure(format!("{what}: unmounting it to repair it"), e, "boot again"))?;
                            format!("{}: {}", unseeded.path.display(), unseeded.why)
                        }
                    }
                }
                Err(error @ (Errno::EINVAL | Errno::EIO | Errno::EUCLEAN | Errno::EBADMSG | Errno::ENOTSUP)) => format!("mounting it: {error}"),
                Err(error) => return Err(failure(what, format!("mounting it: {error}"), "look for ext4 in the kernel and its modules").into()),
            };
            if doubted {
                return Err(Stop::Condemned(position, trouble));
            }
            doubted = true;
            match self.programs().check(&device.path, device.bytes, true).map_err(|why| failure(&what, why, "put e2fsprogs into the image"))? {
                Checked::Damaged(why) => return Err(Stop::Condemned(position, format!("{trouble}; {why}"))),
                Checked::Clean | Checked::Repaired(_) => repaired = true,
            }
            self.warnings.push(format!("Volume {:?} was repaired: {trouble}.", volume.name));
        };
        if let Some(evidence) = &known.evidence {
            self.warnings.push(match evidence.keep(&folder) {
                Ok(path) => format!("Parts of the damaged volume {:?} are kept as {}/{path}.", volume.name, volume.mount),
                Err(error) => format!("Nothing of the damaged volume {:?} could be kept: {error}.", volume.name),
            });
        }
        let state = match known.finding {
            Finding::Blank => "made",
            Finding::Damaged(_) => "recreated",
            Finding::Sound { .. } if repaired => "repaired",
            Finding::Sound { .. } => "clean",
        };
        let report = report::Volume {
            name: volume.name.clone(),
            device: device.path.display().to_string(),
            mount: volume.mount.clone(),
            bytes: device.bytes,
            state: state.to_owned(),
            grown_by: device.bytes.saturating_sub(before),
            seeded,
        };
        Ok(Mounted { report, folder })
    }

    /// A file system that is smaller than its partition is grown; one that can't be is still good for what it holds.
    fn grow_file_system(&mut self, volume: &policy::Volume, device: &Partition, folder: &OwnedFd) {
        let found = File::open(&device.path).and_then(|file| probe::probe(&file, device.bytes));
        let Ok(Content::Ext4(found)) = found else { return };
        let blocks = device.bytes / found.block;
        if blocks > found.blocks
            && let Err(error) = ext4::grow(folder, blocks)
        {
            self.warnings.push(format!("Volume {:?} could not be grown to its partition's {} bytes: {error}.", volume.name, device.bytes));
        }
    }
}

/// A mount point as a path relative to the root.
fn below_root(mount: &str) -> &Path {
    Path::new(mount.trim_start_matches('/'))
}

/// The folder to mount on. In a volume, which is somebody else's work, it is made where it is missing, and what else is there is moved aside.
fn mount_point(base: &OwnedFd, path: &Path, in_volume: bool, warnings: &mut Vec<String>) -> nix::Result<OwnedFd> {
    if !in_volume {
        return beneath::open_path(base, path);
    }
    let mut folder = beneath::open_path(base, Path::new(""))?;
    for name in path {
        let name = beneath::c_name(name).ok_or(Errno::EINVAL)?;
        if let Some(aside) = beneath::folder_or_aside(&folder, &name)? {
            warnings.push(format!("{} in a volume was no folder and is now {}.", path.display(), aside.to_string_lossy()));
        }
        folder = beneath::open_folder(&folder, &name)?;
    }
    Ok(folder)
}
