//! The builder's program: a table of verbs.

use std::process::ExitCode;

use adamant::cli::drift::exit_code;
use adamant::cli::signing::KeysVerb;
use adamant::cli::{self, CacheVerb, Cli, Target, Verb};
use adamant::commands::boot;
use adamant::commands::cache;
use adamant::commands::diff;
use adamant::commands::drift;
use adamant::commands::inspect;
use adamant::commands::selection::Selection;
use adamant::commands::summary;
use adamant::commands::verify;
use adamant::definition::{Definition, reference};
use adamant::pipeline;
use adamant::sign::keys;
use adamant::source::cache_folder;
use adamant::term::output::Output;
use adamant::term::progress;
use adamant::{Context, Result};
use clap::Parser;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let output = cli.output();
    output.hear_logs();
    let shown = cli.waits().then(progress::show);
    let code = run(&cli.verb, &output).unwrap_or_else(|error| {
        output.error(&error);
        // Where 1 stands for drift, it can't stand for a list of hosts that can't be read.
        if matches!(cli.verb, Verb::Drift(_)) {
            2
        } else {
            1
        }
    });
    drop(shown);
    ExitCode::from(code)
}

/// Gives the exit code of what was done.
fn run(verb: &Verb, output: &Output) -> Result<u8> {
    let done = match verb {
        Verb::Build(args) => pipeline::run(&args.options(), output).map(drop),
        Verb::Verify(args) => verify::verify_target(&args.target, args.options(), output),
        Verb::Diff(args) => diff::print_difference(&args.old, &args.new, args.blocks, output),
        Verb::Inspect(args) => inspect::inspect_target(&args.target, &args.certificates, output),
        Verb::Boot(args) => {
            let out = match args.target()? {
                Target::Artifacts(out) => out,
                Target::Definition(options) => pipeline::run(&options, output)?,
            };
            let selection = Selection::resolve(&out)?;
            selection.announce(output);
            let mut say = |line: &str| output.say(line);
            if args.resets() {
                boot::persist::reset(
                    &selection.manifest.image.id,
                    &mut |folder, bytes| args.may_delete(folder, bytes),
                    &mut say,
                )?;
            }
            let outcome = boot::boot_image(&selection, &args.options(), &mut say)?;
            if let Some(error) = outcome.error() {
                output.error(error);
            }
            return Ok(outcome.exit_code());
        }
        Verb::Summary(args) => {
            let summary = summary::DefinitionSummary::new(
                &Definition::read(&args.definition)?,
                args.cache.as_deref(),
            );
            output.answer(&summary.to_string(), &summary)
        }
        Verb::Cache(args) => {
            let folder = cache_folder(args.folder.as_deref());
            match &args.verb {
                CacheVerb::Info => cache::print_info(&folder, output),
                CacheVerb::Prune { size } => cache::prune(&folder, *size, output),
                CacheVerb::Clear => cache::clear(&folder, output),
            }
        }
        Verb::Keys(args) => match &args.verb {
            KeysVerb::New { dir, name, days } => {
                let made = keys::new(dir, name, *days)?;
                let text: String = made
                    .iter()
                    .map(|path| format!("{}\n", path.display()))
                    .collect();
                output.answer(&text, &made)
            }
        },
        Verb::Sign(args) => {
            pipeline::sign_later::run(&args.out, &args.table()?, cli::or_cores(None), output)
        }
        Verb::Drift(args) => return drift::report_drift(&args.options(), output).map(exit_code),
        Verb::Completions { shell } => text(output, &cli::completions(*shell)),
        Verb::Man => text(output, &cli::manual().context(|| "the manual page")?),
        Verb::Reference => text(output, &reference::markdown()),
    };
    done.map(|()| 0)
}

/// A text is its own document.
fn text(output: &Output, text: &str) -> Result<()> {
    output.answer(text, &text)
}

/// Help goes to stdout and is no failure; wrong usage is 2, and with `--json` a document too.
fn usage(error: &clap::Error) -> ExitCode {
    // A reader that went away is no reason to panic.
    let _ = error.print();
    let code = u8::try_from(error.exit_code()).unwrap_or(2);
    if code != 0 && std::env::args_os().any(|arg| arg == "--json") {
        let text = error.render().to_string();
        let (message, hint) = text.split_once("\n\n").unwrap_or((&text, ""));
        let document = serde_json::json!({ "error": { "message": message.trim_start_matches("error: ").trim(), "hint": hint.trim() } });
        let _ = Output::new(true, false, true).document(&document);
    }
    ExitCode::from(code)
}
