//! What the guard's programs are told: which numbers stand for the image, the host, the volumes and
//! the exceptions.
//!
//! The layout is `struct decide` of agent/bpf/guard.bpf.c.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use adamant_contract::paths::{AGENT_PATH, IDENTITY_DIR, SYSROOT};
use adamant_contract::policy::{MAX_INTERPRETERS, Seal};
use adamant_contract::report::BootReport;
use nix::fcntl::OFlag;
use nix::sys::stat::{major, minor};

use super::super::identity::Identified;
use super::super::root;
use crate::kernel::block;

/// How many numbers the lists have room for, and what stands in the places that are not used:
/// behind everything.
const DEVICES: usize = 64;
const PLACES: usize = 16;
const OWN: usize = 128;
const CLOCKS: usize = 16;
/// Bytes of the map's value: four numbers of 32 bits, then such of 64, then the lists.
pub const BYTES: usize = 4 * 4 + 8 * (10 + DEVICES + PLACES + OWN + MAX_INTERPRETERS + CLOCKS);
const UNUSED: u64 = u64::MAX >> 1;
// What a device is: `enum device`.
const VOLUME: u64 = 1;
const FIXED: u64 = 2;
const MEMORY: u64 = 4;
const EXECUTE: u64 = 8;
const DISK: u64 = 16;
const PINS: u64 = 32;
/// Programs of systemd that the guard knows by their inode.
const SHUTDOWN: &str = "/usr/lib/systemd/systemd-shutdown";
const MANAGER: &str = "/usr/lib/systemd/systemd";
const EXECUTOR: &str = "/usr/lib/systemd/systemd-executor";
const KMOD: &str = "/usr/bin/kmod";
/// A link to udevadm.
pub const UDEVD: &str = "/usr/lib/systemd/systemd-udevd";
const MODULES_LOAD: &str = "/usr/lib/systemd/systemd-modules-load";
/// Programs that keep the clock: systemd's (also by hand, timedatectl), chrony, ntpsec and
/// OpenNTPD, ntpd-rs, those of linuxptp, and VMware's agent. QEMU's starts hwclock for the
/// hardware's clock, which everybody can start: the system's is all that it sets.
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
/// What the agent keeps in its folder on a volume.
const KEPT: [&str; 3] = ["machine-id", "seeded", "damaged"];

/// The decisions, as bytes.
pub struct Decisions {
    /// The map's value.
    pub bytes: Vec<u8>,
    /// Exceptions that stand for nothing on this machine: each a clause.
    pub absent: Vec<String>,
}

/// Decides; `pins` is where the guard is held, and modules can be loaded `on_request`. `Err` is a
/// clause.
pub fn decide(
    identified: &Identified,
    seal: &Seal,
    on_request: bool,
    pins: &str,
    report: &BootReport,
) -> Result<Decisions, String> {
    let allow = &seal.allow;
    let number = |path: &str| -> Result<u32, String> {
        fs::metadata(path)
            .map(|found| device(found.dev()))
            .map_err(|e| format!("{path}: {e}"))
    };
    let inside = |path: &str| -> Option<(u32, u64)> {
        let found = root::open_inside(path, OFlag::O_PATH)
            .and_then(|file| file.metadata())
            .ok()?;
        Some((device(found.dev()), found.ino()))
    };
    let image = number(SYSROOT)?;
    let program = |path: &str| {
        inside(path)
            .filter(|found| found.0 == image)
            .map_or(0, |found| found.1)
    };
    let host = fs::metadata("/proc/self/ns/mnt")
        .map_err(|e| format!("/proc/self/ns/mnt: {e}"))?
        .ino();
    let mut absent = Vec::new();

    let policy = identified.root().policy();
    let mut devices: BTreeMap<u32, u64> = BTreeMap::new();
    let mut is = |device: u32, what: u64| *devices.entry(device).or_default() |= what;
    let mut own = Vec::new();
    for volume in &policy.volumes {
        let found = number(&[SYSROOT, &volume.mount].concat())?;
        is(
            found,
            VOLUME
                | if allow.execute.contains(&volume.name) {
                    EXECUTE
                } else {
                    0
                },
        );
        let folder = [&volume.mount, "/", IDENTITY_DIR].concat();
        let kept = KEPT.iter().map(|name| [&folder, "/", name].concat());
        own.extend(
            std::iter::once(folder.clone())
                .chain(kept)
                .filter_map(|path| inside(&path))
                .filter(|(device, _)| *device == found)
                .map(key),
        );
    }
    for path in ["/proc", "/sys", "/dev", "/run"] {
        is(number(path)?, FIXED);
    }
    is(number(pins)?, PINS);
    let tmp = number(&[SYSROOT, "/tmp"].concat()).unwrap_or(image);
    for found in [number("/run")?, number("/dev/shm")?, tmp] {
        if found != image {
            is(found, MEMORY);
        }
    }
    for label in &allow.disks {
        match partition(&identified.root().disk().name, label) {
            Some(found) => is(found, DISK),
            None => absent.push(format!("the disk has no partition {label:?}")),
        }
    }
    let mut places = Vec::new();
    for path in &allow.mounts {
        match inside(path) {
            Some(found) => places.push(key(found)),
            None => absent.push(format!("there is no {path}")),
        }
    }
    let devices: Vec<u64> = devices
        .iter()
        .map(|(device, what)| u64::from(*device) << 32 | what)
        .collect();

    let mut interpreters = Vec::new();
    for path in &seal.interpreters {
        let inode = program(path);
        // The builder found it: with another in its place, one that reads scripts would be unknown.
        if inode == 0 {
            return Err([path, " is no program of the image"].concat());
        }
        interpreters.push(inode);
    }
    let marks = interpreters.iter().fold(0, |all, inode| all | mark(*inode));
    let clocks: Vec<u64> = CLOCK_PROGRAMS
        .iter()
        .map(|path| program(path))
        .filter(|inode| *inode != 0)
        .collect();

    let flags = [
        allow.jit,
        allow.debug,
        allow.bpf,
        allow.containers,
        allow.binfmt,
        !allow.mounts.is_empty(),
        on_request,
    ];
    let flags = flags
        .iter()
        .enumerate()
        .map(|(bit, set)| u32::from(*set) << bit)
        .sum::<u32>();
    let mut bytes = Vec::new();
    for number in [image, number("/run")?, host as u32, flags] {
        bytes.extend(number.to_ne_bytes());
    }
    for inode in [
        program(SHUTDOWN),
        program(AGENT_PATH),
        program(MANAGER),
        program(EXECUTOR),
        program(KMOD),
        program(UDEVD),
        program(MODULES_LOAD),
    ] {
        bytes.extend(inode.to_ne_bytes());
    }
    bytes.extend(report.built.to_ne_bytes());
    let black_box = report
        .black_box
        .as_deref()
        .and_then(|path| fs::metadata(path).ok())
        .map_or(0, |found| device(found.rdev()));
    for number in [u64::from(black_box), marks] {
        bytes.extend(number.to_ne_bytes());
    }
    for (name, list, room) in [
        ("devices", devices, DEVICES),
        ("[seal.allow] mounts", places, PLACES),
        ("volumes", own, OWN),
        ("interpreters", interpreters, MAX_INTERPRETERS),
        ("clocks", clocks, CLOCKS),
    ] {
        bytes.extend(
            sorted(list, room)
                .ok_or_else(|| format!("more {name} than the guard has room for ({room})"))?,
        );
    }
    Ok(Decisions { bytes, absent })
}

/// A folder or file on a volume, as the guard's lists have it. Numbers beyond 32 bits are not found
/// by the guard: ext4 and EROFS have none.
fn key((device, inode): (u32, u64)) -> u64 {
    if inode >> 32 == 0 {
        u64::from(device) << 32 | inode
    } else {
        UNUSED
    }
}

/// A list of this length, as the guard searches it: in order. `None` where there are more.
fn sorted(mut list: Vec<u64>, room: usize) -> Option<Vec<u8>> {
    if list.len() > room {
        return None;
    }
    list.resize(room, UNUSED);
    list.sort_unstable();
    Some(list.into_iter().flat_map(u64::to_ne_bytes).collect())
}

/// One of 64 bits for an inode, as `mark` of agent/bpf/guard.bpf.c.
fn mark(inode: u64) -> u64 {
    1 << (inode.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58)
}

/// A device's number as the kernel has it (include/linux/kdev_t.h).
fn device(dev: u64) -> u32 {
    (major(dev) as u32) << 20 | minor(dev) as u32
}

/// The number of the disk's partition of this label.
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
