//! Images with a reference image.

use std::collections::HashSet;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use adamant::erofs::{Algorithm, BLOCK, Reference};
use adamant::io::part::Part;
use adamant::tree::{Kind, Meta, Tree};

use super::compare::*;
use super::image::*;
use super::trees::*;
use super::{Change, MAIN_SETTINGS, fix_checksum, server};

fn read_reference(path: &Path) -> adamant::Result<Arc<Reference>> {
    Reference::read(Part::whole(File::open(path).unwrap()).unwrap()).map(Arc::new)
}

fn put(tree: &mut Tree, path: &str, bytes: Vec<u8>) {
    tree.insert(
        path.as_bytes(),
        Meta {
            mode: 0o644,
            ..Meta::default()
        },
        file(bytes),
    )
    .unwrap();
}

/// Number of blocks of the new image that the old one does not have.
fn new_blocks(old: &Path, new: &Path) -> usize {
    let blocks = |path: &Path| {
        std::fs::read(path)
            .unwrap()
            .chunks(BLOCK)
            .map(<[u8]>::to_vec)
            .collect::<Vec<_>>()
    };
    let old: HashSet<Vec<u8>> = blocks(old).into_iter().collect();
    blocks(new)
        .iter()
        .filter(|block| !old.contains(*block))
        .count()
}

#[test]
fn unchanged_files_keep_their_blocks() {
    let scratch = Scratch::new();
    let path = |name: &str| scratch.0.path().join(name);
    // The limits allow for contents, inode, the directory's inode or block, the superblock, and
    // entries that take over freed blocks.
    let changes: [(&str, usize, Change); 6] = [
        ("nothing", 0, &|_| ()),
        ("a line of a small file", 4, &|tree| {
            put(tree, "/d30/f33", b"another line\n".to_vec())
        }),
        ("a new small file", 8, &|tree| {
            put(tree, "/d07/f33a", vec![b'x'; 3000])
        }),
        ("a file removed", 4, &|tree| tree.remove(b"/d45/f12")),
        ("a new large file", 55, &|tree| {
            put(tree, "/d01/f00a", Random(5).noise(200_000))
        }),
        ("a large file that grows", 58, &|tree| {
            put(tree, "/d01/f00", Random(5).noise(200_000))
        }),
    ];
    for compression in [None, Some(Algorithm::Lz4hc), Some(Algorithm::Zstd(3))] {
        write(&server(&|_| ()), compression, 65536, 2, &path("before")).unwrap();
        for (what, most, change) in &changes {
            let tree = server(change);
            let hint = read_reference(&path("before")).unwrap();
            for jobs in [1, 3] {
                let written = write_over(
                    &hint,
                    &tree,
                    compression,
                    65536,
                    jobs,
                    &path(&format!("after-{jobs}")),
                )
                .unwrap();
                assert!(written.placement_reused, "{compression:?}: {what}");
            }
            assert!(
                std::fs::read(path("after-1")).unwrap() == std::fs::read(path("after-3")).unwrap(),
                "{compression:?}: {what}: threads"
            );
            our_reader_agrees(&tree, &path("after-1"));
            let new = new_blocks(&path("before"), &path("after-1"));
            println!("{compression:?}: {what}: {new}");
            assert!(new <= *most, "{compression:?}: {what}: {new} new blocks");
        }
    }
}

#[test]
fn odd_entries_survive_any_reference_image() {
    let scratch = Scratch::new();
    let path = |name: &str| scratch.0.path().join(name);
    let tree = oddities(20_500);
    let other = |seed: u64| {
        let mut tree = oddities(9_000);
        put(&mut tree, "/d-of-another", Random(seed).noise(90_000));
        tree
    };
    for (compression, cluster) in MAIN_SETTINGS {
        for (seed, made_as) in [(1, compression), (2, None), (3, Some(Algorithm::Lz4))] {
            write(&other(seed), made_as, cluster, 2, &path("before")).unwrap();
            write_over(
                &read_reference(&path("before")).unwrap(),
                &tree,
                compression,
                cluster,
                2,
                &path("after"),
            )
            .unwrap();
            our_reader_agrees(&tree, &path("after"));
        }
        if may_mount() {
            let mounted = Mounted::new(&path("after"), path("mount"));
            folder_agrees(&tree, &mounted.0, true);
        }
    }
}

#[test]
fn a_year_of_reused_positions_makes_an_image_little_larger() {
    let scratch = Scratch::new();
    let path = |name: &str| scratch.0.path().join(name);
    let mut random = Random(3);
    let mut tree = server(&|_| ());
    write(&tree, Some(Algorithm::Zstd(3)), 65536, 2, &path("before")).unwrap();
    let mut anew_times = 0;
    for week in 0..52 {
        for _ in 0..8 {
            let name = format!(
                "/d{:02}/f{:02}{}",
                random.below(60),
                random.below(50),
                ["", "a", "b"][random.below(3) as usize]
            );
            match random.below(3) {
                0 => tree.remove(name.as_bytes()),
                _ => {
                    let len = random.upto(18);
                    put(&mut tree, &name, random.text(len));
                }
            }
        }
        let written = write_over(
            &read_reference(&path("before")).unwrap(),
            &tree,
            Some(Algorithm::Zstd(3)),
            65536,
            2,
            &path("after"),
        )
        .unwrap();
        anew_times += usize::from(!written.placement_reused);
        our_reader_agrees(&tree, &path("after"));
        write(&tree, Some(Algorithm::Zstd(3)), 65536, 2, &path("anew")).unwrap();
        let len = |name: &str| std::fs::metadata(path(name)).unwrap().len();
        assert!(
            len("after") <= len("anew") + len("anew") / 100 + BLOCK as u64,
            "week {week}: {} bytes instead of {}",
            len("after"),
            len("anew")
        );
        std::fs::rename(path("after"), path("before")).unwrap();
    }
    assert!(
        anew_times < 12,
        "placed without the reference {anew_times} times"
    );
}

#[test]
fn a_hostile_reference_image_only_wastes_one_percent() {
    let scratch = Scratch::new();
    let path = |name: &str| scratch.0.path().join(name);
    let tree = server(&|tree| put(tree, "/new", vec![1; 50_000]));
    write(&tree, Some(Algorithm::Lz4), 65536, 2, &path("anew")).unwrap();
    let anew = std::fs::metadata(path("anew")).unwrap().len();
    let check = |hint: &Arc<Reference>, what: &str| {
        let written =
            write_over(hint, &tree, Some(Algorithm::Lz4), 65536, 2, &path("after")).unwrap();
        our_reader_agrees(&tree, &path("after"));
        let len = std::fs::metadata(path("after")).unwrap().len();
        assert!(
            len <= anew + anew / 100 + BLOCK as u64,
            "{what}: {len} bytes instead of {anew}"
        );
        written.placement_reused
    };

    // Positions far away, two requests for one position, and positions of other types of entries.
    let far = server(&|tree| put(tree, "/!", Random(1).noise(8 << 20)));
    write(&far, None, 65536, 2, &path("before")).unwrap();
    assert!(
        !check(&read_reference(&path("before")).unwrap(), "far"),
        "positions that make an image larger are not reused"
    );
    let linked = server(&|tree| {
        for i in 1..40 {
            let node = tree.resolve(b"/d00/f00").unwrap();
            let name = format!("/d{i:02}/f00");
            tree.remove(name.as_bytes());
            tree.link(name.as_bytes(), node).unwrap();
        }
    });
    write(&linked, Some(Algorithm::Lz4), 65536, 2, &path("before")).unwrap();
    check(&read_reference(&path("before")).unwrap(), "links");
    let turned = server(&|tree| {
        for i in 0..50 {
            let name = format!("/d10/f{i:02}");
            tree.remove(name.as_bytes());
            tree.insert(
                name.as_bytes(),
                Meta::default(),
                Kind::Symlink(vec![b'x'; 4000].into()),
            )
            .unwrap();
        }
    });
    write(&turned, Some(Algorithm::Lz4), 65536, 2, &path("before")).unwrap();
    check(&read_reference(&path("before")).unwrap(), "other kinds");

    // A corrupted reference image is refused, or harmless.
    write(
        &server(&|_| ()),
        Some(Algorithm::Lz4),
        65536,
        2,
        &path("before"),
    )
    .unwrap();
    let good = std::fs::read(path("before")).unwrap();
    let meta =
        u32::from_le_bytes(good[1024 + 40..1024 + 44].try_into().unwrap()) as u64 * BLOCK as u64;
    let mut random = Random(17);
    let (mut refused, mut taken) = (0, 0);
    for round in 0..60 {
        let mut bad = good.clone();
        for _ in 0..1 + round % 3 {
            let at = if round % 8 == 0 {
                1024 + random.below(128)
            } else {
                meta + random.below(good.len() as u64 - meta)
            };
            bad[at as usize] = random.next() as u8;
        }
        fix_checksum(&mut bad);
        std::fs::write(path("bad"), &bad).unwrap();
        match read_reference(&path("bad")) {
            Err(_) => refused += 1,
            Ok(hint) => {
                check(&hint, "corrupted");
                taken += 1;
            }
        }
    }
    assert!(refused > 5 && taken > 5, "{refused} refused, {taken} taken");
}
