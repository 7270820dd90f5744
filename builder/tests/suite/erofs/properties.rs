//! Properties of generated trees: whatever goes in comes out, with every option.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;

use adamant::erofs::{Algorithm, Reference};
use adamant::io::part::Part;
use adamant::tree::{Kind, Meta, Time, Tree};
use proptest::prelude::*;

use super::compare::our_reader_agrees;
use super::image::{Scratch, write, write_over, write_with_fragments};
use super::trees::{Random, file, xattrs};

/// One step in making a tree.
#[derive(Debug, Clone)]
enum Step {
    Insert(Vec<u8>, Metadata, Entry),
    /// Links the second path to the file at the first one, if there is a file.
    Link(Vec<u8>, Vec<u8>),
    Remove(Vec<u8>),
}

#[derive(Debug, Clone)]
struct Metadata {
    mode: u16,
    uid: u32,
    gid: u32,
    seconds: i64,
    nanoseconds: u32,
    /// Extended attributes `user.N` with values of this length.
    xattrs: Vec<(u8, u16)>,
}

#[derive(Debug, Clone)]
enum Entry {
    Directory,
    Text(u64, usize),
    Noise(u64, usize),
    Symlink(usize),
    Device(u32, u32),
    Fifo,
}

/// Few components, so that paths collide, and some that are odd.
fn path() -> impl Strategy<Value = Vec<u8>> {
    let component = prop_oneof![
        4 => (0u8..6).prop_map(|n| vec![b'a' + n]),
        1 => prop::collection::vec(any::<u8>(), 1..256),
    ];
    prop::collection::vec(component, 1..4).prop_map(|components| {
        let mut path = Vec::new();
        for component in components {
            path.push(b'/');
            path.extend(component.into_iter().map(|byte| match byte {
                0 | b'/' | b'.' => b'_',
                other => other,
            }));
        }
        path
    })
}

fn metadata() -> impl Strategy<Value = Metadata> {
    let id = || prop_oneof![4 => 0u32..10, 1 => any::<u32>()];
    let seconds = prop_oneof![4 => 0i64..2, 1 => any::<i64>()];
    let xattrs = prop::collection::vec((0u8..4, 0u16..600), 0..3);
    (
        0u16..0o10000,
        id(),
        id(),
        seconds,
        0u32..1_000_000_000,
        xattrs,
    )
        .prop_map(|(mode, uid, gid, seconds, nanoseconds, xattrs)| Metadata {
            mode,
            uid,
            gid,
            seconds,
            nanoseconds: if seconds == 0 { 0 } else { nanoseconds },
            xattrs,
        })
}

/// Lengths around block boundaries, and others.
fn length() -> impl Strategy<Value = usize> {
    prop_oneof![
        4 => 0usize..200,
        2 => 3900usize..4200,
        2 => 0usize..20_000,
        1 => 60_000usize..140_000,
    ]
}

fn entry() -> impl Strategy<Value = Entry> {
    prop_oneof![
        2 => Just(Entry::Directory),
        4 => (1u64..9, length()).prop_map(|(seed, len)| Entry::Text(seed, len)),
        2 => (1u64..9, length()).prop_map(|(seed, len)| Entry::Noise(seed, len)),
        1 => (1usize..4096).prop_map(Entry::Symlink),
        1 => (0u32..4096, 0u32..1 << 20).prop_map(|(major, minor)| Entry::Device(major, minor)),
        1 => Just(Entry::Fifo),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (path(), metadata(), entry()).prop_map(|(path, meta, entry)| Step::Insert(path, meta, entry)),
        1 => (path(), path()).prop_map(|(from, to)| Step::Link(from, to)),
        1 => path().prop_map(Step::Remove),
    ]
}

/// Does the steps that are possible; a component that is a file makes one impossible.
fn apply(tree: &mut Tree, steps: &[Step]) {
    for step in steps {
        match step {
            Step::Insert(path, meta, entry) => {
                let kind = match *entry {
                    Entry::Directory => Kind::Directory(BTreeMap::new()),
                    Entry::Text(seed, len) => file(Random(seed).text(len)),
                    Entry::Noise(seed, len) => file(Random(seed).noise(len)),
                    Entry::Symlink(len) => Kind::Symlink(vec![b's'; len].into()),
                    Entry::Device(major, minor) => Kind::CharDevice { major, minor },
                    Entry::Fifo => Kind::Fifo,
                };
                let attributes: Vec<(String, Vec<u8>)> = meta
                    .xattrs
                    .iter()
                    .map(|(n, len)| (format!("user.{n}"), vec![*n; usize::from(*len)]))
                    .collect();
                let attributes: Vec<(&str, Vec<u8>)> = attributes
                    .iter()
                    .map(|(name, value)| (name.as_str(), value.clone()))
                    .collect();
                let meta = Meta {
                    mode: meta.mode,
                    uid: meta.uid,
                    gid: meta.gid,
                    mtime: Time {
                        seconds: meta.seconds,
                        nanoseconds: meta.nanoseconds,
                    },
                    xattrs: xattrs(&attributes).filter(|set| !set.is_empty()),
                };
                let _ = tree.insert(path, meta, kind);
            }
            Step::Link(from, to) => {
                if let Some(node) = tree.lookup(from) {
                    let _ = tree.link(to, node);
                }
            }
            Step::Remove(path) => tree.remove(path),
        }
    }
}

fn algorithm() -> impl Strategy<Value = Option<Algorithm>> {
    prop_oneof![
        Just(None),
        Just(Some(Algorithm::Lz4)),
        Just(Some(Algorithm::Lz4hc)),
        (1i32..6).prop_map(|level| Some(Algorithm::Zstd(level))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_tree_survives_the_round_trip(
        steps in prop::collection::vec(step(), 0..60),
        changes in prop::collection::vec(step(), 0..12),
        algorithm in algorithm(),
        cluster in 12u32..21,
        jobs in 1usize..4,
    ) {
        let scratch = Scratch::new();
        let path = |name: &str| scratch.0.path().join(name);
        let cluster = 1 << cluster;
        let mut tree = Tree::new();
        apply(&mut tree, &steps);
        write(&tree, algorithm, cluster, jobs, &path("image")).unwrap();
        our_reader_agrees(&tree, &path("image"));
        // The number of threads changes nothing.
        write(&tree, algorithm, cluster, jobs + 1, &path("other")).unwrap();
        prop_assert!(std::fs::read(path("image")).unwrap() == std::fs::read(path("other")).unwrap());
        if algorithm.is_some() {
            write_with_fragments(&tree, algorithm, cluster, jobs, &path("other")).unwrap();
            our_reader_agrees(&tree, &path("other"));
        }
        // The next version, with this one as its reference.
        apply(&mut tree, &changes);
        let part = Part::whole(File::open(path("image")).unwrap()).unwrap();
        let reference = Arc::new(Reference::read(part).unwrap());
        write_over(&reference, &tree, algorithm, cluster, jobs, &path("other")).unwrap();
        our_reader_agrees(&tree, &path("other"));
    }

    /// Names, link counts and the root stay consistent, whatever is done to a tree.
    #[test]
    fn every_tree_stays_consistent(steps in prop::collection::vec(step(), 0..120)) {
        let mut tree = Tree::new();
        apply(&mut tree, &steps);
        let mut names = BTreeMap::new();
        let mut last: Vec<u8> = Vec::new();
        let components = |path: &[u8]| path.split(|b| *b == b'/').map(<[u8]>::to_vec).collect::<Vec<_>>();
        for (path, id) in tree.walk() {
            prop_assert!(components(&last) < components(&path), "order");
            prop_assert_eq!(tree.lookup(&path), Some(id));
            *names.entry(id).or_insert(0u32) += 1;
            last = path;
        }
        for (id, count) in names {
            prop_assert_eq!(tree.node(id).links, count);
        }
    }
}
