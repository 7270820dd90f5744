//! Failures about packages: unknown names and unmet dependencies.

use super::super::archive::ArchiveState;
use super::super::packages::PackageNames;
use super::{Cause, cleaned};
use crate::definition::Debian;

/// Maximum number of packages in one message.
const NAMED: usize = 5;

/// Packages that no package list of the archive has.
pub(super) fn unknown_packages(
    debian: &Debian,
    state: &ArchiveState,
    said: &[String],
) -> Option<Cause> {
    let mut missing: Vec<&str> = said
        .iter()
        .filter_map(|line| {
            let line = line.trim();
            line.strip_prefix("E: Unable to locate package ")
                .or_else(|| {
                    line.strip_prefix("E: Couldn't find any package by glob '")?
                        .strip_suffix('\'')
                })
                .or_else(|| {
                    line.strip_prefix("E: Package '")?
                        .strip_suffix("' has no installation candidate")
                })
                .or_else(|| {
                    line.strip_prefix("E: Couldn't find task '")?
                        .strip_suffix('\'')
                })
        })
        .map(str::trim)
        .collect();
    missing.sort_unstable();
    missing.dedup();
    if missing.is_empty() {
        let version = said
            .iter()
            .find(|line| line.starts_with("E: Version '") || line.starts_with("E: Release '"))?;
        return Some((cleaned(version), "see the versions of the archive with `apt-cache madison PACKAGE`, or leave the version out".to_owned()));
    }
    let proxy = debian.proxy.as_deref();
    let mut names = PackageNames::default();
    let mut components: Vec<&String> = state
        .suites
        .iter()
        .flat_map(|suite| &suite.components)
        .collect();
    components.sort_unstable();
    components.dedup();
    for component in components.iter().map(|component| component.as_str()).chain(
        state
            .suites
            .iter()
            .all(|suite| suite.components.is_empty())
            .then_some(""),
    ) {
        names.add(PackageNames::fetch(
            &state.suites,
            component,
            &debian.architecture,
            proxy,
        ));
    }
    let mut remedies = Vec::new();
    let mut elsewhere: Option<Vec<(String, PackageNames)>> = None;
    for name in missing.iter().take(NAMED) {
        if let Some(instead) = names.instead_of(name) {
            remedies.push(format!("{name}: {instead}"));
            continue;
        }
        // Another component may have the package; its lists are fetched once.
        let others = elsewhere.get_or_insert_with(|| other_components(debian, state));
        if let Some((component, _)) = others.iter().find(|(_, names)| names.contains(name)) {
            remedies.push(format!("{name}: add \"{component}\" to `components`"));
        } else if let Some((_, instead)) = others
            .iter()
            .find_map(|(component, names)| Some((component, names.instead_of(name)?)))
        {
            remedies.push(format!("{name}: {instead}"));
        } else {
            remedies.push(format!(
                "{name}: search the archive with `apt-cache search`, or remove it from `packages`"
            ));
        }
    }
    let shown: Vec<String> = missing
        .iter()
        .take(NAMED)
        .map(|name| format!("`{name}`"))
        .collect();
    let more = missing.len().saturating_sub(NAMED);
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    let what = if missing.len() == 1 {
        "package"
    } else {
        "packages"
    };
    let verb = if missing.len() == 1 { "does" } else { "do" };
    Some((
        format!(
            "{what} {}{more} {verb} not exist in the archive",
            shown.join(", ")
        ),
        remedies.join("; "),
    ))
}

fn other_components(debian: &Debian, state: &ArchiveState) -> Vec<(String, PackageNames)> {
    let Some(base) = state.suites.first() else {
        return Vec::new();
    };
    let others = base
        .release
        .components
        .iter()
        .filter(|component| !base.components.contains(component));
    others
        .map(|other| {
            (
                other.clone(),
                PackageNames::fetch(
                    std::slice::from_ref(base),
                    other,
                    &debian.architecture,
                    debian.proxy.as_deref(),
                ),
            )
        })
        .collect()
}

/// Packages that exist but cannot be installed together.
pub(super) fn unmet(said: &[String]) -> Option<Cause> {
    let from = said
        .iter()
        .position(|line| line.contains("The following packages have unmet dependencies"))?;
    let needs: Vec<String> = said[from + 1..]
        .iter()
        .map(|line| line.trim())
        .take_while(|line| line.contains(" : ") || line.starts_with("Depends:"))
        .map(cleaned)
        .collect();
    let first = needs
        .first()
        .cloned()
        .unwrap_or_else(|| "packages have unmet dependencies".to_owned());
    let (package, need) = first
        .split_once(" : ")
        .unwrap_or((&first, "dependencies that are not met"));
    let remedy = "choose versions that fit, or name the suites of the same release in `mirrors`";
    Some((
        format!("package {package} can't be installed: {need}"),
        remedy.to_owned(),
    ))
}
