//! Checks on the finished tree.
//!
//! They do not prove that a server will work. They report known faults before deployment. A fault
//! that makes the image useless is an error. A fault of one service, or an uncertain one, is a
//! warning.

mod accounts;
mod devices;
mod elf;
mod fault;
mod fstab;
mod libraries;
mod login;
mod mount_points;
mod program;
#[cfg(test)]
mod samples;
mod script;
mod scripts;
mod seal;
mod services;
mod start;
#[cfg(test)]
mod tests;
mod unit;
mod unit_mounts;
mod unit_programs;
mod unit_settings;
mod units;
mod volumes;
mod writable;

use std::collections::BTreeMap;

use crate::definition::Definition;
use crate::tree::{Kind, NodeId, Tree, parts, show};

/// A fault that the operator should know before deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Whether the image cannot work.
    pub is_error: bool,
    /// Name of the rule.
    pub rule: &'static str,
    /// The fault, in one sentence.
    pub message: String,
    /// The remedy, usually lines for image.toml.
    pub hint: String,
}

/// The finished tree and its definition.
struct Image<'a> {
    tree: &'a Tree,
    definition: &'a Definition,
}

/// Maximum size of a configuration file or unit, bytes.
const TEXT_LIMIT: u64 = 1 << 20;
/// Maximum number of names in a message; the rest is counted.
const NAMED: usize = 5;
/// The search path of systemd, shells and env for programs.
const PATH: [&str; 6] = [
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
];
/// Where the agent mounts another file system before it starts init.
const MOUNTED_OVER: [&str; 5] = ["/proc", "/sys", "/dev", "/run", "/tmp"];

/// Runs all checks. Errors come first.
pub fn check(tree: &Tree, definition: &Definition) -> Vec<Finding> {
    let image = Image { tree, definition };
    let programs = program::Programs::new(&image);
    let mut findings = start::check(&image, &programs);
    findings.extend(mount_points::check(&image));
    findings.extend(seal::check(&image));
    findings.extend(volumes::check(&image));
    findings.extend(links_that_leave(&image));
    findings.extend(scripts::check(&image));
    let has_systemd = crate::rootfs::scrub::has_systemd(tree);
    let units = if has_systemd {
        units::Units::read(&image)
    } else {
        units::Units::default()
    };
    let lines = fstab::read(&image);
    let mut devices = devices::Devices::new(&image);
    let before = writable::Writable::new(&image, &units, &lines, &devices);
    findings.extend(fstab::check_crypttab(&image, &mut devices, |path| {
        before.holds(path)
    }));
    let writable = writable::Writable::new(&image, &units, &lines, &devices);
    findings.extend(fstab::check(
        &image,
        &lines,
        has_systemd.then_some(&units),
        &writable,
        &devices,
    ));
    if has_systemd {
        findings.extend(units.check_missing());
        findings.extend(units.check(&image, &writable));
        findings.extend(unit_settings::check(&image, &units));
        findings.extend(unit_programs::check(&image, &units, &writable, &programs));
        findings.extend(unit_mounts::check(&image, &units, &writable, &devices));
        findings.extend(accounts::check(&image, &units, &writable));
        findings.extend(services::check(&image, &units, &writable));
        findings.extend(login::check(&image, &units, &writable));
    }
    findings.sort_by_key(|finding| !finding.is_error);
    findings
}

impl Image<'_> {
    /// The text of a file, following links; empty if there is none.
    fn text(&self, path: &str) -> Option<String> {
        let id = self.tree.resolve(path.as_bytes())?;
        self.text_of(id)
    }

    fn text_of(&self, id: NodeId) -> Option<String> {
        match &self.tree.node(id).kind {
            Kind::File(content) => content
                .to_vec(TEXT_LIMIT)
                .ok()
                .map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
            _ => None,
        }
    }

    fn exists(&self, path: &str) -> bool {
        self.tree.resolve(path.as_bytes()).is_some()
    }

    /// Whether an entry with this name exists, whatever its target.
    fn is_named(&self, path: &str) -> bool {
        let Some((folder, name)) = path.rsplit_once('/') else {
            return false;
        };
        self.tree.resolve(folder.as_bytes()).is_some_and(|id| {
            self.tree
                .children(id)
                .any(|(child, _)| child == name.as_bytes())
        })
    }

    fn is_directory(&self, path: &str) -> bool {
        self.tree.is_directory(path.as_bytes())
    }

    /// Paths of the `.conf` files in `folders`, highest priority first, sorted by file name. A file
    /// hides files of the same name in later directories.
    fn configuration_files(&self, folders: &[&str]) -> Vec<String> {
        let mut files: BTreeMap<String, String> = BTreeMap::new();
        for folder in folders {
            for name in self.names(folder) {
                if name.ends_with(".conf") {
                    let path = format!("{folder}/{name}");
                    files.entry(name).or_insert(path);
                }
            }
        }
        files.into_values().collect()
    }

    /// Names in a directory, following links. Names that are not UTF-8 are skipped.
    fn names(&self, path: &str) -> Vec<String> {
        let Some(id) = self.tree.resolve(path.as_bytes()) else {
            return Vec::new();
        };
        self.tree
            .children(id)
            .filter_map(|(name, _)| String::from_utf8(name.to_vec()).ok())
            .collect()
    }
}

/// Relative links with more `..` than parent directories. In the image they stop at the root, but a
/// tool that unpacks or mounts the image elsewhere follows them out of it.
fn links_that_leave(image: &Image) -> Option<Finding> {
    let mut leaving = Vec::new();
    image.tree.visit(&mut |path, id| {
        if let Kind::Symlink(target) = &image.tree.node(id).kind
            && leaves(path, target)
        {
            leaving.push(format!("{} -> {}", show(path), show(target)));
        }
    });
    let first = leaving
        .first()?
        .split(" -> ")
        .next()
        .unwrap_or_default()
        .to_owned();
    Some(Finding {
        is_error: false,
        rule: "link-leaves-image",
        message: format!("symbolic links lead out of the image: {}", listed(&leaving)),
        hint: format!(
            "give them a target inside the image, for example [[file]] path = {first:?}, link = \"...\"; or absent = true"
        ),
    })
}

fn leaves(path: &[u8], target: &[u8]) -> bool {
    if target.starts_with(b"/") {
        return false;
    }
    let mut depth = parts(path).count().saturating_sub(1);
    for part in parts(target) {
        match part {
            b"." => {}
            b".." if depth == 0 => return true,
            b".." => depth -= 1,
            _ => depth += 1,
        }
    }
    false
}

/// The lines of a configuration file without white space around them, except comments (`#`).
fn setting_lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.starts_with('#'))
}

/// The first names of a list, and the number of the others.
fn listed(all: &[String]) -> String {
    let more = if all.len() > NAMED {
        format!(" and {} more", all.len() - NAMED)
    } else {
        String::new()
    };
    format!("{}{more}", all[..all.len().min(NAMED)].join(", "))
}
