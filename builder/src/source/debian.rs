//! Debian packages, put together by mmdebstrap: well kept, made for it, and able to do it without being root.
//!
//! What it gives is kept in a cache, under a key made of everything that decides it: the definition's words, mmdebstrap's version, the
//! keyring, and the archive's own state (its `InRelease`). Where the archive can't be reached, the newest entry for the same words is used,
//! and that is said. The archive's signatures are checked by apt; nothing here turns that off.

mod archive;
mod cache;

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;
use sha2::{Digest, Sha256};

use self::cache::Cache;
pub use self::cache::archives;
use super::{ArchiveHash, Budget, Loaded, Surroundings, tar};
use crate::definition::{Debian, values};
use crate::error::{Context, Error, Result};
use crate::manifest;
use crate::prerequisite;
use crate::tree::Tree;

/// The last lines of mmdebstrap's words that go into an error.
const LAST_LINES: usize = 8;

/// Puts the packages together, or takes them from the cache, and loads the result.
pub fn load(tree: &mut Tree, at: &[u8], debian: &Debian, budget: &mut Budget, surroundings: &Surroundings) -> Result<Loaded> {
    let (words, state) = ask(debian);
    let words = words?;
    let cache = Cache::open(&surroundings.cache, &words)?;
    let name = format!("{} {}", debian.suite, debian.packages.join(" "));
    // What is there is read while it is hashed. It is all or nothing, so what it makes stays apart until it is known to be an archive.
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
                return Ok(Loaded { kind: "debian", name, date: Some(entry.seconds()), sha256, claim, ..loaded });
            }
            // It is damaged, or too much: the slow way says which.
            Err(error) => log::warn!("suite {}: the packages in the cache can't be read: {error}", debian.suite),
        }
    }
    let key = match &state {
        Ok(state) => Some(cache.key(&state.digest)),
        Err(_) => None,
    };
    let found = match (&key, &state) {
        _ if !surroundings.use_cache => None,
        (Some(key), _) => cache.get(key)?,
        (None, Err(why)) => {
            let newest = cache.newest()?.ok_or_else(|| {
                Error::new(format!("suite {}: the archive can't be reached ({}), and the cache has nothing for this source", debian.suite, why.message()))
                    .hint("connect to the network, or give `mirror`, `proxy` or `snapshot` for this source")
            })?;
            log::warn!(
                "suite {}: the archive can't be reached ({}); using what was put together before, archive of {}",
                debian.suite,
                why.message(),
                values::moment(newest.seconds())
            );
            Some(newest)
        }
        _ => None,
    };
    let entry = match (found, state) {
        (Some(entry), _) => {
            log::info!("suite {}: packages from the cache", debian.suite);
            entry
        }
        (None, Ok(state)) => {
            let key = key.unwrap_or_default();
            let place = cache.place(&key)?;
            // Another build may have made it while this one waited for the place.
            match if surroundings.use_cache { cache.get(&key)? } else { None } {
                Some(entry) => entry,
                None => {
                    bootstrap(debian, state.date, place.path())?;
                    place.keep(state.date)?
                }
            }
        }
        (None, Err(why)) => {
            return Err(Error::new(format!("suite {}: the archive can't be reached: {}", debian.suite, why.message()))
                .hint("connect to the network, or build without --no-cache"));
        }
    };
    let loaded = tar::load(tree, at, entry.path(), budget, &surroundings.spool)?;
    Ok(Loaded { kind: "debian", name, date: Some(entry.seconds()), sha256: made_of(tree, at)?.map_or(loaded.sha256, ArchiveHash::known), ..loaded })
}

/// A digest of all that decides what a build would get for this source. An error where the archive can't be reached.
pub fn state(debian: &Debian) -> Result<[u8; 32]> {
    let (words, state) = ask(debian);
    Ok(Sha256::new().chain_update(words?).chain_update(state?.digest).finalize().into())
}

/// Everything the definition says, and the state of the archive; both take about as long.
fn ask(debian: &Debian) -> (Result<String>, Result<archive::State>) {
    std::thread::scope(|scope| {
        let state = scope.spawn(|| archive::state(debian));
        (words(debian), state.join().unwrap_or_else(|_| Err(Error::new("asking the archive failed"))))
    })
}

/// What the result was made from: one digest over the packages with their versions. The bytes of what mmdebstrap gives differ each time, in host
/// keys and logs, which scrubbing takes out; the packages are what stays. `None` where dpkg's database is not part of the variant.
fn made_of(tree: &Tree, at: &[u8]) -> Result<Option<[u8; 32]>> {
    let packages = manifest::packages(tree, at)?;
    let mut digest = Sha256::new();
    for package in &packages {
        digest.update(format!("{} {} {}\n", package.name, package.architecture, package.version));
    }
    Ok((!packages.is_empty()).then(|| digest.finalize().into()))
}

/// What a build would find in the cache: the archive's date of the newest entry for this source, seconds since 1970.
pub fn cached(debian: &Debian, cache: &Path) -> Result<Option<i64>> {
    Cache::at(cache, &words(debian)?).newest_date()
}

/// Everything the definition says, and the tools that read it.
fn words(debian: &Debian) -> Result<String> {
    let keyring = adamant_agent::hash::hex(&keyrings(debian)?);
    // Where its file is does not count.
    let named = Debian { keyring: debian.keyring.as_ref().map(|_| PathBuf::new()), ..debian.clone() };
    Ok(format!("{named:?} keyring {keyring} {}", version()?).replace(['\n', '\0'], " "))
}

/// Keyrings that mmdebstrap uses when the definition names none: what apt trusts here, and Debian's own, which it names to apt where apt
/// does not know the keys in it (mmdebstrap(1), --keyring).
const TRUSTED: [&str; 4] =
    ["/etc/apt/trusted.gpg", "/etc/apt/trusted.gpg.d", "/usr/share/keyrings/debian-archive-keyring.gpg", "/usr/share/keyrings/debian-archive-keyring.pgp"];

/// One digest over the keyrings that decide whether the archive's signatures are good.
fn keyrings(debian: &Debian) -> Result<[u8; 32]> {
    let mut digest = Sha256::new();
    if let Some(own) = &debian.keyring {
        digest.update(keyring(own).context(|| format!("keyring {}", own.display()))?);
        return Ok(digest.finalize().into());
    }
    for place in TRUSTED.map(Path::new) {
        let mut files = vec![place.to_owned()];
        if place.is_dir() {
            let list = std::fs::read_dir(place).and_then(|list| list.map(|entry| entry.map(|entry| entry.path())).collect::<std::io::Result<Vec<_>>>());
            files = list.context(|| format!("keyrings in {}", place.display()))?;
            // The others mean nothing to apt.
            files.retain(|file| file.extension().is_some_and(|ending| ending == "gpg" || ending == "asc"));
            files.sort();
        }
        for file in files.iter().filter(|file| file.exists()) {
            digest.update(keyring(file).context(|| format!("keyring {}", file.display()))?);
        }
    }
    Ok(digest.finalize().into())
}

fn keyring(path: &Path) -> std::io::Result<[u8; 32]> {
    let mut bytes = Vec::new();
    File::open(path)?.take(64 << 20).read_to_end(&mut bytes)?;
    Ok(Sha256::digest(&bytes).into())
}

/// As `mmdebstrap --version` says it, which takes it a quarter of a second: it is a script, and its version stands in it.
fn version() -> Result<String> {
    let places = std::env::var_os("PATH").unwrap_or_default();
    let script = std::env::split_paths(&places).map(|place| place.join("mmdebstrap")).find(|path| path.is_file());
    let text = script.and_then(|path| crate::bounded::read(&path, 4 << 20).ok());
    let line = text.as_deref().unwrap_or_default().split(|&b| b == b'\n').find_map(|line| line.strip_prefix(b"our $VERSION = '")?.strip_suffix(b"';"));
    if let Some(version) = line.and_then(|version| std::str::from_utf8(version).ok()) {
        return Ok(format!("mmdebstrap {version}"));
    }
    let output = Command::new("mmdebstrap").arg("--version").stdin(Stdio::null()).output().map_err(missing)?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn missing(error: std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::NotFound => prerequisite::missing("mmdebstrap", "mmdebstrap"),
        _ => Error::new(format!("mmdebstrap: {error}")),
    }
}

/// Runs mmdebstrap into a tar. `date` becomes SOURCE_DATE_EPOCH.
fn bootstrap(debian: &Debian, date: i64, tar: &Path) -> Result<()> {
    let mut command = Command::new("mmdebstrap");
    command.arg(format!("--variant={}", debian.variant)).arg(format!("--architectures={}", debian.architecture)).arg("--format=tar");
    if !debian.packages.is_empty() {
        command.arg(format!("--include={}", debian.packages.join(",")));
    }
    command.arg(format!("--components={}", debian.components.join(",")));
    command.args(["--aptopt=Acquire::Retries \"3\"", "--aptopt=Acquire::http::Timeout \"30\"", "--aptopt=Acquire::https::Timeout \"30\""]);
    if debian.recommends {
        command.arg("--aptopt=APT::Install-Recommends \"true\"");
    }
    if let Some(proxy) = &debian.proxy {
        command.arg(format!("--aptopt=Acquire::http::Proxy \"{proxy}\"")).arg(format!("--aptopt=Acquire::https::Proxy \"{proxy}\""));
    }
    if debian.snapshot.is_some() {
        // A snapshot's index is as old as it is; its signature is checked all the same.
        command.arg("--aptopt=Acquire::Check-Valid-Until \"false\"");
    }
    if let Some(keyring) = &debian.keyring {
        command.arg(format!("--keyring={}", keyring.display()));
    }
    // mmdebstrap copies these from the building machine; a package's own link to systemd-resolved stays.
    command.arg("--customize-hook=rm -f \"$1/etc/hostname\"; [ -L \"$1/etc/resolv.conf\" ] || rm -f \"$1/etc/resolv.conf\"");
    command.arg("--").arg(&debian.suite).arg(tar);
    command.args(archive::mirrors(debian));
    for (name, _) in std::env::vars_os() {
        // What decides the result is in the key; the rest of the environment must not.
        let name = name.to_string_lossy().into_owned();
        if !matches!(
            name.as_str(),
            "PATH" | "HOME" | "TMPDIR" | "http_proxy" | "https_proxy" | "no_proxy" | "SSL_CERT_FILE" | "SSL_CERT_DIR" | "CURL_CA_BUNDLE"
        ) {
            command.env_remove(name);
        }
    }
    command.env("SOURCE_DATE_EPOCH", date.to_string()).env("LC_ALL", "C.UTF-8").env("TZ", "UTC").env("DEBIAN_FRONTEND", "noninteractive");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    // SAFETY: between fork and exec only prctl and umask are called, which are async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
            nix::sys::prctl::set_pdeathsig(Signal::SIGTERM).map_err(Into::into)
        });
    }
    log::info!("suite {}: putting packages together with mmdebstrap (a minute or two)", debian.suite);
    let mut child = command.spawn().map_err(missing)?;
    let last = listen(&mut child);
    let status = child.wait().context(|| "waiting for mmdebstrap")?;
    if !status.success() {
        let last = last.join("\n    ");
        return Err(Error::new(format!("mmdebstrap for suite {} failed ({status}); it last said:\n    {last}", debian.suite)).hint("-v shows all it says"));
    }
    Ok(())
}

/// Passes on what it says and keeps the last lines.
fn listen(child: &mut Child) -> Vec<String> {
    let mut last = std::collections::VecDeque::new();
    let Some(said) = child.stderr.take() else { return Vec::new() };
    let mut said = BufReader::new(said);
    let mut line = Vec::new();
    loop {
        line.clear();
        // A line without an end is bounded too.
        match (&mut said).take(64 << 10).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return last.into(),
            Ok(_) => {}
        }
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        log::debug!("mmdebstrap: {text}");
        // Progress bars are no news.
        if !text.trim().is_empty() && !text.contains("done]") {
            last.push_back(text);
        }
        if last.len() > LAST_LINES {
            last.pop_front();
        }
    }
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
            keyrings(&Debian { keyring: Some(dir.join(name)), ..archive::tests::debian("trixie") }).unwrap()
        };
        assert_eq!(of("a", "key"), of("b", "key"));
        assert_ne!(of("a", "key"), of("a", "other"));
        assert!(keyrings(&Debian { keyring: Some(dir.join("none")), ..archive::tests::debian("trixie") }).unwrap_err().message().contains("none"));
        // Without one, what this machine trusts is read: files that are there have a digest, and none is no error.
        keyrings(&archive::tests::debian("trixie")).unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
