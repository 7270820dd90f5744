//! Child processes. Each ends with this process or at its deadline, and its output is bounded.

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::signal::Signal;

/// Interval at which a child is polled.
pub const POLL: Duration = Duration::from_millis(20);

/// Exit status of a child, and its output if that went to pipes.
#[derive(Debug)]
pub struct Captured {
    /// Exit status.
    pub status: ExitStatus,
    /// Standard output.
    pub out: Vec<u8>,
    /// Standard error.
    pub err: Vec<u8>,
}

impl Captured {
    /// Standard output followed by standard error, as text.
    pub fn text(&self) -> String {
        [&self.out, &self.err]
            .map(|bytes| String::from_utf8_lossy(bytes))
            .concat()
    }
}

/// Runs a command to its end and captures at most `limit` bytes of each output. `input` is written
/// to its standard input if that is a pipe. The result is `None` if the deadline passed.
pub fn capture(
    command: &mut Command,
    input: &[u8],
    limit: u64,
    timeout: Duration,
) -> io::Result<Option<Captured>> {
    let mut child = spawn(command)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A child that reads no input may have ended already.
        let _ = stdin.write_all(input);
    }
    let (out, err) = (child.stdout.take(), child.stderr.take());
    std::thread::scope(|scope| {
        // The threads end with the child, whose pipes they read.
        let out = scope.spawn(move || out.map(|out| bounded(out, limit)));
        let err = scope.spawn(move || err.map(|err| bounded(err, limit)));
        let status = wait(&mut child, timeout)?;
        let [out, err] = [out, err].map(|said| said.join().ok().flatten().unwrap_or_default());
        Ok(status.map(|status| Captured { status, out, err }))
    })
}

/// Starts a child that the kernel kills when this process ends.
pub fn spawn(command: &mut Command) -> io::Result<Child> {
    // SAFETY: between fork and exec only prctl is called, which is async-signal-safe.
    unsafe {
        command.pre_exec(|| nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(Into::into));
    }
    command.spawn()
}

/// Lets the child inherit a descriptor under its own number, and returns that number.
///
/// The caller keeps the descriptor open until the child has been started. The command holds no
/// copy, because a copy would keep a socket open after the child's end.
pub fn inherit(command: &mut Command, descriptor: BorrowedFd) -> i32 {
    let number = descriptor.as_raw_fd();
    // SAFETY: between fork and exec only fcntl is called, which is async-signal-safe.
    unsafe {
        command.pre_exec(move || match libc::fcntl(number, libc::F_SETFD, 0) {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        });
    }
    number
}

/// Waits for a child. At the deadline the child is killed and the result is `None`.
pub fn wait(child: &mut Child, timeout: Duration) -> io::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + timeout;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(POLL);
    }
}

/// Reads to the end and returns the first `limit` bytes.
pub fn bounded(from: impl Read, limit: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut from = from.take(limit);
    let _ = from.read_to_end(&mut bytes);
    // The rest is read and discarded, so that the writer never blocks.
    let _ = io::copy(&mut from.into_inner(), &mut io::sink());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Stdio;

    #[test]
    fn captures_both_outputs_of_a_child() {
        let mut command = Command::new("sh");
        command
            .args(["-c", "echo out; echo err >&2"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let captured = capture(&mut command, b"", 1 << 20, Duration::from_secs(30))
            .unwrap()
            .unwrap();
        assert_eq!(captured.text(), "out\nerr\n");
    }
}
