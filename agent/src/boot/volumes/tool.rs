//! Running the image's own mkfs and fsck: verified programs, in a chroot of the verified root, with nothing of ours but the devices.
//!
//! Promise: returns within the deadline plus a few seconds, keeps a bounded part of what the program says, and leaves no mount behind: the
//! program has a mount namespace of its own, which ends with it.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};

/// Of the program's words, this many last bytes are kept.
const KEPT: usize = 4096;
/// How long a killed program may take to end, before it is left alone.
const END: Duration = Duration::from_secs(5);

/// How a program ended.
pub struct Ended {
    /// Exit code; a signal counts as 128 plus its number, as in a shell.
    pub code: i32,
    /// The last of what it said, on one line.
    pub said: String,
}

/// Runs `program`, found in the image, with `arguments`. `tick` is called about every second, to keep a watchdog fed. `Err` says in a clause why it
/// could not be run to its end.
pub fn run(sysroot: &Path, program: &str, arguments: &[&str], deadline: Duration, tick: &mut dyn FnMut()) -> Result<Ended, String> {
    let until = Instant::now() + deadline;
    let mut child = start(sysroot, program, arguments).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => format!("the image has no {program}, or no /dev and /proc to run it with"),
        _ => format!("starting {program}: {e}"),
    })?;
    let mut said = Vec::new();
    let ended = wait(&mut child, &mut said, until, tick);
    if ended.is_none() {
        // An error means that it has just ended.
        let _ = child.kill();
        if wait(&mut child, &mut said, Instant::now() + END, tick).is_none() {
            return Err(format!("{program} took more than {} s and does not even end when killed: the disk hangs", deadline.as_secs()));
        }
    }
    let said = one_line(&said);
    match ended {
        Some(code) => Ok(Ended { code, said }),
        None => Err(format!("{program} took more than {} s; it last said: {said}", deadline.as_secs())),
    }
}

fn start(sysroot: &Path, program: &str, arguments: &[&str]) -> io::Result<Child> {
    let mut command = Command::new(program);
    command.args(arguments).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0);
    let (sysroot, dev, proc) = (sysroot.to_owned(), sysroot.join("dev"), sysroot.join("proc"));
    let enter = move || {
        nix::unistd::dup2_stderr(io::stdout())?;
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
        mount(Some("/dev"), &dev, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
        mount(Some("/proc"), &proc, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
        nix::unistd::chroot(&sysroot)?;
        nix::unistd::chdir("/")?;
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes system calls only, with paths that were allocated before.
    unsafe { command.pre_exec(enter) };
    command.spawn()
}

/// Reads what the program says until it ends: its exit code, or `None` when `until` has come first.
fn wait(child: &mut Child, said: &mut Vec<u8>, until: Instant, tick: &mut dyn FnMut()) -> Option<i32> {
    let mut open = child.stdout.is_some();
    loop {
        // A failed wait can't be told from an ended program, and there is nobody else who could have waited for it.
        if let Some(status) = child.try_wait().unwrap_or_default() {
            drain(child, said);
            return Some(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)));
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        tick();
        // An ending program closes its output first, which wakes this up; one that closes it early is asked about every 20 ms.
        match (&child.stdout, open) {
            (Some(output), true) => {
                let slice = left.min(Duration::from_secs(1)).as_millis() as u16;
                let mut polled = [PollFd::new(output.as_fd(), PollFlags::POLLIN)];
                if poll(&mut polled, PollTimeout::from(slice)).is_ok_and(|ready| ready > 0) {
                    open = read_some(child, said);
                }
            }
            _ => std::thread::sleep(left.min(Duration::from_millis(20))),
        }
    }
}

/// Takes what is there to read; false when there will be no more.
fn read_some(child: &mut Child, said: &mut Vec<u8>) -> bool {
    let mut buffer = [0; 1024];
    let Some(output) = &mut child.stdout else { return false };
    let count = output.read(&mut buffer).unwrap_or(0);
    said.extend_from_slice(&buffer[..count]);
    said.drain(..said.len().saturating_sub(KEPT));
    count > 0
}

/// What an ended program has left in the pipe. Its children may hold the pipe open: only what is there now is read.
fn drain(child: &mut Child, said: &mut Vec<u8>) {
    for _ in 0..64 {
        let ready = child.stdout.as_ref().is_some_and(|output| {
            let mut polled = [PollFd::new(output.as_fd(), PollFlags::POLLIN)];
            poll(&mut polled, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
        });
        if !ready || !read_some(child, said) {
            return;
        }
    }
}

/// The program's words as one line for a person: its last ones, without control characters.
fn one_line(said: &[u8]) -> String {
    let text = String::from_utf8_lossy(said);
    let words: Vec<&str> = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()).collect();
    let line = words.join(" ");
    match line.char_indices().rev().nth(399) {
        Some((at, _)) if at > 0 => format!("...{}", &line[at..]),
        _ => line,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{alone, is_root};
    use super::*;

    fn sh(script: &str, deadline: Duration) -> Result<Ended, String> {
        let _alone = alone();
        run(Path::new("/"), "sh", &["-c", script], deadline, &mut || ())
    }

    #[test]
    fn a_program_that_never_ends_is_killed_at_its_deadline_and_quoted() {
        if !is_root() {
            return;
        }
        let started = Instant::now();
        let error = sh("echo waiting for the disk; exec 1>&- 2>&-; sleep 60", Duration::from_millis(300)).err().unwrap();
        assert!(error.contains("more than 0 s") && error.contains("waiting for the disk"), "{error}");
        assert!(started.elapsed() < Duration::from_secs(3));
    }

    #[test]
    fn what_a_program_says_is_kept_in_bounds_and_on_one_line() {
        if !is_root() {
            return;
        }
        let ended = sh("yes 'line of output' | head -100000; echo; echo the last >&2; exit 4", Duration::from_secs(20)).unwrap();
        assert_eq!(ended.code, 4);
        assert!(ended.said.len() < 420 && ended.said.ends_with("the last"), "{}", ended.said);
        assert_eq!(sh("kill -9 $$", Duration::from_secs(20)).unwrap().code, 137);
        assert_eq!(sh("env", Duration::from_secs(20)).unwrap().said.split(' ').count(), 3, "PATH, LC_ALL and the shell's PWD only");
    }

    #[test]
    fn a_missing_program_is_named() {
        if !is_root() {
            return;
        }
        let _alone = alone();
        let error = run(Path::new("/"), "mkfs.none", &[], Duration::from_secs(1), &mut || ()).err().unwrap();
        assert!(error.contains("has no mkfs.none"), "{error}");
    }
}
