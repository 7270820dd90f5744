//! Queries a host with the user's own ssh and ssh configuration.
//!
//! ssh asks no questions and gives the host no access: no terminal, no agent, no forwarded port.
//! Time and output are bounded. If a bound is exceeded, ssh and all processes that it started are
//! killed.

use std::io::{self, ErrorKind, Read};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::nonce::Nonce;
use crate::error::reason;
use crate::io::prerequisite;
use crate::io::process::{self, Captured};

/// Largest output of a host on each stream, bytes. The agent prints a few hundred for each
/// difference.
pub const LIMIT: u64 = 1 << 20;
/// ssh's ConnectTimeout in seconds, unless the user sets one.
const CONNECT: u64 = 15;
/// Options that override the user's configuration: no questions, nothing forwarded, no terminal,
/// and no background process that shares the connection. Existing shared connections are used.
const FIXED_OPTIONS: [&str; 6] = [
    "BatchMode=yes",
    "ClearAllForwardings=yes",
    "ForwardAgent=no",
    "ForwardX11=no",
    "RequestTTY=no",
    "ControlMaster=no",
];

/// How to query hosts.
#[derive(Debug, Clone)]
pub struct SshOptions {
    /// Options for ssh, as `KEY=VALUE` of ssh_config(5).
    pub options: Vec<String>,
    /// Whether to use sudo, for users other than root.
    pub sudo: bool,
    /// Longest time for each host.
    pub timeout: Duration,
}

impl SshOptions {
    /// The command line for a host.
    fn command(&self, host: &str, nonce: &Nonce) -> Command {
        let mut command = Command::new("ssh");
        command.arg("-T");
        // ssh uses the first value of an option.
        let connect = format!(
            "ConnectTimeout={}",
            CONNECT.min(self.timeout.as_secs().max(1))
        );
        for option in FIXED_OPTIONS
            .into_iter()
            .chain(self.options.iter().map(String::as_str))
            .chain([connect.as_str()])
        {
            command.args(["-o", option]);
        }
        let sudo = if self.sudo { "sudo -n " } else { "" };
        let nonce = nonce.as_str();
        let remote_command = format!("{sudo}adamant-agent drift --json --nonce {nonce}");
        command
            .args(["--", host, &remote_command])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // A process group of its own, so that all processes that it starts can be killed.
        command.process_group(0);
        command
    }

    /// Queries a host; `Err` has the reason why there is no answer. ssh ends with the exit code of
    /// the remote command, or with 255.
    pub fn query(&self, host: &str, nonce: &Nonce) -> Result<Captured, String> {
        run_ssh(&mut self.command(host, nonce), LIMIT, self.timeout)
    }
}

fn run_ssh(command: &mut Command, limit: u64, timeout: Duration) -> Result<Captured, String> {
    let mut child = process::spawn(command).map_err(|error| match error.kind() {
        ErrorKind::NotFound => format!(
            "ssh is not installed on this machine: {}",
            prerequisite::remedy("ssh")
        ),
        _ => format!("ssh: {}", reason(&error)),
    })?;
    let captured = listen(&mut child, limit, Instant::now() + timeout);
    captured.map_err(|cut| {
        end(&mut child);
        match cut {
            QueryStop::Deadline => format!("no answer within {} s", timeout.as_secs()),
            QueryStop::Flood => format!("its output exceeds {} KiB", limit >> 10),
            QueryStop::Broken(error) => format!("ssh: {}", reason(&error)),
        }
    })
}

/// Why a query was stopped.
enum QueryStop {
    Deadline,
    Flood,
    Broken(io::Error),
}

impl From<io::Error> for QueryStop {
    fn from(error: io::Error) -> QueryStop {
        QueryStop::Broken(error)
    }
}

/// Reads the outputs until the child ends. It does not wait for the end of the outputs, because a
/// process that the child started may hold them open forever.
fn listen(child: &mut Child, limit: u64, deadline: Instant) -> Result<Captured, QueryStop> {
    let (Some(mut stdout), Some(mut stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(io::Error::other("no pipes").into());
    };
    set_nonblocking(&stdout)?;
    set_nonblocking(&stderr)?;
    let (mut out, mut err) = (Vec::new(), Vec::new());
    loop {
        // Checked before the last read, so that no output is missed.
        let ended = child.try_wait()?;
        for (pipe, output) in [
            (&mut stdout as &mut dyn Read, &mut out),
            (&mut stderr, &mut err),
        ] {
            read_available(pipe, output, limit)?;
            if output.len() as u64 > limit {
                return Err(QueryStop::Flood);
            }
        }
        if let Some(status) = ended {
            return Ok(Captured { status, out, err });
        }
        if Instant::now() >= deadline {
            return Err(QueryStop::Deadline);
        }
        std::thread::sleep(process::POLL);
    }
}

/// Reads the available bytes, up to one more than the limit.
fn read_available(pipe: &mut dyn Read, output: &mut Vec<u8>, limit: u64) -> io::Result<()> {
    let room = (limit + 1).saturating_sub(output.len() as u64);
    match pipe.take(room).read_to_end(output) {
        Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
        _ => Ok(()),
    }
}

fn set_nonblocking(pipe: &impl AsFd) -> io::Result<()> {
    fcntl(pipe.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))
        .map(drop)
        .map_err(Into::into)
}

/// Kills the child and its process group. Nothing is killed after the child was waited for, because
/// another process may have its number then.
fn end(child: &mut Child) {
    if let (Ok(None), Ok(id)) = (child.try_wait(), i32::try_from(child.id())) {
        let _ = killpg(Pid::from_raw(id), Signal::SIGKILL);
    }
    let _ = child.wait();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limit: u64, timeout: Duration) -> Result<Captured, String> {
        let mut command = Command::new("sh");
        command
            .args(["-c", script])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        run_ssh(&mut command, limit, timeout)
    }

    #[test]
    fn passes_the_host_after_fixed_and_user_options() {
        let ssh = SshOptions {
            options: vec!["User=root".to_owned(), "ConnectTimeout=3".to_owned()],
            sudo: true,
            timeout: Duration::from_secs(5),
        };
        let nonce = Nonce::random().unwrap();
        let asked = format!(
            "sudo -n adamant-agent drift --json --nonce {}",
            nonce.as_str()
        );
        let command = ssh.command("web1", &nonce);
        let words: Vec<&str> = command
            .get_args()
            .filter_map(|word| word.to_str())
            .collect();
        assert_eq!(words[..3], ["-T", "-o", "BatchMode=yes"]);
        assert_eq!(words[words.len() - 3..], ["--", "web1", &asked]);
        let at = |word: &str| words.iter().position(|&w| w == word).unwrap();
        // The user's value precedes our default, and follows the fixed options.
        assert!(
            at("ControlMaster=no") < at("User=root")
                && at("ConnectTimeout=3") < at("ConnectTimeout=5")
        );
    }

    #[test]
    fn returns_all_output_although_a_process_holds_it_open() {
        let started = Instant::now();
        let said = shell(
            "sleep 60 & yes | head -c 300000; echo why >&2; exit 3",
            LIMIT,
            Duration::from_secs(50),
        )
        .unwrap();
        assert_eq!(
            (said.status.code(), said.out.len(), said.err.as_slice()),
            (Some(3), 300_000, &b"why\n"[..])
        );
        assert!(started.elapsed() < Duration::from_secs(50));
    }

    #[test]
    fn stops_a_host_that_floods_or_stays_silent() {
        let started = Instant::now();
        assert_eq!(
            shell("sleep 60 & sleep 60", LIMIT, Duration::from_secs(1)).unwrap_err(),
            "no answer within 1 s"
        );
        for output in ["1", "2"] {
            let flood = format!("yes >&{output}");
            assert_eq!(
                shell(&flood, 64 << 10, Duration::from_secs(50)).unwrap_err(),
                "its output exceeds 64 KiB"
            );
        }
        assert!(started.elapsed() < Duration::from_secs(50));
    }
}
