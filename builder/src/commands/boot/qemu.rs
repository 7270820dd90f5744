//! QEMU as a child: found, given its command line, watched, and ended by its own pid.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};
use nix::unistd::Pid;

use super::firmware::Firmware;
use super::machine::{Machine, escape_commas};
use super::monitor::{Monitor, MonitorEvent, Restart, RestartCount};
use super::{BootOptions, Console, Port};
use crate::error::{Context, Error, Result};
use crate::io::prerequisite;
use crate::io::process::{self, POLL};

/// The SMBIOS string that systemd's stub adds to the kernel command line (systemd-stub(7), since
/// 254).
const CMDLINE_EXTRA: &str = "io.systemd.stub.kernel-cmdline-extra=";

/// How the machine ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It switched itself off, or its kernel halted it.
    ByItself,
    /// The person at the console, or a signal, ended it.
    ByPerson,
    /// The deadline passed, after so many seconds.
    AtDeadline(u64),
    /// It restarted itself so many times in a row, more often than it may.
    Restarting(u32),
}

/// A run from its start to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MachineRun {
    /// How it ended.
    pub ended: Ended,
    /// How often the machine started.
    pub starts: usize,
}

/// How long and how often a machine may run.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// `None`: as long as it likes.
    pub timeout: Option<Duration>,
    /// Restarts in a row.
    pub reboots: u32,
}

/// How QEMU gets its disk.
#[derive(Debug, Clone, Copy)]
pub struct Drive<'a> {
    /// The file.
    pub file: &'a Path,
    /// `raw` or `qcow2`.
    pub format: &'a str,
}

/// The QEMU for x86-64 in PATH.
pub fn find_qemu() -> Result<PathBuf> {
    prerequisite::find("qemu-system-x86_64")
}

/// Emulation. What is written to memory that held translated code is slow until the code is
/// forgotten, and after a restart all memory is such: with QEMU's usual gigabyte of translations a
/// second start takes ten times as long as the first. The size is MiB.
const TCG: &str = "tcg,tb-size=128";

/// QEMU's command line for this machine, started by firmware or, without, by QEMU. All that the
/// machine's console says also goes into `console`.
pub fn qemu_command(
    qemu: &Path,
    machine: &Machine,
    options: &BootOptions,
    drive: Drive,
    console: &Path,
    firmware: Option<&Firmware>,
    kvm: bool,
) -> Result<Command> {
    let append = options.append.trim();
    let mut command = Command::new(qemu);
    command
        .args(["-nodefaults", "-no-user-config", "-name"])
        .arg(escape_commas(&machine.name));
    // Without the controller that is on every such board and that nothing hangs on: to look for
    // disks there takes half a second.
    command.args([
        "-machine",
        "q35,sata=off",
        "-accel",
        if kvm { "kvm" } else { TCG },
    ]);
    // `max` has SHA-NI and the like under both; TCG with several threads where the host can.
    command.args(["-cpu", if kvm { "host" } else { "max" }]);
    command.args(["-smp", &options.smp.to_string(), "-m", &options.memory]);
    match firmware {
        Some(firmware) => {
            command.args(firmware.arguments());
            if !append.is_empty() {
                command.arg("-smbios").arg(format!(
                    "type=11,value={CMDLINE_EXTRA}{}",
                    escape_commas(append)
                ));
            }
        }
        None => {
            let cmdline = [machine.cmdline.trim(), append].join(" ");
            command
                .arg("-kernel")
                .arg(&machine.kernel)
                .arg("-initrd")
                .arg(&machine.initrd)
                .arg("-append")
                .arg(cmdline.trim());
        }
    }
    command.arg("-drive").arg(format!(
        "if=none,id=disk,format={},discard=unmap,file={}",
        drive.format,
        escape_commas(&drive.file.display().to_string())
    ));
    // A kernel that QEMU starts itself is first in the order of what is started, and nothing else
    // may be.
    let disk = if firmware.is_some() {
        "virtio-blk-pci,drive=disk,bootindex=0"
    } else {
        "virtio-blk-pci,drive=disk"
    };
    command.args([
        "-device",
        disk,
        "-device",
        "virtio-rng-pci",
        "-device",
        "i6300esb",
        "-watchdog-action",
        "reset",
    ]);
    let forward: String = options
        .ports
        .iter()
        .map(|Port { host, guest }| format!(",hostfwd=tcp:127.0.0.1:{host}-:{guest}"))
        .collect();
    command
        .arg("-netdev")
        .arg(format!("user,id=net{forward}"))
        .args(["-device", "virtio-net-pci,netdev=net"]);
    command.args(["-display", "none"]);
    for credential in &options.credentials {
        if !credential.split_once('=').is_some_and(|(name, _)| {
            !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c == ':')
        }) {
            return Err(Error::new(format!("{credential:?} is not a credential"))
                .hint("write --credential NAME=VALUE"));
        }
        command.arg("-smbios").arg(format!(
            "type=11,value=io.systemd.credential:{}",
            escape_commas(credential)
        ));
    }
    let (end, stdin) = match &options.console {
        // Ctrl-c goes to the guest, as on a real console; Ctrl-a x ends QEMU.
        Console::Interactive => ("stdio,mux=on,signal=off".to_owned(), Stdio::inherit()),
        Console::ReadOnly => ("stdio".to_owned(), Stdio::null()),
        Console::File(file) => (
            format!("file,path={}", escape_commas(&file.display().to_string())),
            Stdio::null(),
        ),
    };
    let log = escape_commas(&console.display().to_string());
    command
        .arg("-chardev")
        .arg(format!("{end},id=console,logfile={log}"))
        .args(["-serial", "chardev:console"])
        .stdin(stdin);
    if options.console == Console::Interactive {
        command.args(["-mon", "chardev=console"]);
    }
    Ok(command)
}

/// Runs it to its end, to the deadline, or to one restart more than it may have. `halted` is asked
/// now and then whether its kernel has halted it.
pub fn supervise(
    command: &mut Command,
    limits: Limits,
    halted: &mut dyn FnMut() -> bool,
    say: &mut dyn FnMut(&str),
) -> Result<MachineRun> {
    let monitor = Monitor::attach(command)?;
    let _terminal = Terminal::remember();
    let mut child = process::spawn(command.stderr(Stdio::piped())).context(|| "starting QEMU")?;
    let said = child
        .stderr
        .take()
        .map(|stderr| std::thread::spawn(move || process::bounded(stderr, SAID)));
    let events = monitor.listen();
    let mut count = RestartCount::new(limits.reboots, Instant::now());
    let (mut starts, mut by_person) = (1, false);
    let deadline = limits.timeout.map(|timeout| Instant::now() + timeout);
    let mut look_at = Instant::now() + HALTED_EVERY;
    let ended = loop {
        if let Some(status) = child.try_wait().context(|| "waiting for QEMU")? {
            let said = said.and_then(|said| said.join().ok()).unwrap_or_default();
            let said = String::from_utf8_lossy(&said);
            if !status.success() {
                return Err(failure(&said, &status.to_string()));
            }
            said.lines().for_each(|line| log::debug!("{line}"));
            // The monitor's last words may come after QEMU's end.
            let off = |event: MonitorEvent| matches!(event, MonitorEvent::Off { by_guest: false });
            by_person |= events.iter().any(off);
            break if by_person {
                Ended::ByPerson
            } else {
                Ended::ByItself
            };
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            end(&mut child)?;
            break Ended::AtDeadline(limits.timeout.unwrap_or_default().as_secs());
        }
        if Instant::now() >= look_at {
            if halted() {
                say("the machine was halted, and is switched off");
                end(&mut child)?;
                break Ended::ByItself;
            }
            look_at = Instant::now() + HALTED_EVERY;
        }
        let restart = match events.recv_timeout(POLL) {
            Ok(MonitorEvent::Restart(restart)) => restart,
            Ok(MonitorEvent::Off { by_guest }) => {
                by_person |= !by_guest;
                continue;
            }
            // Where there is no monitor (any more), receiving does not wait.
            Err(_) => {
                std::thread::sleep(POLL);
                continue;
            }
        };
        let why = if restart == Restart::ByWatchdog {
            "since its watchdog was not fed"
        } else {
            "by itself"
        };
        match count.restarted(Instant::now()) {
            Ok(Some(number)) => {
                starts += 1;
                say(&format!(
                    "the machine restarts, {why} ({number} of {})",
                    limits.reboots
                ));
            }
            Ok(None) => {}
            Err(number) => {
                end(&mut child)?;
                break Ended::Restarting(number);
            }
        }
    };
    Ok(MachineRun { ended, starts })
}

/// How often the console is looked at for a machine that was halted.
const HALTED_EVERY: Duration = Duration::from_secs(2);
/// The most of QEMU's own messages that are kept, bytes.
const SAID: u64 = 64 << 10;
/// How long QEMU may take to write what it holds in memory and to give the terminal back.
const GOODBYE: Duration = Duration::from_secs(5);

/// Ends QEMU: by a signal that it answers in order, or by one that it can't.
fn end(child: &mut Child) -> Result<()> {
    if let Ok(pid) = i32::try_from(child.id()) {
        // It is not waited for yet, so the number is its own.
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
    process::wait(child, GOODBYE)
        .map(drop)
        .context(|| "ending QEMU")
}

/// Why QEMU did not run, in words of ours where the reason is known.
fn failure(said: &str, status: &str) -> Error {
    let lines: Vec<&str> = said
        .lines()
        .map(|line| {
            line.strip_prefix("qemu-system-x86_64: ")
                .unwrap_or(line)
                .trim()
        })
        .filter(|line| !line.is_empty())
        .collect();
    let has = |text: &str| lines.iter().any(|line| line.contains(text));
    if has("Failed to get") && has("lock") {
        let file = said
            .split_once("process using the image [")
            .and_then(|(_, rest)| rest.split_once(']'))
            .map_or("the machine's disk", |(file, _)| file);
        return Error::new(format!("{file}: another machine uses this disk"))
            .hint("end the other machine first");
    }
    if let Some(line) = lines
        .iter()
        .find(|line| line.contains("Could not set up host forwarding rule"))
    {
        return Error::new(format!(
            "--port: another program has taken the port: {line}"
        ))
        .hint("choose another HOST port");
    }
    if has("annot set up guest memory") || has("annot allocate memory") {
        return Error::new("this host has not enough free memory for the machine")
            .hint("give it less with --memory, or end other programs");
    }
    if has("No space left on device") {
        return Error::new("no space left for the machine's changes")
            .hint("free space in the folder for temporary files, or set TMPDIR to another one");
    }
    let last = lines.last().map_or_else(
        || "it does not say why".to_owned(),
        |line| (*line).to_owned(),
    );
    Error::new(format!("QEMU failed ({status}): {last}"))
        .hint("`adamant boot -v` shows all that QEMU said")
}

/// The terminal's settings: QEMU changes them, and one that is killed does not change them back.
struct Terminal(Option<Termios>);

impl Terminal {
    fn remember() -> Terminal {
        Terminal(tcgetattr(std::io::stdin()).ok())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(settings) = &self.0 {
            let _ = tcsetattr(std::io::stdin(), SetArg::TCSANOW, settings);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drive() -> Drive<'static> {
        Drive {
            file: Path::new("/d"),
            format: "qcow2",
        }
    }

    fn machine() -> Machine {
        Machine {
            name: "web_1,2".into(),
            kernel: "/k".into(),
            initrd: "/i".into(),
            cmdline: "ro\n".into(),
            disk: "/d".into(),
            efi: None,
            credentials: Vec::new(),
        }
    }

    #[test]
    fn commas_in_values_do_not_become_options() {
        let options = BootOptions {
            credentials: vec!["a=b,c".to_owned()],
            append: "x=1".to_owned(),
            ..BootOptions::default()
        };
        let command = qemu_command(
            Path::new("qemu"),
            &machine(),
            &options,
            Drive {
                file: Path::new("/tmp/a,b"),
                format: "raw",
            },
            Path::new("/log"),
            None,
            false,
        )
        .unwrap();
        let args: Vec<_> = command
            .get_args()
            .map(|a| a.to_string_lossy().into_owned())
            .collect();
        assert!(args.contains(&"web_1,,2".to_owned()));
        assert!(args.contains(&"type=11,value=io.systemd.credential:a=b,,c".to_owned()));
        assert!(args.iter().any(|a| a.ends_with("file=/tmp/a,,b")));
        assert!(args.contains(&"ro x=1".to_owned()));
    }

    #[test]
    fn firmware_gets_the_disk_and_added_words_and_no_kernel() {
        let options = BootOptions {
            append: "a,b".to_owned(),
            ..BootOptions::default()
        };
        let firmware = Firmware {
            code: "/code,1".into(),
            variables: "/vars".into(),
            secure_boot: true,
        };
        let command = qemu_command(
            Path::new("qemu"),
            &machine(),
            &options,
            drive(),
            Path::new("/log"),
            Some(&firmware),
            false,
        )
        .unwrap();
        let args: Vec<_> = command
            .get_args()
            .map(|a| a.to_string_lossy().into_owned())
            .collect();
        assert!(!args.contains(&"-kernel".to_owned()));
        for expected in [
            "type=11,value=io.systemd.stub.kernel-cmdline-extra=a,,b",
            "if=pflash,unit=0,format=raw,readonly=on,file=/code,,1",
            "q35,smm=on",
            "ro",
        ] {
            assert_eq!(
                args.contains(&expected.to_owned()),
                expected != "ro",
                "{expected} in {args:?}"
            );
        }
    }

    #[test]
    fn a_credential_without_a_name_is_refused() {
        for bad in ["x", "=x", "a b=x"] {
            let options = BootOptions {
                credentials: vec![bad.to_owned()],
                ..BootOptions::default()
            };
            assert!(
                qemu_command(
                    Path::new("qemu"),
                    &machine(),
                    &options,
                    drive(),
                    Path::new("/log"),
                    None,
                    false
                )
                .is_err(),
                "{bad}"
            );
        }
    }

    #[test]
    fn what_qemu_complains_of_is_told_in_our_words() {
        let lock = "qemu-system-x86_64: -device virtio-blk-pci,drive=disk: Failed to get \"write\" lock\nIs another process using the image [/s/web/disk.raw]?\n";
        assert_eq!(
            failure(lock, "1").message(),
            "/s/web/disk.raw: another machine uses this disk"
        );
        let port = "qemu-system-x86_64: -netdev user,id=net: Could not set up host forwarding rule 'tcp:127.0.0.1:22-:22'\n";
        assert!(
            failure(port, "1")
                .message()
                .starts_with("--port: another program has taken the port")
        );
        assert_eq!(
            failure("qemu-system-x86_64: no such option\n", "exit status: 1").message(),
            "QEMU failed (exit status: 1): no such option"
        );
        assert!(
            failure("", "signal: 9")
                .message()
                .ends_with("it does not say why")
        );
    }

    #[test]
    fn a_child_that_outstays_its_deadline_is_ended() {
        let started = Instant::now();
        // It takes QEMU's arguments for what they are to it: nothing.
        let mut child = Command::new("sh");
        child.args(["-c", "sleep 60", "sh"]);
        let limits = Limits {
            timeout: Some(Duration::from_millis(100)),
            reboots: 0,
        };
        let run = supervise(&mut child, limits, &mut || false, &mut |_| ()).unwrap();
        assert_eq!(
            run,
            MachineRun {
                ended: Ended::AtDeadline(0),
                starts: 1
            }
        );
        assert!(started.elapsed() < Duration::from_secs(30));
    }
}
