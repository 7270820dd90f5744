//! Other programs as children: each ends with us or at its deadline, and what it says is bounded.

use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::signal::Signal;

/// How often a child is looked after.
pub const POLL: Duration = Duration::from_millis(20);

/// How a child ended, and what it said where its outputs were pipes.
#[derive(Debug)]
pub struct Captured {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub out: Vec<u8>,
    /// Its standard error.
    pub err: Vec<u8>,
}

impl Captured {
    /// What it said on both, for people.
    pub fn said(&self) -> String {
        [&self.out, &self.err]
            .map(|bytes| String::from_utf8_lossy(bytes))
            .concat()
    }
}

/// Runs it with this input, where its standard input is a pipe, and keeps `limit` bytes of each
/// output; `None` when the deadline passed.
pub fn run(
    command: &mut Command,
    input: &[u8],
    limit: u64,
    timeout: Duration,
) -> io::Result<Option<Captured>> {
    let mut child = spawn(command)?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that needs no input may be gone already.
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

/// Starts a child that ends with us.
pub fn spawn(command: &mut Command) -> io::Result<Child> {
    // SAFETY: between fork and exec only prctl is called, which is async-signal-safe.
    unsafe {
        command.pre_exec(|| nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(Into::into));
    }
    command.spawn()
}

/// Leaves a descriptor open in the child; it must be open until the child is started.
pub fn inherit(command: &mut Command, descriptor: i32) {
    // SAFETY: between fork and exec only fcntl is called, which is async-signal-safe.
    unsafe {
        command.pre_exec(move || match libc::fcntl(descriptor, libc::F_SETFD, 0) {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        });
    }
}

/// Waits; at the deadline ends the child and gives `None`.
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

/// All of it, and its first `limit` bytes as the result.
pub fn bounded(from: impl Read, limit: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut from = from.take(limit);
    let _ = from.read_to_end(&mut bytes);
    // What is over the bound is read and dropped, so that the writer never stalls.
    let _ = io::copy(&mut from.into_inner(), &mut io::sink());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Stdio;

    #[test]
    fn what_a_child_says_is_given_back() {
        let mut command = Command::new("sh");
        command
            .args(["-c", "echo out; echo err >&2"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let captured = run(&mut command, b"", 1 << 20, Duration::from_secs(30))
            .unwrap()
            .unwrap();
        assert_eq!(captured.said(), "out\nerr\n");
    }
}
