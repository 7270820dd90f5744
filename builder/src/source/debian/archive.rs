//! The package archives of a source: their suites, and the state of each by its Release file.
//! Release files only provide dates and digests, to know whether a cache entry is current. apt
//! checks their signatures when it installs packages.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::fetch::{Answer, fetch, without_password};
use super::release::Release;
use super::suites::{missing, warnings};
use crate::definition::Debian;
use crate::definition::mirror::{Mirror, MirrorSuite};
use crate::error::{Error, Result};
use crate::manifest;

/// Debian's own mirror network.
pub(super) const MIRROR: &str = "http://deb.debian.org/debian";
pub(super) const SECURITY: &str = "http://security.debian.org/debian-security";
const SNAPSHOT: &str = "http://snapshot.debian.org/archive";
/// Suites without update and security suites.
pub(super) const ROLLING: [&str; 4] = ["sid", "unstable", "experimental", "rc-buggy"];
/// Name endings of suites that extend another suite.
pub(super) const ADDITIONS: [&str; 6] = [
    "-updates",
    "-security",
    "-backports",
    "-proposed",
    "-proposed-updates",
    "/updates",
];
/// Maximum size of a Release file. InRelease files have about 200 KB; the Packages file of a small
/// archive without a Release file may be larger.
const LIMIT: u64 = 16 << 20;

/// The state of the archives: it determines the packages that a build gets.
#[derive(Debug, Clone)]
pub struct ArchiveState {
    /// Digest of all Release files.
    pub digest: [u8; 32],
    /// The newest file's `Date`, seconds since 1970.
    pub date: i64,
    /// `deb` lines for mmdebstrap.
    pub lines: Vec<String>,
    /// deb822 stanzas for mmdebstrap.
    pub stanzas: Vec<String>,
    /// For the manifest and for messages.
    pub archive: Archive,
    /// The suites that exist.
    pub suites: Vec<Suite>,
}

/// The archives of a source, for the manifest and for messages.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Archive {
    /// Suites with their dates.
    pub suites: Vec<manifest::SuiteRecord>,
    /// Warnings for the operator.
    pub warnings: Vec<Warning>,
}

/// A suite that is missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// The missing suite, its archive, and the consequence.
    pub message: String,
    /// The remedy.
    pub remedy: String,
}

/// Why the state of the archives is unknown.
#[derive(Debug)]
pub enum Failure {
    /// An archive is unreachable: packages of an earlier build can be used.
    Unreachable(Error),
    /// The definition names something that the archives do not have.
    Refused(Error),
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Error {
        match failure {
            Failure::Unreachable(error) | Failure::Refused(error) => error,
        }
    }
}

/// One suite of one archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suite {
    /// Address of the archive.
    pub uri: String,
    /// Name.
    pub name: String,
    /// Components in use.
    pub components: Vec<String>,
    /// Its Release file.
    pub release: Release,
    pub(super) expires: bool,
}

impl Suite {
    /// Address of the directory of its Release file.
    pub fn folder(&self) -> String {
        folder(&self.uri, &self.name)
    }
}

pub(super) fn folder(uri: &str, name: &str) -> String {
    match name.strip_suffix('/') {
        Some(path) => format!("{uri}/{path}"),
        None => format!("{uri}/dists/{name}"),
    }
}

/// Why a suite is requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SuiteRole {
    /// A line or stanza names it.
    Named,
    /// The suite of the definition, from the archive with this number.
    Base(usize),
    Updates(usize),
    Security(usize),
}

/// A suite to request from an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) entry: MirrorSuite,
    pub(super) role: SuiteRole,
}

/// The archives to ask for the suites of one address of the definition, or Debian's own archives.
fn candidates(debian: &Debian) -> Vec<Candidate> {
    let suite = &debian.suite;
    let has_additions = !ROLLING.contains(&suite.as_str())
        && !ADDITIONS.iter().any(|ending| suite.ends_with(ending));
    let mut all = Vec::new();
    let mut add = |uri: &str, name: String, role: SuiteRole, expires: bool| {
        let components = debian.components.clone();
        let entry = MirrorSuite {
            uri: uri.to_owned(),
            suite: name,
            components,
            is_trusted: false,
            expires,
            signed_by: Vec::new(),
        };
        all.push(Candidate { entry, role });
    };
    let mut archive = |number: usize, uri: &str, security: &[&str], expires: bool| {
        add(uri, suite.clone(), SuiteRole::Base(number), expires);
        if has_additions {
            add(
                uri,
                format!("{suite}-updates"),
                SuiteRole::Updates(number),
                expires,
            );
            security.iter().for_each(|uri| {
                add(
                    uri,
                    format!("{suite}-security"),
                    SuiteRole::Security(number),
                    expires,
                )
            });
        }
    };
    if let Some(at) = &debian.snapshot {
        // The Release files of a snapshot are as old as the snapshot, so their expiry is not
        // checked.
        archive(
            0,
            &format!("{SNAPSHOT}/debian/{at}"),
            &[&format!("{SNAPSHOT}/debian-security/{at}")],
            false,
        );
    } else if debian.mirrors.is_empty() {
        archive(0, MIRROR, &[SECURITY], true);
    }
    for (number, mirror) in debian.mirrors.iter().enumerate() {
        if let Mirror::Address(uri) = mirror {
            // Debian has a separate archive for security suites; other distributions use the same
            // archive.
            let beside = uri
                .strip_suffix("/debian")
                .map(|parent| format!("{parent}/debian-security"));
            let security: Vec<&str> = beside
                .as_deref()
                .into_iter()
                .chain([uri.as_str()])
                .collect();
            archive(number, uri, &security, true);
        }
    }
    let named = debian
        .mirrors
        .iter()
        .flat_map(Mirror::entries)
        .map(|entry| {
            let suite = entry.suite.replace("$(ARCH)", &debian.architecture);
            Candidate {
                entry: MirrorSuite {
                    suite,
                    ..entry.clone()
                },
                role: SuiteRole::Named,
            }
        });
    all.extend(named);
    all
}

/// A file of a suite that changes with its packages: the Release file or a replacement.
pub(super) type FoundRelease = Option<(Vec<u8>, Release)>;

/// Downloads the Release file of a suite.
pub(super) fn fetch_release(entry: &MirrorSuite, proxy: Option<&str>) -> Result<FoundRelease> {
    let folder = folder(&entry.uri, &entry.suite);
    for name in ["InRelease", "Release"] {
        if let Answer::Bytes(bytes) = fetch(&format!("{folder}/{name}"), proxy, LIMIT)? {
            let release = Release::parse(&bytes);
            return Ok(Some((bytes, release)));
        }
    }
    if entry.is_trusted && entry.suite.ends_with('/') {
        for name in ["Packages", "Packages.xz", "Packages.gz"] {
            if let Answer::Bytes(bytes) = fetch(&format!("{folder}/{name}"), proxy, LIMIT)? {
                return Ok(Some((bytes, Release::default())));
            }
        }
    }
    Ok(None)
}

/// Reads the state of all suites of a source.
pub fn state(debian: &Debian) -> Result<ArchiveState, Failure> {
    let candidates = candidates(debian);
    let mut answers: Vec<Result<FoundRelease>> = Vec::new();
    // All in parallel: each waits for the network.
    std::thread::scope(|scope| {
        let threads: Vec<_> = candidates
            .iter()
            .map(|candidate| {
                scope.spawn(|| fetch_release(&candidate.entry, debian.proxy.as_deref()))
            })
            .collect();
        answers.extend(threads.into_iter().map(|thread| {
            thread
                .join()
                .unwrap_or_else(|_| Err(Error::new("reading the state of the archive failed")))
        }));
    });
    let answers = answers
        .into_iter()
        .collect::<Result<Vec<_>>>()
        .map_err(Failure::Unreachable)?;
    let found = choose(candidates.into_iter().zip(answers).collect());
    if let Some(error) = missing(debian, &found) {
        return Err(Failure::Refused(error));
    }
    let warnings = warnings(debian, &found);
    let (mut digest, mut date) = (Sha256::new(), None);
    let mut suites = Vec::new();
    for (Candidate { entry, .. }, answer) in found {
        let Some((bytes, release)) = answer else {
            continue;
        };
        digest.update(format!("{} {}\0{}\0", entry.uri, entry.suite, bytes.len()));
        digest.update(&bytes);
        date = date.max(release.date);
        suites.push(Suite {
            uri: entry.uri,
            name: entry.suite,
            components: entry.components,
            release,
            expires: entry.expires,
        });
    }
    let date = date.ok_or_else(|| {
        let names: Vec<&str> = suites.iter().map(|suite| suite.name.as_str()).collect();
        Failure::Refused(
            Error::new(format!(
                "suite {}: no Release file of the archive has a Date ({})",
                debian.suite,
                names.join(", ")
            ))
            .hint("write the archive's Release file with apt-ftparchive, which adds the date"),
        )
    })?;
    let archive = Archive {
        suites: suites
            .iter()
            .map(|s| manifest::SuiteRecord {
                archive: without_password(&s.uri),
                suite: s.name.clone(),
                date: s.release.date,
            })
            .collect(),
        warnings,
    };
    let (lines, stanzas) = written(debian, &suites);
    Ok(ArchiveState {
        digest: digest.finalize().into(),
        date,
        lines,
        stanzas,
        archive,
        suites,
    })
}

/// If several addresses may have a security suite, the first that has it.
fn choose(asked: Vec<(Candidate, FoundRelease)>) -> Vec<(Candidate, FoundRelease)> {
    let mut chosen: Vec<(Candidate, FoundRelease)> = Vec::new();
    for (candidate, answer) in asked {
        let same = chosen.iter_mut().find(|(known, _)| {
            matches!(known.role, SuiteRole::Security(_)) && known.role == candidate.role
        });
        match same {
            Some((_, Some(_))) => {}
            Some(place) if answer.is_some() => *place = (candidate, answer),
            Some(_) => {}
            None => chosen.push((candidate, answer)),
        }
    }
    chosen
}

/// Lines and stanzas for mmdebstrap: one line for each suite of an address; other lines and stanzas
/// as written in the definition. `file:` becomes `copy:`, so that apt copies the packages: dpkg
/// runs in the new root and cannot read files of this machine.
fn written(debian: &Debian, suites: &[Suite]) -> (Vec<String>, Vec<String>) {
    let named: usize = debian
        .mirrors
        .iter()
        .map(|mirror| mirror.entries().count())
        .sum();
    let of_addresses = &suites[..suites.len().saturating_sub(named)];
    let copied = |text: &str| text.replace(" file:/", " copy:/");
    let line = |suite: &Suite| {
        copied(&format!(
            "deb {} {} {}",
            suite.uri,
            suite.name,
            suite.components.join(" ")
        ))
    };
    let mut lines: Vec<String> = of_addresses.iter().map(line).collect();
    let mut stanzas = Vec::new();
    for mirror in &debian.mirrors {
        match mirror {
            Mirror::Address(_) => {}
            Mirror::Lines(own) => lines.extend(own.iter().map(|line| copied(&line.text))),
            Mirror::Stanzas(text, _) => stanzas.push(copied(text)),
        }
    }
    (lines, stanzas)
}

#[cfg(test)]
#[path = "archive_tests.rs"]
pub(super) mod tests;
