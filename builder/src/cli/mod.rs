//! The command line: every flag and its help, once. Manual page and completions come from here too.

pub mod drift;
pub mod signing;

use std::convert::Infallible;
use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::commands::boot;
use crate::commands::verify::VerifyOptions;
use crate::definition::values;
use crate::error::{Context, Error};
use crate::format::Format;
use crate::pipeline;
use crate::source::cache_folder;
use crate::term::output::Output;

/// Turns an image definition into a server whose root is read-only and verified.
#[derive(Debug, Parser)]
#[command(name = "adamant", version, arg_required_else_help = true, after_help = EXAMPLES, infer_subcommands = false)]
pub struct Cli {
    /// Say only what is wrong
    #[arg(short, long, global = true)]
    quiet: bool,
    /// Say more: each path, each command
    #[arg(short, long, global = true, conflicts_with = "quiet")]
    verbose: bool,
    /// Write the result as one JSON document on stdout
    #[arg(long, global = true)]
    json: bool,
    /// What to do
    #[command(subcommand)]
    pub verb: Verb,
}

const EXAMPLES: &str = "\
Examples:
  adamant summary images/web            what would be built, from what
  adamant build images/web              into images/web/out
  adamant build images/web --check      build twice, and compare
  adamant build images/web --format qcow2,vhd,ova   the disk as clouds and hypervisors take it, too
  adamant boot images/web/out           start it in QEMU; changes are thrown away
  adamant verify images/web/out         every hash, every block
  adamant inspect images/web/out        partitions, signatures, and whether other tools will take it
  adamant drift root@web1 root@web2     in what running servers differ from their images

Exit codes: 0 done, 1 refused or failed, 2 wrong usage; `boot` and `drift` have more, see their help";

/// What the program can do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Build the image that a definition describes
    Build(Build),
    /// Check every hash, the whole verity tree and the file system's structure
    Verify(Verify),
    /// Show what is on a disk or in a unified kernel image, whoever made it, and whether other
    /// tools will take it
    Inspect(Inspect),
    /// Count the blocks of an image that another does not have
    Diff(Diff),
    /// Start an image in QEMU
    Boot(Boot),
    /// Show what would be built, from what, without building or downloading
    Summary(Summary),
    /// Show or take away what is kept between builds
    Cache(CacheArgs),
    /// Make keys to sign with
    Keys(signing::Keys),
    /// Sign what `build --unsigned` made
    Sign(signing::Sign),
    /// Ask running servers, over ssh, in what they differ from their images
    Drift(drift::Drift),
    /// Print the completions of a shell
    #[command(hide = true)]
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    #[command(hide = true)]
    Man,
    /// Print the reference of definitions, docs/definition.md
    #[command(hide = true)]
    Reference,
}

/// `adamant build`
#[derive(Debug, Args)]
#[command(after_help = "\
Artifacts: OUT/ID_VERSION.{root.erofs,root.verity,roothash,vmlinuz,initrd,cmdline,raw,manifest.json}; with systemd-boot-efi efi and loader.efi,
with a verity key roothash.p7s
With --format also: OUT/ID_VERSION.{qcow2,vhd,vmdk,ova,raw.zst}, and .tar.gz for gce
OUT appears whole or not at all: what is there stays until the new one is complete.")]
pub struct Build {
    #[command(flatten)]
    making: Making,
    /// Where the artifacts go [default: `out` beside the definition]
    #[arg(short, long, value_name = "OUT")]
    output: Option<PathBuf>,
    /// Replace an image of the same id and version in OUT that has other content
    #[arg(long)]
    force: bool,
    /// Build a second time from scratch, elsewhere: other time zone, locale, umask, number of
    /// cores, user where possible; and compare
    #[arg(long)]
    check: bool,
    /// Reuse the block positions of this image so that updates from it are smaller. The same bytes
    /// need the same reference image
    #[arg(long, value_name = "OUT|root.erofs")]
    reference: Option<PathBuf>,
    /// The old name of --reference
    #[arg(long, hide = true, value_name = "PATH", value_parser = renamed_to_reference)]
    previous: Option<Infallible>,
    /// Make the disk in these formats too: qcow2, vhd, vmdk, ova, gce, raw.zst; can be repeated.
    /// The raw disk is always made, unless all there is to be is a uki, for network boot
    #[arg(long = "format", value_name = "LIST", value_delimiter = ',')]
    formats: Vec<Wanted>,
}

/// What `--format` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Disk(Format),
    /// The unified kernel image, which is also on every disk that firmware starts.
    Uki,
}

impl FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Wanted, String> {
        if text == "uki" {
            Ok(Wanted::Uki)
        } else {
            text.parse().map(Wanted::Disk)
        }
    }
}

/// What every build needs to know.
#[derive(Debug, Args)]
struct Making {
    /// The definition, or a directory that holds an image.toml
    definition: PathBuf,
    #[command(flatten)]
    tuning: Tuning,
}

/// What can be said about a build.
#[derive(Debug, Clone, Args)]
struct Tuning {
    /// Worker threads; the bytes that come out do not depend on it [default: one for each core]
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
    /// The agent's program [default: adamant-agent beside this program]
    #[arg(long, value_name = "PATH")]
    agent: Option<PathBuf>,
    /// What is kept between builds: Debian archives, compressed clusters [default:
    /// $XDG_CACHE_HOME/adamant or ~/.cache/adamant]
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// Use nothing that an earlier build kept
    #[arg(long, conflicts_with = "cache")]
    no_cache: bool,
    /// Sign with the keys of this folder, made by `adamant keys new`, instead of those of the
    /// definition
    #[arg(long, value_name = "DIR", conflicts_with = "unsigned")]
    keys: Option<PathBuf>,
    /// Read certificates but no key: `adamant sign OUT` signs later, with the same bytes as
    /// signing at once
    #[arg(long)]
    unsigned: bool,
    /// Say how long each stage took, and write a page that shows what ran beside what
    #[arg(long, value_name = "FILE.html")]
    timings: Option<PathBuf>,
    /// Clamp newer modification times to this moment instead of the definition's epoch
    #[arg(long, value_name = "SECONDS|DATE", value_parser = epoch)]
    epoch: Option<i64>,
}

/// `adamant verify`
#[derive(Debug, Args)]
pub struct Verify {
    /// A build's OUT directory (its newest version is verified), OUT@VERSION, an artifact, or a
    /// disk image
    #[arg(value_name = "OUT|IMAGE")]
    pub target: PathBuf,
    /// Also unpack every file: finds what a program that builds images did wrong before it made
    /// the hashes
    #[arg(long)]
    pub read_data: bool,
    /// Worker threads [default: one for each core]
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
}

impl Verify {
    /// What to verify, and on how many threads.
    pub fn options(&self) -> VerifyOptions {
        VerifyOptions {
            read_data: self.read_data,
            jobs: or_cores(self.jobs),
        }
    }
}

/// `adamant diff`
#[derive(Debug, Args)]
#[command(after_help = "\
A server that has OLD fetches these blocks to have NEW. Where both are images of ours, the files that they belong to are named.")]
pub struct Diff {
    /// The older image: a build's OUT directory (its newest version), OUT@VERSION, or a file: a
    /// root.erofs, or anything else that is read by blocks
    pub old: PathBuf,
    /// The newer image, given likewise
    pub new: PathBuf,
    /// Only the numbers, of any two files
    #[arg(long)]
    pub blocks: bool,
}

/// `adamant cache`
#[derive(Debug, Args)]
#[command(after_help = "\
No image depends on what is kept: it can be taken away at any time, also while something is built. What comes next is slower, once.")]
pub struct CacheArgs {
    /// What is done
    #[command(subcommand)]
    pub verb: CacheVerb,
    /// Where it is kept [default: $XDG_CACHE_HOME/adamant or ~/.cache/adamant]
    #[arg(long = "cache", value_name = "DIR", global = true)]
    pub folder: Option<PathBuf>,
}

/// What is done with the cache.
#[derive(Debug, Subcommand)]
pub enum CacheVerb {
    /// Show how much is kept
    Info,
    /// Take away what was not used for longest
    Prune {
        /// Keep so much of everything, for example 2G; without it, results of builds are kept up
        /// to 4 GiB, as each build does
        #[arg(long, value_parser = values::size)]
        size: Option<u64>,
    },
    /// Take away all of it
    Clear,
}

/// `adamant inspect`
#[derive(Debug, Args)]
#[command(after_help = "\
Partitions, programs with their signatures, sections and predicted values of PCR 11, and a checklist of what other projects' tools ask for. Each
line is ok, differs, or not checked, with the command that checks it. The exit code is 1 when a line differs.")]
pub struct Inspect {
    /// A raw disk image, a unified kernel image, a build's OUT directory (its newest version), or
    /// OUT@VERSION
    #[arg(value_name = "DISK|UKI|OUT")]
    pub target: PathBuf,
    /// Compare signers with this certificate (PEM or DER); can be repeated. Without any, a
    /// signature that holds is enough
    #[arg(long = "certificate", value_name = "FILE")]
    pub certificates: Vec<PathBuf>,
}

/// `adamant boot`
#[derive(Debug, Args)]
#[command(after_help = "\
The artifacts are never written to: changes go to an overlay that is deleted when the machine ends. With --persist they go to a disk of
the machine's own, which no build touches. The first start of another version writes that version into it and keeps the volumes.
With the interactive console, Ctrl-a x ends the machine. It may restart itself; one that fails, and restarts for that reason, is ended.
Without --uefi, QEMU starts kernel and initramfs itself, also of a disk that firmware could start: the same image, seconds sooner.

Exit codes: 0 init was reached and the machine ended in order; 1 adamant or QEMU failed; 2 wrong usage; 3 the agent refused the image,
whatever [failure] action did then; 4 the machine failed in another way, before or after init (kernel panic, restarts, timeout)")]
pub struct Boot {
    /// A build's OUT directory (its newest version is started), OUT@VERSION, an artifact, or a
    /// definition, which is built first
    #[arg(value_name = "OUT|DEFINITION")]
    target: PathBuf,
    /// Keep the machine's disk, firmware variables and TPM state for the next start, in
    /// $XDG_STATE_HOME/adamant/ID [default: ~/.local/state/adamant/ID]
    #[arg(long)]
    persist: bool,
    /// Delete the persisted machine first, after asking, and start a new one; implies --persist
    #[arg(long)]
    reset: bool,
    /// With --reset, delete without asking
    #[arg(long, requires = "reset")]
    yes: bool,
    /// Virtual processors
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=255))]
    smp: u32,
    /// Memory, for example 512M or 2G
    #[arg(long, value_name = "SIZE", default_value = "1G", value_parser = memory)]
    memory: String,
    /// auto, kvm or tcg; auto takes KVM only where it is seen to work
    #[arg(long, value_name = "HOW", default_value = "auto")]
    accel: boot::Accel,
    /// interactive, read-only, or a file that the console is written to
    #[arg(long, value_name = "WHERE", default_value = "interactive")]
    console: boot::Console,
    /// End the machine after this long, for example 90s or 5m; that is a failure
    #[arg(long, value_name = "DURATION", value_parser = timeout)]
    timeout: Option<Duration>,
    /// End the machine, as a failure, when it restarts itself more often than this; after ten
    /// minutes without, counting starts anew
    #[arg(long, value_name = "N", default_value_t = boot::REBOOTS)]
    reboots: u32,
    /// Words added to the kernel's command line; not with Secure Boot, where it is signed
    #[arg(
        long,
        value_name = "WORDS",
        default_value = "",
        allow_hyphen_values = true
    )]
    append: String,
    /// A systemd credential for the guest, for example ssh.authorized_keys.root=KEY; can be
    /// repeated
    #[arg(long = "credential", value_name = "NAME=VALUE", value_parser = credential)]
    credentials: Vec<String>,
    /// Forward TCP port HOST of 127.0.0.1 to port GUEST of the machine, for example 2222:22 for
    /// ssh; can be repeated
    #[arg(long = "port", value_name = "HOST:GUEST")]
    ports: Vec<boot::Port>,
    /// The flag's old name
    #[arg(long, hide = true, value_name = "PORT", value_parser = renamed_to_port)]
    ssh_port: Option<Infallible>,
    /// Let UEFI firmware (OVMF) start the disk, with its boot loader and unified kernel image, as
    /// on a server
    #[arg(long)]
    uefi: bool,
    /// As --uefi, with Secure Boot on: firmware trusts the certificate that the image is signed
    /// with, and no other
    #[arg(long)]
    secure_boot: bool,
    /// With Secure Boot, trust this certificate (PEM or DER) instead
    #[arg(long, value_name = "FILE", requires = "secure_boot")]
    certificate: Option<PathBuf>,
    /// As --uefi, with a TPM 2.0 (swtpm) that the start is measured into
    #[arg(long)]
    tpm: bool,
    #[command(flatten)]
    tuning: Tuning,
}

/// `adamant summary`
#[derive(Debug, Args)]
pub struct Summary {
    /// The definition, or a directory that holds an image.toml
    pub definition: PathBuf,
    /// Where Debian archives are kept between builds
    #[arg(long, value_name = "DIR")]
    pub cache: Option<PathBuf>,
}

impl Cli {
    /// Whether somebody who waits may want to see how it goes on. What boots has a console of its
    /// own.
    pub fn waits(&self) -> bool {
        !self.quiet && matches!(self.verb, Verb::Build(_) | Verb::Verify(_) | Verb::Sign(_))
    }

    /// How much to print, and in which form.
    pub fn output(&self) -> Output {
        Output::new(self.quiet, self.verbose, self.json)
    }
}

impl Build {
    /// For the build.
    pub fn options(&self) -> pipeline::Options {
        let mut options =
            self.making
                .tuning
                .options(&self.making.definition, self.output.clone(), self.check);
        let disks = self.formats.iter().filter_map(|wanted| {
            if let Wanted::Disk(format) = wanted {
                Some(*format)
            } else {
                None
            }
        });
        options.formats = disks
            .clone()
            .filter(|format| *format != Format::Raw)
            .collect();
        options.disk = self.formats.is_empty() || disks.count() > 0;
        options.formats.sort_unstable();
        options.formats.dedup();
        options.reference.clone_from(&self.reference);
        if self.force {
            options.replace = pipeline::Replace::SameVersion;
        }
        options
    }
}

impl Tuning {
    fn options(&self, definition: &Path, out: Option<PathBuf>, check: bool) -> pipeline::Options {
        pipeline::Options {
            definition: definition.to_owned(),
            out,
            replace: pipeline::Replace::SameContent,
            check,
            disk: true,
            formats: Vec::new(),
            jobs: or_cores(self.jobs),
            agent: self.agent.clone(),
            cache: self.cache.clone(),
            use_cache: !self.no_cache,
            keys: self.keys.clone(),
            reference: None,
            unsigned: self.unsigned,
            timings: self.timings.clone(),
            epoch: self.epoch,
        }
    }
}

impl Boot {
    /// What is started: a build's artifacts, or a definition, which is built into a work directory
    /// below the cache first.
    pub fn target(&self) -> crate::Result<Target> {
        let is_definition = self.target.join("image.toml").is_file()
            || self.target.extension().is_some_and(|e| e == "toml");
        if !is_definition {
            return Ok(Target::Artifacts(self.target.clone()));
        }
        let definition =
            std::fs::canonicalize(&self.target).context(|| self.target.display().to_string())?;
        let work = pipeline::boot_folder(&cache_folder(self.tuning.cache.as_deref()), &definition);
        let mut options = self.tuning.options(&self.target, Some(work), false);
        options.replace = pipeline::Replace::Everything;
        Ok(Target::Definition(Box::new(options)))
    }

    /// Whether the persisted machine is to be deleted first.
    pub fn resets(&self) -> bool {
        self.reset
    }

    /// Whether a persisted machine's folder may be deleted: with --yes, or if the person at the
    /// terminal says so.
    pub fn may_delete(&self, folder: &Path, bytes: u64) -> crate::Result<bool> {
        if self.yes {
            return Ok(true);
        }
        let question = format!(
            "delete {} with all that its volumes hold ({} MiB)",
            folder.display(),
            bytes.div_ceil(1 << 20)
        );
        let terminal = std::fs::File::options()
            .read(true)
            .write(true)
            .open("/dev/tty");
        let mut terminal = terminal
            .ok()
            .filter(|_| std::io::stdin().is_terminal())
            .ok_or_else(|| {
                Error::new(format!(
                    "--reset would {question}, and there is no terminal to ask"
                ))
                .hint("add --yes to delete it without a question")
            })?;
        let mut answer = String::new();
        terminal
            .write_all(format!("{question}? [y/N] ").as_bytes())
            .context(|| "the terminal")?;
        BufReader::new(terminal.take(100))
            .read_line(&mut answer)
            .context(|| "the terminal")?;
        Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
    }

    /// How to start the machine.
    pub fn options(&self) -> boot::BootOptions {
        boot::BootOptions {
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
            uefi: (self.uefi || self.secure_boot || self.tpm).then(|| boot::Uefi {
                secure_boot: self.secure_boot,
                certificate: self.certificate.clone(),
                tpm: self.tpm,
            }),
        }
    }
}

/// What `adamant boot` starts.
#[derive(Debug)]
pub enum Target {
    /// A build's OUT directory.
    Artifacts(PathBuf),
    /// A definition, with how it is built.
    Definition(Box<pipeline::Options>),
}

/// The completions of a shell, as its script.
pub fn completions(shell: clap_complete::Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "adamant", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// The manual page in roff, the verbs after the program itself.
pub fn manual() -> std::io::Result<String> {
    let mut page = Vec::new();
    let program = Cli::command();
    clap_mangen::Man::new(program.clone()).render(&mut page)?;
    for verb in program.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        clap_mangen::Man::new(
            verb.clone()
                .bin_name(format!("adamant {}", verb.get_name())),
        )
        .render(&mut page)?;
    }
    Ok(String::from_utf8_lossy(&page).into_owned())
}

/// As many worker threads as asked for, or one for each core.
pub fn or_cores(jobs: Option<NonZeroUsize>) -> usize {
    jobs.or(std::thread::available_parallelism().ok())
        .map_or(1, NonZeroUsize::get)
}

fn epoch(text: &str) -> Result<i64, String> {
    values::epoch(&toml::Value::String(text.to_owned()))
}

fn timeout(text: &str) -> Result<Duration, String> {
    match values::duration(text)? {
        0 => Err("a machine needs longer than that".to_owned()),
        seconds => Ok(Duration::from_secs(seconds)),
    }
}

fn renamed_to_port(port: &str) -> Result<Infallible, String> {
    Err(format!("renamed to --port HOST:22: write --port {port}:22"))
}

fn renamed_to_reference(path: &str) -> Result<Infallible, String> {
    Err(format!("renamed to --reference: write --reference {path}"))
}

/// Memory as QEMU takes it: at least what a kernel starts in.
fn memory(text: &str) -> Result<String, String> {
    match values::size(text)? {
        bytes if bytes < 64 << 20 => Err(format!(
            "{text:?} is too little for a machine (use 64M or more)"
        )),
        bytes => Ok(format!("{}M", bytes >> 20)),
    }
}

fn credential(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some((name, _))
            if !name.is_empty()
                && name
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) =>
        {
            Ok(text.to_owned())
        }
        _ => Err("write it as NAME=VALUE, for example system.hostname=web1".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_takes_the_flags_it_is_documented_with() {
        for line in [
            "build images/web --format raw,qcow2,vhd --format vmdk,ova,gce,raw.zst,usb",
            "build images/web -o out --check --jobs 3 --agent a --cache c --epoch 2026-11-01 -v",
            "build images/web --no-cache --json -q --force",
            "build images/web --timings t.html",
            "verify out --json",
            "verify out --read-data --jobs 2",
            "diff out-1 out-2 --blocks --json",
            "cache info --json",
            "cache prune --size 2G --cache c",
            "cache --cache c clear",
            "inspect disk.raw --certificate a.crt --certificate b.crt --json",
            "boot out --persist --smp 1 --memory 512M --accel tcg --console read-only --timeout 90s --reboots 0 --append -quiet --port 2222:22 --port 8080:80",
            "boot image.toml --console log --credential system.hostname=web1 --agent a",
            "boot out --uefi --tpm",
            "boot out@1.0 --reset --yes",
            "boot out --secure-boot --certificate db.crt",
            "summary images/web --json",
            "keys new k --name me --days 30",
            "sign out --keys k",
            "build images/web --unsigned",
            "build images/web --keys k",
            "build images/web --reference out@1.0",
            "drift root@a b --hosts - --jobs 8 --timeout 5m --ssh-option User=root --ssh-option IdentityFile=k --sudo --json",
            "completions bash",
        ] {
            let parsed = Cli::try_parse_from(std::iter::once("adamant").chain(line.split(' ')));
            assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
        }
    }

    #[test]
    fn a_format_named_twice_is_made_once_and_the_raw_disk_always() {
        let line = "adamant build d --format vmdk,raw,qcow2 --format vmdk,usb";
        let Verb::Build(build) = Cli::try_parse_from(line.split(' ')).unwrap().verb else {
            panic!()
        };
        assert_eq!(
            (build.options().disk, build.options().formats),
            (true, vec![Format::Qcow2, Format::Vmdk])
        );
        for (line, disk) in [("uki", false), ("uki,raw", true), ("usb", true)] {
            let Verb::Build(build) =
                Cli::try_parse_from(["adamant", "build", "d", "--format", line])
                    .unwrap()
                    .verb
            else {
                panic!()
            };
            assert_eq!(
                (build.options().disk, build.options().formats),
                (disk, vec![]),
                "{line}"
            );
        }
    }

    #[test]
    fn wrong_usage_is_refused() {
        for line in [
            "build",
            "build d --format vdi",
            "build d --format",
            "boot out --smp 0",
            "boot out --memory 2Q",
            "boot out --accel x",
            "build d -q -v",
            "build d --jobs 0",
            "boot o --credential x",
            "boot o --ssh-port 2222",
            "build d --previous out",
            "boot o --yes",
            "boot o --port 2222",
            "boot o --port 0:22",
            "boot o --port 2222:65536",
            "boot o --port :22",
            "boot o --certificate db.crt",
            "drift",
            "drift a --jobs 0",
            "drift a --timeout 0s",
            "drift a --ssh-option -v",
            "explode",
        ] {
            let parsed = Cli::try_parse_from(std::iter::once("adamant").chain(line.split(' ')));
            assert_eq!(parsed.expect_err(line).exit_code(), 2, "{line}");
        }
    }
}
