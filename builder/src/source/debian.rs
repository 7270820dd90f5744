//! Debian packages, installed into an archive by mmdebstrap, which needs no root.
//!
//! The result is cached. The key of an entry is a digest of everything that decides it: the
//! definition's table, mmdebstrap's version, the keyrings, and the state of the archives (their
//! Release files). If an archive can't be reached, the newest entry for the same table is used,
//! with a warning. apt checks the archives' signatures; nothing here turns that off.

mod archive;
mod bootstrap;
mod cache;
mod databases;
mod failure;
mod fetch;
mod packages;
mod release;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sha2::{Digest, Sha256};

pub use self::archive::{Archive, Warning};
use self::archive::{Failure, State};
use self::cache::Cache;
pub use self::cache::archives;
pub use self::databases::Database;
use super::{ArchiveHash, Budget, Loaded, Surroundings, dpkg, tar};
use crate::definition::mirror::Mirror;
use crate::definition::{Debian, values};
use crate::error::{Context, Error, Result};
use crate::io::prerequisite;
use crate::tree::Tree;

/// Raised when the same definition and archives give another result: when what is done with
/// mmdebstrap changes.
const FORMAT: u32 = 2;

/// Installs the packages, or takes them from the cache, and loads the result.
pub fn load(
    tree: &mut Tree,
    at: &[u8],
    debian: &Debian,
    budget: &mut Budget,
    surroundings: &Surroundings,
) -> Result<Loaded> {
    let (words, state) = ask(debian);
    let words = words?;
    let cache = Cache::open(&surroundings.cache, &words)?;
    let name = format!("{} {}", debian.suite, debian.packages.join(" "));
    // The entry is read while it is hashed. What it makes stays apart until it is known to be an
    // archive.
    if surroundings.use_cache
        && surroundings.believe
        && let Ok(state) = &state
        && let Some(entry) = cache.find(&cache.key(&state.digest))?
    {
        let (mut apart, mut left) = (tree.clone(), *budget);
        match tar::load(&mut apart, at, entry.path(), &mut left, &surroundings.spool) {
            Ok(loaded) => {
                log::info!("suite {}: packages from the cache", debian.suite);
                (*tree, *budget) = (apart, left);
                let claim = Some(entry.claim(&loaded.sha256));
                let sha256 = made_of(tree, at)?.map_or(loaded.sha256, ArchiveHash::known);
                let archive = Some(entry.archive().clone());
                let databases = databases::find(tree, at);
                return Ok(Loaded {
                    kind: "debian",
                    name,
                    date: Some(entry.seconds()),
                    sha256,
                    claim,
                    archive,
                    databases,
                    ..loaded
                });
            }
            // It is damaged, or exceeds the limits: the slow way says which.
            Err(error) => log::warn!(
                "suite {}: the packages in the cache can't be read: {error}",
                debian.suite
            ),
        }
    }
    let entry = match state {
        Ok(state) => current(debian, &state, &cache, surroundings)?,
        Err(Failure::Refused(error)) => return Err(error),
        Err(Failure::Unreachable(why)) => newest(debian, &why, &cache, surroundings)?,
    };
    let loaded = tar::load(tree, at, entry.path(), budget, &surroundings.spool)?;
    let sha256 = made_of(tree, at)?.map_or(loaded.sha256, ArchiveHash::known);
    let (archive, databases) = (Some(entry.archive().clone()), databases::find(tree, at));
    Ok(Loaded {
        kind: "debian",
        name,
        date: Some(entry.seconds()),
        sha256,
        archive,
        databases,
        ..loaded
    })
}

/// The entry for the archives' current state; makes it if the cache has none.
fn current(
    debian: &Debian,
    state: &State,
    cache: &Cache,
    surroundings: &Surroundings,
) -> Result<cache::Entry> {
    let key = cache.key(&state.digest);
    let known = || {
        if surroundings.use_cache {
            cache.get(&key)
        } else {
            Ok(None)
        }
    };
    if let Some(entry) = known()? {
        log::info!("suite {}: packages from the cache", debian.suite);
        return Ok(entry);
    }
    state.check(debian)?;
    let place = cache.place(&key)?;
    // Another build may have made it while this one waited for the place.
    if let Some(entry) = known()? {
        return Ok(entry);
    }
    bootstrap::bootstrap(debian, state, place.path(), &cache.log())?;
    place.keep(state.date, state.archive.clone())
}

/// The newest entry for this source, for a build that can't reach an archive.
fn newest(
    debian: &Debian,
    why: &Error,
    cache: &Cache,
    surroundings: &Surroundings,
) -> Result<cache::Entry> {
    let why = format!(
        "suite {}: the archive can't be reached: {}",
        debian.suite,
        why.message()
    );
    if !surroundings.use_cache {
        return Err(Error::new(why).hint("connect to the network, or build without --no-cache"));
    }
    let Some(entry) = cache.newest()? else {
        return Err(
            Error::new(format!("{why}; the cache has no packages for this source")).hint(
                "connect to the network, or give `mirrors`, `proxy` or `snapshot` for this source",
            ),
        );
    };
    log::warn!(
        "{why}; using the packages of an earlier build, archive of {}",
        values::moment(entry.seconds())
    );
    Ok(entry)
}

/// A digest of all that decides what a build would get for this source. An error if the archive
/// can't be reached.
pub fn state(debian: &Debian) -> Result<[u8; 32]> {
    let (words, state) = ask(debian);
    Ok(Sha256::new()
        .chain_update(words?)
        .chain_update(state?.digest)
        .finalize()
        .into())
}

/// The definition's table with the tools that read it, and the state of the archives; both take
/// about as long.
fn ask(debian: &Debian) -> (Result<String>, Result<State, Failure>) {
    std::thread::scope(|scope| {
        let state = scope.spawn(|| archive::state(debian));
        (
            words(debian),
            state.join().unwrap_or_else(|_| {
                Err(Failure::Unreachable(Error::new(
                    "asking the archive failed",
                )))
            }),
        )
    })
}

/// What the result was made from: one digest over the packages with their versions. The bytes of
/// what mmdebstrap gives differ each time, in host keys and logs, which scrubbing takes out; the
/// packages are what stays. `None` where dpkg's database is not part of the variant.
fn made_of(tree: &Tree, at: &[u8]) -> Result<Option<[u8; 32]>> {
    let packages = dpkg::installed_packages(tree, at)?;
    let mut digest = Sha256::new();
    for package in &packages {
        digest.update(format!(
            "{} {} {}\n",
            package.name, package.architecture, package.version
        ));
    }
    Ok((!packages.is_empty()).then(|| digest.finalize().into()))
}

/// What a build would find in the cache: the archive's date of the newest entry for this source,
/// seconds since 1970.
pub fn cached(debian: &Debian, cache: &Path) -> Result<Option<i64>> {
    Cache::at(cache, &words(debian)?).newest_date()
}

/// Everything the definition says, and the tools that read it.
fn words(debian: &Debian) -> Result<String> {
    let keyring = adamant_contract::hex::encode(&keyrings(debian)?);
    // Where its file is does not count.
    let named = Debian {
        keyring: debian.keyring.as_ref().map(|_| PathBuf::new()),
        ..debian.clone()
    };
    Ok(format!("{FORMAT} {named:?} keyring {keyring} {}", version()?).replace(['\n', '\0'], " "))
}

/// Keyrings that mmdebstrap uses when the definition names none: what apt trusts here, and Debian's
/// own, which it names to apt where apt does not know the keys in it (mmdebstrap(1), --keyring).
const TRUSTED: [&str; 4] = [
    "/etc/apt/trusted.gpg",
    "/etc/apt/trusted.gpg.d",
    "/usr/share/keyrings/debian-archive-keyring.gpg",
    "/usr/share/keyrings/debian-archive-keyring.pgp",
];

/// One digest over the keyrings that decide whether the archive's signatures are good.
fn keyrings(debian: &Debian) -> Result<[u8; 32]> {
    let mut digest = Sha256::new();
    for signed_by in debian
        .mirrors
        .iter()
        .flat_map(Mirror::entries)
        .flat_map(|entry| &entry.signed_by)
    {
        digest.update(keyring(signed_by)?);
    }
    if let Some(own) = &debian.keyring {
        digest.update(keyring(own)?);
        return Ok(digest.finalize().into());
    }
    for place in TRUSTED.map(Path::new) {
        let mut files = vec![place.to_owned()];
        if place.is_dir() {
            let list = std::fs::read_dir(place).and_then(|list| {
                list.map(|entry| entry.map(|entry| entry.path()))
                    .collect::<std::io::Result<Vec<_>>>()
            });
            files = list.context(|| format!("keyrings in {}", place.display()))?;
            // The others mean nothing to apt.
            files.retain(|file| {
                file.extension()
                    .is_some_and(|ending| ending == "gpg" || ending == "asc")
            });
            files.sort();
        }
        for file in files.iter().filter(|file| file.exists()) {
            digest.update(hash(&read(file)?));
        }
    }
    Ok(digest.finalize().into())
}

/// The digest of a keyring that the definition names, if apt can read it.
fn keyring(path: &Path) -> Result<[u8; 32]> {
    if !path.exists() {
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let remedy = match name.split('-').next() {
            Some("debian") => "apt-get install debian-archive-keyring",
            Some("ubuntu") => "apt-get install ubuntu-keyring",
            _ => "get the keyring from the archive's owner, and write its path",
        };
        return Err(Error::new(format!("keyring {} does not exist", path.display())).hint(remedy));
    }
    let bytes = read(path)?;
    let is_armored = bytes.starts_with(b"-----BEGIN PGP");
    let says_armored = path.extension().is_some_and(|ending| ending == "asc");
    match (is_armored, says_armored) {
        (true, false) => Err(Error::new(format!(
            "keyring {} is in text form, which apt reads from files named *.asc",
            path.display()
        ))
        .hint("rename it to end in .asc, or convert it: gpg --dearmor")),
        (false, true) => Err(Error::new(format!(
            "keyring {} is named .asc and holds no key in text form",
            path.display()
        ))
        .hint("rename it to end in .gpg if it is a binary keyring")),
        _ => Ok(hash(&bytes)),
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(64 << 20).read_to_end(&mut bytes))
        .context(|| format!("keyring {}", path.display()))?;
    Ok(bytes)
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// The output of `mmdebstrap --version`. Starting mmdebstrap takes a quarter of a second, so its
/// version is read from the script where possible.
fn version() -> Result<String> {
    let script = prerequisite::find("mmdebstrap")?;
    let text = crate::io::bounded::read(&script, 4 << 20).unwrap_or_default();
    let line = text
        .split(|&b| b == b'\n')
        .find_map(|line| line.strip_prefix(b"our $VERSION = '")?.strip_suffix(b"';"));
    if let Some(version) = line.and_then(|version| std::str::from_utf8(version).ok()) {
        return Ok(format!("mmdebstrap {version}"));
    }
    let output = Command::new(&script)
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .map_err(bootstrap::missing)?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_made_of_the_bytes_of_the_keyring_and_not_of_its_name() {
        let dir = std::env::temp_dir().join(format!("adamant-keyring-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let of = |name: &str, bytes: &str| {
            std::fs::write(dir.join(name), bytes).unwrap();
            keyrings(&Debian {
                keyring: Some(dir.join(name)),
                ..archive::tests::debian("trixie")
            })
            .unwrap()
        };
        assert_eq!(of("a", "key"), of("b", "key"));
        assert_ne!(of("a", "key"), of("a", "other"));
        let error = |name: &str, bytes: Option<&str>| {
            let _ = bytes.map(|bytes| std::fs::write(dir.join(name), bytes).unwrap());
            keyrings(&Debian {
                keyring: Some(dir.join(name)),
                ..archive::tests::debian("trixie")
            })
            .unwrap_err()
            .to_string()
        };
        assert!(error("none.gpg", None).contains("none.gpg does not exist"));
        assert!(
            error("ubuntu-archive-keyring.gpg", None).contains("apt-get install ubuntu-keyring")
        );
        assert!(error("text.gpg", Some("-----BEGIN PGP PUBLIC KEY BLOCK-----")).contains(".asc"));
        assert!(error("binary.asc", Some("\u{1}")).contains(".gpg"));
        // Without one, what this machine trusts is read: files that are there have a digest, and
        // none is no error.
        keyrings(&archive::tests::debian("trixie")).unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
