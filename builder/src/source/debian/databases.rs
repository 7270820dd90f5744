//! Databases and repositories that package scripts create. They hold random numbers and times, so
//! they differ in each build.

use crate::glob::PathGlobs;
use crate::rootfs::check::Finding;
use crate::tree::{NodeId, Tree, show};

/// Maximum depth of the search for a database's marker file.
const DEPTH: usize = 3;

/// A kind of database.
#[derive(Debug, PartialEq, Eq)]
struct DatabaseKind {
    /// The directory of the database, or a parent of it.
    place: &'static str,
    /// A file that every such database has, relative to its directory.
    mark: &'static str,
    /// The package that creates it.
    program: &'static str,
    /// Its name in messages.
    noun: &'static str,
}

const KINDS: &[DatabaseKind] = &[
    DatabaseKind {
        place: "/var/lib/postgresql",
        mark: "global/pg_control",
        program: "pg_createcluster",
        noun: "database",
    },
    DatabaseKind {
        place: "/var/lib/mysql",
        mark: "ibdata1",
        program: "mariadb-install-db or mysqld --initialize",
        noun: "database",
    },
    DatabaseKind {
        place: "/var/lib/mysql",
        mark: "aria_log_control",
        program: "mariadb-install-db",
        noun: "database",
    },
    DatabaseKind {
        place: "/etc/ldap/slapd.d",
        mark: "cn=config.ldif",
        program: "slapadd -n 0",
        noun: "database",
    },
    DatabaseKind {
        place: "/var/lib/ldap",
        mark: "data.mdb",
        program: "slapadd",
        noun: "database",
    },
    DatabaseKind {
        place: "/etc/.git",
        mark: "HEAD",
        program: "etckeeper init",
        noun: "repository",
    },
    DatabaseKind {
        place: "/etc/.bzr",
        mark: "branch-format",
        program: "etckeeper init",
        noun: "repository",
    },
    DatabaseKind {
        place: "/etc/.hg",
        mark: "requires",
        program: "etckeeper init",
        noun: "repository",
    },
];

/// A database that a package created.
#[derive(Debug, PartialEq, Eq)]
pub struct Database {
    /// Its directory in the image.
    directory: Vec<u8>,
    /// Path of its marker file in the image.
    mark: Vec<u8>,
    /// The marker's node: a later source may replace it.
    node: NodeId,
    kind: &'static DatabaseKind,
}

/// Finds the databases that a source added below `at`.
pub fn find(tree: &Tree, at: &[u8]) -> Vec<Database> {
    let at = if at == b"/" { b"" } else { at };
    let mut found: Vec<Database> = Vec::new();
    for kind in KINDS {
        let place = [at, kind.place.as_bytes()].concat();
        let mut folders = vec![place];
        for _ in 0..DEPTH {
            for folder in &folders {
                let mark = [&folder[..], b"/", kind.mark.as_bytes()].concat();
                if let Some(node) = tree.lookup(&mark)
                    && found.iter().all(|known| known.directory != *folder)
                {
                    found.push(Database {
                        directory: folder.clone(),
                        mark,
                        node,
                        kind,
                    });
                }
            }
            let below = |folder: &Vec<u8>| -> Vec<Vec<u8>> {
                let Some(id) = tree.lookup(folder) else {
                    return Vec::new();
                };
                let is_directory =
                    |id: NodeId| matches!(tree.node(id).kind, crate::tree::Kind::Directory(_));
                tree.children(id)
                    .filter(|(_, id)| is_directory(*id))
                    .map(|(name, _)| [&folder[..], b"/", name].concat())
                    .collect()
            };
            folders = folders.iter().flat_map(below).collect();
        }
    }
    found
}

impl Database {
    /// An error, unless the image no longer has the database or the definition keeps it.
    pub fn finding(&self, tree: &Tree, keep: &PathGlobs) -> Option<Finding> {
        if tree.lookup(&self.mark) != Some(self.node) || keep.holds(&self.mark) {
            return None;
        }
        let path = show(&self.directory);
        Some(Finding {
            is_error: true,
            rule: "databases",
            message: format!(
                "{path}: a package created this {} at its installation with random numbers and the current time, so each build would have another root hash",
                self.kind.noun
            ),
            hint: format!(
                "write [[file]] path = \"{path}\" absent = true, and create it on a volume when the server starts ({}); or keep these bytes: [scrub] keep = [\"{path}/**\"]",
                self.kind.program
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Content, Meta};

    fn tree(paths: &[&str]) -> Tree {
        let mut tree = Tree::new();
        for path in paths {
            tree.insert(
                path.as_bytes(),
                Meta::default(),
                crate::tree::Kind::File(Content::from_memory(&b"x"[..])),
            )
            .unwrap();
        }
        tree
    }

    #[test]
    fn names_the_directory_of_a_database_that_a_package_created() {
        let mut tree = tree(&[
            "/var/lib/postgresql/17/main/global/pg_control",
            "/var/lib/mysql/ibdata1",
            "/var/lib/mysql/aria_log_control",
            "/etc/ldap/slapd.d/cn=config.ldif",
            "/srv/pg_control",
        ]);
        let found = find(&tree, b"/");
        let none = PathGlobs::new(&[]).unwrap();
        let shown = |tree: &Tree, keep: &PathGlobs| -> Vec<String> {
            let all = found
                .iter()
                .filter_map(|database| database.finding(tree, keep));
            all.map(|finding| finding.message.split(':').next().unwrap().to_owned())
                .collect()
        };
        assert_eq!(
            shown(&tree, &none),
            [
                "/var/lib/postgresql/17/main",
                "/var/lib/mysql",
                "/etc/ldap/slapd.d"
            ]
        );
        // The remedy in the hint works.
        let keep = PathGlobs::new(&["/var/lib/postgresql/17/main/**".to_owned()]).unwrap();
        assert_eq!(shown(&tree, &keep), ["/var/lib/mysql", "/etc/ldap/slapd.d"]);
        tree.remove(b"/etc/ldap/slapd.d");
        assert_eq!(shown(&tree, &keep), ["/var/lib/mysql"]);
        // A later source brings its own database.
        tree.insert(
            b"/var/lib/mysql/ibdata1",
            Meta::default(),
            crate::tree::Kind::File(Content::from_memory(&b"own"[..])),
        )
        .unwrap();
        assert_eq!(shown(&tree, &keep), [""; 0]);
    }

    #[test]
    fn finds_databases_below_the_directory_of_a_source() {
        assert_eq!(
            find(&tree(&["/etc/.git/HEAD", "/srv/.git/HEAD"]), b"/").len(),
            1
        );
        let found = find(&tree(&["/srv/root/var/lib/ldap/data.mdb"]), b"/srv/root");
        assert_eq!(show(&found[0].directory), "/srv/root/var/lib/ldap");
    }
}
