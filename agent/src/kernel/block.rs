//! Block devices: what sysfs says about them, the kernel's list of a disk's partitions, and their
//! read-only flag.
//!
//! Trusts sysfs and nothing that is on a disk.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};

use nix::libc;

/// A disk, as opposed to a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// Its node, for example /dev/vda.
    pub path: PathBuf,
    /// Its name in /sys/block, for example `vda`.
    pub name: String,
    /// Logical sector size, bytes.
    pub sector: u32,
    /// Size in logical sectors.
    pub sectors: u64,
}

/// A partition, as the kernel knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelPartition {
    /// Its node, for example /dev/vda3.
    pub path: PathBuf,
    /// Its name in /sys/class/block, for example `vda3`.
    pub name: String,
    /// Number in the table, from 1.
    pub number: u32,
    /// First byte on the disk.
    pub start: u64,
    /// Size, bytes.
    pub bytes: u64,
}

/// Bytes of sysfs' unit, whatever the size of the device's own sectors.
const SYSFS_SECTOR: u64 = 512;

impl Disk {
    /// All disks with a medium, sorted by name, without those that are mapped onto others.
    pub fn all() -> io::Result<Vec<Disk>> {
        let mut disks = Vec::new();
        for entry in fs::read_dir("/sys/block")? {
            let name = entry?.file_name();
            // A device may disappear meanwhile.
            let Some(name) = name.to_str() else { continue };
            if ["dm-", "ram", "zram"]
                .iter()
                .any(|kind| name.starts_with(kind))
            {
                continue;
            }
            disks.extend(Disk::named(name).ok());
        }
        disks.retain(|d| d.sectors > 0);
        disks.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(disks)
    }

    /// The disk with this name in /sys/block.
    pub fn named(name: &str) -> io::Result<Disk> {
        let sys = Path::new("/sys/block").join(name);
        let bytes = number(&sys.join("size"))?.saturating_mul(SYSFS_SECTOR);
        let sector = u32::try_from(number(&sys.join("queue/logical_block_size"))?)
            .map_err(io::Error::other)?;
        if sector < 512 {
            return Err(io::Error::other(format!(
                "{name}: its sectors have {sector} bytes, less than 512"
            )));
        }
        Ok(Disk {
            path: node(name),
            name: name.to_owned(),
            sector,
            sectors: bytes / u64::from(sector),
        })
    }

    /// Opens the disk for reading or, with `write`, for reading and writing.
    pub fn open(&self, write: bool) -> io::Result<File> {
        OpenOptions::new().read(true).write(write).open(&self.path)
    }

    /// The partition with this number (from 1). `None` if the kernel knows none.
    pub fn partition(&self, wanted: u32) -> io::Result<Option<KernelPartition>> {
        for entry in fs::read_dir(Path::new("/sys/block").join(&self.name))? {
            let entry = entry?;
            let Ok(found) = number(&entry.path().join("partition")) else {
                continue;
            };
            if found != u64::from(wanted) {
                continue;
            }
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else {
                continue;
            };
            let start = number(&entry.path().join("start"))?.saturating_mul(SYSFS_SECTOR);
            let bytes = number(&entry.path().join("size"))?.saturating_mul(SYSFS_SECTOR);
            return Ok(Some(KernelPartition {
                path: node(&name),
                name,
                number: wanted,
                start,
                bytes,
            }));
        }
        Ok(None)
    }

    /// Adds a partition to the kernel's list: number, first byte and size in bytes.
    pub fn add_partition(&self, number: u32, start: u64, bytes: u64) -> io::Result<()> {
        self.blkpg(BLKPG_ADD_PARTITION, number, start, bytes)
    }

    /// Changes the size of a partition that is in use, in the kernel's list: number, unchanged
    /// first byte and new size in bytes.
    pub fn resize_partition(&self, number: u32, start: u64, bytes: u64) -> io::Result<()> {
        self.blkpg(BLKPG_RESIZE_PARTITION, number, start, bytes)
    }

    /// Removes a partition that is not in use from the kernel's list.
    pub fn remove_partition(&self, number: u32) -> io::Result<()> {
        self.blkpg(BLKPG_DEL_PARTITION, number, 0, 0)
    }

    fn blkpg(&self, op: libc::c_int, number: u32, start: u64, bytes: u64) -> io::Result<()> {
        let signed = |n: u64| libc::c_longlong::try_from(n).map_err(io::Error::other);
        let pno = libc::c_int::try_from(number).map_err(io::Error::other)?;
        let mut partition = BlkpgPartition {
            start: signed(start)?,
            length: signed(bytes)?,
            pno,
            devname: [0; 64],
            volname: [0; 64],
        };
        let mut argument = BlkpgIoctlArg {
            op,
            flags: 0,
            datalen: size_of::<BlkpgPartition>() as libc::c_int,
            data: &raw mut partition,
        };
        let disk = self.open(false)?;
        // SAFETY: the request takes a `struct blkpg_ioctl_arg` whose `data` points to a `struct
        // blkpg_partition` of length `datalen`. Both outlive the call.
        match unsafe { libc::ioctl(disk.as_raw_fd(), BLKPG, &raw mut argument) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }
}

// <linux/blkpg.h>
const BLKPG: libc::c_ulong = 0x1269;
const BLKPG_ADD_PARTITION: libc::c_int = 1;
const BLKPG_DEL_PARTITION: libc::c_int = 2;
const BLKPG_RESIZE_PARTITION: libc::c_int = 3;

/// `struct blkpg_partition`.
#[repr(C)]
struct BlkpgPartition {
    start: libc::c_longlong,
    length: libc::c_longlong,
    pno: libc::c_int,
    devname: [libc::c_char; 64],
    volname: [libc::c_char; 64],
}

/// `struct blkpg_ioctl_arg`.
#[repr(C)]
struct BlkpgIoctlArg {
    op: libc::c_int,
    flags: libc::c_int,
    datalen: libc::c_int,
    data: *mut BlkpgPartition,
}

// <linux/fs.h>
const BLKROSET: libc::c_ulong = 0x125d;
const BLKROGET: libc::c_ulong = 0x125e;

/// Makes a block device read-only: the kernel refuses writes to it from all openings.
pub fn set_read_only(device: impl AsFd) -> io::Result<()> {
    let read_only: libc::c_int = 1;
    let fd = device.as_fd().as_raw_fd();
    // SAFETY: the request reads one int, which outlives the call.
    match unsafe { libc::ioctl(fd, BLKROSET, &raw const read_only) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Whether a block device is read-only to the kernel.
pub fn is_read_only(device: impl AsFd) -> io::Result<bool> {
    let mut read_only: libc::c_int = 0;
    let fd = device.as_fd().as_raw_fd();
    // SAFETY: the request writes one int, which outlives the call.
    match unsafe { libc::ioctl(fd, BLKROGET, &raw mut read_only) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(read_only != 0),
    }
}

/// The node of a device: sysfs writes `!` where the name has a `/`.
pub fn node(name: &str) -> PathBuf {
    Path::new("/dev").join(name.replace('!', "/"))
}

/// The number of the partition `name`, if it is one of the disk's.
pub fn partition_number(disk: &str, name: &str) -> Option<u32> {
    let entry = Path::new("/sys/block")
        .join(disk)
        .join(name)
        .join("partition");
    number(&entry).ok().and_then(|n| u32::try_from(n).ok())
}

/// The label of a partition in the disk's table, by the partition's directory in sysfs.
pub fn label(folder: &Path) -> Option<String> {
    fs::read_to_string(folder.join("uevent"))
        .ok()?
        .lines()
        .find_map(|line| line.strip_prefix("PARTNAME="))
        .map(str::to_owned)
}

/// The device number as device-mapper's tables contain it: `MAJOR:MINOR`.
pub fn major_minor(name: &str) -> io::Result<String> {
    fs::read_to_string(Path::new("/sys/class/block").join(name).join("dev"))
        .map(|text| text.trim().to_owned())
}

fn number(path: &Path) -> io::Result<u64> {
    fs::read_to_string(path)?
        .trim()
        .parse()
        .map_err(io::Error::other)
}
