//! `adamant boot`: starts an image in QEMU, as a server starts it.
//!
//! The artifacts are never written to. Changes go to a temporary overlay or, with `--persist`, to a
//! disk in the user's state folder. By default QEMU starts the kernel itself, which saves seconds
//! and needs no boot loader. With [`Uefi`] the firmware starts the disk, as on a server. QEMU ends
//! when this process ends, at the deadline, when the guest powers off or halts, or when it restarts
//! too often in a row.

pub mod command;
mod disk;
pub mod firmware;
mod kvm;
mod machine;
mod monitor;
mod outcome;
pub mod persist;
mod port;
mod qemu;
mod tpm;
mod update;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use machine::VirtualMachine;
pub use outcome::BootOutcome;
pub use port::Port;
pub use qemu::find_qemu;

use self::command::Accelerator;
use self::disk::MachineDisk;
use self::outcome::Evidence;
use self::persist::Persisted;
use self::qemu::RunLimits;
use self::tpm::Tpm;
use crate::commands::selection::Selection;
use crate::error::{Context, Error, Result};
use crate::io::part::last_bytes;

/// Restarts in a row that are allowed by default. An operator may restart a machine, and an image
/// that fails must fail more than once.
pub const REBOOTS: u32 = 3;

/// How to start a machine.
#[derive(Debug, Clone)]
pub struct BootOptions {
    /// Virtual processors.
    pub smp: u32,
    /// Memory in QEMU's syntax, for example `1G`.
    pub memory: String,
    /// Whether to use hardware virtualisation.
    pub accel: Accel,
    /// Destination of the serial console.
    pub console: Console,
    /// Time after which QEMU is stopped; `None` waits for the guest.
    pub timeout: Option<Duration>,
    /// Restarts in a row that are allowed.
    pub reboots: u32,
    /// Arguments that are added to the kernel command line.
    pub append: String,
    /// Whether changes persist until the next start.
    pub persist: bool,
    /// `NAME=VALUE` credentials for the guest's systemd (SMBIOS type 11).
    pub credentials: Vec<String>,
    /// Ports of this host's loopback address that are forwarded to the guest.
    pub ports: Vec<Port>,
    /// Lets firmware start the disk; `None` lets QEMU start the kernel.
    pub uefi: Option<Uefi>,
}

/// How the firmware starts the disk.
#[derive(Debug, Clone, Default)]
pub struct Uefi {
    /// Whether Secure Boot is on.
    pub secure_boot: bool,
    /// The certificate that the firmware trusts; `None` uses the one that the image is signed
    /// with.
    pub certificate: Option<PathBuf>,
    /// Whether the machine has a TPM 2.0.
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

/// Whether to use hardware virtualisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Accel {
    /// KVM if a probe shows that it works, otherwise TCG.
    #[default]
    Auto,
    /// KVM. Fails if it does not work.
    Kvm,
    /// Emulation, which works everywhere and is about ten times slower.
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

/// Destination of the serial console.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Console {
    /// This terminal, input and output. Ctrl-a x ends QEMU.
    #[default]
    Interactive,
    /// Standard output, without input.
    ReadOnly,
    /// A file.
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

/// Bytes at the end of the console's log that are read to find out how a start ended.
const CONSOLE: u64 = 256 << 10;

/// Starts the selected image and waits until the machine ends. `say` prints a message.
pub fn boot_image(
    selection: &Selection,
    options: &BootOptions,
    say: &mut dyn FnMut(&str),
) -> Result<BootOutcome> {
    let machine = &VirtualMachine::from_selection(selection)?;
    let qemu = find_qemu()?;
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
    // For this user alone: it holds the virtual machine's disk.
    let scratch = tempfile::Builder::new()
        .prefix("adamant-boot-")
        .tempdir()
        .context(|| format!("creating a directory in {}", std::env::temp_dir().display()))?;
    let disk = match options.persist {
        true => MachineDisk::persisted(Persisted::open(selection, say)?)?,
        false => MachineDisk::overlay(machine, scratch.path())?,
    };
    let accelerator = choose_accelerator(&qemu, machine, options.accel, say)?;
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
        accelerator,
    )?;
    // The TPM ends after QEMU, when this value is dropped.
    let _tpm = match &options.uefi {
        Some(uefi) if uefi.tpm => Some(Tpm::attach(
            &mut command,
            &disk.path().with_extension("tpm"),
        )?),
        _ => None,
    };
    let console_text = || {
        last_bytes(&console, CONSOLE)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    };
    let limits = RunLimits {
        timeout: options.timeout,
        reboots: options.reboots,
    };
    let run = qemu::supervise(
        &mut command,
        limits,
        &mut || outcome::is_halted(&console_text()),
        say,
    )?;
    let reached = outcome::reached(&disk.new_records()?, run.starts, &console_text());
    Ok(outcome::outcome(
        run.ended,
        &Evidence {
            reached,
            black_box: disk.has_black_box(),
            serial_console,
        },
    ))
}

/// Whether a kernel command line sends the console to the first serial port. No other port is
/// connected.
fn has_serial_console(cmdline: &str) -> bool {
    let ports = [
        "console=ttyS0",
        "console=uart,io,0x3f8",
        "console=uart8250,io,0x3f8",
    ];
    cmdline.split_whitespace().any(|argument| {
        ports.iter().any(|port| {
            argument
                .strip_prefix(port)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(','))
        })
    })
}

fn choose_accelerator(
    qemu: &Path,
    machine: &VirtualMachine,
    accel: Accel,
    say: &mut dyn FnMut(&str),
) -> Result<Accelerator> {
    match accel {
        Accel::Tcg => Ok(Accelerator::Tcg),
        Accel::Kvm | Accel::Auto => match kvm::probe(qemu, &machine.kernel) {
            Ok(()) => Ok(Accelerator::Kvm),
            Err(why) if accel == Accel::Kvm => {
                Err(Error::new(format!("KVM does not work here: {why}"))
                    .hint("use --accel tcg, which works everywhere and is about ten times slower"))
            }
            Err(why) => {
                say(&format!(
                    "no KVM ({why}): the machine is emulated, about ten times slower"
                ));
                Ok(Accelerator::Tcg)
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::has_serial_console;

    #[test]
    fn only_the_first_serial_port_counts_as_a_console() {
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
