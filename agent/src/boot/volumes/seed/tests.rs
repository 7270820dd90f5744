//! Tests of seeding on directories of this machine. A simulated power cut unwinds before the chosen
//! change of the volume.

use std::cell::Cell;
use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::process::Command;

use super::super::tests::{Folder, alone, is_root};
use super::*;
use crate::kernel::xattr;

thread_local! {
    /// Number of further changes of the volume before the simulated power cut.
    static UNTIL_CUT: Cell<Option<u32>> = const { Cell::new(None) };
}

/// The panic payload of a power cut, which skips all cleanup.
struct PowerCut;

pub fn step() {
    match UNTIL_CUT.get() {
        Some(0) => panic_any(PowerCut),
        Some(left) => UNTIL_CUT.set(Some(left - 1)),
        None => {}
    }
}

/// A server's volume and the image for it.
struct SeedServer {
    image: Folder,
    volume: Folder,
    mount: &'static str,
    refresh: Refresh,
    covered: Vec<PathBuf>,
}

impl SeedServer {
    fn new(name: &str, mount: &'static str) -> SeedServer {
        let (image, volume) = (
            Folder::new(&format!("{name}-image")),
            Folder::new(&format!("{name}-volume")),
        );
        SeedServer {
            image,
            volume,
            mount,
            refresh: Refresh::Unchanged,
            covered: Vec::new(),
        }
    }

    /// Boots the image called `mark`.
    fn start(&self, mark: &str) -> SeedOutcome {
        self.try_start(mark).unwrap()
    }

    fn try_start(&self, mark: &str) -> Result<SeedOutcome, SeedError> {
        let (image, volume) = (self.image.open(), self.volume.open());
        let request = SeedRequest {
            image: &image,
            volume: &volume,
            mount: self.mount,
            covered: &self.covered,
            refresh: self.refresh,
            mark,
        };
        seed(&request, &mut Pace::new(&mut || ()))
    }

    /// Replaces the image by another version.
    fn image(&self, script: &str) {
        sh(
            &self.image,
            &["find . -mindepth 1 -delete\n", script].concat(),
        );
    }

    /// Runs a script on the server's volume.
    fn volume(&self, script: &str) -> String {
        sh(&self.volume, script)
    }

    /// Lists the volume with times, links and content, except for the agent's own files and the
    /// sizes of directories.
    fn list(&self) -> String {
        let entries = r"find . -mindepth 1 ! -path './.adamant*' \( -type d -printf 'd %m %U:%G %p\n' -o -printf '%y %m %U:%G %s %T@ %n %l %p\n' \)";
        let content = "find . -type f ! -path './.adamant*' -exec cksum {} +";
        sh(
            &self.volume,
            &[entries, " | sort; ", content, " | sort -k3"].concat(),
        )
    }
}

fn kept(outcome: &SeedOutcome) -> Vec<&str> {
    outcome.kept.names.iter().map(String::as_str).collect()
}

fn sh(folder: &Folder, script: &str) -> String {
    let _alone = alone();
    let output = Command::new("sh")
        .args(["-ec", script])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn lsetxattr(path: &Path, name: &CStr, value: &[u8]) -> bool {
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    xattr::set_at_path(&path, name, value).is_ok()
}

fn lgetxattr(path: &Path, name: &CStr) -> Vec<u8> {
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    let mut value = vec![0; 4096];
    let length = xattr::get_at_path(&path, name, &mut value);
    value.truncate(length.unwrap_or(0));
    value
}

/// Type, mode, owner, size, blocks without holes, mtime to the nanosecond, links, target, device,
/// path.
const LIST: &str =
    r"find . -mindepth 1 ! -path './.adamant*' -printf '%y %m %U:%G %s %T@ %n %l %p\n'";

const TREE: &str = r"
    mkdir -p lib/deep/er log/inner empty; chown 5:6 lib/deep; chmod 2770 lib/deep
    echo content > lib/file; chown 7:8 lib/file; chmod 4751 lib/file
    ln lib/file lib/deep/second; ln lib/file third
    ln -s ../nowhere lib/link; chown -h 9:9 lib/link; ln lib/link lib/link2
    mkfifo lib/fifo; mknod lib/null c 1 3; mknod lib/disk b 7 200
    printf x > lib/holes; truncate -s 3M lib/holes; printf y >> lib/holes
    touch lib/empty; printf 'a name\nwith a line feed' > 'lib/new
line'; touch $(printf 'lib/\\351')
    echo in-other > log/inner/x
    find . -mindepth 1 -depth -exec touch -h -d '1999-12-31 23:59:59.123456789' {} +
    touch -h -d '1965-01-02 03:04:05.5' lib/file";

#[test]
fn seeds_every_kind_of_entry_with_all_its_metadata() {
    if !is_root() {
        return;
    }
    let mut server = SeedServer::new("seed", "/var");
    server.covered.push(PathBuf::from("log"));
    let (image, volume) = (&server.image, &server.volume);
    sh(image, TREE);
    let xattrs = [
        (c"user.one", &b"value\0two"[..]),
        (c"trusted.two", b""),
        (
            c"security.capability",
            b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        ),
    ];
    for (name, value) in xattrs {
        assert!(lsetxattr(&image.path().join("lib/file"), name, value));
    }
    assert!(lsetxattr(
        &image.path().join("lib/link"),
        c"trusted.link",
        b"on the link"
    ));
    let acl =
        b"\x02\0\0\0\x01\0\x06\0\xff\xff\xff\xff\x02\0\x04\0\xe8\x03\0\0\x04\0\x04\0\xff\xff\xff\xff\x10\0\x06\0\xff\xff\xff\xff\x20\0\0\0\xff\xff\xff\xff";
    for name in [c"system.posix_acl_access", c"system.posix_acl_default"] {
        assert!(lsetxattr(&image.path().join("lib/deep"), name, acl));
    }
    sh(
        image,
        "touch -d '1999-12-31 23:59:59.123456789' lib/deep .; chmod 751 .; chown 3:4 .",
    );
    let before = sh(image, LIST);
    let outcome = server.start("one");
    // The mount point of another volume is made when that volume is mounted.
    let expected: String = before
        .split_inclusive('\n')
        .filter(|line| !line.contains("./log"))
        .collect();
    // The size of a directory depends on its file system.
    let plain = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        for line in lines.iter_mut().filter(|line| line.starts_with('d')) {
            let fields: Vec<&str> = line.split(' ').filter(|field| !field.is_empty()).collect();
            *line = [
                fields[..3].join(" "),
                fields[4].to_owned(),
                fields[6..].join(" "),
            ]
            .join(" ");
        }
        // /var/lib belongs to no unit, and was made before its content.
        lines.retain(|line| !line.ends_with(" ./lib"));
        lines.sort();
        lines
    };
    assert_eq!(plain(&sh(volume, LIST)), plain(&expected));
    assert_eq!(
        outcome.seeded as usize,
        expected.lines().count() - 2,
        "a name with a line feed is two lines, and /var/lib is no unit's"
    );
    for (name, value) in xattrs {
        assert_eq!(
            lgetxattr(&volume.path().join("lib/file"), name),
            value,
            "{name:?}"
        );
    }
    assert_eq!(
        lgetxattr(&volume.path().join("lib/link"), c"trusted.link"),
        b"on the link"
    );
    assert_eq!(
        lgetxattr(&volume.path().join("lib/deep"), c"system.posix_acl_default"),
        acl
    );
    let ino = |path: &str| {
        fs::symlink_metadata(volume.path().join(path))
            .unwrap()
            .ino()
    };
    assert_eq!(
        (ino("lib/file"), ino("lib/link")),
        (ino("third"), ino("lib/link2"))
    );
    let holes = fs::metadata(volume.path().join("lib/holes")).unwrap();
    assert!(holes.blocks() * 512 < 1 << 20 && holes.len() == (3 << 20) + 1);
    assert_eq!(
        sh(image, "cksum lib/holes lib/file"),
        sh(volume, "cksum lib/holes lib/file")
    );
    assert!(
        fs::symlink_metadata(volume.path().join("lib/disk"))
            .unwrap()
            .file_type()
            .is_block_device()
    );
    let root = fs::metadata(volume.path()).unwrap();
    assert_eq!(
        (root.mode() & 0o7777, root.uid(), root.gid()),
        (0o751, 3, 4)
    );
    // The record equals the result down to the last attribute: the same image under another name
    // has nothing to do, and another image replaces it.
    let before = server.list();
    assert_eq!(
        (server.start("two").replaced, server.list() == before),
        (0, true)
    );
    sh(
        &server.image,
        "touch -d '2001-01-01' lib/fifo; chmod 600 lib/fifo",
    );
    let outcome = server.start("three");
    // lib/fifo is a separate unit.
    assert_eq!((outcome.replaced, outcome.kept.names.len()), (1, 0));
    sh(&server.image, "echo new >> lib/deep/second");
    let outcome = server.start("four");
    assert_eq!(
        (outcome.replaced, outcome.kept.names),
        (3, Vec::<String>::new()),
        "lib/deep, lib/file and third are linked"
    );
    assert_eq!(
        (ino("lib/file"), ino("lib/file")),
        (ino("third"), ino("lib/deep/second"))
    );
}

#[test]
fn never_touches_existing_units_and_seeds_missing_ones_with_the_next_image() {
    if !is_root() {
        return;
    }
    let server = SeedServer::new("keep", "/var");
    server.image("mkdir -p a/b c; echo image > a/file; echo image > a/b/file; echo image > c/file; echo image > d");
    server.volume(
        "mkdir -p a/b d; echo own > a/file; chmod 600 a/file; ln -s /etc c; echo own > d/own",
    );
    let before = server.list();
    let outcome = server.start("one");
    assert_eq!(
        (outcome.seeded, kept(&outcome)),
        (0, vec!["/var/a", "/var/c", "/var/d"])
    );
    assert_eq!(server.list(), before);
    sh(&server.image, "echo new > new");
    assert_eq!(server.start("one").seeded, 0, "the same image again");
    assert_eq!(server.start("two").seeded, 1);
    server.volume("rm new");
    assert_eq!(
        (server.start("three").seeded, server.list()),
        (0, before),
        "what was deleted stays deleted"
    );
}

#[test]
fn restarts_an_unfinished_seeding() {
    let server = SeedServer::new("again", "/var");
    let (image, volume) = (&server.image, &server.volume);
    fs::create_dir_all(image.path().join("a/b")).unwrap();
    fs::write(image.path().join("a/b/file"), "whole").unwrap();
    fs::create_dir_all(volume.path().join(".adamant/seeding/0/b")).unwrap();
    fs::write(volume.path().join(".adamant/seeding/0/b/file"), "").unwrap();
    fs::write(volume.path().join(".adamant/seeded.new"), "one").unwrap();
    server.start("one");
    assert_eq!(
        fs::read_to_string(volume.path().join("a/b/file")).unwrap(),
        "whole"
    );
    assert_eq!(
        fs::read_dir(volume.path().join(".adamant"))
            .unwrap()
            .count(),
        1,
        "only the record is left"
    );
}

#[test]
fn survives_an_image_nested_too_deep_and_a_volume_of_symbolic_links() {
    let (server, outside) = (
        SeedServer::new("absurd", "/var"),
        Folder::new("absurd-outside"),
    );
    let (image, volume) = (&server.image, &server.volume);
    fs::create_dir_all(image.path().join("d/".repeat(150))).unwrap();
    fs::write(image.path().join("small"), "x").unwrap();
    let outcome = server.start("one");
    assert!(
        outcome.lacking.len() == 1 && outcome.lacking[0].0.starts_with("/var/d/d"),
        "{outcome:?}"
    );
    assert_eq!(
        server.volume("cat small; ls"),
        "xsmall\n",
        "the others were seeded"
    );
    fs::write(outside.path().join("seeded"), "two").unwrap();
    fs::remove_dir_all(image.path().join("d")).unwrap();
    fs::write(image.path().join("file"), "x").unwrap();
    fs::remove_dir_all(volume.path().join(".adamant")).unwrap();
    fs::create_dir(volume.path().join(".adamant")).unwrap();
    for name in ["seeding", "seeded", "seeded.new"] {
        symlink(
            outside.path().join("seeded"),
            volume.path().join(".adamant").join(name),
        )
        .unwrap();
    }
    assert_eq!(server.start("two").seeded, 1);
    assert_eq!(
        fs::read_to_string(outside.path().join("seeded")).unwrap(),
        "two"
    );
    assert!(!volume.path().join(".adamant/seeded").is_symlink());
}

const FIRST: &str = "
    mkdir -p www/deep lib/app/data lib/empty cache; echo 1 > www/index.html; echo same > www/deep/page; echo 1 > lib/app/data/file; ln -s file lib/app/data/link
    echo 1 > note; echo cached > cache/x";
const SECOND: &str = "
    mkdir -p www/deep lib/app/data lib/empty lib/new cache; echo 2 > www/index.html; echo same > www/deep/page; echo 2 > lib/app/data/other
    ln -s other lib/app/data/link; echo 2 > lib/new/file; echo cached > cache/x; touch -d '2001-01-01' cache/x";

#[test]
fn replaces_unchanged_units_and_restores_them_on_rollback() {
    let server = SeedServer::new("replace", "/var");
    server.image(FIRST);
    server.start("one");
    let (first, after) = (server.list(), server.volume("cat www/index.html"));
    assert_eq!(after, "1\n");
    server.image(SECOND);
    let outcome = server.start("two");
    // www, lib/app and note, which is gone; lib/new is seeded. Only a time differs in cache.
    assert_eq!(
        (outcome.replaced, outcome.seeded, kept(&outcome)),
        (3, 2, vec![])
    );
    assert_eq!(server.volume("cat www/index.html lib/app/data/link lib/new/file; ls -d note lib/app/data/file || true"), "2\n2\n2\n");
    let second = server.list();
    assert_eq!(
        (server.start("two").replaced, server.list() == second),
        (0, true)
    );
    server.image(FIRST);
    let outcome = server.start("one");
    assert_eq!(
        (outcome.replaced, outcome.seeded, kept(&outcome)),
        (3, 1, vec![]),
        "note is seeded again, and lib/new is gone"
    );
    let without_times = |list: &str| -> Vec<String> {
        let words = |line: &str| {
            line.split(' ')
                .filter(|word| !word.contains('.') || word.starts_with("./"))
                .collect()
        };
        let mut lines: Vec<String> = list.lines().map(words).collect();
        lines.sort();
        lines
    };
    assert_eq!(
        without_times(&server.list()),
        without_times(&first),
        "as it was, but for times"
    );
    let own = server.volume("ls -A .adamant");
    assert_eq!(own, "seeded\n");
}

#[test]
fn keeps_every_byte_of_a_changed_unit() {
    for (number, change) in [
        "echo mine > www/index.html",
        "echo 1 > www/index.html",
        "touch www/deep/page",
        "echo x > www/added",
        "mkdir www/deep/added",
        "rm www/deep/page",
        "rmdir www/deep 2>/dev/null || rm -r www/deep",
        "chmod 600 www/deep/page",
        "chmod 700 www",
        "ln www/index.html elsewhere",
        "mv www/deep/page www/deep/renamed",
        "rm www/index.html; ln -s deep/page www/index.html",
        "mv www other; ln -s other www",
        "rm -r www",
        "rm -r www; echo file > www",
    ]
    .iter()
    .enumerate()
    {
        let server = SeedServer::new(&format!("changed-{number}"), "/var");
        server.image(FIRST);
        server.start("one");
        server.volume(change);
        let www = "find www elsewhere other -printf '%y %m %s %T@ %l %p\n' 2>/dev/null || true; cat www/index.html www/deep/page 2>/dev/null || true";
        let before = server.volume(www);
        server.image(SECOND);
        let outcome = server.start("two");
        assert_eq!(kept(&outcome), ["/var/www"], "{change}");
        assert_eq!(server.volume(www), before, "{change}");
        assert_eq!(
            server.volume("cat lib/app/data/link"),
            "2\n",
            "another unit is replaced all the same"
        );
        // It stays and is named at each later boot, with every image.
        let again = server.start("two");
        assert_eq!((kept(&again), again.compared), (vec!["/var/www"], false));
        server.image(FIRST);
        server.start("one");
        server.image(SECOND);
        assert_eq!(kept(&server.start("three")), ["/var/www"], "{change}");
        assert_eq!(server.volume(www), before, "{change}");
    }
}

#[test]
fn counts_changes_of_owner_and_attributes_but_not_of_labels() {
    if !is_root() {
        return;
    }
    for (number, (is_change, change)) in [
        (true, c"user.mine"),
        (true, c"trusted.mine"),
        (false, c"security.ima"),
    ]
    .into_iter()
    .enumerate()
    {
        let server = SeedServer::new(&format!("attributes-{number}"), "/var");
        server.image(FIRST);
        server.start("one");
        assert!(lsetxattr(
            &server.volume.path().join("www/deep"),
            change,
            b"x"
        ));
        server.image(SECOND);
        assert_eq!(
            server
                .start("two")
                .kept
                .names
                .contains(&"/var/www".to_owned()),
            is_change,
            "{change:?}"
        );
    }
    let server = SeedServer::new("owner", "/var");
    server.image(FIRST);
    server.start("one");
    server.volume("chown 7 www/deep/page");
    server.image(SECOND);
    assert_eq!(kept(&server.start("two")), ["/var/www"]);
}

#[test]
fn treats_everything_as_changed_without_a_valid_record() {
    let spoil = [
        "rm .adamant/seeded",
        "printf 'web 1 hash\n' > .adamant/seeded",
        "printf x >> .adamant/seeded",
        "truncate -s -1 .adamant/seeded",
        "rm .adamant/seeded; mkdir .adamant/seeded",
        "rm .adamant/seeded; ln -s /dev/zero .adamant/seeded",
        "truncate -s 100M .adamant/seeded",
        "sed -i s/kept/kepT/ .adamant/seeded; printf 'one\nformat 2\n\n' > .adamant/seeded",
    ];
    for (number, spoil) in spoil.iter().enumerate() {
        for mount in ["/var", "/srv"] {
            let server = SeedServer::new(
                &format!("spoilt-{number}{}", mount.replace('/', "-")),
                mount,
            );
            server.image(FIRST);
            server.start("one");
            server.volume(spoil);
            let before = server.list();
            server.image(SECOND);
            let outcome = server.start("two");
            assert_eq!(outcome.replaced, 0, "{spoil}");
            let new = if mount == "/var" { 2 } else { 0 };
            assert_eq!(outcome.seeded, new, "{spoil}");
            assert!(
                outcome
                    .kept
                    .names
                    .iter()
                    .any(|name| name.starts_with(if mount == "/var" {
                        "/var/www"
                    } else {
                        "/srv"
                    })),
                "{:?}",
                outcome.kept
            );
            server.volume("rm -rf lib/new");
            assert_eq!(server.list(), before, "{spoil}");
        }
    }
}

#[test]
fn adopts_unrecorded_units_only_if_they_are_equal() {
    let server = SeedServer::new("found", "/var");
    server.image(FIRST);
    server.start("one");
    server.volume("rm .adamant/seeded; echo mine > note");
    assert_eq!(kept(&server.start("one")), ["/var/note"]);
    server.image(SECOND);
    let outcome = server.start("two");
    assert_eq!(
        (outcome.replaced, server.volume("cat www/index.html note")),
        (2, "2\nmine\n".to_owned())
    );
}

/// A directory like that of initdb.
const CLUSTER: &str = "
    mkdir -p base/1 base/5 global pg_wal/archive_status; chmod 700 .; echo 17 > PG_VERSION; head -c 8192 /dev/zero | tr '\\0' a > base/1/1259
    head -c 8192 /dev/zero | tr '\\0' a > base/5/1259; head -c 8192 /dev/zero > global/pg_control; head -c 65536 /dev/zero > pg_wal/000000010000000000000001";

#[test]
fn replaces_no_byte_of_a_used_database() {
    let next = CLUSTER.replace("tr '\\0' a", "tr '\\0' b").replace(
        "echo 17",
        "mkdir base/9; echo x > base/9/PG_VERSION; echo 17",
    );
    for (name, mount, folder) in [
        ("unit", "/var", "lib/postgresql/17/main"),
        ("volume", "/var/lib/postgresql/17/main", "."),
    ] {
        // One byte of a page, in place and with the time set back; nothing but a time; one file
        // more; one file less; more of the log.
        for (number, change) in [
            "cp -p base/5/1259 /tmp/$$; printf x | dd of=base/5/1259 bs=1 seek=5000 conv=notrunc status=none; touch -r /tmp/$$ base/5/1259; rm /tmp/$$",
            "touch global/pg_control",
            "echo 1 > postmaster.pid",
            "rm base/1/1259",
            "printf y >> pg_wal/000000010000000000000001",
        ]
        .iter()
        .enumerate()
        {
            let server = SeedServer::new(&format!("cluster-{name}-{number}"), mount);
            let within = |script: &str| format!("mkdir -p {folder}; cd {folder}; {script}");
            server.image(&within(CLUSTER));
            assert_eq!(server.start("one").kept, KeptUnits::default());
            server.volume(&within(change));
            let before = server.list();
            server.image(&within(&next));
            let outcome = server.start("two");
            let unit = if mount == "/var" { "/var/lib/postgresql" } else { mount };
            assert_eq!((outcome.replaced, outcome.seeded, kept(&outcome)), (0, 0, vec![unit]), "{change}");
            assert_eq!(server.list(), before, "{name}: {change}");
        }
        // A cluster that was never used still belongs to the image.
        let server = SeedServer::new(&format!("cluster-{name}-unused"), mount);
        server.image(&format!("mkdir -p {folder}; cd {folder}; {CLUSTER}"));
        server.start("one");
        server.image(&format!("mkdir -p {folder}; cd {folder}; {next}"));
        assert_eq!(server.start("two").kept, KeptUnits::default());
        assert_eq!(
            server.volume(&format!(
                "cd {folder}; cat base/9/PG_VERSION; head -c 1 base/1/1259; stat -c %a ."
            )),
            "x\nb700\n"
        );
    }
}

#[test]
fn adds_only_log_directories_to_a_volume_that_was_changed() {
    for (mount, line) in [
        ("/srv", ""),
        ("/var/log", "d 750 ./nginx\nd 755 ./nginx/sites\n"),
    ] {
        let server = SeedServer::new(&format!("filled{}", mount.replace('/', "-")), mount);
        server.image("mkdir nothing");
        server.start("one");
        server.volume("echo data > data");
        server.image(
            "mkdir -p nothing nginx/sites; chmod 750 nginx; echo x > nginx/README; echo y > new",
        );
        let outcome = server.start("two");
        assert_eq!(kept(&outcome), [mount]);
        assert_eq!(server.volume("find . -mindepth 1 ! -path './.adamant*' -printf '%y %m %p\n' | grep -v nothing | grep -v data | sort || true"), line);
    }
}

#[test]
fn refresh_never_adds_new_units_and_replaces_none() {
    for mount in ["/var", "/srv"] {
        let mut server = SeedServer::new(&format!("never{}", mount.replace('/', "-")), mount);
        server.refresh = Refresh::Never;
        server.image(FIRST);
        server.start("one");
        server.image(SECOND);
        let outcome = server.start("two");
        assert_eq!(
            (outcome.replaced, kept(&outcome), outcome.seeded),
            (0, vec![], if mount == "/var" { 2 } else { 0 })
        );
        assert_eq!(server.volume("cat www/index.html note"), "1\n1\n");
        server.refresh = Refresh::Unchanged;
        assert!(
            server.start("three").replaced > 0,
            "what was seeded is remembered all the same"
        );
        assert_eq!(server.volume("cat www/index.html lib/new/file"), "2\n2\n");
    }
}

#[test]
fn never_breaks_a_hard_link_between_units() {
    let linked = "mkdir -p lib/a lib/b lib/c; echo V > lib/a/file; ln lib/a/file lib/b/file; ln lib/a/file top; echo V > lib/c/own";
    let inodes = "stat -c %i lib/a/file lib/b/file top | uniq | wc -l; cat lib/a/file lib/c/own";
    for (number, (change, expected, replaced)) in [
        ("true", "1\n2\n2\n", 4),
        ("echo x > lib/b/added", "1\n1\n2\n", 1),
        ("rm top", "", 1),
        ("ln lib/a/file lib/c/more", "1\n1\n1\n", 0),
    ]
    .into_iter()
    .enumerate()
    {
        let server = SeedServer::new(&format!("linked-{number}"), "/var");
        server.image(&linked.replace('V', "1"));
        server.start("one");
        server.volume(change);
        server.image(&linked.replace('V', "2"));
        let outcome = server.start("two");
        assert_eq!(outcome.replaced, replaced, "{change}: {outcome:?}");
        if !expected.is_empty() {
            assert_eq!(server.volume(inodes), expected, "{change}");
        }
    }
    // A later image without the link: both units are unchanged, and so both are replaced. If one
    // was changed, neither is.
    for change in ["true", "echo x > lib/b/added"] {
        let server = SeedServer::new("unlinked", "/var");
        server.image(&linked.replace('V', "1"));
        server.start("one");
        server.volume(change);
        server.image("mkdir -p lib/a lib/b lib/c; echo 2 > lib/a/file; echo 1 > lib/b/file; echo 1 > top; echo 1 > lib/c/own");
        server.start("two");
        let seen = server.volume("stat -c %h lib/a/file top; cat lib/a/file");
        assert_eq!(
            seen,
            if change == "true" {
                "1\n1\n2\n"
            } else {
                "3\n3\n1\n"
            }
        );
    }
    // A hard link between a unit's file and a file outside of all units is ignored.
    let server = SeedServer::new("link-outside", "/srv");
    server.image("mkdir a b; echo 1 > a/file; ln a/file b/file");
    server.start("one");
    server.image("mkdir a b; echo 2 > a/file; ln a/file b/file");
    server.start("two");
    assert_eq!(server.volume("stat -c %h a/file; cat b/file"), "2\n2\n");
}

#[test]
fn ignores_covered_paths_and_keeps_their_content() {
    let mut server = SeedServer::new("covered", "/var");
    server.covered = [
        "lib/apt/lists",
        "lib/dpkg",
        "log",
        "lib/apt/extended_states",
    ]
    .map(PathBuf::from)
    .to_vec();
    server.image("mkdir -p lib/apt/lists lib/apt/periodic lib/dpkg log/x; echo i > lib/apt/lists/index; echo i > lib/dpkg/status; echo 1 > lib/apt/file; echo i > lib/apt/extended_states");
    server.start("one");
    assert_eq!(
        server.volume("find . -mindepth 1 ! -path './.adamant*' | sort"),
        "./lib\n./lib/apt\n./lib/apt/file\n./lib/apt/periodic\n"
    );
    // Mount points are made later, and are empty.
    server.volume("mkdir lib/dpkg lib/apt/lists log; touch lib/apt/extended_states");
    server.image("mkdir -p lib/apt/lists lib/apt/periodic lib/dpkg log/x; echo j > lib/apt/lists/index; echo 2 > lib/apt/file");
    assert_eq!(server.start("two").replaced, 1);
    assert_eq!(server.volume("cat lib/apt/file"), "2\n");
    // A database of an earlier image below them was written on the server.
    server.volume("mkdir -p lib/apt/lists; echo old > lib/apt/lists/index");
    server.image("mkdir -p lib/apt/periodic; echo 3 > lib/apt/file");
    let outcome = server.start("three");
    assert_eq!(
        (
            kept(&outcome),
            server.volume("cat lib/apt/lists/index lib/apt/file")
        ),
        (vec!["/var/lib/apt"], "old\n2\n".to_owned())
    );
    // Data below a covered path is no difference on a volume without a record: equal members around
    // it are adopted.
    server.image("mkdir -p lib/apt/lists lib/apt/periodic; echo 2 > lib/apt/file");
    server.volume("rm .adamant/seeded");
    let time = fs::metadata(server.volume.path().join("lib/apt/file"))
        .unwrap()
        .modified()
        .unwrap();
    fs::File::open(server.image.path().join("lib/apt/file"))
        .unwrap()
        .set_modified(time)
        .unwrap();
    assert_eq!(kept(&server.start("four")), [""; 0]);
}

#[test]
fn finishes_seeding_after_a_power_cut_at_any_step() {
    for (mount, change) in [
        ("/var", "echo mine > lib/mine; echo x >> cache/x"),
        ("/srv", "true"),
    ] {
        let linked = "mkdir -p lib/one lib/two; echo V > lib/one/file; ln lib/one/file lib/two/file; touch -d '2000-01-0V' lib/one/file";
        let versions = [(FIRST, "1"), (SECOND, "2")].map(|(script, number)| {
            format!(
                "{script}\n{}\nfind . -exec touch -h -d '2000-01-0{number}' {{}} +",
                linked.replace('V', number)
            )
        });
        let mut cuts = 0;
        for number in 0.. {
            let server = SeedServer::new(&format!("power{}", mount.replace('/', "-")), mount);
            // The first cut may come at the first boot already, and a second one while the first is
            // repaired.
            let cut_start = |mark: &str, at: u32| {
                UNTIL_CUT.set(Some(at));
                let ended = catch_unwind(AssertUnwindSafe(|| server.start(mark)));
                UNTIL_CUT.set(None);
                match ended {
                    Ok(_) => false,
                    Err(payload) if payload.is::<PowerCut>() => true,
                    Err(payload) => std::panic::resume_unwind(payload),
                }
            };
            server.image(&versions[0]);
            let first = cut_start("one", number);
            if first {
                cut_start("one", number / 2);
            }
            server.start("one");
            assert_eq!(
                server.volume("cat www/index.html note lib/one/file; stat -c %h lib/two/file"),
                "1\n1\n1\n2\n",
                "{mount}: cut {number} at the first start"
            );
            server.volume(change);
            server.image(&versions[1]);
            let second = cut_start("two", number);
            if second {
                cut_start("two", number / 2);
            }
            if second && number % 3 == 0 {
                // The first image boots again: a rollback.
                server.image(&versions[0]);
                server.start("one");
                assert_eq!(
                    server.volume("cat www/index.html note lib/one/file; stat -c %h lib/two/file"),
                    "1\n1\n1\n2\n",
                    "{mount}: cut {number}, rolled back"
                );
                server.image(&versions[1]);
            }
            let outcome = server.start("two");
            let now = server.volume("cat www/index.html lib/app/data/link lib/new/file lib/one/file; stat -c %h lib/two/file; ls note 2>/dev/null || true");
            assert_eq!(now, "2\n2\n2\n2\n2\n", "{mount}: cut {number}: {outcome:?}");
            assert_eq!(server.volume("ls -A .adamant"), "seeded\n");
            if change != "true" {
                assert_eq!(server.volume("cat lib/mine cache/x"), "mine\ncached\nx\n");
            }
            cuts += u32::from(first) + u32::from(second);
            if !first && !second {
                break;
            }
        }
        assert!(cuts > 15, "{mount}: {cuts}");
    }
}

#[test]
fn keeps_changes_made_between_a_power_cut_and_the_next_boot() {
    for number in 0..12 {
        let server = SeedServer::new("cut-and-changed", "/var");
        server.image(FIRST);
        server.start("one");
        server.image(SECOND);
        UNTIL_CUT.set(Some(number));
        let ended = catch_unwind(AssertUnwindSafe(|| server.start("two")));
        UNTIL_CUT.set(None);
        server.volume("echo mine > www/index.html; echo mine > lib/app/added");
        server.start("two");
        assert_eq!(
            server.volume("cat www/index.html lib/app/added"),
            "mine\nmine\n",
            "cut {number}: {}",
            ended.is_err()
        );
    }
}

#[test]
fn ignores_recorded_members_outside_of_the_volume() {
    let server = SeedServer::new("way-out", "/var");
    let outside = Folder::new("way-out-outside");
    server.image(FIRST);
    server.start("one");
    fs::remove_dir_all(server.volume.path().join("lib")).unwrap();
    symlink(outside.path(), server.volume.path().join("lib")).unwrap();
    server.image(SECOND);
    let outcome = server.start("two");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    assert_eq!(kept(&outcome), ["/var/lib/app", "/var/lib/new"]);
    assert_eq!(server.volume("cat www/index.html"), "2\n");
}
