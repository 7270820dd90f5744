//! `adamant summary`.

use std::path::PathBuf;

use clap::Args;

use super::SUCCESS;
use crate::commands::summary::DefinitionSummary;
use crate::definition::Definition;
use crate::error::Result;
use crate::term::output::Output;

/// Arguments of `adamant summary`
#[derive(Debug, Args)]
pub struct SummaryArgs {
    /// The definition, or a directory with an image.toml
    definition: PathBuf,
    /// Look for cached Debian packages in this directory
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
}

impl SummaryArgs {
    /// Prints the summary.
    pub fn execute(&self, output: &Output) -> Result<u8> {
        let definition = Definition::read(&self.definition)?;
        let summary = DefinitionSummary::new(&definition, self.cache.as_deref());
        output
            .answer(&summary.to_string(), &summary)
            .map(|()| SUCCESS)
    }
}
