//! The parts of `tests/attacks` that are not shell.
//!
//! ```text
//! attacks list [--only REGEX]
//!     the attacks in the order of a run: id, level and options, separated by tabs
//! attacks table [--only REGEX] [--write FILE] RESULTS...
//!     results of `tests/attacks/run --keep` as Markdown; if several files have an attack, the
//!     first one counts. --write: between the lines <!-- attacks:begin --> and <!-- attacks:end
//!     --> of FILE, and not on standard output
//! attacks machine DIRECTORY DISK OTHER SECONDS
//!     starts DISK, with OTHER as the attacker's disk, until all attacks were tried; the
//!     console is DIRECTORY/console
//! ```
//!
//! Exit code 1: an attack that had to be refused worked, or the machine did not try all attacks.
//! 2: usage, or a fault of the suite's files.

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use adamant_tests::attacks::capabilities::{capabilities, matching};
use adamant_tests::attacks::directory;
use adamant_tests::attacks::index::Index;
use adamant_tests::attacks::machine::run_attacks;
use adamant_tests::attacks::results::Results;
use adamant_tests::attacks::table::{replace_table, write_table};

/// Whether the images refused what they had to.
type Verdict = Result<bool, Box<dyn Error>>;

const USAGE: &str = "usage: attacks list [--only REGEX]
       attacks table [--only REGEX] [--write FILE] RESULTS...
       attacks machine DIRECTORY DISK OTHER SECONDS";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let verdict = match arguments.split_first() {
        Some((command, rest)) if command == "list" => list(rest),
        Some((command, rest)) if command == "table" => table(rest),
        Some((command, rest)) if command == "machine" => machine(rest),
        _ => Err(USAGE.into()),
    };
    match verdict {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("attacks: {error}");
            ExitCode::from(2)
        }
    }
}

/// The options of `list` and `table`, and the files behind them.
#[derive(Default)]
struct Options {
    only: Option<String>,
    write: Option<String>,
    files: Vec<String>,
}

fn options(arguments: &[String]) -> Result<Options, Box<dyn Error>> {
    let mut options = Options::default();
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().cloned().ok_or(format!("{word} takes a value"));
        match word.as_str() {
            "--only" => options.only = Some(value()?),
            "--write" => options.write = Some(value()?),
            _ if word.starts_with('-') => return Err(USAGE.into()),
            _ => options.files.push(word.clone()),
        }
    }
    Ok(options)
}

/// The index, reduced to the attacks that `--only` selects.
fn selected(options: &Options) -> Result<Index, Box<dyn Error>> {
    let mut index = Index::load(&directory())?;
    if let Some(only) = &options.only {
        let wanted = matching(&index, only);
        index.attacks.retain(|attack| wanted.contains(&attack.id));
    }
    Ok(index)
}

fn list(arguments: &[String]) -> Verdict {
    let index = selected(&options(arguments)?)?;
    for attack in index.run_order() {
        println!(
            "{}\t{}\t{}",
            attack.id,
            attack.level.name(),
            attack.options()
        );
    }
    Ok(true)
}

fn table(arguments: &[String]) -> Verdict {
    let options = options(arguments)?;
    if options.files.is_empty() {
        return Err(USAGE.into());
    }
    let read = |path: &str| std::fs::read_to_string(path).map_err(|e| format!("{path}: {e}"));
    let mut results = Results::default();
    for path in &options.files {
        results
            .add(&read(path)?)
            .map_err(|e| format!("{path}: {e}"))?;
    }
    let index = selected(&options)?;
    let table = write_table(&index, &capabilities(&directory())?, &results);
    match &options.write {
        None => print!("{}", table.text),
        Some(path) => {
            let document = replace_table(&read(path)?, &table.text).ok_or_else(|| {
                format!("{path}: it has no lines <!-- attacks:begin --> and <!-- attacks:end -->")
            })?;
            std::fs::write(path, document).map_err(|e| format!("{path}: {e}"))?;
        }
    }
    if !table.failures.is_empty() {
        eprintln!("These attacks had to be refused, and were not:");
        table.failures.iter().for_each(|line| eprintln!("{line}"));
    }
    Ok(table.failures.is_empty())
}

fn machine(arguments: &[String]) -> Verdict {
    let [directory, disk, other, seconds] = arguments else {
        return Err(USAGE.into());
    };
    let time = Duration::from_secs(seconds.parse()?);
    let paths = [directory, disk, other].map(Path::new);
    let mut say = |message: &str| eprintln!("{message}");
    Ok(run_attacks(paths[0], paths[1], paths[2], time, &mut say)?)
}
