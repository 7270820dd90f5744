//! The signature rule: one line in the initramfs with the mode and the image's build time in
//! seconds since 1970.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use thiserror::Error;

/// Whether a root hash must be signed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// A root hash without a valid signature is refused.
    Require,
    /// A root hash without a valid signature causes a warning.
    Prefer,
    /// Signatures are not checked.
    #[default]
    Off,
}

/// The signature rule.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rule {
    /// Whether the root hash must be signed.
    pub mode: Mode,
    /// Build time of the image, 0 if unknown. An earlier clock is wrong.
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

/// A text is not a signature rule.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is not require, prefer or off and a time")]
pub struct NotARule(String);

impl FromStr for Rule {
    type Err = NotARule;

    fn from_str(text: &str) -> Result<Rule, NotARule> {
        let wrong = || NotARule(text.to_owned());
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
    fn rules_survive_the_round_trip_and_others_are_refused() {
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
