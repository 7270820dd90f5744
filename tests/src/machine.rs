//! A virtual machine with a serial console to look at and a deadline: whatever happens in it, the
//! test ends.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use adamant::commands::boot::firmware;
use nix::fcntl::{Flock, FlockArg};

use crate::alter;
use crate::image::{Image, target_dir};
use crate::scratch::Scratch;
use crate::talk::{Answer, Talk};
use crate::tool;

/// Machines that run at the same time, over all test programs: more only wait for each other's
/// processor.
const SLOTS: usize = 2;
/// How long a machine may take when a test says nothing else. Emulation without hardware help, on a
/// machine that is busy, is slow.
pub const DEADLINE: Duration = Duration::from_secs(240);

/// What to start.
pub struct Setup {
    kernel: PathBuf,
    initrd: PathBuf,
    cmdline: String,
    firmware: Option<Option<Vec<u8>>>,
    disks: Vec<PathBuf>,
    memory: &'static str,
    extra: Vec<String>,
    serves: bool,
    stores: Vec<PathBuf>,
    deadline: Duration,
}

impl Setup {
    /// The image's own kernel, initramfs and command line; no disk yet.
    pub fn of(image: &Image) -> Setup {
        Setup {
            kernel: image.path("vmlinuz"),
            initrd: image.path("initrd"),
            cmdline: image.cmdline(),
            firmware: None,
            disks: Vec::new(),
            memory: "512M",
            extra: Vec::new(),
            serves: false,
            stores: Vec::new(),
            deadline: DEADLINE,
        }
    }

    /// Firmware starts the first disk, and nobody gives it a kernel; with a certificate (DER),
    /// Secure Boot is on and trusts it alone.
    pub fn firmware(mut self, certificate: Option<&[u8]>) -> Setup {
        self.firmware = Some(certificate.map(<[u8]>::to_vec));
        self
    }

    /// Another initramfs.
    pub fn initrd(mut self, path: impl Into<PathBuf>) -> Setup {
        self.initrd = path.into();
        self
    }

    /// One more disk (a raw image), which the machine writes to.
    pub fn disk(mut self, path: impl Into<PathBuf>) -> Setup {
        self.disks.push(path.into());
        self
    }

    /// More words on the kernel command line.
    pub fn append(mut self, words: &str) -> Setup {
        self.cmdline = format!("{} {words}", self.cmdline);
        self
    }

    /// The command line, changed.
    pub fn cmdline(mut self, change: impl FnOnce(&str) -> String) -> Setup {
        self.cmdline = change(&self.cmdline);
        self
    }

    /// More arguments for QEMU.
    pub fn arguments(mut self, arguments: &[&str]) -> Setup {
        self.extra.extend(arguments.iter().map(|&a| a.to_owned()));
        self
    }

    /// The init of images/tiny does what [`Machine::ask`] asks for, instead of switching off.
    pub fn serving(mut self) -> Setup {
        self.serves = true;
        self.append("tiny.serve")
    }

    /// A file that the kernel's last words are kept in, by what `arguments` says.
    pub fn store(mut self, path: impl Into<PathBuf>) -> Setup {
        self.stores.push(path.into());
        self
    }

    /// How much memory it has.
    pub fn memory(mut self, memory: &'static str) -> Setup {
        self.memory = memory;
        self
    }

    /// How long it may run.
    pub fn deadline(mut self, deadline: Duration) -> Setup {
        self.deadline = deadline;
        self
    }

    /// Switches it on. Waits for its turn first.
    pub fn start(self, scratch: &Scratch) -> Machine {
        let slot = slot();
        let serial = scratch.join(format!("serial-{}.log", unique()));
        let mut command = tool::command("qemu-system-x86_64");
        command.args([
            "-nodefaults",
            "-no-user-config",
            "-machine",
            "q35,accel=tcg",
            "-cpu",
            "max",
            "-smp",
            "2",
            "-m",
            self.memory,
        ]);
        command
            .args([
                "-display",
                "none",
                "-no-reboot",
                "-monitor",
                "stdio",
                "-serial",
            ])
            .arg(format!("file:{}", serial.display()));
        match &self.firmware {
            None => command
                .arg("-kernel")
                .arg(&self.kernel)
                .arg("-initrd")
                .arg(&self.initrd)
                .arg("-append")
                .arg(&self.cmdline),
            Some(certificate) => {
                let variables = scratch.join(format!("variables-{}.fd", unique()));
                command.args(
                    firmware::prepare_variables(variables, certificate.as_deref())
                        .unwrap_or_else(|e| panic!("{e}"))
                        .arguments(),
                )
            }
        };
        for (index, disk) in self.disks.iter().enumerate() {
            command.arg("-drive").arg(format!(
                "if=none,id=disk{index},format=raw,cache=writeback,discard=unmap,file={}",
                disk.display()
            ));
            // A kernel that QEMU starts itself is first in the order of what is started, and
            // nothing else may be.
            let order = if self.firmware.is_some() {
                format!(",bootindex={index}")
            } else {
                String::new()
            };
            command
                .arg("-device")
                .arg(format!("virtio-blk-pci,drive=disk{index}{order}"));
        }
        let talk = self.serves.then(|| {
            let path = scratch.join(format!("talk-{}", unique()));
            command
                .arg("-chardev")
                .arg(format!("pipe,id=talk,path={}", path.display()))
                .args(["-serial", "chardev:talk"]);
            Talk::new(&path)
        });
        // Starts are counted on the disk, and how they ended is remembered there: one that the
        // emulation spoilt must leave no trace.
        let before = self.disks.iter().chain(&self.stores).map(|path| {
            let kept = scratch.join(format!("before-{}", unique()));
            alter::copy(path, &kept);
            (kept, path.clone())
        });
        let before = before.collect();
        command.args(&self.extra);
        let errors = scratch.join(format!("qemu-{}.log", unique()));
        let log = File::create(&errors).unwrap_or_else(|e| panic!("{}: {e}", errors.display()));
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log);
        let child = command
            .spawn()
            .unwrap_or_else(|e| panic!("{command:?}: {e}"));
        let deadline = Instant::now() + self.deadline;
        Machine {
            command,
            starts_left: 3,
            before,
            child,
            serial,
            errors,
            talk,
            seen: 0,
            started: Instant::now(),
            deadline,
            _slot: slot,
        }
    }
}

/// A running machine. Dropping it switches it off at once.
pub struct Machine {
    command: Command,
    starts_left: u32,
    /// What tells of a start, as it was, and where it is.
    before: Vec<(PathBuf, PathBuf)>,
    child: Child,
    serial: PathBuf,
    errors: PathBuf,
    talk: Option<Talk>,
    seen: usize,
    started: Instant,
    deadline: Instant,
    _slot: Flock<File>,
}

impl Machine {
    /// Everything on the serial console until now.
    pub fn console(&self) -> String {
        tool::lossy(&std::fs::read(&self.serial).unwrap_or_default())
    }

    /// Waits until the console shows `text` after what earlier waits found, and gives the line it
    /// stands in.
    pub fn wait_for(&mut self, text: &str) -> String {
        loop {
            let ended = self.ended();
            let console = self.console();
            if let Some(at) = console
                .get(self.seen..)
                .and_then(|rest| rest.find(text))
                .map(|at| at + self.seen)
            {
                // The line must be whole before it is given.
                if let Some(end) = console[at..].find('\n') {
                    self.seen = at + end;
                    let start = console[..at].rfind('\n').map_or(0, |nl| nl + 1);
                    return console[start..at + end].trim_end().to_owned();
                }
            }
            if let Some(status) = ended {
                panic!(
                    "the machine ended ({status}) before it said {text:?}\n{}",
                    self.tail()
                );
            }
            self.tick(&format!("for {text:?}"));
        }
    }

    /// Waits until the machine switches itself off or restarts; gives the whole console.
    pub fn wait_for_end(&mut self) -> String {
        loop {
            if let Some(status) = self.ended() {
                assert!(
                    status.success(),
                    "QEMU: {status} (signal {:?})\n{}",
                    status.signal(),
                    self.tail()
                );
                return self.console();
            }
            self.tick("for its end");
        }
    }

    /// Tells QEMU's monitor to do something to the machine, as hands on the hardware would:
    /// `device_add ...`.
    pub fn monitor(&mut self, command: &str) {
        let stdin = self
            .child
            .stdin
            .as_mut()
            .unwrap_or_else(|| panic!("QEMU has no monitor"));
        stdin
            .write_all(format!("{command}\n").as_bytes())
            .and_then(|()| stdin.flush())
            .unwrap_or_else(|e| panic!("{command}: {e}"));
    }

    /// Has a machine that is [`Setup::serving`] do something, and waits for what comes of it.
    pub fn ask(&mut self, command: &str) -> Answer {
        if !self.console().contains("tiny: serving") {
            self.wait_for("tiny: serving");
        }
        self.talk().send(command);
        loop {
            if let Some(answer) = self.talk().answer() {
                return answer;
            }
            if let Some(status) = self.ended() {
                panic!(
                    "the machine ended ({status}) before it answered {command:?}\n{}",
                    self.tail()
                );
            }
            self.tick(&format!("for an answer to {command:?}"));
        }
    }

    /// Sends it a command, and waits for nothing.
    pub fn send(&mut self, command: &str) {
        self.talk().send(command);
    }

    fn talk(&mut self) -> &mut Talk {
        self.talk
            .as_mut()
            .unwrap_or_else(|| panic!("the machine does not serve"))
    }

    /// Whether it is still switched on.
    pub fn is_on(&mut self) -> bool {
        self.ended().is_none()
    }

    /// Seconds since it was switched on.
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// Lets it run for this long since it was switched on, whatever it does.
    pub fn run_for(&mut self, time: Duration) {
        while self.age() < time && self.ended().is_none() {
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Cuts the power: SIGKILL, nothing is flushed.
    pub fn cut_power(mut self) -> String {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.console()
    }

    /// Emulation of several processors is not perfect in every QEMU: about one kernel in a hundred
    /// meets an impossible fault before it gets to the initramfs, and on a busy machine one
    /// waits in vain for its emulated timer. Later one executes the breakpoint that stood, for a
    /// moment, where the other changed the kernel's text to attach a program. That says nothing
    /// about the image: the machine is switched on again, aloud.
    fn ended(&mut self) -> Option<ExitStatus> {
        let status = self
            .child
            .try_wait()
            .unwrap_or_else(|e| panic!("QEMU: {e}"))?;
        let console = self.console();
        let crashed = ["Fatal exception", "IO-APIC + timer doesn't work"]
            .iter()
            .any(|why| console.contains(&format!("Kernel panic - not syncing: {why}")));
        let breakpoint = console.contains("Oops: int3: ") && console.contains("RIP: 0010:bpf_lsm_");
        if self.starts_left > 0 && crashed && (breakpoint || !console.contains("Run /init")) {
            eprintln!(
                "the emulated kernel crashed {}; starting again",
                if breakpoint {
                    "on its own breakpoint"
                } else {
                    "before the initramfs"
                }
            );
            self.starts_left -= 1;
            self.seen = 0;
            for (before, path) in &self.before {
                alter::copy(before, path);
            }
            self.child = self
                .command
                .spawn()
                .unwrap_or_else(|e| panic!("{:?}: {e}", self.command));
            return None;
        }
        Some(status)
    }

    fn tick(&self, what: &str) {
        assert!(
            Instant::now() < self.deadline,
            "deadline: waited {} s {what}\n{}",
            self.age().as_secs(),
            self.tail()
        );
        std::thread::sleep(Duration::from_millis(20));
    }

    fn tail(&self) -> String {
        let console = self.console();
        let lines: Vec<&str> = console.lines().collect();
        let errors = std::fs::read_to_string(&self.errors).unwrap_or_default();
        format!(
            "--- console, its last lines\n{}\n--- QEMU\n{errors}",
            lines[lines.len().saturating_sub(60)..].join("\n")
        )
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        for (kept, _) in &self.before {
            let _ = std::fs::remove_file(kept);
        }
    }
}

fn unique() -> u32 {
    static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

/// One of the places for a running machine; held until it is dropped, also by a process that is
/// killed.
fn slot() -> Flock<File> {
    let dir = target_dir().join("machines");
    std::fs::create_dir_all(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    loop {
        for number in 0..SLOTS {
            let path: &Path = &dir.join(format!("slot-{number}"));
            let file = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .open(path)
                .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            if let Ok(lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                return lock;
            }
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}
