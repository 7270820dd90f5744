//! What a subcommand ends with when the kernel did not do what it asked for.

use std::io::{self, Write};
use std::process::ExitCode;

/// Result of a subcommand.
pub type Result<T = ()> = std::result::Result<T, Failure>;

/// Why a subcommand failed.
#[derive(Debug)]
pub enum Failure {
    /// The kernel refused this call.
    Refused(&'static str, io::Error),
    /// The call worked, but did not do what the subcommand asks for.
    NoEffect(String),
    /// A child process ended with this exit code, and reported the reason itself.
    Child(u8),
    /// Wrong arguments.
    Usage,
}

/// Exit code for a feature that this kernel or machine does not have.
const NOT_APPLICABLE: u8 = 77;
/// Exit code for wrong arguments.
const USAGE: u8 = 2;

impl Failure {
    /// The last system call's error.
    pub fn last(call: &'static str) -> Failure {
        Failure::Refused(call, io::Error::last_os_error())
    }

    /// Prints the reason and returns the exit code.
    pub fn report(self) -> ExitCode {
        ExitCode::from(self.report_code())
    }

    /// Prints the reason and returns the exit code as a number.
    pub fn report_code(self) -> u8 {
        match self {
            Failure::Refused(call, error) => {
                say(&format!("{call}: {}", text(&error)));
                match error.raw_os_error() {
                    Some(libc::ENOSYS | libc::ENODEV | libc::ENXIO) => NOT_APPLICABLE,
                    _ => 1,
                }
            }
            Failure::NoEffect(reason) => {
                say(&reason);
                1
            }
            Failure::Child(code) => code,
            Failure::Usage => {
                say("no such subcommand, or too few arguments");
                USAGE
            }
        }
    }
}

/// Prints a message to standard error.
pub fn say(message: &str) {
    let _ = writeln!(io::stderr(), "poke: {message}");
}

/// The kernel's text for an error, without the number that Rust adds.
pub fn text(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((text, _)) => text.to_owned(),
        None => text,
    }
}

/// Names the call that failed.
pub trait Named<T> {
    /// The value, or a refusal of this call.
    fn named(self, call: &'static str) -> Result<T>;
}

impl<T> Named<T> for io::Result<T> {
    fn named(self, call: &'static str) -> Result<T> {
        self.map_err(|error| Failure::Refused(call, error))
    }
}
