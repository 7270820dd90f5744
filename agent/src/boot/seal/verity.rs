//! Level `verity`: the root's partitions are read-only to the kernel, and no writable file system
//! allows programs to be executed.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use adamant_contract::paths::SYSROOT;
use nix::mount::{MsFlags, mount};
use nix::sys::statvfs::{FsFlags, statvfs};

use super::super::identity::Identified;
use super::super::{Context, systemd};
use super::{enforced, missing};
use crate::kernel::block;

/// Puts the level in force.
pub fn apply_verity_level(identified: &Identified, context: &mut Context) {
    let located = identified.root().verified().located();
    for (role, device) in [("data", &located.data.path), ("tree", &located.tree.path)] {
        match make_read_only(device) {
            Ok(()) => enforced(context, format!("{role} partition read-only")),
            Err(error) => missing(
                context,
                format!("{} can't be made read-only: {error}", device.display()),
            ),
        }
    }
    let disk = &identified.root().disk().name;
    if let Err(error) = systemd::pin_disk_names(disk) {
        context.warn(format!(
            "Another disk may take {disk}'s names in /dev/disk: udev's rule: {error}."
        ));
    }
    mount_memory(context);
    let allowed = &identified.root().policy().seal.allow.execute;
    let volumes = identified.root().policy().volumes.iter();
    let volumes: Vec<_> = volumes
        .map(|volume| {
            (
                format!("{SYSROOT}{}", volume.mount),
                allowed.contains(&volume.name),
            )
        })
        .collect();
    let memory = ["/run", "/dev", "/dev/shm"].map(|path| (path.to_owned(), false));
    for (path, executable) in volumes.into_iter().chain(memory) {
        check(&path, executable, context);
    }
    let tmp = Path::new(SYSROOT).join("tmp");
    if fs::metadata(&tmp)
        .ok()
        .zip(fs::metadata(SYSROOT).ok())
        .is_some_and(|(tmp, root)| tmp.dev() != root.dev())
    {
        check(&tmp.display().to_string(), false, context);
    }
}

/// Makes a block device read-only, and checks that it is.
pub fn make_read_only(device: &Path) -> io::Result<()> {
    let file = File::open(device)?;
    block::set_read_only(&file)?;
    if block::is_read_only(&file)? {
        Ok(())
    } else {
        Err(io::Error::other("the kernel still accepts writes"))
    }
}

/// Mounts the file systems in memory. systemd finds /tmp and /dev/shm mounted and keeps them.
fn mount_memory(context: &mut Context) {
    let safe = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let tmp = format!("{SYSROOT}/tmp");
    let _ = fs::create_dir("/dev/shm");
    let new = [
        ("/dev/shm", Some("mode=1777")),
        (tmp.as_str(), Some("mode=1777,size=50%,nr_inodes=1m")),
    ];
    for (target, options) in new {
        // Nothing is mounted where the image has no /tmp, or a volume there.
        let device_of = |path: &str| fs::metadata(path).map(|m| m.dev()).ok();
        if target == tmp && device_of(target) != device_of(SYSROOT) {
            continue;
        }
        let mounted = mount(
            Some("tmpfs"),
            target,
            Some("tmpfs"),
            safe | MsFlags::MS_STRICTATIME,
            options,
        );
        if let Err(error) = mounted.map_err(|e| e.desc()).and_then(|()| {
            systemd::describe_memory(target.trim_start_matches(SYSROOT)).map_err(|_| "no unit")
        }) {
            missing(context, format!("{target} can't be mounted: {error}"));
        }
    }
    for (target, flags) in [
        ("/run", safe),
        ("/dev", MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC),
    ] {
        // `check` reports flags that are not in force afterwards.
        let _ = mount(
            None::<&str>,
            target,
            None::<&str>,
            MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_STRICTATIME | flags,
            None::<&str>,
        );
    }
}

/// Reads the flags of a mount and reports whether they are in force.
fn check(path: &str, executable: bool, context: &mut Context) {
    let flags = statvfs(path)
        .map(|found| found.flags())
        .unwrap_or(FsFlags::empty());
    let wanted = if executable {
        FsFlags::ST_NOSUID
    } else {
        FsFlags::ST_NOSUID | FsFlags::ST_NOEXEC
    };
    let shown = path.trim_start_matches(SYSROOT);
    if flags.contains(wanted) {
        enforced(
            context,
            [
                shown,
                if executable {
                    " nosuid"
                } else {
                    " nosuid,noexec"
                },
            ]
            .concat(),
        );
    } else {
        missing(
            context,
            format!(
                "{shown} is not mounted nosuid{}",
                if executable { "" } else { ",noexec" }
            ),
        );
    }
}
