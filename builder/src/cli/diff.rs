//! `adamant diff`.

use std::path::PathBuf;

use clap::Args;

use super::SUCCESS;
use crate::commands::diff::print_difference;
use crate::error::Result;
use crate::term::output::Output;

/// Arguments of `adamant diff`
#[derive(Debug, Args)]
#[command(after_help = "\
A server with OLD downloads these blocks to update to NEW. For two images that adamant built, the
files of the blocks are named.")]
pub struct DiffArgs {
    /// The older image: an OUT directory (its newest version), OUT@VERSION, a root.erofs, or any
    /// other file
    old: PathBuf,
    /// The newer image, in the same forms
    new: PathBuf,
    /// Print only the numbers; works for any two files
    #[arg(long)]
    blocks: bool,
}

impl DiffArgs {
    /// Prints the difference.
    pub fn execute(&self, output: &Output) -> Result<u8> {
        print_difference(&self.old, &self.new, self.blocks, output).map(|()| SUCCESS)
    }
}
