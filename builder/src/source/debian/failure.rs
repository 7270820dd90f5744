//! Explains failures of mmdebstrap, apt and dpkg in one sentence with a remedy.

use std::path::Path;

use nix::unistd::{Uid, User};

use super::archive::ArchiveState;
use super::fetch::without_password;
use super::packages::PackageNames;
use crate::definition::Debian;
use crate::error::Error;
use crate::io::prerequisite;

/// Maximum number of packages in one message.
const NAMED: usize = 5;

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

fn without_root(said: &[String]) -> Option<Cause> {
    let mentions = |text: &str| said.iter().any(|line| line.contains(text));
    if Uid::effective().is_root()
        || !(mentions("unable to pick chroot mode automatically")
            || mentions("newuidmap")
            || mentions("unshare() failed")
            || mentions("/etc/subuid"))
    {
        return None;
    }
    let user = User::from_uid(Uid::effective())
        .ok()
        .flatten()
        .map_or_else(|| Uid::effective().to_string(), |user| user.name);
    let (why, remedy) = userns(&user, &NamespaceSettings::this())?;
    Some((
        format!("user {user} can't build without root: {why}"),
        format!("{remedy}; or build as root"),
    ))
}

/// The settings of a machine that decide whether users can create user namespaces.
struct NamespaceSettings {
    newuidmap: bool,
    subuid: String,
    subgid: String,
    /// Files below /proc/sys that forbid user namespaces, with their contents.
    settings: Vec<(&'static str, String)>,
}

impl NamespaceSettings {
    fn this() -> NamespaceSettings {
        let read = |path: &str| {
            crate::io::bounded::read(Path::new(path), 1 << 20).map_or_else(
                |_| String::new(),
                |b| String::from_utf8_lossy(&b).into_owned(),
            )
        };
        let settings = [
            "kernel/unprivileged_userns_clone",
            "user/max_user_namespaces",
            "kernel/apparmor_restrict_unprivileged_userns",
        ];
        NamespaceSettings {
            newuidmap: prerequisite::find("newuidmap").is_ok(),
            subuid: read("/etc/subuid"),
            subgid: read("/etc/subgid"),
            settings: settings
                .map(|name| (name, read(&format!("/proc/sys/{name}")).trim().to_owned()))
                .into(),
        }
    }
}

fn userns(user: &str, machine: &NamespaceSettings) -> Option<Cause> {
    if !machine.newuidmap {
        return Some((
            "newuidmap is not installed".to_owned(),
            prerequisite::remedy("newuidmap"),
        ));
    }
    let has = |text: &str| {
        text.lines()
            .any(|line| line.split(':').next() == Some(user))
    };
    for (file, text) in [
        ("/etc/subuid", &machine.subuid),
        ("/etc/subgid", &machine.subgid),
    ] {
        if !has(text) {
            let remedy =
                format!("usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}");
            return Some((format!("{file} has no line for {user}"), remedy));
        }
    }
    for (name, value) in &machine.settings {
        let (forbids, allowed) = match *name {
            "kernel/apparmor_restrict_unprivileged_userns" => (value == "1", "0"),
            "user/max_user_namespaces" => (value == "0", "15000"),
            _ => (value == "0", "1"),
        };
        if forbids {
            let key = name.replace('/', ".");
            return Some((
                format!("{key} is {value}"),
                format!("sysctl {key}={allowed}"),
            ));
        }
    }
    Some((
        "the kernel refuses a user namespace".to_owned(),
        "allow user namespaces, in a container also with its seccomp profile".to_owned(),
    ))
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

/// Packages that no package list of the archive has.
fn unknown_packages(debian: &Debian, state: &ArchiveState, said: &[String]) -> Option<Cause> {
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
fn unmet(said: &[String]) -> Option<Cause> {
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
#[path = "failure_tests.rs"]
mod tests;
