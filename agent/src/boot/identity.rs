//! The stage that gives the server its identity: the machine-id.
//!
//! Promise: the machine-id is made once, from the kernel's random source or from the hypervisor's
//! setting, and stored on the state volume. It stays the same over reboots and image versions.
//! Programs see it at /etc/machine-id, read-only, before init starts. Images have none, so two
//! servers from one image differ.
//!
//! An invalid stored machine-id is renamed `machine-id.damaged`, with a warning. The hypervisor's
//! setting counts only if no machine-id is stored: a change of the host's settings does not change
//! the server's identity.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use adamant_contract::hex;
use adamant_contract::paths::{IDENTITY_DIR, SYSROOT};
use adamant_contract::report::{IdentitySource, StageName};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::mount::{MsFlags, mount};

use super::credentials::AgentCredentials;
use super::root::MountedRoot;
use super::volumes::{self, MountedVolumes};
use super::{Context, Failure};
use crate::kernel::mounts::restrict_bind_mount;
use crate::kernel::process;

/// The file that is bound over the image's /etc/machine-id. It is in memory, so that it keeps no
/// volume busy and does not change with one.
pub const RUN: &str = "/run/adamant/machine-id";

/// A root that is ready to be entered. Only [`settle_identity`] makes one.
pub struct Identified {
    volumes: MountedVolumes,
}

impl Identified {
    /// The root to enter.
    pub fn root(&self) -> &MountedRoot {
        self.volumes.root()
    }
}

/// Makes or keeps the machine-id.
pub fn settle_identity(
    volumes: MountedVolumes,
    credentials: AgentCredentials,
    context: &mut Context,
) -> Result<Identified, Failure> {
    let fail = |why: io::Error| {
        Failure::new(
            StageName::Identity,
            "machine-id",
            why,
            "boot again; if it fails again, look for messages about the disk and the random source",
        )
    };
    let settled = settle(
        volumes.state(),
        credentials.machine_id.and_then(|bytes| wished(&bytes)),
    )
    .map_err(fail)?;
    for warning in settled.warnings {
        context.warn(warning);
    }
    if !bind(&settled.id, Path::new(SYSROOT), Path::new(RUN)).map_err(fail)? {
        context.warn(
            "The image has no /etc/machine-id to bind this server's over: add an empty file there."
                .to_owned(),
        );
    }
    context.report.identity.source = settled.source;
    context.report.identity.machine_id = settled.id;
    Ok(Identified { volumes })
}

/// 16 bytes from the kernel, as a version 4 UUID in text order, as systemd makes its ids.
pub fn random() -> io::Result<[u8; 16]> {
    let mut bytes: [u8; 16] = process::random_bytes()?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    Ok(bytes)
}

/// The machine-id of this boot.
#[derive(Debug)]
struct Settled {
    source: IdentitySource,
    id: String,
    warnings: Vec<String>,
}

fn settle(state: Option<&OwnedFd>, wished: Option<String>) -> io::Result<Settled> {
    let mut warnings = Vec::new();
    let made = |warnings| -> io::Result<Settled> {
        Ok(match &wished {
            Some(id) => Settled {
                source: IdentitySource::Hypervisor,
                id: id.clone(),
                warnings,
            },
            None => Settled {
                source: IdentitySource::Made,
                id: hex::encode(&random()?),
                warnings,
            },
        })
    };
    let unkept = |mut settled: Settled| {
        if settled.source == IdentitySource::Made {
            settled.source = IdentitySource::Transient;
        }
        settled
    };
    let Some(state) = state else {
        return made(warnings).map(unkept);
    };
    let own = match volumes::own_folder(state, c".adamant") {
        Ok(own) => own,
        Err(error) => {
            warnings.push(format!("This server's machine-id lasts for this boot only: {IDENTITY_DIR} on the state volume: {error}."));
            return made(warnings).map(unkept);
        }
    };
    let found = volumes::read_file(&own, c"machine-id", 64);
    let id = found.as_ref().ok().and_then(|bytes| kept(bytes.as_ref()?));
    match (found, id) {
        (_, Some(id)) => {
            if let Some(wished) = wished.filter(|wished| *wished != id) {
                warnings.push(format!("The hypervisor asks for machine-id {wished}, but this server keeps {id}, which it had before."));
            }
            return Ok(Settled {
                source: IdentitySource::Kept,
                id,
                warnings,
            });
        }
        (Ok(None), None) => {}
        (damaged, None) => {
            let why = damaged
                .err()
                .map_or("it is not 32 hexadecimal digits".to_owned(), |e| {
                    e.to_string()
                });
            let aside = volumes::move_aside(&own, c"machine-id", c"machine-id.damaged");
            let kept = aside.map_or_else(
                |e| format!("could not be kept: {e}"),
                |()| "is kept as machine-id.damaged".to_owned(),
            );
            warnings.push(format!("The stored machine-id was damaged ({why}), so this server gets a new one; the damaged one {kept}."));
        }
    }
    let mut settled = made(warnings)?;
    if let Err(error) =
        volumes::write_file(&own, c"machine-id", format!("{}\n", settled.id).as_bytes())
    {
        settled.warnings.push(format!("This server's machine-id lasts for this boot only: writing it to the state volume: {error}."));
        settled = unkept(settled);
    }
    Ok(settled)
}

/// The id in a stored file: 32 lowercase hexadecimal digits, not all zero, and at most a line feed.
fn kept(bytes: &[u8]) -> Option<String> {
    let digits = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let right = digits.len() == 32
        && digits
            .iter()
            .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        && digits.iter().any(|&b| b != b'0');
    right.then(|| String::from_utf8_lossy(digits).into_owned())
}

/// Binds the id over the image's /etc/machine-id. Returns false if the image has no such file.
fn bind(id: &str, sysroot: &Path, run: &Path) -> io::Result<bool> {
    if let Some(folder) = run.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(run, format!("{id}\n"))?;
    fs::set_permissions(run, std::os::unix::fs::PermissionsExt::from_mode(0o444))?;
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let place = match openat2(fs::File::open(sysroot)?, "etc/machine-id", how) {
        Ok(place) => place,
        Err(Errno::ENOENT) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    mount(
        Some(run),
        volumes::path_of(&place).as_c_str(),
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )?;
    restrict_bind_mount(&sysroot.join("etc/machine-id"))?;
    Ok(true)
}

/// The hypervisor's machine-id, if it is valid: hexadecimal digits or a UUID.
fn wished(credential: &[u8]) -> Option<String> {
    let digits = std::str::from_utf8(credential)
        .ok()?
        .trim_end_matches(['\n', '\0']);
    let digits = match digits.parse::<adamant_contract::gpt::Guid>() {
        Ok(_) => digits.replace('-', ""),
        Err(_) => digits.to_owned(),
    };
    kept(digits.to_ascii_lowercase().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::super::volumes::tests::{Folder, in_own_mounts, is_root};
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn makes_an_id_once_and_a_different_one_for_each_server() {
        let (one, other) = (Folder::new("identity-one"), Folder::new("identity-other"));
        let first = settle(Some(&one.open()), None).unwrap();
        assert_eq!(
            (first.source, first.warnings.len()),
            (IdentitySource::Made, 0)
        );
        assert_eq!(
            (&first.id[12..13], "89ab".contains(&first.id[16..17])),
            ("4", true),
            "a version 4 UUID: {}",
            first.id
        );
        let second = settle(Some(&one.open()), None).unwrap();
        assert_eq!(
            (second.source, &second.id),
            (IdentitySource::Kept, &first.id)
        );
        assert_ne!(settle(Some(&other.open()), None).unwrap().id, first.id);
        assert_eq!(
            settle(None, None).unwrap().source,
            IdentitySource::Transient
        );
    }

    #[test]
    fn uses_the_hypervisor_s_id_only_for_a_new_server() {
        let folder = Folder::new("identity-wished");
        assert_eq!(
            settle(None, Some(ID.to_owned())).unwrap().source,
            IdentitySource::Hypervisor
        );
        let first = settle(Some(&folder.open()), Some(ID.to_owned())).unwrap();
        assert_eq!(
            (first.source, first.id.as_str()),
            (IdentitySource::Hypervisor, ID)
        );
        let later = settle(Some(&folder.open()), Some(ID.replace('0', "1"))).unwrap();
        assert_eq!(
            (later.source, later.id.as_str(), later.warnings.len()),
            (IdentitySource::Kept, ID, 1)
        );
    }

    #[test]
    fn sets_a_damaged_id_aside_with_a_warning() {
        for (number, bad) in [
            &b""[..],
            b"uninitialized\n",
            &[b'0'; 32],
            &[b'A'; 32],
            &[b'a'; 33],
            &[b'a'; 5000],
            b"\0\xff",
        ]
        .into_iter()
        .enumerate()
        {
            let folder = Folder::new(&format!("identity-damaged-{number}"));
            let own = folder.path().join(".adamant");
            fs::create_dir(&own).unwrap();
            fs::write(own.join("machine-id"), bad).unwrap();
            let settled = settle(Some(&folder.open()), None).unwrap();
            assert_eq!(
                (settled.source, settled.warnings.len()),
                (IdentitySource::Made, 1)
            );
            assert_eq!(fs::read(own.join("machine-id.damaged")).unwrap(), bad);
            assert_eq!(
                fs::read_to_string(own.join("machine-id")).unwrap(),
                format!("{}\n", settled.id)
            );
        }
    }

    #[test]
    fn follows_no_link_and_replaces_directories_at_its_paths() {
        let folder = Folder::new("identity-links");
        let outside = Folder::new("identity-outside");
        fs::write(outside.path().join("machine-id"), ID).unwrap();
        std::os::unix::fs::symlink(outside.path(), folder.path().join(".adamant")).unwrap();
        assert_ne!(settle(Some(&folder.open()), None).unwrap().id, ID);
        let own = folder.path().join(".adamant");
        fs::remove_file(own.join("machine-id")).unwrap();
        std::os::unix::fs::symlink(outside.path().join("machine-id"), own.join("machine-id"))
            .unwrap();
        let settled = settle(Some(&folder.open()), None).unwrap();
        assert_ne!(settled.id, ID);
        assert!(
            fs::symlink_metadata(own.join("machine-id"))
                .unwrap()
                .is_file()
        );
        fs::remove_file(own.join("machine-id")).unwrap();
        fs::create_dir_all(own.join("machine-id/x")).unwrap();
        assert_eq!(
            settle(Some(&folder.open()), None).unwrap().source,
            IdentitySource::Made
        );
        assert_eq!(
            fs::read_to_string(outside.path().join("machine-id")).unwrap(),
            ID
        );
    }

    #[test]
    fn accepts_only_valid_ids_of_the_hypervisor() {
        for (given, taken) in [
            ("01234567-89AB-cdef-0123-456789abcdef", Some(ID)),
            (ID, Some(ID)),
            ("", None),
            ("0123", None),
            (&"0".repeat(32), None),
        ] {
            assert_eq!(wished(given.as_bytes()).as_deref(), taken, "{given}");
        }
        assert_eq!(
            (
                wished(format!("{ID}\n").as_bytes()).as_deref(),
                wished(&[0xff; 32])
            ),
            (Some(ID), None)
        );
    }

    #[test]
    fn binds_the_id_read_only() {
        if !is_root() {
            return;
        }
        in_own_mounts(|| {
            let (root, run) = (Folder::new("identity-root"), Folder::new("identity-run"));
            let kept = run.path().join("adamant/machine-id");
            assert!(
                !bind(ID, root.path(), &kept).unwrap(),
                "no file to bind over"
            );
            fs::create_dir(root.path().join("etc")).unwrap();
            let place = root.path().join("etc/machine-id");
            fs::write(&place, "").unwrap();
            assert!(bind(ID, root.path(), &kept).unwrap());
            assert_eq!(fs::read_to_string(&place).unwrap(), format!("{ID}\n"));
            let error = fs::write(&place, "other").unwrap_err();
            assert_eq!(error.raw_os_error(), Some(nix::libc::EROFS));
        });
    }
}
