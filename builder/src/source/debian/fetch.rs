//! Downloads small files of an archive with apt-helper, so that apt's proxies, certificates and
//! methods apply.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::{Context, Error, Result, reason as io_reason};
use crate::io::bounded;

const HELPER: &str = "/usr/lib/apt/apt-helper";

/// The answer of a reachable archive about a file.
#[derive(Debug)]
pub enum Answer {
    /// The content of the file.
    Bytes(Vec<u8>),
    /// The archive does not have the file.
    Missing,
}

/// Fetches a file of at most `limit` bytes. An error means that the archive is unreachable.
pub fn fetch(url: &str, proxy: Option<&str>, limit: u64) -> Result<Answer> {
    if let Some(path) = local(url) {
        return read(&path, limit);
    }
    let folder = tempfile::Builder::new()
        .prefix("adamant-archive-")
        .permissions(Permissions::from_mode(0o700))
        .tempdir()
        .context(|| "creating a temporary directory")?;
    download(url, proxy, &folder.path().join("file"), limit)
}

/// The local path of an address, if it is a file.
pub fn local(url: &str) -> Option<PathBuf> {
    let path = url
        .strip_prefix("file:")
        .or_else(|| url.strip_prefix("copy:"))?;
    Some(PathBuf::from(format!("/{}", path.trim_start_matches('/'))))
}

fn read(path: &Path, limit: u64) -> Result<Answer> {
    match bounded::read(path, limit) {
        Ok(bytes) => Ok(Answer::Bytes(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Answer::Missing),
        Err(error) => Err(Error::new(format!(
            "{}: {}",
            path.display(),
            io_reason(&error)
        ))),
    }
}

fn download(url: &str, proxy: Option<&str>, file: &Path, limit: u64) -> Result<Answer> {
    let mut command = Command::new(HELPER);
    command.args([
        "-o",
        "Acquire::Retries=2",
        "-o",
        "Acquire::http::Timeout=20",
        "-o",
        "Acquire::https::Timeout=20",
        "-o",
        "APT::Sandbox::User=root",
    ]);
    if let Some(proxy) = proxy {
        command
            .arg("-o")
            .arg(format!("Acquire::http::Proxy={proxy}"))
            .arg("-o")
            .arg(format!("Acquire::https::Proxy={proxy}"));
    }
    command
        .arg("download-file")
        .arg(url)
        .arg(file)
        .stdin(Stdio::null())
        .env("LC_ALL", "C.UTF-8");
    let output = command.output().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Error::new(format!("{HELPER} is not installed"))
            .hint("install apt: mmdebstrap needs it too"),
        _ => Error::new(format!("starting {HELPER}: {}", io_reason(&error))),
    })?;
    if output.status.success() {
        return read(file, limit);
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned()
        + &String::from_utf8_lossy(&output.stdout);
    match reason(&said, url) {
        None => Ok(Answer::Missing),
        Some(why) => Err(Error::new(format!("{}: {why}", without_password(url)))),
    }
}

/// apt's reason for a failed download; `None` if the archive does not have the file.
fn reason(said: &str, url: &str) -> Option<String> {
    let failed = said
        .lines()
        .find_map(|line| line.strip_prefix("E: Failed to fetch "))
        .unwrap_or_default();
    let why = failed.strip_prefix(url).unwrap_or(failed).trim();
    // `[IP: ...]` is the address of the proxy or server.
    let why = why.split(" [IP:").next().unwrap_or(why).trim();
    if why.starts_with("404")
        || why.starts_with("410")
        || why.starts_with("File not found")
        || why.contains("No such file or directory")
    {
        return None;
    }
    let method = said
        .lines()
        .find_map(|line| line.strip_prefix("E: "))
        .filter(|line| line.contains("method driver"));
    Some(match (method, why) {
        (Some(method), _) => method.trim_end_matches('.').to_owned(),
        (None, "") => "no answer".to_owned(),
        (None, why) => why.split_whitespace().collect::<Vec<_>>().join(" "),
    })
}

/// An address without its user name and password.
pub fn without_password(uri: &str) -> String {
    let Some((scheme, rest)) = uri.split_once("://") else {
        return uri.to_owned();
    };
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = host.rsplit('@').next().unwrap_or(host);
    format!("{scheme}://{host}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distinguishes_a_missing_file_from_an_unreachable_archive() {
        let url = "http://x/dists/a/InRelease";
        assert_eq!(
            reason(
                "Err:1 http://x\nE: Failed to fetch http://x/dists/a/InRelease  404  Not Found [IP: 1.2.3.4 80]\nE: Download Failed\n",
                url
            ),
            None
        );
        let refused = "E: Failed to fetch http://x/dists/a/InRelease  Could not connect to x:9 (1.2.3.4). - connect (111: Connection refused)\n";
        assert_eq!(
            reason(refused, url).unwrap(),
            "Could not connect to x:9 (1.2.3.4). - connect (111: Connection refused)"
        );
        let method = "E: The method driver /usr/lib/apt/methods/foo could not be found.\nE: Failed to fetch http://x/dists/a/InRelease  \n";
        assert_eq!(
            reason(method, url).unwrap(),
            "The method driver /usr/lib/apt/methods/foo could not be found"
        );
        assert_eq!(reason("", url).unwrap(), "no answer");
        assert_eq!(
            reason(
                "E: Failed to fetch http://x/dists/a/InRelease  403  Forbidden [IP: 1.2.3.4 80]\n",
                url
            )
            .unwrap(),
            "403 Forbidden"
        );
    }

    #[test]
    fn passwords_of_addresses_are_not_shown() {
        assert_eq!(
            without_password("https://me:secret@host:80/debian"),
            "https://host:80/debian"
        );
        assert_eq!(without_password("http://host/a@b"), "http://host/a@b");
        assert_eq!(without_password("file:/srv/mirror"), "file:/srv/mirror");
    }

    #[test]
    fn local_addresses_are_paths() {
        assert_eq!(local("file:///srv/m").unwrap(), Path::new("/srv/m"));
        assert_eq!(local("copy:/srv/m").unwrap(), Path::new("/srv/m"));
        assert!(local("http://srv/m").is_none());
    }
}
