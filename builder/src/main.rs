//! The builder's program: a table of subcommands.

use std::process::ExitCode;

use adamant::cli::{Cli, Verb, documents, reference};
use adamant::term::output::Output;
use adamant::term::progress;
use clap::Parser;

/// Exit code of a failure.
const FAILURE: u8 = 1;
/// Exit code of wrong usage.
const WRONG_USAGE: u8 = 2;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return report_usage(&error),
    };
    let output = cli.output();
    output.install_logger();
    let progress_line = cli.shows_progress().then(progress::show);
    let result = match &cli.verb {
        Verb::Build(args) => args.execute(&output),
        Verb::Verify(args) => args.execute(&output),
        Verb::Inspect(args) => args.execute(&output),
        Verb::Diff(args) => args.execute(&output),
        Verb::Boot(args) => args.execute(&output),
        Verb::Summary(args) => args.execute(&output),
        Verb::Cache(args) => args.execute(&output),
        Verb::Keys(args) => args.execute(&output),
        Verb::Sign(args) => args.execute(&output),
        Verb::Drift(args) => args.execute(&output),
        Verb::Completions(args) => args.execute(&output),
        Verb::Man => documents::print_manual(&output),
        Verb::Reference => reference::print_reference(&output),
    };
    let code = result.unwrap_or_else(|error| {
        output.error(&error);
        // Code 1 of `drift` means drift, so a failure has another code.
        if matches!(cli.verb, Verb::Drift(_)) {
            WRONG_USAGE
        } else {
            FAILURE
        }
    });
    drop(progress_line);
    ExitCode::from(code)
}

/// Prints help to stdout, or an error of usage to stderr and with `--json` also as a document.
fn report_usage(error: &clap::Error) -> ExitCode {
    // A closed pipe is not an error.
    let _ = error.print();
    let code = u8::try_from(error.exit_code()).unwrap_or(WRONG_USAGE);
    if code != 0 && std::env::args_os().any(|arg| arg == "--json") {
        let text = error.render().to_string();
        let (message, hint) = text.split_once("\n\n").unwrap_or((&text, ""));
        let document = serde_json::json!({
            "error": {
                "message": message.trim_start_matches("error: ").trim(),
                "hint": hint.trim(),
            }
        });
        let _ = Output::new(true, false, true).document(&document);
    }
    ExitCode::from(code)
}
