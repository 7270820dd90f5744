//! Block devices as the kernel shows them in sysfs, and the kernel's list of a disk's partitions.
//!
//! Trusts sysfs; trusts nothing that is on a disk.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use nix::libc;

/// A whole disk.
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
pub struct Partition {
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

/// sysfs counts in these, whatever the device's own sectors are.
const SYSFS_SECTOR: u64 = 512;

impl Disk {
    /// All whole disks with a medium, by name; none that are mapped onto others.
    pub fn all() -> io::Result<Vec<Disk>> {
        let mut disks = Vec::new();
        for entry in fs::read_dir("/sys/block")? {
            let name = entry?.file_name();
            // A device may vanish while it is looked at.
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

    /// The disk of this name in /sys/block.
    pub fn named(name: &str) -> io::Result<Disk> {
        let sys = Path::new("/sys/block").join(name);
        let bytes = number(&sys.join("size"))?.saturating_mul(SYSFS_SECTOR);
        let sector = u32::try_from(number(&sys.join("queue/logical_block_size"))?)
            .map_err(io::Error::other)?;
        if sector < 512 {
            return Err(io::Error::other(format!(
                "{name}: a sector of {sector} bytes"
            )));
        }
        Ok(Disk {
            path: node(name),
            name: name.to_owned(),
            sector,
            sectors: bytes / u64::from(sector),
        })
    }

    /// Opens the disk, for writing too when asked.
    pub fn open(&self, write: bool) -> io::Result<File> {
        OpenOptions::new().read(true).write(write).open(&self.path)
    }

    /// The partition of this number (from 1), `None` where the kernel knows none.
    pub fn partition(&self, wanted: u32) -> io::Result<Option<Partition>> {
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
            return Ok(Some(Partition {
                path: node(&name),
                name,
                number: wanted,
                start,
                bytes,
            }));
        }
        Ok(None)
    }

    /// Tells the kernel of a partition it does not know: its number, first byte and size in bytes.
    pub fn add_partition(&self, number: u32, start: u64, bytes: u64) -> io::Result<()> {
        self.blkpg(BLKPG_ADD_PARTITION, number, start, bytes)
    }

    /// Tells the kernel the new size of a partition that is in use: its number, (unchanged) first
    /// byte and new size in bytes.
    pub fn resize_partition(&self, number: u32, start: u64, bytes: u64) -> io::Result<()> {
        self.blkpg(BLKPG_RESIZE_PARTITION, number, start, bytes)
    }

    /// Makes the kernel forget a partition that is not in use.
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
        let mut argument = BlkpgArgument {
            op,
            flags: 0,
            datalen: size_of::<BlkpgPartition>() as libc::c_int,
            data: &mut partition,
        };
        let disk = self.open(false)?;
        // SAFETY: the request takes a `struct blkpg_ioctl_arg` whose `data` points to a `struct
        // blkpg_partition`; both outlive the call.
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

#[repr(C)]
struct BlkpgPartition {
    start: libc::c_longlong,
    length: libc::c_longlong,
    pno: libc::c_int,
    devname: [libc::c_char; 64],
    volname: [libc::c_char; 64],
}

#[repr(C)]
struct BlkpgArgument {
    op: libc::c_int,
    flags: libc::c_int,
    datalen: libc::c_int,
    data: *mut BlkpgPartition,
}

/// The node of a device: sysfs writes `!` where the name has a `/`.
pub fn node(name: &str) -> PathBuf {
    Path::new("/dev").join(name.replace('!', "/"))
}

/// The number of the partition `name`, when it is one of the disk's.
pub fn partition_number(disk: &str, name: &str) -> Option<u32> {
    let entry = Path::new("/sys/block")
        .join(disk)
        .join(name)
        .join("partition");
    number(&entry).ok().and_then(|n| u32::try_from(n).ok())
}

/// The label that the disk's table gives to a partition, by the partition's folder in sysfs.
pub fn label(folder: &Path) -> Option<String> {
    fs::read_to_string(folder.join("uevent"))
        .ok()?
        .lines()
        .find_map(|line| line.strip_prefix("PARTNAME="))
        .map(str::to_owned)
}

/// The device's number as device-mapper's tables take it: `MAJOR:MINOR`.
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
