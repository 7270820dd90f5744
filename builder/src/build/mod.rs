//! `adamant build`: the stages in order.

mod agent;
mod cmdline;
mod fit;
pub mod staging;

use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::output::Output;

/// What is built, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// The definition, or a directory that holds an image.toml.
    pub definition: PathBuf,
    /// Where the artifacts go; `None`: `out` beside the definition.
    pub out: Option<PathBuf>,
    /// Whether a second build is compared with the first.
    pub check: bool,
    /// Worker threads.
    pub jobs: usize,
    /// The agent's program; `None`: adamant-agent beside this program.
    pub agent: Option<PathBuf>,
    /// Where Debian archives are kept; `None`: the user's cache folder.
    pub cache: Option<PathBuf>,
    /// Whether caches may be used.
    pub use_cache: bool,
    /// Overrides the definition's epoch, seconds since 1970.
    pub epoch: Option<i64>,
}

/// Builds, and gives the directory that the artifacts are in.
pub fn run(options: &Options, output: &Output) -> Result<PathBuf> {
    let _ = output;
    Err(Error::new(format!("{}: this version can't build", options.definition.display())))
}
