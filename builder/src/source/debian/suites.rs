//! Errors and warnings about suites that are missing, expired or incomplete.

use super::archive::{
    ADDITIONS, ArchiveState, Candidate, FoundRelease, MIRROR, ROLLING, SECURITY, Suite, SuiteRole,
    Warning, fetch_release, folder,
};
use super::fetch::{local, without_password};
use crate::definition::mirror::MirrorSuite;
use crate::definition::{Debian, values};
use crate::error::{Error, Result};
use crate::io::clock;

/// Suites to suggest for an unknown name.
const SUITES: [&str; 18] = [
    "trixie",
    "bookworm",
    "bullseye",
    "buster",
    "forky",
    "duke",
    "sid",
    "stable",
    "oldstable",
    "testing",
    "unstable",
    "experimental",
    "focal",
    "jammy",
    "noble",
    "plucky",
    "questing",
    "devel",
];
/// An error if a required suite is missing.
pub(super) fn missing(debian: &Debian, found: &[(Candidate, FoundRelease)]) -> Option<Error> {
    let named = found
        .iter()
        .find(|(candidate, answer)| candidate.role == SuiteRole::Named && answer.is_none());
    if let Some((Candidate { entry, .. }, _)) = named {
        return Some(no_suite(debian, &[entry], &entry.suite));
    }
    let number = |role: SuiteRole| match role {
        SuiteRole::Named => None,
        SuiteRole::Base(number) | SuiteRole::Updates(number) | SuiteRole::Security(number) => {
            Some(number)
        }
    };
    let mut numbers: Vec<usize> = found
        .iter()
        .filter_map(|(candidate, _)| number(candidate.role))
        .collect();
    numbers.dedup();
    let of = |wanted: usize| {
        found
            .iter()
            .filter(move |(candidate, _)| number(candidate.role) == Some(wanted))
    };
    let base = |wanted: usize| {
        of(wanted)
            .find(|(candidate, _)| candidate.role == SuiteRole::Base(wanted))
            .map(|(candidate, _)| &candidate.entry)
    };
    // The address of a security archive alone is valid only beside an archive that has the suite.
    if let Some(nothing) = numbers
        .iter()
        .copied()
        .find(|number| of(*number).all(|(_, answer)| answer.is_none()))
    {
        return Some(no_suite(
            debian,
            &base(nothing).into_iter().collect::<Vec<_>>(),
            &debian.suite,
        ));
    }
    let has_base = found.iter().any(|(candidate, answer)| {
        matches!(candidate.role, SuiteRole::Base(_) | SuiteRole::Named) && answer.is_some()
    });
    (!has_base).then(|| {
        no_suite(
            debian,
            &numbers
                .iter()
                .filter_map(|number| base(*number))
                .collect::<Vec<_>>(),
            &debian.suite,
        )
    })
}

fn no_suite(debian: &Debian, entries: &[&MirrorSuite], name: &str) -> Error {
    let uris: Vec<String> = entries
        .iter()
        .map(|entry| without_password(&entry.uri))
        .collect();
    let error = Error::new(format!(
        "suite {name}: {} has no suite of this name",
        uris.join(" and ")
    ));
    let Some(entry) = entries.first() else {
        return error;
    };
    if let Some(path) = local(&entry.uri).filter(|path| !path.is_dir()) {
        return Error::new(format!(
            "suite {name}: {}: the directory {} does not exist",
            uris.join(" and "),
            path.display()
        ))
        .hint("write the path of the archive's directory, the one that holds dists/");
    }
    if name.ends_with('/') {
        return error.hint(format!("the archive needs the file {}/InRelease or Release; with [trusted=yes] Packages is enough", folder(&entry.uri, name)));
    }
    let has = |near: &&str| {
        fetch_release(
            &MirrorSuite {
                suite: (*near).to_owned(),
                ..(*entry).clone()
            },
            debian.proxy.as_deref(),
        )
        .is_ok_and(|answer| answer.is_some())
    };
    let listed: Vec<String> = local(&entry.uri)
        .and_then(|path| std::fs::read_dir(path.join("dists")).ok())
        .map_or_else(Vec::new, |list| {
            let mut names: Vec<String> = list
                .flatten()
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
                .collect();
            names.sort();
            names
        });
    let known: Vec<&str> = listed.iter().map(String::as_str).chain(SUITES).collect();
    match super::packages::near(name, &known).into_iter().find(has) {
        Some(near) => error.hint(format!("did you mean `{near}`?")),
        None if debian.snapshot.is_some() => error.hint("check the name of the suite, and that it existed at the moment of `snapshot`"),
        None if listed.is_empty() => {
            error.hint(format!("{}/dists/ shows the suites of the archive; very old ones are at http://archive.debian.org/debian", uris[0]))
        }
        None => error.hint(format!("the archive has {}", listed.join(", "))),
    }
}

/// Update and security suites that no archive of the source has.
pub(super) fn warnings(debian: &Debian, found: &[(Candidate, FoundRelease)]) -> Vec<Warning> {
    let suite = &debian.suite;
    let has = |name: &str| {
        found
            .iter()
            .any(|(candidate, answer)| candidate.entry.suite == name && answer.is_some())
    };
    let origin = |name: &str| {
        found.iter().any(|(_, answer)| {
            answer
                .as_ref()
                .is_some_and(|(_, release)| release.origin == name)
        })
    };
    let rolling =
        ROLLING.contains(&suite.as_str()) || ADDITIONS.iter().any(|ending| suite.ends_with(ending));
    // The suites of other distributions are unknown.
    let by_lines = found
        .iter()
        .all(|(candidate, _)| candidate.role == SuiteRole::Named);
    if rolling || by_lines && !(origin("Debian") || origin("Ubuntu")) {
        return Vec::new();
    }
    let asked = |wanted: fn(SuiteRole) -> bool| {
        let mut uris: Vec<String> = found
            .iter()
            .filter(|(candidate, _)| wanted(candidate.role))
            .map(|(candidate, _)| without_password(&candidate.entry.uri))
            .collect();
        if uris.is_empty() {
            uris = found
                .iter()
                .map(|(candidate, _)| without_password(&candidate.entry.uri))
                .collect();
        }
        uris.sort();
        uris.dedup();
        uris.join(" and ")
    };
    let mut warnings = Vec::new();
    let (updates, security) = (format!("{suite}-updates"), format!("{suite}-security"));
    let by_debian = origin("Debian");
    let remedy = |name: &str, example: &str| match by_lines {
        true => format!("add a line or stanza for {name} to `mirrors`{example}"),
        false => format!("add the address of an archive that has {name} to `mirrors`{example}"),
    };
    if !has(&security) && !has(&format!("{suite}/updates")) {
        let example = if by_debian {
            format!(", for example {SECURITY}")
        } else {
            String::new()
        };
        let place = asked(|role| matches!(role, SuiteRole::Security(_)));
        let message = format!(
            "suite {security}: {place} does not have it, so the image gets no security updates"
        );
        let remedy = if debian.mirrors.is_empty() {
            "use another suite for servers".to_owned()
        } else {
            remedy(&security, &example)
        };
        warnings.push(Warning { message, remedy });
    }
    if !has(&updates) {
        let example = if by_debian {
            format!(", for example {MIRROR}")
        } else {
            String::new()
        };
        let place = asked(|role| matches!(role, SuiteRole::Updates(_)));
        let message = format!(
            "suite {updates}: {place} does not have it, so the image gets only the updates of the last release"
        );
        let remedy = if debian.mirrors.is_empty() {
            "use another suite for servers".to_owned()
        } else {
            remedy(&updates, &example)
        };
        warnings.push(Warning { message, remedy });
    }
    warnings
}

impl ArchiveState {
    /// Refuses suites that apt would refuse, or would install differently from the definition.
    pub fn check(&self, debian: &Debian) -> Result<()> {
        let now = clock::now() as i64;
        for suite in &self.suites {
            let uri = without_password(&suite.uri);
            if let Some(until) = suite
                .release
                .valid_until
                .filter(|until| suite.expires && *until < now)
            {
                let line = format!(
                    "deb [check-valid-until=no] {uri} {} {}",
                    suite.name,
                    suite.components.join(" ")
                );
                return Err(Error::new(format!("suite {}: the Release file of {uri} expired at {}", suite.name, values::format_time(until)))
                    .hint(format!("use a mirror that is up to date, or accept this state with mirrors = [\"{line}\"]")));
            }
            let architectures = &suite.release.architectures;
            if !architectures.is_empty() && !architectures.contains(&debian.architecture) {
                return Err(Error::new(format!(
                    "suite {}: {uri} has no architecture {}",
                    suite.name, debian.architecture
                ))
                .hint(format!("it has {}", architectures.join(", "))));
            }
        }
        // An archive of updates may have fewer components than the suite itself.
        let mut components: Vec<&String> = self
            .suites
            .iter()
            .flat_map(|suite| &suite.components)
            .collect();
        components.sort_unstable();
        components.dedup();
        for component in components {
            let of: Vec<&Suite> = self
                .suites
                .iter()
                .filter(|suite| suite.components.contains(component))
                .collect();
            let known: Vec<&str> = of
                .iter()
                .flat_map(|suite| suite.release.components.iter().map(String::as_str))
                .collect();
            if of.iter().all(|suite| !suite.release.components.is_empty())
                && !known.contains(&component.as_str())
            {
                let has = match super::packages::near(component, &known).first() {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("it has {}", of[0].release.components.join(", ")),
                };
                return Err(Error::new(format!(
                    "suite {}: {} has no component {component}",
                    of[0].name,
                    without_password(&of[0].uri)
                ))
                .hint(has));
            }
        }
        Ok(())
    }
}
