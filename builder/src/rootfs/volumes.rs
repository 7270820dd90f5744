//! The image's files below its volumes. Data that describes the image is bind-mounted from the
//! verified root. Other files form units: the agent seeds them to the volume and replaces them in
//! later images unless a server changed them.

use std::collections::BTreeSet;

use adamant_contract::paths::IDENTITY_DIR;
use adamant_contract::policy::is_below;

use super::start_places;
use crate::definition::Definition;
use crate::tree::{Kind, NodeId, Tree, parts, show};

/// Data that describes the image and belongs to its /usr: the package databases of the
/// distributions. It cannot change on a server, and scanners expect it at its usual path. Data that
/// services also write is not listed (dnf's history, the index of man, systemd's catalog); it is
/// seeded as units.
pub(super) const IMAGE_DATA: &[&str] = &[
    // Debian: packages, package lists, automatically installed packages, debconf answers.
    "/var/lib/dpkg",
    "/var/lib/apt/lists",
    "/var/lib/apt/extended_states",
    "/var/lib/aptitude",
    "/var/cache/debconf",
    // RPM; Arch; opkg; Gentoo; Void; Slackware (before version 15 in /var/log).
    "/var/lib/rpm",
    "/var/lib/pacman",
    "/var/lib/opkg",
    "/var/db/pkg",
    "/var/db/xbps",
    "/var/lib/pkgtools",
    "/var/log/packages",
];

/// The mount point below which each entry is a unit, also below its directory `lib`.
const STATE: &str = "/var";
/// Entries at the root of a volume that the agent never seeds.
const NOT_SEEDED: [&[u8]; 2] = [IDENTITY_DIR.as_bytes(), b"lost+found"];

/// Image data below the volumes, as absolute paths of directories and regular files, including
/// places from which programs take instructions at start. Symbolic links are excluded: their target
/// is outside of the volume or has its own path.
pub fn image_data(tree: &Tree, definition: &Definition) -> Vec<String> {
    let mounts = || {
        definition
            .volumes
            .iter()
            .map(|volume| volume.policy.mount.as_str())
    };
    let is_data = |path: &str| {
        let node = tree.lookup(path.as_bytes()).map(|id| &tree.node(id).kind);
        matches!(node, Some(Kind::Directory(_) | Kind::File(_)))
            && mounts().any(|mount| is_below(path, mount))
            // The operator chose to mount a volume there.
            && !mounts().any(|mount| mount == path || is_below(mount, path))
    };
    IMAGE_DATA
        .iter()
        .copied()
        .chain(start_places::shown(definition))
        .filter(|path| is_data(path))
        .map(str::to_owned)
        .collect()
}

/// The files that the agent seeds to a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shipped {
    /// Units by absolute path, sorted.
    pub units: Vec<String>,
    /// All entries except the root directory of the volume: absolute path and node.
    pub entries: Vec<(Vec<u8>, NodeId)>,
}

/// The image's files for the volume at `mount`, without those of volumes below it and without image
/// data.
pub fn shipped(tree: &Tree, definition: &Definition, mount: &str) -> Shipped {
    let data = image_data(tree, definition);
    let covered = |path: &[u8]| {
        let others = definition
            .volumes
            .iter()
            .map(|volume| volume.policy.mount.as_str())
            .filter(|other| is_below(other, mount));
        others.chain(data.iter().map(String::as_str)).any(|place| {
            path.strip_prefix(place.as_bytes())
                .is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
        })
    };
    let mut entries = Vec::new();
    tree.visit(&mut |path, id| {
        let Some(rest) = path
            .strip_prefix(mount.as_bytes())
            .and_then(|rest| rest.strip_prefix(b"/"))
        else {
            return;
        };
        if !covered(path)
            && !parts(rest)
                .next()
                .is_some_and(|top| NOT_SEEDED.contains(&top))
        {
            entries.push((path.to_vec(), id));
        }
    });
    let lib = format!("{STATE}/lib");
    let is_container = |path: &[u8]| {
        mount == STATE
            && path == lib.as_bytes()
            && tree
                .lookup(path)
                .is_some_and(|id| matches!(tree.node(id).kind, Kind::Directory(_)))
    };
    let mut units = BTreeSet::new();
    for (path, _) in entries.iter().filter(|(path, _)| !is_container(path)) {
        let depth =
            if path.starts_with(format!("{lib}/").as_bytes()) && is_container(lib.as_bytes()) {
                3
            } else {
                2
            };
        units.insert(match mount == STATE {
            true => format!(
                "/{}",
                parts(path)
                    .take(depth)
                    .map(show)
                    .collect::<Vec<_>>()
                    .join("/")
            ),
            false => mount.to_owned(),
        });
    }
    Shipped {
        units: units.into_iter().collect(),
        entries,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::tree::{Content, Meta};

    fn definition(volumes: &str) -> Definition {
        let text =
            format!("{volumes}[image]\nid = \"web\"\nversion = \"1\"\n[[source]]\ntar = \"x\"\n");
        Definition::parse(&text, Path::new("image.toml")).unwrap()
    }

    fn tree(files: &[&str]) -> Tree {
        let mut tree = Tree::new();
        for path in files {
            tree.insert(
                path.as_bytes(),
                Meta::default(),
                Kind::File(Content::from_memory(&b"x"[..])),
            )
            .unwrap();
        }
        tree
    }

    const FILES: [&str; 9] = [
        "/var/lib/dpkg/status",
        "/var/lib/apt/lists/index",
        "/var/lib/apt/extended_states",
        "/var/lib/app/deep/file",
        "/var/www/index.html",
        "/var/note",
        "/var/log/app/log",
        "/var/.adamant/seeded",
        "/srv/data/file",
    ];

    #[test]
    fn units_are_those_that_the_agent_seeds() {
        let (tree, definition) = (tree(&FILES), definition(""));
        assert_eq!(
            image_data(&tree, &definition),
            [
                "/var/lib/dpkg",
                "/var/lib/apt/lists",
                "/var/lib/apt/extended_states"
            ]
        );
        assert_eq!(
            shipped(&tree, &definition, "/var").units,
            ["/var/lib/app", "/var/lib/apt", "/var/note", "/var/www"]
        );
        assert_eq!(shipped(&tree, &definition, "/var/log").units, ["/var/log"]);
        let entries = shipped(&tree, &definition, "/var").entries.len();
        assert_eq!(
            entries,
            [
                "lib",
                "lib/apt",
                "lib/app",
                "lib/app/deep",
                "lib/app/deep/file",
                "www",
                "www/index.html",
                "note"
            ]
            .len()
        );
    }

    #[test]
    fn image_data_is_listed_only_below_volumes() {
        let tree = tree(&FILES);
        assert_eq!(image_data(&tree, &definition("volumes = []\n")), [""; 0]);
        let volume = |mount: &str| {
            format!("\n[[volume]]\nname = \"v\"\nmount = {mount:?}\nsize = \"16M\"\n")
        };
        let of = |mount: &str| {
            let text = format!(
                "[image]\nid = \"web\"\nversion = \"1\"\n[[source]]\ntar = \"x\"\n{}",
                volume(mount)
            );
            image_data(
                &tree,
                &Definition::parse(&text, Path::new("image.toml")).unwrap(),
            )
        };
        assert_eq!(
            of("/var/lib"),
            [
                "/var/lib/dpkg",
                "/var/lib/apt/lists",
                "/var/lib/apt/extended_states"
            ]
        );
        assert_eq!(
            of("/var/lib/apt"),
            ["/var/lib/apt/lists", "/var/lib/apt/extended_states"]
        );
        assert_eq!(of("/var/lib/dpkg"), [""; 0]);
        assert_eq!(of("/var/lib/apt/lists/partial"), [""; 0]);
        assert_eq!(of("/srv"), [""; 0]);
    }

    #[test]
    fn a_link_in_place_of_image_data_is_a_unit() {
        let mut tree = tree(&["/usr/lib/sysimage/rpm/rpmdb.sqlite"]);
        tree.insert(
            b"/var/lib/rpm",
            Meta::default(),
            Kind::Symlink(b"../../usr/lib/sysimage/rpm"[..].into()),
        )
        .unwrap();
        let definition = definition("");
        assert_eq!(image_data(&tree, &definition), [""; 0]);
        assert_eq!(shipped(&tree, &definition, "/var").units, ["/var/lib/rpm"]);
    }
}
