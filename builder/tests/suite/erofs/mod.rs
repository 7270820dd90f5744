//! The content of a root file system equals the tree that it was made of: by our own reader, by the
//! kernel's mount, and by fsck.erofs.

mod compare;
mod image;
mod properties;
mod reference;
mod trees;

use adamant_skip::skip;
use std::collections::{BTreeMap, HashSet};
use std::process::Command;

use adamant::erofs::{Algorithm, BLOCK};
use adamant::tree::{Kind, Meta, Tree};

use compare::*;
use image::*;
use trees::*;

const EVERY_SETTING: [(Option<Algorithm>, u32); 9] = [
    (None, 65536),
    (Some(Algorithm::Lz4), 4096),
    (Some(Algorithm::Lz4), 65536),
    (Some(Algorithm::Lz4hc), 8192),
    (Some(Algorithm::Lz4hc), 1 << 20),
    (Some(Algorithm::Zstd(3)), 4096),
    (Some(Algorithm::Zstd(3)), 65536),
    (Some(Algorithm::Zstd(1)), 131072),
    (Some(Algorithm::Zstd(5)), 1 << 20),
];

/// Fewer settings for checks by other programs, which take longer.
const MAIN_SETTINGS: [(Option<Algorithm>, u32); 4] = [
    (None, 65536),
    (Some(Algorithm::Lz4), 65536),
    (Some(Algorithm::Lz4hc), 1 << 20),
    (Some(Algorithm::Zstd(3)), 65536),
];

#[test]
fn our_reader_returns_every_odd_entry_unchanged() {
    let scratch = Scratch::new();
    let tree = oddities(20_500);
    for (compression, cluster) in EVERY_SETTING {
        let image = scratch.0.path().join("image");
        write(&tree, compression, cluster, 2, &image).unwrap();
        our_reader_agrees(&tree, &image);
    }
}

#[test]
fn the_kernel_shows_every_odd_entry_unchanged() {
    if !may_mount() {
        return;
    }
    let scratch = Scratch::new();
    let tree = oddities(20_500);
    for (compression, cluster) in MAIN_SETTINGS {
        let image = scratch.0.path().join("image");
        write(&tree, compression, cluster, 2, &image).unwrap();
        let mounted = Mounted::new(&image, scratch.0.path().join("mount"));
        folder_agrees(&tree, &mounted.0, true);
    }
}

#[test]
fn fragments_keep_every_odd_entry_and_store_equal_files_once() {
    let scratch = Scratch::new();
    let image = scratch.0.path().join("image");
    let tree = oddities(1_500);
    for (compression, cluster) in MAIN_SETTINGS
        .into_iter()
        .filter(|(compression, _)| compression.is_some())
    {
        write_with_fragments(&tree, compression, cluster, 2, &image).unwrap();
        our_reader_agrees(&tree, &image);
        if may_mount() {
            let mounted = Mounted::new(&image, scratch.0.path().join("mount"));
            folder_agrees(&tree, &mounted.0, true);
        }
    }
    // No file, an empty file, a tiny one, one that does not shrink, and two equal ones.
    let mut random = Random(3);
    let noise = random.noise(300_000);
    for contents in [
        vec![],
        vec![vec![]],
        vec![vec![1]],
        vec![noise.clone()],
        vec![noise.clone(), noise],
    ] {
        let mut tree = Tree::new();
        for (number, bytes) in contents.iter().enumerate() {
            tree.insert(
                format!("/{number}").as_bytes(),
                Meta::default(),
                file(bytes.clone()),
            )
            .unwrap();
        }
        write_with_fragments(&tree, Some(Algorithm::Lz4), 65536, 2, &image).unwrap();
        our_reader_agrees(&tree, &image);
        assert!(std::fs::metadata(&image).unwrap().len() < 330_000);
        if may_mount() {
            let mounted = Mounted::new(&image, scratch.0.path().join("mount"));
            folder_agrees(&tree, &mounted.0, true);
        }
    }
}

#[test]
fn fsck_accepts_the_image_and_extracts_the_tree() {
    if !may_mount()
        || Command::new("fsck.erofs")
            .arg("--version")
            .output()
            .is_err()
    {
        skip!(Program("fsck.erofs"));
    }
    let scratch = Scratch::new();
    // erofs-utils 1.5 extracts each hard link as a separate file.
    let tree = oddities(300);
    // erofs-utils 1.5 does not support zstd.
    for (compression, cluster) in MAIN_SETTINGS
        .into_iter()
        .filter(|(c, _)| !matches!(c, Some(Algorithm::Zstd(_))))
    {
        let (image, out) = (scratch.0.path().join("image"), scratch.0.path().join("out"));
        write(&tree, compression, cluster, 2, &image).unwrap();
        run(Command::new("fsck.erofs").arg(&image));
        let _ = std::fs::remove_dir_all(&out);
        run(Command::new("fsck.erofs")
            .arg(format!("--extract={}", out.display()))
            .arg("--preserve")
            .arg(&image));
        folder_agrees(&tree, &out, false);
    }
}

#[test]
fn fsck_accepts_an_image_whose_last_inode_fills_its_block() {
    if Command::new("fsck.erofs")
        .arg("--version")
        .output()
        .is_err()
    {
        skip!(Program("fsck.erofs"));
    }
    let scratch = Scratch::new();
    let image = scratch.0.path().join("image");
    let mut tree = Tree::new();
    // Compact inodes have 32 bytes. With more than a block of them, the last one ends with its
    // block at least once.
    for n in 0..140 {
        tree.insert(format!("/{n:04}").as_bytes(), Meta::default(), Kind::Fifo)
            .unwrap();
        write(&tree, None, 4096, 1, &image).unwrap();
        let output = Command::new("fsck.erofs").arg(&image).output().unwrap();
        assert!(
            output.status.success(),
            "{n}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        our_reader_agrees(&tree, &image);
    }
}

#[test]
fn generated_trees_survive_every_compression() {
    let scratch = Scratch::new();
    for seed in 0..27 {
        let tree = generated(seed);
        let (compression, cluster) = EVERY_SETTING[seed as usize % EVERY_SETTING.len()];
        let image = scratch.0.path().join("image");
        write(&tree, compression, cluster, 2, &image).unwrap();
        our_reader_agrees(&tree, &image);
        if seed % 4 == 0 && nix::unistd::geteuid().is_root() {
            let mounted = Mounted::new(&image, scratch.0.path().join("mount"));
            folder_agrees(&tree, &mounted.0, true);
        }
    }
}

#[test]
fn the_bytes_do_not_depend_on_the_number_of_threads() {
    let scratch = Scratch::new();
    let tree = oddities(20_500);
    for compression in [None, Some(Algorithm::Lz4hc), Some(Algorithm::Zstd(3))] {
        let (one, many) = (scratch.0.path().join("one"), scratch.0.path().join("many"));
        write(&tree, compression, 65536, 1, &one).unwrap();
        write(&tree, compression, 65536, 7, &many).unwrap();
        assert!(std::fs::read(&one).unwrap() == std::fs::read(&many).unwrap());
        if compression.is_some() {
            write_with_fragments(&tree, compression, 65536, 1, &one).unwrap();
            write_with_fragments(&tree, compression, 65536, 7, &many).unwrap();
            assert!(std::fs::read(one).unwrap() == std::fs::read(many).unwrap());
        }
    }
}

/// A change of a tree.
type Change<'a> = &'a dyn Fn(&mut Tree);

/// A tree like that of a server: many small texts and some larger files, in directories. `more`
/// changes it at the end.
fn server(more: Change) -> Tree {
    let mut tree = Tree::new();
    let mut random = Random(11);
    let meta = || Meta {
        mode: 0o644,
        ..Meta::default()
    };
    for folder in 0..60 {
        tree.insert(
            format!("/d{folder:02}").as_bytes(),
            Meta {
                mode: 0o755,
                ..Meta::default()
            },
            Kind::Directory(BTreeMap::new()),
        )
        .unwrap();
        for name in 0..50 {
            let len = if name % 10 == 0 {
                60_000 + random.upto(17)
            } else {
                100 + random.upto(13)
            };
            let bytes = if name % 7 == 0 {
                random.noise(len)
            } else {
                random.text(len)
            };
            tree.insert(
                format!("/d{folder:02}/f{name:02}").as_bytes(),
                meta(),
                file(bytes),
            )
            .unwrap();
        }
    }
    more(&mut tree);
    tree
}

#[test]
fn a_small_change_changes_few_blocks() {
    let scratch = Scratch::new();
    let put = |tree: &mut Tree, path: &str, bytes: Vec<u8>| {
        tree.insert(
            path.as_bytes(),
            Meta {
                mode: 0o644,
                ..Meta::default()
            },
            file(bytes),
        )
        .unwrap();
    };
    let changes: [(&str, usize, Change); 4] = [
        ("a line of a small file", 10, &|tree| {
            put(tree, "/d30/f33", b"another line\n".to_vec())
        }),
        ("a new small file", 30, &|tree| {
            put(tree, "/d07/f33a", vec![b'x'; 3000])
        }),
        ("a file removed", 20, &|tree| tree.remove(b"/d45/f12")),
        // About 50 blocks of its own, and the addresses of files behind it.
        ("a new large file", 100, &|tree| {
            put(tree, "/d01/f00a", Random(5).noise(200_000))
        }),
    ];
    for compression in [None, Some(Algorithm::Lz4hc), Some(Algorithm::Zstd(3))] {
        let blocks = |name: &str, tree: &Tree| {
            let path = scratch.0.path().join(name);
            write(tree, compression, 65536, 2, &path).unwrap();
            open(&path).unwrap();
            std::fs::read(&path)
                .unwrap()
                .chunks(BLOCK)
                .map(<[u8]>::to_vec)
                .collect::<Vec<_>>()
        };
        let before: HashSet<Vec<u8>> = blocks("before", &server(&|_| ())).into_iter().collect();
        for (what, most, change) in &changes {
            let after = blocks("after", &server(change));
            let new = after
                .iter()
                .filter(|block| !before.contains(*block))
                .count();
            println!("{compression:?}: {what}: {new} of {} blocks", after.len());
            assert!(
                new <= *most,
                "{compression:?}: {what}: {new} new blocks of {}",
                after.len()
            );
        }
    }
}

#[test]
fn refuses_entries_that_erofs_cannot_hold_and_names_the_file() {
    let scratch = Scratch::new();
    for (set, kind) in [
        (xattrs(&[("user.too-long", vec![0; 65_536])]), Kind::Fifo),
        (xattrs(&[("system.nfs4_acl", vec![0; 4])]), Kind::Fifo),
        (xattrs(&[("user.", vec![0; 4])]), Kind::Fifo),
        (
            None,
            Kind::CharDevice {
                major: 4096,
                minor: 0,
            },
        ),
        (None, Kind::Symlink(vec![b'x'; 4096].into())),
    ] {
        let mut tree = Tree::new();
        tree.insert(
            b"/some/where",
            Meta {
                xattrs: set,
                ..Meta::default()
            },
            kind,
        )
        .unwrap();
        let error = write(&tree, None, 4096, 1, &scratch.0.path().join("image")).unwrap_err();
        assert!(error.message().starts_with("/some/where: "), "{error}");
    }
}

#[test]
fn names_the_file_that_a_block_belongs_to() {
    let scratch = Scratch::new();
    let image = scratch.0.path().join("image");
    let mut tree = Tree::new();
    for name in ["/a", "/b"] {
        tree.insert(
            name.as_bytes(),
            Meta::default(),
            file(vec![name.as_bytes()[1]; 3 * BLOCK]),
        )
        .unwrap();
    }
    write(&tree, None, 4096, 1, &image).unwrap();
    let image = open(image).unwrap();
    let owners: Vec<_> = (0..8).map(|block| image.owner(block)).collect();
    let (a, b) = (Some(b"/a".to_vec()), Some(b"/b".to_vec()));
    assert_eq!(
        owners,
        [
            None,
            a.clone(),
            a.clone(),
            a,
            b.clone(),
            b.clone(),
            b,
            Some(b"/".to_vec())
        ]
    );
}

#[test]
fn corrupted_images_are_refused_or_read_without_a_panic() {
    let scratch = Scratch::new();
    let path = scratch.0.path().join("image");
    let mut random = Random(9);
    let mut refused = 0;
    for (seed, fragments) in [(3, false), (5, false), (11, false), (5, true), (11, true)] {
        let write_image = if fragments {
            write_with_fragments
        } else {
            write
        };
        write_image(&generated(seed), Some(Algorithm::Lz4), 16384, 2, &path).unwrap();
        let good = std::fs::read(&path).unwrap();
        // The metadata, where most errors are possible, is the last part.
        let from = good.len() as u64 / 2;
        for round in 0..120 {
            let mut bad = good.clone();
            for _ in 0..1 + round % 4 {
                let at = if round % 8 == 0 {
                    1024 + random.below(128)
                } else {
                    from + random.below(good.len() as u64 - from)
                };
                bad[at as usize] = random.next() as u8;
            }
            if round % 8 == 0 {
                fix_checksum(&mut bad);
            }
            if round % 50 == 49 {
                bad.truncate(random.below(good.len() as u64) as usize / BLOCK * BLOCK);
            }
            std::fs::write(&path, &bad).unwrap();
            match open(&path) {
                Err(_) => refused += 1,
                Ok(image) => {
                    for number in 0..image.inodes() {
                        let _ = image.read(number, &mut |_| Ok(()));
                    }
                }
            }
        }
    }
    assert!(
        refused > 20,
        "only {refused} of 600 corrupted images were refused"
    );
}

/// Corrects the checksum of a changed superblock, so that its fields are checked.
fn fix_checksum(image: &mut [u8]) {
    image[1028..1032].fill(0);
    let mut crc = !0u32;
    for &byte in &image[1024..4096] {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
        }
    }
    image[1028..1032].copy_from_slice(&crc.to_le_bytes());
}
