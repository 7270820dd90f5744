//! Failures of a build without root: the user can't create a user namespace.

use std::path::Path;

use nix::unistd::{Uid, User};

use super::Cause;
use crate::io::prerequisite;

pub(super) fn without_root(said: &[String]) -> Option<Cause> {
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
pub(super) struct NamespaceSettings {
    pub(super) newuidmap: bool,
    pub(super) subuid: String,
    pub(super) subgid: String,
    /// Files below /proc/sys that forbid user namespaces, with their contents.
    pub(super) settings: Vec<(&'static str, String)>,
}

impl NamespaceSettings {
    pub(super) fn this() -> NamespaceSettings {
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

pub(super) fn userns(user: &str, machine: &NamespaceSettings) -> Option<Cause> {
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
