//! The EFI system partition (ESP): a FAT32 file system (UEFI 2.10, 13.3) with the boot loader at
//! the firmware's default path and the unified kernel image in the boot loader's directory
//! (UAPI.1).

use std::fs::File;

use adamant_contract::gpt::Guid;

use super::fat::write::{FatDirectory, FatGeometry, LEAST_CLUSTERS, write_volume};

use crate::error::{Context, Error, Result};

/// Default path of the boot loader, for firmware that has no boot entry for the disk.
pub const LOADER: &str = "EFI/BOOT/BOOTX64.EFI";
/// Directory in which the boot loader looks for unified kernel images.
pub const IMAGES: &str = "EFI/Linux";
/// Boot counter in the name of a new image: tries left and tries done, one digit each (UAPI.1,
/// systemd-boot(7)).
const TRIES: &str = "+3-0";
/// The boot loader's configuration. It has no `default`, which would also start an image whose
/// tries are used up. The editor is disabled because it can change the kernel command line.
const LOADER_CONF: &str = "timeout 3\neditor no\n";

/// A file of the EFI system partition.
#[derive(Debug, Clone)]
pub struct EspEntry {
    /// Path with slashes between the names and none at its start.
    pub path: String,
    /// Content.
    pub bytes: Vec<u8>,
}

/// The files for a boot loader and a unified kernel image.
pub fn entries(stem: &str, loader: Vec<u8>, image: Vec<u8>) -> Vec<EspEntry> {
    let entry = |path: String, bytes| EspEntry { path, bytes };
    vec![
        entry(LOADER.to_owned(), loader),
        entry(
            "loader/loader.conf".to_owned(),
            LOADER_CONF.as_bytes().to_vec(),
        ),
        entry(format!("{IMAGES}/{stem}{TRIES}.efi"), image),
    ]
}

/// Writes the file system into an empty file, sparse. The bytes depend on the arguments alone.
/// Returns the number of bytes from the start that are in use; the rest is zeros.
pub fn write(out: &File, size: u64, sector: u32, guid: &Guid, entries: &[EspEntry]) -> Result<u64> {
    let needed: u64 = entries.iter().map(|entry| entry.bytes.len() as u64).sum();
    if needed > size / 100 * 95 {
        return Err(Error::new(format!(
            "the EFI system partition has {} MiB, its files need {}",
            size >> 20,
            needed.div_ceil(1 << 20)
        ))
        .hint("make disk.esp larger: updates need room for three unified kernel images"));
    }
    // Flash and disks write 4096 bytes at once. Smaller clusters are used only if FAT32 would
    // otherwise have too few.
    let geometries = [4096, sector].map(|cluster| FatGeometry::new(size, sector, cluster));
    let Some(geometry) = geometries
        .into_iter()
        .find(|geometry| geometry.clusters >= LEAST_CLUSTERS)
    else {
        let least = (LEAST_CLUSTERS * u64::from(sector)).div_ceil(1 << 20) + 4;
        return Err(Error::new(format!("an EFI system partition of {} MiB is too small for FAT32 with sectors of {sector} bytes", size >> 20))
            .hint(format!("make disk.esp at least {least}M")));
    };
    out.set_len(size)
        .context(|| "setting the size of the EFI system partition")?;
    let mut root = FatDirectory::default();
    for entry in entries {
        root.add(&entry.path, &entry.bytes)
            .map_err(|why| Error::new(format!("the EFI system partition: {why}")))?;
    }
    let volume_id = u32::from_le_bytes([guid.0[0], guid.0[1], guid.0[2], guid.0[3]]);
    write_volume(out, &geometry, volume_id, b"ESP        ", &root)
        .context(|| "writing the EFI system partition")
}

#[cfg(test)]
mod tests {
    use super::*;
    use adamant_skip::skip;
    use std::process::Command;
    use tempfile::NamedTempFile;

    #[test]
    fn fsck_and_mtools_accept_the_volume_with_both_sector_sizes() {
        let image = vec![0x5a; 5_000_000];
        let entries = entries("debian_1.0.0", b"MZ loader".to_vec(), image.clone());
        for sector in [512, 4096] {
            let scratch = NamedTempFile::new().unwrap();
            let (path, file) = (scratch.path(), scratch.as_file());
            let used = write(file, 512 << 20, sector, &Guid([7; 16]), &entries).unwrap();
            assert!(
                crate::io::zeros::is_zero_range(file, used..512 << 20).unwrap()
                    && !crate::io::zeros::is_zero_range(file, used - 4096..used).unwrap()
            );
            let Ok(checked) = Command::new("/usr/sbin/fsck.vfat")
                .arg("-n")
                .arg(path)
                .output()
            else {
                skip!(Program("fsck.vfat"));
            };
            let report = String::from_utf8_lossy(&checked.stdout).into_owned();
            assert!(
                checked.status.success() && report.lines().count() == 2,
                "sector {sector}: {report}"
            );
            let Ok(listed) = Command::new("mdir")
                .args(["-/", "-b", "-i"])
                .arg(path)
                .arg("::")
                .output()
            else {
                skip!(Program("mdir"));
            };
            let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
            for name in [
                "::/EFI/BOOT/BOOTX64.EFI",
                "::/loader/loader.conf",
                "::/EFI/Linux/debian_1.0.0+3-0.efi",
            ] {
                assert!(listed.contains(name), "{listed}");
            }
            let read = Command::new("mtype")
                .arg("-i")
                .arg(path)
                .arg("::/EFI/Linux/debian_1.0.0+3-0.efi")
                .output()
                .unwrap()
                .stdout;
            assert!(read == image);
        }
    }

    #[test]
    fn is_reproducible_and_refuses_impossible_sizes() {
        use sha2::{Digest, Sha256};
        let entries = entries("a_1", vec![1; 70_000], vec![2; 300_000]);
        let digest = || {
            let scratch = NamedTempFile::new().unwrap();
            write(scratch.as_file(), 48 << 20, 512, &Guid([7; 16]), &entries).unwrap();
            Sha256::digest(std::fs::read(scratch.path()).unwrap())
        };
        assert_eq!(digest(), digest());
        let file = tempfile::tempfile().unwrap();
        assert!(
            write(&file, 48 << 20, 4096, &Guid([7; 16]), &entries)
                .unwrap_err()
                .to_string()
                .contains("too small for FAT32")
        );
        let large = [EspEntry {
            path: "a".to_owned(),
            bytes: vec![0; 60 << 20],
        }];
        assert!(
            write(&file, 48 << 20, 512, &Guid([7; 16]), &large)
                .unwrap_err()
                .to_string()
                .contains("48 MiB, its files need 60")
        );
    }
}
