//! Space on a volume that only the agent can use: without it, the mount point of another volume
//! could not be made on a full volume, and the server would not start.
//!
//! The space is a few small files in the agent's directory. They are removed when a mount point
//! needs their blocks and inodes, and made again at the end of a boot that finds room for them.
//! At level guard only the agent can remove or shorten them.

use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;

use adamant_contract::paths::IDENTITY_DIR;
use nix::errno::Errno;
use nix::unistd::syncfs;

use crate::kernel::rooted_fs;

/// Their directory below the agent's.
pub const RESERVE_DIR: &str = "reserve";
/// Number of files: one inode for each directory of a mount point's path.
const FILES: usize = 8;
/// Bytes of each: one block for the directory, and one for its parent, which may have to grow.
const BYTES: usize = 8 << 10;

/// Runs an operation on a volume. On a full volume, the reserve is given up for a second attempt,
/// and `true` is returned with the result.
pub fn with_reserve<T>(
    volume: &OwnedFd,
    mut operation: impl FnMut() -> nix::Result<T>,
) -> nix::Result<(T, bool)> {
    match operation() {
        Err(Errno::ENOSPC | Errno::EDQUOT) => {
            give_up(volume)?;
            Ok((operation()?, true))
        }
        other => Ok((other?, false)),
    }
}

/// Makes the files that are missing or incomplete. The usual error is a volume without room.
pub fn keep(volume: &OwnedFd) -> io::Result<()> {
    let folder = open_or_make(volume)?;
    let mut changed = false;
    for name in names() {
        let found = rooted_fs::stat_entry(&folder, &name)?;
        // The blocks count: a file without them reserves nothing.
        if found.is_some_and(|found| found.st_blocks as usize * 512 >= BYTES) {
            continue;
        }
        let new = rooted_fs::prepare(&folder, &name, &[0; BYTES])?;
        rooted_fs::move_aside(&folder, &new, &name)?;
        changed = true;
    }
    if changed {
        // Also allocates the blocks.
        syncfs(volume)?;
    }
    Ok(())
}

fn give_up(volume: &OwnedFd) -> nix::Result<()> {
    let folder = open_or_make(volume)?;
    // Also a file that a power cut left half made.
    for name in rooted_fs::names(&folder)? {
        rooted_fs::remove_tree(&folder, &name)?;
    }
    // ext4 gives freed blocks to others only after the transaction that freed them.
    syncfs(volume)
}

fn names() -> impl Iterator<Item = CString> {
    // Digits contain no NUL.
    (0..FILES).map(|number| CString::new(number.to_string()).unwrap_or_default())
}

fn open_or_make(volume: &OwnedFd) -> nix::Result<OwnedFd> {
    let own = rooted_fs::own_folder(
        volume,
        &rooted_fs::c_name(IDENTITY_DIR.as_ref()).unwrap_or_default(),
    )?;
    rooted_fs::own_folder(own, &CString::new(RESERVE_DIR).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use nix::mount::{MntFlags, MsFlags, mount, umount2};

    use super::super::tests::{Folder, Scratch, alone, in_own_mounts, is_root, tool};
    use super::*;

    /// Makes files in a directory until nothing fits any more, neither blocks nor inodes.
    fn fill(folder: &std::path::Path) {
        let mut file = fs::File::create(folder.join("big")).unwrap();
        for size in [1 << 20, 4096, 1] {
            let block = vec![1; size];
            while file
                .write_all(&block)
                .and_then(|()| file.sync_data())
                .is_ok()
            {}
        }
        let mut number = 0;
        while fs::File::create(folder.join(format!("small-{number}"))).is_ok() {
            number += 1;
        }
        assert!(number > 0);
        assert!(fs::create_dir(folder.join("more")).is_err());
    }

    #[test]
    fn a_mount_point_can_be_made_on_a_volume_without_free_blocks_and_inodes() {
        let disk = Scratch::new("reserve", 4 << 20);
        if !is_root()
            || !tool(
                "mke2fs",
                &["-q", "-t", "ext4", "-m", "0", "-N", "64", disk.path()],
            )
        {
            return;
        }
        let (at, path) = (Folder::new("reserve-at"), disk.path().to_owned());
        let device = String::from_utf8(
            std::process::Command::new("losetup")
                .args(["--find", "--show", &path])
                .output()
                .unwrap()
                .stdout,
        )
        .unwrap();
        let device = device.trim_end().to_owned();
        let on = device.clone();
        in_own_mounts(move || {
            mount(
                Some(on.as_str()),
                at.path(),
                Some("ext4"),
                MsFlags::empty(),
                None::<&str>,
            )
            .unwrap();
            let volume = at.open();
            let place = std::path::Path::new("lib/a/b");
            let make = || rooted_fs::make_path(&volume, place).map(drop);
            keep(&volume).unwrap();
            keep(&volume).unwrap();
            fill(at.path());
            assert_eq!(make(), Err(Errno::ENOSPC));
            let link = at.path().join("link");
            fs::remove_file(at.path().join("small-0")).unwrap();
            std::os::unix::fs::symlink("/etc", &link).unwrap();
            let instead = || rooted_fs::make_path(&volume, std::path::Path::new("link"));
            assert_eq!(instead().map(drop), Err(Errno::ENOSPC));
            assert!(link.is_symlink());
            let ((_, aside), used) = with_reserve(&volume, instead).unwrap();
            assert_eq!((aside.as_deref(), used), (Some(c"link.not-a-folder"), true));
            assert_eq!(with_reserve(&volume, make), Ok(((), false)));
            assert!(at.path().join(place).is_dir());
            // There is no room for a new reserve, and the next mount point fails.
            assert!(keep(&volume).is_err());
            fs::remove_file(at.path().join("big")).unwrap();
            for number in 0..16 {
                let _ = fs::remove_file(at.path().join(format!("small-{number}")));
            }
            nix::unistd::sync();
            keep(&volume).unwrap();
            // A reserve that was shortened, or replaced by a link, is made again.
            let own = at.path().join(IDENTITY_DIR).join(RESERVE_DIR);
            fs::write(own.join("0"), "").unwrap();
            fs::remove_file(own.join("1")).unwrap();
            std::os::unix::fs::symlink("/etc/passwd", own.join("1")).unwrap();
            keep(&volume).unwrap();
            for name in ["0", "1"] {
                let found = fs::symlink_metadata(own.join(name)).unwrap();
                assert!(found.is_file() && found.len() == BYTES as u64, "{name}");
            }
            drop(volume);
            let _alone = alone();
            umount2(at.path(), MntFlags::empty()).unwrap();
        });
        tool("losetup", &["--detach", &device]);
    }
}
