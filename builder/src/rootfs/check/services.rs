//! Common faults of services on a read-only root: sshd's host keys, /tmp, /var, home directories,
//! open accounts.

use super::units::Units;
use super::writable::Writable;
use super::{Finding, Image, listed};

pub fn check(image: &Image, units: &Units, writable: &Writable) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(host_keys(image, units, writable));
    findings.extend(state(writable));
    findings.extend(homes(image, writable));
    findings.extend(open_accounts(image));
    findings
}

fn warning(rule: &'static str, message: String, hint: impl Into<String>) -> Finding {
    Finding {
        is_error: false,
        rule,
        message,
        hint: hint.into(),
    }
}

/// The remedy for host keys: another path, and who creates them.
const HOST_KEY_HINT: &str = "let sshd read its host key from the state volume, and create the key there:\n\
    [[file]]\npath = \"/etc/ssh/sshd_config.d/host-key.conf\"\ncontent = \"HostKey /var/lib/ssh/ssh_host_ed25519_key\\n\"\n\
    [[file]]\npath = \"/etc/systemd/system/ssh.service.d/host-key.conf\"\n\
    content = \"[Service]\\nStateDirectory=ssh\\nExecStartPre=\\n\
    ExecStartPre=/bin/sh -c 'test -s /var/lib/ssh/ssh_host_ed25519_key || ssh-keygen -q -t ed25519 -N \\\"\\\" -f /var/lib/ssh/ssh_host_ed25519_key'\\n\
    ExecStartPre=/usr/sbin/sshd -t\\n\"";

/// sshd does not start without a host key, and a key in the image would be shared by all servers.
fn host_keys(image: &Image, units: &Units, writable: &Writable) -> Option<Finding> {
    if !image.exists("/usr/sbin/sshd")
        || !units.any(&["ssh.service", "sshd.service", "ssh.socket", "sshd.socket"])
    {
        return None;
    }
    let keys = configured_keys(image);
    let in_image: Vec<String> = keys
        .iter()
        .filter(|key| image.exists(key))
        .cloned()
        .collect();
    if !in_image.is_empty() {
        let message = format!(
            "sshd's host keys are in the image, the same on every server and readable by anyone with the image: {}",
            listed(&in_image)
        );
        return Some(warning("sshd-shared-host-keys", message, HOST_KEY_HINT));
    }
    let on_volume: Vec<String> = keys
        .iter()
        .filter(|key| writable.holds(key))
        .cloned()
        .collect();
    // A key on sshd's own command line is not in its configuration.
    if on_volume.is_empty() && !units.runs_command("HostKey") && !units.runs_command("sshd -h") {
        let message = format!(
            "sshd will not start: its host keys ({}) are on the read-only root, where they cannot be created",
            listed(&keys)
        );
        // Without authorized keys or passwords, no login was intended.
        let hint = format!(
            "{HOST_KEY_HINT}\nor, if no login is intended, mask it: [[file]] path = \"/etc/systemd/system/ssh.service\", link = \"/dev/null\""
        );
        return Some(Finding {
            is_error: true,
            ..warning("sshd-without-host-keys", message, hint)
        });
    }
    if on_volume.is_empty() {
        return None;
    }
    (!units.runs_command("ssh-keygen") && !units.runs_command("sshd-keygen")).then(|| {
        warning(
            "sshd-without-host-keys",
            format!(
                "no unit that starts at boot creates sshd's host keys ({})",
                listed(&on_volume)
            ),
            HOST_KEY_HINT,
        )
    })
}

/// `HostKey` of sshd_config and its included files, else sshd's defaults (sshd_config(5)).
fn configured_keys(image: &Image) -> Vec<String> {
    let mut texts = vec![image.text("/etc/ssh/sshd_config").unwrap_or_default()];
    for name in image
        .names("/etc/ssh/sshd_config.d")
        .iter()
        .filter(|name| name.ends_with(".conf"))
    {
        texts.push(
            image
                .text(&format!("/etc/ssh/sshd_config.d/{name}"))
                .unwrap_or_default(),
        );
    }
    let key = |line: &str| {
        let (word, path) = line.trim().split_once([' ', '\t', '='])?;
        word.eq_ignore_ascii_case("HostKey")
            .then(|| path.trim().trim_matches(['=', ' ', '"']).to_owned())
    };
    let keys: Vec<String> = texts
        .iter()
        .flat_map(|text| text.lines())
        .filter_map(key)
        .collect();
    match keys.is_empty() {
        true => ["rsa", "ecdsa", "ed25519"]
            .map(|kind| format!("/etc/ssh/ssh_host_{kind}_key"))
            .into(),
        false => keys,
    }
}

fn state(writable: &Writable) -> Option<Finding> {
    (!writable.holds("/var")).then(|| {
        warning(
            "var-read-only",
            "/var is read-only: services that store state there fail, and the server has another identity after each start".to_owned(),
            "[[volume]] name = \"state\", mount = \"/var\", size = \"512M\"",
        )
    })
}

/// Home directories of users who can log in. root's is left out: nothing is stored there on a
/// server that never changes.
fn homes(image: &Image, writable: &Writable) -> Option<Finding> {
    let passwd = image.text("/etc/passwd").unwrap_or_default();
    let homes: Vec<String> = passwd
        .lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let [name, _, uid, _, _, home, shell] = fields[..] else {
                return None;
            };
            let is_person = uid
                .parse::<u32>()
                .is_ok_and(|uid| (1000..65534).contains(&uid))
                && !shell.ends_with("nologin")
                && !shell.ends_with("/false");
            (is_person && home.starts_with('/') && !writable.holds(home))
                .then(|| format!("{name} ({home})"))
        })
        .collect();
    (!homes.is_empty()).then(|| {
        warning(
            "home-read-only",
            format!("accounts whose home can't be written: {}", listed(&homes)),
            "[[volume]] name = \"home\", mount = \"/home\", size = \"64M\"",
        )
    })
}

/// An empty password admits everyone at a login prompt.
fn open_accounts(image: &Image) -> Option<Finding> {
    let shadow = image.text("/etc/shadow").unwrap_or_default();
    let open: Vec<String> = shadow
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(_, rest)| rest.starts_with(':'))
        .map(|(name, _)| name.to_owned())
        .collect();
    (!open.is_empty()).then(|| {
        warning(
            "empty-password",
            format!("accounts with an empty password: {}", listed(&open)),
            "lock them (`*` in the second field of /etc/shadow), and pass SSH keys in the credential ssh.authorized_keys.root",
        )
    })
}
