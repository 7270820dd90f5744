//! Package names of an archive, to suggest a name for an unknown package.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read};

use super::archive::Suite;
use super::fetch::{Answer, fetch};
use crate::source::tar::packing::Packing;

/// Maximum size of a compressed package list, bytes: Debian's main has 10 MB.
const LIMIT: u64 = 128 << 20;
/// Maximum size of a package list, bytes.
const UNPACKED: u64 = 1 << 30;
/// Maximum number of suggested names.
const OFFERED: usize = 3;

/// The package names of some suites.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct PackageNames {
    /// Names of packages.
    real: BTreeSet<String>,
    /// Names of virtual packages, each with the packages that provide it.
    provided: BTreeMap<String, BTreeSet<String>>,
}

impl PackageNames {
    /// Reads the package lists of one component of the suites. Lists that cannot be fetched are
    /// skipped.
    pub fn fetch(
        suites: &[Suite],
        component: &str,
        architecture: &str,
        proxy: Option<&str>,
    ) -> PackageNames {
        let mut names = PackageNames::default();
        for suite in suites {
            let folder = match suite.name.ends_with('/') {
                true => suite.folder(),
                false => format!("{}/{component}/binary-{architecture}", suite.folder()),
            };
            let list =
                ["Packages.xz", "Packages.gz", "Packages"]
                    .iter()
                    .find_map(
                        |file| match fetch(&format!("{folder}/{file}"), proxy, LIMIT) {
                            Ok(Answer::Bytes(bytes)) => Some(bytes),
                            _ => None,
                        },
                    );
            if let Some(list) = list {
                names.read(&list);
            }
        }
        names
    }

    /// Adds the names of another component.
    pub fn add(&mut self, other: PackageNames) {
        self.real.extend(other.real);
        for (name, packages) in other.provided {
            self.provided.entry(name).or_default().extend(packages);
        }
    }

    fn read(&mut self, packed: &[u8]) {
        let Ok(reader) = Packing::detect(packed).reader(packed) else {
            return;
        };
        let mut reader = BufReader::new(reader.take(UNPACKED));
        let (mut line, mut package) = (Vec::new(), String::new());
        loop {
            line.clear();
            if !matches!(
                (&mut reader).take(1 << 20).read_until(b'\n', &mut line),
                Ok(1..)
            ) {
                return;
            }
            let text = String::from_utf8_lossy(&line);
            if let Some(name) = text.strip_prefix("Package: ") {
                package = name.trim().to_owned();
                self.real.insert(package.clone());
            } else if let Some(provides) = text.strip_prefix("Provides: ") {
                let names = provides
                    .split(',')
                    .filter_map(|name| name.split_whitespace().next());
                for name in names {
                    self.provided
                        .entry(name.to_owned())
                        .or_default()
                        .insert(package.clone());
                }
            }
        }
    }

    /// Whether a package has this name.
    pub fn contains(&self, name: &str) -> bool {
        self.real.contains(name)
    }

    /// A suggestion for an unknown name: the packages that provide it, or the nearest names.
    pub fn instead_of(&self, name: &str) -> Option<String> {
        if let Some(packages) = self.provided.get(name) {
            let packages: Vec<&str> = packages.iter().map(String::as_str).take(OFFERED).collect();
            return Some(format!("it is provided by {}", packages.join(", ")));
        }
        let all: Vec<&str> = self.real.iter().map(String::as_str).collect();
        if let Some(nearest) = near(name, &all).first() {
            return Some(format!("did you mean `{nearest}`?"));
        }
        // People write `openssh` for openssh-server.
        let longer = format!("{name}-");
        let mut names: Vec<&str> = all
            .into_iter()
            .filter(|package| package.starts_with(&longer))
            .collect();
        names.sort_by_key(|package| (!package.ends_with("-server"), package.len()));
        names.truncate(OFFERED);
        (!names.is_empty()).then(|| {
            format!(
                "did you mean {}?",
                names
                    .iter()
                    .map(|name| format!("`{name}`"))
                    .collect::<Vec<_>>()
                    .join(" or ")
            )
        })
    }
}

/// Known names similar to a mistyped one, nearest first: at most a third of the letters differ.
pub fn near<'a>(unknown: &str, known: &[&'a str]) -> Vec<&'a str> {
    let limit = (unknown.chars().count().max(3) / 3).min(4);
    let is_close = |word: &str| word.len().abs_diff(unknown.len()) <= limit;
    let mut found: Vec<(usize, &str)> = known
        .iter()
        .filter(|word| is_close(word))
        .map(|word| (strsim::damerau_levenshtein(unknown, word), *word))
        .filter(|(away, _)| *away <= limit)
        .collect();
    found.sort_unstable();
    found.dedup();
    found.into_iter().map(|(_, word)| word).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[u8]) -> PackageNames {
        let mut names = PackageNames::default();
        names.read(list);
        names
    }

    #[test]
    fn suggests_the_nearest_name_or_a_provider() {
        let names = names(
            b"Package: nginx\nVersion: 1\nProvides: httpd, nginx-abi-1.26.3-1 (= 1)\n\nPackage: openssh-client\n\nPackage: openssh-server\nProvides: ssh-server\n\nPackage: apache2\nProvides: httpd\n",
        );
        assert!(names.contains("nginx") && !names.contains("httpd"));
        assert_eq!(names.instead_of("ngnix").unwrap(), "did you mean `nginx`?");
        assert_eq!(
            names.instead_of("httpd").unwrap(),
            "it is provided by apache2, nginx"
        );
        assert_eq!(
            names.instead_of("openssh").unwrap(),
            "did you mean `openssh-server` or `openssh-client`?"
        );
        assert_eq!(names.instead_of("kubernetes"), None);
    }

    #[test]
    fn reads_compressed_lists_and_ignores_corrupted_ones() {
        let list = b"Package: nginx\n";
        let packed = zstd::encode_all(list.as_slice(), 1).unwrap();
        assert!(names(&packed).contains("nginx"));
        assert_eq!(names(&packed[..packed.len() / 2]), PackageNames::default());
        assert_eq!(names(&[0xff; 100]), PackageNames::default());
    }

    #[test]
    fn does_not_suggest_a_distant_name() {
        assert_eq!(near("trixi", &["trixie", "sid", "trixie"]), ["trixie"]);
        assert_eq!(near("nobel", &["noble", "jammy"]), ["noble"]);
        assert!(near("warty", &["trixie", "sid", "bookworm"]).is_empty());
    }
}
