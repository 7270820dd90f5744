//! `adamant boot`: an image in QEMU, the way its servers start it.
//!
//! The artifacts are never written to: changes go to a copy-on-write overlay that is gone when QEMU
//! ends, or, with `--persist`, to a disk in the user's state folder. By default QEMU starts the
//! kernel itself, which saves seconds and needs no boot loader; with [`Uefi`] firmware starts the
//! disk, as on a server. QEMU ends with us, at its deadline, when the guest switches itself off or
//! halts, or when it restarts itself again and again.

mod disk;
pub mod firmware;
mod kvm;
mod machine;
mod monitor;
mod outcome;
pub mod persist;
mod port;
mod qemu;
mod scratch;
mod tpm;
mod update;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use machine::Machine;
pub use outcome::BootOutcome;
pub use port::Port;

use self::disk::MachineDisk;
use self::outcome::Evidence;
use self::persist::Persisted;
use self::qemu::Limits;
use self::scratch::ScratchDir;
use self::tpm::Tpm;
use crate::commands::selection::Selection;
use crate::error::{Error, Result};
use crate::io::part::last_bytes;

/// Restarts that an operator may ask for, and that a failing image gets to show that it fails each
/// time.
pub const REBOOTS: u32 = 3;

/// How a machine is started.
#[derive(Debug, Clone)]
pub struct BootOptions {
    /// Virtual processors.
    pub smp: u32,
    /// Memory as QEMU takes it, for example `1G`.
    pub memory: String,
    /// Hardware virtualisation or not.
    pub accel: Accel,
    /// Where the serial console goes.
    pub console: Console,
    /// After this long QEMU is ended; `None` waits for the guest.
    pub timeout: Option<Duration>,
    /// How often the machine may restart itself in a row before it is ended.
    pub reboots: u32,
    /// Words added to the kernel command line.
    pub append: String,
    /// Whether changes are kept for the next start.
    pub persist: bool,
    /// `NAME=VALUE` credentials for the guest's systemd (SMBIOS type 11).
    pub credentials: Vec<String>,
    /// Ports of this host's loopback address that lead to ports of the guest.
    pub ports: Vec<Port>,
    /// Firmware starts the disk, instead of QEMU the kernel.
    pub uefi: Option<Uefi>,
}

/// How firmware starts the disk.
#[derive(Debug, Clone, Default)]
pub struct Uefi {
    /// Whether firmware starts only what is signed.
    pub secure_boot: bool,
    /// The certificate that it trusts; `None` takes the one that the image is signed with.
    pub certificate: Option<PathBuf>,
    /// Whether there is a TPM 2.0 that the start is measured into.
    pub tpm: bool,
}

impl Default for BootOptions {
    fn default() -> Self {
        BootOptions {
            smp: 2,
            memory: "1G".to_owned(),
            accel: Accel::Auto,
            console: Console::Interactive,
            timeout: None,
            reboots: REBOOTS,
            append: String::new(),
            persist: false,
            credentials: Vec::new(),
            ports: Vec::new(),
            uefi: None,
        }
    }
}

/// Hardware virtualisation or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Accel {
    /// KVM where a probe shows that it works, else TCG.
    #[default]
    Auto,
    /// KVM, or fail.
    Kvm,
    /// Emulation: works everywhere, some ten times slower.
    Tcg,
}

impl std::str::FromStr for Accel {
    type Err = String;

    fn from_str(text: &str) -> Result<Accel, String> {
        match text {
            "auto" => Ok(Accel::Auto),
            "kvm" => Ok(Accel::Kvm),
            "tcg" => Ok(Accel::Tcg),
            _ => Err("one of auto, kvm, tcg".to_owned()),
        }
    }
}

/// Where the serial console goes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Console {
    /// This terminal, both ways; Ctrl-a x ends QEMU.
    #[default]
    Interactive,
    /// Shown here; nothing is typed into it.
    ReadOnly,
    /// Into a file, as it comes.
    File(PathBuf),
}

impl std::str::FromStr for Console {
    type Err = String;

    fn from_str(text: &str) -> Result<Console, String> {
        match text {
            "" => Err("interactive, read-only or a file's name".to_owned()),
            "interactive" => Ok(Console::Interactive),
            "read-only" => Ok(Console::ReadOnly),
            file => Ok(Console::File(PathBuf::from(file))),
        }
    }
}

/// The most of the console that is looked at to see how a start ended, bytes.
const CONSOLE: u64 = 256 << 10;

/// Starts the selected image and waits for the machine's end. `say` gets sentences for people.
pub fn boot_image(
    selection: &Selection,
    options: &BootOptions,
    say: &mut dyn FnMut(&str),
) -> Result<BootOutcome> {
    let machine = &Machine::from_selection(selection)?;
    let qemu = qemu::find_qemu()?;
    for credential in &options.credentials {
        let name = credential.split('=').next().unwrap_or_default();
        if !adamant_contract::credentials::is_accepted(&machine.credentials, name) {
            say(&format!(
                "the image's policy does not name the credential {name}, so it will be dropped; add it to [credentials] accept in the definition"
            ));
        }
    }
    let serial_console = has_serial_console(&format!("{} {}", machine.cmdline, options.append));
    if !serial_console {
        say(
            "this image has no serial console, so the screen stays empty: add console=ttyS0 to [kernel] cmdline in the definition, or start it with --append console=ttyS0",
        );
    }
    port::check_free(&options.ports)?;
    let scratch = ScratchDir::new()?;
    let disk = match options.persist {
        true => MachineDisk::persisted(Persisted::open(selection, say)?)?,
        false => MachineDisk::overlay(machine, scratch.path())?,
    };
    let kvm = choose(&qemu, machine, options.accel, say)?;
    let firmware = options
        .uefi
        .as_ref()
        .map(|uefi| firmware::prepare_machine(machine, uefi, &options.append, disk.path()))
        .transpose()?;
    let console = scratch.path().join("console");
    let mut command = qemu::qemu_command(
        &qemu,
        machine,
        options,
        disk.drive(),
        &console,
        firmware.as_ref(),
        kvm,
    )?;
    // It ends after QEMU, when it goes out of use.
    let _tpm = match &options.uefi {
        Some(uefi) if uefi.tpm => Some(Tpm::attach(
            &mut command,
            &disk.path().with_extension("tpm"),
        )?),
        _ => None,
    };
    let said = || {
        last_bytes(&console, CONSOLE)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    };
    let limits = Limits {
        timeout: options.timeout,
        reboots: options.reboots,
    };
    let run = qemu::supervise(
        &mut command,
        limits,
        &mut || outcome::is_halted(&said()),
        say,
    )?;
    let reached = outcome::reached(&disk.new_records()?, run.starts, &said());
    Ok(outcome::outcome(
        run.ended,
        &Evidence {
            reached,
            black_box: disk.has_black_box(),
            serial_console,
        },
    ))
}

/// Whether a kernel command line sends the console to the first serial port, the only one that is
/// shown.
fn has_serial_console(cmdline: &str) -> bool {
    let ports = [
        "console=ttyS0",
        "console=uart,io,0x3f8",
        "console=uart8250,io,0x3f8",
    ];
    cmdline.split_whitespace().any(|word| {
        ports.iter().any(|port| {
            word.strip_prefix(port)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(','))
        })
    })
}

fn choose(qemu: &Path, machine: &Machine, accel: Accel, say: &mut dyn FnMut(&str)) -> Result<bool> {
    match accel {
        Accel::Tcg => Ok(false),
        Accel::Kvm | Accel::Auto => match kvm::probe(qemu, &machine.kernel) {
            Ok(()) => Ok(true),
            Err(why) if accel == Accel::Kvm => {
                Err(Error::new(format!("KVM does not work here: {why}"))
                    .hint("--accel tcg works everywhere, some ten times slower"))
            }
            Err(why) => {
                say(&format!(
                    "no KVM ({why}): the machine is emulated, about ten times slower"
                ));
                Ok(false)
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::has_serial_console;

    #[test]
    fn only_the_first_serial_port_is_a_console_that_is_shown() {
        for shown in [
            "console=ttyS0",
            "ro console=tty0 console=ttyS0,115200n8 quiet",
            "console=uart8250,io,0x3f8,115200",
        ] {
            assert!(has_serial_console(shown), "{shown}");
        }
        for empty in [
            "",
            "ro quiet",
            "console=tty0",
            "console=ttyS1",
            "console=ttyS01",
            "console=hvc0",
            "xconsole=ttyS0",
        ] {
            assert!(!has_serial_console(empty), "{empty}");
        }
    }
}
