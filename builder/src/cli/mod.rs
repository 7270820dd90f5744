//! The command line. Each subcommand has one file with its arguments, its help text, and the
//! function that executes it. Manual page and shell completions are generated from the same types.

pub mod boot;
pub mod build;
pub mod cache;
pub mod diff;
pub mod documents;
pub mod drift;
pub mod inspect;
pub mod keys;
pub mod reference;
pub mod sign;
#[cfg(test)]
mod snapshots;
pub mod summary;
#[cfg(test)]
mod tests;
pub mod verify;

use std::num::NonZeroUsize;
use std::ops::RangeInclusive;

use clap::{Parser, Subcommand};

use crate::term::output::Output;

/// Exit code of a command that succeeded.
pub const SUCCESS: u8 = 0;

/// Build verified, read-only server images from a definition.
#[derive(Debug, Parser)]
#[command(name = "adamant", version, arg_required_else_help = true, after_help = EXAMPLES, infer_subcommands = false)]
pub struct Cli {
    /// Print only warnings and errors
    #[arg(short, long, global = true)]
    quiet: bool,
    /// Print details: each path, each command, the time of each stage
    #[arg(short, long, global = true, conflicts_with = "quiet")]
    verbose: bool,
    /// Write the result as one JSON document to stdout
    #[arg(long, global = true)]
    json: bool,
    /// The subcommand
    #[command(subcommand)]
    pub verb: Verb,
}

const EXAMPLES: &str = "\
Examples:
  adamant summary images/web            show what would be built
  adamant build images/web              build into images/web/out
  adamant build images/web --check      build twice and compare every byte
  adamant build images/web --format qcow2,vhd,ova   also write the disk for hypervisors and clouds
  adamant boot images/web/out           boot in QEMU and discard all changes
  adamant verify images/web/out         verify every hash and block
  adamant inspect images/web/out        list partitions and signatures, check interoperability
  adamant drift root@web1 root@web2     report configuration drift of running servers

Exit codes: 0 success, 1 failure, 2 wrong usage. `boot` and `drift` have more; see their help.";

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Build the image of a definition
    Build(build::BuildArgs),
    /// Verify an image: every hash, the hash tree, the file system structure
    Verify(verify::VerifyArgs),
    /// List partitions, programs and signatures of any disk or UKI, and check interoperability
    Inspect(inspect::InspectArgs),
    /// Count the blocks of an image that another image does not have
    Diff(diff::DiffArgs),
    /// Boot an image in QEMU
    Boot(boot::BootArgs),
    /// Show what would be built, without building or downloading
    Summary(summary::SummaryArgs),
    /// Inspect or prune the build cache
    Cache(cache::CacheArgs),
    /// Create signing keys
    Keys(keys::KeysArgs),
    /// Sign an image that was built with `build --unsigned`
    Sign(sign::SignArgs),
    /// Report configuration drift of running servers over SSH
    Drift(drift::DriftArgs),
    /// Print the completions of a shell
    #[command(hide = true)]
    Completions(documents::CompletionsArgs),
    /// Print the manual page
    #[command(hide = true)]
    Man,
    /// Print the reference of definitions, docs/definition.md
    #[command(hide = true)]
    Reference,
}

impl Cli {
    /// Whether to show a progress line. `boot` has a console of its own.
    pub fn shows_progress(&self) -> bool {
        !self.quiet && matches!(self.verb, Verb::Build(_) | Verb::Verify(_) | Verb::Sign(_))
    }

    /// The output with the verbosity and format that the arguments ask for.
    pub fn output(&self) -> Output {
        Output::new(self.quiet, self.verbose, self.json)
    }
}

/// Parses a whole number in a range.
fn parse_number(text: &str, range: RangeInclusive<u32>) -> std::result::Result<u32, String> {
    text.parse()
        .ok()
        .filter(|number| range.contains(number))
        .ok_or_else(|| {
            format!(
                "{text:?} is not a whole number from {} to {}",
                range.start(),
                range.end()
            )
        })
}

/// Parses a number of worker threads.
fn parse_jobs(text: &str) -> std::result::Result<NonZeroUsize, String> {
    text.parse()
        .map_err(|_| format!("{text:?} is not a number of threads (use 1 or more)"))
}

/// The number of worker threads: `jobs`, or one for each core.
fn worker_threads(jobs: Option<NonZeroUsize>) -> usize {
    jobs.or(std::thread::available_parallelism().ok())
        .map_or(1, NonZeroUsize::get)
}
