//! `adamant inspect`.

use std::path::PathBuf;

use clap::Args;

use super::SUCCESS;
use crate::commands::inspect::inspect_target;
use crate::error::Result;
use crate::term::output::Output;

/// Arguments of `adamant inspect`
#[derive(Debug, Args)]
#[command(after_help = "\
Lists partitions, programs with their signatures, sections and predicted values of PCR 11, and a
checklist of the requirements of other tools. Each line of the checklist is ok, differs, or not
checked, with the command that checks it. The exit code is 1 if a line differs.")]
pub struct InspectArgs {
    /// A raw disk image, a unified kernel image, an OUT directory (its newest version), or
    /// OUT@VERSION
    #[arg(value_name = "DISK|UKI|OUT")]
    target: PathBuf,
    /// Require this signer (certificate in PEM or DER); can be repeated. Without it, any valid
    /// signature is accepted
    #[arg(long = "certificate", value_name = "FILE")]
    certificates: Vec<PathBuf>,
}

impl InspectArgs {
    /// Prints the contents and the checklist.
    pub fn execute(&self, output: &Output) -> Result<u8> {
        inspect_target(&self.target, &self.certificates, output).map(|()| SUCCESS)
    }
}
