//! Level `verity`: the partitions below the root are read-only to the kernel, and nothing that can
//! be written is a place to execute from.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use adamant_contract::paths::SYSROOT;
use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::sys::statvfs::{FsFlags, statvfs};

use super::super::identity::Identified;
use super::super::{Context, systemd};
use super::{enforced, missing};

// <linux/fs.h>
const BLKROSET: libc::c_ulong = 0x125d;
const BLKROGET: libc::c_ulong = 0x125e;

/// Seals.
pub fn seal(identified: &Identified, context: &mut Context) {
    let located = identified.root().verified().located();
    for (role, device) in [("data", &located.data.path), ("tree", &located.tree.path)] {
        match read_only(device) {
            Ok(()) => enforced(context, format!("{role} partition read-only")),
            Err(error) => missing(
                context,
                format!("{} can't be made read-only: {error}", device.display()),
            ),
        }
    }
    let disk = &identified.root().disk().name;
    if let Err(error) = systemd::keep_names(disk) {
        context.warn(format!(
            "Another disk may take {disk}'s names in /dev/disk: udev's rule: {error}."
        ));
    }
    memory(context);
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
    let place = Path::new(SYSROOT).join("tmp");
    if fs::metadata(&place)
        .ok()
        .zip(fs::metadata(SYSROOT).ok())
        .is_some_and(|(tmp, root)| tmp.dev() != root.dev())
    {
        check(&place.display().to_string(), false, context);
    }
}

fn read_only(device: &Path) -> io::Result<()> {
    let file = File::open(device)?;
    let (one, mut now): (libc::c_int, libc::c_int) = (1, 0);
    // SAFETY: both requests take a pointer to an int, which outlives the calls.
    let answers = unsafe {
        [
            libc::ioctl(file.as_raw_fd(), BLKROSET, &raw const one),
            libc::ioctl(file.as_raw_fd(), BLKROGET, &raw mut now),
        ]
    };
    if answers.contains(&-1) {
        return Err(io::Error::last_os_error());
    }
    if now == 1 {
        Ok(())
    } else {
        Err(io::Error::other("the kernel still says that it is not"))
    }
}

/// What is in memory. systemd finds /tmp and /dev/shm mounted, and leaves them as they are.
fn memory(context: &mut Context) {
    let safe = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let tmp = format!("{SYSROOT}/tmp");
    let _ = fs::create_dir("/dev/shm");
    let new = [
        ("/dev/shm", Some("mode=1777")),
        (tmp.as_str(), Some("mode=1777,size=50%,nr_inodes=1m")),
    ];
    for (target, options) in new {
        // An image without /tmp has none, and one with a volume there has that.
        let own = |path: &str| fs::metadata(path).map(|m| m.dev()).ok();
        if target == tmp && own(target) != own(SYSROOT) {
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
        // Whatever is not in force afterwards is seen by `check`.
        let _ = mount(
            None::<&str>,
            target,
            None::<&str>,
            MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_STRICTATIME | flags,
            None::<&str>,
        );
    }
}

fn check(path: &str, executable: bool, context: &mut Context) {
    let flags = statvfs(path)
        .map(|found| found.flags())
        .unwrap_or(FsFlags::empty());
    let wanted = if executable {
        FsFlags::ST_NOSUID
    } else {
        FsFlags::ST_NOSUID | FsFlags::ST_NOEXEC
    };
    let place = path.trim_start_matches(SYSROOT);
    if flags.contains(wanted) {
        enforced(
            context,
            [
                place,
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
                "{place} is not mounted nosuid{}",
                if executable { "" } else { ",noexec" }
            ),
        );
    }
}
