//! The agent's mount points: each must be a directory of the image, without symbolic links in its
//! path, because the agent follows none.

use adamant_contract::policy::Policy;

use super::{Finding, Image};
use crate::definition::VolumeDefinition;
use crate::tree::{Kind, LinkPolicy, ResolveError, parts, show};

/// Mount points that the agent and the kernel need.
const KERNELS: [&str; 4] = ["/proc", "/sys", "/dev", "/run"];

pub fn check(image: &Image) -> Vec<Finding> {
    let kernels = KERNELS
        .into_iter()
        .filter_map(|path| judge(image, path, None));
    let volumes = image
        .definition
        .volumes
        .iter()
        .filter_map(|volume| judge(image, &volume.policy.mount, Some(volume)));
    kernels.chain(volumes).collect()
}

fn error(rule: &'static str, message: String, hint: String) -> Option<Finding> {
    Some(Finding {
        is_error: true,
        rule,
        message,
        hint,
    })
}

fn judge(image: &Image, mount: &str, volume: Option<&VolumeDefinition>) -> Option<Finding> {
    let mut links: Vec<(String, String)> = Vec::new();
    let end = image.tree.follow(parts(mount.as_bytes()), &mut |link| {
        if let Kind::Symlink(target) = &image.tree.node(link.id).kind {
            links.push((format!("/{}", show(&link.path())), show(target)));
        }
        LinkPolicy::Follow
    });
    let what = volume.map_or_else(
        || mount.to_owned(),
        |volume| {
            format!(
                "{mount}, the mount point of volume {:?},",
                volume.policy.name
            )
        },
    );
    if let Some((link, target)) = links.first() {
        let goes = if link == mount {
            "is a symbolic link"
        } else {
            "goes through a symbolic link"
        };
        let chain = links
            .iter()
            .map(|(link, target)| format!("{link} -> {target}"))
            .take(super::NAMED)
            .collect::<Vec<_>>()
            .join(", ");
        let replace = format!(
            "replace the link by a directory: [[file]] path = {link:?}, absent = true, and [[file]] path = {mount:?}, directory = true"
        );
        return match end {
            Err(ResolveError::Loop | ResolveError::Refused(_)) => error(
                "mount-point-link",
                format!("{what} {goes} that is part of a symbolic link loop ({link} -> {target})"),
                replace,
            ),
            Ok(end) => {
                let real = format!("/{}", show(&end.path()));
                let hint = match volume {
                    Some(volume) if is_possible(image, volume, &real) => {
                        let directory = if image.is_directory(&real) {
                            String::new()
                        } else {
                            format!(" and [[file]] path = {real:?}, directory = true")
                        };
                        format!("write mount = {real:?}{directory}; or {replace}")
                    }
                    // Links such as /lib depend on the merged /usr.
                    Some(_) if link != mount => format!(
                        "mount the volume elsewhere, for example below /srv or /var: {real} belongs to the image"
                    ),
                    _ => replace,
                };
                error(
                    "mount-point-link",
                    format!(
                        "{what} {goes} ({chain}), and the agent follows no symbolic links when it mounts"
                    ),
                    hint,
                )
            }
        };
    }
    let found = end.ok().and_then(|end| end.node());
    match found.map(|id| &image.tree.node(id).kind) {
        Some(Kind::Directory(_)) => None,
        Some(_) => error(
            "no-mount-point",
            format!("{what} is not a directory, but a file system is mounted there"),
            format!(
                "[[file]] path = {mount:?}, absent = true, and [[file]] path = {mount:?}, directory = true"
            ),
        ),
        None => error(
            "no-mount-point",
            format!("{what} does not exist in the image, but a file system is mounted there"),
            format!("[[file]] path = {mount:?}, directory = true"),
        ),
    }
}

/// Whether the volume could be mounted at this path instead.
fn is_possible(image: &Image, volume: &VolumeDefinition, path: &str) -> bool {
    let mut policy: Policy = image.definition.policy();
    let is_taken = policy
        .volumes
        .iter()
        .any(|other| other.name != volume.policy.name && other.mount == path);
    if let Some(own) = policy
        .volumes
        .iter_mut()
        .find(|own| own.name == volume.policy.name)
    {
        own.mount = path.to_owned();
    }
    // The policy orders volumes by mount point, and the new path may change the order.
    policy
        .volumes
        .sort_by_key(|volume| volume.mount.matches('/').count());
    !is_taken && policy.check().is_ok()
}
