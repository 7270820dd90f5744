use adamant_skip::skip;
use std::path::Path;
use std::process::Command;

use super::*;
use crate::definition::Definition;
use crate::rootfs::check::check as check_all;
use crate::tree::{Meta, Tree};

#[test]
fn computes_the_free_space_that_mkfs_leaves() {
    let Ok(version) = Command::new("mkfs.ext4").arg("-V").output() else {
        skip!(Program("mkfs.ext4"));
    };
    println!("{}", String::from_utf8_lossy(&version.stderr));
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("file");
    for mib in [
        16, 17, 24, 63, 64, 100, 255, 256, 300, 511, 512, 1000, 1024, 5000, 20_000, 100_000,
    ] {
        let bytes = mib << 20;
        std::fs::File::create(&path)
            .unwrap()
            .set_len(bytes)
            .unwrap();
        let group = SMALL_VOLUME_GROUP.to_string();
        let small: &[&str] = if bytes < SMALL_VOLUME {
            &["-g", &group]
        } else {
            &[]
        };
        let options = [
            "-q",
            "-F",
            "-b",
            "4096",
            "-I",
            "256",
            "-E",
            "lazy_itable_init=1,lazy_journal_init=1",
        ];
        let made = Command::new("mkfs.ext4")
            .args(small)
            .args(options)
            .arg(&path)
            .output()
            .unwrap();
        assert!(
            made.status.success(),
            "{}",
            String::from_utf8_lossy(&made.stderr)
        );
        let said = Command::new("dumpe2fs")
            .arg("-h")
            .arg(&path)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        let value = |key: &str| {
            said.lines()
                .find_map(|line| line.strip_prefix(key))
                .and_then(|rest| rest.trim().parse::<u64>().ok())
                .unwrap()
        };
        let (free, inodes) = (value("Free blocks:"), value("Free inodes:"));
        let room = Room::for_size(bytes);
        let usable = free - (bytes / BLOCK / 50).min(4096) - AGENT_BLOCKS;
        assert!(
            room.blocks <= usable && room.blocks * 100 >= usable * 98,
            "{mib} MiB: {} of {usable} blocks",
            room.blocks
        );
        assert_eq!(room.inodes, inodes - AGENT_INODES, "{mib} MiB");
    }
}

fn findings(volumes: &str, tree: &Tree) -> Vec<Finding> {
    let text =
        format!("[image]\nid = \"web\"\nversion = \"1\"\n[[source]]\ntar = \"x\"\n{volumes}");
    let definition = Definition::parse(&text, Path::new("image.toml")).unwrap();
    check_all(tree, &definition)
        .into_iter()
        .filter(|finding| finding.rule == "volume-too-small")
        .collect()
}

fn put(tree: &mut Tree, path: &str, bytes: Vec<u8>) {
    tree.insert(
        path.as_bytes(),
        Meta::default(),
        Kind::File(Content::from_memory(bytes)),
    )
    .unwrap();
}

const SMALL_STATE: &str = "[[volume]]\nname = \"state\"\nmount = \"/var\"\nsize = \"24M\"\n";

#[test]
fn bytes_and_inodes_are_both_counted_and_a_size_that_fits_is_suggested() {
    let mut tree = Tree::new();
    put(&mut tree, "/var/lib/app/model", vec![7; 40 << 20]);
    let found = findings(SMALL_STATE, &tree);
    assert!(
        found[0].is_error
            && found[0]
                .message
                .contains("/var/lib/app (41943040 bytes in 2 entries)"),
        "{found:?}"
    );
    assert!(
        found[0]
            .hint
            .contains("size = \"80M\" for [[volume]] name = \"state\""),
        "{found:?}"
    );
    assert_eq!(findings(&SMALL_STATE.replace("24M", "80M"), &tree), []);

    let mut tree = Tree::new();
    for number in 0..30_000 {
        put(&mut tree, &format!("/var/lib/app/{number}"), b"x".to_vec());
    }
    let found = findings(SMALL_STATE, &tree);
    assert!(
        found[0].message.contains("30002 inodes are needed"),
        "{found:?}"
    );
    let size = found[0].hint.split('"').nth(1).unwrap().to_owned();
    assert_eq!(
        findings(&SMALL_STATE.replace("24M", &size), &tree),
        [],
        "{size}"
    );
}

#[test]
fn suggests_all_default_volumes_if_one_is_too_small() {
    let mut tree = Tree::new();
    put(
        &mut tree,
        "/var/log/old",
        (0..300u32 << 20).map(|n| n as u8 | 1).collect(),
    );
    let found = findings("", &tree);
    assert_eq!(found.len(), 1);
    assert!(found[0].hint.contains("[[volume]] name = \"state\", mount = \"/var\", size = \"512M\"; [[volume]] name = \"logs\""), "{found:?}");
}

#[test]
fn holes_hard_links_and_files_outside_the_volume_need_no_space() {
    let mut tree = Tree::new();
    tree.insert(
        b"/var/log/lastlog",
        Meta::default(),
        Kind::File(Content::sparse(1 << 40, Vec::new()).unwrap()),
    )
    .unwrap();
    put(&mut tree, "/var/lib/dpkg/status", vec![7; 30 << 20]);
    put(&mut tree, "/var/lib/a", vec![7; 10 << 20]);
    put(&mut tree, "/srv/other", vec![7; 30 << 20]);
    let id = tree.lookup(b"/var/lib/a").unwrap();
    for number in 0..5 {
        tree.link(format!("/var/lib/b{number}").as_bytes(), id)
            .unwrap();
    }
    let mut zeros = vec![0; 40 << 20];
    zeros[0] = 1;
    put(&mut tree, "/var/lib/zeros", zeros);
    assert_eq!(findings(SMALL_STATE, &tree), []);
}
