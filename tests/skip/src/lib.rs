//! How a test says that this machine lacks what it needs.
//!
//! A test that returns early looks like one that passed. [`skip!`] prints a line that `tests/run`
//! counts, and fails in continuous integration (the environment variable `CI` is set) if the need
//! could be met by installing a package or by running as root.

use std::fmt;
use std::io::Write;

/// What a check needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need<'a> {
    /// A program; `builder/prerequisites.txt` lists its package.
    Program(&'a str),
    /// The rights of root, for the operation that is named.
    Root(&'a str),
    /// A property of the host that no package provides: a kernel feature, a capability, a newer
    /// version than the distribution has.
    Host(&'a str),
}

impl Need<'_> {
    /// Whether the machine can be prepared for the check.
    pub fn is_avoidable(self) -> bool {
        !matches!(self, Need::Host(_))
    }
}

impl fmt::Display for Need<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Need::Program(name) => write!(f, "{name} is not installed"),
            Need::Root(operation) => write!(f, "{operation} needs root"),
            Need::Host(reason) => f.write_str(reason),
        }
    }
}

/// Prints `SKIPPED: NEED` to the standard error output, past the capture of the test harness.
///
/// # Panics
/// If `CI` is set and the need is avoidable.
pub fn report(need: Need) {
    // A closed standard error output must not fail the test.
    let _ = std::io::stderr().write_all(format!("SKIPPED: {need}\n").as_bytes());
    assert!(
        std::env::var_os("CI").is_none() || !need.is_avoidable(),
        "{need}: a skipped check is a failure in continuous integration"
    );
}

/// Returns from the test after a report of what is missing: `skip!(Program("mkfs.erofs"))`.
///
/// A second argument is the value to return.
#[macro_export]
macro_rules! skip {
    ($kind:ident($what:expr)) => {
        $crate::skip!($kind($what), ())
    };
    ($kind:ident($what:expr), $value:expr) => {{
        $crate::report($crate::Need::$kind($what));
        return $value;
    }};
}

#[cfg(test)]
mod tests {
    use super::Need::{Host, Program, Root};

    #[test]
    fn only_a_property_of_the_host_is_no_failure_in_continuous_integration() {
        assert!(Program("x").is_avoidable() && Root("mounting").is_avoidable());
        assert!(!Host("no BTF").is_avoidable());
        assert_eq!(Program("x").to_string(), "x is not installed");
        assert_eq!(Root("mounting").to_string(), "mounting needs root");
    }
}
