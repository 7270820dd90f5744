//! Whether a root hash must be signed: one line in the initramfs, the mode and the image's build
//! time in seconds since 1970.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Refusal;

/// Whether a root hash must be signed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// What is not signed is refused.
    Require,
    /// What is not signed starts, with a warning.
    Prefer,
    /// It is not looked at.
    #[default]
    Off,
}

/// The line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rule {
    /// Whether it must be signed.
    pub mode: Mode,
    /// When the image was built, 0 where that is not known. A clock that is behind it is wrong.
    pub built: i64,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Require => "require",
            Mode::Prefer => "prefer",
            Mode::Off => "off",
        })
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} {}", self.mode, self.built)
    }
}

impl FromStr for Rule {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Rule, Refusal> {
        let wrong = || format!("{text:?} is not require, prefer or off and a time");
        let (mode, built) = text.trim_end().split_once(' ').ok_or_else(wrong)?;
        let mode = [Mode::Require, Mode::Prefer, Mode::Off]
            .into_iter()
            .find(|known| known.to_string() == mode)
            .ok_or_else(wrong)?;
        Ok(Rule {
            mode,
            built: built.parse().map_err(|_| wrong())?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes_and_nothing_else() {
        for mode in [Mode::Require, Mode::Prefer, Mode::Off] {
            let rule = Rule {
                mode,
                built: 1_700_000_000,
            };
            assert_eq!(rule.to_string().parse(), Ok(rule));
        }
        for text in ["", "require", "require x", "never 0", "off 0 0"] {
            assert!(text.parse::<Rule>().is_err(), "{text}");
        }
    }
}
