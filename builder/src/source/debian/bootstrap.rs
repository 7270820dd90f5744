//! Runs mmdebstrap in an environment that is the same on every machine.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;
use nix::unistd::Uid;

use super::archive::ArchiveState;
use super::failure;
use crate::definition::Debian;
use crate::error::{Context, Error, Result, reason};
use crate::io::prerequisite;

/// Maximum number of mmdebstrap's output lines kept for an error message.
const LINES: usize = 20_000;
/// Maximum length of such a line, bytes.
const LINE: u64 = 4 << 10;
/// The host name while packages are installed: some packages write it into their configuration.
const HOST: &str = "localhost";
/// Keyrings that apt trusts in addition to trusted.gpg.d if the definition names none: Debian's own
/// keys, which other distributions may lack in trusted.gpg.d.
const DEBIAN_KEYRINGS: [&str; 2] = [
    "/usr/share/keyrings/debian-archive-keyring.gpg",
    "/usr/share/keyrings/debian-archive-keyring.pgp",
];
/// apt's old keyring file. It is configured by the same apt option.
const TRUSTED: &str = "/etc/apt/trusted.gpg";

/// Runs before packages are unpacked and hides the host name and the resolver configuration of this
/// machine. mmdebstrap runs in its own UTS namespace; without one, the host name stays unchanged.
fn setup_hook() -> Option<String> {
    let ours = std::fs::read_link("/proc/self/ns/uts").ok()?;
    let hosts = "127.0.0.1 localhost\\n::1 localhost\\n";
    Some(format!(
        "[ \"$(readlink /proc/self/ns/uts)\" = '{}' ] || hostname {HOST} || :; echo {HOST} >\"$1/etc/hostname\"; : >\"$1/etc/resolv.conf\"; [ -e \"$1/etc/hosts\" ] || printf '{hosts}' >\"$1/etc/hosts\"",
        ours.display()
    ))
}

/// Runs after the installation. It keeps a package's own link to systemd-resolved and a hosts file
/// that a package changed.
fn customize_hook() -> String {
    let hosts = "127.0.0.1 localhost\\n::1 localhost\\n";
    format!(
        "rm -f \"$1/etc/hostname\"; [ -L \"$1/etc/resolv.conf\" ] || rm -f \"$1/etc/resolv.conf\"; if [ \"$(cat \"$1/etc/hosts\")\" = \"$(printf '{hosts}')\" ]; then rm -f \"$1/etc/hosts\"; fi"
    )
}

fn command(debian: &Debian, state: &ArchiveState, tar: &Path) -> Command {
    let mut command = Command::new("mmdebstrap");
    command
        .arg(format!("--variant={}", debian.variant))
        .arg(format!("--architectures={}", debian.architecture))
        .arg("--format=tar");
    if !debian.packages.is_empty() {
        command.arg(format!("--include={}", debian.packages.join(",")));
    }
    command.arg(format!("--components={}", debian.components.join(",")));
    command.args([
        "--aptopt=Acquire::Retries \"3\"",
        "--aptopt=Acquire::http::Timeout \"30\"",
        "--aptopt=Acquire::https::Timeout \"30\"",
    ]);
    if debian.recommends {
        command.arg("--aptopt=APT::Install-Recommends \"true\"");
    }
    if let Some(proxy) = &debian.proxy {
        command
            .arg(format!("--aptopt=Acquire::http::Proxy \"{proxy}\""))
            .arg(format!("--aptopt=Acquire::https::Proxy \"{proxy}\""));
    }
    if debian.snapshot.is_some() {
        // The index of a snapshot is as old as the snapshot. Its signature is still checked.
        command.arg("--aptopt=Acquire::Check-Valid-Until \"false\"");
    }
    let own = || {
        DEBIAN_KEYRINGS
            .iter()
            .map(PathBuf::from)
            .find(|path| path.exists())
            .filter(|_| !Path::new(TRUSTED).exists())
    };
    if let Some(keyring) = debian.keyring.clone().or_else(own) {
        command.arg(format!("--keyring={}", keyring.display()));
    }
    command.args(setup_hook().map(|hook| format!("--setup-hook={hook}")));
    command.arg(format!("--customize-hook={}", customize_hook()));
    command.arg("--").arg(&debian.suite).arg(tar);
    command.args(&state.lines);
    if !state.stanzas.is_empty() {
        command.arg("-");
    }
    command
}

/// Installs the packages into an archive. After a failure, `log` holds the output of mmdebstrap.
pub fn bootstrap(debian: &Debian, state: &ArchiveState, tar: &Path, log: &Path) -> Result<()> {
    let mut command = command(debian, state, tar);
    for (name, _) in std::env::vars_os() {
        // All inputs are in the cache key; no other environment variable may change the result.
        let name = name.to_string_lossy().into_owned();
        if !matches!(
            name.as_str(),
            "PATH"
                | "HOME"
                | "TMPDIR"
                | "http_proxy"
                | "https_proxy"
                | "no_proxy"
                | "SSL_CERT_FILE"
                | "SSL_CERT_DIR"
                | "CURL_CA_BUNDLE"
        ) {
            command.env_remove(name);
        }
    }
    command
        .env("SOURCE_DATE_EPOCH", state.date.to_string())
        .env("LC_ALL", "C.UTF-8")
        .env("TZ", "UTC")
        .env("DEBIAN_FRONTEND", "noninteractive");
    command
        .stdin(if state.stanzas.is_empty() {
            Stdio::null()
        } else {
            Stdio::piped()
        })
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let is_root = Uid::effective().is_root();
    // SAFETY: between fork and exec only unshare, prctl and umask are called, which are
    // async-signal-safe.
    unsafe {
        command.pre_exec(move || {
            // Without root, mmdebstrap creates a namespace itself. If unshare fails, the hook does
            // not set the host name.
            if is_root {
                let _ = unshare(CloneFlags::CLONE_NEWUTS);
            }
            nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
            nix::sys::prctl::set_pdeathsig(Signal::SIGTERM).map_err(Into::into)
        });
    }
    log::info!(
        "suite {}: installing packages with mmdebstrap (a minute or two)",
        debian.suite
    );
    let mut child = command.spawn().map_err(missing)?;
    if let Some(mut stdin) = child.stdin.take() {
        // Read to the end first; the output explains a failure.
        let _ = stdin
            .write_all(state.stanzas.join("\n\n").as_bytes())
            .and_then(|()| stdin.write_all(b"\n"));
    }
    let said = listen(&mut child);
    let status = child.wait().context(|| "waiting for mmdebstrap")?;
    if status.success() {
        return Ok(());
    }
    let written = std::fs::write(log, said.join("\n") + "\n")
        .inspect_err(|error| log::debug!("{}: {error}", log.display()));
    Err(failure::explain(
        debian,
        state,
        &said,
        &status.to_string(),
        written.is_ok().then_some(log),
    ))
}

/// The error if mmdebstrap cannot be started.
pub fn missing(error: std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::NotFound => prerequisite::missing("mmdebstrap", "mmdebstrap"),
        _ => Error::new(format!("starting mmdebstrap: {}", reason(&error))),
    }
}

/// Logs the output and keeps its last lines.
fn listen(child: &mut Child) -> Vec<String> {
    let mut last = VecDeque::new();
    let Some(said) = child.stderr.take() else {
        return Vec::new();
    };
    let mut said = BufReader::new(said);
    let mut line = Vec::new();
    loop {
        line.clear();
        // Bounds a line without a newline.
        match (&mut said).take(LINE).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return last.into(),
            Ok(_) => {}
        }
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        log::debug!("mmdebstrap: {text}");
        // Progress bars are not logged.
        if !text.trim().is_empty() && !text.contains("done]") {
            last.push_back(text);
        }
        if last.len() > LINES {
            last.pop_front();
        }
    }
}
