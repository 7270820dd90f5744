//! Checks the content of a root file system that other projects' tools rely on.

use std::collections::HashMap;

use super::found::{self, InspectedDisk};
use crate::erofs::read::ErofsImage;
use crate::error::Result;

/// Largest os-release that is read, bytes. It has about 300.
const OS_RELEASE_LIMIT: usize = 64 << 10;
/// Mount points that a read-only root must contain.
const MOUNT_POINTS: [&str; 6] = ["/proc", "/sys", "/dev", "/run", "/tmp", "/var"];
/// Files that no image may contain, because each server needs its own.
const SECRETS: [&str; 3] = [
    "/var/lib/systemd/random-seed",
    "/var/lib/systemd/credential.secret",
    "/boot/loader/random-seed",
];

/// Result of a check.
pub enum ContentAnswer {
    /// The check passed; a description of what was found.
    Fine(String),
    /// The faults.
    Faults(Vec<String>),
    /// The root can't be checked; the reason.
    Unknown(String),
}

/// A root file system, or the reason why it can't be opened.
pub struct InspectedRoot {
    label: String,
    opened: std::result::Result<(ErofsImage, HashMap<Vec<u8>, usize>), String>,
}

impl InspectedRoot {
    /// Opens a root's file system.
    pub fn open(disk: &InspectedDisk, root: &found::RootPartitions) -> InspectedRoot {
        let open = || {
            let data = disk.part(&root.data)?;
            let data = match &root.tree {
                Some(tree) => {
                    crate::commands::verify::disk::trim_to_superblock(data, disk.part(tree)?)?.0
                }
                None => data,
            };
            let mut magic = [0; 4];
            data.read_exact_at(&mut magic, 1024)
                .map_err(|e| e.to_string())?;
            if magic != [0xe2, 0xe1, 0xf5, 0xe0] {
                return Err("not an EROFS file system".to_owned());
            }
            let image = ErofsImage::open(data).map_err(|e| {
                format!(
                    "an EROFS file system that adamant did not write ({})",
                    e.message()
                )
            })?;
            let names = image.names().collect();
            Ok((image, names))
        };
        InspectedRoot {
            label: root.data.label.clone(),
            opened: open(),
        }
    }

    fn check(
        &self,
        check: impl FnOnce(&ErofsImage, &HashMap<Vec<u8>, usize>) -> (Vec<String>, String),
    ) -> ContentAnswer {
        match &self.opened {
            Err(why) => ContentAnswer::Unknown(format!("{}: {why}; use its own tools", self.label)),
            Ok((image, names)) => match check(image, names) {
                (faults, what) if faults.is_empty() => ContentAnswer::Fine(what),
                (faults, _) => ContentAnswer::Faults(
                    faults
                        .into_iter()
                        .map(|fault| format!("{}: {fault}", self.label))
                        .collect(),
                ),
            },
        }
    }

    /// Checks that every inode can be read.
    pub fn structure(&self) -> ContentAnswer {
        self.check(|image, _| {
            let faults = (0..image.inodes())
                .filter(|number| !image.is_fragment(*number))
                .filter_map(|number| {
                    image
                        .read(number, &mut |_| Ok(()))
                        .err()
                        .map(|e| e.message().to_owned())
                });
            (
                faults.take(3).collect(),
                format!("{} inodes", image.named()),
            )
        })
    }

    /// Checks os-release for id and version.
    pub fn os_release(&self) -> ContentAnswer {
        self.check(|image, names| {
            let text = names
                .get(&b"/usr/lib/os-release"[..])
                .map(|number| read(image, *number))
                .transpose();
            let text = match text {
                Ok(Some(text)) => text,
                Ok(None) => return (vec!["no /usr/lib/os-release".to_owned()], String::new()),
                Err(why) => return (vec![why.message().to_owned()], String::new()),
            };
            let value = |key: &str| {
                text.lines()
                    .find_map(|line| line.strip_prefix(key))
                    .map(|value| value.trim_matches('"').to_owned())
            };
            match (value("IMAGE_ID="), value("IMAGE_VERSION=")) {
                (Some(id), Some(version)) => (Vec::new(), format!("{id} {version}")),
                _ => (
                    vec!["its os-release has no IMAGE_ID or no IMAGE_VERSION".to_owned()],
                    String::new(),
                ),
            }
        })
    }

    /// Checks for required and forbidden files.
    pub fn files(&self) -> ContentAnswer {
        self.check(|image, names| {
            let mut faults = Vec::new();
            let node = |path: &str| names.get(path.as_bytes()).copied();
            match node("/etc/os-release")
                .map(|number| (image.stat(number).mode & 0o170_000, read(image, number)))
            {
                Some((0o120_000, Ok(target))) if !target.starts_with('/') => {}
                _ => faults.push("/etc/os-release is not a relative symbolic link".to_owned()),
            }
            match node("/etc/machine-id").map(|number| read(image, number)) {
                Some(Ok(text)) if text.is_empty() || text == "uninitialized\n" => {}
                Some(_) => faults.push(
                    "/etc/machine-id is not empty: all servers would have one identity".to_owned(),
                ),
                None => faults
                    .push("no /etc/machine-id, over which a server's own is mounted".to_owned()),
            }
            faults.extend(
                MOUNT_POINTS
                    .iter()
                    .filter(|path| node(path).is_none())
                    .map(|path| format!("no mount point {path}")),
            );
            let host_key = |path: &&Vec<u8>| {
                path.starts_with(b"/etc/ssh/ssh_host_") && path.ends_with(b"_key")
            };
            let secret = |path: &&Vec<u8>| {
                SECRETS
                    .iter()
                    .any(|secret| secret.as_bytes() == path.as_slice())
                    || host_key(path)
            };
            let mut secrets: Vec<_> = names
                .keys()
                .filter(secret)
                .map(|path| String::from_utf8_lossy(path).into_owned())
                .collect();
            secrets.sort();
            faults.extend(
                secrets
                    .into_iter()
                    .map(|path| format!("the image contains {path}")),
            );
            (faults, String::new())
        })
    }
}

/// The text of a small file, or the target of a symbolic link.
fn read(image: &ErofsImage, number: usize) -> Result<String> {
    let mut bytes = Vec::new();
    image.read(number, &mut |more| {
        bytes.extend_from_slice(
            &more[..more.len().min(OS_RELEASE_LIMIT.saturating_sub(bytes.len()))],
        );
        Ok(())
    })?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
