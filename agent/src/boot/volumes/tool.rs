//! Runs the image's own mkfs and fsck: verified programs in a chroot of the verified root, with
//! devices and /proc but no other file of the agent.
//!
//! Promise: the call returns within the deadline plus a few seconds, keeps a bounded part of the
//! output, and leaves no mount behind. The program has a mount namespace of its own, which ends
//! with it.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::kernel::process;

/// Number of bytes at the end of the program's output that are returned.
const KEPT: usize = 4096;
/// How long to wait for a killed program to end.
const END: Duration = Duration::from_secs(5);

/// A program of the image to run, with its arguments and limits.
pub struct Tool<'a> {
    /// The mounted root of the image.
    pub sysroot: &'a Path,
    /// The program's name, searched in the image's PATH.
    pub program: &'a str,
    /// The program's arguments.
    pub arguments: &'a [&'a str],
    /// The option that takes the number of a file descriptor to which the program writes its
    /// progress.
    pub progress: Option<&'a str>,
    /// Longest run time.
    pub deadline: Duration,
    /// Texts to search for in all of its output. None may be longer than [`OVERLAP`].
    pub watched: &'a [&'static str],
}

/// Longest text that can be searched for, bytes.
const OVERLAP: usize = 80;

/// How a program ended.
pub struct ToolExit {
    /// Exit code; for a signal, 128 plus its number, as in a shell.
    pub code: i32,
    /// The last of its output, on one line.
    pub said: String,
    /// The watched texts that its output contained.
    pub seen: Vec<&'static str>,
}

/// Why a program could not be run to its end. It says nothing about the device that the program was
/// to work on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolError {
    /// For the end of a sentence.
    pub why: String,
    /// What to do.
    pub remedy: &'static str,
}

/// What a running program has written so far.
#[derive(Default)]
struct ToolOutput {
    said: Vec<u8>,
    seen: Vec<&'static str>,
    /// The last line of progress.
    how_far: Vec<u8>,
}

/// Runs a program of the image without watched texts and progress. The error is the reason why it
/// could not be run to its end.
pub fn run_tool(
    sysroot: &Path,
    program: &str,
    arguments: &[&str],
    deadline: Duration,
    tick: &mut dyn FnMut(),
) -> Result<ToolExit, String> {
    let tool = Tool {
        sysroot,
        program,
        arguments,
        progress: None,
        deadline,
        watched: &[],
    };
    tool.run_to_end(&mut |_| tick()).map_err(|error| error.why)
}

impl Tool<'_> {
    /// Runs it. `alive` is called about every second with the last line of progress, to feed the
    /// watchdog.
    pub fn run_to_end(&self, alive: &mut dyn FnMut(&str)) -> Result<ToolExit, ToolError> {
        run_to_end(self, alive)
    }
}

fn run_to_end(tool: &Tool<'_>, alive: &mut dyn FnMut(&str)) -> Result<ToolExit, ToolError> {
    let Tool {
        program,
        deadline,
        watched,
        ..
    } = tool;
    let until = Instant::now() + *deadline;
    let (mut child, far) = start(tool).map_err(|error| not_started(program, &error))?;
    let mut output = ToolOutput::default();
    let ended = wait(&mut child, &far, &mut output, watched, until, alive);
    if ended.is_none() {
        // An error means that it has just ended.
        let _ = child.kill();
        if wait(
            &mut child,
            &far,
            &mut output,
            watched,
            Instant::now() + END,
            alive,
        )
        .is_none()
        {
            let why = format!(
                "{program} took more than {} s and does not end when it is killed: the disk hangs",
                deadline.as_secs()
            );
            return Err(ToolError {
                why,
                remedy: "check the disk and its connection",
            });
        }
    }
    let said = one_line(&output.said);
    match ended {
        Some(code) => Ok(ToolExit {
            code,
            said,
            seen: output.seen,
        }),
        None => {
            let why = format!(
                "{program} took more than {} s; its last output: {said}",
                deadline.as_secs()
            );
            Err(ToolError {
                why,
                remedy: "start again, or check the volume on another machine",
            })
        }
    }
}

fn not_started(program: &str, error: &io::Error) -> ToolError {
    match error.kind() {
        io::ErrorKind::NotFound => ToolError {
            why: format!("the image has no {program}, or no /dev and /proc to run it with"),
            remedy: "put e2fsprogs into the image",
        },
        io::ErrorKind::OutOfMemory => ToolError {
            why: format!("starting {program}: {error}"),
            remedy: "give the machine more memory",
        },
        _ => ToolError {
            why: format!("starting {program}: {error}"),
            remedy: "put an e2fsprogs for this machine into the image",
        },
    }
}

/// Starts the program. Returns it with the pipe that receives its progress.
fn start(tool: &Tool<'_>) -> io::Result<(Child, File)> {
    let Tool {
        sysroot,
        program,
        arguments,
        ..
    } = *tool;
    let (far, far_end) = io::pipe()?;
    let mut command = Command::new(program);
    if let Some(option) = tool.progress {
        command.arg(option).arg(far_end.as_raw_fd().to_string());
    }
    command
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LC_ALL", "C");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0);
    process::run_in_root(&mut command, sysroot, far_end.into());
    let child = command.spawn()?;
    Ok((child, File::from(OwnedFd::from(far))))
}

/// Reads the program's output until it ends. Returns its exit code, or `None` if `until` comes
/// first.
#[inline(never)]
fn wait(
    child: &mut Child,
    far: &File,
    output: &mut ToolOutput,
    watched: &[&'static str],
    until: Instant,
    alive: &mut dyn FnMut(&str),
) -> Option<i32> {
    let (mut open, mut far_open) = (child.stdout.is_some(), true);
    loop {
        // An error is treated as "still running": no other code waits for this child, so the next
        // call succeeds or the deadline ends the wait.
        if let Some(status) = child.try_wait().unwrap_or_default() {
            drain(child, output, watched);
            return Some(
                status
                    .code()
                    .unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
            );
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        alive(&String::from_utf8_lossy(&output.how_far));
        // A program that ends closes its output, which wakes up the poll. One that closes its
        // output early is checked every 20 ms.
        match (&child.stdout, open) {
            (Some(stdout), true) => {
                let slice = left.min(Duration::from_secs(1)).as_millis() as u16;
                let mut polled = [
                    PollFd::new(stdout.as_fd(), PollFlags::POLLIN),
                    PollFd::new(far.as_fd(), PollFlags::POLLIN),
                ];
                let count = if far_open { 2 } else { 1 };
                if poll(&mut polled[..count], PollTimeout::from(slice)).is_ok_and(|ready| ready > 0)
                {
                    let is_ready = |at: usize| polled[at].any().unwrap_or_default();
                    let (said, told) = (is_ready(0), count == 2 && is_ready(1));
                    if said {
                        open = read_some(child, output, watched);
                    }
                    if told {
                        far_open = read_far(far, output);
                    }
                }
            }
            _ => std::thread::sleep(left.min(Duration::from_millis(20))),
        }
    }
}

/// Reads available output; false at the end of the output.
#[inline(never)]
fn read_some(child: &mut Child, output: &mut ToolOutput, watched: &[&'static str]) -> bool {
    let mut buffer = [0; 1024];
    let Some(stdout) = &mut child.stdout else {
        return false;
    };
    let count = stdout.read(&mut buffer).unwrap_or(0);
    let new = output.said.len().saturating_sub(OVERLAP);
    output.said.extend_from_slice(&buffer[..count]);
    for text in watched {
        if !output.seen.contains(text)
            && output.said[new..]
                .windows(text.len())
                .any(|window| window == text.as_bytes())
        {
            output.seen.push(text);
        }
    }
    output.said.drain(..output.said.len().saturating_sub(KEPT));
    count > 0
}

/// Reads the last line of progress; false at the end of the pipe.
fn read_far(mut far: &File, output: &mut ToolOutput) -> bool {
    let mut buffer = [0; 4096];
    let count = far.read(&mut buffer).unwrap_or(0);
    let lines = buffer[..count].trim_ascii_end();
    output.how_far = lines
        .rsplit(|byte| *byte == b'\n')
        .next()
        .unwrap_or_default()
        .to_vec();
    count > 0
}

/// Reads output that an ended program left in the pipe. Its children may hold the pipe open, so
/// only bytes that are available now are read.
fn drain(child: &mut Child, output: &mut ToolOutput, watched: &[&'static str]) {
    for _ in 0..64 {
        let ready = child.stdout.as_ref().is_some_and(|stdout| {
            let mut polled = [PollFd::new(stdout.as_fd(), PollFlags::POLLIN)];
            poll(&mut polled, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
        });
        if !ready || !read_some(child, output, watched) {
            return;
        }
    }
}

/// The end of a program's output as one line without control characters.
#[inline(never)]
fn one_line(said: &[u8]) -> String {
    let text = String::from_utf8_lossy(said);
    let words: Vec<&str> = text
        .split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|word| !word.is_empty())
        .collect();
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

    fn sh(script: &str, deadline: Duration) -> Result<ToolExit, ToolError> {
        let _alone = alone();
        let watched = &["the last", "not there"];
        Tool {
            sysroot: Path::new("/"),
            program: "sh",
            arguments: &["-c", script],
            progress: None,
            deadline,
            watched,
        }
        .run_to_end(&mut |_| ())
    }

    #[test]
    fn kills_a_program_at_its_deadline_and_quotes_its_output() {
        if !is_root() {
            return;
        }
        let started = Instant::now();
        let error = sh(
            "echo waiting for the disk; exec 1>&- 2>&-; sleep 60",
            Duration::from_millis(300),
        )
        .err()
        .unwrap()
        .why;
        assert!(
            error.contains("more than 0 s") && error.contains("waiting for the disk"),
            "{error}"
        );
        assert!(started.elapsed() < Duration::from_secs(3));
    }

    #[test]
    fn returns_a_bounded_end_of_the_output_on_one_line() {
        if !is_root() {
            return;
        }
        let ended = sh(
            "yes 'line of output' | head -100000; echo; echo the last >&2; exit 4",
            Duration::from_secs(20),
        )
        .unwrap();
        assert_eq!((ended.code, ended.seen), (4, vec!["the last"]));
        assert!(
            ended.said.len() < 420 && ended.said.ends_with("the last"),
            "{}",
            ended.said
        );
        assert_eq!(sh("kill -9 $$", Duration::from_secs(20)).unwrap().code, 137);
        assert_eq!(
            sh("env", Duration::from_secs(20))
                .unwrap()
                .said
                .split(' ')
                .count(),
            3,
            "PATH, LC_ALL and the shell's PWD only"
        );
    }

    #[test]
    fn finds_a_watched_text_anywhere_in_the_output() {
        if !is_root() {
            return;
        }
        // At the start of much output, and across two reads of 1024 bytes.
        for before in [0, 1020, 3000] {
            let script =
                format!("head -c {before} /dev/zero; echo the last; head -c 90000 /dev/zero");
            assert_eq!(
                sh(&script, Duration::from_secs(20)).unwrap().seen,
                ["the last"],
                "{before}"
            );
        }
    }

    #[test]
    fn passes_on_the_program_s_progress() {
        if !is_root() {
            return;
        }
        let _alone = alone();
        let mut lines = Vec::new();
        let script = "import os, sys, time; os.write(int(sys.argv[1]), b'0 9 9 disk\\n1 2 4 disk\\n'); time.sleep(2.2); print('end')";
        let path = std::env::temp_dir().join(format!("adamant-progress-{}", std::process::id()));
        std::fs::write(&path, script).unwrap();
        let (arguments, deadline) = (&["/dev/null"], Duration::from_secs(20));
        let tool = Tool {
            sysroot: Path::new("/"),
            program: "python3",
            arguments,
            progress: path.to_str(),
            deadline,
            watched: &[],
        };
        assert_eq!(
            tool.run_to_end(&mut |line| lines.push(line.to_owned()))
                .unwrap()
                .said,
            "end"
        );
        std::fs::remove_file(&path).unwrap();
        assert!(lines.iter().any(|line| line == "1 2 4 disk"), "{lines:?}");
    }

    #[test]
    fn names_a_program_that_can_t_be_started_with_the_remedy() {
        if !is_root() {
            return;
        }
        let _alone = alone();
        let start = |program| {
            let tool = Tool {
                sysroot: Path::new("/"),
                program,
                arguments: &[],
                progress: None,
                deadline: Duration::from_secs(1),
                watched: &[],
            };
            tool.run_to_end(&mut |_| ()).err().unwrap()
        };
        let error = start("mkfs.none");
        assert!(
            error.why.contains("has no mkfs.none") && error.remedy.contains("put e2fsprogs"),
            "{error:?}"
        );
        // The file has no permission to be executed.
        let path = std::env::temp_dir().join(format!("adamant-no-program-{}", std::process::id()));
        std::fs::write(&path, [0x7f; 200]).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644))
            .unwrap();
        let error = start(path.to_str().unwrap());
        std::fs::remove_file(&path).unwrap();
        assert!(
            error.why.contains("starting /") && error.why.contains("ermission denied"),
            "{error:?}"
        );
    }
}
