//! Persisted machines: `adamant boot --persist` stores the disk, the firmware variables and the TPM
//! state of each image id in the user's state folder, never in OUT.
//!
//! Builds and other runs do not change them, and only one run uses them at a time. A new version is
//! written into a copy of the disk, which then replaces the old disk by a rename. After a power cut
//! the disk still starts.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use super::update;
use crate::commands::selection::Selection;
use crate::error::{Context, Error, Result};

/// A persisted machine, locked for this run.
#[derive(Debug)]
pub struct Persisted {
    folder: PathBuf,
    _lock: Flock<File>,
}

/// Folder of the machine of an image id: $XDG_STATE_HOME/adamant/ID, by default
/// ~/.local/state/adamant/ID.
pub fn folder(id: &str) -> Result<PathBuf> {
    let absolute = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    // The XDG Base Directory Specification says to ignore a relative path.
    let state = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")));
    let state = state.ok_or_else(|| {
        Error::new("--persist: neither XDG_STATE_HOME nor HOME names a folder for the machine")
            .hint("set XDG_STATE_HOME to an absolute path")
    })?;
    Ok(state.join("adamant").join(id))
}

impl Persisted {
    /// Opens the machine of the image's id, and writes this version of the image into its disk.
    /// Creates the machine if it does not exist.
    pub fn open(selection: &Selection, say: &mut dyn FnMut(&str)) -> Result<Persisted> {
        let folder = folder(&selection.manifest.image.id)?;
        let persisted = Persisted {
            _lock: lock(&folder)?,
            folder,
        };
        let (disk, new) = (persisted.disk(), persisted.folder.join("disk.raw.new"));
        // A killed run may have left it.
        remove_file(&new)?;
        if !disk.exists() {
            let image = selection.artifact("raw").ok_or_else(|| {
                Error::new(format!(
                    "{}: this image has no disk",
                    selection.manifest_path().display()
                ))
            })?;
            update::copy_disk(&image, &new).and_then(|_| persisted.put_in_place(&new))?;
            return Ok(persisted);
        }
        let before = update::versions(&disk)?;
        if update::write_version(&disk, &new, selection)? {
            persisted.put_in_place(&new)?;
            let image = &selection.manifest.image;
            say(&format!(
                "{}: wrote version {} into the persisted machine (it had {}); its volumes stay",
                image.id,
                image.version,
                before.join(", ")
            ));
        }
        Ok(persisted)
    }

    /// Path of the raw disk.
    pub fn disk(&self) -> PathBuf {
        self.folder.join("disk.raw")
    }

    fn put_in_place(&self, new: &Path) -> Result<()> {
        let what = || new.display().to_string();
        File::open(new)
            .and_then(|file| file.sync_all())
            .context(what)?;
        fs::rename(new, self.disk()).context(what)?;
        File::open(&self.folder)
            .and_then(|folder| folder.sync_all())
            .context(|| self.folder.display().to_string())
    }
}

/// Asks the user whether to delete a folder that occupies this number of bytes.
pub type Confirm<'a> = &'a mut dyn FnMut(&Path, u64) -> Result<bool>;

/// Deletes the machine of an image id if it exists and `confirm` agrees.
pub fn reset(id: &str, confirm: Confirm, say: &mut dyn FnMut(&str)) -> Result<()> {
    let folder = folder(id)?;
    if !folder.join("disk.raw").exists() {
        say(&format!("{id}: there is no persisted machine"));
        return Ok(());
    }
    let _lock = lock(&folder)?;
    if !confirm(&folder, bytes_used(&folder))? {
        return Err(Error::new(format!("{}: not deleted", folder.display())));
    }
    fs::remove_dir_all(&folder).context(|| folder.display().to_string())?;
    say(&format!(
        "{id}: deleted the persisted machine in {}",
        folder.display()
    ));
    Ok(())
}

fn lock(folder: &Path) -> Result<Flock<File>> {
    // Volumes may contain secrets.
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .context(|| folder.display().to_string())?;
    let path = folder.join("lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .context(|| path.display().to_string())?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| match error {
        nix::errno::Errno::EWOULDBLOCK => Error::new(format!(
            "{}: this persisted machine is running already",
            folder.display()
        ))
        .hint("end it first, or start a second machine without --persist"),
        error => Error::new(format!("{}: locking: {}", path.display(), error.desc())),
    })
}

/// Bytes that the folder's files occupy on the disk.
fn bytes_used(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.metadata().ok())
        .map(|meta| meta.blocks() * 512)
        .sum()
}

fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).context(|| path.display().to_string())
        }
        _ => Ok(()),
    }
}
