//! Tests of the stage on real loop devices, with the kernel's ext4 and the host's e2fsprogs.

mod damage;
mod making;
mod seeding;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use adamant_contract::gpt::{self, Guid, PartitionTable};
use adamant_contract::policy::{FileSystem, OnDamage, Refresh, VolumeCheck};
use adamant_skip::skip;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use super::*;

/// Held while a program is started or a file system unmounted: a child holds copies of all open
/// files between fork and exec, and a file system with open files cannot be unmounted.
static PROGRAMS: Mutex<()> = Mutex::new(());

pub(crate) fn alone() -> MutexGuard<'static, ()> {
    PROGRAMS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether the test runs as root; prints a reason if it does not.
pub(crate) fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        skip!(Root("making mounts and loop devices"), false);
    }
    root
}

/// Runs a tool of the host. Prints a line and returns false if it is not installed. A failing tool
/// fails the test.
pub(crate) fn tool(program: &str, arguments: &[&str]) -> bool {
    let _alone = alone();
    match Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
    {
        Ok(output) => {
            assert!(
                output.status.success(),
                "{program} {arguments:?}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            true
        }
        Err(error) => {
            skip!(Program(&format!("{program} ({error})")), false)
        }
    }
}

fn scratch_path(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("adamant-{}-{name}", std::process::id()))
}

/// A file of zeros that is removed on drop.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str, bytes: u64) -> Scratch {
        let path = scratch_path(name);
        fs::File::create(&path).unwrap().set_len(bytes).unwrap();
        Scratch(path)
    }

    pub(crate) fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }

    pub(crate) fn write(&self, at: u64, bytes: &[u8]) {
        use std::os::unix::fs::FileExt;
        fs::OpenOptions::new()
            .write(true)
            .open(&self.0)
            .unwrap()
            .write_all_at(bytes, at)
            .unwrap();
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// A directory that is removed on drop.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Folder {
        let path = scratch_path(name);
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Folder(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn open(&self) -> OwnedFd {
        crate::kernel::rooted_fs::open_trusted(&self.0).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Moves this thread into a mount namespace of its own, from which no mount reaches the host.
fn leave_host_mounts() {
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        None::<&str>,
    )
    .unwrap();
}

/// Runs `test` in a thread with a mount namespace of its own, which ends with the thread.
pub(crate) fn in_own_mounts(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(move || {
        leave_host_mounts();
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

pub(crate) const MIB: u64 = 1 << 20;

fn volume(name: &str, mount: &str) -> policy::Volume {
    policy::Volume {
        name: name.to_owned(),
        mount: mount.to_owned(),
        filesystem: FileSystem::Ext4,
        weight: 1,
        on_damage: OnDamage::Fail,
        refresh: Refresh::default(),
        check: VolumeCheck::default(),
    }
}

/// A disk image with a root, `state` and `logs`; an image with something to seed; and the policy.
pub(crate) struct Server {
    pub disk: Scratch,
    image: Folder,
    pub volumes: Vec<policy::Volume>,
    image_data: Vec<String>,
    mark: String,
    sector: u32,
    /// Whether the image has this machine's programs.
    pub has_programs: bool,
    /// A script that replaces the image's fsck.ext4.
    pub fsck: Option<String>,
}

/// The result of a boot, while the volumes are still mounted.
pub(crate) struct Booted<'a> {
    image: &'a Path,
    pub result: Result<Vec<report::VolumeReport>, Failure>,
    pub warnings: Vec<String>,
}

impl Booted<'_> {
    pub(crate) fn volumes(&self) -> &[report::VolumeReport] {
        self.result.as_ref().unwrap_or_else(|e| panic!("{e}"))
    }

    pub(crate) fn states(&self) -> Vec<&str> {
        self.volumes().iter().map(|v| v.state.name()).collect()
    }

    pub(crate) fn failure(&self) -> String {
        self.result.as_ref().err().map(ToString::to_string).unwrap()
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.image.join(path)
    }
}

impl Server {
    /// `None`, after a printed line, if loop devices or programs are missing.
    pub(crate) fn new(name: &str, state: u64, logs: u64, disk: u64) -> Option<Server> {
        Server::with_sector(512, name, state, logs, disk)
    }

    fn with_sector(sector: u32, name: &str, state: u64, logs: u64, disk: u64) -> Option<Server> {
        if !is_root() || !tool("losetup", &["--version"]) || !tool("mkfs.ext4", &["-V"]) {
            return None;
        }
        let image = Folder::new(&format!("{name}-image"));
        for folder in [
            "dev",
            "proc",
            "usr",
            "bin",
            "sbin",
            "lib",
            "lib64",
            "etc",
            "var/log/journal",
            "var/lib/app",
            "var/cache",
        ] {
            fs::create_dir_all(image.path().join(folder)).unwrap();
        }
        fs::write(image.path().join("var/lib/app/config"), "from the image\n").unwrap();
        fs::set_permissions(
            image.path().join("var/cache"),
            PermissionsExt::from_mode(0o2770),
        )
        .unwrap();
        fs::write(image.path().join("var/log/README"), "logs\n").unwrap();
        let volumes = vec![volume("state", "/var"), volume("logs", "/var/log")];
        let disk = Scratch::new(&format!("{name}-disk"), disk);
        let (image_data, mark) = (Vec::new(), "web 1 hash\n".to_owned());
        let server = Server {
            disk,
            image,
            volumes,
            image_data,
            mark,
            sector,
            has_programs: true,
            fsck: None,
        };
        let mib = MIB / u64::from(sector);
        let part = |n: u8, kind: Guid, label: &str, first: u64, length: u64| {
            let (first, last) = (first * mib, (first + length) * mib - 1);
            Some(gpt::Partition {
                kind,
                id: Guid([n; 16]),
                first,
                last,
                attributes: gpt::ATTR_NO_AUTO,
                label: label.to_owned(),
            })
        };
        let partitions = vec![
            part(1, gpt::ROOT_X86_64, "web_1", 1, 1),
            part(2, gpt::VAR, "state", 2, state),
            part(3, gpt::LINUX_GENERIC, "logs", 2 + state, logs),
        ];
        server.set_table(&PartitionTable {
            disk: Guid([9; 16]),
            sector,
            sectors: (2 + state + logs + 1) * mib,
            partitions,
        });
        Some(server)
    }

    pub(crate) fn file(&self) -> File {
        fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(self.disk.path())
            .unwrap()
    }

    pub(crate) fn table(&self) -> gpt::disk::FoundTable {
        let file = self.file();
        let sectors = file.metadata().unwrap().len() / u64::from(self.sector);
        gpt::disk::read_table(&file, self.sector, sectors).unwrap()
    }

    pub(crate) fn set_table(&self, table: &PartitionTable) {
        gpt::disk::write_table(&mut self.file(), table).unwrap();
    }

    /// First byte and length of a volume.
    pub(crate) fn place(&self, label: &str) -> (u64, u64) {
        let table = self.table().table;
        let found = table
            .partitions
            .iter()
            .flatten()
            .find(|p| p.label == label)
            .unwrap();
        (
            found.first * u64::from(self.sector),
            found.sectors() * u64::from(self.sector),
        )
    }

    /// Changes an inode of an unmounted volume, and leaves its superblock as it is.
    pub(crate) fn set_inode_field(&self, label: &str, inode: &str, field: &str, value: &str) {
        let image = format!("{}?offset={}", self.disk.path(), self.place(label).0);
        let request = format!("set_inode_field {inode} {field} {value}");
        assert!(tool("debugfs", &["-w", "-R", &request, &image]));
    }

    pub(crate) fn write_in(&self, label: &str, at: u64, bytes: &[u8]) {
        self.file()
            .write_all_at(bytes, self.place(label).0 + at)
            .unwrap();
    }

    pub(crate) fn grow_disk(&self, bytes: u64) {
        self.file().set_len(bytes).unwrap();
    }

    /// Runs the stage on a loop device in a mount namespace of its own, then `look`, then unmounts
    /// everything as a shutdown does.
    pub(crate) fn boot(&self, look: impl FnOnce(&Booted) + Send) {
        let _alone = alone();
        let output = Command::new("losetup")
            .args([
                "-f",
                "-P",
                "--show",
                "--sector-size",
                &self.sector.to_string(),
                self.disk.path(),
            ])
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let device = String::from_utf8(output.stdout).unwrap().trim().to_owned();
        let name = device.trim_start_matches("/dev/").to_owned();
        let run = || {
            leave_host_mounts();
            for folder in ["usr", "bin", "sbin", "lib", "lib64", "etc"] {
                let (from, to) = (Path::new("/").join(folder), self.image.path().join(folder));
                if from.exists() && self.has_programs {
                    mount(
                        Some(&from),
                        &to,
                        None::<&str>,
                        MsFlags::MS_BIND,
                        None::<&str>,
                    )
                    .unwrap();
                }
            }
            if let Some(script) = &self.fsck {
                let path = scratch_path("fsck");
                fs::write(&path, script).unwrap();
                fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
                mount(
                    Some(&path),
                    &self.image.path().join("usr/sbin/fsck.ext4"),
                    None::<&str>,
                    MsFlags::MS_BIND,
                    None::<&str>,
                )
                .unwrap();
            }
            let disk = Disk::named(&name).unwrap();
            let (mut warnings, mut ticks) = (Vec::new(), 0);
            let evidence = self.image.path().join("dev");
            let mut stage = VolumesStage {
                disk: &disk,
                sysroot: self.image.path(),
                evidence_mount: &evidence,
                volumes: &self.volumes,
                image_data: &self.image_data,
                executable: &[],
                mark: &self.mark,
                warnings: &mut warnings,
                tick: &mut || ticks += 1,
                shown: Vec::new(),
            };
            let result = stage.mount_all_attempts();
            let shown: Vec<PathBuf> = stage
                .shown
                .iter()
                .map(|path| self.image.path().join(&path[1..]))
                .collect();
            let result = result.map(|mounted| {
                mounted
                    .into_iter()
                    .map(|one| one.report)
                    .collect::<Vec<_>>()
            });
            let mounts: Vec<PathBuf> = result
                .iter()
                .flatten()
                .map(|v| self.image.path().join(&v.mount[1..]))
                .collect();
            println!(
                "{}: {warnings:?} {:?}",
                self.disk.path(),
                result.as_ref().err().map(ToString::to_string)
            );
            let booted = Booted {
                image: self.image.path(),
                result,
                warnings,
            };
            let looked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| look(&booted)));
            for mounted in mounts.iter().chain(&shown).rev() {
                umount2(mounted, MntFlags::empty()).unwrap();
            }
            looked
        };
        let looked = std::thread::scope(|scope| scope.spawn(run).join());
        assert!(
            Command::new("losetup")
                .args(["-d", &device])
                .status()
                .unwrap()
                .success()
        );
        match looked {
            Ok(Ok(())) => {}
            Ok(Err(panic)) | Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

/// Growing a mounted ext4 needs CAP_SYS_RESOURCE, which root often lacks in containers. The
/// whole-system tests grow volumes in a virtual machine.
fn may_resize() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .unwrap();
    let may = u64::from_str_radix(effective.trim(), 16).unwrap() & 1 << 24 != 0;
    if !may {
        skip!(Host("growing a mounted ext4 needs CAP_SYS_RESOURCE"), false);
    }
    may
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}
