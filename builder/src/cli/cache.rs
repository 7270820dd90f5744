//! `adamant cache`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::SUCCESS;
use crate::commands::cache;
use crate::definition::values;
use crate::error::Result;
use crate::source::cache_folder;
use crate::term::output::Output;

/// Arguments of `adamant cache`
#[derive(Debug, Args)]
#[command(after_help = "\
No image depends on the cache. Entries can be removed at any time, also during a build; the next
build is slower.")]
pub struct CacheArgs {
    /// The action
    #[command(subcommand)]
    verb: CacheVerb,
    /// The cache directory [default: $XDG_CACHE_HOME/adamant or ~/.cache/adamant]
    #[arg(long = "cache", value_name = "DIR", global = true)]
    folder: Option<PathBuf>,
}

/// Actions on the cache.
#[derive(Debug, Subcommand)]
enum CacheVerb {
    /// Show the size of the cache
    Info,
    /// Evict least recently used entries
    Prune {
        /// Limit each kind of entry to this size, for example 2G [default: 4 GiB of build results,
        /// as after each build]
        #[arg(long, value_parser = values::size)]
        size: Option<u64>,
    },
    /// Remove all entries
    Clear,
}

impl CacheArgs {
    /// Runs the action.
    pub fn execute(&self, output: &Output) -> Result<u8> {
        let folder = cache_folder(self.folder.as_deref());
        match &self.verb {
            CacheVerb::Info => cache::print_info(&folder, output),
            CacheVerb::Prune { size } => cache::prune(&folder, *size, output),
            CacheVerb::Clear => cache::clear(&folder, output),
        }
        .map(|()| SUCCESS)
    }
}
