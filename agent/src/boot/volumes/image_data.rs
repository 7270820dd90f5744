//! Shows data that describes the image, such as the package manager's database, read-only on
//! volumes. At level guard, directories from which programs take instructions at start are shown
//! too.
//!
//! Promise: a reader of these paths gets the running image's data, whatever the volume holds below
//! them. The volume's own data stays unchanged. A symbolic link on the path is not followed: it is
//! moved aside.

use std::os::fd::OwnedFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, fstat};

use crate::kernel::mounts::restrict_bind_mount;
use crate::kernel::rooted_fs::{self, kind, stat_entry};

/// A directory or a file of the image, opened before a volume hides it.
pub struct ImageDataSource {
    /// Its absolute path.
    pub path: String,
    open: OwnedFd,
    is_folder: bool,
}

impl ImageDataSource {
    /// Opens it in the image, without following symbolic links.
    pub fn open(sysroot: &OwnedFd, path: &str) -> nix::Result<ImageDataSource> {
        let open = open(sysroot, Path::new(path.trim_start_matches('/')))?;
        let is_folder = match kind(&fstat(&open)?) {
            SFlag::S_IFDIR => true,
            SFlag::S_IFREG => false,
            _ => return Err(Errno::EINVAL),
        };
        Ok(ImageDataSource {
            path: path.to_owned(),
            open,
            is_folder,
        })
    }

    /// Mounts it at `place`, a path below the volume's root. Anything of another type there, or
    /// above, is moved aside; its new name is returned.
    pub fn mount_at(&self, volume: &OwnedFd, place: &Path) -> nix::Result<Option<String>> {
        let (Some(folder), Some(name)) = (
            place.parent(),
            place.file_name().and_then(rooted_fs::c_name),
        ) else {
            return Err(Errno::EINVAL);
        };
        let (folder, above) = rooted_fs::make_path(volume, folder)?;
        let aside = if self.is_folder {
            rooted_fs::folder_or_aside(&folder, &name)?
        } else {
            file_or_aside(&folder, &name)?
        };
        let aside = aside.or(above);
        let target = open(volume, place)?;
        mount(
            Some(rooted_fs::path_of(&self.open).as_c_str()),
            rooted_fs::path_of(&target).as_c_str(),
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        )?;
        // The path is opened again, because it now leads to the new mount.
        let shown = open(volume, place)?;
        restrict_bind_mount(rooted_fs::path_of(&shown).as_c_str())?;
        Ok(aside.map(|aside| aside.to_string_lossy().into_owned()))
    }
}

fn open(folder: &OwnedFd, path: &Path) -> nix::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    openat2(folder, path, how)
}

/// Makes sure that `name` in `folder` is a regular file. Anything of another type is moved aside.
fn file_or_aside(
    folder: &OwnedFd,
    name: &std::ffi::CStr,
) -> nix::Result<Option<std::ffi::CString>> {
    let mut aside = None;
    match stat_entry(folder, name)? {
        Some(found) if kind(&found) == SFlag::S_IFREG => return Ok(None),
        Some(_) => {
            let other = std::ffi::CString::new([name.to_bytes(), b".not-a-file"].concat())
                .unwrap_or_default();
            rooted_fs::move_aside(folder, name, &other)?;
            aside = Some(other);
        }
        None => {}
    }
    let flags =
        OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(folder, name, flags, Mode::from_bits_truncate(0o644))?;
    Ok(aside)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::super::tests::{Folder, in_own_mounts, is_root};
    use super::*;

    #[test]
    fn shows_the_image_s_data_read_only_and_keeps_the_volume_s() {
        if !is_root() {
            return;
        }
        in_own_mounts(|| {
            let (image, volume, outside) = (
                Folder::new("shown-image"),
                Folder::new("shown-volume"),
                Folder::new("shown-outside"),
            );
            fs::create_dir_all(image.path().join("var/lib/dpkg/info")).unwrap();
            fs::write(image.path().join("var/lib/dpkg/status"), "image").unwrap();
            fs::create_dir_all(image.path().join("var/lib/apt")).unwrap();
            fs::write(image.path().join("var/lib/apt/extended_states"), "image").unwrap();
            fs::create_dir_all(volume.path().join("lib/dpkg")).unwrap();
            fs::write(volume.path().join("lib/dpkg/status"), "old").unwrap();
            symlink(outside.path(), volume.path().join("lib/apt.d")).unwrap();
            let (root, on) = (image.open(), volume.open());
            for (path, place) in [
                ("/var/lib/dpkg", "lib/dpkg"),
                ("/var/lib/apt/extended_states", "lib/apt/extended_states"),
            ] {
                assert_eq!(
                    ImageDataSource::open(&root, path)
                        .unwrap()
                        .mount_at(&on, Path::new(place)),
                    Ok(None)
                );
            }
            assert_eq!(
                fs::read_to_string(volume.path().join("lib/dpkg/status")).unwrap(),
                "image"
            );
            assert_eq!(
                fs::read_to_string(volume.path().join("lib/apt/extended_states")).unwrap(),
                "image"
            );
            for path in ["lib/dpkg/status", "lib/dpkg/new", "lib/apt/extended_states"] {
                assert_eq!(
                    fs::write(volume.path().join(path), "x")
                        .unwrap_err()
                        .raw_os_error(),
                    Some(nix::libc::EROFS),
                    "{path}"
                );
            }
            // A symbolic link on the path or at its end is not followed, but moved aside, and
            // removed if its new name is in use by a directory that can't be removed.
            let dpkg = ImageDataSource::open(&root, "/var/lib/dpkg").unwrap();
            assert_eq!(
                dpkg.mount_at(&on, Path::new("lib/apt.d/dpkg")),
                Ok(Some("apt.d.not-a-folder".to_owned()))
            );
            symlink(outside.path(), volume.path().join("lib/busy")).unwrap();
            let used = volume.path().join("lib/busy.not-a-folder");
            fs::create_dir(&used).unwrap();
            nix::mount::mount(
                Some("none"),
                &used,
                Some("tmpfs"),
                MsFlags::empty(),
                None::<&str>,
            )
            .unwrap();
            assert_eq!(dpkg.mount_at(&on, Path::new("lib/busy/dpkg")), Ok(None));
            symlink(outside.path(), volume.path().join("lib/link")).unwrap();
            assert_eq!(
                dpkg.mount_at(&on, Path::new("lib/link")),
                Ok(Some("link.not-a-folder".to_owned()))
            );
            assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
            for place in [
                "lib/link",
                "lib/apt.d/dpkg",
                "lib/busy/dpkg",
                "lib/busy.not-a-folder",
                "lib/apt/extended_states",
                "lib/dpkg",
            ] {
                nix::mount::umount2(&volume.path().join(place), nix::mount::MntFlags::MNT_DETACH)
                    .unwrap();
            }
            assert_eq!(
                fs::read_to_string(volume.path().join("lib/dpkg/status")).unwrap(),
                "old"
            );
            assert!(ImageDataSource::open(&root, "/var/lib/none").is_err());
        });
    }
}
