//! `adamant sign`.

use std::path::PathBuf;

use clap::Args;

use super::{SUCCESS, worker_threads};
use crate::definition::{Definition, Sign};
use crate::error::Result;
use crate::pipeline::offline_sign::sign_output_folder;
use crate::term::output::Output;

/// Arguments of `adamant sign`
#[derive(Debug, Args)]
#[command(after_help = "\
Signs the root hash, the boot loader, the unified kernel image and the values of PCR 11, and writes
the disk in all its formats again. The bytes are the same as with signing during the build.")]
pub struct SignArgs {
    /// An OUT directory (all its images), OUT@VERSION, or an artifact
    out: PathBuf,
    /// Sign with the keys in this directory, from `adamant keys new`
    #[arg(
        long,
        value_name = "DIR",
        required_unless_present = "definition",
        conflicts_with = "definition"
    )]
    keys: Option<PathBuf>,
    /// Sign with the keys that this definition names
    #[arg(long, value_name = "DEFINITION")]
    definition: Option<PathBuf>,
}

impl SignArgs {
    /// Signs the images.
    pub fn execute(&self, output: &Output) -> Result<u8> {
        sign_output_folder(&self.out, &self.keys()?, worker_threads(None), output).map(|()| SUCCESS)
    }

    fn keys(&self) -> Result<Sign> {
        match (&self.keys, &self.definition) {
            (Some(keys), _) => Ok(Sign::from_folder(keys)),
            (None, Some(definition)) => {
                Definition::read(definition).map(|definition| definition.sign)
            }
            (None, None) => Ok(Sign::default()),
        }
    }
}
