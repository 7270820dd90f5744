//! What the guard's programs are told: which numbers stand for the image, the host, the volumes and the exceptions.
//!
//! The layout is `struct decide` of agent/guard/guard.bpf.c.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use adamant_agent::contract::{AGENT_PATH, SYSROOT};
use adamant_agent::policy::{MAX_INTERPRETERS, Seal};
use adamant_agent::report::BootReport;
use nix::fcntl::OFlag;
use nix::sys::stat::{major, minor};

use super::super::identity::Identified;
use super::super::{block, root};

const LIST: usize = 32;
const PLACES: usize = 16;
/// Programs of systemd that the guard knows by their inode.
const SHUTDOWN: &str = "/usr/lib/systemd/systemd-shutdown";
const EXECUTOR: &str = "/usr/lib/systemd/systemd-executor";

/// The decisions, as bytes.
pub struct Decisions {
    /// The map's value.
    pub bytes: Vec<u8>,
    /// Exceptions that stand for nothing on this machine: each a clause.
    pub absent: Vec<String>,
}

/// Decides. `Err` is a clause.
pub fn decide(identified: &Identified, seal: &Seal, report: &BootReport) -> Result<Decisions, String> {
    let allow = &seal.allow;
    let number = |path: &str| -> Result<u32, String> { fs::metadata(path).map(|found| device(found.dev())).map_err(|e| format!("{path}: {e}")) };
    let inside = |path: &str| -> Option<(u32, u64)> {
        let found = root::open_inside(path, OFlag::O_PATH).and_then(|file| file.metadata()).ok()?;
        Some((device(found.dev()), found.ino()))
    };
    let image = number(SYSROOT)?;
    let program = |path: &str| inside(path).filter(|found| found.0 == image).map_or(0, |found| found.1);
    let host = fs::metadata("/proc/self/ns/mnt").map_err(|e| format!("/proc/self/ns/mnt: {e}"))?.ino();
    let mut absent = Vec::new();

    let policy = identified.root().policy();
    let [mut volumes, mut fixed, mut memory, mut execute, mut disks] = [const { Vec::new() }; 5];
    for volume in &policy.volumes {
        let found = number(&[SYSROOT, &volume.mount].concat())?;
        volumes.push(found);
        if allow.execute.contains(&volume.name) {
            execute.push(found);
        }
    }
    for path in ["/proc", "/sys", "/dev", "/run"] {
        fixed.push(number(path)?);
    }
    let tmp = number(&[SYSROOT, "/tmp"].concat()).unwrap_or(image);
    for found in [number("/run")?, number("/dev/shm")?, tmp] {
        if found != image {
            memory.push(found);
        }
    }
    for label in &allow.disks {
        match partition(&identified.root().disk().name, label) {
            Some(found) => disks.push(found),
            None => absent.push(format!("the disk has no partition {label:?}")),
        }
    }
    let mut places = Vec::new();
    for path in &allow.mounts {
        match inside(path) {
            Some(found) => places.push(found),
            None => absent.push(format!("there is no {path}")),
        }
    }

    // The marks of all, then each.
    let mut interpreters = vec![0; 1 + MAX_INTERPRETERS];
    for (path, place) in seal.interpreters.iter().zip(1..) {
        let inode = program(path);
        // The builder found it: with another in its place, one that reads scripts would be unknown.
        if inode == 0 {
            return Err([path, " is no program of the image"].concat());
        }
        interpreters[0] |= mark(inode);
        interpreters[place] = inode;
    }

    let flags = [allow.jit, allow.debug, allow.bpf, allow.containers, allow.binfmt];
    let flags = flags.iter().enumerate().map(|(bit, set)| u32::from(*set) << bit).sum::<u32>();
    let mut bytes = Vec::new();
    for number in [image, number("/run")?, host as u32, flags] {
        bytes.extend(number.to_ne_bytes());
    }
    for inode in [program(SHUTDOWN), program(AGENT_PATH), program(EXECUTOR)] {
        bytes.extend(inode.to_ne_bytes());
    }
    bytes.extend(report.built.to_ne_bytes());
    let black_box = report.black_box.as_deref().and_then(|path| fs::metadata(path).ok()).map_or(0, |found| device(found.rdev()));
    bytes.extend(u64::from(black_box).to_ne_bytes());
    for list in [volumes, fixed, memory, execute, disks] {
        for place in 0..LIST {
            bytes.extend(list.get(place).copied().unwrap_or(0).to_ne_bytes());
        }
    }
    for place in 0..PLACES {
        let (device, inode) = places.get(place).copied().unwrap_or((0, 0));
        bytes.extend(inode.to_ne_bytes());
        bytes.extend(u64::from(device).to_ne_bytes());
    }
    for number in interpreters {
        bytes.extend(number.to_ne_bytes());
    }
    Ok(Decisions { bytes, absent })
}

/// One of 64 bits for an inode, as `mark` of agent/guard/guard.bpf.c.
fn mark(inode: u64) -> u64 {
    1 << (inode.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58)
}

/// A device's number as the kernel has it (include/linux/kdev_t.h).
fn device(dev: u64) -> u32 {
    (major(dev) as u32) << 20 | minor(dev) as u32
}

/// The number of the disk's partition of this label.
fn partition(disk: &str, label: &str) -> Option<u32> {
    for entry in fs::read_dir(Path::new("/sys/block").join(disk)).ok()?.flatten() {
        if block::label(&entry.path()).as_deref() == Some(label) {
            let number = block::major_minor(entry.file_name().to_str()?).ok()?;
            let (major, minor) = number.split_once(':')?;
            return Some(major.parse::<u32>().ok()? << 20 | minor.parse::<u32>().ok()?);
        }
    }
    None
}
