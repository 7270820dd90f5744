//! Slow preparations run in threads of their own while other stages go on. A stage that needs the
//! result waits for it.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use super::super::Context;

/// Bytes of a thread's stack: enough for the instructions of the guard's largest program.
pub const STACK_BYTES: usize = 256 << 10;

/// A task that runs in a thread. Only [`BackgroundTask::start`] makes one.
pub struct BackgroundTask<T> {
    /// Completes "the thread that ...".
    does: &'static str,
    timeout: Duration,
    result: Receiver<Result<T, String>>,
}

impl<T: Send + 'static> BackgroundTask<T> {
    /// Starts `work`, which may take as long as `timeout`. The error is a phrase for a message.
    pub fn start(
        does: &'static str,
        timeout: Duration,
        work: impl FnOnce() -> Result<T, String> + Send + 'static,
    ) -> Result<BackgroundTask<T>, String> {
        let (sender, result) = mpsc::sync_channel(1);
        // Sending fails where the waiting stage has given up.
        let work = move || sender.send(work()).unwrap_or_default();
        thread::Builder::new()
            .stack_size(STACK_BYTES)
            .spawn(work)
            .map_err(|e| format!("the thread that {does} cannot be started: {e}"))?;
        Ok(BackgroundTask {
            does,
            timeout,
            result,
        })
    }

    /// Waits for the result, and feeds the watchdog meanwhile. The error is a phrase for a message.
    pub fn wait(&self, context: &mut Context) -> Result<T, String> {
        for _ in 0..self.timeout.as_secs() {
            match self.result.recv_timeout(Duration::from_secs(1)) {
                Err(RecvTimeoutError::Timeout) => context.watchdog.alive(),
                Ok(result) => return result,
                // A panic would have ended the boot, so the result was taken before.
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(format!("the thread that {} has no result left", self.does));
                }
            }
        }
        Err(format!(
            "the thread that {} has not ended within {} s",
            self.does,
            self.timeout.as_secs()
        ))
    }
}
