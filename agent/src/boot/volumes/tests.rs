//! Tests of the stage on real loop devices, with the kernel's ext4 and the host's e2fsprogs.

use adamant_skip::skip;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use adamant_contract::gpt::{self, Guid, PartitionTable};
use adamant_contract::policy::{FileSystem, OnDamage, Refresh};
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

#[test]
fn first_boot_makes_and_seeds_volumes_and_second_boot_keeps_them() {
    let Some(server) = Server::new("first", 32, 16, 51 * MIB) else {
        return;
    };
    server.boot(|booted| {
        assert_eq!(
            (booted.states(), booted.warnings.len()),
            (vec!["made", "made"], 0)
        );
        assert_eq!(
            fs::read_to_string(booted.path("var/lib/app/config")).unwrap(),
            "from the image\n"
        );
        assert_eq!(mode(&booted.path("var/cache")), 0o2770);
        assert!(booted.path("var/log/journal").is_dir() && booted.path("var/log/README").is_file());
        let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        for mount in ["var", "var/log"] {
            let line = mounts
                .lines()
                .find(|line| line.contains(&format!(" {} ", booted.path(mount).display())))
                .unwrap();
            assert!(
                line.contains("rw,nosuid,nodev,noexec") && line.contains(" ext4 "),
                "{line}"
            );
        }
        fs::write(booted.path("var/lib/app/config"), "changed\n").unwrap();
        fs::write(booted.path("var/log/line"), "kept\n").unwrap();
        fs::remove_file(booted.path("var/log/README")).unwrap();
    });
    assert!(
        server
            .table()
            .table
            .partitions
            .iter()
            .flatten()
            .all(|p| p.attributes & ATTR_MAKING == 0)
    );
    server.boot(|booted| {
        assert_eq!(
            (booted.states(), booted.warnings.len()),
            (vec!["clean", "clean"], 0)
        );
        assert_eq!(
            fs::read_to_string(booted.path("var/lib/app/config")).unwrap(),
            "changed\n"
        );
        assert_eq!(
            fs::read_to_string(booted.path("var/log/line")).unwrap(),
            "kept\n"
        );
        assert!(
            !booted.path("var/log/README").exists(),
            "the same image does not seed again"
        );
        assert!(booted.volumes().iter().all(|v| v.seeded == 0));
    });
}

#[test]
fn checks_only_volumes_that_were_not_unmounted_cleanly() {
    let Some(mut server) = Server::new("in-order", 32, 16, 51 * MIB) else {
        return;
    };
    server.boot(|booted| assert_eq!(booted.states(), ["made", "made"]));
    server.has_programs = false;
    server.boot(|booted| {
        assert_eq!(
            (booted.states(), booted.warnings.len()),
            (vec!["clean", "clean"], 0)
        )
    });
    // s_state of a file system without errors that was not unmounted.
    server.write_in("logs", 1024 + 0x3a, &[0, 0]);
    server.boot(|booted| {
        assert!(
            booted.failure().contains("\"logs\"") && booted.failure().contains("e2fsprogs"),
            "{}",
            booted.failure()
        )
    });
}

#[test]
fn shares_disk_space_at_first_boot_and_gives_later_growth_to_the_last_volume() {
    let Some(mut server) = Server::new("grow", 16, 16, 100 * MIB) else {
        return;
    };
    server.volumes[0].weight = 3;
    server.boot(|booted| {
        assert_eq!(booted.states(), ["made", "made"]);
        // 98 MiB from the second to before the last MiB; 66 of them free.
        let bytes: Vec<u64> = booted.volumes().iter().map(|v| v.bytes).collect();
        assert_eq!(bytes, [(16 + 48) * MIB, (16 + 17) * MIB]);
        fs::write(booted.path("var/lib/data"), vec![7; 3 << 20]).unwrap();
        fs::write(booted.path("var/log/data"), vec![8; 3 << 20]).unwrap();
    });
    let places = (server.place("state"), server.place("logs"));
    server.grow_disk(400 * MIB);
    server.boot(|booted| {
        assert_eq!(booted.states(), ["clean", "clean"]);
        assert_eq!(
            (booted.volumes()[0].grown_by, booted.volumes()[1].grown_by),
            (0, 300 * MIB)
        );
        assert!(fs::read(booted.path("var/lib/data")).unwrap() == vec![7; 3 << 20]);
        assert!(fs::read(booted.path("var/log/data")).unwrap() == vec![8; 3 << 20]);
        if !may_resize() {
            assert!(
                booted
                    .warnings
                    .iter()
                    .all(|w| w.contains("could not be grown"))
                    && booted.warnings.len() == 1,
                "{:?}",
                booted.warnings
            );
            return;
        }
        assert_eq!(booted.warnings.len(), 0);
        let size = nix::sys::statvfs::statvfs(&booted.path("var/log")).unwrap();
        assert!(
            size.blocks() * size.fragment_size() > 290 * MIB,
            "the file system grew with it"
        );
    });
    assert_eq!(
        (server.place("state"), server.place("logs").0),
        (places.0, places.1.0),
        "nothing has moved"
    );
    assert_eq!(server.table().repairs, Vec::<String>::new());
    tool("sgdisk", &["-v", server.disk.path()]);
    server.boot(|booted| {
        assert_eq!(
            (booted.volumes()[1].grown_by, booted.states()),
            (0, vec!["clean", "clean"])
        )
    });
}

#[test]
fn works_on_a_disk_with_4096_byte_sectors() {
    let Some(server) = Server::with_sector(4096, "large-sectors", 16, 16, 60 * MIB) else {
        return;
    };
    server.boot(|booted| {
        assert_eq!(
            (booted.states(), booted.warnings.len()),
            (vec!["made", "made"], 0)
        );
        assert_eq!(
            booted.volumes().iter().map(|v| v.bytes).collect::<Vec<_>>(),
            [(16 + 12) * MIB, (16 + 13) * MIB]
        );
    });
    server.grow_disk(70 * MIB);
    server.boot(|booted| {
        assert_eq!(
            (booted.states(), booted.volumes()[1].grown_by),
            (vec!["clean", "clean"], 10 * MIB)
        )
    });
    assert_eq!(server.table().repairs, Vec::<String>::new());
}

#[test]
fn makes_a_volume_again_whose_making_was_interrupted() {
    let Some(server) = Server::new("cut", 16, 16, 60 * MIB) else {
        return;
    };
    let mut table = server.table().table;
    table.partitions[1].as_mut().unwrap().attributes |= ATTR_MAKING;
    server.set_table(&table);
    server.write_in("state", 0, &vec![0xaa; 5 << 20]);
    server.boot(|booted| {
        assert_eq!(
            (booted.states(), booted.warnings.len()),
            (vec!["made", "made"], 0)
        )
    });
    server.boot(|booted| assert_eq!(booted.states(), ["clean", "clean"]));
}

#[test]
fn overwrites_foreign_data_only_if_the_policy_allows_it() {
    let Some(mut server) = Server::new("foreign", 16, 160, 179 * MIB) else {
        return;
    };
    let noise: Vec<u8> = (0..3u32 << 20)
        .map(|n| (n.wrapping_mul(2654435761) >> 13) as u8)
        .collect();
    server.write_in("state", 0, &noise);
    server.boot(|booted| {
        let line = booted.failure();
        assert!(
            line.contains("adamant: volumes: volume \"state\"")
                && line.contains("data of an unknown kind")
                && line.contains("recreate"),
            "{line}"
        );
    });
    let mut there = vec![0; noise.len()];
    server
        .file()
        .read_exact_at(&mut there, server.place("state").0)
        .unwrap();
    assert!(there == noise);
    // No work was begun: `logs` is still blank. Once it is sound, the evidence is saved on it.
    let damaged = std::mem::replace(&mut server.volumes[0], volume("logs", "/var/log"));
    server.volumes.truncate(1);
    server.boot(|booted| assert_eq!(booted.states(), ["made"]));
    server.volumes.insert(0, damaged);
    server.volumes[0].on_damage = OnDamage::Recreate;
    server.boot(|booted| {
        assert_eq!(booted.states(), ["recreated", "clean"]);
        assert!(
            booted
                .warnings
                .iter()
                .any(|w| w.contains("state") && w.contains("/var/log/.adamant/damaged/state-")),
            "{:?}",
            booted.warnings
        );
        let kept = fs::read_dir(booted.path("var/log/.adamant/damaged"))
            .unwrap()
            .next()
            .unwrap()
            .unwrap();
        let kept = fs::read(kept.path()).unwrap();
        assert!(kept.windows(4096).any(|w| w == &noise[..4096]));
    });
    server.boot(|booted| assert_eq!(booted.states(), ["clean", "clean"]));
}

#[test]
fn keeps_a_complete_damaged_volume_if_the_disk_has_room() {
    let Some(mut server) = Server::new("aside", 16, 16, 120 * MIB) else {
        return;
    };
    for volume in &mut server.volumes {
        (volume.weight, volume.on_damage) = (0, OnDamage::Recreate);
    }
    server.boot(|booted| assert_eq!(booted.states(), ["made", "made"]));
    let (start, length) = server.place("state");
    server.write_in("state", 0, &vec![0x55; length as usize]);
    server.boot(|booted| {
        assert_eq!(booted.states(), ["recreated", "clean"]);
        assert!(
            booted
                .warnings
                .iter()
                .any(|w| w.contains("kept completely as partition 2 (damaged-state)")),
            "{:?}",
            booted.warnings
        );
        assert!(booted.path("var/lib/app/config").exists());
    });
    assert_eq!(server.place("damaged-state"), (start, length));
    let mut byte = [0; 1];
    server
        .file()
        .read_exact_at(&mut byte, start + length - 1)
        .unwrap();
    assert_eq!(byte, [0x55]);
    server.boot(|booted| assert_eq!(booted.states(), ["clean", "clean"]));
}

#[test]
fn saves_evidence_of_the_only_volume_in_its_new_file_system() {
    let Some(mut server) = Server::new("lone", 200, 1, 204 * MIB) else {
        return;
    };
    server.volumes.truncate(1);
    server.volumes[0].on_damage = OnDamage::Recreate;
    server.write_in("state", 0, &[0x5a; 70000]);
    server.boot(|booted| {
        assert_eq!(booted.states(), ["recreated"]);
        assert!(
            booted
                .warnings
                .iter()
                .any(|w| w.contains("it holds data of an unknown kind")),
            "{:?}",
            booted.warnings
        );
        assert_eq!(
            fs::read_dir(booted.path("var/.adamant/damaged"))
                .unwrap()
                .count(),
            1
        );
    });
}

#[test]
fn repairs_a_destroyed_superblock_from_its_copy_without_losing_data() {
    for (name, size) in [("super-small", 16), ("super", 300)] {
        let Some(server) = Server::new(name, size, 16, (size + 19) * MIB) else {
            return;
        };
        server.boot(|booted| fs::write(booted.path("var/lib/data"), vec![7; 1 << 20]).unwrap());
        for damage in [
            vec![0; 4096],
            (0..1024u32).map(|n| (n * 7 % 251) as u8).collect(),
        ] {
            server.write_in(
                "state",
                if damage.len() == 4096 { 0 } else { 1024 },
                &damage,
            );
            server.boot(|booted| {
                assert_eq!(booted.states(), ["repaired", "clean"]);
                assert!(
                    booted
                        .warnings
                        .iter()
                        .any(|w| w.starts_with("Volume \"state\" was repaired")),
                    "{:?}",
                    booted.warnings
                );
                assert!(fs::read(booted.path("var/lib/data")).unwrap() == vec![7; 1 << 20]);
            });
            server.boot(|booted| assert_eq!(booted.states(), ["clean", "clean"]));
        }
    }
}

/// The only file of evidence in a volume's directory: the bytes of the damaged volume's start.
fn evidence_in(folder: &Path) -> Vec<u8> {
    let files: Vec<PathBuf> = fs::read_dir(folder.join(".adamant/damaged"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(files.len(), 1, "{files:?}");
    let bytes = fs::read(&files[0]).unwrap();
    let text = bytes.windows(2).position(|pair| pair == b"\n\n").unwrap();
    assert!(
        bytes.starts_with(b"adamant: parts of the damaged volume state of "),
        "{}",
        String::from_utf8_lossy(&bytes[..text])
    );
    bytes[text + 2..].to_vec()
}

#[test]
fn saves_evidence_before_a_repair_deletes_data() {
    // The check finds a superblock that only its copy can replace; only mounting finds wrong group
    // descriptors.
    let noise: Vec<u8> = (0..1024u32).map(|n| (n * 7 % 251) as u8 | 1).collect();
    for (name, at, damage) in [
        ("kept-super", 1024, noise),
        ("kept-groups", 4096, vec![0xff; 1024]),
    ] {
        let Some(server) = Server::new(name, 160, 160, 323 * MIB) else {
            return;
        };
        server.boot(|booted| fs::write(booted.path("var/lib/data"), vec![7; 1 << 20]).unwrap());
        server.write_in("state", at, &damage);
        server.boot(|booted| {
            assert_eq!(booted.states(), ["repaired", "clean"]);
            let place = "evidence of it is kept as /var/log/.adamant/damaged/state-";
            assert!(
                booted.warnings.iter().any(|w| w.contains(place)),
                "{name}: {:?}",
                booted.warnings
            );
            assert!(fs::read(booted.path("var/lib/data")).unwrap() == vec![7; 1 << 20]);
            assert!(
                evidence_in(&booted.path("var/log"))[at as usize..][..damage.len()] == damage,
                "{name}: what was there before the repair"
            );
        });
        let mut after = vec![0; damage.len()];
        server
            .file()
            .read_exact_at(&mut after, server.place("state").0 + at)
            .unwrap();
        assert!(after != damage, "{name}: the repair took it away");
    }
}

#[test]
fn saves_evidence_of_the_only_volume_on_itself_after_its_repair() {
    let Some(mut server) = Server::new("kept-lone", 200, 1, 204 * MIB) else {
        return;
    };
    server.volumes.truncate(1);
    server.boot(|booted| assert_eq!(booted.states(), ["made"]));
    server.write_in("state", 1024, &[0x5a; 1024]);
    server.boot(|booted| {
        assert_eq!(booted.states(), ["repaired"]);
        assert_eq!(evidence_in(&booted.path("var"))[1024..2048], [0x5a; 1024]);
    });
    server.boot(|booted| assert_eq!(booted.states(), ["clean"]));
}

#[test]
fn repairs_or_remakes_a_volume_whose_damage_only_mounting_shows() {
    let Some(mut server) = Server::new("mounting", 160, 160, 323 * MIB) else {
        return;
    };
    server.boot(|booted| fs::write(booted.path("var/lib/data"), vec![7; 1 << 20]).unwrap());
    // The group descriptors, which `e2fsck -p` does not check in a file system that is marked
    // clean.
    server.write_in("state", 4096, &[0xff; 4096]);
    server.boot(|booted| {
        assert_eq!(booted.states(), ["repaired", "clean"]);
        assert!(fs::read(booted.path("var/lib/data")).unwrap() == vec![7; 1 << 20]);
    });
    // Everything but the superblock.
    server.volumes[0].on_damage = OnDamage::Recreate;
    server.write_in("state", 4096, &vec![0x5a; 159 << 20]);
    server.boot(|booted| assert!(["recreated", "repaired"].contains(&booted.states()[0])));
    server.boot(|booted| assert_eq!(booted.states(), ["clean", "clean"]));
}

#[test]
fn boots_with_a_full_log_volume() {
    let Some(server) = Server::new("full", 32, 16, 51 * MIB) else {
        return;
    };
    fs::write(server.image.path().join("var/log/huge"), vec![1; 40 << 20]).unwrap();
    for _ in 0..2 {
        server.boot(|booted| {
            assert_eq!(booted.volumes().len(), 2);
            let warned = |w: &String| {
                w.starts_with("Volume \"logs\" lacks 1 of the units")
                    && w.contains("/var/log/huge: no room: 41943040 bytes")
            };
            assert!(booted.warnings.iter().any(warned), "{:?}", booted.warnings);
            assert!(
                !booted.path("var/log/huge").exists()
                    && !booted.path("var/log/.adamant/seeding").exists(),
                "whole or not at all"
            );
            assert!(
                booted.path("var/log/README").exists()
                    && booted.volumes()[1].lacking == ["/var/log/huge"],
                "the others were seeded"
            );
            fs::write(booted.path("var/lib/app/state"), vec![1; 1 << 20]).unwrap();
        });
    }
    fs::remove_file(server.image.path().join("var/log/huge")).unwrap();
    server.boot(|booted| {
        assert!(booted.path("var/log/README").exists());
        assert!(booted.warnings.is_empty());
        // Full to the last block: a new image only causes a warning.
        let _ = fs::write(booted.path("var/log/filler"), vec![1; 16 << 20]);
        fs::remove_file(booted.path("var/log/.adamant/seeded")).unwrap();
        let _ = fs::write(booted.path("var/log/filler2"), vec![1; 16 << 20]);
        assert!(fs::write(booted.path("var/lib/app/state"), vec![2; 1 << 20]).is_ok());
    });
    server.boot(|booted| assert_eq!(booted.states(), ["clean", "clean"]));
}

#[test]
fn seeds_what_fits_and_the_rest_once_there_is_room() {
    let Some(server) = Server::new("fits", 24, 16, 43 * MIB) else {
        return;
    };
    let app = server.image.path().join("var/lib/app");
    fs::write(app.join("model"), vec![1; 40 << 20]).unwrap();
    fs::create_dir(server.image.path().join("var/lib/many")).unwrap();
    for number in 0..10_000 {
        fs::write(
            server.image.path().join(format!("var/lib/many/{number}")),
            "x",
        )
        .unwrap();
    }
    fs::create_dir(server.image.path().join("var/lib/other")).unwrap();
    fs::write(
        server.image.path().join("var/lib/other/needed"),
        "a service does not start without this\n",
    )
    .unwrap();
    // 40 MB of zeros take no space.
    fs::write(server.image.path().join("var/zeros"), vec![0; 40 << 20]).unwrap();
    for start in 0..2 {
        server.boot(|booted| {
            assert_eq!(
                booted.volumes()[0].lacking,
                ["/var/lib/many", "/var/lib/app"],
                "{:?}",
                booted.warnings
            );
            let rest = if start == 0 {
                "the others were seeded"
            } else {
                "nothing was seeded at this boot"
            };
            let warned = |w: &String| {
                w.starts_with("Volume \"state\" lacks 2 of the units")
                    && w.contains(rest)
                    && w.contains("10001 inodes are needed")
            };
            assert!(booted.warnings.iter().any(warned), "{:?}", booted.warnings);
            assert_eq!(
                fs::metadata(booted.path("var/lib/other/needed"))
                    .unwrap()
                    .len(),
                38
            );
            assert_eq!(
                fs::metadata(booted.path("var/zeros")).unwrap().len(),
                40 << 20
            );
            assert!(!booted.path("var/lib/app").exists() && !booted.path("var/lib/many").exists());
        });
    }
    fs::remove_file(app.join("model")).unwrap();
    server.boot(|booted| {
        assert_eq!(booted.volumes()[0].lacking, ["/var/lib/many"]);
        assert!(booted.path("var/lib/app/config").exists());
    });
}

#[test]
fn shows_the_running_image_s_package_list_and_pages_after_update_and_rollback() {
    let Some(mut server) = Server::new("update", 24, 16, 43 * MIB) else {
        return;
    };
    let write = |server: &Server, version: &str| {
        for (folder, name) in [
            ("var/lib/dpkg", "status"),
            ("var/www", "index.html"),
            ("var/lib/mine", "data"),
            ("var/lib/apt", "extended_states"),
        ] {
            fs::create_dir_all(server.image.path().join(folder)).unwrap();
            fs::write(server.image.path().join(folder).join(name), version).unwrap();
        }
    };
    let read = |booted: &Booted, path: &str| fs::read_to_string(booted.path(path)).unwrap();
    write(&server, "1");
    // An earlier image put the list on the volume.
    server.image_data = vec!["/var/lib/apt/extended_states".to_owned()];
    server.boot(|booted| assert_eq!(read(booted, "var/lib/dpkg/status"), "1"));
    server.image_data = vec![
        "/var/lib/dpkg".to_owned(),
        "/var/lib/apt/extended_states".to_owned(),
    ];
    for (version, replaced) in [("2", 2), ("3", 1), ("2", 1)] {
        write(&server, version);
        server.mark = format!("web {version} hash{version}\n");
        server.boot(|booted| {
            for path in ["var/lib/dpkg/status", "var/lib/apt/extended_states"] {
                assert_eq!(read(booted, path), version);
                assert_eq!(
                    fs::write(booted.path(path), "x")
                        .unwrap_err()
                        .raw_os_error(),
                    Some(nix::libc::EROFS)
                );
            }
            assert_eq!(read(booted, "var/www/index.html"), version);
            let state = &booted.volumes()[0];
            if replaced == 2 {
                fs::write(booted.path("var/lib/mine/data"), "mine").unwrap();
            } else {
                // A rollback to the seeded version does not report files as kept.
                let kept = if version == "3" {
                    vec!["/var/lib/mine".to_owned()]
                } else {
                    Vec::new()
                };
                let warned = booted
                    .warnings
                    .iter()
                    .any(|w| w.contains("/var/lib/mine") && w.contains("stay as they are"));
                assert_eq!(
                    (
                        &state.kept,
                        warned,
                        read(booted, "var/lib/mine/data").as_str()
                    ),
                    (&kept, !kept.is_empty(), "mine")
                );
            }
            assert!(state.replaced >= replaced, "{:?}", state);
        });
        let again = |booted: &Booted| {
            assert_eq!(
                (
                    booted.volumes()[0].replaced,
                    booted.volumes()[0].seeded,
                    booted.warnings.len()
                ),
                (0, 0, 0)
            )
        };
        server.boot(again);
    }
}

#[test]
fn refuses_a_missing_an_ambiguous_and_a_wrongly_typed_partition() {
    let Some(server) = Server::new("match", 16, 16, 40 * MIB) else {
        return;
    };
    let table = server.table().table;
    let changed = |label: &str, kind: Guid, why: &str| {
        let mut table = table.clone();
        let partition = table.partitions[2].as_mut().unwrap();
        (partition.label, partition.kind) = (label.to_owned(), kind);
        server.set_table(&table);
        server.boot(|booted| assert!(booted.failure().contains(why), "{}", booted.failure()));
    };
    changed("other", gpt::LINUX_GENERIC, "volume \"logs\" on /dev/loop");
    changed("other", gpt::LINUX_GENERIC, "no partition has this label");
    changed(
        "logs",
        gpt::SRV,
        "partition 3 has this label but not type 0fc63daf",
    );
    changed("state", gpt::VAR, "partitions 2 and 3 all have this label");
}

#[test]
fn repairs_a_damaged_partition_table_from_its_backup() {
    let Some(server) = Server::new("table", 16, 16, 35 * MIB) else {
        return;
    };
    server.boot(|_| ());
    server.disk.write(512, &[0; 8192]);
    server.boot(|booted| {
        assert_eq!(booted.states(), ["clean", "clean"]);
        assert!(
            booted
                .warnings
                .iter()
                .any(|w| w.contains("partition table") && w.contains("at the start is not intact")),
            "{:?}",
            booted.warnings
        );
    });
    assert_eq!(server.table().repairs, Vec::<String>::new());
}

#[test]
fn follows_no_symbolic_link_out_of_a_hostile_volume() {
    let Some(server) = Server::new("hostile", 16, 16, 35 * MIB) else {
        return;
    };
    let outside = Folder::new("hostile-outside");
    server.boot(|booted| {
        umount2(&booted.path("var/log"), MntFlags::MNT_DETACH).unwrap();
        fs::remove_dir(booted.path("var/log")).unwrap();
        symlink(outside.path(), booted.path("var/log")).unwrap();
        fs::remove_dir_all(booted.path("var/lib")).unwrap();
        symlink(outside.path(), booted.path("var/lib")).unwrap();
        fs::remove_dir_all(booted.path("var/.adamant")).unwrap();
        symlink(outside.path(), booted.path("var/.adamant")).unwrap();
        // So that the teardown finds the mounts.
        fs::remove_file(booted.path("var/log")).unwrap();
        fs::create_dir(booted.path("var/log")).unwrap();
        mount(
            Some("none"),
            &booted.path("var/log"),
            Some("tmpfs"),
            MsFlags::empty(),
            None::<&str>,
        )
        .unwrap();
    });
    server.boot(|booted| {
        assert_eq!(booted.states(), ["clean", "clean"]);
        assert!(
            fs::symlink_metadata(booted.path("var/lib"))
                .unwrap()
                .is_symlink(),
            "what is there wins"
        );
        umount2(&booted.path("var/log"), MntFlags::empty()).unwrap();
        fs::remove_dir_all(booted.path("var/log")).unwrap();
        symlink(outside.path(), booted.path("var/log")).unwrap();
        mount(
            Some("none"),
            outside.path(),
            Some("tmpfs"),
            MsFlags::empty(),
            None::<&str>,
        )
        .unwrap();
    });
    server.boot(|booted| {
        assert!(
            booted
                .warnings
                .iter()
                .any(|w| w.contains("not a directory and is now log.not-a-folder")),
            "{:?}",
            booted.warnings
        );
        assert!(booted.path("var/log/README").exists());
    });
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}
