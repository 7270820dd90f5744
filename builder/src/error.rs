//! The builder's error type: what failed, on which object, why, and the remedy.

use std::{fmt, io};

use serde_json::error::Category;

/// The result of the builder's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error with a message for users.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    remedy: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The class of an error.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A file or directory does not exist.
    NotFound,
    /// The user may not access an object.
    PermissionDenied,
    /// A file ends before its data does.
    Truncated,
    /// A file system is full.
    StorageFull,
    /// The disk quota is exceeded.
    QuotaExceeded,
    /// Any other error.
    #[default]
    Other,
}

impl From<io::ErrorKind> for ErrorKind {
    fn from(kind: io::ErrorKind) -> ErrorKind {
        match kind {
            io::ErrorKind::NotFound => ErrorKind::NotFound,
            io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
            io::ErrorKind::UnexpectedEof => ErrorKind::Truncated,
            io::ErrorKind::StorageFull => ErrorKind::StorageFull,
            io::ErrorKind::QuotaExceeded => ErrorKind::QuotaExceeded,
            _ => ErrorKind::Other,
        }
    }
}

impl Error {
    /// An error with this message: what failed, on which object, and why, without a full stop.
    pub fn new(message: impl Into<String>) -> Error {
        Error {
            kind: ErrorKind::Other,
            message: message.into(),
            remedy: None,
            source: None,
        }
    }

    /// Sets the remedy: what the user should write, run or change.
    pub fn hint(mut self, remedy: impl Into<String>) -> Error {
        self.remedy = Some(remedy.into());
        self
    }

    /// The class of the error.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The message without the remedy.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The remedy, if there is one.
    pub fn remedy(&self) -> Option<&str> {
        self.remedy.as_deref()
    }

    /// Whether a file system is full. Messages of child processes count too.
    pub fn is_storage_full(&self) -> bool {
        self.kind == ErrorKind::StorageFull || self.message.contains("No space left on device")
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.remedy {
            Some(remedy) => write!(f, "\n  {remedy}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source
            .as_deref()
            .map(|source| source as &(dyn std::error::Error + 'static))
    }
}

/// Adds the failed operation and its object to an error.
pub trait Context<T> {
    /// Puts `what: ` before the error's own message.
    fn context<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T>;
}

impl<T> Context<T> for io::Result<T> {
    fn context<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|error| {
            let described = from_io(&what().into(), &error);
            Error {
                source: Some(Box::new(error)),
                ..described
            }
        })
    }
}

impl<T> Context<T> for nix::Result<T> {
    fn context<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|errno| Error {
            kind: io::Error::from(errno).kind().into(),
            source: Some(Box::new(errno)),
            ..Error::new(format!("{}: {}", what().into(), errno.desc()))
        })
    }
}

impl<T> Context<T> for Result<T> {
    fn context<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|error| Error {
            message: format!("{}: {}", what().into(), error.message),
            ..error
        })
    }
}

/// An I/O error during `what`. Where the system's message does not help, the error has its own
/// message and a remedy.
pub fn from_io(what: &str, error: &io::Error) -> Error {
    let kind = ErrorKind::from(error.kind());
    let described = match kind {
        ErrorKind::Truncated => Error::new(format!(
            "{what}: the file is truncated: it ends before the data that belongs there"
        ))
        .hint("copy it again from a complete copy, or build it again"),
        ErrorKind::StorageFull => Error::new(format!("{what}: no space left on its file system"))
            .hint("free space there, or choose a directory on another file system"),
        ErrorKind::QuotaExceeded => Error::new(format!("{what}: the disk quota is exceeded"))
            .hint("free space there, or choose a directory on another file system"),
        _ => Error::new(format!("{what}: {}", reason(error))),
    };
    Error { kind, ..described }
}

/// The message of an I/O error without the system's error number.
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

/// Why a JSON document is not accepted, without the names of Rust types.
pub fn json_reason(error: &serde_json::Error) -> String {
    let position = format!("line {}, column {}", error.line(), error.column());
    let message = error.to_string();
    let field = |start: &str| {
        let rest = message.strip_prefix(start)?;
        rest.split_once('`').map(|(name, _)| name)
    };
    match error.classify() {
        Category::Io | Category::Eof => "it ends too early".to_owned(),
        Category::Syntax => format!("it is not valid JSON at {position}"),
        Category::Data => {
            if let Some(name) = field("missing field `") {
                format!("the field `{name}` is missing at {position}")
            } else if let Some(name) = field("unknown field `") {
                format!("the field `{name}` is unknown at {position}")
            } else {
                format!("a value has a wrong type or range at {position}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    fn with_context(error: io::Error) -> Error {
        Err::<(), _>(error).context(|| "/out/a.raw").unwrap_err()
    }

    #[test]
    fn a_system_error_has_a_clear_message_and_a_remedy() {
        assert_eq!(
            with_context(io::Error::from_raw_os_error(nix::libc::ENOENT)).to_string(),
            "/out/a.raw: No such file or directory"
        );
        assert!(
            with_context(io::ErrorKind::UnexpectedEof.into())
                .to_string()
                .starts_with("/out/a.raw: the file is truncated: it ends before the data that belongs there\n  ")
        );
        assert!(
            with_context(io::Error::from_raw_os_error(nix::libc::ENOSPC))
                .to_string()
                .starts_with("/out/a.raw: no space left on its file system\n  free space")
        );
    }

    #[test]
    fn reasons_about_json_name_the_field_and_no_rust_type() {
        #[derive(Debug, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Document {
            #[expect(dead_code, reason = "only its type is used")]
            number: u32,
        }
        let reason = |text: &str| json_reason(&serde_json::from_str::<Document>(text).unwrap_err());
        assert_eq!(reason("{"), "it ends too early");
        assert_eq!(reason("{x"), "it is not valid JSON at line 1, column 2");
        assert_eq!(
            reason("{}"),
            "the field `number` is missing at line 1, column 2"
        );
        assert_eq!(
            reason(r#"{"name":1}"#),
            "the field `name` is unknown at line 1, column 7"
        );
        for text in ["[[1]]", r#"{"number":"1"}"#, r#"{"number":-1}"#] {
            assert!(
                reason(text).starts_with("a value has a wrong type or range at line 1"),
                "{}",
                reason(text)
            );
        }
    }

    #[test]
    fn context_keeps_kind_source_and_remedy() {
        let error = with_context(io::Error::from_raw_os_error(nix::libc::ENOSPC));
        let outer = Err::<(), _>(error)
            .context(|| "writing the disk")
            .unwrap_err();
        assert_eq!(outer.kind(), ErrorKind::StorageFull);
        assert!(outer.is_storage_full() && outer.source().is_some() && outer.remedy().is_some());
        assert_eq!(
            outer.message(),
            "writing the disk: /out/a.raw: no space left on its file system"
        );
        let errno = Err::<(), _>(nix::errno::Errno::EACCES)
            .context(|| "/x")
            .unwrap_err();
        assert_eq!(errno.kind(), ErrorKind::PermissionDenied);
    }
}
