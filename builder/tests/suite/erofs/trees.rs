//! Trees to write: one with odd entries of every sort, and generated ones.

use std::collections::BTreeMap;
use std::sync::Arc;

use adamant::erofs::BLOCK;
use adamant::tree::{Bytes, Content, ContentExtent, Kind, Meta, Time, Tree};

pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// A number below a random power of two, so that small numbers are frequent.
    pub fn upto(&mut self, bits: u64) -> usize {
        let limit = 1 << self.below(bits);
        self.below(limit) as usize
    }

    pub fn noise(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| (self.next() >> 32) as u8).collect()
    }

    /// Bytes that compress like text.
    pub fn text(&mut self, len: usize) -> Vec<u8> {
        let words: Vec<Vec<u8>> = (0..200).map(|i| self.noise(2 + i % 9)).collect();
        let mut out = Vec::with_capacity(len + 16);
        while out.len() < len {
            out.extend_from_slice(&words[self.below(200) as usize]);
        }
        out.truncate(len);
        out
    }
}

pub fn file(bytes: Vec<u8>) -> Kind {
    Kind::File(Content::from_memory(bytes))
}

pub fn xattrs(list: &[(&str, Vec<u8>)]) -> Option<adamant::tree::Xattrs> {
    Some(Arc::new(
        list.iter()
            .map(|(name, value)| (name.as_bytes().into(), value[..].into()))
            .collect::<BTreeMap<Box<[u8]>, Box<[u8]>>>(),
    ))
}

/// An access control list in the kernel's format: version 2, owner, one user, group, mask, others.
pub fn acl() -> Vec<u8> {
    let mut acl = 2u32.to_le_bytes().to_vec();
    for (tag, perm, id) in [
        (1u16, 7u16, !0u32),
        (2, 5, 1000),
        (4, 5, !0),
        (0x10, 7, !0),
        (0x20, 1, !0),
    ] {
        acl.extend_from_slice(&tag.to_le_bytes());
        acl.extend_from_slice(&perm.to_le_bytes());
        acl.extend_from_slice(&id.to_le_bytes());
    }
    acl
}

/// Odd entries of every sort.
pub fn oddities(crowd: usize) -> Tree {
    let mut random = Random(42);
    let mut tree = Tree::new();
    let mut put = |path: &[u8], meta: Meta, kind: Kind| tree.insert(path, meta, kind).unwrap();
    let plain = || Meta {
        mode: 0o644,
        ..Meta::default()
    };
    for size in [
        0, 1, 31, 4000, 4031, 4032, 4033, 4064, 4065, 4095, 4096, 4097, 5000, 8191, 8192, 8193,
        65535, 65536, 65537, 200_000, 1_000_003,
    ] {
        put(
            format!("/sizes/text-{size}").as_bytes(),
            plain(),
            file(random.text(size)),
        );
        put(
            format!("/sizes/noise-{size}").as_bytes(),
            plain(),
            file(random.noise(size)),
        );
        put(
            format!("/sizes/zero-{size}").as_bytes(),
            plain(),
            file(vec![0; size]),
        );
    }
    // Several segments, noise amid text, and a file of which only the first segment is noise.
    put(b"/large/text", plain(), file(random.text((5 << 20) + 17)));
    put(
        b"/large/noise",
        plain(),
        file(random.noise((4 << 20) + 4000)),
    );
    put(
        b"/large/aligned-noise",
        plain(),
        file(random.noise((4 << 20) + BLOCK)),
    );
    let mut mixed = random.noise(4 << 20);
    mixed.extend(random.text(1_000_001));
    put(b"/large/mixed", plain(), file(mixed));
    let mut islands = Vec::new();
    for _ in 0..40 {
        let (noise, text) = (random.below(70_000) as usize, random.below(70_000) as usize);
        islands.extend(random.noise(noise));
        islands.extend(random.text(text));
    }
    put(b"/large/islands", plain(), file(islands));
    let piece = ContentExtent {
        at: 7_000_000,
        len: 5000,
        bytes: Bytes::Memory(random.noise(5000).into()),
    };
    put(
        b"/large/sparse",
        plain(),
        Kind::File(Content::sparse(30_000_000, vec![piece]).unwrap()),
    );

    for (i, (seconds, nanoseconds)) in [
        (0, 0),
        (1, 999_999_999),
        (-1, 5),
        (-9_000_000_000, 0),
        (4_294_967_296, 1),
        (9_000_000_000, 0),
    ]
    .into_iter()
    .enumerate()
    {
        put(
            format!("/times/{i}").as_bytes(),
            Meta {
                mode: 0o600,
                mtime: Time {
                    seconds,
                    nanoseconds,
                },
                ..Meta::default()
            },
            file(vec![b'x'; i * 2000]),
        );
    }
    for (i, (mode, uid, gid)) in [
        (0o7777, 0, 0),
        (0, 65_535, 65_536),
        (0o4755, 4_294_967_294, 4_294_967_294),
        (0o1777, 65_536, 1),
    ]
    .into_iter()
    .enumerate()
    {
        put(
            format!("/owners/{i}").as_bytes(),
            Meta {
                mode,
                uid,
                gid,
                ..Meta::default()
            },
            file(b"owned".to_vec()),
        );
    }
    for (i, (major, minor)) in [(1, 3), (0, 0), (4095, 1_048_575), (259, 256)]
        .into_iter()
        .enumerate()
    {
        put(
            format!("/special/char-{i}").as_bytes(),
            plain(),
            Kind::CharDevice { major, minor },
        );
        put(
            format!("/special/block-{i}").as_bytes(),
            plain(),
            Kind::BlockDevice { major, minor },
        );
    }
    put(b"/special/fifo", plain(), Kind::Fifo);
    put(b"/special/socket", plain(), Kind::Socket);
    for len in [1, 59, 60, 4000, 4032, 4033, 4064, 4065, 4095] {
        put(
            format!("/links/{len}").as_bytes(),
            Meta {
                mode: 0o777,
                ..Meta::default()
            },
            Kind::Symlink(vec![b'l'; len].into()),
        );
    }
    put(b"/names/-before-dot", plain(), Kind::Fifo);
    put(b"/names/.hidden", plain(), Kind::Fifo);
    put(b"/names/..double", plain(), Kind::Fifo);
    put(
        b"/names/\xff\xfe not utf-8",
        plain(),
        file(b"bytes".to_vec()),
    );
    put(b"/names/new\nline", plain(), file(b"bytes".to_vec()));
    put(
        &[b"/names/".to_vec(), vec![b'n'; 255]].concat(),
        plain(),
        file(b"long".to_vec()),
    );

    let capability = vec![1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for i in 0..5 {
        let set = xattrs(&[
            ("security.capability", capability.clone()),
            ("user.number", vec![b'0' + i]),
        ]);
        put(
            format!("/xattrs/capable-{i}").as_bytes(),
            Meta {
                mode: 0o755,
                xattrs: set,
                ..Meta::default()
            },
            file(random.text(3000)),
        );
    }
    let many: Vec<(String, Vec<u8>)> = (0..300)
        .map(|i| (format!("user.many-{i}"), vec![i as u8; i % 90]))
        .collect();
    let many: Vec<(&str, Vec<u8>)> = many.iter().map(|(n, v)| (n.as_str(), v.clone())).collect();
    for i in 0..2 {
        put(
            format!("/xattrs/many-{i}").as_bytes(),
            Meta {
                mode: 0o644,
                xattrs: xattrs(&many),
                ..Meta::default()
            },
            file(random.text(70_000)),
        );
    }
    let long = [
        ("user.long", random.noise(65_535)),
        ("trusted.overlay.opaque", b"y".to_vec()),
        ("user.empty", Vec::new()),
    ];
    put(
        b"/xattrs/long",
        Meta {
            mode: 0o644,
            xattrs: xattrs(&long),
            ..Meta::default()
        },
        file(random.text(10_000)),
    );
    put(
        b"/xattrs/long-link",
        Meta {
            mode: 0o777,
            xattrs: xattrs(&[("trusted.x", random.noise(3000))]),
            ..Meta::default()
        },
        Kind::Symlink(vec![b't'; 2000].into()),
    );
    let acls = xattrs(&[
        ("system.posix_acl_access", acl()),
        ("system.posix_acl_default", acl()),
    ]);
    put(
        b"/xattrs/acl",
        Meta {
            mode: 0o775,
            xattrs: acls,
            ..Meta::default()
        },
        Kind::Directory(BTreeMap::new()),
    );
    put(
        b"/xattrs/fifo",
        Meta {
            mode: 0o644,
            xattrs: xattrs(&[("trusted.fifo", vec![1])]),
            ..Meta::default()
        },
        Kind::Fifo,
    );

    let deep = b"/d".repeat(300);
    put(
        &deep,
        Meta {
            mode: 0o700,
            ..Meta::default()
        },
        Kind::Directory(BTreeMap::new()),
    );
    put(
        b"/empty",
        Meta {
            mode: 0o1777,
            ..Meta::default()
        },
        Kind::Directory(BTreeMap::new()),
    );
    let linked = put(b"/crowd/original", plain(), file(random.text(9000)));
    for i in 0..crowd {
        tree.link(
            format!("/crowd/{i:05}-{}", "x".repeat(i % 40)).as_bytes(),
            linked,
        )
        .unwrap();
    }
    tree.node_mut(Tree::ROOT).meta = Meta {
        mode: 0o751,
        uid: 3,
        gid: 4,
        mtime: Time {
            seconds: 77,
            nanoseconds: 7,
        },
        xattrs: xattrs(&[("user.root", vec![1, 2, 3])]),
    };
    tree
}

/// A small tree that depends only on the seed.
pub fn generated(seed: u64) -> Tree {
    let mut random = Random(seed * 2 + 1);
    let mut tree = Tree::new();
    let mut directories = vec![Vec::new()];
    for i in 0..random.below(120) {
        let mut path = directories[random.below(directories.len() as u64) as usize].clone();
        path.push(b'/');
        let len = 1 + random.upto(8);
        path.extend(random.noise(len).iter().map(|b| match b {
            0 | b'/' | b'.' => b'_',
            other => *other,
        }));
        path.extend_from_slice(i.to_string().as_bytes());
        path.truncate(path.len().min(3000));
        let mtime = if random.below(3) == 0 {
            Time {
                seconds: random.below(1 << 33) as i64,
                nanoseconds: random.below(1_000_000_000) as u32,
            }
        } else {
            Time::default()
        };
        let attributes = [
            ("user.a", random.noise(3)),
            ("trusted.b", b"same".to_vec()),
            ("security.c", random.text(900)),
        ];
        let some = random.below(9) as usize;
        let meta = Meta {
            mode: random.below(0o10000) as u16,
            uid: random.below(1 << 17) as u32,
            gid: random.below(1 << 17) as u32,
            mtime,
            xattrs: None,
        };
        let size = random.upto(19);
        let kind = match random.below(10) {
            0 | 1 => Kind::Directory(BTreeMap::new()),
            2 => Kind::Symlink(vec![b's'; 1 + size % 4095].into()),
            3 => Kind::Fifo,
            4 => file(random.noise(size)),
            5 => file(
                [
                    random.text(size),
                    random.noise(size / 3),
                    random.text(size / 2),
                ]
                .concat(),
            ),
            _ => file(random.text(size)),
        };
        let directory = matches!(kind, Kind::Directory(_));
        // The kernel shows `user.` attributes of files and directories only.
        let from = usize::from(!matches!(kind, Kind::Directory(_) | Kind::File(_)));
        let xattrs = if from < some && some < 4 {
            xattrs(&attributes[from..some])
        } else {
            None
        };
        let meta = Meta { xattrs, ..meta };
        let node = tree.insert(&path, meta, kind).unwrap();
        if directory {
            directories.push(path);
        } else if random.below(6) == 0 {
            tree.link(format!("/link-{i}").as_bytes(), node).unwrap();
        }
    }
    tree
}
