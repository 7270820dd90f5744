//! The database of installed packages that dpkg keeps in an image: `/var/lib/dpkg/status`, in the
//! format of deb-control(5).

use crate::error::{Error, Result};
use crate::manifest::Package;
use crate::tree::Tree;

/// Largest database that is read, bytes. A desktop's has about 5 MB.
const STATUS_LIMIT: u64 = 256 << 20;

/// Installed packages by name. `at` is the directory of the root file system in the tree; the list
/// is empty if there is no database below it.
pub fn installed_packages(tree: &Tree, at: &[u8]) -> Result<Vec<Package>> {
    let mut packages: Vec<Package> = status_text(tree, at)?
        .split("\n\n")
        .filter_map(package)
        .collect();
    packages.sort();
    Ok(packages)
}

/// Name and uncompressed size in KiB (`Installed-Size`) of the installed packages.
pub fn installed_sizes(tree: &Tree, at: &[u8]) -> Result<Vec<(String, u64)>> {
    let text = status_text(tree, at)?;
    Ok(text
        .split("\n\n")
        .filter_map(|paragraph| {
            Some((
                package(paragraph)?.name,
                field(paragraph, "Installed-Size")?.parse().ok()?,
            ))
        })
        .collect())
}

/// The database's text; empty if the tree has no database.
fn status_text(tree: &Tree, at: &[u8]) -> Result<String> {
    let path = [at, b"/var/lib/dpkg/status"].concat();
    let Some(content) = tree.file_content(&path) else {
        return Ok(String::new());
    };
    let bytes = content
        .to_vec(STATUS_LIMIT)
        .map_err(|e| Error::new(format!("/var/lib/dpkg/status in the image: {e}")))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn field(paragraph: &str, name: &str) -> Option<String> {
    paragraph
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map(|value| value.trim().to_owned())
}

fn package(paragraph: &str) -> Option<Package> {
    let field = |name: &str| field(paragraph, name);
    // "Status: install ok installed". A removed package whose configuration remains has the status
    // "deinstall ok config-files".
    if !field("Status")?.ends_with(" installed") {
        return None;
    }
    Some(Package {
        name: field("Package")?,
        architecture: field("Architecture")?,
        version: field("Version")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Content, Kind, Meta};

    #[test]
    fn lists_installed_packages_only() {
        let status = "Package: b\nStatus: install ok installed\nArchitecture: amd64\nInstalled-Size: 2048\nVersion: 2-1\nDescription: x\n Version: no\n\nPackage: a\nStatus: deinstall ok config-files\nArchitecture: all\nVersion: 1\n\nPackage: a0\nStatus: install ok installed\nArchitecture: all\nVersion: 1:1\n";
        let mut tree = Tree::new();
        tree.insert(
            b"/var/lib/dpkg/status",
            Meta::default(),
            Kind::File(Content::from_memory(status.as_bytes())),
        )
        .unwrap();
        let names: Vec<_> = installed_packages(&tree, b"/")
            .unwrap()
            .into_iter()
            .map(|p| format!("{} {} {}", p.name, p.architecture, p.version))
            .collect();
        assert_eq!(names, ["a0 all 1:1", "b amd64 2-1"]);
        assert_eq!(
            installed_sizes(&tree, b"/").unwrap(),
            [("b".to_owned(), 2048)]
        );
        assert_eq!(installed_packages(&Tree::new(), b"/").unwrap(), []);
    }
}
