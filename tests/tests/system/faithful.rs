//! What goes in comes out: every entry of an archive, with everything that it carries, through the
//! kernel's mount and through another project's reader. The archive is read by yet another one, so
//! no code of ours judges itself.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use adamant_tests::archive;
use adamant_tests::image::{self, Image, Tiny};
use adamant_tests::machine::Setup;
use adamant_tests::oddities;
use adamant_tests::program;
use adamant_tests::scratch::Scratch;
use adamant_tests::tool::{self, Mounted};
use tiny_init::listing;

/// An image without a kernel, of one archive, scrubbing off; with the places of another, where
/// there is one.
fn image_of(tar: &Path, dir: &Path, more: &str, previous: Option<&Image>) -> Image {
    std::fs::create_dir_all(dir).unwrap_or_else(|e| panic!("{e}"));
    let definition = dir.join("image.toml");
    std::fs::write(&definition, archive::definition(tar, "faithful", more))
        .unwrap_or_else(|e| panic!("{e}"));
    let image = Image {
        dir: dir.join("out"),
        stem: "faithful_1".to_owned(),
    };
    let previous = previous.map(|previous| previous.path("root.erofs"));
    let mut command = image::build_command(&definition, &image.dir);
    tool::run(
        command.args(
            previous
                .iter()
                .flat_map(|previous| [Path::new("--reference"), previous]),
        ),
    );
    image
}

const ACCESS_LISTS: &str = r#"
import os, sys, tarfile
for entry in tarfile.open(sys.argv[1]):
    for key, value in entry.pax_headers.items():
        if key.startswith("SCHILY.xattr.system."):
            os.setxattr(os.path.join(sys.argv[2], entry.name), key[len("SCHILY.xattr."):], value.encode("utf-8", "surrogateescape"), follow_symlinks=False)
"#;

/// The archive as GNU tar unpacks it.
fn unpacked(tar: &Path, dir: &Path) -> PathBuf {
    let tree = dir.join("unpacked");
    std::fs::create_dir_all(&tree).unwrap_or_else(|e| panic!("{e}"));
    let everything = [
        "-x",
        "-p",
        "--same-owner",
        "--numeric-owner",
        "--xattrs",
        "--xattrs-include=*",
        "--acls",
        "-f",
    ];
    tool::run(
        tool::command("tar")
            .args(everything)
            .arg(tar)
            .arg("-C")
            .arg(&tree),
    );
    // An access control list that was archived as a plain attribute is left out by GNU tar:
    // Python's reader of archives helps.
    tool::run(
        tool::command("python3")
            .args(["-c", ACCESS_LISTS])
            .arg(tar)
            .arg(&tree),
    );
    tree
}

fn list(tree: &Path) -> Vec<String> {
    let mut out = Vec::new();
    listing::write(tree, &mut out).unwrap_or_else(|e| panic!("{}: {e}", tree.display()));
    lines(&out)
}

fn lines(bytes: &[u8]) -> Vec<String> {
    tool::lossy(bytes).lines().map(str::to_owned).collect()
}

/// What the builder itself puts into every image, and the init that an archive without one is
/// given: not part of the archive. Their folders may get other times by it.
const OURS: [&str; 19] = [
    "/usr",
    "/usr/bin",
    "/usr/bin/adamant-agent",
    "/usr/lib",
    "/usr/lib/adamant",
    "/usr/lib/adamant/policy.json",
    "/usr/lib/os-release",
    "/etc",
    "/etc/os-release",
    "/etc/machine-id",
    "/efi",
    "/proc",
    "/sys",
    "/dev",
    "/run",
    "/tmp",
    "/var",
    "/sbin",
    "/sbin/init",
];

/// Fails with the first entries that differ. Gives the number of those compared.
fn compare(expected: &[String], found: &[String], what: &str) -> usize {
    let keep = |line: &&String| !OURS.contains(&line.split(' ').next().unwrap_or_default());
    let expected: Vec<&String> = expected.iter().filter(keep).collect();
    let found_set: BTreeSet<&String> = found.iter().filter(keep).collect();
    let expected_set: BTreeSet<&String> = expected.iter().copied().collect();
    let lost: Vec<&&String> = expected_set.difference(&found_set).take(10).collect();
    let added: Vec<&&String> = found_set.difference(&expected_set).take(10).collect();
    assert!(
        lost.is_empty() && added.is_empty(),
        "{what}: lost or changed: {lost:#?}\nadded or changed: {added:#?}"
    );
    expected.len()
}

/// The host's kernel, fsck.erofs --extract, and the kernels of these suites in virtual machines
/// agree with the archive.
fn agrees(name: &str, tar: &Path, more: &str, suites: &[&'static str]) {
    agrees_with(name, tar, tar, more, None, suites);
}

/// As [`agrees`], with another archive of the same tree for the tool that unpacks, and with the
/// places of an image whose definition has something else.
fn agrees_with(
    name: &str,
    tar: &Path,
    same: &Path,
    more: &str,
    before: Option<&str>,
    suites: &[&'static str],
) {
    if !tool::root() {
        return;
    }
    let scratch = Scratch::new(name);
    let before = before.map(|before| image_of(tar, &scratch.join("before"), before, None));
    let image = image_of(tar, &scratch.join("image"), more, before.as_ref());
    let expected = list(&unpacked(same, scratch.path()));
    let root = image.path("root.erofs");
    let mut said = Vec::new();
    if tool::mounts_erofs() {
        let mounted = Mounted::new(&root, scratch.join("mounted"));
        said.push(format!(
            "host's mount: {}",
            compare(&expected, &list(mounted.path()), "the host's kernel")
        ));
    }
    let judges = [
        (
            "fsck.erofs",
            tool::have("fsck.erofs").then(|| tool::command("fsck.erofs")),
        ),
        ("a newer fsck.erofs", tool::newer("fsck.erofs")),
    ];
    for (judge, command) in judges {
        let Some(mut command) = command else { continue };
        let newer = judge != "fsck.erofs";
        if !newer
            && (more.contains("zstd") || more.contains("optimize = \"size\""))
            && !knows_zstd()
        {
            tool::skipped(tool::Need::Host(
                "this machine's fsck.erofs is too old for zstd and fragments: only a newer one is asked",
            ));
            continue;
        }
        tool::run(command.arg(&root));
        let extracted = scratch.join(judge);
        command
            .arg(format!("--extract={}", extracted.display()))
            .args(["--preserve"])
            .args(newer.then_some("--xattrs"));
        tool::run(&mut command);
        let found = list(&extracted);
        said.push(format!(
            "{judge}: {}",
            compare(
                &restored(&expected, newer, &expected),
                &restored(&found, newer, &expected),
                judge
            )
        ));
        std::fs::remove_dir_all(&extracted)
            .unwrap_or_else(|e| panic!("{}: {e}", extracted.display()));
    }
    for suite in suites {
        let listed = in_a_machine(suite, &root, &scratch);
        said.push(format!(
            "{suite}'s kernel: {}",
            compare(&expected, &listed, "the kernel in the virtual machine")
        ));
    }
    println!("{name}: entries compared: {}", said.join(", "));
}

/// Whether this machine's fsck.erofs can read zstd; 1.5 reads none, and names what it reads nowhere
/// but there.
fn knows_zstd() -> bool {
    tool::lossy(&tool::output(tool::command("fsck.erofs").arg("--version")).stdout).contains("zstd")
}

/// What fsck.erofs restores of each entry but the root: times to the second, and extended
/// attributes only if asked. Of those it stops at the first without a value (of its own images
/// too), and it sets the owner last, which makes the kernel take capabilities away.
fn restored(lines: &[String], xattrs: bool, expected: &[String]) -> Vec<String> {
    let without_value = |line: &&String| {
        line.split(' ')
            .skip(WORDS)
            .any(|attribute| attribute.ends_with('='))
    };
    let stops: BTreeSet<&str> = expected
        .iter()
        .filter(without_value)
        .filter_map(|line| line.split(' ').next())
        .collect();
    let wanted = |line: &str| xattrs && !stops.contains(line.split(' ').next().unwrap_or_default());
    lines
        .iter()
        .filter(|line| !line.starts_with("/ "))
        .map(|line| restored_line(line, wanted(line)))
        .collect()
}

/// Words of a listing's line in front of the extended attributes.
const WORDS: usize = 9;

fn restored_line(line: &str, xattrs: bool) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    let [
        path,
        kind,
        mode,
        uid,
        gid,
        _links,
        time,
        size,
        content,
        ref attributes @ ..,
    ] = words[..]
    else {
        return line.to_owned();
    };
    let seconds = if kind == "l" {
        "-"
    } else {
        time.split('.').next().unwrap_or(time)
    };
    // It sets the owner after the mode, which makes the kernel take set-id bits away.
    let mut mode = u32::from_str_radix(mode, 8).unwrap_or_else(|e| panic!("{line}: {e}"));
    if kind != "d" {
        mode &= 0o1777;
    }
    let attributes: Vec<&str> = attributes
        .iter()
        .filter(|a| xattrs && !a.starts_with("security.capability="))
        .copied()
        .collect();
    format!(
        "{path} {kind} {mode:04o} {uid} {gid} {seconds} {size} {content} {}",
        attributes.join(" ")
    )
}

fn in_a_machine(suite: &'static str, root: &Path, scratch: &Scratch) -> Vec<String> {
    let tiny = Tiny {
        suite,
        ..Tiny::usual()
    }
    .build();
    let (disk, out) = (scratch.join("disk.raw"), scratch.join("listing"));
    adamant_tests::alter::copy(&tiny.path("raw"), &disk);
    std::fs::File::create(&out)
        .and_then(|file| file.set_len(64 << 20))
        .unwrap_or_else(|e| panic!("{e}"));
    let mut machine = Setup::of(&tiny)
        .disk(&disk)
        .disk(root)
        .disk(&out)
        .append("tiny.list=/dev/vdb,/dev/vdc")
        .start(scratch);
    machine.wait_for("tiny: list ");
    let console = machine.wait_for_end();
    let bytes = std::fs::read(&out).unwrap_or_else(|e| panic!("{e}"));
    let end = bytes
        .windows(5)
        .position(|window| window == b"\nend\n")
        .unwrap_or_else(|| panic!("no whole listing:\n{console}"));
    lines(&bytes[..end])
}

#[test]
fn every_entry_of_a_debian_archive_comes_out_as_it_went_in() {
    // Another archive can be given, and must hold as well.
    let given = std::env::var_os("ADAMANT_DEBIAN_TAR").map(PathBuf::from);
    let tar = given.unwrap_or_else(archive::debian);
    agrees("debian-tar", &tar, "", &["trixie"]);
    // The oddities below have all forms each time.
    if !tool::is_long() {
        return;
    }
    agrees(
        "debian-tar-lz4hc",
        &tar,
        "[root]\ncompression = \"lz4hc\"\n",
        &[],
    );
    agrees(
        "debian-tar-smallest",
        &tar,
        "[root]\ncompression = \"zstd\"\noptimize = \"size\"\n",
        &["trixie"],
    );
    // Over an image that has more: its places become free.
    let file = |folder: &str| {
        format!(
            "[[file]]\npath = \"/usr/{folder}/0\"\ncopy = {:?}\n",
            image::programs().tiny_init.display().to_string()
        )
    };
    let before: String = ["bin", "lib", "lib/python3", "share/doc", "share/perl5"]
        .map(file)
        .concat();
    for compression in ["lz4hc", "zstd"] {
        let more = format!("[root]\ncompression = \"{compression}\"\n");
        agrees_with(
            &format!("debian-tar-again-{compression}"),
            &tar,
            &tar,
            &more,
            Some(&format!("{before}{more}")),
            &[],
        );
    }
    agrees(
        "debian-tar-smallest-lz4hc",
        &tar,
        "[root]\ncompression = \"lz4hc\"\noptimize = \"size\"\n",
        &["bookworm"],
    );
}

#[test]
fn every_oddity_of_archives_comes_out_as_it_went_in() {
    let scratch = Scratch::new("oddities-tar");
    let (odd, plain) = (scratch.join("odd.tar"), scratch.join("plain.tar"));
    oddities::write(&odd).unwrap_or_else(|e| panic!("{e}"));
    std::fs::write(&plain, oddities::plain_archive()).unwrap_or_else(|e| panic!("{e}"));
    agrees_with("oddities", &odd, &plain, "", None, &["trixie"]);
    agrees_with(
        "oddities-smallest",
        &odd,
        &plain,
        "[root]\noptimize = \"size\"\n",
        None,
        &["trixie"],
    );
    agrees_with(
        "oddities-again",
        &odd,
        &plain,
        "",
        Some("[root]\ncompression = \"none\"\n"),
        &["bookworm"],
    );
}

#[test]
#[ignore = "unpacks, packs and reads 4 GiB several times"]
fn a_file_beyond_4_gib_comes_out_as_it_went_in() {
    let scratch = Scratch::new("huge-tar");
    let tar = scratch.join("huge.tar");
    oddities::write_huge(&tar).unwrap_or_else(|e| panic!("{e}"));
    agrees("huge", &tar, "", &[]);
    agrees("huge-smallest", &tar, "[root]\noptimize = \"size\"\n", &[]);
}

#[test]
fn every_compression_gives_the_same_tree() {
    for compression in ["none", "lz4", "lz4hc", "zstd", "zstd:15"] {
        for cluster in ["4K", "1M"] {
            let tar = archive::small();
            agrees(
                &format!("{compression}-{cluster}").replace(':', "-"),
                &tar,
                &format!(
                    "{}[root]\ncompression = \"{compression}\"\ncluster = \"{cluster}\"\n",
                    program::init()
                ),
                if compression != "none" && cluster == "1M" {
                    &["trixie"]
                } else {
                    &[]
                },
            );
        }
    }
}
