//! The numbers by which the running kernel knows objects of the image, the host, the volumes and
//! the policy's exceptions.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use adamant_contract::paths::{AGENT_PATH, AGENT_STATE_DIR, IDENTITY_DIR, SYSROOT};
use adamant_contract::policy::{Seal, is_below};
use adamant_contract::report::BootReport;
use nix::fcntl::OFlag;
use nix::sys::stat::{major, minor};

use super::super::identity::Identified;
use super::super::root;
use super::super::volumes::reserve::RESERVE_DIR;
use crate::kernel::block;
use crate::kernel::guard_abi::UNUSED;

/// Programs of systemd that the guard knows by their inode.
const SHUTDOWN: &str = "/usr/lib/systemd/systemd-shutdown";
const MANAGER: &str = "/usr/lib/systemd/systemd";
const EXECUTOR: &str = "/usr/lib/systemd/systemd-executor";
const KMOD: &str = "/usr/bin/kmod";
/// A link to udevadm.
pub const UDEVD: &str = "/usr/lib/systemd/systemd-udevd";
const MODULES_LOAD: &str = "/usr/lib/systemd/systemd-modules-load";
/// Programs that set the system clock: systemd's (also on request of timedatectl), chrony, ntpsec
/// and OpenNTPD, ntpd-rs, those of linuxptp, and VMware's agent. hwclock is not among them: it sets
/// the hardware clock for QEMU's guest agent, but anyone may start it.
const CLOCK_PROGRAMS: [&str; 9] = [
    "/usr/lib/systemd/systemd-timesyncd",
    "/usr/lib/systemd/systemd-timedated",
    "/usr/sbin/chronyd",
    "/usr/sbin/ntpd",
    "/usr/bin/ntp-daemon",
    "/usr/sbin/ptp4l",
    "/usr/sbin/phc2sys",
    "/usr/sbin/ts2phc",
    "/usr/bin/vmtoolsd",
];
/// The agent's files in its directory on a volume.
pub(super) const AGENT_FILES: [&str; 4] = ["machine-id", "seeded", "damaged", RESERVE_DIR];

/// Without this directory, services with PrivateTmp= do not start.
const TEMPORARY: &str = "/var/tmp";
/// Room for directories above mount points in the guard's list.
pub(super) const PINNED: usize = 128;

/// The numbers of objects in the running kernel. Devices are as the kernel encodes them
/// (include/linux/kdev_t.h). Programs are inodes of the image; 0 for a program that the image does
/// not have.
#[derive(Clone, Default)]
pub(super) struct Numbers {
    pub(super) root_device: u32,
    pub(super) run_device: u32,
    pub(super) host_namespace: u32,
    pub(super) root_mount: u32,
    pub(super) shutdown: u64,
    pub(super) agent: u64,
    pub(super) manager: u64,
    pub(super) executor: u64,
    pub(super) kmod: u64,
    pub(super) udev: u64,
    pub(super) modules_load: u64,
    pub(super) build_time: i64,
    pub(super) black_box: u32,
    /// Volumes by name.
    pub(super) volumes: Vec<(String, u32)>,
    /// Keys of the agent's directories and files on volumes.
    pub(super) agent_owned: Vec<u64>,
    /// Keys of the directories on volumes that lead to mount points.
    pub(super) pinned: Vec<u64>,
    /// Devices of the kernel's own file systems.
    pub(super) fixed: Vec<u32>,
    /// Devices of file systems in memory that anything may be mounted below.
    pub(super) memory: Vec<u32>,
    /// The device of the BPF file system with the guard's links.
    pub(super) pins: u32,
    /// Partitions of the root's disk that the policy names, by label.
    pub(super) partitions: BTreeMap<String, u32>,
    /// Keys of the directories that the policy names, by path.
    pub(super) directories: BTreeMap<String, u64>,
    pub(super) interpreters: Vec<u64>,
    pub(super) clocks: Vec<u64>,
}

impl Numbers {
    pub(super) fn look_up(
        identified: &Identified,
        seal: &Seal,
        pins: &str,
        report: &BootReport,
    ) -> Result<Numbers, String> {
        let root_device = device_of(SYSROOT)?;
        let program = |path: &str| {
            in_image(path)
                .filter(|(device, _)| *device == root_device)
                .map_or(0, |(_, inode)| inode)
        };
        let host_namespace = fs::metadata("/proc/self/ns/mnt")
            .map_err(|e| format!("/proc/self/ns/mnt: {e}"))?
            .ino() as u32;
        let mut numbers = Numbers {
            root_device,
            run_device: device_of("/run")?,
            host_namespace,
            root_mount: mount_id(SYSROOT)?,
            shutdown: program(SHUTDOWN),
            agent: program(AGENT_PATH),
            manager: program(MANAGER),
            executor: program(EXECUTOR),
            kmod: program(KMOD),
            udev: program(UDEVD),
            modules_load: program(MODULES_LOAD),
            build_time: report.built,
            black_box: report
                .black_box
                .as_deref()
                .and_then(|path| fs::metadata(path).ok())
                .map_or(0, |found| device(found.rdev())),
            pins: device_of(pins)?,
            ..Numbers::default()
        };
        for volume in &identified.root().policy().volumes {
            let volume_device = device_of(&[SYSROOT, &volume.mount].concat())?;
            let directory = [&volume.mount, "/", IDENTITY_DIR].concat();
            let files = AGENT_FILES.map(|name| [&directory, "/", name].concat());
            numbers.agent_owned.extend(
                std::iter::once(&directory)
                    .chain(&files)
                    .filter_map(|path| in_image(path))
                    .filter(|(device, _)| *device == volume_device)
                    .map(key),
            );
            numbers.volumes.push((volume.name.clone(), volume_device));
        }
        numbers.agent_owned.extend(
            in_image(AGENT_STATE_DIR)
                .filter(|(device, _)| *device != root_device)
                .map(key),
        );
        let policy = identified.root().policy();
        let mounts = policy.volumes.iter().map(|volume| volume.mount.as_str());
        let shown = policy.image_data.iter().map(String::as_str);
        let above = mounts
            .chain(shown)
            .chain([AGENT_STATE_DIR])
            .flat_map(|path| Path::new(path).ancestors().skip(1))
            .filter_map(Path::to_str);
        // Each path once: paths share their first directories.
        let mut paths: Vec<&str> = Vec::new();
        for path in [TEMPORARY].into_iter().chain(above) {
            // The root of a volume is in use, and can't be renamed.
            let is_on_volume = policy
                .volumes
                .iter()
                .any(|volume| is_below(path, &volume.mount));
            if is_on_volume && !paths.contains(&path) {
                paths.push(path);
            }
        }
        numbers.pinned = paths.into_iter().filter_map(in_image).map(key).collect();
        numbers.pinned.truncate(PINNED);
        for path in ["/proc", "/sys", "/dev", "/run"] {
            numbers.fixed.push(device_of(path)?);
        }
        let tmp = device_of(&[SYSROOT, "/tmp"].concat()).unwrap_or(root_device);
        numbers.memory = vec![numbers.run_device, device_of("/dev/shm")?, tmp];
        numbers.memory.retain(|device| *device != root_device);
        for label in &seal.allow.disks {
            if let Some(found) = partition(&identified.root().disk().name, label) {
                numbers.partitions.insert(label.clone(), found);
            }
        }
        for path in &seal.allow.mounts {
            if let Some(found) = in_image(path) {
                numbers.directories.insert(path.clone(), key(found));
            }
        }
        for path in &seal.interpreters {
            let inode = program(path);
            // The builder found this interpreter. Without its inode the guard would not know it,
            // and would let it read scripts from anywhere.
            if inode == 0 {
                return Err([path, " is not a program of the image"].concat());
            }
            numbers.interpreters.push(inode);
        }
        numbers.clocks = CLOCK_PROGRAMS.map(program).to_vec();
        numbers.clocks.retain(|inode| *inode != 0);
        Ok(numbers)
    }
}

/// A directory or file on a volume, as the guard's lists contain it. The guard does not find inode
/// numbers of more than 32 bits: ext4 and EROFS have none.
fn key((device, inode): (u32, u64)) -> u64 {
    if inode >> 32 == 0 {
        u64::from(device) << 32 | inode
    } else {
        UNUSED
    }
}

/// The ID of the mount at a path, as /proc/self/mountinfo lists it. Moving a mount keeps its ID.
fn mount_id(path: &str) -> Result<u32, String> {
    let table = fs::read_to_string("/proc/self/mountinfo")
        .map_err(|e| format!("/proc/self/mountinfo: {e}"))?;
    // The last mount covers earlier ones.
    table
        .lines()
        .rev()
        .map(|line| line.split(' '))
        .find(|fields| fields.clone().nth(4) == Some(path))
        .and_then(|mut fields| fields.next()?.parse().ok())
        .ok_or_else(|| format!("{path} is not a mount point"))
}

/// The device of the file system at a path.
fn device_of(path: &str) -> Result<u32, String> {
    fs::metadata(path)
        .map(|found| device(found.dev()))
        .map_err(|e| format!("{path}: {e}"))
}

/// Device and inode of a path in the image, with its volumes mounted.
fn in_image(path: &str) -> Option<(u32, u64)> {
    let found = root::open_inside(path, OFlag::O_PATH)
        .and_then(|file| file.metadata())
        .ok()?;
    Some((device(found.dev()), found.ino()))
}

/// A device number as the kernel encodes it (include/linux/kdev_t.h).
fn device(dev: u64) -> u32 {
    (major(dev) as u32) << 20 | minor(dev) as u32
}

/// The device number of the disk's partition with this label.
fn partition(disk: &str, label: &str) -> Option<u32> {
    for entry in fs::read_dir(Path::new("/sys/block").join(disk))
        .ok()?
        .flatten()
    {
        if block::label(&entry.path()).as_deref() == Some(label) {
            let number = block::major_minor(entry.file_name().to_str()?).ok()?;
            let (major, minor) = number.split_once(':')?;
            return Some(major.parse::<u32>().ok()? << 20 | minor.parse::<u32>().ok()?);
        }
    }
    None
}
