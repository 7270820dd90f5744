//! Debian packages, installed into an archive by mmdebstrap without root.
//!
//! The archive is cached. The key of a cache entry is a digest of all its inputs: the table of the
//! definition, the version of mmdebstrap, the keyrings, and the Release files of the package
//! archives. If a package archive is unreachable, the newest cache entry for the same table is
//! used, with a warning. apt always checks the signatures of the package archives.

mod archive;
mod bootstrap;
mod cache;
mod databases;
mod failure;
mod fetch;
mod packages;
mod release;
mod suites;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sha2::{Digest, Sha256};

pub use self::archive::{Archive, Warning};
use self::archive::{ArchiveState, Failure};
use self::cache::ArchiveCache;
pub use self::cache::archives;
pub use self::databases::Database;
use super::{ArchiveHash, Budget, CacheTrust, LoadContext, LoadedSource, dpkg, tar};
use crate::definition::mirror::Mirror;
use crate::definition::{Debian, values};
use crate::error::{Context, Error, Result};
use crate::io::prerequisite;
use crate::tree::Tree;

/// Increase this number when a change here makes mmdebstrap produce another result from the same
/// inputs.
const FORMAT: u32 = 2;

/// Installs the packages or takes them from the cache, and loads the result.
pub fn load(
    tree: &mut Tree,
    at: &[u8],
    debian: &Debian,
    budget: &mut Budget,
    context: &LoadContext,
) -> Result<LoadedSource> {
    let (inputs, state) = inputs_and_state(debian);
    let inputs = inputs?;
    let cache = ArchiveCache::open(&context.cache, &inputs)?;
    let name = format!("{} {}", debian.suite, debian.packages.join(" "));
    // The cache entry is read and hashed at the same time, into a copy of the tree until it has
    // been read to its end.
    if context.use_cache
        && context.trust_cache == CacheTrust::Optimistic
        && let Ok(state) = &state
        && let Some(entry) = cache.find(&cache.key(&state.digest))?
    {
        let (mut apart, mut left) = (tree.clone(), *budget);
        match tar::load(&mut apart, at, entry.path(), &mut left, &context.spool) {
            Ok(loaded) => {
                log::info!("suite {}: packages from the cache", debian.suite);
                (*tree, *budget) = (apart, left);
                let expected = Some(entry.expected_hash(&loaded.sha256));
                let sha256 = packages_digest(tree, at)?.map_or(loaded.sha256, ArchiveHash::known);
                let archive = Some(entry.archive().clone());
                let databases = databases::find(tree, at);
                return Ok(LoadedSource {
                    kind: "debian",
                    name,
                    date: Some(entry.seconds()),
                    sha256,
                    expected,
                    archive,
                    databases,
                    ..loaded
                });
            }
            // The entry is corrupted or exceeds the limits: the slow path below reports which.
            Err(error) => log::warn!(
                "suite {}: the packages in the cache can't be read: {error}",
                debian.suite
            ),
        }
    }
    let entry = match state {
        Ok(state) => current(debian, &state, &cache, context)?,
        Err(Failure::Refused(error)) => return Err(error),
        Err(Failure::Unreachable(why)) => newest(debian, &why, &cache, context)?,
    };
    let loaded = tar::load(tree, at, entry.path(), budget, &context.spool)?;
    let sha256 = packages_digest(tree, at)?.map_or(loaded.sha256, ArchiveHash::known);
    let (archive, databases) = (Some(entry.archive().clone()), databases::find(tree, at));
    Ok(LoadedSource {
        kind: "debian",
        name,
        date: Some(entry.seconds()),
        sha256,
        archive,
        databases,
        ..loaded
    })
}

/// The cache entry for the current state of the archives; installs the packages if there is none.
fn current(
    debian: &Debian,
    state: &ArchiveState,
    cache: &ArchiveCache,
    context: &LoadContext,
) -> Result<cache::CachedArchive> {
    let key = cache.key(&state.digest);
    let known = || {
        if context.use_cache {
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
    let slot = cache.lock_slot(&key)?;
    // Another build may have created the entry while this one waited for the lock.
    if let Some(entry) = known()? {
        return Ok(entry);
    }
    bootstrap::bootstrap(debian, state, slot.path(), &cache.log())?;
    slot.publish(state.date, state.archive.clone())
}

/// The newest cache entry for this source, for a build that cannot reach a package archive.
fn newest(
    debian: &Debian,
    why: &Error,
    cache: &ArchiveCache,
    context: &LoadContext,
) -> Result<cache::CachedArchive> {
    let why = format!(
        "suite {}: the archive can't be reached: {}",
        debian.suite,
        why.message()
    );
    if !context.use_cache {
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
        values::format_time(entry.seconds())
    );
    Ok(entry)
}

/// A digest of all inputs of this source. An error if an archive is unreachable.
pub fn state(debian: &Debian) -> Result<[u8; 32]> {
    let (inputs, state) = inputs_and_state(debian);
    Ok(Sha256::new()
        .chain_update(inputs?)
        .chain_update(state?.digest)
        .finalize()
        .into())
}

/// The table of the definition with the tool versions, and the state of the archives. Both take
/// about as long, so they run in parallel.
fn inputs_and_state(debian: &Debian) -> (Result<String>, Result<ArchiveState, Failure>) {
    std::thread::scope(|scope| {
        let state = scope.spawn(|| archive::state(debian));
        (
            inputs(debian),
            state.join().unwrap_or_else(|_| {
                Err(Failure::Unreachable(Error::new(
                    "reading the state of the archive failed",
                )))
            }),
        )
    })
}

/// A digest of the installed packages with their versions. The bytes of the archive differ in each
/// run, in host keys and logs, which scrubbing removes; the packages do not. `None` if the variant
/// has no dpkg database.
fn packages_digest(tree: &Tree, at: &[u8]) -> Result<Option<[u8; 32]>> {
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

/// The publication date of the newest cache entry for this source, seconds since 1970.
pub fn cached(debian: &Debian, cache: &Path) -> Result<Option<i64>> {
    ArchiveCache::at(cache, &inputs(debian)?).newest_date()
}

/// The table of the definition and the versions of the tools that read it, in one line.
fn inputs(debian: &Debian) -> Result<String> {
    let keyring = adamant_contract::hex::encode(&keyrings(debian)?);
    // The path of the definition does not matter.
    let named = Debian {
        keyring: debian.keyring.as_ref().map(|_| PathBuf::new()),
        ..debian.clone()
    };
    Ok(format!("{FORMAT} {named:?} keyring {keyring} {}", version()?).replace(['\n', '\0'], " "))
}

/// Keyrings that mmdebstrap uses by default: the keys that apt trusts on this machine, and Debian's
/// own, which mmdebstrap passes to apt if apt lacks them (mmdebstrap(1), --keyring).
const TRUSTED: [&str; 4] = [
    "/etc/apt/trusted.gpg",
    "/etc/apt/trusted.gpg.d",
    "/usr/share/keyrings/debian-archive-keyring.gpg",
    "/usr/share/keyrings/debian-archive-keyring.pgp",
];

/// A digest of the keyrings that verify the archives' signatures.
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
            // apt ignores all other files.
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
    fn the_cache_key_depends_on_the_content_of_the_keyring_and_not_on_its_name() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path();
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
        // The default keyrings of this machine: existing files have a digest, and missing files are
        // no error.
        keyrings(&archive::tests::debian("trixie")).unwrap();
    }
}
