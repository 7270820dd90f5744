//! The work directory of the second build: hidden, beside OUT, on the same file system.
//!
//! It is removed when the comparison ends, and when a signal ends the program. After SIGKILL it
//! remains. It is locked while it is in use, so the next build finds it unlocked and removes it.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{SigSet, Signal, raise};

use crate::error::{Context, Error, Result};

/// The work directory, locked for as long as it is in use.
#[derive(Debug)]
pub struct WorkFolder {
    path: PathBuf,
    lock: Flock<File>,
}

impl WorkFolder {
    /// Creates a directory beside OUT.
    pub fn create(out: &Path) -> Result<WorkFolder> {
        let (parent, mut name) = parent_and_prefix(out)?;
        name.push(std::process::id().to_string());
        let path = parent.join(name);
        let parent_folder = File::open(&parent).context(|| format!("{}", parent.display()))?;
        // With this lock, no other build sweeps the directory before it is locked itself.
        let _sweep_lock =
            Flock::lock(parent_folder, FlockArg::LockExclusive).map_err(|(_, error)| {
                Error::new(format!("{}: locking: {}", parent.display(), error.desc()))
            })?;
        fs::create_dir(&path).context(|| format!("{}", path.display()))?;
        let lock = File::open(&path).context(|| format!("{}", path.display()))?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| {
            Error::new(format!("{}: locking: {}", path.display(), error.desc()))
        })?;
        Ok(WorkFolder { path, lock })
    }

    /// The absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The descriptor with the lock. The second build inherits it, so the directory stays locked
    /// until both processes have ended.
    pub fn lock(&self) -> RawFd {
        self.lock.as_raw_fd()
    }
}

impl Drop for WorkFolder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Removes work directories of killed builds beside OUT. Errors are ignored.
pub fn sweep(out: &Path) {
    let Ok((parent, name)) = parent_and_prefix(out) else {
        return;
    };
    let Ok(Ok(_sweep_lock)) =
        File::open(&parent).map(|folder| Flock::lock(folder, FlockArg::LockExclusiveNonblock))
    else {
        return;
    };
    for entry in fs::read_dir(&parent).into_iter().flatten().flatten() {
        let is_ours = entry
            .file_name()
            .as_encoded_bytes()
            .strip_prefix(name.as_encoded_bytes())
            .is_some_and(|pid| pid.iter().all(u8::is_ascii_digit));
        if is_ours
            && entry.file_type().is_ok_and(|kind| kind.is_dir())
            && let Ok(folder) = File::open(entry.path())
            && let Ok(_unused) = Flock::lock(folder, FlockArg::LockExclusiveNonblock)
        {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// The parent of OUT, and the prefix of the names of its work directories.
fn parent_and_prefix(out: &Path) -> Result<(PathBuf, OsString)> {
    let out = std::path::absolute(out).context(|| format!("{}", out.display()))?;
    let mut name = OsStr::new(".").to_owned();
    name.push(out.file_name().unwrap_or_default());
    name.push(".adamant-check-");
    Ok((out.parent().unwrap_or(Path::new("/")).to_owned(), name))
}

/// Handles SIGINT, SIGHUP and SIGTERM: they end the second build and remove its directory before
/// they end the program.
pub struct SignalGuard {
    child: Arc<Mutex<Option<Child>>>,
    signals: SigSet,
    before: SigSet,
}

impl SignalGuard {
    /// Blocks the signals. Call it before the directory is created, so that no signal leaves the
    /// directory behind.
    pub fn block() -> Result<SignalGuard> {
        let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]
            .into_iter()
            .collect();
        let before = SigSet::thread_get_mask().context(|| "reading the signal mask")?;
        signals
            .thread_block()
            .context(|| "setting the signal mask")?;
        Ok(SignalGuard {
            child: Arc::new(Mutex::new(None)),
            signals,
            before,
        })
    }

    /// Starts to handle the signals, also pending ones, for this directory.
    pub fn remove_on_signal(&self, folder: &Path) {
        let (signals, shared, folder) = (self.signals, self.child.clone(), folder.to_owned());
        std::thread::spawn(move || {
            let Ok(signal) = signals.wait() else { return };
            // The lock is held to the end, so that no further child is started.
            let mut child = lock(&shared);
            if let Some(child) = child.as_mut() {
                let _ = child.kill();
                let _ = child.wait();
            }
            let _ = fs::remove_dir_all(&folder);
            let _ = signals.thread_unblock();
            let _ = raise(signal);
        });
    }

    /// The process of the second build, after its start.
    pub fn child(&self) -> MutexGuard<'_, Option<Child>> {
        lock(&self.child)
    }
}

impl Drop for SignalGuard {
    fn drop(&mut self) {
        let _ = self.before.thread_set_mask();
    }
}

fn lock(child: &Mutex<Option<Child>>) -> MutexGuard<'_, Option<Child>> {
    child.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sweep_removes_unlocked_work_folders_only() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path();
        let out = dir.join("out");
        fs::create_dir_all(dir.join(".out.adamant-check-1/second")).unwrap();
        fs::create_dir_all(dir.join(".out.adamant-check-notes")).unwrap();
        fs::create_dir_all(dir.join(".other.adamant-check-1")).unwrap();
        let used = WorkFolder::create(&out).unwrap();
        sweep(&out);
        let names = || {
            let mut names: Vec<_> = fs::read_dir(dir)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        };
        let mine = format!(".out.adamant-check-{}", std::process::id());
        assert_eq!(
            names(),
            [".other.adamant-check-1", &mine, ".out.adamant-check-notes"]
        );
        drop(used);
        assert_eq!(
            names(),
            [".other.adamant-check-1", ".out.adamant-check-notes"]
        );
    }
}
