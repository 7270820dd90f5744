//! Adds files that the agent and the image's init need: the policy, the agent, mount points, empty
//! directories to show on volumes, the image's name and version in os-release, and an empty
//! machine-id.

use std::collections::BTreeMap;

use adamant_contract::paths;
use adamant_contract::policy::Policy;

use crate::definition::Definition;
use crate::error::{Context, Error, Result};
use crate::rootfs::interpreters;
use crate::rootfs::{start_places, volumes};
use crate::tree::{Content, Kind, Meta, Time, Tree};

const OS_RELEASE: &str = "/usr/lib/os-release";
const OS_RELEASE_LINK: &str = "/etc/os-release";
/// Maximum size of os-release, bytes; usually it has 300 bytes.
const OS_RELEASE_LIMIT: u64 = 64 << 10;

/// Mount points of kernel file systems, of temporary file systems and of the EFI system partition,
/// with their modes. /var holds the state of images without a volume.
const MOUNT_POINTS: [(&str, u16); 7] = [
    ("/efi", 0o755),
    ("/proc", 0o555),
    ("/sys", 0o555),
    ("/dev", 0o755),
    ("/run", 0o755),
    ("/tmp", 0o1777),
    ("/var", 0o755),
];

/// Adds all files. `epoch` is the modification time of new entries.
pub fn inject(
    tree: &mut Tree,
    definition: &Definition,
    agent: &[u8],
    epoch: Option<i64>,
) -> Result<()> {
    let mtime = Time {
        seconds: epoch.unwrap_or(0),
        nanoseconds: 0,
    };
    let meta = |mode| Meta {
        mode,
        mtime,
        ..Meta::default()
    };
    let file = |bytes: &[u8]| Kind::File(Content::from_memory(bytes));
    for (path, mode) in MOUNT_POINTS {
        directory(tree, path, meta(mode))?;
    }
    for volume in &definition.volumes {
        directory(tree, &volume.policy.mount, meta(0o755))?;
    }
    start_places::create(tree, definition, &meta(0o755))?;
    tree.insert(
        paths::POLICY_PATH.as_bytes(),
        meta(0o644),
        file(&write_policy(tree, definition)?),
    )?;
    tree.insert(paths::AGENT_PATH.as_bytes(), meta(0o755), file(agent))?;
    if tree.lookup(b"/etc/machine-id").is_none() {
        tree.insert(b"/etc/machine-id", meta(0o444), file(b""))?;
    }
    name_image(tree, definition, meta(0o644))
}

fn directory(tree: &mut Tree, path: &str, meta: Meta) -> Result<()> {
    if let Some(there) = tree.resolve(path.as_bytes()) {
        return match tree.node(there).kind {
            Kind::Directory(_) => Ok(()),
            _ => Err(Error::new(format!(
                "{path}: not a directory, but a file system will be mounted there"
            ))
            .hint(format!(
                "remove it: [[file]] path = {path:?}, absent = true"
            ))),
        };
    }
    // A dangling symbolic link stays: the check of mount points reports it.
    if tree.lookup(path.as_bytes()).is_some() {
        return Ok(());
    }
    tree.insert(path.as_bytes(), meta, Kind::Directory(BTreeMap::new()))
        .map(drop)
}

fn write_policy(tree: &Tree, definition: &Definition) -> Result<Vec<u8>> {
    let mut policy = definition.policy();
    policy.seal.interpreters = interpreters::refused(tree, definition);
    policy.image_data = volumes::image_data(tree, definition);
    let text = policy
        .to_json()
        .map_err(|e| Error::new(format!("the policy can't be written: {e}")))?;
    // The agent's own parser checks the policy, so that no image has a policy that the agent
    // refuses.
    Policy::parse(&text)
        .map_err(|why| Error::new(format!("the agent would refuse this policy: {why}")))?;
    Ok(text)
}

/// Writes IMAGE_ID and IMAGE_VERSION to os-release: the file is in /usr/lib, with a relative link
/// to it in /etc, as os-release(5) requires.
fn name_image(tree: &mut Tree, definition: &Definition, fresh: Meta) -> Result<()> {
    let found = tree
        .resolve(OS_RELEASE_LINK.as_bytes())
        .or_else(|| tree.resolve(OS_RELEASE.as_bytes()));
    let meta = found.map_or(fresh.clone(), |id| tree.node(id).meta.clone());
    let old = match tree
        .file_content(OS_RELEASE_LINK.as_bytes())
        .or_else(|| tree.file_content(OS_RELEASE.as_bytes()))
    {
        Some(content) => content.to_vec(OS_RELEASE_LIMIT).context(|| OS_RELEASE)?,
        None => b"ID=linux\nNAME=Linux\n".to_vec(),
    };
    let mut text = Vec::with_capacity(old.len() + 64);
    for line in old
        .split_inclusive(|&b| b == b'\n')
        .filter(|line| !line.starts_with(b"IMAGE_ID=") && !line.starts_with(b"IMAGE_VERSION="))
    {
        text.extend_from_slice(line);
    }
    if !text.is_empty() && !text.ends_with(b"\n") {
        text.push(b'\n');
    }
    text.extend_from_slice(
        format!(
            "IMAGE_ID={}\nIMAGE_VERSION={}\n",
            quoted(&definition.id),
            quoted(&definition.version)
        )
        .as_bytes(),
    );
    tree.insert(
        OS_RELEASE.as_bytes(),
        meta,
        Kind::File(Content::from_memory(text)),
    )?;
    let is_link = tree
        .lookup(OS_RELEASE_LINK.as_bytes())
        .is_some_and(|id| matches!(tree.node(id).kind, Kind::Symlink(_)));
    if !is_link || tree.resolve(OS_RELEASE_LINK.as_bytes()) != tree.lookup(OS_RELEASE.as_bytes()) {
        let meta = Meta {
            mode: 0o777,
            ..fresh
        };
        tree.insert(
            OS_RELEASE_LINK.as_bytes(),
            meta,
            Kind::Symlink(b"../usr/lib/os-release"[..].into()),
        )?;
    }
    Ok(())
}

/// Quotes a value for os-release(5) if it has special characters. Ids and versions contain no quote
/// characters.
fn quoted(value: &str) -> String {
    if value
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
    {
        value.to_owned()
    } else {
        format!("\"{value}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition() -> Definition {
        let text = "[image]\nid = \"web\"\nversion = \"1~rc1\"\n[[source]]\ntar = \"x\"\n[[volume]]\nname = \"data\"\nmount = \"/srv/data\"\nsize = \"16M\"\n";
        Definition::parse(text, std::path::Path::new("image.toml")).unwrap()
    }

    fn read(tree: &Tree, path: &str) -> String {
        String::from_utf8(
            tree.file_content(path.as_bytes())
                .unwrap()
                .to_vec(1 << 20)
                .unwrap(),
        )
        .unwrap()
    }

    #[test]
    fn injects_all_files_that_agent_and_init_need() {
        let mut tree = Tree::new();
        inject(&mut tree, &definition(), b"agent", Some(5)).unwrap();
        assert!(
            tree.resolve(b"/srv/data").is_some()
                && tree
                    .resolve(b"/tmp")
                    .is_some_and(|id| tree.node(id).meta.mode == 0o1777)
        );
        assert_eq!(
            read(&tree, "/etc/os-release"),
            "ID=linux\nNAME=Linux\nIMAGE_ID=web\nIMAGE_VERSION=\"1~rc1\"\n"
        );
        assert_eq!(read(&tree, "/etc/machine-id"), "");
        let policy = Policy::parse(read(&tree, paths::POLICY_PATH).as_bytes()).unwrap();
        assert_eq!(
            (policy.image.id.as_str(), policy.volumes[0].mount.as_str()),
            ("web", "/srv/data")
        );
        let agent = tree
            .resolve(paths::AGENT_PATH.as_bytes())
            .map(|id| tree.node(id).meta.clone())
            .unwrap();
        assert_eq!((agent.mode, agent.mtime.seconds), (0o755, 5));
    }

    #[test]
    fn os_release_keeps_its_other_lines_and_moves_to_usr_lib() {
        let mut tree = Tree::new();
        let text = b"NAME=\"Debian\"\nIMAGE_ID=old\nVERSION_ID=13";
        tree.insert(
            b"/etc/os-release",
            Meta {
                mode: 0o600,
                ..Meta::default()
            },
            Kind::File(Content::from_memory(&text[..])),
        )
        .unwrap();
        inject(&mut tree, &definition(), b"agent", None).unwrap();
        assert_eq!(
            read(&tree, "/usr/lib/os-release"),
            "NAME=\"Debian\"\nVERSION_ID=13\nIMAGE_ID=web\nIMAGE_VERSION=\"1~rc1\"\n"
        );
        let link = tree.lookup(b"/etc/os-release").unwrap();
        assert!(
            matches!(&tree.node(link).kind, Kind::Symlink(target) if &**target == b"../usr/lib/os-release")
        );
        let before = tree.walk().len();
        inject(&mut tree, &definition(), b"agent", None).unwrap();
        assert_eq!(tree.walk().len(), before);
    }

    #[test]
    fn refuses_a_file_where_a_volume_will_be_mounted() {
        let mut tree = Tree::new();
        tree.insert(b"/srv/data", Meta::default(), Kind::Fifo)
            .unwrap();
        assert!(
            inject(&mut tree, &definition(), b"agent", None)
                .unwrap_err()
                .to_string()
                .contains("absent = true")
        );
    }
}
