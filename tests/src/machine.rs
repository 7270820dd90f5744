//! A virtual machine with a serial console to look at and a deadline: whatever happens in it, the
//! test ends.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use adamant::commands::boot::command::{
    Accelerator, DiskBus, Drive, DriveCache, DriveFormat, Hardware, QemuCommand, file_device,
};
use adamant::commands::boot::{Port, find_qemu, firmware};
use adamant::io::process;
use nix::fcntl::{Flock, FlockArg};

use crate::alter;
use crate::image::{Image, target_dir};
use crate::kernel;
use crate::scratch::Scratch;
use crate::talk::{Answer, Talk};
use crate::tool;

/// Machines that run at the same time, over all test programs: one more than the host has
/// processors. Now and then each machine waits, for a disk that is missing or for its outcome.
/// Still more only wait for each other's processor.
fn slots() -> usize {
    std::thread::available_parallelism().map_or(2, |count| count.get()) + 1
}

/// How long a machine may take when a test says nothing else. Emulation without hardware help, on a
/// machine that is busy, is slow.
pub const DEADLINE: Duration = Duration::from_secs(240);

/// What starts the machine.
enum Start {
    /// QEMU starts a kernel.
    Kernel {
        kernel: PathBuf,
        initrd: PathBuf,
        cmdline: String,
    },
    /// Firmware starts the first disk.
    Firmware {
        /// The certificate (DER) that Secure Boot trusts; `None`: Secure Boot is off.
        certificate: Option<Vec<u8>>,
        /// The file for its variables; `None`: a new one.
        variables: Option<PathBuf>,
    },
}

/// A disk of a machine.
struct Disk {
    path: PathBuf,
    format: DriveFormat,
    cache: DriveCache,
    /// `None`: the monitor can plug it in.
    bus: Option<DiskBus>,
}

/// A machine to be started. It has less than a server, because emulation is slow: one processor, no
/// SATA controller, and a kernel without compression. A start takes 6.7 s of processor time, with
/// all three 11.4 s. Tests of what servers have ask for it.
pub struct Setup {
    start: Start,
    disks: Vec<Disk>,
    memory: &'static str,
    processors: u32,
    sata: bool,
    compressed_kernel: bool,
    extra: Vec<String>,
    network: Option<Vec<Port>>,
    serves: bool,
    restarts: bool,
    console: Option<PathBuf>,
    stores: Vec<PathBuf>,
    deadline: Duration,
}

impl Setup {
    /// The image's own kernel, initramfs and command line; no disk yet. QEMU starts the kernel
    /// without its compression.
    pub fn of(image: &Image) -> Setup {
        Setup::new(Start::Kernel {
            kernel: image.path("vmlinuz"),
            initrd: image.path("initrd"),
            cmdline: image.cmdline(),
        })
    }

    /// Firmware starts the first disk. Its variables persist in this file.
    pub fn with_variables(variables: impl Into<PathBuf>) -> Setup {
        Setup::new(Start::Firmware {
            certificate: None,
            variables: Some(variables.into()),
        })
    }

    fn new(start: Start) -> Setup {
        Setup {
            start,
            disks: Vec::new(),
            memory: "512M",
            processors: 1,
            sata: false,
            compressed_kernel: false,
            extra: Vec::new(),
            network: None,
            serves: false,
            restarts: false,
            console: None,
            stores: Vec::new(),
            deadline: DEADLINE,
        }
    }

    /// Firmware starts the first disk instead of QEMU a kernel. With a certificate (DER), Secure
    /// Boot is on and trusts it alone.
    pub fn firmware(mut self, certificate: Option<&[u8]>) -> Setup {
        self.start = Start::Firmware {
            certificate: certificate.map(<[u8]>::to_vec),
            variables: None,
        };
        self
    }

    /// Starts the kernel's file as the image has it. To decompress it takes 1 s of processor time.
    pub fn compressed_kernel(mut self) -> Setup {
        self.compressed_kernel = true;
        self
    }

    /// Another initramfs.
    pub fn initrd(mut self, path: impl Into<PathBuf>) -> Setup {
        if let Start::Kernel { initrd, .. } = &mut self.start {
            *initrd = path.into();
        }
        self
    }

    /// One more disk (a raw image), which the machine writes to.
    pub fn disk(mut self, path: impl Into<PathBuf>) -> Setup {
        self.disks.push(Disk {
            path: path.into(),
            format: DriveFormat::Raw,
            cache: DriveCache::Writeback,
            bus: Some(DiskBus::Virtio),
        });
        self
    }

    /// One more disk, a copy-on-write file that nothing needs after a power cut of the host.
    /// Without a bus, the monitor can plug it in later: its id is `disk` and its number.
    pub fn overlay(mut self, path: impl Into<PathBuf>, bus: Option<DiskBus>) -> Setup {
        self.disks.push(Disk {
            path: path.into(),
            format: DriveFormat::Qcow2,
            cache: DriveCache::Unsafe,
            bus,
        });
        self
    }

    /// A network, with ports of this host that lead to the machine's.
    pub fn network(mut self, ports: &[Port]) -> Setup {
        self.network = Some(ports.to_vec());
        self
    }

    /// The machine restarts when it restarts, instead of ending; a watchdog restarts it too.
    pub fn restarts(mut self) -> Setup {
        self.restarts = true;
        self
    }

    /// Appends the console's output to this file instead of a new one.
    pub fn console(mut self, path: impl Into<PathBuf>) -> Setup {
        self.console = Some(path.into());
        self
    }

    /// More arguments on the kernel command line.
    pub fn append(self, arguments: &str) -> Setup {
        self.cmdline(|cmdline| format!("{cmdline} {arguments}"))
    }

    /// The command line, changed. Firmware passes the image's own.
    pub fn cmdline(mut self, change: impl FnOnce(&str) -> String) -> Setup {
        if let Start::Kernel { cmdline, .. } = &mut self.start {
            *cmdline = change(cmdline);
        }
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

    /// Sets the number of virtual processors. Emulated processors wait for each other in busy
    /// loops: with two, a start takes a quarter more processor time than with one.
    pub fn processors(mut self, processors: u32) -> Setup {
        self.processors = processors;
        self
    }

    /// Adds the board's SATA controller. The kernel loads six modules for it and searches six
    /// ports, which takes 2 s of processor time.
    pub fn sata(mut self) -> Setup {
        self.sata = true;
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
        let new_file = |kind: &str| scratch.join(format!("{kind}-{}", unique()));
        let serial = self.console.clone().unwrap_or_else(|| new_file("serial"));
        let qemu = find_qemu().unwrap_or_else(|e| panic!("{e}"));
        let hardware = Hardware {
            name: "test",
            accelerator: Accelerator::Tcg,
            sata: self.sata,
            smp: self.processors,
            memory: self.memory,
        };
        let mut command = QemuCommand::new(&qemu, hardware);
        command.arguments(["-monitor", "stdio"]);
        match self.restarts {
            true => command.watchdog(),
            false => command.arguments(["-no-reboot"]),
        }
        let append = if self.console.is_some() {
            ",append=on"
        } else {
            ""
        };
        command.serial("console", &format!("{}{append}", file_device(&serial)));
        match &self.start {
            Start::Kernel {
                kernel,
                initrd,
                cmdline,
            } => match self.compressed_kernel {
                true => command.kernel(kernel, Some(initrd), cmdline),
                false => command.kernel(&kernel::uncompressed(kernel), Some(initrd), cmdline),
            },
            Start::Firmware {
                certificate,
                variables,
            } => {
                let variables = variables.clone().unwrap_or_else(|| new_file("variables"));
                let firmware = firmware::prepare_variables(variables, certificate.as_deref());
                command.firmware(&firmware.unwrap_or_else(|e| panic!("{e}")));
            }
        }
        if self
            .disks
            .iter()
            .any(|disk| disk.bus == Some(DiskBus::Scsi))
        {
            command.scsi_controller();
        }
        for (index, disk) in self.disks.iter().enumerate() {
            let id = format!("disk{index}");
            let drive = Drive {
                file: &disk.path,
                format: disk.format,
                cache: disk.cache,
            };
            let boots = matches!(self.start, Start::Firmware { .. });
            match disk.bus {
                Some(bus) => command.disk(&id, drive, bus, boots.then_some(index)),
                None => command.drive(&id, drive),
            }
        }
        if let Some(ports) = &self.network {
            command.network(ports);
            command.random_numbers();
        }
        let talk = self.serves.then(|| {
            let path = new_file("talk");
            command.serial("talk", &format!("pipe,path={}", path.display()));
            Talk::new(&path)
        });
        // Starts are counted on the disk, which also records how they ended. A start that the
        // emulation spoils must leave no trace. A machine that restarts handles such starts itself.
        let starts_left = if self.restarts { 0 } else { 3 };
        let disks = self.disks.iter().map(|disk| &disk.path);
        let before = disks.chain(&self.stores).filter(|_| starts_left > 0);
        let before = before.map(|path| {
            let copy = new_file("before");
            alter::copy(path, &copy);
            (copy, path.clone())
        });
        let before = before.collect();
        command.arguments(&self.extra);
        let errors = new_file("qemu");
        let log = File::create(&errors).unwrap_or_else(|e| panic!("{}: {e}", errors.display()));
        let mut command = command.into_command();
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log);
        let child = process::spawn(&mut command).unwrap_or_else(|e| panic!("{command:?}: {e}"));
        let deadline = Instant::now() + self.deadline;
        Machine {
            command,
            starts_left,
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

    /// Waits until the agent refuses the image: a line of this stage with these words. Gives the
    /// line from `adamant: ` on.
    pub fn wait_for_refusal(&mut self, stage: &str, words: &[&str]) -> String {
        let start = format!("adamant: {stage}: ");
        loop {
            let line = self.wait_for(&start);
            let line = &line[line.find(&start).unwrap_or_default()..];
            if words.iter().all(|word| line.contains(word)) {
                return line.to_owned();
            }
        }
    }

    /// Cuts the power of a machine whose agent has refused the image, and gives the console. Before
    /// the policy was read, the machine would restart 10 s later. The 2 s are for an init that was
    /// started all the same.
    pub fn cut_power_of_refused(mut self) -> String {
        let refused = self.age();
        self.run_for(refused + Duration::from_secs(2));
        self.cut_power()
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
        for number in 0..slots() {
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
