//! QEMU as a child: found, given its command line, watched, and ended by its own pid.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::firmware::Firmware;
use super::monitor::{Count, Monitor, Restart};
use super::{Console, Options, Port};
use crate::child::{self, POLL};
use crate::error::{Context, Error, Result};
use crate::prerequisite;

/// The SMBIOS string that systemd's stub adds to the kernel command line (systemd-stub(7), since 254).
const CMDLINE_EXTRA: &str = "io.systemd.stub.kernel-cmdline-extra=";

/// What is started.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Shown as the window's and the process' name.
    pub name: String,
    /// Kernel image.
    pub kernel: PathBuf,
    /// Initramfs.
    pub initrd: PathBuf,
    /// Kernel command line.
    pub cmdline: String,
    /// Raw disk; never written to.
    pub disk: PathBuf,
    /// The unified kernel image on the disk, where firmware can start it.
    pub efi: Option<PathBuf>,
    /// Names of credentials that the image's policy lets in; `*` stands for any characters.
    pub credentials: Vec<String>,
}

/// How QEMU ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The guest switched itself off, or the person at the console ended it.
    ByGuest,
    /// The deadline passed.
    AtDeadline,
    /// It restarted itself so many times, more often than it may.
    Restarting(u32),
}

/// The QEMU for x86-64 in PATH.
pub fn find() -> Result<PathBuf> {
    prerequisite::find("qemu-system-x86_64")
}

/// An overlay over the machine's disk and, where it is for this run only, the folder that goes with it.
pub fn overlay(machine: &Machine, persist: bool) -> Result<(PathBuf, Option<Scratch>)> {
    let base = std::fs::canonicalize(&machine.disk).context(|| format!("{}", machine.disk.display()))?;
    if persist {
        let kept = base.with_extension("persist.qcow2");
        if !kept.exists() {
            create_overlay(&base, &kept)?;
        }
        return Ok((kept, None));
    }
    let scratch = Scratch::new()?;
    let file = scratch.0.join("overlay.qcow2");
    create_overlay(&base, &file)?;
    Ok((file, Some(scratch)))
}

fn create_overlay(base: &Path, overlay: &Path) -> Result<()> {
    let qemu_img = prerequisite::find("qemu-img")?;
    let made = Command::new(qemu_img).args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"]).arg(base).arg(overlay).stdin(Stdio::null()).output();
    let made = made.context(|| "qemu-img create")?;
    if !made.status.success() {
        return Err(Error::new(format!("{}: no overlay: {}", overlay.display(), String::from_utf8_lossy(&made.stderr).trim())));
    }
    Ok(())
}

/// A folder of this process, removed when it goes out of use.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Scratch> {
        let dir = std::env::temp_dir().join(format!("adamant-boot-{}", std::process::id()));
        // Not create_dir_all: a folder that is there already may be somebody else's.
        std::fs::create_dir(&dir).context(|| format!("{}", dir.display()))?;
        Ok(Scratch(dir))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Emulation. What is written to memory that held translated code is slow until the code is forgotten, and after a restart all memory is such: with
/// QEMU's usual gigabyte of translations a second start takes ten times as long as the first. The size is MiB.
const TCG: &str = "tcg,tb-size=128";

/// QEMU's command line for this machine, started by firmware or, without, by QEMU.
pub fn command(qemu: &Path, machine: &Machine, options: &Options, disk: &Path, firmware: Option<&Firmware>, kvm: bool) -> Result<Command> {
    let append = options.append.trim();
    let mut command = Command::new(qemu);
    command.args(["-nodefaults", "-no-user-config", "-name"]).arg(comma(&machine.name));
    // Without the controller that is on every such board and that nothing hangs on: to look for disks there takes half a second.
    command.args(["-machine", "q35,sata=off", "-accel", if kvm { "kvm" } else { TCG }]);
    // `max` has SHA-NI and the like under both; TCG with several threads where the host can.
    command.args(["-cpu", if kvm { "host" } else { "max" }]);
    command.args(["-smp", &options.smp.to_string(), "-m", &options.memory]);
    match firmware {
        Some(firmware) => {
            command.args(firmware.arguments());
            if !append.is_empty() {
                command.arg("-smbios").arg(format!("type=11,value={CMDLINE_EXTRA}{}", comma(append)));
            }
        }
        None => {
            let cmdline = [machine.cmdline.trim(), append].join(" ");
            command.arg("-kernel").arg(&machine.kernel).arg("-initrd").arg(&machine.initrd).arg("-append").arg(cmdline.trim());
        }
    }
    command.arg("-drive").arg(format!("if=none,id=disk,format=qcow2,discard=unmap,file={}", comma(&disk.display().to_string())));
    // A kernel that QEMU starts itself is first in the order of what is started, and nothing else may be.
    let disk = if firmware.is_some() { "virtio-blk-pci,drive=disk,bootindex=0" } else { "virtio-blk-pci,drive=disk" };
    command.args(["-device", disk, "-device", "virtio-rng-pci", "-device", "i6300esb", "-watchdog-action", "reset"]);
    let forward: String = options.ports.iter().map(|Port { host, guest }| format!(",hostfwd=tcp:127.0.0.1:{host}-:{guest}")).collect();
    command.arg("-netdev").arg(format!("user,id=net{forward}")).args(["-device", "virtio-net-pci,netdev=net"]);
    command.args(["-display", "none"]);
    for credential in &options.credentials {
        if !credential.split_once('=').is_some_and(|(name, _)| !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c == ':')) {
            return Err(Error::new(format!("{credential:?} is not a credential")).hint("write --credential NAME=VALUE"));
        }
        command.arg("-smbios").arg(format!("type=11,value=io.systemd.credential:{}", comma(credential)));
    }
    match &options.console {
        // Ctrl-c goes to the guest, as on a real console; Ctrl-a x ends QEMU.
        Console::Interactive => command.args(["-chardev", "stdio,id=console,mux=on,signal=off", "-serial", "chardev:console", "-mon", "chardev=console"]),
        Console::ReadOnly => command.args(["-serial", "stdio"]).stdin(Stdio::null()),
        Console::File(file) => command.arg("-serial").arg(format!("file:{}", comma(&file.display().to_string()))).stdin(Stdio::null()),
    };
    Ok(command)
}

/// A comma inside a value of QEMU's option lists is written twice.
pub(super) fn comma(value: &str) -> String {
    value.replace(',', ",,")
}

/// Runs it to its end, to the deadline, or to one restart more than `reboots`.
pub fn wait(command: &mut Command, timeout: Option<Duration>, reboots: u32, say: &mut dyn FnMut(&str)) -> Result<Ended> {
    let monitor = Monitor::attach(command)?;
    let mut child = child::spawn(command).context(|| "starting QEMU")?;
    let restarts = monitor.listen();
    let mut count = Count::new(reboots, Instant::now());
    let deadline = timeout.map(|timeout| Instant::now() + timeout);
    let end = |child: &mut Child, how| child.kill().and_then(|()| child.wait()).map(|_| how).context(|| "ending QEMU");
    loop {
        if let Some(status) = child.try_wait().context(|| "waiting for QEMU")? {
            return match status.success() {
                true => Ok(Ended::ByGuest),
                false => Err(Error::new(format!("QEMU failed ({status})"))),
            };
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return end(&mut child, Ended::AtDeadline);
        }
        let Ok(restart) = restarts.recv_timeout(POLL) else {
            // Where there is no monitor (any more), receiving does not wait.
            std::thread::sleep(POLL);
            continue;
        };
        let why = if restart == Restart::ByWatchdog { "since its watchdog was not fed" } else { "by itself" };
        match count.restarted(Instant::now()) {
            Ok(Some(number)) => say(&format!("the machine restarts, {why} ({number} of {reboots})")),
            Ok(None) => {}
            Err(number) => return end(&mut child, Ended::Restarting(number)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let options = Options { credentials: vec!["a=b,c".to_owned()], append: "x=1".to_owned(), ..Options::default() };
        let command = command(Path::new("qemu"), &machine(), &options, Path::new("/tmp/a,b"), None, false).unwrap();
        let args: Vec<_> = command.get_args().map(|a| a.to_string_lossy().into_owned()).collect();
        assert!(args.contains(&"web_1,,2".to_owned()));
        assert!(args.contains(&"type=11,value=io.systemd.credential:a=b,,c".to_owned()));
        assert!(args.iter().any(|a| a.ends_with("file=/tmp/a,,b")));
        assert!(args.contains(&"ro x=1".to_owned()));
    }

    #[test]
    fn firmware_gets_the_disk_and_added_words_and_no_kernel() {
        let options = Options { append: "a,b".to_owned(), ..Options::default() };
        let firmware = Firmware { code: "/code,1".into(), variables: "/vars".into(), secure_boot: true };
        let command = command(Path::new("qemu"), &machine(), &options, Path::new("/d"), Some(&firmware), false).unwrap();
        let args: Vec<_> = command.get_args().map(|a| a.to_string_lossy().into_owned()).collect();
        assert!(!args.contains(&"-kernel".to_owned()));
        for expected in ["type=11,value=io.systemd.stub.kernel-cmdline-extra=a,,b", "if=pflash,unit=0,format=raw,readonly=on,file=/code,,1", "q35,smm=on", "ro"]
        {
            assert_eq!(args.contains(&expected.to_owned()), expected != "ro", "{expected} in {args:?}");
        }
    }

    #[test]
    fn a_credential_without_a_name_is_refused() {
        for bad in ["x", "=x", "a b=x"] {
            let options = Options { credentials: vec![bad.to_owned()], ..Options::default() };
            assert!(command(Path::new("qemu"), &machine(), &options, Path::new("/d"), None, false).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_child_that_outstays_its_deadline_is_ended() {
        let started = Instant::now();
        // It takes QEMU's arguments for what they are to it: nothing.
        let mut child = Command::new("sh");
        child.args(["-c", "sleep 60", "sh"]);
        assert_eq!(wait(&mut child, Some(Duration::from_millis(100)), 0, &mut |_| ()).unwrap(), Ended::AtDeadline);
        assert!(started.elapsed() < Duration::from_secs(30));
    }
}
