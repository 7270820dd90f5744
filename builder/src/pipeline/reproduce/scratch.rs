//! The folder that the second build happens in: hidden, beside OUT, on whose file system there is
//! room for it.
//!
//! It goes when the comparison ends, and when a signal ends the program. A kill that nobody can
//! answer leaves it behind; it is locked while somebody works in it, so the next build sees that
//! nobody does and takes it away.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{SigSet, Signal, raise};

use crate::error::{Context, Error, Result};

/// The folder. Whoever has its lock works in it.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    lock: Flock<File>,
}

impl Scratch {
    /// A new one beside OUT.
    pub fn beside(out: &Path) -> Result<Scratch> {
        let (parent, mut name) = around(out)?;
        name.push(std::process::id().to_string());
        let path = parent.join(name);
        let whole = File::open(&parent).context(|| format!("{}", parent.display()))?;
        // Nobody sweeps between its making and its locking.
        let _making = Flock::lock(whole, FlockArg::LockExclusive).map_err(|(_, error)| {
            Error::new(format!("{}: locking: {}", parent.display(), error.desc()))
        })?;
        fs::create_dir(&path).context(|| format!("{}", path.display()))?;
        let lock = File::open(&path).context(|| format!("{}", path.display()))?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| {
            Error::new(format!("{}: locking: {}", path.display(), error.desc()))
        })?;
        Ok(Scratch { path, lock })
    }

    /// Where it is, absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The descriptor that holds the lock: the second build inherits it, so that the folder is in
    /// use for as long as either lives.
    pub fn lock(&self) -> RawFd {
        self.lock.as_raw_fd()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Takes away what killed builds left beside OUT. What can't be taken away is not worth a failure.
pub fn sweep(out: &Path) {
    let Ok((parent, name)) = around(out) else {
        return;
    };
    let Ok(Ok(_sweeping)) =
        File::open(&parent).map(|whole| Flock::lock(whole, FlockArg::LockExclusiveNonblock))
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

/// The folder that OUT is in, and what the names of its scratch folders start with.
fn around(out: &Path) -> Result<(PathBuf, OsString)> {
    let out = std::path::absolute(out).context(|| format!("{}", out.display()))?;
    let mut name = OsStr::new(".").to_owned();
    name.push(out.file_name().unwrap_or_default());
    name.push(".adamant-check-");
    Ok((out.parent().unwrap_or(Path::new("/")).to_owned(), name))
}

/// While it lives, interrupt, hang-up and termination end the second build and take its folder away
/// before they end the program.
pub struct Tidy {
    child: Arc<Mutex<Option<Child>>>,
    signals: SigSet,
    before: SigSet,
}

impl Tidy {
    /// From now on they wait. It begins before there is a folder, so that there is no moment in
    /// which one could be left behind.
    pub fn begin() -> Result<Tidy> {
        let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]
            .into_iter()
            .collect();
        let before = SigSet::thread_get_mask().context(|| "the mask of signals")?;
        signals.thread_block().context(|| "the mask of signals")?;
        Ok(Tidy {
            child: Arc::new(Mutex::new(None)),
            signals,
            before,
        })
    }

    /// From now on they are answered, for this folder; also those that have waited.
    pub fn watch(&self, scratch: &Path) {
        let (signals, theirs, scratch) = (self.signals, self.child.clone(), scratch.to_owned());
        std::thread::spawn(move || {
            let Ok(signal) = signals.wait() else { return };
            // Held to the end: there will be no further child.
            let mut child = lock(&theirs);
            if let Some(child) = child.as_mut() {
                let _ = child.kill();
                let _ = child.wait();
            }
            let _ = fs::remove_dir_all(&scratch);
            let _ = signals.thread_unblock();
            let _ = raise(signal);
        });
    }

    /// The second build, once there is one.
    pub fn child(&self) -> MutexGuard<'_, Option<Child>> {
        lock(&self.child)
    }
}

impl Drop for Tidy {
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
    fn what_nobody_works_in_is_swept_and_what_somebody_works_in_is_not() {
        let dir = std::env::temp_dir().join(format!("adamant-scratch-{}", std::process::id()));
        let out = dir.join("out");
        fs::create_dir_all(dir.join(".out.adamant-check-1/second")).unwrap();
        fs::create_dir_all(dir.join(".out.adamant-check-notes")).unwrap();
        fs::create_dir_all(dir.join(".other.adamant-check-1")).unwrap();
        let used = Scratch::beside(&out).unwrap();
        sweep(&out);
        let names = || {
            let mut names: Vec<_> = fs::read_dir(&dir)
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
        fs::remove_dir_all(&dir).unwrap();
    }
}
