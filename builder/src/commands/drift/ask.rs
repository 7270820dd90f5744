//! Asking one host, by the user's own ssh with the user's own configuration.
//!
//! Nobody is there to answer questions, nothing of ours is open to the host (no terminal, no agent,
//! no forwarded port), and it has a deadline and a bound on what it may say: one that talks on, or
//! not at all, is cut off, with all that ssh started.

use std::io::{self, ErrorKind, Read};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::io::prerequisite;
use crate::io::process::{self, Captured};

/// Most that a host may say on each of its outputs, bytes. Its agent says a few hundred for each
/// difference.
pub const LIMIT: u64 = 1 << 20;
/// Seconds that a connection may take to come about, unless an option of the user's says otherwise.
const CONNECT: u64 = 15;
/// What holds whatever the configuration says: no questions, nothing forwarded, no terminal, and no
/// process that stays behind to share the connection. Connections that are shared already are used.
const FIRM: [&str; 6] = [
    "BatchMode=yes",
    "ClearAllForwardings=yes",
    "ForwardAgent=no",
    "ForwardX11=no",
    "RequestTTY=no",
    "ControlMaster=no",
];

/// How hosts are asked.
#[derive(Debug, Clone)]
pub struct SshOptions {
    /// DriftOptions for ssh, as `KEY=VALUE` of ssh_config(5).
    pub options: Vec<String>,
    /// By sudo, for users who are not root.
    pub sudo: bool,
    /// How long each may take.
    pub timeout: Duration,
}

impl SshOptions {
    /// ssh with everything that it needs for this host.
    fn command(&self, host: &str) -> Command {
        let mut command = Command::new("ssh");
        command.arg("-T");
        // The first value of an option counts.
        let connect = format!(
            "ConnectTimeout={}",
            CONNECT.min(self.timeout.as_secs().max(1))
        );
        for option in FIRM
            .into_iter()
            .chain(self.options.iter().map(String::as_str))
            .chain([connect.as_str()])
        {
            command.args(["-o", option]);
        }
        let asked = if self.sudo {
            "sudo -n adamant-agent drift --json"
        } else {
            "adamant-agent drift --json"
        };
        command
            .args(["--", host, asked])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // A group of its own, so that what it started can be ended with it.
        command.process_group(0);
        command
    }

    /// Asks; `Err` says why there is no answer. ssh ends as the command there did, or with 255.
    pub fn ask(&self, host: &str) -> Result<Captured, String> {
        run_ssh(&mut self.command(host), LIMIT, self.timeout)
    }
}

fn run_ssh(command: &mut Command, limit: u64, timeout: Duration) -> Result<Captured, String> {
    let mut child = process::spawn(command).map_err(|error| match error.kind() {
        ErrorKind::NotFound => format!(
            "ssh is not installed on this machine: {}",
            prerequisite::remedy("ssh")
        ),
        _ => format!("ssh: {error}"),
    })?;
    let said = listen(&mut child, limit, Instant::now() + timeout);
    said.map_err(|cut| {
        end(&mut child);
        match cut {
            Cut::Deadline => format!("no answer within {} s", timeout.as_secs()),
            Cut::Flood => format!("it said more than {} KiB, and was cut off", limit >> 10),
            Cut::Broken(error) => format!("ssh: {error}"),
        }
    })
}

/// Why somebody was cut off.
enum Cut {
    Deadline,
    Flood,
    Broken(io::Error),
}

impl From<io::Error> for Cut {
    fn from(error: io::Error) -> Cut {
        Cut::Broken(error)
    }
}

/// Waits for its end, not for that of its outputs: whoever it left behind may hold them open for
/// ever.
fn listen(child: &mut Child, limit: u64, deadline: Instant) -> Result<Captured, Cut> {
    let (Some(mut stdout), Some(mut stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(io::Error::other("no pipes").into());
    };
    never_wait(&stdout)?;
    never_wait(&stderr)?;
    let (mut out, mut err) = (Vec::new(), Vec::new());
    loop {
        // Asked before the last reading, so that nothing it said is missed.
        let ended = child.try_wait()?;
        for (pipe, said) in [
            (&mut stdout as &mut dyn Read, &mut out),
            (&mut stderr, &mut err),
        ] {
            take(pipe, said, limit)?;
            if said.len() as u64 > limit {
                return Err(Cut::Flood);
            }
        }
        if let Some(status) = ended {
            return Ok(Captured { status, out, err });
        }
        if Instant::now() >= deadline {
            return Err(Cut::Deadline);
        }
        std::thread::sleep(process::POLL);
    }
}

/// Takes what is there, and a byte more than the limit at most.
fn take(pipe: &mut dyn Read, said: &mut Vec<u8>, limit: u64) -> io::Result<()> {
    let room = (limit + 1).saturating_sub(said.len() as u64);
    match pipe.take(room).read_to_end(said) {
        Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
        _ => Ok(()),
    }
}

fn never_wait(pipe: &impl AsFd) -> io::Result<()> {
    fcntl(pipe.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))
        .map(drop)
        .map_err(Into::into)
}

/// Ends it with all that it started. Once it has ended by itself and was waited for, its number may
/// be somebody else's.
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
    fn what_ssh_is_given_cannot_be_taken_for_an_option_nor_ask_a_question() {
        let ssh = SshOptions {
            options: vec!["User=root".to_owned(), "ConnectTimeout=3".to_owned()],
            sudo: true,
            timeout: Duration::from_secs(5),
        };
        let command = ssh.command("web1");
        let words: Vec<&str> = command
            .get_args()
            .filter_map(|word| word.to_str())
            .collect();
        assert_eq!(words[..3], ["-T", "-o", "BatchMode=yes"]);
        assert_eq!(
            words[words.len() - 3..],
            ["--", "web1", "sudo -n adamant-agent drift --json"]
        );
        let at = |word: &str| words.iter().position(|&w| w == word).unwrap();
        // The user's word comes before our default, and after what holds always.
        assert!(
            at("ControlMaster=no") < at("User=root")
                && at("ConnectTimeout=3") < at("ConnectTimeout=5")
        );
    }

    #[test]
    fn an_answer_is_whole_also_when_somebody_holds_the_outputs_open() {
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
    fn who_talks_on_or_not_at_all_is_cut_off_with_all_it_started() {
        let started = Instant::now();
        assert_eq!(
            shell("sleep 60 & sleep 60", LIMIT, Duration::from_secs(1)).unwrap_err(),
            "no answer within 1 s"
        );
        for output in ["1", "2"] {
            let flood = format!("yes >&{output}");
            assert_eq!(
                shell(&flood, 64 << 10, Duration::from_secs(50)).unwrap_err(),
                "it said more than 64 KiB, and was cut off"
            );
        }
        assert!(started.elapsed() < Duration::from_secs(50));
    }
}
