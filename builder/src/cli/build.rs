//! `adamant build`, and the build options that `adamant boot` shares.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::Args;

use super::{SUCCESS, parse_jobs, worker_threads};
use crate::definition::values;
use crate::error::Result;
use crate::format::Format;
use crate::pipeline::{self, Replace};
use crate::term::output::Output;

/// Arguments of `adamant build`
#[derive(Debug, Args)]
#[command(after_help = "\
Artifacts: OUT/ID_VERSION.{root.erofs,root.verity,roothash,vmlinuz,initrd,cmdline,raw,manifest.json};
with systemd-boot-efi also .efi and .loader.efi; with a verity key also .roothash.p7s;
with --format also .qcow2, .vhd, .vmdk, .ova, .raw.zst, and .tar.gz for gce.
OUT changes only when all artifacts are complete. An error or interruption leaves OUT as it was.")]
pub struct BuildArgs {
    /// The definition, or a directory with an image.toml
    definition: PathBuf,
    #[command(flatten)]
    tuning: BuildTuning,
    /// Write the artifacts to this directory [default: `out` in the definition's directory]
    #[arg(short, long, value_name = "OUT")]
    output: Option<PathBuf>,
    /// Replace an image with the same id and version but other content in OUT
    #[arg(long)]
    force: bool,
    /// Build a second time from scratch and compare every byte. The second build has another
    /// directory, time zone, locale, umask, number of cores, and user and host name where
    /// possible
    #[arg(long)]
    check: bool,
    /// Reuse the block positions of this image so that updates from it are smaller. A later
    /// build gives the same bytes only with the same reference image
    #[arg(long, value_name = "OUT|root.erofs")]
    reference: Option<PathBuf>,
    /// The old name of --reference
    #[arg(long, hide = true, value_name = "PATH", conflicts_with = "reference")]
    previous: Option<PathBuf>,
    /// Also write the disk in these formats: qcow2, vhd, vmdk, ova, gce, raw.zst; can be repeated.
    /// The raw disk is always written, except with `uki` alone, for network boot
    #[arg(long = "format", value_name = "LIST", value_delimiter = ',')]
    formats: Vec<FormatArgument>,
}

impl BuildArgs {
    /// Builds the image.
    pub fn execute(&self, output: &Output) -> Result<u8> {
        if self.previous.is_some() {
            output.warn("--previous was renamed to --reference", None);
        }
        pipeline::build_definition(&self.options(), output).map(|_| SUCCESS)
    }

    /// The options for the pipeline.
    pub(super) fn options(&self) -> pipeline::BuildOptions {
        let mut disks: Vec<Format> = self
            .formats
            .iter()
            .filter_map(|argument| match argument {
                FormatArgument::Disk(format) => Some(*format),
                FormatArgument::Uki => None,
            })
            .collect();
        let wants_disk = self.formats.is_empty() || !disks.is_empty();
        disks.retain(|format| *format != Format::Raw);
        disks.sort_unstable();
        disks.dedup();
        pipeline::BuildOptions {
            out: self.output.clone(),
            replace: if self.force {
                Replace::SameVersion
            } else {
                Replace::SameContent
            },
            check: self.check,
            disk: wants_disk,
            formats: disks,
            reference: self.reference.clone().or_else(|| self.previous.clone()),
            ..self.tuning.options(&self.definition)
        }
    }
}

/// A value of `--format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FormatArgument {
    /// A format of the disk.
    Disk(Format),
    /// The unified kernel image, which every disk that firmware starts contains too.
    Uki,
}

impl FromStr for FormatArgument {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<FormatArgument, String> {
        if text == "uki" {
            Ok(FormatArgument::Uki)
        } else {
            text.parse().map(FormatArgument::Disk)
        }
    }
}

/// Build options of `adamant build` and `adamant boot`.
#[derive(Debug, Clone, Args)]
pub struct BuildTuning {
    /// Number of worker threads; the artifacts do not depend on it [default: one for each core]
    #[arg(long, value_name = "N", value_parser = parse_jobs)]
    jobs: Option<NonZeroUsize>,
    /// Use this agent program [default: adamant-agent in the directory of this program]
    #[arg(long, value_name = "PATH")]
    agent: Option<PathBuf>,
    /// Cache installed Debian packages and compressed clusters in this directory [default:
    /// $XDG_CACHE_HOME/adamant or ~/.cache/adamant]
    #[arg(long, value_name = "DIR")]
    pub(super) cache: Option<PathBuf>,
    /// Do not use the cache
    #[arg(long, conflicts_with = "cache")]
    no_cache: bool,
    /// Sign with the keys in this directory, from `adamant keys new`, instead of the definition's
    /// keys
    #[arg(long, value_name = "DIR", conflicts_with = "unsigned")]
    keys: Option<PathBuf>,
    /// Read certificates but no keys. `adamant sign OUT` signs later and gives the same bytes
    #[arg(long)]
    unsigned: bool,
    /// Print the time of each stage and write a page that shows stages and threads in parallel
    #[arg(long, value_name = "FILE.html")]
    timings: Option<PathBuf>,
    /// Set newer modification times to this time instead of the definition's epoch
    #[arg(long, value_name = "SECONDS|DATE", value_parser = epoch)]
    epoch: Option<i64>,
}

impl BuildTuning {
    /// Options for a build of this definition into its usual directory, as a raw disk.
    pub(super) fn options(&self, definition: &Path) -> pipeline::BuildOptions {
        pipeline::BuildOptions {
            definition: definition.to_owned(),
            out: None,
            replace: Replace::SameContent,
            check: false,
            disk: true,
            formats: Vec::new(),
            jobs: worker_threads(self.jobs),
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

fn epoch(text: &str) -> std::result::Result<i64, String> {
    values::epoch(&toml::Value::String(text.to_owned()))
}
