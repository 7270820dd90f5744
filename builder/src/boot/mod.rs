//! `adamant boot`: an image in QEMU, the way its servers start it.
//!
//! The artifacts are never written to: changes go to a copy-on-write overlay that is gone when QEMU ends, or, with `--persist`, to one
//! that stays beside them. By default QEMU starts the kernel itself, which saves seconds and needs no boot loader; with [`Uefi`] firmware
//! starts the disk, as on a server. QEMU ends with us, at its deadline, when the guest switches itself off, or when it restarts itself again and again.

mod artifacts;
pub mod firmware;
mod kvm;
mod monitor;
mod port;
mod qemu;
mod tpm;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use port::Port;
pub use qemu::{Ended, Machine};

use crate::error::{Error, Result};
use tpm::Tpm;

/// Restarts that an operator may ask for, and that a failing image gets to show that it fails each time.
pub const REBOOTS: u32 = 3;

/// How a machine is started.
#[derive(Debug, Clone)]
pub struct Options {
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

impl Default for Options {
    fn default() -> Self {
        Options {
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

/// Starts the machine and waits for its end. `say` gets sentences for people. A deadline that passed is an error.
pub fn run(machine: &Machine, options: &Options, say: &mut dyn FnMut(&str)) -> Result<()> {
    let qemu = qemu::find()?;
    for credential in &options.credentials {
        let name = credential.split('=').next().unwrap_or_default();
        if !adamant_agent::credentials::is_accepted(&machine.credentials, name) {
            say(&format!("the image's policy does not name the credential {name}, so it will be dropped; add it to [credentials] accept in the definition"));
        }
    }
    let kvm = choose(&qemu, machine, options.accel, say)?;
    port::check_free(&options.ports)?;
    let (disk, _overlay) = qemu::overlay(machine, options.persist)?;
    let firmware = options.uefi.as_ref().map(|uefi| firmware::of(machine, uefi, &options.append, &disk)).transpose()?;
    let mut command = qemu::command(&qemu, machine, options, &disk, firmware.as_ref(), kvm)?;
    // It ends after QEMU, when it goes out of use.
    let _tpm = match &options.uefi {
        Some(uefi) if uefi.tpm => Some(Tpm::attach(&mut command, &disk.with_extension("tpm"))?),
        _ => None,
    };
    match qemu::wait(&mut command, options.timeout, options.reboots, say)? {
        Ended::ByGuest => Ok(()),
        Ended::Restarting(1) => Err(Error::new("the machine restarted itself and was ended").hint("--reboots N lets it do so N times in a row")),
        Ended::Restarting(number) => Err(Error::new(format!("the machine restarted itself {number} times in a row and was ended"))
            .hint("its console says why, if it failed to start; --reboots N allows more")),
        Ended::AtDeadline => {
            let seconds = options.timeout.unwrap_or_default().as_secs();
            Err(Error::new(format!("the machine was still running after {seconds} s and was ended"))
                .hint("give it longer with --timeout, or look at its console"))
        }
    }
}

fn choose(qemu: &Path, machine: &Machine, accel: Accel, say: &mut dyn FnMut(&str)) -> Result<bool> {
    match accel {
        Accel::Tcg => Ok(false),
        Accel::Kvm | Accel::Auto => match kvm::probe(qemu, &machine.kernel) {
            Ok(()) => Ok(true),
            Err(why) if accel == Accel::Kvm => {
                Err(Error::new(format!("KVM does not work here: {why}")).hint("--accel tcg works everywhere, some ten times slower"))
            }
            Err(why) => {
                say(&format!("no KVM ({why}): the machine is emulated, about ten times slower"));
                Ok(false)
            }
        },
    }
}
