//! Mounts the volumes, parents first. Each is grown to its partition's size and seeded before a
//! volume below it is mounted.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use adamant_contract::paths::AGENT_STATE_DIR;
use adamant_contract::policy::{self, is_below};
use adamant_contract::report::{self, VolumeState};
use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use nix::sys::stat::SFlag;

use super::evidence;
use super::ext4::FsckResult;
use super::ext4_kernel;
use super::image_data::ImageDataSource;
use super::probe::{self, PartitionContent};
use super::progress::Progress;
use super::reserve;
use super::seed::{self, KeptUnits, NAMED, SeedOutcome};
use super::{AssessedVolume, Assessment, AttemptError, Condemned, Mounted, VolumesStage, failure};
use crate::kernel::block::KernelPartition;
use crate::kernel::rooted_fs;

/// The remedy for a volume that newer programs made.
const NEWER_IMAGE: &str =
    "start the image that made the volume, or one whose kernel and e2fsprogs are as new";

impl VolumesStage<'_> {
    /// Mounts all volumes, parents first, and seeds each before a volume below it is mounted.
    pub(super) fn mount_all(
        &mut self,
        known: &mut [AssessedVolume],
        before: &[u64],
    ) -> Result<Vec<Mounted>, AttemptError> {
        let remedy = "add the mount point to the image as a folder";
        let sysroot = rooted_fs::open_trusted(self.sysroot)
            .map_err(|e| failure("the root", e, "report this"))?;
        // The image's directories are opened while no volume hides them.
        let mut images = Vec::new();
        for volume in self.volumes {
            images.push(
                match rooted_fs::open_path(&sysroot, below_root(&volume.mount)) {
                    Ok(folder) => Some(folder),
                    Err(Errno::ENOENT)
                        if self
                            .volumes
                            .iter()
                            .any(|parent| is_below(&volume.mount, &parent.mount)) =>
                    {
                        None
                    }
                    Err(error) => {
                        return Err(failure(
                            format!("volume {:?}: the image's {}", volume.name, volume.mount),
                            error,
                            remedy,
                        )
                        .into());
                    }
                },
            );
        }
        let sources = self.open_image_data(&sysroot);
        let mut mounted: Vec<Mounted> = Vec::new();
        for (position, image) in images.iter().enumerate() {
            match self.mount_one(
                position,
                known,
                before[position],
                image.as_ref(),
                &sysroot,
                &mounted,
            ) {
                Ok(one) => mounted.push(one),
                Err(stop) => {
                    // For the next attempt, which reports a volume that can't be unmounted as busy.
                    while let Some(one) = mounted.pop() {
                        drop(one.folder);
                        let _ = umount2(
                            &self.sysroot.join(below_root(&one.report.mount)),
                            MntFlags::UMOUNT_NOFOLLOW,
                        );
                    }
                    return Err(stop);
                }
            }
        }
        self.show_image_data(&sources, &mounted);
        self.make_state_directory(&mounted);
        self.keep_reserves(&mounted);
        Ok(mounted)
    }

    /// Opens the image's data that is to be shown on volumes, before a volume hides it.
    fn open_image_data(&mut self, sysroot: &OwnedFd) -> Vec<ImageDataSource> {
        let mut sources = Vec::new();
        for path in self.image_data {
            match ImageDataSource::open(sysroot, path) {
                Ok(source) => sources.push(source),
                Err(error) => self.warnings.push(format!(
                    "The image's {path} can't be shown on its volume: {error}."
                )),
            }
        }
        sources
    }

    /// Shows the image's data on the volumes. A path that can't be shown does not stop the boot:
    /// the report and `adamant-agent drift` name it.
    fn show_image_data(&mut self, sources: &[ImageDataSource], mounted: &[Mounted]) {
        self.shown.clear();
        for source in sources {
            let Some(volume) = volume_of(&source.path, mounted) else {
                continue;
            };
            let place = Path::new(&source.path[volume.report.mount.len() + 1..]);
            match self.with_reserve(volume, || source.mount_at(&volume.folder, place)) {
                Ok(aside) => {
                    self.shown.push(source.path.clone());
                    if let Some(aside) = aside {
                        self.warnings.push(format!("{} on volume {:?} had another type, or was behind a link: that is now {aside}.", source.path, volume.report.name));
                    }
                }
                Err(error) => self.warnings.push(format!(
                    "The image's {} can't be shown on volume {:?}: {error}. Remove the file or directory at this path on the volume, and reboot.",
                    source.path, volume.report.name
                )),
            }
        }
    }

    /// Makes the directory of the agent's state, if it is on a volume. Another entry of this name
    /// is removed: with a file there, the scrub could not store its state.
    fn make_state_directory(&mut self, mounted: &[Mounted]) {
        let Some(volume) = volume_of(AGENT_STATE_DIR, mounted) else {
            return;
        };
        let below = Path::new(&AGENT_STATE_DIR[volume.report.mount.len() + 1..]);
        let (Some(above), Some(name)) = (
            below.parent(),
            below.file_name().and_then(rooted_fs::c_name),
        ) else {
            return;
        };
        let made = self.with_reserve(volume, || {
            // A link that somebody made above stays: the server starts without this directory.
            let above = match rooted_fs::open_path(&volume.folder, above) {
                Err(Errno::ENOENT) => rooted_fs::make_path(&volume.folder, above)?.0,
                other => other?,
            };
            let own = rooted_fs::own_folder(above, &name)?;
            // Only files of the scrub: it could not replace a directory, and would wait for a FIFO.
            for file in [c"scrub.json", c"scrub.json.new"] {
                if rooted_fs::stat_entry(&own, file)?
                    .is_some_and(|found| rooted_fs::kind(&found) != SFlag::S_IFREG)
                {
                    rooted_fs::remove_tree(&own, file)?;
                }
            }
            Ok(())
        });
        if let Err(error) = made {
            self.warnings.push(format!(
                "{AGENT_STATE_DIR} on volume {:?} could not be made: {error}. The scrub starts from the beginning at each boot.",
                volume.report.name
            ));
        }
    }

    /// Keeps the reserve on each volume with a mount point below it. A volume without room gets it
    /// at a later boot.
    fn keep_reserves(&mut self, mounted: &[Mounted]) {
        let paths = self.volumes.iter().map(|volume| volume.mount.as_str());
        let paths: Vec<&str> = paths
            .chain(self.image_data.iter().map(String::as_str))
            .collect();
        for volume in mounted {
            let mount = &volume.report.mount;
            if paths.iter().any(|path| is_below(path, mount))
                && let Err(error) = reserve::keep(&volume.folder)
            {
                self.warnings.push(format!(
                    "Volume {:?} has no reserve for mount points on a full volume: {error}. If it is full, free some space on it.",
                    volume.report.name
                ));
            }
        }
    }

    /// Opens a directory on a volume to mount on. The volume's content is not trusted: a missing
    /// directory is made, and anything of another type is moved aside.
    fn make_mount_point(&mut self, parent: &Mounted, path: &Path) -> nix::Result<OwnedFd> {
        let (point, aside) =
            self.with_reserve(parent, || rooted_fs::make_path(&parent.folder, path))?;
        self.warn_of_aside(path, aside);
        Ok(point)
    }

    fn warn_of_aside(&mut self, path: &Path, aside: Option<CString>) {
        if let Some(aside) = aside {
            self.warnings.push(format!(
                "{} in a volume was not a directory and is now {}.",
                path.display(),
                aside.to_string_lossy()
            ));
        }
    }

    /// Runs an operation on a volume, with its reserve if it is full.
    fn with_reserve<T>(
        &mut self,
        volume: &Mounted,
        operation: impl FnMut() -> nix::Result<T>,
    ) -> nix::Result<T> {
        let (result, used) = reserve::with_reserve(&volume.folder, operation)?;
        if used {
            self.warnings.push(format!(
                "Volume {:?} is full: its reserve was used for a directory that the server needs. Free some space on it.",
                volume.report.name
            ));
        }
        Ok(result)
    }

    fn mount_one(
        &mut self,
        position: usize,
        known: &mut [AssessedVolume],
        before: u64,
        image: Option<&OwnedFd>,
        sysroot: &OwnedFd,
        mounted: &[Mounted],
    ) -> Result<Mounted, AttemptError> {
        let volume = &self.volumes[position];
        let device = known[position].device.clone();
        let what = format!(
            "volume {:?} ({}) at {}",
            volume.name,
            device.path.display(),
            volume.mount
        );
        let parent = volume_of(&volume.mount, mounted);
        let (base, path) = match parent {
            Some(parent) => (
                &parent.folder,
                Path::new(&volume.mount[parent.report.mount.len() + 1..]),
            ),
            None => (sysroot, below_root(&volume.mount)),
        };
        let others = self
            .volumes
            .iter()
            .map(|other| &other.mount)
            .chain(self.image_data);
        let covered: Vec<PathBuf> = others
            .filter(|path| is_below(path, &volume.mount))
            .map(|path| PathBuf::from(&path[volume.mount.len() + 1..]))
            .collect();
        let mut repaired = matches!(
            known[position].finding,
            Assessment::Sound { repaired: true }
        );
        let mut doubted = false;
        let (folder, outcome) = loop {
            let made = match parent {
                Some(parent) => self.make_mount_point(parent, path),
                // In the image it must exist.
                None => rooted_fs::open_path(base, path),
            };
            let point = made.map_err(|e| {
                failure(
                    format!("{what}: its mount point"),
                    e,
                    "make it a directory in the image",
                )
            })?;
            let trouble = match ext4_kernel::mount_on(
                &device.path,
                &point,
                self.executable.contains(&volume.name),
            ) {
                Ok(()) => {
                    let folder = rooted_fs::open_path(base, path).map_err(|e| {
                        failure(
                            format!("{what}: opening it"),
                            e,
                            "look for messages about the disk",
                        )
                    })?;
                    if !matches!(known[position].finding, Assessment::Unchecked(_)) {
                        self.grow_file_system(volume, &device, &folder);
                    }
                    let mut progress =
                        Progress::new(format!("seeding volume {:?}", volume.name), self.tick);
                    let mut tick = || progress.alive(&String::new);
                    let seeded = image.map_or_else(
                        || Ok(SeedOutcome::default()),
                        |image| {
                            let request = seed::SeedRequest {
                                image,
                                volume: &folder,
                                mount: &volume.mount,
                                covered: &covered,
                                refresh: volume.refresh,
                                mark: self.mark,
                            };
                            seed::seed(&request, &mut seed::Pace::new(&mut tick))
                        },
                    );
                    match seeded {
                        Ok(outcome) => break (folder, outcome),
                        Err(fault) if fault.of_image && fault.is_damage() => {
                            let path = format!("{}/{}", volume.mount, fault.path.display());
                            return Err(failure(
                                format!("{what}: reading {path} of the image"),
                                fault.why,
                                "write the disk image anew",
                            )
                            .into());
                        }
                        Err(fault) if !fault.is_damage() => {
                            let (path, why) = (fault.path.display(), &fault.why);
                            self.warnings.push(format!(
                                "Nothing was seeded on volume {:?}: {path}: {why}.",
                                volume.name
                            ));
                            break (folder, SeedOutcome::default());
                        }
                        Err(fault) => {
                            drop(folder);
                            drop(point);
                            let unmounted = umount2(
                                &self.sysroot.join(below_root(&volume.mount)),
                                MntFlags::UMOUNT_NOFOLLOW,
                            );
                            unmounted.map_err(|e| {
                                failure(
                                    format!("{what}: unmounting it to repair it"),
                                    e,
                                    "boot again",
                                )
                            })?;
                            format!("{}: {}", fault.path.display(), fault.why)
                        }
                    }
                }
                Err(
                    error @ (Errno::EINVAL
                    | Errno::EIO
                    | Errno::EUCLEAN
                    | Errno::EBADMSG
                    | Errno::ENOTSUP),
                ) => format!("mounting it: {}", error.desc()),
                Err(error) => {
                    return Err(failure(
                        what,
                        format!("mounting it: {}", error.desc()),
                        "look for ext4 in the kernel and its modules",
                    )
                    .into());
                }
            };
            let features = known[position]
                .found
                .as_ref()
                .map(|found| found.features)
                .unwrap_or_default();
            let unknown = match &known[position].finding {
                Assessment::Unchecked(unsupported) => Some(unsupported.why.clone()),
                _ => ext4_kernel::unknown_to_kernel(&device.name, features),
            };
            if let Some(unknown) = unknown {
                return Err(failure(what, format!("{trouble}: {unknown}"), NEWER_IMAGE).into());
            }
            if doubted {
                let why = format!("{trouble}, although e2fsck found no errors or repaired them");
                return Err(failure(what, why, "look at the kernel's log, and at the volume on another machine: nothing on it was replaced").into());
            }
            doubted = true;
            match self.repair(position, known)? {
                FsckResult::Damaged(why) => {
                    let condemned = Condemned {
                        why: format!("{trouble}; {why}"),
                        kept: known[position].kept.clone(),
                    };
                    return Err(AttemptError::Condemned(position, condemned));
                }
                FsckResult::Unsupported(unsupported) => {
                    return Err(failure(
                        what,
                        format!("{trouble}: {}", unsupported.why),
                        NEWER_IMAGE,
                    )
                    .into());
                }
                FsckResult::Clean | FsckResult::Repaired(_) => repaired = true,
            }
            self.warnings.push(format!(
                "Volume {:?} was repaired: {trouble}; {}.",
                volume.name, known[position].kept
            ));
        };
        let known = &known[position];
        if let Assessment::Unchecked(unsupported) = &known.finding {
            let (name, why) = (&volume.name, &unsupported.why);
            self.warnings.push(format!("Volume {name:?} was mounted without a check: {why}. To have it checked, boot an image with an e2fsck that knows them."));
        }
        if let evidence::EvidenceState::InMemory(evidence) = &known.kept {
            self.warnings.push(match evidence.save(&folder) {
                Ok(path) => format!(
                    "Evidence of the damaged volume {:?} is kept as {}/{path}.",
                    volume.name, volume.mount
                ),
                Err(error) => format!(
                    "No evidence of the damaged volume {:?} could be kept: {error}.",
                    volume.name
                ),
            });
        }
        let state = match known.finding {
            Assessment::Blank => VolumeState::Made,
            Assessment::Doubtful(_) | Assessment::Damaged(_) => VolumeState::Recreated,
            Assessment::Unchecked(_) => VolumeState::Unchecked,
            Assessment::Sound { .. } if repaired => VolumeState::Repaired,
            Assessment::Sound { .. } => VolumeState::Clean,
        };
        self.warn_of(volume, &outcome);
        let lacking: Vec<String> = outcome
            .lacking
            .into_iter()
            .map(|(name, _)| name)
            .take(NAMED)
            .collect();
        let report = report::VolumeReport {
            name: volume.name.clone(),
            device: device.path.display().to_string(),
            mount: volume.mount.clone(),
            bytes: device.bytes,
            state,
            grown_by: device.bytes.saturating_sub(before),
            seeded: outcome.seeded,
            replaced: outcome.replaced,
            kept: outcome.kept.names,
            kept_more: outcome.kept.more,
            lacking,
        };
        Ok(Mounted { report, folder })
    }

    /// Warns about results of seeding that an operator should know.
    fn warn_of(&mut self, volume: &policy::Volume, outcome: &SeedOutcome) {
        let name = &volume.name;
        if let Some((first, why)) = outcome.lacking.first() {
            let (count, rest) = (
                outcome.lacking.len(),
                if outcome.seeded > 0 {
                    "the others were seeded"
                } else {
                    "nothing was seeded at this boot"
                },
            );
            self.warnings.push(format!(
                "Volume {name:?} lacks {count} of the units that the image has for it; {rest}. {first}: {why}. Write a larger size for the volume, or give it a larger disk."
            ));
        }
        for (unit, why) in outcome.unreplaced.iter().take(NAMED) {
            self.warnings.push(format!("Volume {name:?}: {unit} could not be replaced by the image's and stays as it is: {why}."));
        }
        if outcome.compared && outcome.kept != KeptUnits::default() {
            self.warnings.push(format!(
                "Volume {name:?}: these were changed on this server and stay as they are, so the image's newer content is not used: {}.",
                outcome.kept.listed()
            ));
        }
    }

    /// Grows a file system that is smaller than its partition. A failure is a warning only, because
    /// the data remains usable.
    fn grow_file_system(
        &mut self,
        volume: &policy::Volume,
        device: &KernelPartition,
        folder: &OwnedFd,
    ) {
        let found = File::open(&device.path).and_then(|file| probe::probe(&file, device.bytes));
        let Ok(PartitionContent::Ext4(found)) = found else {
            return;
        };
        let blocks = device.bytes / found.block;
        if blocks <= found.blocks {
            return;
        }
        let mut progress = Progress::new(format!("growing volume {:?}", volume.name), self.tick);
        match ext4_kernel::grow(folder, &found, blocks, &mut progress) {
            Ok(now) if now < blocks => {
                let warning = format!(
                    "Volume {:?} was grown to only {now} of {blocks} blocks, because growing takes long: the next boot continues.",
                    volume.name
                );
                self.warnings.push(warning);
            }
            Ok(_) => {}
            Err(error) => self.warnings.push(format!(
                "Volume {:?} could not be grown to its partition's {} bytes: {error}.",
                volume.name, device.bytes
            )),
        }
    }
}

/// A mount point as a path relative to the root.
fn below_root(mount: &str) -> &Path {
    Path::new(mount.trim_start_matches('/'))
}

/// The volume that a path is on.
fn volume_of<'a>(path: &str, mounted: &'a [Mounted]) -> Option<&'a Mounted> {
    mounted
        .iter()
        .filter(|one| is_below(path, &one.report.mount))
        .max_by_key(|one| one.report.mount.len())
}
