//! `adamant boot`.

use std::convert::Infallible;
use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::build::BuildTuning;
use super::parse_number;
use crate::commands::boot::{self, BootOptions, Uefi};
use crate::commands::selection::Selection;
use crate::definition::values;
use crate::error::{Context, Error, Result};
use crate::pipeline::{self, Replace};
use crate::source::cache_folder;
use crate::term::output::Output;

/// Arguments of `adamant boot`
#[derive(Debug, Args)]
#[command(after_help = "\
The artifacts never change. By default, changes go to an overlay that is deleted when the virtual
machine stops. With --persist, changes go to the virtual machine's own disk, which builds do not
change. The first start of another version writes that version to the disk and keeps the volumes.
With the interactive console, Ctrl-a x stops the virtual machine. It may reboot: more than --reboots
reboots in a row, each within ten minutes, are an error.
Without --uefi, QEMU loads kernel and initramfs itself, which is seconds faster.

Exit codes: 0 init started and the virtual machine shut down normally; 1 adamant or QEMU failed;
2 wrong usage; 3 the agent refused the image (with any [failure] action); 4 the virtual machine
failed in another way, before or after init started (kernel panic, restarts, timeout)")]
pub struct BootArgs {
    /// An OUT directory (its newest version), OUT@VERSION, an artifact, or a definition, which is
    /// built first
    #[arg(value_name = "OUT|DEFINITION")]
    target: PathBuf,
    /// Keep the virtual machine's disk, firmware variables and TPM state for the next start, in
    /// $XDG_STATE_HOME/adamant/ID [default: ~/.local/state/adamant/ID]
    #[arg(long)]
    persist: bool,
    /// Delete the persistent virtual machine after a confirmation, and start a new one; implies
    /// --persist
    #[arg(long)]
    reset: bool,
    /// With --reset, delete without a confirmation
    #[arg(long, requires = "reset")]
    yes: bool,
    /// Number of virtual processors
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = parse_processors)]
    smp: u32,
    /// Memory size, for example 512M or 2G
    #[arg(long, value_name = "SIZE", default_value = "1G", value_parser = memory)]
    memory: String,
    /// Accelerator: auto, kvm or tcg. auto uses KVM if it works
    #[arg(long, value_name = "HOW", default_value = "auto")]
    accel: boot::Accel,
    /// Console: interactive, read-only, or a file to write the console output to
    #[arg(long, value_name = "WHERE", default_value = "interactive")]
    console: boot::Console,
    /// Stop the virtual machine after this time and fail, for example 90s or 5m
    #[arg(long, value_name = "DURATION", value_parser = timeout)]
    timeout: Option<Duration>,
    /// Stop the virtual machine with an error after more than this number of reboots in a row. Ten
    /// minutes without a reboot start a new count
    #[arg(long, value_name = "N", default_value_t = boot::REBOOTS, value_parser = parse_reboots)]
    reboots: u32,
    /// Append arguments to the kernel command line. Not with Secure Boot, which signs it
    #[arg(
        long,
        value_name = "ARGUMENTS",
        default_value = "",
        allow_hyphen_values = true
    )]
    append: String,
    /// Pass a systemd credential to the virtual machine, for example ssh.authorized_keys.root=KEY;
    /// can be repeated
    #[arg(long = "credential", value_name = "NAME=VALUE", value_parser = credential)]
    credentials: Vec<String>,
    /// Forward TCP port HOST of 127.0.0.1 to port GUEST of the virtual machine, for example
    /// 2222:22 for ssh; can be repeated
    #[arg(long = "port", value_name = "HOST:GUEST")]
    ports: Vec<boot::Port>,
    /// The old name of --port
    #[arg(long, hide = true, value_name = "PORT", value_parser = renamed_to_port)]
    ssh_port: Option<Infallible>,
    /// Boot the disk with UEFI firmware (OVMF), its boot loader and its unified kernel image, as a
    /// server does
    #[arg(long)]
    uefi: bool,
    /// Like --uefi, with Secure Boot. The firmware trusts only the certificate that signed the
    /// image
    #[arg(long)]
    secure_boot: bool,
    /// With Secure Boot, trust this certificate (PEM or DER) instead
    #[arg(long, value_name = "FILE", requires = "secure_boot")]
    certificate: Option<PathBuf>,
    /// Like --uefi, with a TPM 2.0 (swtpm) that measures the boot
    #[arg(long)]
    tpm: bool,
    #[command(flatten)]
    tuning: BuildTuning,
}

/// The target of `adamant boot`.
#[derive(Debug)]
enum BootTarget {
    /// An image in an OUT directory.
    Artifacts(PathBuf),
    /// A definition, with the options of its build.
    Definition(Box<pipeline::BuildOptions>),
}

impl BootArgs {
    /// Builds the image if the target is a definition, and boots it.
    pub fn execute(&self, output: &Output) -> Result<u8> {
        let out = match self.target()? {
            BootTarget::Artifacts(out) => out,
            BootTarget::Definition(options) => pipeline::build_definition(&options, output)?,
        };
        let selection = Selection::resolve(&out)?;
        selection.announce(output);
        let mut say = |line: &str| output.say(line);
        if self.reset {
            boot::persist::reset(
                &selection.manifest.image.id,
                &mut |folder, bytes| self.confirm_deletion(folder, bytes),
                &mut say,
            )?;
        }
        let outcome = boot::boot_image(&selection, &self.options(), &mut say)?;
        if let Some(error) = outcome.error() {
            output.error(error);
        }
        Ok(outcome.exit_code())
    }

    /// A definition is built in a work directory below the cache.
    fn target(&self) -> Result<BootTarget> {
        let is_definition = self.target.join("image.toml").is_file()
            || self.target.extension().is_some_and(|e| e == "toml");
        if !is_definition {
            return Ok(BootTarget::Artifacts(self.target.clone()));
        }
        let definition =
            std::fs::canonicalize(&self.target).context(|| self.target.display().to_string())?;
        let cache = cache_folder(self.tuning.cache.as_deref());
        Ok(BootTarget::Definition(Box::new(pipeline::BuildOptions {
            out: Some(pipeline::boot_folder(&cache, &definition)),
            replace: Replace::Everything,
            ..self.tuning.options(&self.target)
        })))
    }

    /// Whether the directory of a persistent virtual machine may be deleted: with --yes, or after
    /// the user confirmed it on the terminal.
    fn confirm_deletion(&self, folder: &Path, bytes: u64) -> Result<bool> {
        if self.yes {
            return Ok(true);
        }
        let question = format!(
            "delete {} with the content of its volumes ({} MiB)",
            folder.display(),
            bytes.div_ceil(1 << 20)
        );
        let mut terminal = std::fs::File::options()
            .read(true)
            .write(true)
            .open("/dev/tty")
            .ok()
            .filter(|_| std::io::stdin().is_terminal())
            .ok_or_else(|| {
                Error::new(format!(
                    "--reset would {question}, but there is no terminal for the confirmation"
                ))
                .hint("add --yes to delete it without a confirmation")
            })?;
        terminal
            .write_all(format!("{question}? [y/N] ").as_bytes())
            .context(|| "writing to the terminal")?;
        let mut answer = String::new();
        BufReader::new(terminal.take(100))
            .read_line(&mut answer)
            .context(|| "reading from the terminal")?;
        Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
    }

    fn options(&self) -> BootOptions {
        BootOptions {
            smp: self.smp,
            memory: self.memory.clone(),
            accel: self.accel,
            console: self.console.clone(),
            timeout: self.timeout,
            reboots: self.reboots,
            append: self.append.clone(),
            persist: self.persist || self.reset,
            credentials: self.credentials.clone(),
            ports: self.ports.clone(),
            uefi: (self.uefi || self.secure_boot || self.tpm).then(|| Uefi {
                secure_boot: self.secure_boot,
                certificate: self.certificate.clone(),
                tpm: self.tpm,
            }),
        }
    }
}

fn parse_processors(text: &str) -> std::result::Result<u32, String> {
    parse_number(text, 1..=255)
}

fn parse_reboots(text: &str) -> std::result::Result<u32, String> {
    parse_number(text, 0..=u32::MAX)
}

fn timeout(text: &str) -> std::result::Result<Duration, String> {
    match values::duration(text)? {
        0 => Err("the timeout must be longer than 0s".to_owned()),
        seconds => Ok(Duration::from_secs(seconds)),
    }
}

fn renamed_to_port(port: &str) -> std::result::Result<Infallible, String> {
    Err(format!("renamed to --port HOST:22: write --port {port}:22"))
}

/// Converts a memory size for QEMU. A kernel needs at least 64 MiB.
fn memory(text: &str) -> std::result::Result<String, String> {
    match values::size(text)? {
        bytes if bytes < 64 << 20 => Err(format!(
            "{text:?} is too little for a virtual machine (use 64M or more)"
        )),
        bytes => Ok(format!("{}M", bytes >> 20)),
    }
}

fn credential(text: &str) -> std::result::Result<String, String> {
    let is_name_byte = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    match text.split_once('=') {
        Some((name, _)) if !name.is_empty() && name.bytes().all(is_name_byte) => {
            Ok(text.to_owned())
        }
        _ => Err("write it as NAME=VALUE, for example system.hostname=web1".to_owned()),
    }
}
