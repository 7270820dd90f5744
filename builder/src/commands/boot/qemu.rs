//! Runs QEMU as a child process: its command line, its supervision and its end.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};
use nix::unistd::Pid;

use super::command::{Accelerator, DiskBus, Drive, Hardware, QemuCommand, file_device};
use super::firmware::Firmware;
use super::machine::{VirtualMachine, escape_commas};
use super::monitor::{Monitor, MonitorEvent, Restart, RestartCount};
use super::{BootOptions, Console};
use crate::error::{Context, Error, Result};
use crate::io::prerequisite;
use crate::io::process::{self, POLL};

/// Prefix of the SMBIOS string that systemd-stub appends to the kernel command line
/// (systemd-stub(7), since version 254).
const CMDLINE_EXTRA: &str = "io.systemd.stub.kernel-cmdline-extra=";

/// How the machine ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The guest powered off or halted.
    ByItself,
    /// The person at the console, or a signal, stopped QEMU.
    ByPerson,
    /// The deadline passed after this number of seconds.
    AtDeadline(u64),
    /// The guest restarted more often in a row than allowed: the number of restarts.
    Restarting(u32),
}

/// A finished run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MachineRun {
    /// How it ended.
    pub ended: Ended,
    /// Number of starts.
    pub starts: usize,
}

/// Limits of a run.
#[derive(Debug, Clone, Copy)]
pub struct RunLimits {
    /// Longest run; `None` for no limit.
    pub timeout: Option<Duration>,
    /// Allowed restarts in a row.
    pub reboots: u32,
}

/// Finds QEMU for x86-64 in PATH.
pub fn find_qemu() -> Result<PathBuf> {
    prerequisite::find("qemu-system-x86_64")
}

/// QEMU's command line for a machine. Firmware starts the disk; without firmware, QEMU starts the
/// kernel. The output of the machine's console is also written to the file `console`.
pub fn qemu_command(
    qemu: &Path,
    machine: &VirtualMachine,
    options: &BootOptions,
    drive: Drive,
    console: &Path,
    firmware: Option<&Firmware>,
    accelerator: Accelerator,
) -> Result<Command> {
    let append = options.append.trim();
    let mut command = QemuCommand::new(
        qemu,
        Hardware {
            name: &machine.name,
            accelerator,
            sata: false,
            smp: options.smp,
            memory: &options.memory,
        },
    );
    match firmware {
        Some(firmware) => {
            command.firmware(firmware);
            if !append.is_empty() {
                command.smbios_string(&format!("{CMDLINE_EXTRA}{append}"));
            }
        }
        None => {
            let cmdline = [machine.cmdline.trim(), append].join(" ");
            command.kernel(&machine.kernel, Some(&machine.initrd), cmdline.trim());
        }
    }
    let boot_index = firmware.map(|_| 0);
    command.disk("disk", drive, DiskBus::Virtio, boot_index);
    command.random_numbers();
    command.watchdog();
    command.network(&options.ports);
    for credential in &options.credentials {
        if !credential.split_once('=').is_some_and(|(name, _)| {
            !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c == ':')
        }) {
            return Err(Error::new(format!("{credential:?} is not a credential"))
                .hint("write --credential NAME=VALUE"));
        }
        command.smbios_string(&format!("io.systemd.credential:{credential}"));
    }
    let (end, stdin) = match &options.console {
        // Ctrl-c goes to the guest; Ctrl-a x ends QEMU.
        Console::Interactive => ("stdio,mux=on,signal=off".to_owned(), Stdio::inherit()),
        Console::ReadOnly => ("stdio".to_owned(), Stdio::null()),
        Console::File(file) => (file_device(file), Stdio::null()),
    };
    let log = escape_commas(&console.display().to_string());
    command.serial("console", &format!("{end},logfile={log}"));
    if options.console == Console::Interactive {
        command.arguments(["-mon", "chardev=console"]);
    }
    let mut command = command.into_command();
    command.stdin(stdin);
    Ok(command)
}

/// Runs QEMU until it ends, the deadline passes, or the machine has restarted too often. `halted`
/// returns whether the guest has halted, and is called every [`HALTED_EVERY`].
pub fn supervise(
    command: &mut Command,
    limits: RunLimits,
    halted: &mut dyn FnMut() -> bool,
    say: &mut dyn FnMut(&str),
) -> Result<MachineRun> {
    let monitor = Monitor::attach(command)?;
    let _terminal = Terminal::remember();
    let mut child = process::spawn(command.stderr(Stdio::piped())).context(|| "starting QEMU")?;
    let stderr = child
        .stderr
        .take()
        .map(|stderr| std::thread::spawn(move || process::bounded(stderr, STDERR_LIMIT)));
    let events = monitor.listen();
    let mut count = RestartCount::new(limits.reboots, Instant::now());
    let (mut starts, mut by_person) = (1, false);
    let deadline = limits.timeout.map(|timeout| Instant::now() + timeout);
    let mut next_check = Instant::now() + HALTED_EVERY;
    let ended = loop {
        if let Some(status) = child.try_wait().context(|| "waiting for QEMU")? {
            let stderr = stderr
                .and_then(|thread| thread.join().ok())
                .unwrap_or_default();
            let stderr = String::from_utf8_lossy(&stderr);
            if !status.success() {
                return Err(failure(&stderr, &status.to_string()));
            }
            stderr.lines().for_each(|line| log::debug!("{line}"));
            // The monitor's last events may arrive after QEMU's end.
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
        if Instant::now() >= next_check {
            if halted() {
                say("the machine was halted; stopping QEMU");
                end(&mut child)?;
                break Ended::ByItself;
            }
            next_check = Instant::now() + HALTED_EVERY;
        }
        let restart = match events.recv_timeout(POLL) {
            Ok(MonitorEvent::Restart(restart)) => restart,
            Ok(MonitorEvent::Off { by_guest }) => {
                by_person |= !by_guest;
                continue;
            }
            // Without a connection to the monitor, receiving returns immediately.
            Err(_) => {
                std::thread::sleep(POLL);
                continue;
            }
        };
        let why = if restart == Restart::ByWatchdog {
            "because its watchdog expired"
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

/// Interval of checks whether the guest has halted.
const HALTED_EVERY: Duration = Duration::from_secs(2);
/// Most bytes of QEMU's messages that are kept.
const STDERR_LIMIT: u64 = 64 << 10;
/// Time for QEMU to write its buffers and to restore the terminal.
const GOODBYE: Duration = Duration::from_secs(5);

/// Stops QEMU with SIGTERM, and after [`GOODBYE`] with SIGKILL.
fn end(child: &mut Child) -> Result<()> {
    if let Ok(pid) = i32::try_from(child.id()) {
        // The child has not been waited for, so no other process has this number.
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
    process::wait(child, GOODBYE)
        .map(drop)
        .context(|| "ending QEMU")
}

/// The error for QEMU's messages and exit status, with a remedy for known causes.
fn failure(stderr: &str, status: &str) -> Error {
    let lines: Vec<&str> = stderr
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
        let file = stderr
            .split_once("process using the image [")
            .and_then(|(_, rest)| rest.split_once(']'))
            .map_or("the machine's disk", |(file, _)| file);
        return Error::new(format!("{file}: another machine uses this disk"))
            .hint("stop the other machine first");
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
        return Error::new("this host does not have enough free memory for the machine")
            .hint("lower --memory, or stop other programs");
    }
    if has("No space left on device") {
        return Error::new("no space left for the machine's overlay")
            .hint("free space in the folder for temporary files, or set TMPDIR to another one");
    }
    let last = lines.last().map_or_else(
        || "it printed no reason".to_owned(),
        |line| (*line).to_owned(),
    );
    Error::new(format!("QEMU failed ({status}): {last}"))
        .hint("`adamant boot -v` shows all messages of QEMU")
}

/// The terminal's settings, which are restored on drop. QEMU changes them, and does not restore
/// them when it is killed.
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
    use super::super::command::{DriveCache, DriveFormat};
    use super::*;

    fn drive() -> Drive<'static> {
        Drive {
            file: Path::new("/d"),
            format: DriveFormat::Qcow2,
            cache: DriveCache::Writeback,
        }
    }

    fn machine() -> VirtualMachine {
        VirtualMachine {
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
    fn escapes_commas_in_values() {
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
                format: DriveFormat::Raw,
                cache: DriveCache::Writeback,
            },
            Path::new("/log"),
            None,
            Accelerator::Tcg,
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
    fn with_firmware_passes_the_disk_and_arguments_but_no_kernel() {
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
            Accelerator::Tcg,
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
                    Accelerator::Tcg
                )
                .is_err(),
                "{bad}"
            );
        }
    }

    #[test]
    fn explains_known_errors_of_qemu() {
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
                .ends_with("it printed no reason")
        );
    }

    #[test]
    fn stops_the_child_at_its_deadline() {
        let started = Instant::now();
        // The shell ignores QEMU's arguments.
        let mut child = Command::new("sh");
        child.args(["-c", "sleep 60", "sh"]);
        let limits = RunLimits {
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
