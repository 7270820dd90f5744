//! Output of a command: text on stderr, and with `--json` one JSON document on stdout.
//!
//! At most one document is written to stdout, and only complete lines to stderr. A closed pipe is
//! not an error; a full disk is.

use std::fmt::Display;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;

use crate::error::{Context, Error, Result};
use crate::term::printable::Printable;
use crate::term::progress;

/// The verbosity and the format of the output.
#[derive(Debug, Default)]
pub struct Output {
    quiet: bool,
    verbose: bool,
    json: bool,
    /// Whether the JSON document was written.
    written: AtomicBool,
}

impl Output {
    /// `quiet` leaves only warnings and errors, `verbose` adds details, `json` writes the result as
    /// a document.
    pub fn new(quiet: bool, verbose: bool, json: bool) -> Output {
        Output {
            quiet,
            verbose,
            json,
            written: AtomicBool::new(false),
        }
    }

    /// Prints the log records of this program from now on: warnings always, information without
    /// `-q`, details with `-v`.
    pub fn install_logger(&self) {
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
        // It fails only if a logger is installed already, as in tests.
        let _ = log::set_boxed_logger(Box::new(logger));
    }

    /// Whether the result is written as a JSON document.
    pub fn json(&self) -> bool {
        self.json
    }

    /// Whether details are printed. Ask before computing costly details.
    pub fn verbose(&self) -> bool {
        self.verbose && !self.quiet
    }

    /// Prints a line, unless `-q` was given.
    pub fn say(&self, line: impl Display) {
        if !self.quiet {
            to_stderr(&format!("{line}\n"));
        }
    }

    /// Prints a line with `-v`.
    pub fn detail(&self, line: impl Display) {
        if self.verbose() {
            to_stderr(&format!("{line}\n"));
        }
    }

    /// Prints a warning, also with `-q`, with its remedy.
    pub fn warn(&self, message: impl Display, hint: Option<&str>) {
        to_stderr(&labelled("warning", &message.to_string(), hint));
    }

    /// Prints the error that ends the program. With `--json` it is also the document, unless one
    /// was written already.
    pub fn error(&self, error: &Error) {
        to_stderr(&labelled("error", error.message(), error.remedy()));
        if self.json && !self.written.swap(true, Ordering::Relaxed) {
            let document = serde_json::json!({ "error": { "message": error.message(), "hint": error.remedy() } });
            // A failure cannot be reported anywhere else.
            let _ = to_stdout(&Printable::json(&format!("{document:#}\n")));
        }
    }

    /// Prints the result of a query: `text` on stdout, or with `--json` the document on stdout and
    /// the text on stderr.
    pub fn answer(&self, text: &str, document: &impl Serialize) -> Result<()> {
        if self.json {
            if !self.quiet {
                to_stderr(text);
            }
            return self.document(document);
        }
        to_stdout(&Printable::text(text)).context(|| "stdout")
    }

    /// Writes the result to stdout with `--json`. Only the first call writes.
    pub fn document(&self, document: &impl Serialize) -> Result<()> {
        if !self.json || self.written.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        let text = serde_json::to_string_pretty(document)
            .map_err(|e| Error::new(format!("the JSON document: {e}")))?;
        to_stdout(&Printable::json(&format!("{text}\n"))).context(|| "stdout")
    }
}

struct Logger(Output);

impl log::Log for Logger {
    fn enabled(&self, metadata: &log::Metadata) -> bool {
        // The records of other crates do not help users.
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

/// A closed terminal does not end a build.
fn to_stderr(text: &str) {
    progress::write(&Printable::text(text));
}

fn to_stdout(text: &Printable) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        // `adamant summary . | head -1` is not an error.
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_remedy_is_on_lines_of_its_own() {
        assert_eq!(
            labelled("error", "a: b", Some("do c\ndo d")),
            "error: a: b\n  do c\n  do d\n"
        );
        assert_eq!(labelled("warning", "a", None), "warning: a\n");
    }
}
