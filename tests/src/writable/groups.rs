//! The groups of `tests/writable/groups.toml`.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::writable::found::{Answer, Found};
use crate::writable::pattern::Pattern;

/// What root gains from a group of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The kernel refuses to open the files for writing.
    Refused,
    /// Root can write, and that changes nothing that the seal promises.
    Harmless,
    /// Root can write, and can stop, slow down or misconfigure the running server with it.
    Allowed,
    /// Root can write, and should not be able to.
    Open,
}

impl Verdict {
    /// Its name in the tables.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Refused => "refused",
            Verdict::Harmless => "harmless",
            Verdict::Allowed => "allowed",
            Verdict::Open => "open",
        }
    }

    /// Whether the kernel's answer is what the verdict says.
    fn expects(self, answer: &Answer) -> bool {
        (self == Verdict::Refused) == (*answer == Answer::Refused)
    }
}

/// A section of the document.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Area {
    /// The heading.
    pub name: String,
    /// Its groups. A file belongs to the first group with a pattern that matches its path.
    pub group: Vec<Group>,
}

/// Files with one verdict for one reason.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// The heading: what the files are.
    pub name: String,
    /// What root gains.
    pub verdict: Verdict,
    /// Who refuses, and for whom it makes an exception.
    pub by: Option<String>,
    /// The reason.
    pub reason: String,
    /// Whether patterns may leave the name of the file open.
    #[serde(default)]
    pub any_name: bool,
    /// Patterns of paths, as they are written.
    pub paths: Vec<String>,
}

/// A file that contradicts the groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// No group has it.
    New(String),
    /// The kernel's answer is not the verdict of its group.
    Other(String, String),
}

/// All groups.
#[derive(Debug, Clone)]
pub struct Groups {
    /// In the order of the file.
    pub areas: Vec<Area>,
    /// The patterns, with the indices of area and group, in the order of the file.
    patterns: Vec<(Pattern, usize, usize)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GroupsFile {
    area: Vec<Area>,
}

/// A fault of the file.
#[derive(Debug, thiserror::Error)]
pub enum GroupsError {
    /// It can't be read.
    #[error("{path}: {1}", path = .0.display())]
    Unreadable(PathBuf, #[source] std::io::Error),
    /// It has another structure.
    #[error("groups.toml: {0}")]
    Malformed(#[from] toml::de::Error),
    /// A group without a text.
    #[error("group {0:?}: it has no name, reason or path")]
    NoText(String),
    /// A verdict `refused` without `by`, or another verdict with it.
    #[error("group {0:?}: write `by` if the verdict is `refused`, and only then")]
    Refuser(String),
    /// A pattern with a brace that has no counterpart.
    #[error("group {0:?}: {1:?}: a brace has no counterpart")]
    Brace(String, String),
    /// A pattern that would accept new files.
    #[error("group {0:?}: {1:?}: write the file's name without `*`, or set `any_name = true`")]
    OpenName(String, String),
}

impl Groups {
    /// Reads `groups.toml` in this directory.
    pub fn load(directory: &Path) -> Result<Groups, GroupsError> {
        let path = directory.join("groups.toml");
        let text =
            std::fs::read_to_string(&path).map_err(|error| GroupsError::Unreadable(path, error))?;
        Groups::parse(&text)
    }

    /// Reads the groups from a text.
    pub fn parse(text: &str) -> Result<Groups, GroupsError> {
        let areas = toml::from_str::<GroupsFile>(text)?.area;
        let mut patterns = Vec::new();
        for (at_area, area) in areas.iter().enumerate() {
            for (at_group, group) in area.group.iter().enumerate() {
                let name = || group.name.clone();
                if [&group.name, &group.reason].map(|text| text.trim().is_empty()) != [false; 2]
                    || group.paths.is_empty()
                {
                    return Err(GroupsError::NoText(name()));
                }
                if (group.verdict == Verdict::Refused) != group.by.is_some() {
                    return Err(GroupsError::Refuser(name()));
                }
                for path in &group.paths {
                    let parsed = Pattern::parse(path)
                        .ok_or_else(|| GroupsError::Brace(name(), path.clone()))?;
                    for pattern in parsed {
                        if !group.any_name && !pattern.names_the_file() {
                            return Err(GroupsError::OpenName(name(), path.clone()));
                        }
                        patterns.push((pattern, at_area, at_group));
                    }
                }
            }
        }
        Ok(Groups { areas, patterns })
    }

    /// The indices of area and group that a path belongs to.
    pub fn group_of(&self, path: &str) -> Option<(usize, usize)> {
        let (_, area, group) =
            (self.patterns.iter()).find(|(pattern, ..)| pattern.matches(path))?;
        Some((*area, *group))
    }

    /// The files that contradict the groups.
    pub fn faults(&self, found: &[Found]) -> Vec<Fault> {
        let mut faults = Vec::new();
        for file in found {
            match self.group_of(&file.path) {
                None => faults.push(Fault::New(file.to_string())),
                Some((area, group)) => {
                    let group = &self.areas[area].group[group];
                    if !group.verdict.expects(&file.answer) {
                        faults.push(Fault::Other(file.to_string(), group.name.clone()));
                    }
                }
            }
        }
        faults
    }

    /// The paths, as they are written, that match no file.
    pub fn unused<'a>(&'a self, found: &[Found]) -> Vec<&'a str> {
        let groups = self.areas.iter().flat_map(|area| &area.group);
        let paths = groups.flat_map(|group| &group.paths);
        let unused = paths.filter(|path| {
            let patterns = Pattern::parse(path).unwrap_or_default();
            let matches = |file: &Found| patterns.iter().any(|one| one.matches(&file.path));
            !found.iter().any(matches)
        });
        unused.map(String::as_str).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::writable::found::parse;

    fn groups(paths: &str) -> Result<Groups, String> {
        Groups::parse(&format!(
            "[[area]]\nname = \"a\"\n[[area.group]]\nname = \"first\"\nverdict = \"refused\"\nby = \"the guard\"\nreason = \"r\"\npaths = [{paths}]\n\
             [[area.group]]\nname = \"second\"\nverdict = \"harmless\"\nreason = \"r\"\npaths = [\"/sys/**/power\"]\n"
        ))
        .map_err(|error| error.to_string())
    }

    #[test]
    fn a_new_file_and_another_answer_are_faults() {
        let groups = groups("\"/sys/{a,b}/power\"").unwrap();
        let found = parse(
            "EPERM\tf\t1\t/sys/a/power\nopen\tf\t1\t/sys/b/power\nEIO\tf\t1\t/sys/c/power\n\
             EACCES\tf\t1\t/sys/d/power\nopen\tf\t1\t/sys/new\nentries\t5\n",
        )
        .unwrap();
        assert_eq!(
            groups.faults(&found),
            [
                Fault::Other("open f 1 /sys/b/power".to_owned(), "first".to_owned()),
                Fault::Other("EACCES f 1 /sys/d/power".to_owned(), "second".to_owned()),
                Fault::New("open f 1 /sys/new".to_owned()),
            ]
        );
        assert_eq!(groups.unused(&found), [""; 0]);
        assert_eq!(groups.unused(&found[3..4]), ["/sys/{a,b}/power"]);
    }

    #[test]
    fn refuses_patterns_that_would_accept_new_files() {
        for (paths, expected) in [
            ("\"/sys/a/*\"", "without `*`"),
            ("\"/sys/{a\"", "no counterpart"),
            ("", "no name, reason or path"),
        ] {
            let error = groups(paths).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
