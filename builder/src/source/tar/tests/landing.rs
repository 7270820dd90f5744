//! Where entries land: order, links, replaced entries, and entries of earlier sources.

use super::scratch;
use super::writer::{Entry, Writer};
use crate::definition::Limits;
use crate::source::{Budget, tar};
use crate::tree::{Kind, Meta, Time, Tree};

fn load(tree: &mut Tree, at: &[u8], bytes: &[u8]) {
    let folder = scratch();
    let path = folder.path().join("a.tar");
    std::fs::write(&path, bytes).unwrap();
    tar::load(
        tree,
        at,
        &path,
        &mut Budget::new(Limits::default()),
        folder.path(),
    )
    .unwrap_or_else(|e| panic!("{e}"));
}

fn read(bytes: &[u8]) -> Tree {
    tar::read_bytes(bytes, Limits::default()).unwrap_or_else(|e| panic!("{e}"))
}

fn text(tree: &Tree, path: &str) -> String {
    match &tree
        .node(
            tree.lookup(path.as_bytes())
                .unwrap_or_else(|| panic!("no {path}")),
        )
        .kind
    {
        Kind::File(content) => String::from_utf8(content.to_vec(1 << 20).unwrap()).unwrap(),
        other => panic!("{path}: {other:?}"),
    }
}

#[test]
fn hard_links_to_later_entries_and_chains_are_resolved() {
    let tree = read(
        &Writer::default()
            .link("a", "b")
            .link("b", "d/c")
            .link("e", "a")
            .file("d/c", b"c")
            .link("f", "e")
            .end(),
    );
    let id = tree.lookup(b"/d/c").unwrap();
    for path in ["/a", "/b", "/e", "/f"] {
        assert_eq!(tree.lookup(path.as_bytes()), Some(id), "{path}");
    }
    assert_eq!(tree.node(id).links, 5);
}

#[test]
fn the_last_entry_at_a_path_wins() {
    let bytes = Writer::default()
        .file("a", b"1")
        .link("first", "a")
        .file("a", b"2")
        .link("b", "later")
        .file("b", b"own")
        .file("later", b"3")
        .end();
    let tree = read(&bytes);
    assert_eq!(
        (text(&tree, "a"), text(&tree, "first"), text(&tree, "b")),
        ("2".into(), "1".into(), "own".into())
    );
    assert_eq!(tree.node(tree.lookup(b"later").unwrap()).links, 1);
    // A directory in place of the archive's own link replaces it.
    let tree = read(
        &Writer::default()
            .symlink("d", "/tmp")
            .directory("d")
            .file("d/f", b"x")
            .end(),
    );
    assert_eq!(text(&tree, "/d/f"), "x");
}

#[test]
fn accepts_directories_after_their_content_and_creates_missing_ones() {
    let directory = Entry::new(b'5', b"d/", b"")
        .number(100..108, 0o1777)
        .number(136..148, 99);
    let root = Entry::new(b'5', b"./", b"")
        .number(100..108, 0o700)
        .number(108..116, 5);
    let tree = read(
        &Writer::default()
            .file("d/f", b"x")
            .file("./m//n/./f", b"y")
            .entry(directory)
            .entry(root)
            .end(),
    );
    let meta = |path: &[u8]| tree.node(tree.lookup(path).unwrap()).meta.clone();
    assert_eq!(
        meta(b"/d"),
        Meta {
            mode: 0o1777,
            mtime: Time {
                seconds: 99,
                nanoseconds: 0
            },
            ..Meta::default()
        }
    );
    assert_eq!(
        meta(b"/m/n"),
        Meta {
            mode: 0o755,
            ..Meta::default()
        }
    );
    assert_eq!(
        meta(b"/"),
        Meta {
            mode: 0o700,
            uid: 5,
            ..Meta::default()
        }
    );
    assert_eq!(text(&tree, "/m/n/f"), "y");
}

#[test]
fn links_of_earlier_sources_are_followed_within_the_image() {
    let mut tree = read(
        &Writer::default()
            .directory("usr/bin")
            .symlink("bin", "usr/bin")
            .symlink("out", "../../../usr")
            .symlink("loop", "loop")
            .end(),
    );
    load(
        &mut tree,
        b"/",
        &Writer::default()
            .directory("bin")
            .file("bin/a", b"a")
            .file("out/b", b"b")
            .link("bin/c", "out/b")
            .link("bin/d", "usr/b")
            .end(),
    );
    assert_eq!(
        (text(&tree, "/usr/bin/a"), text(&tree, "/usr/b")),
        ("a".into(), "b".into())
    );
    assert_eq!(tree.node(tree.lookup(b"/usr/bin/d").unwrap()).links, 3);
    assert!(matches!(
        tree.node(tree.lookup(b"/bin").unwrap()).kind,
        Kind::Symlink(_)
    ));
    // A file at the path of a link replaces only the link.
    load(
        &mut tree,
        b"/",
        &Writer::default().file("bin", b"now a file").end(),
    );
    assert_eq!(
        (text(&tree, "/bin"), text(&tree, "/usr/bin/a")),
        ("now a file".into(), "a".into())
    );
    let folder = scratch();
    let path = folder.path().join("a.tar");
    std::fs::write(&path, Writer::default().file("loop/x", b"").end()).unwrap();
    let said = tar::load(
        &mut tree,
        b"/",
        &path,
        &mut Budget::new(Limits::default()),
        folder.path(),
    )
    .unwrap_err()
    .to_string();
    assert!(
        said.contains("a.tar: entry 1 at byte 0, loop/x") && said.contains("symbolic link loop"),
        "{said}"
    );
}

#[test]
fn loads_an_archive_below_a_directory() {
    let mut tree = Tree::new();
    load(
        &mut tree,
        b"/srv/web",
        &Writer::default()
            .entry(Entry::new(b'5', b".", b"").number(100..108, 0o750))
            .file("f", b"f")
            .link("l", "f")
            .end(),
    );
    assert_eq!(text(&tree, "/srv/web/l"), "f");
    assert_eq!(
        tree.node(tree.lookup(b"/srv/web").unwrap()).meta.mode,
        0o750
    );
    // Hard links can refer to entries of earlier sources.
    load(
        &mut tree,
        b"/srv/web",
        &Writer::default().link("m", "f").end(),
    );
    assert_eq!(tree.node(tree.lookup(b"/srv/web/m").unwrap()).links, 3);
}

#[test]
fn extended_headers_override_header_blocks() {
    let global = Entry::new(
        b'g',
        b"g",
        &[
            super::writer::record(b"mtime", b"7.25"),
            super::writer::record(b"uid", b"4294967294"),
        ]
        .concat(),
    );
    let keys: [(&[u8], &[u8]); 6] = [
        (b"path", b"n\xff\xfe"),
        (b"mtime", b"-0.5"),
        (b"gid", b"70000"),
        (b"SCHILY.xattr.user.a%3Db", b"\0\n="),
        (b"LIBARCHIVE.xattr.user.%c3%bc", b"eA"),
        (b"RHT.security.selinux", b"system_u:object_r:bin_t:s0"),
    ];
    let tree = read(
        &Writer::default()
            .entry(global)
            .file("first", b"")
            .pax(&keys)
            .file("x", b"")
            .file("last", b"")
            .end(),
    );
    let meta = |path: &[u8]| tree.node(tree.lookup(path).unwrap()).meta.clone();
    assert_eq!(
        (meta(b"first").mtime, meta(b"last").uid),
        (
            Time {
                seconds: 7,
                nanoseconds: 250_000_000
            },
            4_294_967_294
        )
    );
    let meta = meta(b"n\xff\xfe");
    assert_eq!(
        (meta.mtime, meta.uid, meta.gid),
        (
            Time {
                seconds: -1,
                nanoseconds: 500_000_000
            },
            4_294_967_294,
            70_000
        )
    );
    let xattrs: Vec<(&[u8], &[u8])> = meta
        .xattrs
        .as_deref()
        .unwrap()
        .iter()
        .map(|(name, value)| (&**name, &**value))
        .collect();
    let expected: [(&[u8], &[u8]); 3] = [
        (b"security.selinux", b"system_u:object_r:bin_t:s0\0"),
        (b"user.a=b", b"\0\n="),
        ("user.ü".as_bytes(), b"x"),
    ];
    assert_eq!(xattrs, expected);
}

#[test]
fn a_link_of_an_archive_never_hides_a_directory_of_an_earlier_source() {
    let mut tree = read(
        &Writer::default()
            .file("bin/tool", b"x")
            .file("lib/app/data", b"x")
            .directory("sbin")
            .end(),
    );
    let folder = scratch();
    let path = folder.path().join("root.tar");
    let root = Writer::default()
        .directory("usr/bin")
        .symlink("bin", "usr/bin")
        .symlink("lib", "usr/lib")
        .symlink("sbin", "usr/sbin")
        .end();
    std::fs::write(&path, root).unwrap();
    let said = tar::load(
        &mut tree,
        b"/",
        &path,
        &mut Budget::new(Limits::default()),
        folder.path(),
    )
    .unwrap_err()
    .to_string();
    for word in [
        "root.tar",
        "symbolic link /bin",
        "/bin/tool",
        "symbolic link /lib",
        "/lib/app/data",
        "put the source with the links first",
    ] {
        assert!(said.contains(word), "{word}: {said}");
    }
    assert!(!said.contains("/sbin"), "{said}");
}

#[test]
fn skips_attributes_that_describe_the_file_system_of_the_archived_files() {
    let keys: [(&[u8], &[u8]); 4] = [
        (b"SCHILY.xattr.btrfs.compression", b"zstd"),
        (b"SCHILY.xattr.system.nfs4_acl", b"x"),
        (b"LIBARCHIVE.xattr.system.ntfs_attrib", b"eA"),
        (b"SCHILY.xattr.user.note", b"x"),
    ];
    let tree = read(&Writer::default().pax(&keys).file("f", b"").end());
    let xattrs = tree
        .node(tree.lookup(b"f").unwrap())
        .meta
        .xattrs
        .clone()
        .unwrap();
    assert_eq!(
        xattrs.keys().map(|name| &**name).collect::<Vec<_>>(),
        [&b"user.note"[..]]
    );
}
