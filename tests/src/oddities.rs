//! An archive that holds every oddity a tar archive can have and a tree must keep, and a second
//! archive of the same tree that any tar can unpack. What other projects make of the second is what
//! an image of the first must hold.

use std::io::{self, Write};
use std::path::Path;

/// How the tree is written down.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// Hard links before what they lead to, directories after what is in them or not at all, the
    /// same path twice, every dialect.
    Odd,
    /// Parents first, targets before their links, each path once, all in pax headers: GNU tar
    /// unpacks it.
    Plain,
}

/// The archive with the oddities.
pub fn archive() -> Vec<u8> {
    Archive::of(Shape::Odd)
}

/// The same tree without what trips other tools.
pub fn plain_archive() -> Vec<u8> {
    Archive::of(Shape::Plain)
}

/// The oddities without what is large, for readers that are to see very many archives.
pub fn small() -> Vec<u8> {
    let mut archive = Archive {
        bytes: Vec::new(),
        shape: Shape::Odd,
    };
    archive.times_and_ids();
    archive.attributes();
    archive.holes();
    archive.links();
    archive.bytes.extend([0; 1024]);
    archive.bytes
}

/// Writes the archive with the oddities.
pub fn write(path: &Path) -> io::Result<()> {
    std::fs::write(path, archive())
}

/// Writes an archive with one file of more than 4 GiB, with bytes at its start, around 4 GiB and at
/// its end. Nearly all of it is a hole in the archive file, but to tar it is no sparse file.
pub fn write_huge(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::FileExt;
    const SIZE: u64 = (4 << 30) + 4101;
    let mut archive = Archive {
        bytes: Vec::new(),
        shape: Shape::Plain,
    };
    archive.add(Entry::new(b'5', b"./"));
    archive.init();
    archive.add(Entry {
        size: Some(SIZE),
        ..Entry::new(b'0', b"huge")
    });
    let start = archive.bytes.len() as u64;
    let file = std::fs::File::create(path)?;
    file.write_all_at(&archive.bytes, 0)?;
    for (at, bytes) in [
        (0, &b"first"[..]),
        ((4 << 30) - 2, b"four"),
        (SIZE - 4, b"last"),
    ] {
        file.write_all_at(bytes, start + at)?;
    }
    file.set_len(start + SIZE.next_multiple_of(512) + 1024)
}

/// An entry to be.
#[derive(Clone, Default)]
struct Entry {
    flag: u8,
    name: Vec<u8>,
    link: Vec<u8>,
    content: Vec<u8>,
    /// Instead of the content's length.
    size: Option<u64>,
    mode: u32,
    uid: u64,
    gid: u64,
    seconds: i64,
    /// As a pax header writes it: `.5`, of negative times too.
    time: Option<&'static str>,
    device: (u64, u64),
    records: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Entry {
    fn new(flag: u8, name: &[u8]) -> Entry {
        let mode = match flag {
            b'5' => 0o755,
            b'2' => 0o777,
            _ => 0o644,
        };
        Entry {
            flag,
            name: name.to_vec(),
            mode,
            seconds: 1_700_000_000,
            ..Entry::default()
        }
    }

    fn file(name: &[u8], content: impl AsRef<[u8]>) -> Entry {
        Entry {
            content: content.as_ref().to_vec(),
            ..Entry::new(b'0', name)
        }
    }

    fn symlink(name: &[u8], target: &[u8]) -> Entry {
        Entry {
            link: target.to_vec(),
            ..Entry::new(b'2', name)
        }
    }

    fn link(name: &[u8], target: &[u8]) -> Entry {
        Entry {
            link: target.to_vec(),
            ..Entry::new(b'1', name)
        }
    }

    fn record(mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Entry {
        self.records
            .push((key.as_ref().to_vec(), value.as_ref().to_vec()));
        self
    }
}

struct Archive {
    bytes: Vec<u8>,
    shape: Shape,
}

impl Archive {
    fn of(shape: Shape) -> Vec<u8> {
        let mut archive = Archive {
            bytes: Vec::new(),
            shape,
        };
        archive.directories();
        archive.names();
        archive.kinds();
        archive.times_and_ids();
        archive.attributes();
        archive.holes();
        archive.links();
        archive.bytes.extend([0; 1024]);
        archive.bytes
    }

    fn is_odd(&self) -> bool {
        self.shape == Shape::Odd
    }

    /// A directory: after what is in it where that is odd, else before.
    fn around(&mut self, directory: Entry, inside: impl FnOnce(&mut Archive)) {
        if self.is_odd() {
            inside(self);
            self.add(directory);
        } else {
            self.add(directory);
            inside(self);
        }
    }

    fn directories(&mut self) {
        self.add(Entry {
            mode: 0o751,
            time: Some("1600000000.000000001"),
            ..Entry::new(b'5', b"./")
        });
        self.init();
        self.around(
            Entry {
                mode: 0o3770,
                uid: 7,
                gid: 8,
                ..Entry::new(b'5', b"late/")
            },
            |archive| archive.add(Entry::file(b"late/inside", "x")),
        );
        if !self.is_odd() {
            // What is made for a file whose parents are missing.
            for name in [&b"missing"[..], b"missing/parents"] {
                self.add(Entry {
                    seconds: 0,
                    ..Entry::new(b'5', name)
                });
            }
        }
        self.add(Entry::file(b"missing/parents/file", "made root:root 0755"));
        self.around(Entry::new(b'5', b"many"), |archive| {
            for number in 0..20_000 {
                archive.add(Entry::file(
                    format!("many/{number:05}").as_bytes(),
                    if number % 1000 == 0 { "x" } else { "" },
                ));
            }
        });
        self.add(Entry::new(b'5', b"empty-directory"));
        if self.is_odd() {
            self.add(Entry::file(b"twice", "the first one").record("SCHILY.xattr.user.gone", "x"));
            self.add(Entry::symlink(b"kind-changes", b"twice"));
            // Unix V7 had no type for directories.
            self.add(Entry {
                flag: 0,
                mode: 0o755,
                ..Entry::file(b"kind-changes/", "")
            });
        } else {
            self.add(Entry::new(b'5', b"kind-changes"));
        }
        self.add(Entry::file(b"twice", "the last one"));
    }

    /// The builder makes no image without one.
    fn init(&mut self) {
        self.add(Entry::new(b'5', b"sbin"));
        self.add(Entry {
            mode: 0o755,
            ..Entry::file(b"sbin/init", crate::program::bytes())
        });
    }

    fn names(&mut self) {
        self.add(Entry::new(b'5', b"names"));
        for name in [
            &b"latin-1-\xe4\xf6\xfc"[..],
            b"\xff\xfe\x01",
            b"new\nline",
            b" blank ",
            b"back\\slash",
            b"quote\"'",
            b"-dash",
            b"*",
            b"...",
            "ü-日本-🦀".as_bytes(),
        ] {
            self.add(Entry::file(&[b"names/", name].concat(), name));
        }
        self.add(Entry::file(
            &[&b"names/"[..], &[b'n'; 255]].concat(),
            "255 bytes",
        ));
        self.add(Entry::file(
            &[&b"names/"[..], &[0xe9; 255]].concat(),
            "255 bytes of Latin-1",
        ));
        self.add(Entry::symlink(
            b"names/long-target",
            &b"0123456789abcde/".repeat(256)[..4095],
        ));
        self.add(Entry::symlink(
            b"names/strange-target",
            b"\xff\n \\ ../../..",
        ));
        let deep = b"deep/".repeat(12);
        for depth in 1..=12 {
            self.add(Entry::new(b'5', &deep[..depth * 5 - 1]));
        }
        self.add(Entry::file(
            &[&deep[..], b"below"].concat(),
            "prefix and name",
        ));
    }

    fn kinds(&mut self) {
        self.add(Entry {
            device: (1, 3),
            mode: 0o666,
            ..Entry::new(b'3', b"null")
        });
        self.add(Entry {
            device: (259, 1_048_575),
            mode: 0o660,
            gid: 6,
            ..Entry::new(b'4', b"block")
        });
        self.add(Entry {
            device: (4095, 0),
            ..Entry::new(b'3', b"highest")
        });
        self.add(Entry {
            mode: 0o600,
            ..Entry::new(b'6', b"fifo")
        });
        for size in [
            0usize, 1, 511, 512, 513, 4095, 4096, 4097, 65_536, 1_000_003,
        ] {
            let content: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
            self.add(Entry {
                mode: 0o4755,
                ..Entry::file(format!("size-{size}").as_bytes(), content)
            });
        }
        self.add(Entry {
            mode: 0,
            ..Entry::file(b"mode-0", "x")
        });
        self.add(Entry {
            mode: 0o7777,
            ..Entry::file(b"mode-7777", "x")
        });
    }

    fn times_and_ids(&mut self) {
        for (name, time) in [
            ("time-nanoseconds", "1700000000.123456789"),
            ("time-negative", "-1.25"),
            ("time-just-before", "-0.000000001"),
            ("time-1901", "-2147483648"),
            ("time-2038", "2147483648.5"),
            ("time-2200", "7258118400.999999999"),
        ] {
            self.add(Entry {
                time: Some(time),
                ..Entry::file(name.as_bytes(), "t")
            });
            self.add(Entry {
                time: Some(time),
                ..Entry::symlink(format!("link-{name}").as_bytes(), b"t")
            });
        }
        self.add(Entry {
            seconds: 0,
            ..Entry::file(b"time-0", "t")
        });
        self.add(Entry {
            seconds: -1,
            ..Entry::file(b"time-base-256", "t")
        });
        self.add(Entry {
            uid: 65_536,
            gid: 65_535,
            ..Entry::file(b"ids-past-16-bits", "i")
        });
        self.add(Entry {
            uid: 4_294_967_294,
            gid: 4_000_000_000,
            ..Entry::file(b"ids-highest", "i")
        });
        self.add(Entry {
            uid: 4_294_967_294,
            gid: 1,
            ..Entry::symlink(b"ids-of-a-link", b"i")
        });
    }

    fn attributes(&mut self) {
        let capability = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
        self.add(
            Entry {
                mode: 0o755,
                ..Entry::file(b"xattr-all", "a")
            }
            .record("SCHILY.xattr.user.text", "text")
            .record("SCHILY.xattr.user.bytes", b"\0\n=\xff")
            .record("SCHILY.xattr.user.empty", "")
            .record("SCHILY.xattr.trusted.odd", "y")
            .record("SCHILY.xattr.security.capability", capability)
            .record("SCHILY.xattr.security.other", "label"),
        );
        self.add(Entry::file(b"xattr-large", "a").record("SCHILY.xattr.user.large", [0xa5; 3000]));
        self.add(
            Entry::file(b"xattr-long-name", "a")
                .record(format!("SCHILY.xattr.user.{}", "n".repeat(250)), "v"),
        );
        self.add(
            Entry::symlink(b"xattr-of-a-link", b"a").record("SCHILY.xattr.trusted.on-a-link", "v"),
        );
        for number in 0..20 {
            // Equal sets, which file systems share.
            self.add(
                Entry::file(format!("xattr-shared-{number}").as_bytes(), "a")
                    .record("SCHILY.xattr.user.shared", "the same in all"),
            );
        }
        // libarchive's own form: the same attribute, encoded.
        let (key, value) = if self.is_odd() {
            ("LIBARCHIVE.xattr.user.%c3%a4", "YW5k")
        } else {
            ("SCHILY.xattr.user.ä", "and")
        };
        self.add(Entry::file(b"xattr-libarchive", "a").record(key, value));
        let access = "user::rwx,user:1000:r-x,user:4000000000:---,group::r-x,group:7:rw-,mask::rwx,other::---";
        self.add(
            Entry {
                mode: 0o770,
                ..Entry::file(b"acl-file", "a")
            }
            .record("SCHILY.acl.access", access),
        );
        let default = "user::rwx,group::r-x,group:42:r-x,mask::r-x,other::r-x";
        self.add(Entry::new(b'5', b"acl-directory").record("SCHILY.acl.default", default));
        self.add(
            Entry {
                device: (1, 5),
                ..Entry::new(b'3', b"xattr-of-a-device")
            }
            .record("SCHILY.xattr.trusted.d", "v"),
        );
    }

    /// The same file in each of GNU's forms of files with holes: 40 pieces of 512 bytes, and a hole
    /// at the end.
    fn holes(&mut self) {
        let pieces: Vec<(u64, u64)> = (0..40).map(|piece| (piece * 10_240 + 1024, 512)).collect();
        let length = 500_000u64;
        let held: Vec<u8> = (0..40u8).flat_map(|piece| [piece + 1; 512]).collect();
        let mut whole = vec![0; length as usize];
        for (index, (at, len)) in pieces.iter().enumerate() {
            whole[*at as usize..(at + len) as usize]
                .copy_from_slice(&held[index * 512..(index + 1) * 512]);
        }
        let names = [&b"holes-old"[..], b"holes-0.0", b"holes-0.1", b"holes-1.0"];
        if !self.is_odd() {
            for name in names {
                self.add(Entry::file(name, &whole));
            }
            return;
        }
        self.old_holes(names[0], &pieces, length, &held);
        let size = length.to_string();
        let mut entry = Entry::file(names[1], &held)
            .record("GNU.sparse.size", &size)
            .record("GNU.sparse.numblocks", "40");
        for (at, len) in &pieces {
            entry = entry
                .record("GNU.sparse.offset", at.to_string())
                .record("GNU.sparse.numbytes", len.to_string());
        }
        self.add(entry);
        let map: Vec<String> = pieces
            .iter()
            .flat_map(|(at, len)| [at.to_string(), len.to_string()])
            .collect();
        let made_up = Entry::file(b"./GNUSparseFile.0/x", &held);
        self.add(
            made_up
                .record("GNU.sparse.map", map.join(","))
                .record("GNU.sparse.size", &size)
                .record("GNU.sparse.name", names[2]),
        );
        let mut content = format!("40\n{}\n", map.join("\n")).into_bytes();
        content.resize(content.len().next_multiple_of(512), 0);
        content.extend(&held);
        let made_up = Entry::file(b"./GNUSparseFile.0/x", content)
            .record("GNU.sparse.major", "1")
            .record("GNU.sparse.minor", "0");
        self.add(
            made_up
                .record("GNU.sparse.realsize", &size)
                .record("GNU.sparse.name", names[3]),
        );
    }

    /// GNU's old form: four pieces in the header, 21 in each block after it.
    fn old_holes(&mut self, name: &[u8], pieces: &[(u64, u64)], length: u64, held: &[u8]) {
        let entry = Entry {
            content: held.to_vec(),
            ..Entry::new(b'S', name)
        };
        let mut block = header(&entry, held.len() as u64, true);
        let mut maps = pieces
            .iter()
            .map(|(at, len)| [octal(*at, 12), octal(*len, 12)].concat());
        block[386..482].copy_from_slice(&maps.by_ref().take(4).flatten().collect::<Vec<u8>>());
        block[482] = 1;
        block[483..495].copy_from_slice(&octal(length, 12));
        self.bytes.extend(sealed(block));
        let rest: Vec<Vec<u8>> = maps.collect();
        let blocks = rest.chunks(21).count();
        for (index, chunk) in rest.chunks(21).enumerate() {
            let mut more = chunk.concat();
            more.resize(504, 0);
            more.push(u8::from(index + 1 < blocks));
            more.resize(512, 0);
            self.bytes.extend(more);
        }
        self.fill(held);
    }

    fn links(&mut self) {
        let target = Entry::file(b"links/target", "linked").record("SCHILY.xattr.user.l", "v");
        let links = [
            Entry::link(b"links/a", b"links/target"),
            Entry::link(b"links/b", b"links/a"),
            Entry::link(&[&b"links/"[..], &[b'l'; 255]].concat(), b"links/target"),
        ];
        let outside = Entry::link(b"other-link", b"links/b");
        if self.is_odd() {
            self.add(outside.clone());
            links.iter().rev().for_each(|link| self.add(link.clone()));
        }
        self.around(Entry::new(b'5', b"links"), |archive| {
            archive.add(target);
            if !archive.is_odd() {
                links.into_iter().for_each(|link| archive.add(link));
            }
            archive.add(Entry::symlink(b"links/symbolic", b"target"));
            archive.add(Entry::link(b"links/symbolic-too", b"links/symbolic"));
            archive.add(Entry::new(b'6', b"links/fifo"));
            archive.add(Entry::link(b"links/fifo-too", b"links/fifo"));
        });
        if !self.is_odd() {
            // GNU tar sets a directory's time for good when the first entry outside of it comes.
            self.add(outside);
        }
        // A hard link whose name another entry takes later is none.
        if self.is_odd() {
            self.add(Entry::link(b"no-link", b"comes-later"));
        }
        self.add(Entry::file(b"no-link", "a file of its own"));
        self.add(Entry::file(b"comes-later", "another"));
        self.add(Entry::symlink(b"dangling", b"/nowhere"));
        self.add(Entry::symlink(b"round", b"round"));
    }

    /// Every other entry that needs no pax header is GNU's where that is odd, with its long names
    /// and base-256 numbers.
    fn add(&mut self, mut entry: Entry) {
        let gnu = self.is_odd()
            && entry.records.is_empty()
            && entry.time.is_none()
            && !entry.name.len().is_multiple_of(2);
        let size = entry.size.unwrap_or(entry.content.len() as u64);
        if gnu {
            for (flag, text) in [(b'L', &entry.name), (b'K', &entry.link)] {
                if text.len() > 100 {
                    let long = Entry {
                        content: [text, &b"\0"[..]].concat(),
                        flag,
                        name: b"././@LongLink".to_vec(),
                        ..Entry::default()
                    };
                    self.bytes
                        .extend(sealed(header(&long, long.content.len() as u64, true)));
                    self.fill(&long.content);
                }
            }
        } else {
            self.extend_what_does_not_fit(&mut entry, size);
        }
        self.bytes.extend(sealed(header(&entry, size, gnu)));
        if entry.size.is_none() {
            self.fill(&entry.content);
        }
    }

    fn extend_what_does_not_fit(&mut self, entry: &mut Entry, size: u64) {
        let mut records = std::mem::take(&mut entry.records);
        let mut say = |key: &str, value: Vec<u8>| records.push((key.into(), value));
        if let Some(time) = entry.time {
            say("mtime", time.into());
        } else if entry.seconds < 0 {
            say("mtime", entry.seconds.to_string().into());
        }
        if entry.name.len() > 100 {
            say("path", entry.name.clone());
        }
        if entry.link.len() > 100 {
            say("linkpath", entry.link.clone());
        }
        if size >= 1 << 33 {
            say("size", size.to_string().into());
        }
        for (key, id) in [("uid", entry.uid), ("gid", entry.gid)] {
            if id >= 1 << 21 {
                say(key, id.to_string().into());
            }
        }
        if !records.is_empty() {
            let content: Vec<u8> = records
                .iter()
                .flat_map(|(key, value)| record(key, value))
                .collect();
            let extended = Entry {
                flag: b'x',
                name: b"extended".to_vec(),
                ..Entry::default()
            };
            self.bytes
                .extend(sealed(header(&extended, content.len() as u64, false)));
            self.fill(&content);
        }
    }

    fn fill(&mut self, content: &[u8]) {
        self.bytes.extend(content);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
    }
}

fn header(entry: &Entry, size: u64, gnu: bool) -> [u8; 512] {
    let mut block = [0; 512];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    // In GNU's dialect what does not fit into octal digits is base 256; in pax an extended header
    // says it, and 0 stands here.
    let number = |value: i128, width: usize| match u64::try_from(value) {
        Ok(value) if value < 1 << (3 * (width - 1)) => octal(value, width),
        _ if gnu => base_256(value, width),
        _ => octal(0, width),
    };
    put(0, &entry.name[..entry.name.len().min(100)]);
    put(100, &octal(entry.mode.into(), 8));
    put(108, &number(entry.uid.into(), 8));
    put(116, &number(entry.gid.into(), 8));
    put(124, &number(size.into(), 12));
    put(136, &number(entry.seconds.into(), 12));
    put(156, &[entry.flag]);
    put(157, &entry.link[..entry.link.len().min(100)]);
    put(257, if gnu { b"ustar  \0" } else { b"ustar\x0000" });
    put(329, &octal(entry.device.0, 8));
    put(337, &octal(entry.device.1, 8));
    block
}

fn sealed(mut block: [u8; 512]) -> [u8; 512] {
    block[148..156].fill(b' ');
    let sum = block.iter().map(|&byte| u64::from(byte)).sum();
    block[148..155].copy_from_slice(&octal(sum, 7));
    block
}

fn octal(value: u64, width: usize) -> Vec<u8> {
    let digits = width - 1;
    format!("{value:0digits$o}\0").into_bytes()
}

fn base_256(value: i128, width: usize) -> Vec<u8> {
    let mut bytes = value.to_be_bytes()[16 - width..].to_vec();
    bytes[0] = if value < 0 { 0xff } else { 0x80 };
    bytes
}

fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    let mut out = Vec::with_capacity(length);
    let _ = write!(out, "{length} ");
    out.extend([key, b"=", value, b"\n"].concat());
    out
}
