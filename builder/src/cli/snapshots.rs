//! Golden files of all help texts and of the main errors of usage, in `snapshots/`. After an
//! intended change, run the test with `UPDATE_SNAPSHOTS=1` and review the difference.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{CommandFactory, Parser};

use super::Cli;

/// Compares a text with its golden file, or writes the file.
fn check_snapshot(name: &str, text: &str) -> Result<(), String> {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/cli/snapshots")
        .join(format!("{name}.txt"));
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        return fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()));
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    if golden == text {
        return Ok(());
    }
    let line = golden
        .lines()
        .zip(text.lines())
        .position(|(golden, line)| golden != line)
        .unwrap_or_else(|| golden.lines().count().min(text.lines().count()));
    Err(format!(
        "{}: line {} differs:\n  golden: {}\n  now:    {}",
        path.display(),
        line + 1,
        golden.lines().nth(line).unwrap_or_default(),
        text.lines().nth(line).unwrap_or_default()
    ))
}

#[test]
fn help_texts_are_those_of_the_golden_files() {
    let mut program = Cli::command().term_width(100);
    program.build();
    let mut failures = Vec::new();
    failures.extend(check_snapshot("adamant", &program.render_long_help().to_string()).err());
    for verb in program.get_subcommands_mut() {
        if verb.is_hide_set() || verb.get_name() == "help" {
            continue;
        }
        let name = verb.get_name().to_owned();
        let mut text = verb.render_long_help().to_string();
        for action in verb.get_subcommands_mut() {
            if action.get_name() != "help" {
                text += &format!("\n---\n{}", action.render_long_help());
            }
        }
        failures.extend(check_snapshot(&name, &text).err());
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn help_texts_fit_into_100_columns() {
    let mut program = Cli::command().term_width(100);
    program.build();
    let mut texts = vec![program.render_long_help().to_string()];
    for verb in program.get_subcommands_mut() {
        texts.push(verb.render_long_help().to_string());
    }
    for text in texts {
        // A value list in a usage line cannot be wrapped.
        let is_long = |line: &&str| line.chars().count() > 100 && !line.starts_with("Usage:");
        assert_eq!(text.lines().find(is_long), None);
    }
}

#[test]
fn errors_of_usage_are_those_of_the_golden_file() {
    let mut text = String::new();
    for line in [
        "build",
        "build d --format vdi",
        "build d --jobs 0",
        "build d --jobs many",
        "verify o --jobs -1",
        "build d --epoch yesterday",
        "build d --keys k --unsigned",
        "build d -q -v",
        "boot o --memory 2Q",
        "boot o --memory 1M",
        "boot o --smp 256",
        "boot o --smp two",
        "boot o --reboots=-1",
        "boot o --accel x",
        "boot o --credential x",
        "boot o --ssh-port 2222",
        "boot o --port 2222",
        "boot o --timeout 0s",
        "boot o --yes",
        "cache prune --size many",
        "drift",
        "drift a --jobs 1000",
        "drift a --timeout 2d",
        "drift a --ssh-option -v",
        "keys new k --days 0",
        "keys new k --days soon",
        "sign out",
        "explode",
    ] {
        let arguments = std::iter::once("adamant").chain(line.split(' '));
        let error = Cli::try_parse_from(arguments).expect_err(line);
        text += &format!("$ adamant {line}\n{error}\n");
    }
    assert_eq!(check_snapshot("errors", &text), Ok(()));
}
