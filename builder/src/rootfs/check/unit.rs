//! One systemd unit: its file, its drop-ins and its settings (systemd.unit(5), systemd.syntax(7)).

use std::collections::BTreeMap;

use super::Image;
use super::writable::Writable;
use crate::tree::{Kind, LinkPolicy, ResolveError, parts, show};

/// Directories of units, highest priority first.
pub const FOLDERS: [&str; 4] = [
    "/etc/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// A line of a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The section, without brackets; empty before the first section.
    pub section: String,
    /// The key before the `=`.
    pub key: String,
    /// The value after the `=`.
    pub value: String,
    /// The file of the line: an index of [`Unit::files`].
    pub file: usize,
}

/// A unit with its drop-ins.
#[derive(Debug)]
pub struct Unit {
    /// The unit's file, then its drop-ins in order.
    pub files: Vec<String>,
    settings: Vec<Setting>,
}

/// The result of a unit lookup.
pub enum Lookup {
    /// A unit.
    Unit(Unit),
    /// An alias of this unit.
    Alias(String),
    /// A masked unit: a link to /dev/null or an empty file.
    Masked,
    /// No file of this name, or a dangling symbolic link.
    Missing,
}

/// The entry at one path.
enum UnitFile {
    Absent,
    Null,
    /// The resolved path, and the text.
    Text(String, String),
}

/// Reads a unit by name; `getty@tty1.service` is an instance of `getty@.service`.
pub fn look_up(image: &Image, name: &str) -> Lookup {
    if name.contains('/') {
        return Lookup::Missing;
    }
    let template = template_of(name);
    for candidate in std::iter::once(name).chain(template.as_deref()) {
        for folder in FOLDERS {
            let path = format!("{folder}/{candidate}");
            match file_at(image, &path) {
                UnitFile::Absent => {}
                UnitFile::Null => return Lookup::Masked,
                UnitFile::Text(_, text) if text.trim().is_empty() => return Lookup::Masked,
                UnitFile::Text(end, text) => {
                    if let Some(alias) = other_name(name, candidate, &end) {
                        return Lookup::Alias(alias);
                    }
                    return Lookup::Unit(Unit::new(image, name, template.as_deref(), (path, text)));
                }
            }
        }
    }
    Lookup::Missing
}

/// `stem@.service` for `stem@instance.service`.
pub fn template_of(name: &str) -> Option<String> {
    let (stem, rest) = name.split_once('@')?;
    let (instance, kind) = rest.rsplit_once('.')?;
    (!instance.is_empty()).then(|| format!("{stem}@.{kind}"))
}

/// The name of the target of an alias, as an instance if the link belongs to a template.
fn other_name(name: &str, candidate: &str, end: &str) -> Option<String> {
    let real = end.rsplit('/').next().unwrap_or_default();
    let kind = |name: &str| name.rsplit_once('.').map(|(_, kind)| kind.to_owned());
    if real == candidate || kind(real) != kind(candidate) {
        return None;
    }
    let instance = name
        .split_once('@')
        .and_then(|(_, rest)| rest.rsplit_once('.'))
        .map_or("", |(instance, _)| instance);
    match real.split_once("@.") {
        Some((stem, kind)) if !instance.is_empty() => Some(format!("{stem}@{instance}.{kind}")),
        _ => Some(real.to_owned()),
    }
}

fn file_at(image: &Image, path: &str) -> UnitFile {
    match image
        .tree
        .follow(parts(path.as_bytes()), &mut |_| LinkPolicy::Follow)
    {
        Err(ResolveError::Loop | ResolveError::Refused(_)) => UnitFile::Absent,
        Ok(end) if end.path() == b"dev/null" => UnitFile::Null,
        Ok(end) => match end.node() {
            None => UnitFile::Absent,
            Some(id) => match (&image.tree.node(id).kind, image.text_of(id)) {
                (Kind::File(_), Some(text)) => {
                    UnitFile::Text(format!("/{}", show(&end.path())), text)
                }
                (Kind::CharDevice { .. }, _) => UnitFile::Null,
                _ => UnitFile::Absent,
            },
        },
    }
}

impl Unit {
    fn new(
        image: &Image,
        name: &str,
        template: Option<&str>,
        (path, text): (String, String),
    ) -> Unit {
        let mut unit = Unit {
            files: Vec::new(),
            settings: Vec::new(),
        };
        unit.add(path, &text);
        // Of drop-ins with the same name, the one in the directory with the highest priority
        // counts. All are read in the order of their names.
        let kind = name.rsplit_once('.').map_or("", |(_, kind)| kind);
        let mut drop_ins: BTreeMap<String, String> = BTreeMap::new();
        for owner in [Some(name), template, Some(kind)].into_iter().flatten() {
            for folder in FOLDERS {
                let folder = format!("{folder}/{owner}.d");
                for file in image
                    .names(&folder)
                    .into_iter()
                    .filter(|file| file.ends_with(".conf"))
                {
                    drop_ins
                        .entry(file.clone())
                        .or_insert_with(|| format!("{folder}/{file}"));
                }
            }
        }
        for path in drop_ins.into_values() {
            if let UnitFile::Text(_, text) = file_at(image, &path) {
                unit.add(path, &text);
            }
        }
        unit
    }

    fn add(&mut self, path: String, text: &str) {
        let file = self.files.len();
        self.files.push(path);
        self.settings.extend(
            parse(text)
                .into_iter()
                .map(|(section, key, value)| Setting {
                    section,
                    key,
                    value,
                    file,
                }),
        );
    }

    /// All lines, in order.
    pub fn settings(&self) -> &[Setting] {
        &self.settings
    }

    /// All values of a key; an empty value clears the earlier ones.
    pub fn values<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        let reset = self
            .settings
            .iter()
            .rposition(|setting| setting.key == key && setting.value.is_empty())
            .map_or(0, |at| at + 1);
        self.settings[reset..]
            .iter()
            .filter(move |setting| setting.key == key)
            .map(|setting| setting.value.as_str())
    }

    /// The words of all values of a key.
    pub fn words<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.values(key).flat_map(str::split_whitespace)
    }

    /// The last value of a key.
    pub fn last<'a>(&'a self, key: &'a str) -> Option<&'a str> {
        self.values(key).last()
    }

    /// Whether a boolean setting is on.
    pub fn is_on(&self, key: &str) -> bool {
        self.last(key).is_some_and(|value| {
            ["1", "yes", "y", "true", "t", "on"]
                .iter()
                .any(|on| value.eq_ignore_ascii_case(on))
        })
    }

    /// Whether a condition prevents its start on this image, so that it cannot fail.
    pub fn is_skipped(&self, image: &Image, writable: &Writable) -> bool {
        let mut triggers = Vec::new();
        for setting in self
            .settings
            .iter()
            .filter(|setting| setting.section == "Unit")
        {
            let Some(what) = setting.key.strip_prefix("Condition") else {
                continue;
            };
            let (is_trigger, text) = match setting.value.strip_prefix('|') {
                Some(rest) => (true, rest.trim_start()),
                None => (false, setting.value.as_str()),
            };
            let (is_negated, path) = text
                .strip_prefix('!')
                .map_or((false, text), |rest| (true, rest.trim_start()));
            let holds = condition(image, writable, what, path).map(|holds| holds != is_negated);
            match is_trigger {
                true => triggers.push(holds),
                false if holds == Some(false) => return true,
                false => {}
            }
        }
        !triggers.is_empty() && triggers.iter().all(|holds| *holds == Some(false))
    }
}

/// Whether a condition about a path is true; `None` if it depends on the running machine.
fn condition(image: &Image, writable: &Writable, what: &str, path: &str) -> Option<bool> {
    if !path.starts_with('/') || path.contains(['%', '*', '?']) {
        return None;
    }
    if what == "PathIsReadWrite" {
        return Some(writable.holds(path));
    }
    // A path that is neither in the image nor in a writable directory does not exist.
    if writable.holds(path) {
        return None;
    }
    let id = image.tree.resolve(path.as_bytes());
    let file = id.and_then(|id| match &image.tree.node(id).kind {
        Kind::File(content) => Some((content, image.tree.node(id).meta.mode)),
        _ => None,
    });
    match what {
        "PathExists" => Some(id.is_some()),
        "PathIsDirectory" => Some(image.is_directory(path)),
        "FileNotEmpty" => Some(file.is_some_and(|(content, _)| !content.is_empty())),
        "FileIsExecutable" => Some(file.is_some_and(|(_, mode)| mode & 0o111 != 0)),
        "DirectoryNotEmpty" => Some(id.is_some_and(|id| image.tree.children(id).next().is_some())),
        _ => None,
    }
}

/// Section, key and value of each line. A backslash at the end joins the next line; comments may be
/// in between.
fn parse(text: &str) -> Vec<(String, String, String)> {
    let mut out = Vec::new();
    let mut section = String::new();
    let mut joined = String::new();
    let mut lines = text.trim_start_matches('\u{feff}').lines().peekable();
    while let Some(line) = lines.next() {
        let line = line.trim_start();
        if line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(start) = line
            .trim_end()
            .strip_suffix('\\')
            .filter(|_| lines.peek().is_some())
        {
            joined.push_str(start);
            joined.push(' ');
            continue;
        }
        joined.push_str(line);
        let line = std::mem::take(&mut joined);
        let line = line.trim();
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            section = name.to_owned();
        } else if let Some((key, value)) = line.split_once('=') {
            out.push((
                section.clone(),
                key.trim().to_owned(),
                value.trim().to_owned(),
            ));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_with_sections_continuations_and_comments() {
        let text = "Early=1\n[Unit]\nDescription = a b \\\n# between\n ; too\n   c\n\n[Service]\r\nExecStart=/bin/a\r\n#Type=x\nEnvironment=\"A=b\"\nTail=x\\";
        let read: Vec<_> = parse(text)
            .into_iter()
            .map(|(section, key, value)| format!("{section}.{key}:{value}"))
            .collect();
        assert_eq!(
            read,
            [
                ".Early:1",
                "Unit.Description:a b  c",
                "Service.ExecStart:/bin/a",
                "Service.Environment:\"A=b\"",
                "Service.Tail:x\\"
            ]
        );
    }

    #[test]
    fn names_of_templates_and_aliases_keep_the_instance() {
        assert_eq!(
            template_of("getty@tty1.service").as_deref(),
            Some("getty@.service")
        );
        assert_eq!(
            (template_of("getty@.service"), template_of("a.service")),
            (None, None)
        );
        assert_eq!(
            other_name(
                "autovt@tty1.service",
                "autovt@.service",
                "/lib/getty@.service"
            )
            .as_deref(),
            Some("getty@tty1.service")
        );
        assert_eq!(
            other_name("default.target", "default.target", "/lib/graphical.target").as_deref(),
            Some("graphical.target")
        );
        assert_eq!(other_name("a.service", "a.service", "/opt/a.service"), None);
        assert_eq!(other_name("a.service", "a.service", "/nix/store/x"), None);
    }
}
