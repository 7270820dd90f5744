//! `accept = ["ssh.authorized_keys.root"]`: whether a key from this credential allows a login.

use super::units::Units;
use super::writable::Writable;
use super::{Finding, Image, setting_lines};

const CREDENTIAL: &str = "ssh.authorized_keys.root";
/// Directories of tmpfiles.d(5), highest priority first.
const TMPFILES: [&str; 3] = [
    "/etc/tmpfiles.d",
    "/usr/local/lib/tmpfiles.d",
    "/usr/lib/tmpfiles.d",
];
/// How to make the credential work on a read-only root.
const HINT: &str = "have systemd-tmpfiles write the key to /run, and let sshd read it there:\n\
    [[file]]\npath = \"/etc/tmpfiles.d/provision.conf\"\ncontent = \"\"\"\nd  /run/ssh/authorized_keys       0755 root root - -\n\
    f^ /run/ssh/authorized_keys/root  0600 root root - ssh.authorized_keys.root\n\"\"\"\n\
    [[file]]\npath = \"/etc/ssh/sshd_config.d/10-keys.conf\"\n\
    content = \"AuthorizedKeysFile .ssh/authorized_keys /run/ssh/authorized_keys/%u\\nPermitRootLogin prohibit-password\\n\"";

pub fn check(image: &Image, units: &Units, writable: &Writable) -> Option<Finding> {
    if !image
        .definition
        .credentials
        .accept
        .iter()
        .any(|name| name == CREDENTIAL || name == "ssh.*" || name == "ssh.authorized_keys.*")
    {
        return None;
    }
    // A unit that reads the credential itself needs no check.
    let is_read = |text: &str| {
        text.contains(CREDENTIAL)
            || text.contains("ssh.authorized_keys")
            || text.contains("/run/credentials")
    };
    if units
        .enabled()
        .flat_map(|(_, unit)| unit.settings())
        .any(|setting| is_read(&setting.value))
    {
        return None;
    }
    let (why, hint) = obstacle(image, units, writable)?;
    Some(Finding {
        is_error: false,
        rule: "credential-without-effect",
        message: format!("[credentials] accepts {CREDENTIAL:?}, but it allows no login: {why}"),
        hint,
    })
}

fn obstacle(image: &Image, units: &Units, writable: &Writable) -> Option<(String, String)> {
    let has_server = ["/usr/sbin/sshd", "/usr/sbin/dropbear", "/usr/bin/sshd"]
        .iter()
        .any(|path| image.exists(path));
    if !has_server {
        return Some((
            "the image has no SSH server".to_owned(),
            "add the package openssh-server".to_owned(),
        ));
    }
    if !units.any(&[
        "ssh.service",
        "sshd.service",
        "ssh.socket",
        "sshd.socket",
        "dropbear.service",
        "dropbear.socket",
    ]) {
        let hint = "[[file]] path = \"/etc/systemd/system/multi-user.target.wants/ssh.service\", link = \"/usr/lib/systemd/system/ssh.service\"";
        return Some((
            "no unit of the SSH server is enabled".to_owned(),
            hint.to_owned(),
        ));
    }
    let written = written_by_tmpfiles(image);
    let Some((_, file)) = written.first() else {
        return Some((
            "no file in tmpfiles.d writes it where sshd reads it".to_owned(),
            HINT.to_owned(),
        ));
    };
    let writable_paths: Vec<&String> = written
        .iter()
        .map(|(path, _)| path)
        .filter(|path| path.contains('%') || writable.holds(path))
        .collect();
    if writable_paths.is_empty() {
        let path = &written[0].0;
        return Some((
            format!("{file} writes it to {path}, on the read-only root"),
            HINT.to_owned(),
        ));
    }
    if image.exists("/usr/sbin/dropbear") && !image.exists("/usr/sbin/sshd") {
        return None;
    }
    let config = SshConfig::read(image);
    if config
        .all("AuthorizedKeysCommand")
        .iter()
        .any(|command| !command.eq_ignore_ascii_case("none"))
        || units.runs_command("AuthorizedKeysFile")
    {
        return None;
    }
    let home = root_home(image);
    let read = config.key_files(&home);
    if !writable_paths.iter().any(|path| read.contains(path)) {
        let why = format!(
            "systemd-tmpfiles writes it to {}, and sshd reads keys from {}",
            writable_paths[0],
            read.join(", ")
        );
        return Some((why, HINT.to_owned()));
    }
    let is_refused = config
        .first("PermitRootLogin")
        .is_some_and(|value| value.eq_ignore_ascii_case("no"));
    is_refused.then(|| {
        (
            "sshd_config has PermitRootLogin no".to_owned(),
            "PermitRootLogin prohibit-password lets root log in with a key".to_owned(),
        )
    })
}

/// Paths where systemd-tmpfiles writes the credential, each with the file that configures it (`f^`
/// of tmpfiles.d(5)).
fn written_by_tmpfiles(image: &Image) -> Vec<(String, String)> {
    let mut out = Vec::new();
    for file in image.configuration_files(&TMPFILES) {
        for line in setting_lines(&image.text(&file).unwrap_or_default()) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            if let [kind, path, _, _, _, _, argument, ..] = fields[..]
                && kind.contains('^')
                && argument == CREDENTIAL
            {
                out.push((path.to_owned(), file.clone()));
            }
        }
    }
    out
}

fn root_home(image: &Image) -> String {
    let passwd = image.text("/etc/passwd").unwrap_or_default();
    let home = passwd
        .lines()
        .find(|line| line.starts_with("root:"))
        .and_then(|line| line.split(':').nth(5))
        .unwrap_or("/root");
    home.trim_end_matches('/').to_owned()
}

/// Settings of sshd_config and of the files that Debian's includes, in any order.
struct SshConfig {
    settings: Vec<(String, String)>,
}

impl SshConfig {
    fn read(image: &Image) -> SshConfig {
        let included = image
            .names("/etc/ssh/sshd_config.d")
            .into_iter()
            .filter(|name| name.ends_with(".conf"));
        let files: Vec<String> = included
            .map(|name| format!("/etc/ssh/sshd_config.d/{name}"))
            .chain(["/etc/ssh/sshd_config".to_owned()])
            .collect();
        let mut settings = Vec::new();
        for file in files {
            for line in setting_lines(&image.text(&file).unwrap_or_default()) {
                // Settings after a `Match` condition do not apply to every user.
                if line
                    .split_whitespace()
                    .next()
                    .is_some_and(|word| word.eq_ignore_ascii_case("Match"))
                {
                    break;
                }
                if let Some((key, value)) = line.split_once([' ', '\t', '=']) {
                    settings.push((
                        key.to_owned(),
                        value.trim_matches([' ', '\t', '=']).to_owned(),
                    ));
                }
            }
        }
        SshConfig { settings }
    }

    fn all(&self, key: &str) -> Vec<&str> {
        self.settings
            .iter()
            .filter(|(own, _)| own.eq_ignore_ascii_case(key))
            .map(|(_, value)| value.as_str())
            .collect()
    }

    /// sshd uses the first value of a key.
    fn first(&self, key: &str) -> Option<&str> {
        self.all(key).first().copied()
    }

    /// Files with root's authorized keys.
    fn key_files(&self, home: &str) -> Vec<String> {
        let written = self
            .first("AuthorizedKeysFile")
            .unwrap_or(".ssh/authorized_keys .ssh/authorized_keys2");
        let expand = |file: &str| {
            let file = file
                .trim_matches('"')
                .replace("%h", home)
                .replace("%u", "root")
                .replace("%U", "0")
                .replace("%%", "%");
            if file.starts_with('/') {
                file
            } else {
                format!("{home}/{file}")
            }
        };
        written.split_whitespace().map(expand).collect()
    }
}
