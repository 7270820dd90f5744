//! `adamant verify`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;

use super::{SUCCESS, parse_jobs, worker_threads};
use crate::commands::verify::{VerifyOptions, verify_target};
use crate::error::Result;
use crate::term::output::Output;

/// Arguments of `adamant verify`
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// An OUT directory (its newest version), OUT@VERSION, an artifact, or a disk image
    #[arg(value_name = "OUT|IMAGE")]
    target: PathBuf,
    /// Also decompress every file. This finds errors that were made before the hashes were
    /// computed
    #[arg(long)]
    read_data: bool,
    /// Number of worker threads [default: one for each core]
    #[arg(long, value_name = "N", value_parser = parse_jobs)]
    jobs: Option<NonZeroUsize>,
}

impl VerifyArgs {
    /// Verifies the image.
    pub fn execute(&self, output: &Output) -> Result<u8> {
        let options = VerifyOptions {
            read_data: self.read_data,
            jobs: worker_threads(self.jobs),
        };
        verify_target(&self.target, options, output).map(|()| SUCCESS)
    }
}
