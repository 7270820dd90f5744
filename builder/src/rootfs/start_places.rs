//! Directories on volumes in which programs of the image find instructions that they execute at
//! each start or by the clock, without a login. An attacker who once wrote there would stay on the
//! server across restarts. So at level guard the image's own directory is shown there, like image
//! data.
//!
//! Directories below /etc and /usr are not listed: they belong to the verified root. Files that
//! programs read only at a login or for a message from outside are not listed either; see
//! "Instructions on volumes" in docs/threat-model.md.

use std::collections::BTreeMap;

use adamant_contract::policy::is_below;

use crate::definition::{Definition, Level};
use crate::error::Result;
use crate::tree::{Kind, Meta, Tree};

/// A member of [`START_PLACES`](adamant_contract::policy::START_PLACES), and the programs that read
/// it.
struct StartPlace {
    path: &'static str,
    /// Paths of the programs, as their packages install them.
    readers: &'static [&'static str],
    /// Whether the programs also store their state there, so that they do not work if the directory
    /// is read-only.
    is_written: bool,
}

const fn place(path: &'static str, readers: &'static [&'static str]) -> StartPlace {
    StartPlace {
        path,
        readers,
        is_written: false,
    }
}

const ATD: &[&str] = &["/usr/sbin/atd", "/usr/bin/atd"];
const PLACES: [StartPlace; 11] = [
    // Users whose service manager logind starts at boot, with the units in their home.
    place(
        "/var/lib/systemd/linger",
        &[
            "/usr/lib/systemd/systemd-logind",
            "/lib/systemd/systemd-logind",
        ],
    ),
    // Tables of users: in crontabs/ (Debian's cron, bcron, systemd-cron, busybox), in tabs/ (SUSE),
    // or in the directory itself (Red Hat, Arch). Debian's at has its jobs in atjobs/.
    place(
        "/var/spool/cron",
        &[
            "/usr/sbin/cron",
            "/usr/sbin/crond",
            "/usr/bin/crond",
            "/usr/sbin/bcron-sched",
            "/usr/lib/systemd/system-generators/systemd-crontab-generator",
            "/usr/sbin/atd",
        ],
    ),
    // Red Hat, Arch; SUSE.
    place("/var/spool/at", ATD),
    place("/var/spool/atjobs", ATD),
    place("/var/spool/fcron", &["/usr/sbin/fcron", "/usr/bin/fcron"]),
    place(
        "/var/spool/incron",
        &["/usr/sbin/incrond", "/usr/bin/incrond"],
    ),
    // Interpreters that binfmt-support registers at boot.
    place("/var/lib/binfmts", &["/usr/sbin/update-binfmts"]),
    // dkms runs the dkms.conf of each module as a shell script at boot.
    place("/var/lib/dkms", &["/usr/sbin/dkms"]),
    StartPlace {
        path: "/var/lib/cloud",
        readers: &["/usr/bin/cloud-init"],
        is_written: true,
    },
    // Hooks of containers that start with the machine run on the host.
    StartPlace {
        path: "/var/lib/lxc",
        readers: &["/usr/bin/lxc-autostart"],
        is_written: true,
    },
    StartPlace {
        path: "/var/lib/waagent",
        readers: &["/usr/sbin/waagent", "/usr/bin/waagent"],
        is_written: true,
    },
];

impl StartPlace {
    fn reader(&self, tree: &Tree) -> Option<&'static str> {
        self.readers
            .iter()
            .find(|path| tree.resolve(path.as_bytes()).is_some())
            .copied()
    }
}

/// The places that are to show the image's content, unless a volume is mounted at or below them.
pub fn shown(definition: &Definition) -> impl Iterator<Item = &'static str> {
    closed(definition)
        .filter(|place| !place.is_written)
        .map(|place| place.path)
}

/// All places at level guard, without the exceptions of the definition.
fn closed(definition: &Definition) -> impl Iterator<Item = &'static StartPlace> {
    PLACES.iter().filter(|place| {
        definition.seal.level == Level::Guard
            && !definition
                .seal
                .allow
                .at_start
                .iter()
                .any(|allowed| allowed == place.path)
    })
}

/// Creates the directories that the image lacks although it has a program that reads them: they are
/// the source of the mount over the volume's directory.
pub fn create(tree: &mut Tree, definition: &Definition, meta: &Meta) -> Result<()> {
    for place in closed(definition) {
        if !place.is_written
            && definition.is_on_volume(place.path)
            && tree.lookup(place.path.as_bytes()).is_none()
            && place.reader(tree).is_some()
            && link_above(tree, place.path).is_none()
        {
            let empty = Kind::Directory(BTreeMap::new());
            tree.insert(place.path.as_bytes(), meta.clone(), empty)?;
        }
    }
    Ok(())
}

/// The first component of a path that exists and is not a directory.
fn link_above<'p>(tree: &Tree, path: &'p str) -> Option<&'p str> {
    let ends = path.match_indices('/').skip(1).map(|(at, _)| at);
    ends.chain([path.len()])
        .map(|end| &path[..end])
        .find(|above| {
            tree.lookup(above.as_bytes())
                .is_some_and(|id| !matches!(tree.node(id).kind, Kind::Directory(_)))
        })
}

/// A place that can neither be shown from the image nor is excepted.
pub struct OpenPlace {
    /// The place.
    pub path: &'static str,
    /// The program of the image that reads it.
    pub reader: &'static str,
    /// Why it can't be shown from the image.
    pub why: String,
}

/// Places on volumes that a program of the image reads, and that can't be shown from the image.
pub fn open_places(tree: &Tree, definition: &Definition) -> Vec<OpenPlace> {
    let open = |place: &StartPlace| {
        let path = place.path;
        let reader = place.reader(tree)?;
        let mut mounts = definition
            .volumes
            .iter()
            .map(|volume| volume.policy.mount.as_str())
            .filter(|mount| *mount == path || is_below(path, mount) || is_below(mount, path))
            .peekable();
        mounts.peek()?;
        let why = if place.is_written {
            format!("{reader} does not work if the directory is read-only")
        } else if let Some(mount) = mounts.find(|mount| !is_below(path, mount)) {
            format!("a volume is mounted at {mount}")
        } else if let Some(above) = link_above(tree, path) {
            format!("{above} is not a directory of the image")
        } else {
            return None;
        };
        Some(OpenPlace { path, reader, why })
    };
    closed(definition).filter_map(open).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use adamant_contract::policy::{MAX_IMAGE_DATA, START_PLACES};

    use super::*;
    use crate::rootfs::volumes::{IMAGE_DATA, image_data, shipped};
    use crate::tree::Content;

    fn definition(volumes: &str, seal: &str) -> Definition {
        let text = format!(
            "{volumes}[image]\nid = \"web\"\nversion = \"1\"\n[[source]]\ntar = \"x\"\n[seal]\n{seal}"
        );
        Definition::parse(&text, Path::new("image.toml")).unwrap()
    }

    fn guarded(allow: &str) -> Definition {
        definition("", &format!("level = \"guard\"\n{allow}"))
    }

    fn tree(files: &[&str]) -> Tree {
        let mut tree = Tree::new();
        for path in files {
            let file = Kind::File(Content::from_memory(&b"x"[..]));
            tree.insert(path.as_bytes(), Meta::default(), file).unwrap();
        }
        tree
    }

    fn created(files: &[&str], definition: &Definition) -> (Tree, Vec<String>) {
        let mut tree = tree(files);
        let meta = Meta {
            mode: 0o755,
            ..Meta::default()
        };
        create(&mut tree, definition, &meta).unwrap();
        let data = image_data(&tree, definition);
        (tree, data)
    }

    #[test]
    fn the_builder_knows_the_readers_of_every_place_and_all_fit_into_a_policy() {
        let mut paths = PLACES.map(|place| place.path);
        paths.sort_unstable();
        assert_eq!(paths, START_PLACES);
        assert!(PLACES.len() + IMAGE_DATA.len() <= MAX_IMAGE_DATA);
        assert!(PLACES.iter().all(|place| !place.readers.is_empty()));
    }

    #[test]
    fn places_of_the_image_s_programs_are_created_and_shown_at_level_guard() {
        let logind = "/usr/lib/systemd/systemd-logind";
        let (tree, data) = created(&[logind, "/usr/sbin/cron"], &guarded(""));
        assert_eq!(data, ["/var/lib/systemd/linger", "/var/spool/cron"]);
        let id = tree.lookup(b"/var/lib/systemd/linger").unwrap();
        let meta = &tree.node(id).meta;
        assert_eq!((meta.mode, meta.uid, meta.gid), (0o755, 0, 0));
        // The agent does not seed them, nor compare them with an earlier image's.
        let shipped = shipped(&tree, &guarded(""), "/var");
        assert_eq!(shipped.units, ["/var/lib/systemd", "/var/spool"]);
        assert!(
            !shipped
                .entries
                .iter()
                .any(|(path, _)| path.ends_with(b"/linger") || path.ends_with(b"/cron"))
        );
        let (_, data) = created(&[logind], &definition("", "level = \"lockdown\"\n"));
        assert_eq!(data, [""; 0]);
        let (tree, data) = created(
            &[logind],
            &definition("volumes = []\n", "level = \"guard\"\n"),
        );
        assert_eq!(data, [""; 0]);
        assert!(tree.lookup(b"/var").is_none());
        let (_, data) = created(&["/usr/bin/true"], &guarded(""));
        assert_eq!(data, [""; 0]);
    }

    #[test]
    fn a_directory_of_the_image_keeps_its_content_and_owner() {
        let mut tree = tree(&["/var/spool/cron/crontabs/root", "/usr/sbin/cron"]);
        let meta = Meta {
            mode: 0o1730,
            gid: 101,
            ..Meta::default()
        };
        let folder = Kind::Directory(BTreeMap::new());
        tree.insert(b"/var/spool/cron/crontabs", meta.clone(), folder)
            .unwrap();
        create(&mut tree, &guarded(""), &Meta::default()).unwrap();
        let id = tree.lookup(b"/var/spool/cron/crontabs").unwrap();
        assert_eq!(tree.node(id).meta, meta);
        assert!(tree.lookup(b"/var/spool/cron/crontabs/root").is_some());
        assert_eq!(image_data(&tree, &guarded("")), ["/var/spool/cron"]);
    }

    #[test]
    fn an_exception_leaves_the_place_to_the_volume() {
        let files = ["/usr/lib/systemd/systemd-logind", "/usr/sbin/cron"];
        let definition = guarded("allow = { at_start = [\"/var/spool/cron\"] }\n");
        let (tree, data) = created(&files, &definition);
        assert_eq!(data, ["/var/lib/systemd/linger"]);
        assert!(tree.lookup(b"/var/spool/cron").is_none());
        assert_eq!(
            definition.policy().seal.allow.used(),
            ["at_start /var/spool/cron"]
        );
    }

    #[test]
    fn names_places_that_can_not_be_shown() {
        let open = |files: &[&str], definition: &Definition| -> Vec<(&str, String)> {
            let (tree, data) = created(files, definition);
            let open = open_places(&tree, definition);
            assert!(
                open.iter()
                    .all(|place| !data.iter().any(|path| path == place.path))
            );
            open.into_iter()
                .map(|place| (place.path, place.why))
                .collect()
        };
        let cloud = ["/usr/bin/cloud-init", "/var/lib/cloud/seed/x"];
        assert_eq!(
            open(&cloud, &guarded("")),
            [(
                "/var/lib/cloud",
                "/usr/bin/cloud-init does not work if the directory is read-only".to_owned()
            )]
        );
        let excepted = guarded("allow = { at_start = [\"/var/lib/cloud\"] }\n");
        assert_eq!(open(&cloud, &excepted), []);
        assert_eq!(
            open(&cloud, &definition("volumes = []\n", "level = \"guard\"\n")),
            []
        );
        assert_eq!(open(&cloud[1..], &guarded("")), []);
        let on_own = |mount: &str| {
            definition(
                "",
                &format!(
                    "level = \"guard\"\n[[volume]]\nname = \"v\"\nmount = {mount:?}\nsize = \"16M\"\n"
                ),
            )
        };
        for mount in ["/var/spool/cron", "/var/spool/cron/crontabs"] {
            assert_eq!(
                open(&["/usr/sbin/crond"], &on_own(mount)),
                [("/var/spool/cron", format!("a volume is mounted at {mount}"))]
            );
        }
        assert_eq!(open(&["/usr/sbin/crond"], &on_own("/var/spool")), []);
        let mut tree = tree(&["/usr/sbin/crond"]);
        let link = Kind::Symlink(b"../srv/spool"[..].into());
        tree.insert(b"/var/spool", Meta::default(), link).unwrap();
        create(&mut tree, &guarded(""), &Meta::default()).unwrap();
        let open = open_places(&tree, &guarded(""));
        assert_eq!(open[0].why, "/var/spool is not a directory of the image");
    }
}
