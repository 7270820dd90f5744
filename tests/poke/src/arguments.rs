//! The arguments of a subcommand.

use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use crate::failure::{Failure, Result};

/// The arguments behind the subcommand's name.
pub struct Arguments(Vec<OsString>);

impl Arguments {
    /// Takes the rest of the command line.
    pub fn new(words: impl Iterator<Item = OsString>) -> Arguments {
        Arguments(words.collect())
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// An argument, for example a path.
    pub fn path(&self, index: usize) -> Result<&OsStr> {
        self.optional(index).ok_or(Failure::Usage)
    }

    /// An argument that may be absent.
    pub fn optional(&self, index: usize) -> Option<&OsStr> {
        self.0.get(index).map(OsString::as_os_str)
    }

    /// An argument for a system call.
    pub fn c_string(&self, index: usize) -> Result<CString> {
        CString::new(self.path(index)?.as_bytes()).map_err(|_| Failure::Usage)
    }

    /// An argument as text; empty if it is absent or is not UTF-8.
    pub fn text(&self, index: usize) -> &str {
        self.optional(index)
            .and_then(OsStr::to_str)
            .unwrap_or_default()
    }

    /// A number, decimal, `0x` hexadecimal or `0` octal.
    pub fn number(&self, index: usize) -> Result<u64> {
        let text = self.text(index);
        let number = if let Some(digits) = text.strip_prefix("0x") {
            u64::from_str_radix(digits, 16)
        } else if text.len() > 1 && text.starts_with('0') {
            u64::from_str_radix(text, 8)
        } else {
            text.parse()
        };
        number.map_err(|_| Failure::Usage)
    }

    /// A number that a process, signal or descriptor has.
    pub fn small_number(&self, index: usize) -> Result<i32> {
        i32::try_from(self.number(index)?).map_err(|_| Failure::Usage)
    }

    /// The arguments from this one on.
    pub fn from(&self, index: usize) -> &[OsString] {
        self.0.get(index..).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Option<u64> {
        Arguments::new([OsString::from(text)].into_iter())
            .number(0)
            .ok()
    }

    #[test]
    fn reads_numbers_in_three_bases() {
        assert_eq!(number("4096"), Some(4096));
        assert_eq!(number("0x1f"), Some(31));
        assert_eq!(number("0755"), Some(0o755));
        assert_eq!(number("0"), Some(0));
        for bad in ["", "x", "-1", "0x", "09"] {
            assert_eq!(number(bad), None, "{bad:?}");
        }
    }
}
