//! The hash of an archive, made beside whatever else is done with it until somebody asks.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use adamant_contract::hex;

use crate::error::{Context, Error, Result};
use crate::io::part::Part;

/// SHA-256 of a source, there or on its way.
#[derive(Debug, Clone)]
pub struct ArchiveHash(Arc<Mutex<State>>);

#[derive(Debug)]
enum State {
    Known(Result<[u8; 32], String>),
    OnItsWay(Running),
}

/// A thread that ends with who waits for it.
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
    /// One that is known.
    pub fn known(sha256: [u8; 32]) -> ArchiveHash {
        ArchiveHash(Arc::new(Mutex::new(State::Known(Ok(sha256)))))
    }

    /// That of an archive, from now on. When nobody is left who could ask for it, it is given up.
    pub fn of(archive: Part) -> Result<ArchiveHash> {
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
        Ok(ArchiveHash(Arc::new(Mutex::new(State::OnItsWay(
            Running {
                stop,
                thread: Some(thread),
            },
        )))))
    }

    /// Waits for it.
    pub fn wait(&self) -> Result<[u8; 32]> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let State::OnItsWay(running) = &mut *state {
            let done = running.thread.take().map(JoinHandle::join);
            let done = done
                .and_then(Result::ok)
                .unwrap_or_else(|| Err(io::Error::other("hashing failed")));
            *state = State::Known(done.map_err(|error| error.to_string()));
        }
        match &*state {
            State::Known(Ok(sha256)) => Ok(*sha256),
            State::Known(Err(why)) => Err(Error::new(format!("reading the archive: {why}"))),
            State::OnItsWay(_) => Err(Error::new("hashing the archive failed")),
        }
    }
}

/// What the hash of an archive that comes from a cache has to be.
#[derive(Debug, Clone)]
pub struct Claim {
    /// What it is.
    pub hash: ArchiveHash,
    /// What it has to be, hexadecimal.
    pub sha256: String,
}

impl Claim {
    /// Whether it holds; waits for the hash.
    pub fn holds(&self) -> bool {
        self.hash
            .wait()
            .is_ok_and(|sha256| hex::encode(&sha256) == self.sha256)
    }
}
