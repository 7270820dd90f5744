//! Devices that a machine has without attached disks: the partitions of the image's own disk.

use std::collections::BTreeSet;

use super::Image;
use crate::disk::derived_guid;

/// The kind of device that a configuration names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// A partition of this image's disk, or one that programs create on demand.
    Present,
    /// A file of the image or of a volume.
    File,
    /// A device that this image's disk does not have.
    Absent,
    /// No device: a server's name, or the source of a file system without a device.
    NoDevice,
}

/// Devices that the kernel or a program creates on any disk.
const MADE: [&str; 7] = [
    "/dev/zram",
    "/dev/ram",
    "/dev/loop",
    "/dev/nbd",
    "/dev/rbd",
    "/dev/fuse",
    "/dev/drbd",
];
/// File systems that need no local device (`fs_type` of fstab(5)).
const WITHOUT_DEVICE: [&str; 40] = [
    "9p",
    "afs",
    "autofs",
    "binder",
    "binfmt_misc",
    "bpf",
    "ceph",
    "cgroup",
    "cgroup2",
    "cifs",
    "configfs",
    "cpuset",
    "davfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "functionfs",
    "fusectl",
    "gfs2",
    "glusterfs",
    "hugetlbfs",
    "lustre",
    "mqueue",
    "ncpfs",
    "nfs",
    "nfs4",
    "nfsd",
    "nsfs",
    "ocfs2",
    "overlay",
    "proc",
    "pstore",
    "ramfs",
    "rpc_pipefs",
    "securityfs",
    "smb3",
    "smbfs",
    "sysfs",
    "tmpfs",
];
/// Name prefixes of more such file systems, and those in /sys.
const WITHOUT_DEVICE_BEGIN: [&str; 4] = ["fuse.", "tracefs", "virtiofs", "selinuxfs"];

/// The disk of this image.
pub struct Devices {
    /// Labels of partitions.
    partitions: BTreeSet<String>,
    /// Labels of file systems.
    file_systems: BTreeSet<String>,
    /// PARTUUIDs, in lower case.
    ids: BTreeSet<String>,
    /// `/dev/mapper/NAME` that /etc/crypttab opens from a present device.
    mapped: BTreeSet<String>,
}

impl Devices {
    pub fn new(image: &Image) -> Devices {
        let definition = image.definition;
        let volumes: BTreeSet<String> = definition
            .volumes
            .iter()
            .map(|volume| volume.policy.name.clone())
            .collect();
        let id = |purpose: &str| {
            derived_guid(&definition.id, purpose)
                .to_string()
                .to_ascii_lowercase()
        };
        let mut devices = Devices {
            partitions: volumes.clone(),
            ids: volumes
                .iter()
                .map(|name| id(&format!("volume {name}")))
                .collect(),
            file_systems: volumes,
            mapped: BTreeSet::new(),
        };
        // The labels that `disk` sets. There is an EFI system partition if the firmware has a file
        // to start.
        if definition.boot.stub.is_some()
            || image.exists("/usr/lib/systemd/boot/efi/linuxx64.efi.stub")
        {
            devices.partitions.insert("esp".to_owned());
            devices.file_systems.insert("ESP".to_owned());
            devices.ids.insert(id("esp"));
        }
        devices
    }

    /// Adds a name below /dev/mapper that is opened at the start.
    pub fn add_mapped(&mut self, name: &str) {
        self.mapped.insert(name.to_owned());
    }

    /// Classifies a device in the syntax of fstab(5) and crypttab(5), for a file system of this
    /// type.
    pub fn presence(&self, device: &str, kind: &str) -> Presence {
        let kind = kind.split(',').next().unwrap_or_default();
        if WITHOUT_DEVICE.contains(&kind)
            || WITHOUT_DEVICE_BEGIN
                .iter()
                .any(|begin| kind.starts_with(begin))
        {
            return Presence::NoDevice;
        }
        let known = |is_known: bool| {
            if is_known {
                Presence::Present
            } else {
                Presence::Absent
            }
        };
        if let Some((tag, value)) = device.split_once('=').filter(|(tag, _)| !tag.contains('/')) {
            let value = value.trim_matches('"');
            return known(match tag.to_ascii_uppercase().as_str() {
                "LABEL" => self.file_systems.contains(value),
                "PARTLABEL" => self.partitions.contains(value),
                "PARTUUID" => self.ids.contains(&value.to_ascii_lowercase()),
                // Each machine creates its own UUIDs of file systems.
                _ => false,
            });
        }
        match device.strip_prefix("/dev/") {
            Some(rest) => known(
                rest.strip_prefix("disk/by-label/")
                    .is_some_and(|label| self.file_systems.contains(label))
                    || rest
                        .strip_prefix("disk/by-partlabel/")
                        .is_some_and(|label| self.partitions.contains(label))
                    || rest
                        .strip_prefix("disk/by-partuuid/")
                        .is_some_and(|id| self.ids.contains(&id.to_ascii_lowercase()))
                    || rest
                        .strip_prefix("mapper/")
                        .is_some_and(|name| self.mapped.contains(name))
                    || MADE.iter().any(|made| device.starts_with(made))
                    || ["root", "null", "zero", "urandom", "random"].contains(&rest),
            ),
            None if device.starts_with('/') => Presence::File,
            // The source of ZFS is a pool, of other file systems a server.
            None => match kind {
                "zfs" | "swap" | "crypt" => Presence::Absent,
                _ => Presence::NoDevice,
            },
        }
    }
}

/// Decodes `\040` and similar escapes (getmntent(3)).
pub fn unescaped(field: &str) -> String {
    let bytes = field.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let octal = bytes
            .get(at + 1..at + 4)
            .filter(|_| bytes[at] == b'\\')
            .and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 4;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}
