//! Hostile and corrupted archives: each is refused with a reason.

use super::writer::{Entry, Writer, record};
use crate::definition::Limits;
use crate::error::Error;
use crate::source::tar::read_bytes;

const LIMITS: Limits = Limits {
    bytes: 1 << 20,
    entries: 100,
};

fn refused(what: &str, bytes: &[u8]) -> Error {
    match read_bytes(bytes, LIMITS) {
        Ok(tree) => panic!(
            "{what}: taken, as {:?}",
            tree.walk()
                .iter()
                .map(|(path, _)| crate::tree::show(path))
                .collect::<Vec<_>>()
        ),
        Err(error) => error,
    }
}

fn file(name: &str) -> Entry {
    Entry::new(b'0', name.as_bytes(), b"x")
}

/// GNU's old sparse file with these pieces.
fn old_sparse(pieces: &[(u64, u64)], real: u64, content: &[u8]) -> Entry {
    let mut entry = Entry::new(b'S', b"holes", content)
        .put(257, b"ustar  \0")
        .number(483..495, real);
    for (index, (at, len)) in pieces.iter().enumerate() {
        let from = 386 + 24 * index;
        entry = entry
            .number(from..from + 12, *at)
            .number(from + 12..from + 24, *len);
    }
    entry
}

#[test]
fn hostile_archives_are_refused_with_a_reason() {
    let one = |entry: Entry| Writer::default().entry(entry).end();
    let pax = |key: &str, value: &[u8]| {
        Writer::default()
            .pax(&[(key.as_bytes(), value)])
            .file("f", b"x")
            .end()
    };
    let global = |key: &str, value: &[u8]| {
        Writer::default()
            .entry(Entry::new(b'g', b"g", &record(key.as_bytes(), value)))
            .file("f", b"x")
            .end()
    };
    let long = |flag: u8, content: &[u8]| {
        Writer::default()
            .entry(Entry::new(flag, b"././@LongLink", content))
            .file("f", b"x")
            .end()
    };
    let sparse = |map: &str, size: &str, content: &[u8]| {
        Writer::default()
            .pax(&[
                (b"GNU.sparse.map", map.as_bytes()),
                (b"GNU.sparse.size", size.as_bytes()),
            ])
            .file("f", content)
            .end()
    };
    let sparse_1_0 = |content: &[u8]| {
        let keys: [(&[u8], &[u8]); 3] = [
            (b"GNU.sparse.major", b"1"),
            (b"GNU.sparse.minor", b"0"),
            (b"GNU.sparse.realsize", b"9"),
        ];
        Writer::default().pax(&keys).file("f", content).end()
    };
    let mut bad_sum = Writer::default().file("good", b"").file("f", b"").0;
    bad_sum[512] ^= 1;
    let mut after = Writer::default().file("f", b"x").end();
    after.extend(Writer::default().file("g", b"x").end());
    let mut lone = Writer::default().file("f", b"x").0;
    lone.extend([0; 512]);
    let lone = Writer(lone).file("g", b"x").end();
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("nothing", Vec::new(), "not a tar archive"),
        ("text", b"text ".repeat(300), "not a tar archive"),
        ("bzip2", b"BZh91AY&SY".to_vec(), "bzip2"),
        (
            "an empty gzip stream",
            vec![0x1f, 0x8b],
            "compressed data ends early",
        ),
        ("a dot dot", one(file("../f")), "holds `..`"),
        ("a dot dot inside", one(file("a/../../f")), "holds `..`"),
        ("an absolute name", one(file("/f")), "absolute"),
        ("an empty name", one(file("")), "empty"),
        ("a NUL in a name", pax("path", b"a\0b"), "NUL"),
        ("a NUL in a target", pax("linkpath", b"a\0b"), "NUL"),
        ("a NUL in a long name", long(b'L', b"a\0b\0"), "NUL"),
        (
            "a name of 256 bytes",
            pax("path", &[b'n'; 256]),
            "not a valid file name",
        ),
        (
            "a path of 4096 bytes",
            pax("path", &b"n/".repeat(2048)),
            "4096 bytes",
        ),
        (
            "a target of 4096 bytes",
            Writer::default()
                .pax(&[(b"linkpath", &[b't'; 4096])])
                .symlink("l", "")
                .end(),
            "4096 bytes",
        ),
        (
            "a link without a target",
            Writer::default().symlink("l", "").end(),
            "without a target",
        ),
        (
            "an own link as a directory",
            Writer::default()
                .symlink("d", "/tmp")
                .file("d/f", b"x")
                .end(),
            "symbolic link",
        ),
        (
            "a link out of the image as a directory",
            Writer::default()
                .symlink("d", "../../etc")
                .file("d/f", b"x")
                .end(),
            "symbolic link",
        ),
        (
            "a hard link through an own link",
            Writer::default()
                .symlink("d", "/etc")
                .link("l", "d/passwd")
                .end(),
            "symbolic link",
        ),
        (
            "a file as a directory",
            Writer::default().file("d", b"x").file("d/f", b"x").end(),
            "not a directory",
        ),
        (
            "a hard link to nothing",
            Writer::default().link("l", "nothing").end(),
            "neither in the archive",
        ),
        (
            "a hard link out of the archive",
            Writer::default().link("l", "../f").end(),
            "holds `..`",
        ),
        (
            "an absolute hard link",
            Writer::default().link("l", "/etc/passwd").end(),
            "absolute",
        ),
        (
            "a hard link to itself",
            Writer::default().link("l", "l").end(),
            "a loop of hard links",
        ),
        (
            "a loop of hard links",
            Writer::default()
                .link("a", "b")
                .link("b", "c")
                .link("c", "a")
                .end(),
            "a loop of hard links",
        ),
        (
            "hard links into a loop",
            Writer::default()
                .link("a", "b")
                .link("b", "c")
                .link("c", "b")
                .end(),
            "a loop of hard links",
        ),
        (
            "a hard link to a directory",
            Writer::default().directory("d").link("l", "d").end(),
            "a directory",
        ),
        (
            "a hard link to a later directory",
            Writer::default().link("l", "d").directory("d").end(),
            "a directory",
        ),
        (
            "a hard link that is a directory too",
            Writer::default()
                .link("l", "f")
                .file("l/g", b"")
                .file("f", b"")
                .end(),
            "both a hard link and a directory",
        ),
        ("a root that is a file", one(file(".")), "root"),
        (
            "a root that is a hard link",
            Writer::default().file("f", b"x").link(".", "f").end(),
            "root",
        ),
        ("a wrong checksum", bad_sum, "checksum"),
        (
            "a size beyond the end",
            one(file("f").number(124..136, 4000)),
            "the archive ends here",
        ),
        (
            "a size beyond everything",
            pax("size", b"18446744073709551615"),
            "bytes of files",
        ),
        (
            "a size that overflows",
            pax("size", b"18446744073709551616"),
            "not a number",
        ),
        (
            "a negative size",
            one(file("f").put(124, &[0xff; 12])),
            "out of range",
        ),
        (
            "a negative size in an extended header",
            pax("size", b"-1"),
            "not a number",
        ),
        (
            "a size that is no number",
            one(file("f").put(124, b"0000000000x\0")),
            "not a number",
        ),
        (
            "an owner beyond 32 bits",
            pax("uid", b"4294967296"),
            "more than the largest number of Linux",
        ),
        ("the owner that is none", pax("uid", b"4294967295"), "none"),
        (
            "a negative group",
            one(file("f").put(116, &[0xff; 8])),
            "out of range",
        ),
        ("a time that is none", pax("mtime", b"now"), "not a time"),
        (
            "a time beyond 64 bits",
            pax("mtime", b"9223372036854775808"),
            "not a time",
        ),
        (
            "a device Linux can't name",
            one(Entry::new(b'3', b"d", b"").number(329..337, 4096)),
            "beyond the largest",
        ),
        (
            "a directory with content",
            one(Entry::new(b'5', b"d", b"x")),
            "content",
        ),
        (
            "a hard link with content",
            Writer::default()
                .file("f", b"x")
                .entry(Entry::new(b'1', b"l", b"x").link(b"f"))
                .end(),
            "content",
        ),
        (
            "an unknown type",
            one(Entry::new(b'Z', b"f", b"x")),
            "unknown type \"Z\"",
        ),
        (
            "an incremental archive",
            one(Entry::new(b'D', b"d", b"")),
            "incremental",
        ),
        ("another volume", one(Entry::new(b'M', b"d", b"")), "volume"),
        (
            "a record that lies",
            Writer::default()
                .entry(Entry::new(b'x', b"x", b"99 path=x\n"))
                .file("f", b"")
                .end(),
            "longer than the header",
        ),
        (
            "a huge extended header",
            Writer::default()
                .entry(Entry::new(b'x', b"x", b"").number(124..136, 1 << 30))
                .end(),
            "extended header of",
        ),
        (
            "a huge long name",
            Writer::default()
                .entry(Entry::new(b'L', b"x", b"").number(124..136, 1 << 30))
                .end(),
            "extended header of",
        ),
        (
            "an extended header without an entry",
            Writer::default().pax(&[(b"path", b"x")]).end(),
            "without an entry",
        ),
        (
            "a great many extended headers",
            (0..20)
                .fold(Writer::default(), |w, _| w.pax(&[(b"a", b"b")]))
                .end(),
            "extended headers before one",
        ),
        (
            "one name for all",
            global("path", b"x"),
            "every entry the same",
        ),
        (
            "one size for all",
            global("size", b"0"),
            "every entry the same",
        ),
        (
            "an attribute of no known namespace",
            pax("SCHILY.xattr.nonsense", b"x"),
            "supports only attributes in",
        ),
        (
            "an attribute without a name",
            pax("SCHILY.xattr.user.", b"x"),
            "supports only attributes in",
        ),
        (
            "an attribute of 64 KiB",
            pax("SCHILY.xattr.user.x", &[b'x'; 65536]),
            "65536 bytes",
        ),
        (
            "an attribute with a long name",
            pax(&format!("SCHILY.xattr.user.{}", "n".repeat(251)), b"x"),
            "255 bytes",
        ),
        (
            "an attribute not in base 64",
            pax("LIBARCHIVE.xattr.user.x", b"*"),
            "not Base64",
        ),
        (
            "a broken list",
            pax("SCHILY.acl.access", b"user::rwx"),
            "is missing",
        ),
        (
            "a default list on a file",
            pax("SCHILY.acl.default", b"user::rwx,group::r-x,other::r-x"),
            "not a directory",
        ),
        (
            "more bytes than the limit",
            one(Entry::new(b'0', b"f", &vec![0; (1 << 20) + 1])),
            "more than 1048576 bytes",
        ),
        (
            "more entries than the limit",
            (0..101)
                .fold(Writer::default(), |w, n| w.file(&format!("f{n}"), b""))
                .end(),
            "more than 100 entries",
        ),
        (
            "more parents than the limit",
            pax("path", &[&b"d/".repeat(200)[..], b"f"].concat()),
            "more than 100 entries",
        ),
        (
            "a hole beyond the limit",
            one(old_sparse(&[(0, 1)], 1 << 30, b"x")),
            "more than 1048576 bytes",
        ),
        (
            "pieces that overlap",
            one(old_sparse(&[(0, 2), (1, 2)], 10, b"xxxx")),
            "overlap",
        ),
        (
            "pieces out of order",
            sparse("5,1,0,1", "10", b"xx"),
            "overlap",
        ),
        (
            "a piece beyond the end",
            sparse("9,2", "10", b"xx"),
            "beyond its end",
        ),
        (
            "an empty piece beyond the end",
            sparse("11,0", "10", b""),
            "beyond its end",
        ),
        (
            "pieces longer than the content",
            sparse("0,4", "10", b"xx"),
            "do not add up",
        ),
        (
            "pieces that overflow",
            sparse("0,18446744073709551615,1,18446744073709551615", "10", b"xx"),
            "do not add up",
        ),
        ("half a piece", sparse("0,1,2", "10", b"x"), "no length"),
        (
            "a map that is no map",
            sparse("0,x", "10", b"x"),
            "not a number",
        ),
        (
            "a map before the content that is none",
            sparse_1_0(&[b'x'; 512]),
            "format 1.0",
        ),
        (
            "a map before the content that never ends",
            sparse_1_0(b"99999999\n1\n"),
            "format 1.0",
        ),
        (
            "a sparse format to come",
            Writer::default()
                .pax(&[(b"GNU.sparse.major", b"2"), (b"GNU.sparse.minor", b"0")])
                .file("f", b"")
                .end(),
            "unknown",
        ),
        (
            "a whiteout",
            Writer::default().file("etc/.wh.old", b"").end(),
            "etc/.wh.old",
        ),
        (
            "an opaque directory",
            Writer::default()
                .directory("srv")
                .file("srv/.wh..wh..opq", b"")
                .end(),
            "srv/.wh..wh..opq",
        ),
        (
            "hard links of aufs",
            Writer::default().file(".wh..wh.plnk/17.42", b"x").end(),
            ".wh..wh.plnk/17.42",
        ),
        (
            "a whiteout of overlayfs",
            one(Entry::new(b'3', b"gone", b"")),
            "merge the layers",
        ),
        (
            "an opaque directory of overlayfs",
            pax("SCHILY.xattr.trusted.overlay.opaque", b"y"),
            "merge the layers",
        ),
        (
            "a link over a directory",
            Writer::default()
                .file("d/f", b"x")
                .symlink("d", "/tmp")
                .end(),
            "the directory holds /d/f",
        ),
        (
            "a hard link over a directory",
            Writer::default()
                .file("d/f", b"x")
                .file("g", b"")
                .link("d", "g")
                .end(),
            "the directory holds /d/f",
        ),
        ("a single block of zeroes", lone, "single block of zeroes"),
        ("two archives in one file", after, "data after its end"),
    ];
    for (what, bytes, words) in &cases {
        let said = refused(what, bytes).to_string();
        assert!(said.contains(words), "{what}: no {words:?} in: {said}");
    }
}

#[test]
fn refuses_an_archive_truncated_at_any_byte() {
    let whole = Writer::default()
        .directory("d")
        .file("d/f", &[7; 1300])
        .pax(&[(b"path", b"long"), (b"mtime", b"1.5")])
        .file("g", b"g")
        .entry(old_sparse(&[(0, 512), (1024, 1)], 2000, &[1; 513]))
        .link("l", "long")
        .end();
    read_bytes(&whole, LIMITS).unwrap();
    for length in (0..whole.len()).filter(|length| matches!(length % 512, 0 | 1 | 511)) {
        refused(&format!("cut to {length} bytes"), &whole[..length]);
    }
    // Compressed archives: a truncated stream is an error, also if the archive in it is complete.
    for pack in [
        gzip as fn(&[u8]) -> Vec<u8>,
        |bytes| zstd::encode_all(bytes, 1).unwrap(),
        xz,
    ] {
        let packed = pack(&whole);
        read_bytes(&packed, LIMITS).unwrap();
        for length in 6..packed.len() {
            refused(
                &format!("cut to {length} of {} bytes", packed.len()),
                &packed[..length],
            );
        }
        refused("a cut archive, packed", &pack(&whole[..whole.len() - 512]));
        // Archives may be packed in several streams.
        let (first, second) = whole.split_at(700);
        read_bytes(&[pack(first), pack(second)].concat(), LIMITS).unwrap();
        refused(
            "two archives, packed each",
            &[pack(&whole), pack(&whole)].concat(),
        );
        let mut damaged = packed.clone();
        let middle = damaged.len() / 2;
        damaged[middle] ^= 0x55;
        refused("damaged", &damaged);
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
    std::io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn refuses_endless_zeroes() {
    let mut bytes = Writer::default().file("f", b"x").end();
    bytes.resize(80 << 20, 0);
    assert!(
        refused(
            "80 MiB of zeroes",
            &zstd::encode_all(&bytes[..], 1).unwrap()
        )
        .message()
        .contains("zeroes")
    );
}
