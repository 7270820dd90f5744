//! One error type for the builder: what was being done, to what, why it failed, and what to do
//! about it.

use std::{fmt, io};

/// What the builder's functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure a person can act on.
#[derive(Debug)]
pub struct Error {
    message: String,
    hint: Option<String>,
    storage_full: bool,
}

impl Error {
    /// What failed, to what, and why: one line, no full stop.
    pub fn new(message: impl Into<String>) -> Error {
        Error {
            message: message.into(),
            hint: None,
            storage_full: false,
        }
    }

    /// Adds the way out: what to write, run or change.
    pub fn hint(mut self, hint: impl Into<String>) -> Error {
        self.hint = Some(hint.into());
        self
    }

    /// The message without the way out.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Whether a file system had no space left, also where another error's text says so.
    pub fn is_storage_full(&self) -> bool {
        self.storage_full || self.message.contains("No space left on device")
    }

    /// The way out, where one is known.
    pub fn remedy(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\n  {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

/// Says what was being done when a lower-level error came up.
pub trait Context<T> {
    /// Puts `what: ` before the error's own text.
    fn context<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T>;
}

impl<T> Context<T> for std::io::Result<T> {
    fn context<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|e| of_io(&what().into(), &e))
    }
}

/// An I/O error of `what`, in words that say what it means where the system's do not.
pub fn of_io(what: &str, error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Error::new(format!(
            "{what}: the file is truncated: it ends before the data that belongs there"
        ))
        .hint("copy it again from where it is complete, or build it again"),
        io::ErrorKind::StorageFull => {
            let error = Error::new(format!("{what}: no space left on its file system"))
                .hint("free space there, or choose a folder on another file system");
            Error {
                storage_full: true,
                ..error
            }
        }
        io::ErrorKind::QuotaExceeded => Error::new(format!("{what}: the disk quota is exceeded"))
            .hint("free space there, or choose a folder on another file system"),
        _ => Error::new(format!("{what}: {}", reason(error))),
    }
}

/// An I/O error's own text, without the system's number.
pub fn reason(error: &io::Error) -> String {
    let text = match error.kind() {
        io::ErrorKind::UnexpectedEof => return "the file is truncated".to_owned(),
        io::ErrorKind::StorageFull => return "no space left".to_owned(),
        _ => error.to_string(),
    };
    match text.rfind(" (os error ") {
        Some(at) if text.ends_with(')') => text[..at].to_owned(),
        _ => text,
    }
}

impl<T> Context<T> for Result<T> {
    fn context<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|e| Error {
            message: format!("{}: {}", what().into(), e.message),
            ..e
        })
    }
}

impl<T> Context<T> for nix::Result<T> {
    fn context<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|e| Error::new(format!("{}: {}", what().into(), e.desc())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_error_says_what_it_means_and_what_to_do() {
        let of = |error: io::Error| {
            Err::<(), _>(error)
                .context(|| "/out/a.raw")
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            of(io::Error::from_raw_os_error(nix::libc::ENOENT)),
            "/out/a.raw: No such file or directory"
        );
        assert!(of(io::ErrorKind::UnexpectedEof.into()).starts_with(
            "/out/a.raw: the file is truncated: it ends before the data that belongs there\n  "
        ));
        assert!(
            of(io::Error::from_raw_os_error(nix::libc::ENOSPC))
                .starts_with("/out/a.raw: no space left on its file system\n  free space")
        );
    }
}
