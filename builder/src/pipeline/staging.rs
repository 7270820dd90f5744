//! The output directory, which changes atomically.
//!
//! Artifacts are written to unnamed files, which the kernel deletes when the process ends. When all
//! are complete, they get names in a new directory, and one rename exchanges it with the old
//! directory. A kill at that time leaves at most a hidden directory beside the output, which the
//! next build removes.

use std::any::Any;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use nix::fcntl::{AT_FDCWD, AtFlags, Flock, FlockArg, RenameFlags, renameat2};
use nix::libc;
use nix::sys::signal::{SigSet, Signal};

use crate::error::{Context, Error, Result};
use crate::manifest::{self, Manifest};

/// The content that a build may replace in its output directory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Replace {
    /// An image with the same id and version, if it has the same content. Artifacts of other
    /// versions are kept.
    #[default]
    SameContent,
    /// An image with the same id and version. Artifacts of other versions are kept.
    SameVersion,
    /// Everything, for work directories.
    Everything,
}

/// Artifacts on their way into an output directory.
#[derive(Debug)]
pub struct Staging {
    out: PathBuf,
    parent: PathBuf,
    /// The new directory, beside the output.
    new_folder: PathBuf,
    files: Vec<(String, File)>,
    /// Files that a thread is already writing to the disk.
    syncing: Vec<(String, JoinHandle<io::Result<()>>)>,
    /// Artifacts of an earlier build of the same version that are kept.
    kept: Vec<String>,
    /// The lock, if the file system has no unnamed files: the files then have names from the
    /// start.
    named: Option<Flock<File>>,
}

impl Staging {
    /// Prepares new content for `out`, which must be missing, empty, or an output directory of
    /// adamant.
    pub fn open(out: &Path) -> Result<Staging> {
        let name = out.file_name().filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| {
            Error::new(format!("{}: not the name of a directory", out.display()))
                .hint("write for example --output out")
        })?;
        let parent = match out.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        fs::create_dir_all(&parent).context(|| format!("{}", parent.display()))?;
        other_artifacts(out, &[], &[])?;
        let mut new_name = std::ffi::OsString::from(".");
        new_name.push(name);
        new_name.push(".adamant-new");
        let mut staging = Staging {
            out: out.to_owned(),
            new_folder: parent.join(new_name),
            parent,
            files: Vec::new(),
            syncing: Vec::new(),
            kept: Vec::new(),
            named: None,
        };
        staging.sweep();
        match unnamed_file(&staging.parent) {
            Ok(_) => {}
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::EOPNOTSUPP | libc::EISDIR | libc::ENOENT | libc::EINVAL)
                ) =>
            {
                staging.named = Some(staging.lock()?);
                staging.create_new_folder()?;
            }
            Err(error) => return Err(Error::new(format!("{}: {error}", staging.parent.display()))),
        }
        Ok(staging)
    }

    /// The parent of the output directory. It is on the same file system, so other temporary files
    /// fit there too.
    pub fn parent(&self) -> &Path {
        &self.parent
    }

    /// Creates an empty artifact.
    pub fn file(&mut self, name: &str) -> Result<File> {
        let file = if self.named.is_some() {
            OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .open(self.new_folder.join(name))
        } else {
            unnamed_file(&self.parent)
        };
        let file = file.context(|| format!("{name} in {}", self.parent.display()))?;
        // Independent of the umask.
        file.set_permissions(fs::Permissions::from_mode(0o644))
            .context(|| name)?;
        let clone = file.try_clone().context(|| name)?;
        self.files.push((name.to_owned(), file));
        Ok(clone)
    }

    /// Creates a temporary file, which is deleted when it is closed.
    pub fn scratch(&self) -> Result<File> {
        let file = match unnamed_file(&self.parent) {
            Err(_) if self.named.is_some() => {
                let path = self.new_folder.join(".scratch");
                let file = OpenOptions::new()
                    .read(true)
                    .write(true)
                    .create_new(true)
                    .open(&path);
                fs::remove_file(&path).and(file)
            }
            other => other,
        };
        file.context(|| format!("a temporary file in {}", self.parent.display()))
    }

    /// Creates an artifact with these bytes.
    pub fn put(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        use std::io::Write;
        self.file(name)?
            .write_all(bytes)
            .context(|| format!("writing {name}"))
    }

    /// Starts to write a complete artifact to the disk, in parallel to the next stages.
    pub fn sync(&mut self, name: &str, file: &File) {
        if let Ok(file) = file.try_clone() {
            // The kernel reports an error once, so the result is kept until the end.
            self.syncing
                .push((name.to_owned(), std::thread::spawn(move || file.sync_all())));
        }
    }

    /// Keeps an existing artifact of the same version.
    pub fn keep(&mut self, name: &str) {
        self.kept.push(name.to_owned());
    }

    /// Moves the artifacts of `new` into the output directory, if `replace` allows it.
    pub fn publish(mut self, new: &Manifest, replace: Replace) -> Result<()> {
        // In parallel, because the file system writes them in one journal transaction.
        std::thread::scope(|scope| {
            let synced: Vec<_> = self
                .files
                .iter()
                .map(|(name, file)| (name, scope.spawn(|| file.sync_all())))
                .collect();
            synced.into_iter().try_for_each(|(name, synced)| {
                synced
                    .join()
                    .unwrap_or_else(sync_panicked)
                    .context(|| format!("writing {name}"))
            })
        })?;
        self.syncing.drain(..).try_for_each(|(name, thread)| {
            thread
                .join()
                .unwrap_or_else(sync_panicked)
                .context(|| format!("writing {name}"))
        })?;
        // The rest takes milliseconds. Signals are handled after it.
        let _blocked = BlockedSignals::block();
        let result = self.exchange_folders(new, replace);
        if result.is_err() {
            let _ = fs::remove_dir_all(&self.new_folder);
        }
        result
    }

    fn exchange_folders(&mut self, new: &Manifest, replace: Replace) -> Result<()> {
        let lock = match self.named.take() {
            Some(lock) => lock,
            None => {
                let lock = self.lock()?;
                self.create_new_folder()?;
                for (name, file) in &self.files {
                    let source = format!("/proc/self/fd/{}", file.as_raw_fd());
                    nix::unistd::linkat(
                        AT_FDCWD,
                        source.as_str(),
                        AT_FDCWD,
                        &self.new_folder.join(name),
                        AtFlags::AT_SYMLINK_FOLLOW,
                    )
                    .context(|| format!("naming {name}"))?;
                }
                lock
            }
        };
        if replace == Replace::SameContent {
            refuse_other_content(&self.out, new)?;
        }
        let names: Vec<&str> = self.files.iter().map(|(name, _)| name.as_str()).collect();
        let others = if replace == Replace::Everything {
            Vec::new()
        } else {
            other_artifacts(&self.out, &names, &self.kept)?
        };
        for file in &others {
            fs::hard_link(self.out.join(file), self.new_folder.join(file))
                .context(|| format!("{}: keeping {file}", self.out.display()))?;
        }
        sync_dir(&self.new_folder)?;
        let replaces = self.out.symlink_metadata().is_ok();
        let flags = if replaces {
            RenameFlags::RENAME_EXCHANGE
        } else {
            RenameFlags::RENAME_NOREPLACE
        };
        renameat2(AT_FDCWD, &self.new_folder, AT_FDCWD, &self.out, flags).context(|| {
            format!(
                "{}: exchanging the old directory with the new one",
                self.out.display()
            )
        })?;
        sync_dir(&self.parent)?;
        // The old directory has the hidden name now.
        remove_folder(&self.new_folder)?;
        drop(lock);
        Ok(())
    }

    /// Locks the parent directory, so that one build at a time exchanges directories. An flock on
    /// the directory itself needs no lock file.
    fn lock(&self) -> Result<Flock<File>> {
        let dir = File::open(&self.parent).context(|| format!("{}", self.parent.display()))?;
        Flock::lock(dir, FlockArg::LockExclusive).map_err(|(_, error)| {
            Error::new(format!(
                "{}: locking: {}",
                self.parent.display(),
                error.desc()
            ))
        })
    }

    /// Removes the new directory of a killed build, unless another build holds the lock.
    fn sweep(&self) {
        if self.new_folder.exists()
            && let Ok(dir) = File::open(&self.parent)
            && let Ok(_lock) = Flock::lock(dir, FlockArg::LockExclusiveNonblock)
        {
            let _ = fs::remove_dir_all(&self.new_folder);
        }
    }

    fn create_new_folder(&self) -> Result<()> {
        // This process holds the lock, so the build that created the directory has ended.
        remove_folder(&self.new_folder)?;
        fs::create_dir(&self.new_folder).context(|| format!("{}", self.new_folder.display()))?;
        fs::set_permissions(&self.new_folder, fs::Permissions::from_mode(0o755))
            .context(|| format!("{}", self.new_folder.display()))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if self.named.is_some() {
            let _ = fs::remove_dir_all(&self.new_folder);
        }
    }
}

/// Blocks SIGINT, SIGTERM and SIGHUP until it is dropped.
struct BlockedSignals(SigSet);

impl BlockedSignals {
    fn block() -> Option<BlockedSignals> {
        let before = SigSet::thread_get_mask().ok()?;
        let set: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]
            .into_iter()
            .collect();
        set.thread_block().ok()?;
        Some(BlockedSignals(before))
    }
}

impl Drop for BlockedSignals {
    fn drop(&mut self) {
        let _ = self.0.thread_set_mask();
    }
}

/// The result of a sync thread that panicked.
fn sync_panicked(_: Box<dyn Any + Send>) -> io::Result<()> {
    Err(io::Error::other("a sync thread panicked"))
}

fn unnamed_file(dir: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .mode(0o644)
        .custom_flags(libc::O_TMPFILE)
        .open(dir)
}

fn remove_folder(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::new(format!("{}: {error}", dir.display())))
        }
        _ => Ok(()),
    }
}

fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .context(|| format!("{}", dir.display()))
}

/// Refuses other content under an existing version. Servers may already have that image, and two
/// images with one version cannot be distinguished later.
fn refuse_other_content(out: &Path, new: &Manifest) -> Result<()> {
    let manifest::ImageVersion { id, version } = &new.image;
    let path = out.join(format!("{id}_{version}{}", manifest::SUFFIX));
    if path.symlink_metadata().is_err() {
        return Ok(());
    }
    let old = Manifest::read(&path)?;
    let difference = if old.root.hash == new.root.hash {
        // The user chose other signers, and their certificates change the artifacts.
        let signers = |manifest: &Manifest| {
            manifest
                .signatures
                .iter()
                .map(|record| (record.purpose, record.certificate.clone(), record.signed))
                .collect::<Vec<_>>()
        };
        let differs = |artifact: &&manifest::Artifact| {
            new.artifacts
                .iter()
                .any(|other| other.name == artifact.name && other != *artifact)
        };
        let differing: Vec<&str> = old
            .artifacts
            .iter()
            .filter(differs)
            .map(|artifact| artifact.name.as_str())
            .collect();
        if differing.is_empty() || signers(&old) != signers(new) {
            return Ok(());
        }
        format!(
            "both have root hash {}, but these files differ: {}",
            old.root.hash,
            differing.join(", ")
        )
    } else {
        format!(
            "it has root hash {}, this build has {}",
            old.root.hash, new.root.hash
        )
    };
    Err(Error::new(format!("{}: contains {id} {version} with other content: {difference}", out.display()))
        .hint("raise [image] version, choose another directory with --output, or replace the image with --force"))
}

/// The artifacts in an output directory besides `names`: artifacts of other builds, each listed in
/// a manifest there. A directory with any other file is not an output directory and must not be
/// replaced. `kept` lists artifacts of the new version that stay as they are.
fn other_artifacts(out: &Path, names: &[&str], kept: &[String]) -> Result<Vec<String>> {
    let listing = match fs::read_dir(out) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.context(|| format!("{}", out.display()))?,
    };
    let mut found = Vec::new();
    let (mut known, mut replaced) = (Vec::new(), Vec::new());
    for entry in listing {
        let entry = entry.context(|| format!("{}", out.display()))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".manifest.json") {
            let path = entry.path();
            if entry
                .metadata()
                .is_ok_and(|meta| meta.len() > manifest::LIMIT)
            {
                return Err(Error::new(format!(
                    "{}: too large for a manifest",
                    path.display()
                )));
            }
            let bytes = fs::read(&path).context(|| format!("{}", path.display()))?;
            let artifacts = Manifest::parse(&path.display().to_string(), &bytes)?
                .artifacts
                .into_iter()
                .map(|artifact| artifact.name);
            // A replaced manifest takes its artifacts along, because the new build may have fewer.
            if names.contains(&name.as_str()) {
                replaced.extend(artifacts.clone());
            }
            known.extend(artifacts);
            known.push(name.clone());
        }
        found.push(name);
    }
    if let Some(foreign) = found.iter().filter(|name| !known.contains(name)).min() {
        return Err(Error::new(format!(
            "{}: contains {foreign:?}, which adamant did not build, so the directory is not replaced",
            out.display()
        ))
        .hint("give another directory with --output, or move that file away"));
    }
    found.retain(|name| {
        !names.contains(&name.as_str()) && (!replaced.contains(name) || kept.contains(name))
    });
    found.sort();
    Ok(found)
}

#[cfg(test)]
#[path = "staging_tests.rs"]
mod tests;
