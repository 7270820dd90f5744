//! The stage that passes credentials from outside on to the image's init, if the policy names them.
//!
//! Promise: init finds the credentials that [`adamant_contract::credentials`] accepts in memory,
//! readable by root only. Environment variables give their directory, so systemd does not collect
//! credentials itself. No credential can make a boot fail.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use adamant_contract::credentials::{Credential, CredentialSource, LIMIT, Sorter};
use adamant_contract::report::StageName;
use adamant_contract::{cmdline, report};
use nix::mount::{MsFlags, mount};

use super::root::MountedRoot;
use super::{Context, Failure};

const STAGE: StageName = StageName::Credentials;
/// systemd's directory for credentials. Its variable tells systemd that they were collected already
/// (systemd: src/core/import-creds.c).
pub const PLAIN: &str = "/run/credentials/@system";
/// systemd's directory for credentials that only this machine can decrypt.
pub const ENCRYPTED: &str = "/run/credentials/@encrypted";
/// Credentials that systemd-stub found on the EFI system partition (systemd-stub(7)).
const FROM_ESP: [&str; 2] = ["/.extra/credentials", "/.extra/global_credentials"];
/// Used by the agent itself and not passed on, because /etc/machine-id exists before init starts.
const MACHINE_ID: &str = "system.machine_id";
/// Largest SMBIOS structure that is read, bytes: enough for all credentials together, in base64.
const SMBIOS_LIMIT: u64 = 2 * LIMIT as u64;
/// Most files that are read of one directory.
const FILES: usize = 16_384;

/// The credentials that the agent itself uses. Only [`pass_credentials`] makes one.
pub struct AgentCredentials {
    /// `system.machine_id`, any bytes.
    pub machine_id: Option<Vec<u8>>,
}

/// Collects, sorts and passes on all credentials.
pub fn pass_credentials(
    root: &MountedRoot,
    context: &mut Context,
) -> Result<AgentCredentials, Failure> {
    let mut sorter = Sorter::new(&root.policy().credentials.accept);
    collect_all(&mut sorter, Path::new("/"));
    for dropped in &sorter.dropped {
        log::warn!(
            "credential {} from {} was dropped: {}",
            dropped.name,
            dropped.source.name(),
            dropped.why
        );
    }
    if sorter.drops > sorter.dropped.len() as u64 {
        log::warn!(
            "{} more credentials were dropped",
            sorter.drops - sorter.dropped.len() as u64
        );
    }
    for credential in &sorter.accepted {
        log::info!(
            "credential {} from {}, {} bytes",
            credential.name,
            credential.source.name(),
            credential.value.len()
        );
    }
    context.report.credentials = report::CredentialsReport {
        accepted: sorter
            .accepted
            .iter()
            .map(|c| report::CredentialReport {
                name: c.name.clone(),
                source: c.source.name().to_owned(),
                why: String::new(),
            })
            .collect(),
        dropped: sorter
            .dropped
            .iter()
            .map(|d| report::CredentialReport {
                name: d.name.clone(),
                source: d.source.name().to_owned(),
                why: d.why.to_owned(),
            })
            .collect(),
        drops: sorter.drops,
    };
    let mut accepted = sorter.accepted;
    let machine_id = accepted
        .iter()
        .position(|c| c.name == MACHINE_ID && c.source != CredentialSource::Esp)
        .map(|at| accepted.remove(at).value);
    let (encrypted, plain): (Vec<_>, Vec<_>) = accepted
        .into_iter()
        .partition(|credential| credential.source == CredentialSource::Esp);
    for (folder, credentials) in [(PLAIN, plain), (ENCRYPTED, encrypted)] {
        pass_on(Path::new(folder), &credentials)
            .map_err(|e| Failure::new(STAGE, folder, e, "give the machine more memory"))?;
    }
    Ok(AgentCredentials { machine_id })
}

/// Collects all offered credentials. The hypervisor's come before the disk's, because the first of
/// a name counts.
fn collect_all(sorter: &mut Sorter, root: &Path) {
    let firmware = root.join("sys/firmware");
    for (name, path) in files(
        &firmware.join("qemu_fw_cfg/by_name/opt/io.systemd.credentials"),
        sorter,
        CredentialSource::FwCfg,
    ) {
        sorter.offer(CredentialSource::FwCfg, &name, || {
            read(&path.join("raw"), LIMIT as u64)
        });
    }
    for (name, path) in files(
        &firmware.join("dmi/entries"),
        sorter,
        CredentialSource::Smbios,
    ) {
        if name.starts_with(b"11-") {
            match read(&path.join("raw"), SMBIOS_LIMIT) {
                Ok(structure) => sorter.offer_smbios(&structure),
                Err(why) => sorter.drop(
                    CredentialSource::Smbios,
                    &[b"structure ", &name[..]].concat(),
                    why,
                ),
            }
        }
    }
    if let Ok(line) = read(&root.join("proc/cmdline"), cmdline::LIMIT as u64) {
        sorter.offer_command_line(&line);
    }
    for folder in FROM_ESP {
        for (name, path) in files(
            &root.join(folder.trim_start_matches('/')),
            sorter,
            CredentialSource::Esp,
        ) {
            if let Some(name) = name.strip_suffix(b".cred") {
                sorter.offer(CredentialSource::Esp, name, || read(&path, LIMIT as u64));
            }
        }
    }
}

/// Reads the files of a directory by name. Shorter names come first, so that numbers are in numeric
/// order.
fn files(
    folder: &Path,
    sorter: &mut Sorter,
    source: CredentialSource,
) -> Vec<(Vec<u8>, std::path::PathBuf)> {
    let mut entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries
        .by_ref()
        .take(FILES)
        .map(|entry| (entry.file_name().as_bytes().to_vec(), entry.path()))
        .collect();
    if entries.next().is_some() {
        sorter.drop(source, b"(the rest)", "there are too many");
    }
    found.sort_by(|a, b| (a.0.len(), &a.0).cmp(&(b.0.len(), &b.0)));
    found
}

fn read(path: &Path, limit: u64) -> Result<Vec<u8>, &'static str> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(limit + 1).read_to_end(&mut bytes))
        .map_err(|_| "it can't be read")?;
    if bytes.len() as u64 > limit {
        Err("it is larger than the 1 MiB that all may have together")
    } else {
        Ok(bytes)
    }
}

/// Writes the credentials into a file system in memory that is never swapped out, and makes it
/// read-only.
fn pass_on(folder: &Path, credentials: &[Credential]) -> io::Result<()> {
    fs::create_dir_all(folder.parent().unwrap_or(folder))?;
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(
        Some("ramfs"),
        folder,
        Some("ramfs"),
        flags,
        Some("mode=0700"),
    )?;
    for credential in credentials {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o400)
            .open(folder.join(&credential.name))?;
        file.write_all(&credential.value)?;
    }
    Ok(mount(
        None::<&str>,
        folder,
        None::<&str>,
        flags | MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY,
        None::<&str>,
    )?)
}

#[cfg(test)]
mod tests {
    use super::super::volumes::tests::{Folder, in_own_mounts, is_root};
    use super::*;

    #[test]
    fn finds_credentials_of_all_sources_and_prefers_the_hypervisor_s() {
        let root = Folder::new("credentials");
        let put = |path: &str, bytes: &[u8]| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        };
        put(
            "sys/firmware/qemu_fw_cfg/by_name/opt/io.systemd.credentials/one/raw",
            b"fw\0cfg",
        );
        put(
            "sys/firmware/dmi/entries/11-0/raw",
            b"\x0b\x05\0\0\x01io.systemd.credential:one=smbios\0io.systemd.credential:two=2\0\0",
        );
        put(
            "sys/firmware/dmi/entries/11-1/raw",
            b"\x0b\x05\0\0\x01io.systemd.credential:three=3\0\0",
        );
        put(
            "sys/firmware/dmi/entries/11-2/raw",
            &vec![b'x'; SMBIOS_LIMIT as usize + 1],
        );
        put(
            "sys/firmware/dmi/entries/11-10/raw",
            b"\x0b\x05\0\0\x01io.systemd.credential:ten=10\0\0",
        );
        put(
            "proc/cmdline",
            b"systemd.set_credential=two:line systemd.set_credential=four:4\n",
        );
        put(".extra/credentials/five.cred", b"5");
        put(".extra/credentials/six", b"6");
        put(".extra/global_credentials/one.cred", b"esp");
        put(
            "sys/firmware/qemu_fw_cfg/by_name/opt/io.systemd.credentials/large/raw",
            &vec![0; LIMIT + 1],
        );
        let accept = ["*".to_owned()];
        let mut sorter = Sorter::new(&accept);
        collect_all(&mut sorter, root.path());
        let found: Vec<_> = sorter
            .accepted
            .iter()
            .map(|c| (c.name.as_str(), &c.value[..]))
            .collect();
        assert_eq!(
            found,
            [
                ("one", &b"fw\0cfg"[..]),
                ("two", b"2"),
                ("three", b"3"),
                ("ten", b"10"),
                ("four", b"4"),
                ("five", b"5"),
                ("one", b"esp")
            ]
        );
        assert_eq!(
            sorter
                .dropped
                .iter()
                .map(|d| d.name.as_str())
                .collect::<Vec<_>>(),
            ["large", "one", "structure 11-2", "two"]
        );
    }

    #[test]
    fn passes_credentials_on_read_only_and_for_root_only() {
        if !is_root() {
            return;
        }
        in_own_mounts(|| {
            use std::os::unix::fs::PermissionsExt;
            let run = Folder::new("credentials-run");
            let folder = run.path().join("credentials/@system");
            pass_on(
                &folder,
                &[Credential {
                    name: "a".to_owned(),
                    value: b"\0\xff".to_vec(),
                    source: CredentialSource::Smbios,
                }],
            )
            .unwrap();
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
            assert_eq!((mode(&folder), mode(&folder.join("a"))), (0o700, 0o400));
            assert_eq!(fs::read(folder.join("a")).unwrap(), b"\0\xff");
            assert_eq!(
                fs::write(folder.join("b"), "").unwrap_err().raw_os_error(),
                Some(nix::libc::EROFS)
            );
        });
    }
}
