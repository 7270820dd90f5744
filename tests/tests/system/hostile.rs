//! Hostile archives and definitions: a clear error, and nothing changed outside OUT, nor in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use adamant_tests::alter::Random;
use adamant_tests::image::{self, Tiny};
use adamant_tests::program;
use adamant_tests::scratch::Scratch;
use adamant_tests::tool;

/// One ustar header, with a check sum that fits.
fn header(name: &[u8], kind: u8, size: u64, link: &[u8]) -> Vec<u8> {
    let mut block = vec![0; 512];
    block[..name.len().min(100)].copy_from_slice(&name[..name.len().min(100)]);
    block[100..108].copy_from_slice(b"0000644\0");
    block[108..116].copy_from_slice(b"0000000\0");
    block[116..124].copy_from_slice(b"0000000\0");
    block[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    block[136..148].copy_from_slice(b"00000000001\0");
    block[156] = kind;
    block[157..157 + link.len().min(100)].copy_from_slice(&link[..link.len().min(100)]);
    block[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = block.iter().map(|&b| u32::from(b)).sum::<u32>() + 8 * 32;
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

fn entry(name: &[u8], kind: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = header(name, kind, content.len() as u64, b"");
    bytes.extend(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn link(name: &[u8], kind: u8, target: &[u8]) -> Vec<u8> {
    header(name, kind, 0, target)
}

fn pax(records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut content = Vec::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let length = (1..)
            .map(|digits| rest + digits)
            .find(|total| total.to_string().len() + rest == *total)
            .unwrap_or(rest);
        content.extend(format!("{length} {key}=").bytes());
        content.extend(*value);
        content.push(b'\n');
    }
    entry(b"pax", b'x', &content)
}

fn archive(parts: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = parts.concat();
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

/// A folder with a definition of one archive, an OUT of an earlier build, which must stay, and a
/// neighbour that nobody may touch.
struct Place {
    scratch: Scratch,
}

impl Place {
    fn new(name: &str) -> Place {
        let scratch = Scratch::new(name);
        fs::create_dir_all(scratch.join("in")).unwrap_or_else(|e| panic!("{e}"));
        fs::write(scratch.join("neighbour"), "untouched").unwrap_or_else(|e| panic!("{e}"));
        let place = Place { scratch };
        fs::write(
            place.scratch.join("in/a.tar"),
            archive(&[entry(b"file", b'0', b"x")]),
        )
        .unwrap_or_else(|e| panic!("{e}"));
        image::build(&place.definition(&tar()), &place.scratch.join("in/out"));
        place
    }

    fn definition(&self, text: &str) -> PathBuf {
        let path = self.scratch.join("in/image.toml");
        fs::write(&path, text).unwrap_or_else(|e| panic!("{e}"));
        path
    }

    /// Everything there is but the definition and its archive, with contents.
    fn look(&self) -> Vec<u8> {
        let mut out = Vec::new();
        tiny_init::listing::write(self.scratch.path(), &mut out).unwrap_or_else(|e| panic!("{e}"));
        let text = tool::lossy(&out);
        // Times and sizes of the folders change when something is made and removed again, which is
        // allowed.
        text.lines()
            .filter(|line| line.contains(" f "))
            .collect::<Vec<_>>()
            .join("\n")
            .into_bytes()
    }

    /// Builds; it must fail with 1, say one of these words, and change nothing.
    fn refuses(&self, definition: &Path, words: &[&str], what: &str) {
        let before = self.look();
        let mut build = image::build_command(definition, &self.scratch.join("in/out"));
        build.env("TMPDIR", self.scratch.path());
        let output = tool::output(&mut build);
        let said = tool::lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{what}: {said}");
        assert!(
            said.contains("error") || said.contains(':'),
            "{what}: {said}"
        );
        assert!(
            words.is_empty() || words.iter().any(|word| said.to_lowercase().contains(word)),
            "{what}: none of {words:?} in: {said}"
        );
        assert!(!said.contains("panicked"), "{what}: {said}");
        assert!(before == self.look(), "{what}: something changed");
    }
}

/// A definition with this archive alone, and an init.
fn tar() -> String {
    format!(
        "volumes = []\n[image]\nid = \"x\"\nversion = \"1\"\n[[source]]\ntar = \"a.tar\"\n[limits]\nbytes = \"4M\"\nentries = 1000\n{}",
        program::init()
    )
}

#[test]
fn hostile_archives_are_refused_and_change_nothing() {
    let good = entry(b"etc/hostname", b'0', b"x\n");
    let mut bad_sum = good.clone();
    bad_sum[0] ^= 1;
    let mut bomb = vec![0u8; 64 << 20];
    bomb[..1024].copy_from_slice(&archive(std::slice::from_ref(&good))[..1024]);
    let bomb = [header(b"zeroes", b'0', 64 << 20, b""), bomb].concat();
    let many: Vec<Vec<u8>> = (0..2000)
        .map(|n| entry(format!("f{n}").as_bytes(), b'0', b""))
        .collect();
    let big_xattr = vec![b'v'; 200 << 10];
    let long_name = [&[b'n'; 256][..], b"/x"].concat();
    let cases: Vec<(&str, Vec<u8>, &[&str])> = vec![
        (
            "a name with ..",
            archive(&[entry(b"../escaped", b'0', b"x")]),
            &[".."],
        ),
        (
            "a name with .. inside",
            archive(&[entry(b"a/../../escaped", b'0', b"x")]),
            &[".."],
        ),
        (
            "a hard link to nothing",
            archive(&[good.clone(), link(b"h", b'1', b"missing")]),
            &["missing"],
        ),
        (
            "a hard link out of the image",
            archive(&[link(b"h", b'1', b"../../neighbour")]),
            &[".."],
        ),
        (
            "a hard link to itself",
            archive(&[link(b"h", b'1', b"h")]),
            &["h"],
        ),
        (
            "hard links in a circle",
            archive(&[link(b"a", b'1', b"b"), link(b"b", b'1', b"a")]),
            &["link", "a"],
        ),
        (
            "a check sum that does not fit",
            archive(&[bad_sum]),
            &["sum", "header"],
        ),
        (
            "a size beyond the end",
            [header(b"f", b'0', 1 << 20, b""), vec![0; 512]].concat(),
            &["end", "truncated", "short"],
        ),
        (
            "a size beyond everything",
            [
                pax(&[("size", b"18446744073709551615")]),
                entry(b"f", b'0', b"x"),
            ]
            .concat(),
            &["size", "end", "large", "bytes", "more"],
        ),
        (
            "a negative size",
            [pax(&[("size", b"-1")]), entry(b"f", b'0', b"x")].concat(),
            &["size"],
        ),
        (
            "a PAX record that lies about its length",
            entry(b"pax", b'x', b"999 path=x\n"),
            &["pax", "record", "length"],
        ),
        (
            "a PAX time without a number",
            archive(&[pax(&[("mtime", b"now")]), good.clone()]),
            &["mtime", "time"],
        ),
        (
            "an extended attribute that is too large",
            archive(&[pax(&[("SCHILY.xattr.user.big", &big_xattr)]), good.clone()]),
            &["user.big", "xattr", "attribute"],
        ),
        (
            "an extended attribute without a namespace",
            archive(&[pax(&[("SCHILY.xattr.nonsense", b"x")]), good.clone()]),
            &["nonsense"],
        ),
        (
            "a name of 256 bytes",
            archive(&[pax(&[("path", &long_name)]), good.clone()]),
            &["name", "long", "255"],
        ),
        (
            "a name with a zero byte",
            archive(&[pax(&[("path", b"a\0b")]), good.clone()]),
            &["name", "zero", "nul", "path", "byte"],
        ),
        (
            "an entry of an unknown kind",
            archive(&[entry(b"f", b'Z', b"x")]),
            &["type", "kind"],
        ),
        (
            "more bytes than the limit",
            bomb.clone(),
            &["limit", "more", "bytes"],
        ),
        (
            "more entries than the limit",
            archive(&many),
            &["limit", "more", "entries"],
        ),
        (
            "noise",
            (0..4096)
                .map({
                    let mut r = Random::new(3);
                    move |_| r.next() as u8
                })
                .collect(),
            &[],
        ),
        ("text", b"this is not an archive\n".repeat(100), &[]),
    ];
    let place = Place::new("hostile");
    let definition = place.definition(&tar());
    for (what, bytes, words) in &cases {
        fs::write(place.scratch.join("in/a.tar"), bytes).unwrap_or_else(|e| panic!("{e}"));
        place.refuses(&definition, words, what);
    }
    // A bomb, compressed to almost nothing.
    for program in ["gzip", "xz", "zstd"] {
        if tool::have(program) {
            fs::write(place.scratch.join("bomb"), &bomb).unwrap_or_else(|e| panic!("{e}"));
            let packed = tool::output(
                tool::command(program)
                    .arg("-c")
                    .arg(place.scratch.join("bomb")),
            );
            fs::write(place.scratch.join("in/a.tar"), packed.stdout)
                .unwrap_or_else(|e| panic!("{e}"));
            place.refuses(&definition, &["limit", "more", "bytes"], program);
        }
    }
}

#[test]
fn a_link_used_as_a_directory_leads_to_no_place_outside_the_image() {
    let place = Place::new("through-link");
    let definition = place.definition(&tar());
    let outside = place.scratch.path().display().to_string();
    let climbing = format!("../../../../../../../..{outside}");
    for (name, target) in [
        ("absolute", outside.as_bytes()),
        ("climbing", climbing.as_bytes()),
    ] {
        let bytes = archive(&[
            pax(&[("linkpath", target)]),
            link(b"d", b'2', b"d"),
            entry(b"d/escaped", b'0', b"x"),
        ]);
        fs::write(place.scratch.join("in/a.tar"), bytes).unwrap_or_else(|e| panic!("{e}"));
        let before = place.look();
        let output = tool::output(&mut image::build_command(
            &definition,
            &place.scratch.join("in/other"),
        ));
        let _ = fs::remove_dir_all(place.scratch.join("in/other"));
        assert!(before == place.look(), "{name}: something outside changed");
        // Inside the image it may lead somewhere, as the kernel would see it; or be refused, in
        // words.
        assert!(
            matches!(output.status.code(), Some(0 | 1)),
            "{name}: {}",
            tool::lossy(&output.stderr)
        );
    }
}

#[test]
fn an_archive_cut_at_any_block_is_refused() {
    let place = Place::new("cut");
    let definition = place.definition(&tar());
    let whole = archive(&[
        entry(b"a", b'0', &[b'a'; 1500]),
        pax(&[("path", b"long/name"), ("mtime", b"1.5")]),
        entry(b"b", b'0', &[b'b'; 700]),
        link(b"c", b'1', b"a"),
    ]);
    // After these numbers of blocks an entry ends: what is cut there only lacks the end's mark,
    // which other tools leave out too.
    let between = [4, 9, 10];
    for blocks in (1..whole.len() / 512).filter(|blocks| *blocks < 10 && !between.contains(blocks))
    {
        fs::write(place.scratch.join("in/a.tar"), &whole[..blocks * 512])
            .unwrap_or_else(|e| panic!("{e}"));
        place.refuses(&definition, &[], &format!("cut after {blocks} blocks"));
    }
}

#[test]
fn wrong_definitions_are_refused_with_their_place_and_change_nothing() {
    let place = Place::new("definitions");
    let head = "[image]\nid = \"x\"\nversion = \"1\"\n";
    let image = format!("{head}[[source]]\ntar = \"a.tar\"\n");
    for (text, words) in [
        ("", "image"),
        ("[image]\nid = \"x\"\n", "version"),
        ("[image\n", "image.toml:1"),
        ("[image]\nid = \"X y\"\nversion = \"1\"\n", "image.toml:2"),
        (&format!("{head}[[source]]\ntarr = \"a\"\n"), "tar"),
        (
            &format!("{head}[[source]]\ntar = \"missing.tar\"\n"),
            "missing.tar",
        ),
        (
            &format!("{head}[[source]]\ntar = \"a\"\ndir = \"b\"\n"),
            "image.toml:4",
        ),
        (
            &format!("{image}[[volume]]\nname = \"a\"\nmount = \"/usr\"\nsize = \"32M\"\n"),
            "/usr",
        ),
        (
            &format!("{image}[[volume]]\nname = \"a\"\nmount = \"/var\"\nsize = \"2Q\"\n"),
            "2Q",
        ),
        (
            &format!("{image}[[file]]\npath = \"../x\"\ncontent = \"\"\n"),
            "../x",
        ),
        (&format!("{image}[root]\ncluster = \"3K\"\n"), "3K"),
        (
            &format!("{image}[kernel]\ncmdline = \"roothash=1\"\n"),
            "roothash",
        ),
    ] {
        let definition = place.definition(text);
        place.refuses(&definition, &[&words.to_lowercase()], text);
    }
}

#[test]
fn a_killed_build_leaves_the_old_artifacts_and_no_stray_files() {
    let scratch = Scratch::new("killed");
    let dir = scratch.join("image");
    let definition = Tiny::usual().define(&dir);
    let out = dir.join("out");
    image::build(&definition, &out);
    let listing = |folder: &Path| {
        tool::run(tool::command("find").arg(folder).args([
            "-mindepth",
            "1",
            "-maxdepth",
            "1",
            "-printf",
            "%f\\n",
        ]))
    };
    let before = tool::run(
        tool::command("sh")
            .args(["-c", "cd \"$0\" && sha256sum *"])
            .arg(&out),
    );
    let beside = listing(&dir);
    let mut random = Random::new(11);
    for number in 0..6 {
        let mut build = image::build_command(&definition, &out);
        build.env("TMPDIR", scratch.path());
        let mut child = build
            .stderr(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("{e}"));
        std::thread::sleep(Duration::from_millis(random.below(700)));
        let _ = child.kill();
        let _ = child.wait();
        let after = tool::run(
            tool::command("sh")
                .args(["-c", "cd \"$0\" && sha256sum *"])
                .arg(&out),
        );
        assert_eq!(before, after, "kill {number}");
    }
    // What a killed build left is gone after the next one.
    image::build(&definition, &out);
    assert_eq!(beside, listing(&dir));
    assert_eq!(
        before,
        tool::run(
            tool::command("sh")
                .args(["-c", "cd \"$0\" && sha256sum *"])
                .arg(&out)
        )
    );
}
