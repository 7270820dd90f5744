//! The owner and the mode of the cache directory: only the user who builds may write to it.
//!
//! Its content goes into signed images: the build takes an archive of installed packages for the
//! packages of the distribution. A user who can write there can add a setuid program to the image,
//! with a digest beside it that fits. So the directory, its subdirectories and the cached archives
//! must belong to this user or to root.

use std::fs::{DirBuilder, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

use nix::unistd::geteuid;

use crate::error::{Context, Error, Result};

/// Directories below the cache directory whose entries go into images, or decide whether a build
/// may be skipped.
const SUBDIRECTORIES: [&str; 4] = ["debian", "results", "builds", "boot"];

/// Creates the cache directory for this user alone if it is missing. Refuses a directory that
/// belongs to another user, or that others can write to.
pub fn open(cache: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(cache)
        .context(|| format!("creating the cache directory {}", cache.display()))?;
    for path in SUBDIRECTORIES.map(|name| cache.join(name)) {
        match path.metadata() {
            Ok(found) => require_own_directory(&path, &found)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).context(|| path.display().to_string()),
        }
    }
    let found = cache.metadata().context(|| cache.display().to_string())?;
    require_own_directory(cache, &found)
}

fn require_own_directory(path: &Path, found: &Metadata) -> Result<()> {
    require_owner(path, found)?;
    // With access control lists, the group's bits are the mask of all entries.
    if found.mode() & 0o022 == 0 {
        return Ok(());
    }
    Err(Error::new(format!(
        "the cache {} can be written to by other users (mode {:04o}), who could change what goes into images",
        path.display(),
        found.mode() & 0o7777
    ))
    .hint(format!(
        "delete it and build again, or name a directory of your own with --cache; if you trust its content, run: chmod go-w {}",
        path.display()
    )))
}

/// Refuses a directory or file of the cache that belongs to a user other than this one and root.
pub fn require_owner(path: &Path, found: &Metadata) -> Result<()> {
    if [geteuid().as_raw(), 0].contains(&found.uid()) {
        return Ok(());
    }
    Err(Error::new(format!(
        "the cache {} belongs to another user (number {}), who could change what goes into images",
        path.display(),
        found.uid()
    ))
    .hint("name a directory of your own with --cache, or delete this one"))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use tempfile::tempdir;

    use super::*;

    #[test]
    fn a_new_cache_is_for_this_user_alone() {
        let dir = tempdir().unwrap();
        let cache = dir.path().join("a/cache");
        open(&cache).unwrap();
        assert_eq!(cache.metadata().unwrap().mode() & 0o777, 0o700);
        open(&cache).unwrap();
    }

    #[test]
    fn a_cache_or_subdirectory_that_others_can_write_to_is_refused() {
        let dir = tempdir().unwrap();
        for name in ["", "debian", "results", "builds", "boot"] {
            let cache = dir.path().join(format!("cache-{name}"));
            open(&cache).unwrap();
            let path = cache.join(name);
            fs::create_dir_all(&path).unwrap();
            for mode in [0o777, 0o775, 0o757, 0o1777] {
                fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
                let error = open(&cache).unwrap_err();
                assert!(
                    error.message().contains("can be written to by other users"),
                    "{}",
                    error.message()
                );
            }
            fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
            open(&cache).unwrap();
        }
    }

    #[test]
    fn a_cache_or_archive_of_another_user_is_refused() {
        if !geteuid().is_root() {
            adamant_skip::skip!(Root("changing a directory's owner"));
        }
        let dir = tempdir().unwrap();
        for name in ["", "debian"] {
            let cache = dir.path().join(format!("cache-{name}"));
            fs::create_dir_all(cache.join(name)).unwrap();
            std::os::unix::fs::chown(cache.join(name), Some(65534), None).unwrap();
            let error = open(&cache).unwrap_err();
            assert!(
                error
                    .message()
                    .contains("belongs to another user (number 65534)")
            );
        }
    }
}
