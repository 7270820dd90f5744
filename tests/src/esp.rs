//! A signed image with a disk that firmware starts, and its EFI system partition, by mtools, as an
//! attacker with the disk would use it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use adamant::sign::certificate::Certificate;
use adamant::sign::{KeySource, Signer};

use crate::alter;
use crate::image::{Image, POWEROFF_AT_ONCE, SMALL_VOLUMES, Tiny, kernels, our_keys};
use crate::tool;

/// What signs with the keys of a folder.
pub fn signer(dir: &Path, name: &str) -> Signer {
    Certificate::read(&dir.join(format!("{name}.crt")))
        .and_then(|certificate| {
            Signer::open(
                &KeySource::File(dir.join(format!("{name}.key"))),
                certificate,
            )
        })
        .unwrap_or_else(|e| panic!("{e}"))
}

/// The tiny image as a disk that firmware starts, signed with [`our_keys`], with room for a second
/// image.
pub fn signed() -> Tiny {
    let boot = kernels("trixie").join("boot/usr/lib/systemd/boot/efi");
    Tiny::default().with(&format!(
        "{SMALL_VOLUMES}{POWEROFF_AT_ONCE}[boot]\nstub = {:?}\nloader = {:?}\n[sign]\nkeys = {:?}\n[disk]\nesp = \"64M\"\n",
        boot.join("linuxx64.efi.stub"),
        boot.join("systemd-bootx64.efi"),
        our_keys()
    ))
}

/// The EFI system partition of a disk image.
pub struct Esp {
    /// As mtools takes it: file@@offset.
    drive: String,
}

impl Esp {
    /// Of this disk.
    pub fn of(disk: &Path) -> Esp {
        Esp {
            drive: format!(
                "{}@@{}",
                disk.display(),
                alter::partition(disk, "esp").start
            ),
        }
    }

    fn mtools(&self, program: &str) -> Command {
        let mut command = tool::command(program);
        // Its checks are about floppy disks.
        command
            .env("MTOOLS_SKIP_CHECK", "1")
            .arg("-i")
            .arg(&self.drive);
        command
    }

    /// Names in a folder, sorted.
    pub fn names(&self, folder: &str) -> Vec<String> {
        let said = tool::run(self.mtools("mdir").arg("-b").arg(format!("::{folder}")));
        let mut names: Vec<String> = said
            .lines()
            .map(|line| line.trim().trim_start_matches("::").to_owned())
            .collect();
        names.sort();
        names
    }

    /// The only unified kernel image.
    pub fn image(&self) -> String {
        let names = self.names("/EFI/Linux");
        assert_eq!(names.len(), 1, "{names:?}");
        names[0].clone()
    }

    /// FAT's attributes of a file, as mattrib prints them.
    pub fn attributes(&self, path: &str) -> String {
        let said = tool::run(self.mtools("mattrib").arg(format!("::{path}")));
        said.split("::")
            .next()
            .unwrap_or_default()
            .trim()
            .to_owned()
    }

    /// Content of a file.
    pub fn read(&self, path: &str) -> Vec<u8> {
        let output = tool::output(self.mtools("mtype").arg(format!("::{path}")));
        assert!(
            output.status.success(),
            "{path}: {}",
            tool::lossy(&output.stderr)
        );
        output.stdout
    }

    /// Puts a file in the place of what is there.
    pub fn write(&self, path: &str, bytes: &[u8], scratch: &crate::scratch::Scratch) {
        let file = scratch.join("for-the-esp");
        fs::write(&file, bytes).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        tool::run(
            self.mtools("mcopy")
                .arg("-o")
                .arg(&file)
                .arg(format!("::{path}")),
        );
    }

    /// Gives a file another name in its folder.
    pub fn rename(&self, path: &str, name: &str) {
        tool::run(self.mtools("mren").arg(format!("::{path}")).arg(name));
    }

    /// Sets FAT's attribute.
    pub fn read_only(&self, path: &str) {
        tool::run(self.mtools("mattrib").arg("+r").arg(format!("::{path}")));
    }

    /// Makes a folder.
    pub fn make(&self, path: &str) {
        tool::run(self.mtools("mmd").arg(format!("::{path}")));
    }
}

/// A copy of the image's disk, to be altered and started.
pub fn copy(image: &Image, scratch: &crate::scratch::Scratch) -> PathBuf {
    let disk = scratch.join("disk.raw");
    alter::copy(&image.path("raw"), &disk);
    disk
}
