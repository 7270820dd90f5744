//! Accounts that units run as and that the image lacks. On a read-only /etc they cannot be added at
//! the start.

use std::collections::{BTreeMap, BTreeSet};

use super::units::Units;
use super::writable::Writable;
use super::{Finding, Image};

/// Directories of sysusers.d(5), highest priority first.
const SYSUSERS: [&str; 3] = [
    "/etc/sysusers.d",
    "/usr/local/lib/sysusers.d",
    "/usr/lib/sysusers.d",
];
/// Directories of users and groups in JSON (nss-systemd(8)).
const USERDB: [&str; 3] = ["/etc/userdb", "/usr/local/lib/userdb", "/usr/lib/userdb"];
/// Account sources whose accounts are all in the image (nsswitch.conf(5)).
const LOCAL: [&str; 6] = [
    "files",
    "compat",
    "systemd",
    "mymachines",
    "db",
    "myhostname",
];

/// Users or groups.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Account {
    User,
    Group,
}

impl Account {
    fn noun(self) -> &'static str {
        match self {
            Account::User => "user",
            Account::Group => "group",
        }
    }

    fn file(self) -> &'static str {
        match self {
            Account::User => "/etc/passwd",
            Account::Group => "/etc/group",
        }
    }

    fn switch(self) -> &'static str {
        match self {
            Account::User => "passwd:",
            Account::Group => "group:",
        }
    }
}

/// The accounts of an image.
struct Accounts {
    users: BTreeSet<String>,
    groups: BTreeSet<String>,
    /// Users and groups of sysusers.d, each with the file that describes it.
    described: [BTreeMap<String, String>; 2],
    /// Whether a server or a file elsewhere may provide more accounts.
    is_open: [bool; 2],
}

pub fn check(image: &Image, units: &Units, writable: &Writable) -> Vec<Finding> {
    let accounts = Accounts::read(image);
    let mut findings = Vec::new();
    for (name, unit) in units.enabled() {
        if unit.is_skipped(image, writable) {
            continue;
        }
        let is_dynamic = unit.is_on("DynamicUser");
        let one = |key: &'static str| unit.last(key).map(|value| (key, value));
        let mut wanted: Vec<(Account, &'static str, &str)> = Vec::new();
        for (key, value) in [one("User").filter(|_| !is_dynamic), one("SocketUser")]
            .into_iter()
            .flatten()
        {
            wanted.push((Account::User, key, value));
        }
        for (key, value) in [one("Group").filter(|_| !is_dynamic), one("SocketGroup")]
            .into_iter()
            .flatten()
        {
            wanted.push((Account::Group, key, value));
        }
        wanted.extend(
            unit.words("SupplementaryGroups")
                .map(|group| (Account::Group, "SupplementaryGroups", group)),
        );
        for (kind, key, value) in wanted {
            if let Some((message, hint)) = accounts.complaint(kind, name, key, value, writable) {
                findings.push(Finding {
                    is_error: false,
                    rule: "unit-account-missing",
                    message,
                    hint,
                });
            }
        }
    }
    findings
}

impl Accounts {
    fn read(image: &Image) -> Accounts {
        let names = |kind: Account, suffix: &str, own: &[&str]| -> BTreeSet<String> {
            let text = image.text(kind.file()).unwrap_or_default();
            let listed = text
                .lines()
                .filter_map(|line| line.split_once(':'))
                .map(|(name, _)| name.to_owned());
            let json = USERDB
                .iter()
                .flat_map(|folder| image.names(folder))
                .filter_map(|name| name.strip_suffix(suffix).map(str::to_owned));
            // systemd creates these without a file.
            listed
                .chain(json)
                .chain(own.iter().map(|name| (*name).to_owned()))
                .collect()
        };
        let switch = image.text("/etc/nsswitch.conf").unwrap_or_default();
        let is_open = |kind: Account| {
            let line = switch
                .lines()
                .map(str::trim)
                .find_map(|line| line.strip_prefix(kind.switch()));
            line.is_some_and(|sources| {
                sources.split_whitespace().any(|source| {
                    !source.starts_with(['[', '!'])
                        && !LOCAL.contains(&source)
                        && !source.ends_with(']')
                })
            })
        };
        Accounts {
            users: names(Account::User, ".user", &["root", "nobody"]),
            groups: names(Account::Group, ".group", &["root", "nobody", "nogroup"]),
            described: described(image),
            is_open: [is_open(Account::User), is_open(Account::Group)],
        }
    }

    fn complaint(
        &self,
        kind: Account,
        unit: &str,
        key: &str,
        value: &str,
        writable: &Writable,
    ) -> Option<(String, String)> {
        let at = usize::from(kind == Account::Group);
        let known = if kind == Account::User {
            &self.users
        } else {
            &self.groups
        };
        // Specifiers are unknown before the unit runs; numbers need no name.
        let is_known = value.is_empty()
            || value.contains('%')
            || value.bytes().all(|b| b.is_ascii_digit())
            || known.contains(value);
        if is_known || self.is_open[at] || writable.holds(kind.file()) {
            return None;
        }
        let (noun, file) = (kind.noun(), kind.file());
        Some(match self.described[at].get(value) {
            Some(conf) => (
                format!(
                    "{unit} cannot start: it has {key}={value}, a {noun} that only {conf} describes; systemd-sysusers cannot add it to the read-only {file}"
                ),
                format!(
                    "run systemd-sysusers --root=DIR when you make the source; or provide a {file} with the {noun}, under a number that is the same in all \
                     versions; or write DynamicUser=yes in a drop-in of {unit}"
                ),
            ),
            None => (
                format!("{unit} cannot start: it has {key}={value}, and {file} has no such {noun}"),
                format!(
                    "correct {key}=; or add the package that creates the {noun}; or write DynamicUser=yes in a drop-in of {unit}"
                ),
            ),
        })
    }
}

/// Users and groups of sysusers.d, each with the file that describes it.
fn described(image: &Image) -> [BTreeMap<String, String>; 2] {
    let mut out = [BTreeMap::new(), BTreeMap::new()];
    for path in image.configuration_files(&SYSUSERS) {
        for line in image.text(&path).unwrap_or_default().lines() {
            let words: Vec<&str> = line
                .split_whitespace()
                .map(|word| word.trim_matches('"'))
                .collect();
            let mut add = |at: usize, name: &str| {
                out[at]
                    .entry(name.to_owned())
                    .or_insert_with(|| path.clone());
            };
            match &words[..] {
                // A user has a group of the same name.
                ["u" | "u!", name, ..] => [0, 1].into_iter().for_each(|at| add(at, name)),
                ["g", name, ..] => add(1, name),
                ["m", user, group, ..] => {
                    add(0, user);
                    add(1, group);
                }
                _ => {}
            }
        }
    }
    out
}
