use super::*;
use crate::definition::Limits;
use std::os::unix::fs::{PermissionsExt, symlink};
use tempfile::TempDir;

struct Scratch(TempDir);

impl Scratch {
    fn new() -> Scratch {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("source")).unwrap();
        Scratch(dir)
    }

    /// Loads at most so many bytes, and 10 entries.
    fn load_at_most(&self, bytes: u64) -> Result<(Tree, LoadedSource)> {
        self.load(false, Limits { bytes, entries: 10 })
    }

    fn load(&self, keep_owner: bool, limits: Limits) -> Result<(Tree, LoadedSource)> {
        let mut tree = Tree::new();
        let dir = Dir {
            path: self.0.path().join("source"),
            keep_owner,
            cross_mounts: false,
        };
        let loaded = load(
            &mut tree,
            b"/srv",
            &dir,
            &mut Budget::new(limits),
            self.0.path(),
            Some(7),
        )?;
        Ok((tree, loaded))
    }
}

#[test]
fn copies_symbolic_links_unchanged_and_keeps_hard_links() {
    let scratch = Scratch::new();
    let source = scratch.0.path().join("source");
    fs::write(scratch.0.path().join("secret"), "outside").unwrap();
    symlink("../secret", source.join("out")).unwrap();
    symlink("/etc", source.join("etc")).unwrap();
    fs::write(source.join("a"), "text").unwrap();
    fs::hard_link(source.join("a"), source.join("b")).unwrap();
    let (tree, loaded) = scratch.load(false, Limits::default()).unwrap();
    assert_eq!(loaded.entries, 4);
    assert!(
        matches!(&tree.node(tree.lookup(b"/srv/out").unwrap()).kind, Kind::Symlink(to) if **to == *b"../secret")
    );
    assert!(matches!(
        &tree.node(tree.lookup(b"/srv/etc").unwrap()).kind,
        Kind::Symlink(_)
    ));
    assert_eq!(tree.lookup(b"/srv/a"), tree.lookup(b"/srv/b"));
    assert_eq!(tree.node(tree.lookup(b"/srv/a").unwrap()).links, 2);
}

#[test]
fn two_checkouts_are_equal_unless_the_owner_is_kept() {
    let scratch = Scratch::new();
    let file = scratch.0.path().join("source/a");
    let digest = |mode, time: u64, keep| {
        fs::write(&file, "text").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        File::options()
            .write(true)
            .open(&file)
            .unwrap()
            .set_modified(std::time::UNIX_EPOCH + std::time::Duration::new(time, 5))
            .unwrap();
        let (tree, loaded) = scratch.load(keep, Limits::default()).unwrap();
        let meta = tree.node(tree.lookup(b"/srv/a").unwrap()).meta.clone();
        (loaded.sha256.wait().unwrap(), meta.mode, meta.mtime)
    };
    assert_eq!(digest(0o664, 1, false), digest(0o644, 2, false));
    assert_ne!(digest(0o664, 1, true), digest(0o664, 2, true));
    assert_eq!(digest(0o664, 1, true).1, 0o664);
    assert_eq!(
        digest(0o664, 1, true).2,
        Time {
            seconds: 1,
            nanoseconds: 5
        }
    );
    assert_eq!(
        digest(0o664, 1, false).2,
        Time {
            seconds: 7,
            nanoseconds: 0
        }
    );
}

#[test]
fn a_directory_of_an_earlier_source_keeps_its_metadata_by_default() {
    let scratch = Scratch::new();
    let source = scratch.0.path().join("source");
    fs::create_dir_all(source.join("tmp/new")).unwrap();
    fs::create_dir_all(source.join("bin")).unwrap();
    fs::write(source.join("bin/tool"), "x").unwrap();
    fs::set_permissions(source.join("tmp"), fs::Permissions::from_mode(0o755)).unwrap();
    let load = |keep_owner| {
        let mut tree = Tree::new();
        let folder = |mode, uid| {
            (
                Meta {
                    mode,
                    uid,
                    ..Meta::default()
                },
                Kind::Directory(BTreeMap::new()),
            )
        };
        for (path, (meta, kind)) in [
            (&b"/tmp"[..], folder(0o1777, 3)),
            (b"/usr/bin", folder(0o711, 4)),
        ] {
            tree.insert(path, meta, kind).unwrap();
        }
        tree.insert(
            b"/bin",
            Meta::default(),
            Kind::Symlink(b"usr/bin"[..].into()),
        )
        .unwrap();
        let dir = Dir {
            path: source.clone(),
            keep_owner,
            cross_mounts: false,
        };
        super::load(
            &mut tree,
            b"/",
            &dir,
            &mut Budget::new(Limits::default()),
            scratch.0.path(),
            Some(7),
        )
        .unwrap();
        let of = |path: &[u8]| {
            let meta = &tree.node(tree.lookup(path).unwrap()).meta;
            (meta.mode, meta.uid)
        };
        assert!(tree.lookup(b"/usr/bin/tool").is_some());
        (of(b"/tmp"), of(b"/usr/bin"), of(b"/tmp/new").0)
    };
    assert_eq!(load(false), ((0o1777, 3), (0o711, 4), 0o755));
    let owner = fs::metadata(&source).unwrap().uid();
    assert_eq!(load(true).0, (0o755, owner));
    assert_eq!(load(true).1.1, owner);
}

#[test]
fn warns_of_removed_mode_bits_except_with_the_sticky_bit() {
    let scratch = Scratch::new();
    let source = scratch.0.path().join("source");
    for (name, mode) in [
        ("drop", 0o1777),
        ("team", 0o3770),
        ("shared", 0o2775),
        ("open", 0o777),
    ] {
        fs::create_dir(source.join(name)).unwrap();
        fs::set_permissions(source.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    fs::write(source.join("program"), "x").unwrap();
    fs::set_permissions(source.join("program"), fs::Permissions::from_mode(0o4775)).unwrap();
    let (tree, loaded) = scratch.load(false, Limits::default()).unwrap();
    let modes = ["drop", "team", "shared", "open", "program"].map(|name| {
        tree.node(tree.lookup(format!("/srv/{name}").as_bytes()).unwrap())
            .meta
            .mode
    });
    assert_eq!(modes, [0o1777, 0o3770, 0o2755, 0o755, 0o4755]);
    let [finding] = &loaded.findings[..] else {
        panic!("{:?}", loaded.findings)
    };
    assert!(
        finding
            .message
            .contains("/srv/program (4755 instead of 4775), /srv/shared (2755 instead of 2775)"),
        "{finding:?}"
    );
    assert!(
        finding.hint.contains("owner = \"keep\"") && !finding.message.contains("open"),
        "{finding:?}"
    );
    let (tree, loaded) = scratch.load(true, Limits::default()).unwrap();
    assert_eq!(
        (
            tree.node(tree.lookup(b"/srv/shared").unwrap()).meta.mode,
            loaded.findings.len()
        ),
        (0o2775, 0)
    );
}

#[test]
fn refuses_image_layers_and_names_all_whiteouts() {
    let scratch = Scratch::new();
    let source = scratch.0.path().join("source");
    fs::create_dir_all(source.join("etc/.wh..wh.plnk")).unwrap();
    fs::write(source.join("etc/.wh.old"), "").unwrap();
    let error = scratch
        .load(false, Limits::default())
        .unwrap_err()
        .to_string();
    assert!(
        ["etc/.wh..wh.plnk", "etc/.wh.old", "merge the layers"]
            .iter()
            .all(|word| error.contains(word)),
        "{error}"
    );
    fs::remove_dir_all(source.join("etc")).unwrap();
    fs::create_dir(source.join("opaque")).unwrap();
    if xattr::set(source.join("opaque"), "user.overlay.opaque", b"y").is_ok() {
        let error = scratch
            .load(true, Limits::default())
            .unwrap_err()
            .to_string();
        assert!(error.contains("opaque"), "{error}");
    }
}

#[test]
fn a_link_or_file_never_hides_a_directory_of_an_earlier_source() {
    let scratch = Scratch::new();
    let source = scratch.0.path().join("source");
    symlink("usr/bin", source.join("bin")).unwrap();
    fs::write(source.join("lib"), "x").unwrap();
    fs::hard_link(source.join("lib"), source.join("opt")).unwrap();
    let mut tree = Tree::new();
    for path in [&b"/bin/tool"[..], b"/lib/app/data", b"/opt/x"] {
        tree.insert(path, Meta::default(), Kind::Fifo).unwrap();
    }
    let dir = Dir {
        path: source,
        keep_owner: false,
        cross_mounts: false,
    };
    let error = load(
        &mut tree,
        b"/",
        &dir,
        &mut Budget::new(Limits::default()),
        scratch.0.path(),
        None,
    )
    .unwrap_err()
    .to_string();
    for word in [
        "symbolic link /bin",
        "/bin/tool",
        "file /lib",
        "/lib/app/data",
        "file /opt",
        "put the source with the links first",
    ] {
        assert!(error.contains(word), "{word}: {error}");
    }
}

#[test]
fn an_error_in_a_subdirectory_names_its_path_once() {
    let scratch = Scratch::new();
    fs::create_dir_all(scratch.0.path().join("source/a/b/c")).unwrap();
    fs::write(scratch.0.path().join("source/a/b/c/large"), [1; 100]).unwrap();
    let error = scratch.load_at_most(99).unwrap_err();
    assert_eq!(error.message().matches("a/b/c/large").count(), 1, "{error}");
}

#[test]
fn holes_count_only_when_the_image_is_written() {
    let scratch = Scratch::new();
    let file = File::create(scratch.0.path().join("source/lastlog")).unwrap();
    file.write_all_at(b"x", 400_000_000_000).unwrap();
    let limits = Limits {
        bytes: 1 << 20,
        entries: 10,
    };
    let (mut tree, _) = scratch.load(false, limits).unwrap();
    let error = crate::source::bound_lengths(&tree, limits).unwrap_err();
    assert!(
        error
            .message()
            .contains("/srv/lastlog: the file is 400000000001 bytes long")
            && error.message().contains("hole"),
        "{error}"
    );
    tree.replace_content(&[b"/srv/lastlog"], Content::default())
        .unwrap();
    crate::source::bound_lengths(&tree, limits).unwrap();
}

#[test]
fn keeps_holes_and_with_the_owner_attributes() {
    let scratch = Scratch::new();
    let path = scratch.0.path().join("source/sparse");
    let file = File::create(&path).unwrap();
    file.write_all_at(b"end", (8 << 20) - 3).unwrap();
    file.set_len(9 << 20).unwrap();
    let with_xattr = xattr::set(&path, "user.note", b"x\0y").is_ok();
    let (tree, _) = scratch.load(false, Limits::default()).unwrap();
    assert_eq!(
        tree.node(tree.lookup(b"/srv/sparse").unwrap()).meta.xattrs,
        None
    );
    let (tree, _) = scratch.load(true, Limits::default()).unwrap();
    let node = tree.node(tree.lookup(b"/srv/sparse").unwrap());
    let Kind::File(content) = &node.kind else {
        panic!()
    };
    assert_eq!(content.len(), 9 << 20);
    assert!(
        content.extents().map(|e| e.len).sum::<u64>() <= 1 << 20,
        "{content:?}"
    );
    let mut end = [0; 4];
    content.read_exact_at((8 << 20) - 3, &mut end).unwrap();
    assert_eq!(&end, b"end\0");
    if with_xattr {
        assert_eq!(
            &*node.meta.xattrs.as_ref().unwrap()[&b"user.note"[..]],
            b"x\0y"
        );
    }
}

#[test]
fn the_digest_does_not_depend_on_earlier_sources() {
    let scratch = Scratch::new();
    let source = scratch.0.path().join("source");
    fs::write(source.join("a"), "text").unwrap();
    fs::hard_link(source.join("a"), source.join("b")).unwrap();
    let dir = Dir {
        path: source,
        keep_owner: false,
        cross_mounts: false,
    };
    let digest = |mut tree: Tree| {
        load(
            &mut tree,
            b"/",
            &dir,
            &mut Budget::new(Limits::default()),
            scratch.0.path(),
            None,
        )
        .unwrap()
        .sha256
        .wait()
        .unwrap()
    };
    let mut earlier = Tree::new();
    earlier.insert(b"/x", Meta::default(), Kind::Fifo).unwrap();
    assert_eq!(digest(Tree::new()), digest(earlier));
}

#[test]
fn refuses_a_directory_beyond_the_limits() {
    let scratch = Scratch::new();
    fs::write(scratch.0.path().join("source/a"), [0; 100]).unwrap();
    let error = scratch.load_at_most(99).unwrap_err();
    assert!(
        error.message().contains("more than 99 bytes") && error.message().contains("source/a"),
        "{error}"
    );
}
