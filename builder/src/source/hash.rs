//! SHA-256 of an archive, computed by a background thread while the archive is read.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use adamant_contract::hex;

use crate::error::{Context, Error, Result, reason};
use crate::io::part::Part;

/// SHA-256 of a source, known or still being computed.
#[derive(Debug, Clone)]
pub struct ArchiveHash(Arc<Mutex<HashState>>);

#[derive(Debug)]
enum HashState {
    Known(Result<[u8; 32], String>),
    Pending(Running),
}

/// The hashing thread. It stops when the last `ArchiveHash` that waits for it is dropped.
#[derive(Debug)]
struct Running {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<[u8; 32]>>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl ArchiveHash {
    /// A known hash.
    pub fn known(sha256: [u8; 32]) -> ArchiveHash {
        ArchiveHash(Arc::new(Mutex::new(HashState::Known(Ok(sha256)))))
    }

    /// Starts hashing an archive in the background. Dropping the last copy cancels it.
    pub fn start(archive: Part) -> Result<ArchiveHash> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let go_on = move |_| {
            if stopped.load(Ordering::Relaxed) {
                Err(io::ErrorKind::Interrupted.into())
            } else {
                Ok(())
            }
        };
        let thread = std::thread::Builder::new()
            .name("hash".to_owned())
            .spawn(move || archive.sha256(go_on))
            .context(|| "starting a thread")?;
        Ok(ArchiveHash(Arc::new(Mutex::new(HashState::Pending(
            Running {
                stop,
                thread: Some(thread),
            },
        )))))
    }

    /// Waits for the hash.
    pub fn wait(&self) -> Result<[u8; 32]> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let HashState::Pending(running) = &mut *state {
            let done = running.thread.take().map(JoinHandle::join);
            let done = done
                .and_then(Result::ok)
                .unwrap_or_else(|| Err(io::Error::other("hashing failed")));
            *state = HashState::Known(done.map_err(|error| reason(&error)));
        }
        match &*state {
            HashState::Known(Ok(sha256)) => Ok(*sha256),
            HashState::Known(Err(why)) => Err(Error::new(format!("reading the archive: {why}"))),
            HashState::Pending(_) => Err(Error::new("hashing the archive failed")),
        }
    }
}

/// The expected hash of an archive from a cache.
#[derive(Debug, Clone)]
pub struct ExpectedHash {
    /// The hash of the archive as read.
    pub hash: ArchiveHash,
    /// The expected hash, hexadecimal.
    pub sha256: String,
}

impl ExpectedHash {
    /// Whether the two hashes are equal. Waits for the hash of the archive.
    pub fn matches(&self) -> bool {
        self.hash
            .wait()
            .is_ok_and(|sha256| hex::encode(&sha256) == self.sha256)
    }
}
