//! Results of a run: one line for each attack,
//! `KERNEL LEVEL ATTACKER ID worked|refused|skipped|timeout|crashed: OUTPUT`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use crate::attacks::index::Level;

/// The kernel of the image under attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kernel {
    /// Debian 13: Linux 6.12.
    Trixie,
    /// Debian 12: Linux 6.1.
    Bookworm,
}

impl Kernel {
    /// All kernels, in the order of the table.
    pub const ALL: [Kernel; 2] = [Kernel::Trixie, Kernel::Bookworm];

    /// The Debian release.
    pub fn release(self) -> &'static str {
        match self {
            Kernel::Trixie => "trixie",
            Kernel::Bookworm => "bookworm",
        }
    }

    /// The kernel's version.
    pub fn version(self) -> &'static str {
        match self {
            Kernel::Trixie => "6.12",
            Kernel::Bookworm => "6.1",
        }
    }
}

/// Who tried the attacks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Account {
    /// Root.
    Root,
    /// A user without privileges.
    User,
    /// Root in namespaces of its own.
    Container,
    /// A user with one capability.
    Capability(String),
}

impl Account {
    /// The accounts with a column in the table, in its order.
    pub const COLUMNS: [Account; 3] = [Account::Root, Account::User, Account::Container];
}

impl fmt::Display for Account {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        out.write_str(match self {
            Account::Root => "root",
            Account::User => "user",
            Account::Container => "container",
            Account::Capability(name) => name,
        })
    }
}

/// The result of an attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It did what it tries.
    Worked,
    /// It did not.
    Refused,
    /// This machine or kernel does not have what it attacks.
    Skipped,
    /// It did not end in time, which proves nothing.
    Timeout,
    /// The machine restarted.
    Crashed,
}

/// How an outcome counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// As worked.
    Worked,
    /// As refused.
    Refused,
    /// As not applicable.
    NotApplicable,
}

impl Outcome {
    /// How it counts.
    pub fn count(self) -> Count {
        match self {
            Outcome::Worked | Outcome::Crashed => Count::Worked,
            Outcome::Refused => Count::Refused,
            Outcome::Skipped | Outcome::Timeout => Count::NotApplicable,
        }
    }

    /// The name in results and messages.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Worked => "worked",
            Outcome::Refused => "refused",
            Outcome::Skipped => "skipped",
            Outcome::Timeout => "timeout",
            Outcome::Crashed => "crashed",
        }
    }

    /// The sign in the table.
    pub fn sign(self) -> &'static str {
        match self {
            Outcome::Worked => "W",
            Outcome::Refused => "r",
            Outcome::Skipped => "-",
            Outcome::Timeout => "t",
            Outcome::Crashed => "X",
        }
    }
}

/// A machine and an account: a column of the table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Setting {
    /// The kernel.
    pub kernel: Kernel,
    /// The image's seal level.
    pub level: Level,
    /// Who tried the attacks.
    pub account: Account,
}

/// The results of one or more runs.
#[derive(Debug, Clone, Default)]
pub struct Results {
    outcomes: BTreeMap<(Setting, String), Outcome>,
    settings: BTreeSet<Setting>,
}

impl Results {
    /// Adds the lines of a file. If an attack has a result already, that one counts.
    pub fn add(&mut self, text: &str) -> Result<(), String> {
        for line in text.lines().filter(|line| !line.is_empty()) {
            let (setting, id, outcome) =
                parse(line).ok_or_else(|| format!("this line is no result: {line}"))?;
            self.settings.insert(setting.clone());
            self.outcomes.entry((setting, id)).or_insert(outcome);
        }
        Ok(())
    }

    /// The result of an attack; `None` if it was not tried.
    pub fn outcome(&self, setting: &Setting, id: &str) -> Option<Outcome> {
        self.outcomes
            .get(&(setting.clone(), id.to_owned()))
            .copied()
    }

    /// Whether any attack was tried there.
    pub fn has(&self, setting: &Setting) -> bool {
        self.settings.contains(setting)
    }
}

fn parse(line: &str) -> Option<(Setting, String, Outcome)> {
    let mut words = line.split(' ');
    let setting = Setting {
        kernel: words.next()?.parse().ok()?,
        level: words.next().and_then(seal_level)?,
        account: words.next()?.parse().ok()?,
    };
    let id = words.next()?.to_owned();
    let outcome = words.next()?.trim_end_matches(':').parse().ok()?;
    Some((setting, id, outcome))
}

fn seal_level(name: &str) -> Option<Level> {
    Level::SEALS.into_iter().find(|level| level.name() == name)
}

/// A name that results do not have.
#[derive(Debug)]
pub struct UnknownName;

impl FromStr for Kernel {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Kernel, UnknownName> {
        Kernel::ALL
            .into_iter()
            .find(|kernel| kernel.release() == name)
            .ok_or(UnknownName)
    }
}

impl FromStr for Account {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Account, UnknownName> {
        match name {
            "root" => Ok(Account::Root),
            "user" => Ok(Account::User),
            "container" => Ok(Account::Container),
            _ if name.starts_with("CAP_") => Ok(Account::Capability(name.to_owned())),
            _ => Err(UnknownName),
        }
    }
}

impl FromStr for Outcome {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Outcome, UnknownName> {
        [
            Outcome::Worked,
            Outcome::Refused,
            Outcome::Skipped,
            Outcome::Timeout,
            Outcome::Crashed,
        ]
        .into_iter()
        .find(|outcome| outcome.name() == name)
        .ok_or(UnknownName)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_lines_and_keeps_the_first_result() {
        let mut results = Results::default();
        results
            .add("trixie guard root A01 refused: no\ntrixie guard root A01 worked:\ntrixie guard CAP_KILL F01 timeout: \n")
            .unwrap();
        let setting = |account| Setting {
            kernel: Kernel::Trixie,
            level: Level::Guard,
            account,
        };
        let root = setting(Account::Root);
        assert_eq!(results.outcome(&root, "A01"), Some(Outcome::Refused));
        assert_eq!(results.outcome(&root, "A02"), None);
        let kill = setting(Account::Capability("CAP_KILL".to_owned()));
        assert_eq!(results.outcome(&kill, "F01"), Some(Outcome::Timeout));
        assert!(!results.has(&setting(Account::User)));
    }

    #[test]
    fn refuses_lines_that_are_no_results() {
        for line in [
            "sid guard root A01 refused:",
            "trixie open root A01 refused:",
            "trixie guard nobody A01 refused:",
            "trixie guard root A01 perhaps:",
            "trixie guard root A01",
        ] {
            assert!(Results::default().add(line).is_err(), "{line}");
        }
    }
}
