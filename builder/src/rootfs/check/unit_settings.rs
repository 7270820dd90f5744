//! Unit lines that systemd ignores: unknown sections, keys and values.

use std::collections::{BTreeMap, BTreeSet};

use super::unit::Unit;
use super::units::Units;
use super::{Finding, Image};
use crate::definition::nearest;
use crate::tree::Kind;

/// Keys of systemd 257, of all sections, for an image whose systemd cannot be read.
const KEYS: &str = include_str!("unit_keys.txt");
/// Paths of systemd's code: a library since systemd 252, before that the program.
const FOLDERS: [&str; 5] = [
    "/usr/lib/systemd",
    "/usr/lib/x86_64-linux-gnu/systemd",
    "/usr/lib64/systemd",
    "/lib/systemd",
    "/usr/lib",
];
/// Maximum size of a program, bytes; systemd has 4 MB.
const PROGRAM_LIMIT: u64 = 32 << 20;

/// Keys with a fixed set of values.
const VALUES: [(&str, &[&str]); 3] = [
    (
        "Type",
        &[
            "simple",
            "exec",
            "forking",
            "oneshot",
            "dbus",
            "notify",
            "notify-reload",
            "idle",
        ],
    ),
    (
        "Restart",
        &[
            "no",
            "always",
            "on-success",
            "on-failure",
            "on-abnormal",
            "on-abort",
            "on-watchdog",
        ],
    ),
    ("KillMode", &["control-group", "process", "mixed", "none"]),
];

/// Sections and keys that systemd knows.
enum Known {
    /// From this image's own systemd: keys by section.
    Exactly(BTreeMap<String, BTreeSet<String>>),
    /// Keys of another systemd, of any section.
    About(BTreeSet<String>),
}

pub fn check(image: &Image, units: &Units) -> Vec<Finding> {
    let known = Known::from_image(image);
    let mut findings = Vec::new();
    let mut told = BTreeSet::new();
    for (name, unit) in units.enabled() {
        for (message, hint) in complaints(&known, name, unit) {
            // A faulty line of a template is reported once for all instances.
            if told.insert(message.clone()) {
                findings.push(Finding {
                    is_error: false,
                    rule: "unit-line-ignored",
                    message,
                    hint,
                });
            }
        }
    }
    findings
}

fn complaints(known: &Known, name: &str, unit: &Unit) -> Vec<(String, String)> {
    let own = section_of(name);
    let mut out = Vec::new();
    let mut sections = BTreeSet::new();
    for setting in unit.settings() {
        let (section, key, file) = (
            setting.section.as_str(),
            setting.key.as_str(),
            &unit.files[setting.file],
        );
        if section.starts_with("X-") || key.starts_with("X-") || section.is_empty() {
            continue;
        }
        if ![own.as_str(), "Unit", "Install"].contains(&section) {
            if sections.insert(section) {
                let hint = match nearest(section, &[&own, "Unit", "Install"]) {
                    Some(near) => format!("write [{near}]"),
                    None => "remove the section".to_owned(),
                };
                out.push((format!("{file}: systemd ignores the section [{section}], which is unknown in units of this type"), hint));
            }
            continue;
        }
        if let Some((is_unknown, near)) = known.judge(section, key)
            && is_unknown
        {
            let hint = near.map_or_else(
                || "remove the line".to_owned(),
                |near| format!("write {near}="),
            );
            out.push((
                format!("{file}: systemd ignores the unknown key {key}= in [{section}]"),
                hint,
            ));
        }
        let values = VALUES
            .iter()
            .find(|(known, _)| *known == key && (section == "Service" || key == "KillMode"));
        if let Some((_, values)) = values.filter(|(_, values)| {
            !setting.value.is_empty() && !values.contains(&setting.value.as_str())
        }) {
            let hint = match nearest(&setting.value, values) {
                Some(near) => format!("write {key}={near}"),
                None => format!("write one of {}", values.join(", ")),
            };
            out.push((
                format!(
                    "{file}: systemd ignores {key}={}, an unknown value",
                    setting.value
                ),
                hint,
            ));
        }
    }
    out
}

/// The section of a unit's type: `Service` for `a.service`.
fn section_of(name: &str) -> String {
    let kind = name.rsplit_once('.').map_or("", |(_, kind)| kind);
    let mut letters = kind.chars();
    letters.next().map_or(String::new(), |first| {
        first.to_ascii_uppercase().to_string() + letters.as_str()
    })
}

impl Known {
    fn from_image(image: &Image) -> Known {
        for folder in FOLDERS {
            let mut names = image.names(folder);
            names.retain(|name| name == "systemd" || name.starts_with("libsystemd-core-"));
            for name in names {
                let keys = keys_of(image, &format!("{folder}/{name}"));
                if keys
                    .get("Service")
                    .is_some_and(|keys| keys.contains("ExecStart"))
                {
                    return Known::Exactly(keys);
                }
            }
        }
        Known::About(KEYS.lines().map(str::to_owned).collect())
    }

    /// Whether systemd ignores a key, with a similar known key; `None` if unknown.
    fn judge(&self, section: &str, key: &str) -> Option<(bool, Option<&str>)> {
        let near = |keys: &'_ BTreeSet<String>| {
            let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
            nearest(key, &keys).map(str::to_owned)
        };
        match self {
            Known::Exactly(sections) => {
                let keys = sections.get(section)?;
                let found = near(keys).and_then(|near| keys.get(&near));
                Some((!keys.contains(key), found.map(String::as_str)))
            }
            Known::About(keys) if keys.contains(key) => None,
            // A newer systemd may know the key, unless it resembles a known key.
            Known::About(keys) => near(keys)
                .and_then(|near| keys.get(&near))
                .map(|near| (true, Some(near.as_str()))),
        }
    }
}

/// Systemd's code holds each key as a string `Section.Key`, with a NUL on both sides
/// (src/core/load-fragment-gperf).
fn keys_of(image: &Image, path: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut out: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let content =
        image
            .tree
            .resolve(path.as_bytes())
            .and_then(|id| match &image.tree.node(id).kind {
                Kind::File(content) => content.to_vec(PROGRAM_LIMIT).ok(),
                _ => None,
            });
    let is_word = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_uppercase())
            && text.bytes().all(|b| b.is_ascii_alphanumeric())
    };
    for text in content
        .unwrap_or_default()
        .split(|b| *b == 0)
        .filter(|text| (3..80).contains(&text.len()))
    {
        if let Some((section, key)) = std::str::from_utf8(text)
            .ok()
            .and_then(|text| text.split_once('.'))
            && is_word(section)
            && is_word(key)
        {
            out.entry(section.to_owned())
                .or_default()
                .insert(key.to_owned());
        }
    }
    out
}
