//! Documents that are generated from the command line: shell completions and the manual page.

use clap::{Args, CommandFactory};

use super::{Cli, SUCCESS};
use crate::error::{Context, Result};
use crate::term::output::Output;

/// Arguments of `adamant completions`
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    shell: clap_complete::Shell,
}

impl CompletionsArgs {
    /// Prints the completion script.
    pub fn execute(&self, output: &Output) -> Result<u8> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "adamant", &mut script);
        print_text(&String::from_utf8_lossy(&script), output)
    }
}

/// Prints the manual page.
pub fn print_manual(output: &Output) -> Result<u8> {
    let page = manual().context(|| "generating the manual page")?;
    print_text(&page, output)
}

/// Prints a text; with `--json` the document is that text.
pub(super) fn print_text(text: &str, output: &Output) -> Result<u8> {
    output.answer(text, &text).map(|()| SUCCESS)
}

/// The manual page in roff: the program first, then each subcommand.
fn manual() -> std::io::Result<String> {
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
