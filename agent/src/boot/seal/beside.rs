//! What takes long to prepare, in a thread beside the stages that follow. It is begun once a
//! verified policy asks for it, and waited for where it is needed.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use super::super::Context;

/// Of a thread, bytes: the guard's largest program's instructions and the verifier's words.
pub const STACK: usize = 256 << 10;

/// Work on its way. Only [`Beside::begin`] makes one.
pub struct Beside<T> {
    /// What the thread does, as in "a thread that ...".
    does: &'static str,
    patience: Duration,
    told: Receiver<Result<T, String>>,
}

impl<T: Send + 'static> Beside<T> {
    /// Begins with `work`, which may take as long as `patience`. `Err` is a clause.
    pub fn begin(
        does: &'static str,
        patience: Duration,
        work: impl FnOnce() -> Result<T, String> + Send + 'static,
    ) -> Result<Beside<T>, String> {
        let (tell, told) = mpsc::sync_channel(1);
        // Whoever waits may have given up.
        let work = move || tell.send(work()).unwrap_or_default();
        thread::Builder::new()
            .stack_size(STACK)
            .spawn(work)
            .map_err(|e| format!("a thread that {does}: {e}"))?;
        Ok(Beside {
            does,
            patience,
            told,
        })
    }

    /// Waits until it is done, and feeds the watchdog meanwhile. `Err` is a clause.
    pub fn wait(&self, context: &mut Context) -> Result<T, String> {
        for _ in 0..self.patience.as_secs() {
            match self.told.recv_timeout(Duration::from_secs(1)) {
                Err(RecvTimeoutError::Timeout) => context.watchdog.alive(),
                Ok(result) => return result,
                // A thread that panics ends the boot, and this with it.
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(format!("the thread that {} has ended", self.does));
                }
            }
        }
        Err(format!(
            "the thread that {} has not ended in {} s",
            self.does,
            self.patience.as_secs()
        ))
    }
}
