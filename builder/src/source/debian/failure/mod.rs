//! Explains failures of mmdebstrap, apt and dpkg in one sentence with a remedy.

mod namespaces;
mod packages;

use std::path::Path;

use self::namespaces::without_root;
use self::packages::{unknown_packages, unmet};
use super::archive::ArchiveState;
use super::fetch::without_password;
use crate::definition::Debian;
use crate::error::Error;

/// The error for a failed mmdebstrap. `said` is its output, `log` the file that holds it.
pub fn explain(
    debian: &Debian,
    state: &ArchiveState,
    said: &[String],
    status: &str,
    log: Option<&Path>,
) -> Error {
    let (why, remedy) = cause(debian, state, said).unwrap_or_else(|| {
        let last = said
            .iter()
            .rev()
            .find_map(|line| line.strip_prefix("E: ").filter(|line| !is_summary(line)));
        let why = last.map_or_else(
            || format!("mmdebstrap failed ({status})"),
            |last| format!("mmdebstrap failed: {last}"),
        );
        (why, "build with --verbose to see each step".to_owned())
    });
    let log = log
        .map(|log| format!(" (output of mmdebstrap: {})", log.display()))
        .unwrap_or_default();
    Error::new(format!("suite {}: {why}", debian.suite)).hint(format!("{remedy}{log}"))
}

/// mmdebstrap's lines that only report a failed command.
fn is_summary(line: &str) -> bool {
    line.contains(" failed with exit code")
        || line.starts_with("setup failed")
        || line.starts_with("run_chroot failed")
        || line.contains("failed: E:")
        || line.contains("process exited with")
}

type Cause = (String, String);

fn cause(debian: &Debian, state: &ArchiveState, said: &[String]) -> Option<Cause> {
    let find = |text: &str| {
        said.iter()
            .map(String::as_str)
            .find(|line| line.contains(text))
    };
    without_root(said)
        .or_else(|| no_space(said))
        .or_else(|| unknown_packages(debian, state, said))
        .or_else(|| unmet(said))
        .or_else(|| signature(debian, state, said))
        .or_else(|| {
            let line = find("is not valid yet")?;
            Some((format!("the Release file is from the future: {}", cleaned(line)), "set this machine's clock".to_owned()))
        })
        .or_else(|| {
            let line = find("is expired (invalid since")?;
            Some((format!("a Release file has expired: {}", cleaned(line)), "use a mirror that is up to date, or check-valid-until=no in a deb line".to_owned()))
        })
        .or_else(|| {
            let line = find("does not have a Release file")?;
            Some((format!("an archive has no such suite: {}", cleaned(line)), "check `suite` and `mirrors`".to_owned()))
        })
        .or_else(|| {
            let line = find("The method driver")?;
            Some((format!("apt can't read from an archive: {}", cleaned(line)), "use http, https, file or copy in `mirrors`, or install the method".to_owned()))
        })
        .or_else(|| configure(said))
        .or_else(|| network(said))
        .or_else(|| {
            let line = find("cannot be executed natively").or_else(|| find("arch-test"))?;
            let remedy = format!("build on a machine of architecture {}, or install qemu-user-static", debian.architecture);
            Some((cleaned(line), remedy))
        })
        .or_else(|| {
            let line = find("Permission denied")?;
            let remedy = "without root, mmdebstrap's user needs access to TMPDIR and to the archive's files: chmod a+rX them, or build as root";
            Some((cleaned(line), remedy.to_owned()))
        })
}

/// A line without its prefix, the password of its address, and its trailing details.
fn cleaned(line: &str) -> String {
    let line = line
        .trim()
        .trim_start_matches("E: ")
        .trim_start_matches("W: ");
    line.split(' ')
        .map(without_password)
        .collect::<Vec<_>>()
        .join(" ")
        .trim_end_matches('.')
        .to_owned()
}

fn no_space(said: &[String]) -> Option<Cause> {
    let line = said.iter().find(|line| {
        line.contains("No space left on device")
            || line.contains("have enough free space in")
            || line.contains("Disk quota exceeded")
    })?;
    let temporary = std::env::temp_dir();
    let remedy = format!(
        "packages are unpacked in {}: free some gigabytes there, or set TMPDIR to a directory with more space",
        temporary.display()
    );
    match line.contains("tar: ") && !line.contains("mmdebstrap.") {
        true => Some((
            "no space left for the archive of packages in the cache".to_owned(),
            "free some gigabytes there, or name another directory with --cache".to_owned(),
        )),
        false => Some((format!("no space left in {}", temporary.display()), remedy)),
    }
}

/// Errors about keys and signatures.
fn signature(debian: &Debian, state: &ArchiveState, said: &[String]) -> Option<Cause> {
    if let Some(line) = said
        .iter()
        .find(|line| line.contains("is not readable by user"))
    {
        let remedy = "make the keyring readable, and the directories above it: chmod a+r FILE, chmod a+x DIRECTORY";
        return Some((
            format!("apt's user can't read a keyring: {}", cleaned(line)),
            remedy.to_owned(),
        ));
    }
    let of = said.iter().find_map(|line| {
        let rest = line
            .split("GPG error: ")
            .nth(1)
            .or_else(|| line.split("OpenPGP signature verification failed: ").nth(1))?;
        let mut words = rest.split_whitespace();
        Some(format!(
            "{} {}",
            without_password(words.next()?),
            words.next()?
        ))
    });
    let of = of.unwrap_or_else(|| format!("suite {}", debian.suite));
    let unsigned = said.iter().find(|line| line.contains("is not signed"));
    let key = said.iter().find_map(|line| {
        let behind = line
            .split("NO_PUBKEY ")
            .nth(1)
            .or_else(|| line.split("Missing key ").nth(1))?;
        let key: String = behind.chars().take_while(char::is_ascii_hexdigit).collect();
        (key.len() >= 8).then_some(key)
    });
    if let Some(key) = key {
        let who = state
            .suites
            .first()
            .map(|suite| suite.release.origin.as_str())
            .unwrap_or_default();
        let place = match &debian.keyring {
            Some(keyring) => format!("{} does not have", keyring.display()),
            None => "no keyring of this machine has".to_owned(),
        };
        let remedy = match who {
            "Debian" => "apt-get install debian-archive-keyring; a newer release needs a newer version of it".to_owned(),
            "Ubuntu" => "apt-get install ubuntu-keyring, and write keyring = \"/usr/share/keyrings/ubuntu-archive-keyring.gpg\"".to_owned(),
            _ => "write `keyring`, or signed-by in a deb line, with the archive's keyring, which its owner publishes".to_owned(),
        };
        return Some((
            format!("{of} is signed with key {key}, which {place}"),
            remedy,
        ));
    }
    for (mark, why) in [
        ("EXPKEYSIG", "an expired key"),
        ("KEYEXPIRED", "an expired key"),
        ("REVKEYSIG", "a revoked key"),
        ("BADSIG", "a signature that is wrong"),
    ] {
        if said.iter().any(|line| line.contains(mark)) {
            let remedy = match mark {
                "BADSIG" => "the mirror or a proxy altered the file: use another mirror",
                _ => {
                    "install the newest keyring of the archive, for Debian the package debian-archive-keyring"
                }
            };
            return Some((format!("{of} has {why}"), remedy.to_owned()));
        }
    }
    let line = unsigned?;
    Some((
        format!("an archive is not signed: {}", cleaned(line)),
        "sign its Release file, or write [trusted=yes] in a deb line".to_owned(),
    ))
}

/// A failed package script.
fn configure(said: &[String]) -> Option<Cause> {
    let line = said
        .iter()
        .find(|line| line.contains("dpkg: error processing "))?;
    let package = line
        .split("processing ")
        .nth(1)?
        .trim_start_matches("package ")
        .trim_start_matches("archive ");
    let package = package.split(' ').next().unwrap_or(package);
    let from = said
        .iter()
        .position(|other| other == line)
        .unwrap_or_default();
    let why = said
        .get(from + 1)
        .map(|line| cleaned(line))
        .unwrap_or_default();
    let remedy = "a package's script runs without network, services and devices; leave the package out, or install it in a source of your own";
    Some((
        format!(
            "package {} can't be installed: {why}",
            package.trim_end_matches(':')
        ),
        remedy.to_owned(),
    ))
}

fn network(said: &[String]) -> Option<Cause> {
    const MARKS: [(&str, &str); 11] = [
        (
            "Hash Sum mismatch",
            "the mirror is being updated, or a proxy altered the file: build again later, or use another mirror",
        ),
        (
            "File has unexpected size",
            "the mirror is being updated: build again later, or use another mirror",
        ),
        (
            "404  Not Found",
            "the archive changed during the build: build again",
        ),
        (
            "Temporary failure resolving",
            "connect to the network, or give `mirrors` or `proxy` for this source",
        ),
        (
            "Could not resolve",
            "connect to the network, or give `mirrors` or `proxy` for this source",
        ),
        (
            "Could not connect",
            "connect to the network, or give `mirrors` or `proxy` for this source",
        ),
        (
            "Connection timed out",
            "connect to the network, or give `mirrors` or `proxy` for this source",
        ),
        (
            "Connection failed",
            "connect to the network, or give `mirrors` or `proxy` for this source",
        ),
        (
            "Network is unreachable",
            "connect to the network, or give `mirrors` or `proxy` for this source",
        ),
        (
            "Certificate verification failed",
            "install ca-certificates, and set this machine's clock",
        ),
        ("Failed to fetch", "build again, or use another mirror"),
    ];
    MARKS.iter().find_map(|(mark, remedy)| {
        let line = said.iter().find(|line| line.contains(mark))?;
        Some((
            format!(
                "packages can't be fetched: {}",
                cleaned(line.split(" [IP:").next().unwrap_or(line))
            ),
            (*remedy).to_owned(),
        ))
    })
}

#[cfg(test)]
mod tests;
