//! What people and programs see: text for people on stderr, one JSON document on stdout with
//! `--json`.
//!
//! Promises: at most one document on stdout, and whole lines on stderr. A reader that went away (a
//! closed pipe) ends nothing and panics nowhere; a full disk behind stdout is an error.

use std::fmt::Display;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;

use crate::error::{Context, Error, Result};
use crate::term::progress;

/// How much is said, and in which form.
#[derive(Debug, Default)]
pub struct Output {
    quiet: bool,
    verbose: bool,
    json: bool,
    /// Whether the document was written.
    written: AtomicBool,
}

impl Output {
    /// `quiet` leaves warnings and errors, `verbose` adds details, `json` writes the result as a
    /// document.
    pub fn new(quiet: bool, verbose: bool, json: bool) -> Output {
        Output {
            quiet,
            verbose,
            json,
            written: AtomicBool::new(false),
        }
    }

    /// From now on the same people hear what the pipeline says in its logs: warnings always, news
    /// unless `-q`, details with `-v`.
    pub fn hear_logs(&self) {
        let logger = Logger(Output {
            quiet: self.quiet,
            verbose: self.verbose,
            json: false,
            written: AtomicBool::new(true),
        });
        log::set_max_level(if self.verbose() {
            log::LevelFilter::Debug
        } else {
            log::LevelFilter::Info
        });
        // Fails only when it was called before, in a test.
        let _ = log::set_boxed_logger(Box::new(logger));
    }

    /// Whether the result is wanted as a document.
    pub fn json(&self) -> bool {
        self.json
    }

    /// Whether details are wanted: for those that are costly to find.
    pub fn verbose(&self) -> bool {
        self.verbose && !self.quiet
    }

    /// A line for people, left out with `-q`.
    pub fn say(&self, line: impl Display) {
        if !self.quiet {
            to_stderr(&format!("{line}\n"));
        }
    }

    /// A line that only `-v` shows.
    pub fn detail(&self, line: impl Display) {
        if self.verbose() {
            to_stderr(&format!("{line}\n"));
        }
    }

    /// Something that a person should know even with `-q`; `hint` says what to do about it.
    pub fn warn(&self, message: impl Display, hint: Option<&str>) {
        to_stderr(&labelled("warning", &message.to_string(), hint));
    }

    /// The failure that ends the program; with `--json` as the document too, unless there was one.
    pub fn error(&self, error: &Error) {
        to_stderr(&labelled("error", error.message(), error.remedy()));
        if self.json && !self.written.swap(true, Ordering::Relaxed) {
            let document = serde_json::json!({ "error": { "message": error.message(), "hint": error.remedy() } });
            // There is no better place left to complain.
            let _ = to_stdout(&format!("{document:#}\n"));
        }
    }

    /// What was asked for: `text` on stdout, or with `--json` the document there and the text on
    /// stderr.
    pub fn answer(&self, text: &str, document: &impl Serialize) -> Result<()> {
        if self.json {
            if !self.quiet {
                to_stderr(text);
            }
            return self.document(document);
        }
        to_stdout(text).context(|| "stdout")
    }

    /// With `--json` the result on stdout; without it nothing. Once in a program's life.
    pub fn document(&self, document: &impl Serialize) -> Result<()> {
        if !self.json || self.written.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        let text = serde_json::to_string_pretty(document)
            .map_err(|e| Error::new(format!("the JSON document: {e}")))?;
        to_stdout(&format!("{text}\n")).context(|| "stdout")
    }
}

struct Logger(Output);

impl log::Log for Logger {
    fn enabled(&self, metadata: &log::Metadata) -> bool {
        // Other crates' logs are for their authors.
        metadata.target().starts_with("adamant")
    }

    fn log(&self, record: &log::Record) {
        if !self.enabled(record.metadata()) {
            return;
        }
        match record.level() {
            log::Level::Error | log::Level::Warn => self.0.warn(record.args(), None),
            log::Level::Info => self.0.say(record.args()),
            log::Level::Debug | log::Level::Trace => self.0.detail(record.args()),
        }
    }

    fn flush(&self) {}
}

fn labelled(label: &str, message: &str, hint: Option<&str>) -> String {
    match hint {
        Some(hint) => format!("{label}: {message}\n  {}\n", hint.replace('\n', "\n  ")),
        None => format!("{label}: {message}\n"),
    }
}

/// A terminal that went away must not end a build.
fn to_stderr(text: &str) {
    progress::write(text.as_bytes());
}

fn to_stdout(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        // `adamant summary . | head -1` is no failure.
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_out_stands_on_lines_of_its_own() {
        assert_eq!(
            labelled("error", "a: b", Some("do c\ndo d")),
            "error: a: b\n  do c\n  do d\n"
        );
        assert_eq!(labelled("warning", "a", None), "warning: a\n");
    }
}
