//! Whether a mounted volume takes writes. A disk that fails and an attacker look the same: the
//! kernel mounts the file system read-only, counts its errors, or refuses new files.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::libc;
use nix::sys::stat::{major, minor};
use nix::sys::statvfs::{FsFlags, statvfs};

/// Why a volume is not usable as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VolumeTrouble {
    /// The kernel refuses all writes, as ext4 does after an error.
    ReadOnly,
    /// The number of errors that ext4 found since the last check.
    Errors(u64),
    /// A new file cannot be written.
    RefusesFiles(Errno),
}

impl VolumeTrouble {
    /// Examines the file system that is mounted at a path. As root, it also writes a file without
    /// a name, which leaves nothing behind.
    pub fn find(mount: &Path) -> Option<VolumeTrouble> {
        let flags = statvfs(mount).ok()?.flags();
        if flags.contains(FsFlags::ST_RDONLY) {
            return Some(VolumeTrouble::ReadOnly);
        }
        let device = fs::metadata(mount).ok()?.dev();
        if let Some(count) = ext4_errors(device, Path::new("/sys")).filter(|count| *count != 0) {
            return Some(VolumeTrouble::Errors(count));
        }
        match write_file(mount) {
            Ok(()) => None,
            Err(error) => match Errno::from_raw(error.raw_os_error()?) {
                // A full volume is shown as such. Other users may not write there.
                Errno::ENOSPC | Errno::EDQUOT | Errno::EACCES => None,
                refused => Some(VolumeTrouble::RefusesFiles(refused)),
            },
        }
    }
}

impl fmt::Display for VolumeTrouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            VolumeTrouble::ReadOnly => f.write_str("read-only"),
            VolumeTrouble::Errors(count) => write!(f, "with {count} errors of the file system"),
            VolumeTrouble::RefusesFiles(error) => write!(f, "refusing new files: {}", error.desc()),
        }
    }
}

/// The errors that ext4 counts for a device; `None` for other file systems.
fn ext4_errors(device: u64, sysfs: &Path) -> Option<u64> {
    let number = format!("{}:{}", major(device), minor(device));
    let link = fs::read_link(sysfs.join("dev/block").join(number)).ok()?;
    let path = sysfs.join("fs/ext4").join(link.file_name()?);
    fs::read_to_string(path.join("errors_count"))
        .ok()?
        .trim()
        .parse()
        .ok()
}

fn write_file(mount: &Path) -> io::Result<()> {
    OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_TMPFILE)
        .mode(0o600)
        .open(mount)?
        .write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_the_errors_of_ext4() {
        let sysfs = std::env::temp_dir().join(format!("adamant-sysfs-{}", std::process::id()));
        fs::create_dir_all(sysfs.join("dev/block")).unwrap();
        fs::create_dir_all(sysfs.join("fs/ext4/vda4")).unwrap();
        std::os::unix::fs::symlink("../../devices/vda/vda4", sysfs.join("dev/block/254:4"))
            .unwrap();
        let device = nix::sys::stat::makedev(254, 4);
        assert_eq!(ext4_errors(device, &sysfs), None);
        fs::write(sysfs.join("fs/ext4/vda4/errors_count"), "3\n").unwrap();
        assert_eq!(ext4_errors(device, &sysfs), Some(3));
        assert_eq!(ext4_errors(nix::sys::stat::makedev(7, 0), &sysfs), None);
        fs::remove_dir_all(sysfs).unwrap();
    }

    #[test]
    fn a_file_system_without_files_refuses_new_ones() {
        assert_eq!(VolumeTrouble::find(Path::new("/dev/shm")), None);
        // The kernel refuses new files in /proc, also to root.
        assert!(matches!(
            VolumeTrouble::find(Path::new("/proc")),
            Some(VolumeTrouble::RefusesFiles(_) | VolumeTrouble::ReadOnly)
        ));
        let text = VolumeTrouble::RefusesFiles(Errno::EIO).to_string();
        assert_eq!(text, "refusing new files: I/O error");
    }
}
