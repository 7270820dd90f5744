//! `tests/attacks/index.toml`: every attack, in the order in which they are tried.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// The seal level from which an attack must be refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Verified root file system.
    Verity,
    /// Also lockdown and sysctls.
    Lockdown,
    /// Also the guard.
    Guard,
    /// Known to work at every level.
    Open,
}

impl Level {
    /// The levels that an image can have, from the lowest to the highest.
    pub const SEALS: [Level; 3] = [Level::Verity, Level::Lockdown, Level::Guard];

    /// The name in the index, the results and the table.
    pub fn name(self) -> &'static str {
        match self {
            Level::Verity => "verity",
            Level::Lockdown => "lockdown",
            Level::Guard => "guard",
            Level::Open => "open",
        }
    }
}

/// Who tries an attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Attacker {
    /// Root, or a user with a capability that helps.
    #[default]
    Privileged,
    /// Any user: a capability changes nothing, so a user with one does not repeat the attack.
    Anyone,
}

/// A property of an attack for the program that tries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Flag {
    /// It has more time.
    Slow,
    /// It runs after all others, because it can end the machine.
    Last,
}

impl Flag {
    /// The name in the index.
    pub fn name(self) -> &'static str {
        match self {
            Flag::Slow => "slow",
            Flag::Last => "last",
        }
    }
}

/// An attack's name: the letter of its class, a number, and a letter for a variant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct AttackId(String);

impl AttackId {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for AttackId {
    type Error = String;

    fn try_from(text: String) -> Result<AttackId, String> {
        let class = text.strip_prefix(|c| matches!(c, 'A'..='H'));
        let number = class.map(|rest| rest.trim_end_matches(|c: char| c.is_ascii_lowercase()));
        let digits = number.is_some_and(|number| {
            number.len() >= 2 && number.bytes().all(|byte| byte.is_ascii_digit())
        });
        let variant = text.bytes().filter(u8::is_ascii_lowercase).count() <= 1;
        if digits && variant {
            Ok(AttackId(text))
        } else {
            Err(format!(
                "{text:?}: an id is a letter from A to H, two or more digits and at most one letter, such as B07 or E28a"
            ))
        }
    }
}

impl fmt::Display for AttackId {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// An attack.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attack {
    /// Its name, and its body's: `bodies/ID.sh`.
    pub id: AttackId,
    /// The level from which it must be refused.
    pub level: Level,
    /// The attack, in a few words.
    pub title: String,
    /// What refuses it.
    pub refuser: String,
    /// Who tries it.
    #[serde(default)]
    pub attacker: Attacker,
    /// Properties for the program that tries it.
    #[serde(default)]
    pub flags: Vec<Flag>,
}

impl Attack {
    /// Flags and attacker for `inside`, separated by commas; `-` without any.
    pub fn options(&self) -> String {
        let mut options: Vec<&str> = self.flags.iter().map(|flag| flag.name()).collect();
        if self.attacker == Attacker::Anyone {
            options.push("anyone");
        }
        if options.is_empty() {
            options.push("-");
        }
        options.join(",")
    }
}

/// The whole index.
#[derive(Debug, Clone)]
pub struct Index {
    /// All attacks, in the order in which they are tried.
    pub attacks: Vec<Attack>,
}

/// The file's structure.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IndexFile {
    attack: Vec<Attack>,
}

/// A fault of the index or the bodies.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// A file or directory can't be read.
    #[error("{path}: {1}", path = .0.display())]
    Unreadable(PathBuf, #[source] std::io::Error),
    /// The file is not an index.
    #[error("{path}: {1}", path = .0.display())]
    Malformed(PathBuf, #[source] toml::de::Error),
    /// Two entries have one id.
    #[error("{0}: two attacks have this id: give the new one the next free number")]
    TwoEntries(AttackId),
    /// An entry without a title or a refuser.
    #[error("{0}: it has an empty title or refuser")]
    NoText(AttackId),
    /// An entry without a body.
    #[error("{0}: bodies/{0}.sh does not exist: add it")]
    NoBody(AttackId),
    /// A body without an entry.
    #[error("bodies/{0}: no attack has this body: add an entry to index.toml")]
    NoEntry(String),
}

impl Index {
    /// Reads `index.toml` in the suite's directory and checks that entries and bodies belong
    /// together.
    pub fn load(directory: &Path) -> Result<Index, IndexError> {
        let path = directory.join("index.toml");
        let text = std::fs::read_to_string(&path)
            .map_err(|error| IndexError::Unreadable(path.clone(), error))?;
        let file: IndexFile =
            toml::from_str(&text).map_err(|error| IndexError::Malformed(path, error))?;
        let index = Index {
            attacks: file.attack,
        };
        index.check(&body_names(&directory.join("bodies"))?)?;
        Ok(index)
    }

    /// Checks the entries against the names of the files in `bodies/`.
    fn check(&self, bodies: &BTreeSet<String>) -> Result<(), IndexError> {
        let mut entries = BTreeSet::new();
        for attack in &self.attacks {
            let body = format!("{}.sh", attack.id);
            if attack.title.trim().is_empty() || attack.refuser.trim().is_empty() {
                return Err(IndexError::NoText(attack.id.clone()));
            }
            if !bodies.contains(&body) {
                return Err(IndexError::NoBody(attack.id.clone()));
            }
            if !entries.insert(body) {
                return Err(IndexError::TwoEntries(attack.id.clone()));
            }
        }
        match bodies.difference(&entries).next() {
            Some(body) => Err(IndexError::NoEntry(body.clone())),
            None => Ok(()),
        }
    }

    /// The attacks in the order of a run: those with the flag `last` behind all others.
    pub fn run_order(&self) -> Vec<&Attack> {
        let is_last = |attack: &&Attack| attack.flags.contains(&Flag::Last);
        let (last, first): (Vec<_>, Vec<_>) = self.attacks.iter().partition(is_last);
        first.into_iter().chain(last).collect()
    }
}

/// The names of all files in a directory.
fn body_names(bodies: &Path) -> Result<BTreeSet<String>, IndexError> {
    let unreadable = |error| IndexError::Unreadable(bodies.to_owned(), error);
    std::fs::read_dir(bodies)
        .map_err(unreadable)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_, _>>()
        .map_err(unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: &str =
        "[[attack]]\nid = \"A01\"\nlevel = \"guard\"\ntitle = \"a\"\nrefuser = \"b\"\n";

    fn check(text: &str, bodies: &[&str]) -> Result<(), String> {
        let file: IndexFile = toml::from_str(text).map_err(|error| error.to_string())?;
        let bodies = bodies.iter().map(|&name| name.to_owned()).collect();
        Index {
            attacks: file.attack,
        }
        .check(&bodies)
        .map_err(|error| error.to_string())
    }

    #[test]
    fn accepts_entries_with_their_bodies() {
        let other = ENTRY.replace("A01", "E28a") + "attacker = \"anyone\"\nflags = [\"slow\"]\n";
        check(&format!("{ENTRY}{other}"), &["A01.sh", "E28a.sh"]).unwrap();
    }

    #[test]
    fn refuses_entries_and_bodies_that_do_not_belong_together() {
        let twice = format!("{ENTRY}{ENTRY}");
        for (text, bodies, expected) in [
            (ENTRY, &[][..], "A01.sh does not exist"),
            (ENTRY, &["A01.sh", "A02.sh"], "A02.sh: no attack"),
            (&twice, &["A01.sh"], "two attacks"),
            (
                &ENTRY.replace("\"b\"", "\" \""),
                &["A01.sh"],
                "empty title or refuser",
            ),
        ] {
            let error = check(text, bodies).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn refuses_unknown_keys_and_values() {
        for (known, unknown) in [
            ("guard", "fort"),
            ("A01", "I01"),
            ("A01", "A1"),
            ("A01", "A01ab"),
            ("A01", "A01.sh"),
            ("level =", "levels ="),
            ("title = \"a\"\n", ""),
            ("refuser = \"b\"", "refuser = \"b\"\nflags = [\"first\"]"),
            ("refuser = \"b\"", "refuser = \"b\"\nattacker = \"user\""),
        ] {
            let text = ENTRY.replace(known, unknown);
            assert!(
                check(&text, &["A01.sh", "I01.sh", "A1.sh"]).is_err(),
                "{text}"
            );
        }
    }

    #[test]
    fn attacks_that_can_end_the_machine_run_last() {
        let ending = ENTRY.replace("A01", "A02") + "flags = [\"last\", \"slow\"]\n";
        let file: IndexFile = toml::from_str(&format!("{ending}{ENTRY}")).unwrap();
        let index = Index {
            attacks: file.attack,
        };
        let order: Vec<_> = (index.run_order().into_iter())
            .map(|attack| (attack.id.as_str(), attack.options()))
            .collect();
        assert_eq!(
            order,
            [("A01", "-".to_owned()), ("A02", "last,slow".to_owned())]
        );
    }
}
