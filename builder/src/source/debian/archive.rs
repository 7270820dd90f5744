//! The state of a Debian archive: its `InRelease` files, fetched by apt's own helper so that its proxies, certificates and mirrors count.
//!
//! Only the date and a digest are taken from them here, to know whether the cache is current; whether they are signed is for apt to check
//! when packages are installed.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use sha2::{Digest, Sha256};

use crate::definition::{Debian, values};
use crate::error::{Context, Error, Result};

/// Debian's own mirror network.
const MIRROR: &str = "http://deb.debian.org/debian";
const SECURITY: &str = "http://security.debian.org/debian-security";
const SNAPSHOT: &str = "http://snapshot.debian.org/archive";
/// Suites of the archive that get neither updates nor security suites of their own.
const ROLLING: [&str; 4] = ["sid", "unstable", "experimental", "rc-buggy"];
/// InRelease files have some 200 KB.
const LIMIT: u64 = 16 << 20;

/// What decides which packages an archive gives.
#[derive(Debug, Clone)]
pub struct State {
    /// Over all `InRelease` files.
    pub digest: [u8; 32],
    /// The newest file's `Date`, seconds since 1970.
    pub date: i64,
}

/// One suite of one mirror.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Suite {
    mirror: String,
    name: String,
}

/// All suites of the source: the mirror's, and for Debian's own archives those for updates and security.
fn suites(debian: &Debian) -> Vec<Suite> {
    let one = |mirror: &str, name: String| Suite { mirror: mirror.trim_end_matches('/').to_owned(), name };
    let suite = &debian.suite;
    if !debian.mirrors.is_empty() {
        return debian.mirrors.iter().map(|mirror| one(mirror, suite.clone())).collect();
    }
    let (mirror, security) = match &debian.snapshot {
        Some(at) => (format!("{SNAPSHOT}/debian/{at}"), format!("{SNAPSHOT}/debian-security/{at}")),
        None => (MIRROR.to_owned(), SECURITY.to_owned()),
    };
    let mut all = vec![one(&mirror, suite.clone())];
    if !ROLLING.contains(&suite.as_str()) {
        all.push(one(&mirror, format!("{suite}-updates")));
        all.push(one(&security, format!("{suite}-security")));
    }
    all
}

/// The mirrors as mmdebstrap takes them: one `deb` line for each suite.
pub fn mirrors(debian: &Debian) -> Vec<String> {
    let components = debian.components.join(" ");
    suites(debian).iter().map(|suite| format!("deb {} {} {components}", suite.mirror, suite.name)).collect()
}

/// Asks the archive. An error means that it can't be reached.
pub fn state(debian: &Debian) -> Result<State> {
    let mut digest = Sha256::new();
    let mut date = i64::MIN;
    let urls: Vec<String> = suites(debian).iter().map(|suite| format!("{}/dists/{}/InRelease", suite.mirror, suite.name)).collect();
    let mut fetched = Vec::new();
    // All at the same time: each takes as long as the network does.
    std::thread::scope(|scope| {
        let threads: Vec<_> = urls.iter().map(|url| scope.spawn(|| fetch(url, debian.proxy.as_deref()))).collect();
        fetched.extend(threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(Error::new("asking the archive failed")))));
    });
    for (url, bytes) in urls.iter().zip(fetched) {
        let bytes = bytes?;
        digest.update((bytes.len() as u64).to_le_bytes());
        digest.update(&bytes);
        let text = String::from_utf8_lossy(&bytes);
        let line = text.lines().find_map(|line| line.strip_prefix("Date:")).and_then(parse_date);
        date = date.max(line.ok_or_else(|| Error::new(format!("{url}: no Date in it")))?);
    }
    Ok(State { digest: digest.finalize().into(), date })
}

/// Downloads a small file with apt-helper, which every system with mmdebstrap has.
fn fetch(url: &str, proxy: Option<&str>) -> Result<Vec<u8>> {
    if let Some(path) = url.strip_prefix("file:").map(|path| format!("/{}", path.trim_start_matches('/'))) {
        return read(&PathBuf::from(path));
    }
    // A name that nobody can have guessed.
    let folder = nix::unistd::mkdtemp(&std::env::temp_dir().join("adamant-archive-XXXXXX")).context(|| "a temporary folder")?;
    let file = folder.join("InRelease");
    let mut command = Command::new("/usr/lib/apt/apt-helper");
    command.args(["-o", "Acquire::Retries=2", "-o", "Acquire::http::Timeout=20", "-o", "Acquire::https::Timeout=20", "-o", "APT::Sandbox::User=root"]);
    if let Some(proxy) = proxy {
        command.arg("-o").arg(format!("Acquire::http::Proxy={proxy}")).arg("-o").arg(format!("Acquire::https::Proxy={proxy}"));
    }
    let output = command.arg("download-file").arg(url).arg(&file).stdin(Stdio::null()).output();
    let bytes = output.context(|| "apt-helper").and_then(|output| {
        if output.status.success() {
            return read(&file);
        }
        let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        let why = said.lines().find(|line| line.starts_with("E:") || line.starts_with("Err")).unwrap_or("no answer").trim().to_owned();
        Err(Error::new(format!("{url}: {why}")))
    });
    let _ = fs::remove_dir_all(&folder);
    bytes
}

fn read(path: &PathBuf) -> Result<Vec<u8>> {
    let size = fs::metadata(path).context(|| format!("{}", path.display()))?.len();
    if size > LIMIT {
        return Err(Error::new(format!("{}: {size} bytes, too many for an InRelease file", path.display())));
    }
    fs::read(path).context(|| format!("{}", path.display()))
}

/// Reads `Sat, 14 Nov 2026 09:30:12 UTC` (RFC 5322 without a numeric zone, as Debian's archives write it) as seconds since 1970.
fn parse_date(text: &str) -> Option<i64> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let [_, day, month, year, time, "UTC" | "GMT" | "+0000"] = words[..] else { return None };
    let month = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"].iter().position(|name| *name == month)? as i64 + 1;
    let (day, year): (i64, i64) = (day.parse().ok()?, year.parse().ok()?);
    let time: Vec<i64> = time.split(':').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let [hour, minute, second] = time[..] else { return None };
    if !(1970..=9999).contains(&year) || !(1..=31).contains(&day) || !(0..24).contains(&hour) || !(0..60).contains(&minute) || !(0..=60).contains(&second) {
        return None;
    }
    let days = values::days_since_1970(year, month, day);
    Some(days * 86_400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn debian(suite: &str) -> Debian {
        Debian {
            suite: suite.to_owned(),
            packages: vec![],
            variant: "important".to_owned(),
            architecture: "amd64".to_owned(),
            components: vec!["main".to_owned()],
            mirrors: vec![],
            snapshot: None,
            proxy: None,
            keyring: None,
            recommends: false,
        }
    }

    #[test]
    fn dates_are_read_as_debian_writes_them() {
        assert_eq!(parse_date(" Sat, 01 Jan 2000 00:00:00 UTC"), Some(946_684_800));
        assert_eq!(parse_date("Thu, 29 Feb 2024 12:34:56 UTC"), Some(1_709_210_096));
        assert_eq!(parse_date("Tue, 14 Nov 2023 22:13:20 +0000"), Some(1_700_000_000));
        for bad in ["", "Sat, 01 Foo 2000 00:00:00 UTC", "Sat, 01 Jan 2000 00:00 UTC", "Sat, 01 Jan 2000 00:00:00 CET", "Sat, 99 Jan 2000 00:00:00 UTC"] {
            assert_eq!(parse_date(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_release_gets_its_updates_and_security_and_a_snapshot_all_three_of_one_date() {
        assert_eq!(mirrors(&debian("sid")), ["deb http://deb.debian.org/debian sid main"]);
        let dated = Debian { snapshot: Some("20261101T000000Z".to_owned()), ..debian("trixie") };
        assert_eq!(mirrors(&dated).len(), 3);
        assert!(mirrors(&dated).iter().all(|line| line.contains("20261101T000000Z")));
        let own = Debian { mirrors: vec!["file:/srv/mirror/".to_owned()], ..debian("trixie") };
        assert_eq!(mirrors(&own), ["deb file:/srv/mirror trixie main"]);
    }
}
