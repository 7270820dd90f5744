//! The external programs that the builder starts, with their Debian packages.
//! `images/prerequisites` installs the same list.

use std::ffi::OsStr;
use std::path::PathBuf;

use crate::error::{Error, Result};

const LIST: &str = include_str!("../../prerequisites.txt");

/// The Debian package of a program or file in the list.
pub fn package(wanted: &str) -> Option<&'static str> {
    LIST.lines()
        .filter(|line| !line.starts_with('#'))
        .find_map(|line| {
            let mut columns = line.split_whitespace().skip(1);
            (columns.next()? == wanted).then(|| columns.next())?
        })
}

/// Finds a program in PATH, /usr/sbin or /sbin. The last two are not in every user's PATH.
pub fn find(program: &str) -> Result<PathBuf> {
    find_with_path(&std::env::var_os("PATH").unwrap_or_default(), program)
}

fn find_with_path(path: &OsStr, program: &str) -> Result<PathBuf> {
    let places = std::env::split_paths(path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    places
        .map(|place| place.join(program))
        .find(|file| file.is_file())
        .ok_or_else(|| missing(program, program))
}

/// The error about a missing program or file of the list. Messages call it `name`.
pub fn missing(wanted: &str, name: &str) -> Error {
    Error::new(format!("{name} is not installed")).hint(remedy(wanted))
}

/// The command that installs a program or file of the list.
pub fn remedy(wanted: &str) -> String {
    match package(wanted) {
        Some(package) => format!("apt-get install {package}"),
        None => format!("install {wanted}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_package_of_every_program_that_the_builder_starts() {
        let firmware = "/usr/share/OVMF/OVMF_CODE_4M.fd";
        for wanted in [
            "mmdebstrap",
            "newuidmap",
            "qemu-system-x86_64",
            "qemu-img",
            firmware,
            "swtpm",
            "pkcs11-tool",
            "ssh",
        ] {
            assert!(
                package(wanted).is_some(),
                "{wanted} is not in prerequisites.txt"
            );
        }
        assert_eq!(package("qemu-img"), Some("qemu-utils"));
        assert_eq!(package("Columns:"), None);
    }

    #[test]
    fn every_line_of_the_list_has_a_purpose_a_program_and_a_package() {
        for line in LIST
            .lines()
            .filter(|line| !line.starts_with('#') && !line.is_empty())
        {
            let columns: Vec<_> = line.split_whitespace().collect();
            assert!(
                matches!(columns[..], ["build" | "run" | "user" | "test", _, _]),
                "{line}"
            );
        }
    }

    #[test]
    fn finds_programs_in_path_first_and_then_in_sbin() {
        let find = |path: &str, program| find_with_path(OsStr::new(path), program);
        assert_eq!(
            find("/nonexistent:/bin", "sh").unwrap(),
            PathBuf::from("/bin/sh")
        );
        assert_eq!(
            find("/bin", "ldconfig").unwrap(),
            PathBuf::from("/usr/sbin/ldconfig")
        );
        assert!(find("/nonexistent", "sh").is_err());
    }

    #[test]
    fn a_missing_program_is_named_with_its_package() {
        let error = find("qemu-img-of-nobody").unwrap_err();
        assert_eq!(
            error.to_string(),
            "qemu-img-of-nobody is not installed\n  install qemu-img-of-nobody"
        );
        assert_eq!(
            missing("qemu-img", "qemu-img").to_string(),
            "qemu-img is not installed\n  apt-get install qemu-utils"
        );
    }
}
