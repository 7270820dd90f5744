//! Builds with the real program: the artifacts, their verification by independent tools, and the
//! output directory after an interrupted build.
//!
//! The image has a placeholder kernel and an agent that exits at once, because nothing here boots
//! (the `tests` package boots).

use adamant_skip::skip;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use nix::libc;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use tempfile::TempDir;

const BLOCK: usize = 4096;

struct Scratch(TempDir);

impl Scratch {
    fn new() -> Scratch {
        let scratch = Scratch(tempfile::tempdir().unwrap());
        fs::create_dir_all(scratch.0.path().join("files/usr/share")).unwrap();
        // 3 MB of incompressible bytes, and a compressible text.
        let mut state = 1u64;
        let noise = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        });
        let noise: Vec<u8> = noise.take(3_000_000).collect();
        scratch.write("files/usr/share/noise", &noise);
        scratch.write(
            "files/usr/share/text",
            "the same again\n".repeat(20_000).as_bytes(),
        );
        scratch.write("agent", &static_program());
        scratch.define("1");
        scratch
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.0.path().join(name), bytes).unwrap();
    }

    fn define(&self, version: &str) {
        let config = "CONFIG_EROFS_FS=y\\nCONFIG_EROFS_FS_ZIP=y\\nCONFIG_DM_VERITY=y\\nCONFIG_RD_ZSTD=y\\nCONFIG_BLK_DEV_INITRD=y\\nCONFIG_VIRTIO_BLK=y\\n";
        let text = format!(
            r#"volumes = []
[image]
id = "t"
version = "{version}"
[[source]]
dir = "files"
[[file]]
path = "/usr/sbin/init"
copy = "agent"
mode = "0755"
[[file]]
path = "/sbin"
link = "usr/sbin"
[[file]]
path = "/boot/vmlinuz-6.12.1"
content = "no kernel"
[[file]]
path = "/boot/config-6.12.1"
content = "{config}"
[kernel]
cmdline = "console=ttyS0"
"#
        );
        self.write("image.toml", text.as_bytes());
    }

    fn adamant(&self, verb: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_adamant"));
        command
            .arg(verb)
            .env("ADAMANT_AGENT", self.0.path().join("agent"))
            .env("XDG_CACHE_HOME", self.0.path().join("cache"))
            .stdin(Stdio::null());
        command
    }

    /// With --force, because tests change content under one version.
    fn build(&self) -> Output {
        self.adamant("build")
            .arg("--force")
            .arg(self.0.path())
            .output()
            .unwrap()
    }

    fn verify(&self, target: &str) -> Result<String, String> {
        self.verify_with(target, &[])
    }

    fn verify_data(&self, target: &str) -> Result<String, String> {
        self.verify_with(target, &["--read-data"])
    }

    fn verify_with(&self, target: &str, flags: &[&str]) -> Result<String, String> {
        let output = self
            .adamant("verify")
            .arg(self.0.path().join(target))
            .args(flags)
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() {
            Ok(text(&output.stdout))
        } else {
            Err(text(&output.stderr))
        }
    }

    fn out(&self, name: &str) -> PathBuf {
        self.0.path().join("out").join(name)
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.0.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        // The cache directory is not an output.
        names.retain(|name| name != "cache");
        names.sort();
        names
    }

    /// Changes one byte of a file.
    fn flip(&self, name: &str, at: usize) {
        let path = self.out(name);
        let mut bytes = fs::read(&path).unwrap();
        bytes[at] ^= 1;
        fs::write(path, bytes).unwrap();
    }
}

/// The smallest static program for x86-64: headers, and exit(0).
fn static_program() -> Vec<u8> {
    let code = [0xb8, 60, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05];
    let (base, start, size) = (0x40_0000u64, 120u64, 120 + code.len() as u64);
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0".to_vec();
    for word in [base + start, 64, 0] {
        elf.extend(word.to_le_bytes());
    }
    elf.extend([
        0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 64, 0, 0, 0, 0, 0, 1, 0, 0, 0, 5, 0, 0, 0,
    ]);
    for word in [0, base, base, size, size, 4096] {
        elf.extend(word.to_le_bytes());
    }
    elf.extend(code);
    elf
}

fn assert_success(output: &Output) {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Runs a tool; `None` if it is not installed, which is reported.
fn tool(name: &str, args: &[&Path]) -> Option<Output> {
    let path = format!(
        "{}:/usr/sbin:/sbin",
        std::env::var("PATH").unwrap_or_default()
    );
    match Command::new(name).args(args).env("PATH", path).output() {
        Ok(output) => Some(output),
        Err(_) => {
            skip!(Program(name), None)
        }
    }
}

#[test]
fn artifacts_pass_our_verification_and_that_of_independent_tools() {
    let scratch = Scratch::new();
    assert_success(&scratch.build());
    assert_eq!(scratch.names(), ["agent", "files", "image.toml", "out"]);
    assert!(
        scratch
            .verify("out")
            .unwrap()
            .starts_with("t_1: OK: 7 artifacts")
    );
    assert!(
        scratch
            .verify("out/t_1.raw")
            .unwrap()
            .starts_with("t_1: OK")
    );
    assert!(
        scratch
            .verify("out/t_1.root.erofs")
            .unwrap()
            .starts_with("t_1: OK")
    );
    assert!(
        scratch
            .verify_data("out")
            .unwrap()
            .starts_with("t_1: OK: 7 artifacts")
    );
    let hash = fs::read_to_string(scratch.out("t_1.roothash")).unwrap();
    let hash = hash.trim();
    assert_eq!(
        fs::read_to_string(scratch.out("t_1.cmdline")).unwrap(),
        format!("roothash={hash} ro systemd.verity=no panic=10 console=ttyS0\n")
    );
    assert_eq!(fs::read(scratch.out("t_1.vmlinuz")).unwrap(), b"no kernel");
    for (name, args) in [
        (
            "sfdisk",
            vec![Path::new("--verify").to_owned(), scratch.out("t_1.raw")],
        ),
        (
            "veritysetup",
            vec![
                "verify".into(),
                scratch.out("t_1.root.erofs"),
                scratch.out("t_1.root.verity"),
                hash.into(),
            ],
        ),
        ("fsck.erofs", vec![scratch.out("t_1.root.erofs")]),
        ("sgdisk", vec!["-v".into(), scratch.out("t_1.raw")]),
    ] {
        if let Some(output) = tool(name, &args.iter().map(PathBuf::as_path).collect::<Vec<_>>()) {
            assert!(output.status.success(), "{name}: {output:?}");
        }
    }
}

#[test]
fn a_second_build_has_the_same_bytes() {
    let scratch = Scratch::new();
    let output = scratch
        .adamant("build")
        .args(["--check", "--json"])
        .arg(scratch.0.path())
        .output()
        .unwrap();
    assert_success(&output);
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["check"]["identical"], true);
    let varied: Vec<&str> = document["check"]["varied"]
        .as_array()
        .unwrap()
        .iter()
        .map(|word| word.as_str().unwrap())
        .collect();
    assert!(
        varied.contains(&"umask 077") && varied.contains(&"no cache"),
        "{varied:?}"
    );
    if std::thread::available_parallelism().unwrap().get() > 1 {
        assert!(
            varied.iter().any(|word| word.starts_with("only core "))
                && varied.contains(&"1 thread"),
            "{varied:?}"
        );
    }
    if nix::unistd::geteuid().is_root() {
        assert!(varied.contains(&"user 65534"), "{varied:?}");
    }
    assert_eq!(scratch.names(), ["agent", "files", "image.toml", "out"]);
}

/// The pack files of the cache.
fn packs(scratch: &Scratch) -> Vec<PathBuf> {
    let list = fs::read_dir(scratch.0.path().join("cache/adamant/results")).unwrap();
    list.map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "pack"))
        .collect()
}

#[test]
fn the_bytes_do_not_depend_on_the_state_of_the_cache() {
    let scratch = Scratch::new();
    for file in 0..200 {
        scratch.write(
            &format!("files/usr/share/{file}"),
            format!("file {file} says so\n")
                .repeat(10 + file * 40)
                .as_bytes(),
        );
    }
    let root = |out: &str| fs::read(scratch.0.path().join(out).join("t_1.root.erofs")).unwrap();
    let build = |out: &str, more: &[&str]| {
        let mut command = scratch.adamant("build");
        command
            .arg("-o")
            .arg(scratch.0.path().join(out))
            .args(more)
            .arg(scratch.0.path().join("image.toml"));
        command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let built = |out: &str, more: &[&str]| {
        assert_success(&build(out, more).wait_with_output().unwrap());
        root(out)
    };
    let right = built("none", &["--no-cache"]);
    assert!(
        !scratch.0.path().join("cache/adamant/results").exists(),
        "--no-cache writes no cache entry"
    );
    for (out, jobs) in [("cold", "2"), ("warm", "1")] {
        assert!(built(out, &["--jobs", jobs]) == right, "{out}");
    }
    let [pack] = &packs(&scratch)[..] else {
        panic!("{:?}", packs(&scratch))
    };
    let whole = fs::read(pack).unwrap();
    for (out, at) in [
        ("value", 2000),
        ("index", whole.len() - 400),
        ("end", whole.len() - 3),
    ] {
        let mut bytes = whole.clone();
        bytes[at..at + 3].iter_mut().for_each(|byte| *byte ^= 0xff);
        packs(&scratch)
            .iter()
            .for_each(|pack| fs::remove_file(pack).unwrap());
        fs::write(pack, bytes).unwrap();
        assert!(built(out, &[]) == right, "a pack with a damaged {out}");
    }
    fs::write(pack, &whole[..whole.len() / 2]).unwrap();
    assert!(built("half", &[]) == right);
    fs::remove_dir_all(scratch.0.path().join("cache")).unwrap();
    let together: Vec<Child> = (0..4)
        .map(|i| build(&format!("together-{i}"), &[]))
        .collect();
    for (i, child) in together.into_iter().enumerate() {
        assert_success(&child.wait_with_output().unwrap());
        assert!(root(&format!("together-{i}")) == right);
    }
}

#[test]
fn the_manifest_records_the_reference_image_that_the_same_bytes_need() {
    let scratch = Scratch::new();
    let first = scratch.out("t_1.root.erofs");
    let build = |more: &[&str]| {
        scratch
            .adamant("build")
            .arg("--force")
            .arg(scratch.0.path())
            .args(more)
            .output()
            .unwrap()
    };
    let error = |reference: &Path, more: &[&str]| {
        let output = build(&[&["--reference", reference.to_str().unwrap()], more].concat());
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert_success(&build(&[]));
    scratch.define("2");
    scratch.write(
        "files/usr/share/another",
        "another text\n".repeat(5000).as_bytes(),
    );
    let out = scratch.0.path().join("out");
    let checked = build(&["--reference", out.to_str().unwrap(), "--check"]);
    assert_success(&checked);
    assert!(String::from_utf8_lossy(&checked.stderr).contains("identical"));
    scratch.verify("out/t_2.manifest.json").unwrap();
    let root = |name: &str| -> serde_json::Value {
        let manifest: serde_json::Value =
            serde_json::from_slice(&fs::read(scratch.out(name)).unwrap()).unwrap();
        manifest["root"].clone()
    };
    let digest = tool("sha256sum", &[&first]).unwrap().stdout;
    assert_eq!(
        root("t_2.manifest.json")["reference"],
        String::from_utf8_lossy(&digest[..64]).into_owned()
    );
    assert_eq!(root("t_1.manifest.json").get("reference"), None);

    // Without a reference, or with another one, the build is not skipped.
    let said = |more: &[&str]| String::from_utf8_lossy(&build(more).stderr).into_owned();
    std::thread::sleep(Duration::from_millis(60));
    assert!(
        !said(&["--reference", first.to_str().unwrap()]).contains("nothing changed"),
        "--check always builds and records nothing"
    );
    let again = said(&["--reference", first.to_str().unwrap()]);
    assert!(again.contains("nothing changed"), "{again}");
    assert!(!said(&[]).contains("nothing changed"));
    assert_eq!(root("t_2.manifest.json").get("reference"), None);

    // Of two images in OUT the newest is the reference.
    let digest = tool("sha256sum", &[&scratch.out("t_2.root.erofs")])
        .unwrap()
        .stdout;
    assert_success(&build(&["--reference", out.to_str().unwrap()]));
    assert_eq!(
        root("t_2.manifest.json")["reference"],
        String::from_utf8_lossy(&digest[..64]).into_owned()
    );
    let replaced = error(&scratch.out("t_2.root.erofs"), &["--check"]);
    assert!(
        replaced.contains("this build would replace it"),
        "{replaced}"
    );
    assert_success(&build(&[
        "--reference",
        scratch.out("t_2.root.erofs").to_str().unwrap(),
    ]));
    let wrong = error(&scratch.0.path().join("files/usr/share/noise"), &[]);
    assert!(
        wrong.contains("files/usr/share/noise") && wrong.contains("that adamant built"),
        "{wrong}"
    );
    fs::write(&first, &fs::read(&first).unwrap()[..BLOCK * 20]).unwrap();
    let cut = error(&first, &[]);
    assert!(
        cut.contains("--reference") && cut.contains("superblock"),
        "{cut}"
    );
}

#[test]
fn an_unchanged_build_is_skipped_and_any_change_is_built() {
    let scratch = Scratch::new();
    let says = |output: &Output| {
        assert_success(output);
        String::from_utf8_lossy(&output.stderr).contains("nothing changed since it was built")
    };
    // A file that was written just now could change again without a new time.
    let settle = || std::thread::sleep(Duration::from_millis(60));
    let mut versions = Vec::new();
    let mut again = |what: &str| {
        settle();
        assert!(!says(&scratch.build()), "{what}: built");
        settle();
        assert!(says(&scratch.build()), "{what}: built again");
        versions.push(fs::read_to_string(scratch.out("t_1.roothash")).unwrap());
    };
    again("at first");
    scratch.write(
        "files/usr/share/text",
        "something else\n".repeat(20_000).as_bytes(),
    );
    again("a file's content");
    fs::set_permissions(
        scratch.0.path().join("files/usr/share/text"),
        fs::Permissions::from_mode(0o640),
    )
    .unwrap();
    again("a file's mode");
    fs::write(scratch.0.path().join("files/usr/share/new"), "").unwrap();
    again("a new file");
    fs::remove_file(scratch.0.path().join("files/usr/share/new")).unwrap();
    again("a removed file");
    scratch.flip("t_1.root.erofs", 5000);
    again("an altered artifact");
    fs::remove_file(scratch.out("t_1.initrd")).unwrap();
    again("a missing artifact");
    versions.dedup();
    assert!(versions.len() >= 4, "{versions:?}");
    // These options always build.
    for option in ["--no-cache", "--check"] {
        let output = scratch
            .adamant("build")
            .arg(option)
            .arg("-o")
            .arg(scratch.0.path().join("out"))
            .arg(scratch.0.path().join("image.toml"))
            .output()
            .unwrap();
        assert!(!says(&output), "{option}");
    }
}

#[test]
fn the_second_build_of_check_uses_the_same_keys() {
    let scratch = Scratch::new();
    let keys = scratch.0.path().join("keys");
    adamant::sign::keys::new(&keys, "test", 1).unwrap();
    let output = scratch
        .adamant("build")
        .args(["--check", "--json", "--keys"])
        .arg(&keys)
        .arg(scratch.0.path())
        .output()
        .unwrap();
    assert_success(&output);
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (
            &document["check"]["identical"],
            &document["manifest"]["signatures"][0]["signed"]
        ),
        (&true.into(), &true.into())
    );
}

/// A source that only root can read is not an error: the second build then runs as the same user.
#[test]
fn check_keeps_the_user_if_another_one_cannot_read_a_source() {
    let scratch = Scratch::new();
    fs::set_permissions(
        scratch.0.path().join("files/usr/share/text"),
        fs::Permissions::from_mode(0o600),
    )
    .unwrap();
    let output = scratch
        .adamant("build")
        .args(["--check", "--json"])
        .arg(scratch.0.path())
        .output()
        .unwrap();
    assert_success(&output);
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["check"]["identical"], true);
    assert!(
        !document["check"]["varied"].to_string().contains("user"),
        "{document}"
    );
}

#[test]
fn an_interrupted_check_removes_its_directory_and_the_next_build_that_of_a_killed_one() {
    let scratch = Scratch::new();
    let strays = || {
        scratch
            .names()
            .into_iter()
            .filter(|name| name.starts_with(".out.adamant-check-"))
            .count()
    };
    // Both builds read this key from a pipe. The test writes it once, for the first build; the
    // second build waits for it until it is ended.
    let keys = scratch.0.path().join("keys");
    adamant::sign::keys::new(&keys, "test", 1).unwrap();
    let pipe = keys.join("verity.key");
    let key = fs::read(&pipe).unwrap();
    let renew = || {
        fs::remove_file(&pipe).unwrap();
        nix::unistd::mkfifo(&pipe, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    };
    renew();
    let wait_for_the_second = |child: &mut Child| loop {
        assert!(
            child.try_wait().unwrap().is_none(),
            "the build ended before the signal"
        );
        // Opening fails while the pipe has no reader.
        match File::options()
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(&pipe)
        {
            Ok(held) if strays() > 0 => return held,
            Ok(mut given) => {
                // The next reader opens another pipe, so it does not see the end of this one.
                renew();
                given.write_all(&key).unwrap();
            }
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    };
    for signal in [Signal::SIGKILL, Signal::SIGINT, Signal::SIGTERM] {
        let mut command = scratch.adamant("build");
        // A shell in the background may ignore SIGINT, and children inherit that.
        let heed = || {
            let default = nix::sys::signal::SigHandler::SigDfl;
            // SAFETY: the default action installs no handler.
            let earlier = unsafe { nix::sys::signal::signal(Signal::SIGINT, default) };
            earlier.map(drop).map_err(Into::into)
        };
        // SAFETY: between fork and exec only signal(2) is called, which is async-signal-safe, and
        // installs no handler.
        unsafe { command.pre_exec(heed) };
        let mut child = command
            .arg("--check")
            .arg("--keys")
            .arg(&keys)
            .arg(scratch.0.path())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let _held = wait_for_the_second(&mut child);
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), signal).unwrap();
        let status = child.wait().unwrap();
        assert_eq!(status.signal(), Some(signal as i32));
        assert_eq!(strays(), usize::from(signal == Signal::SIGKILL), "{signal}");
        // The second build ends shortly after the first.
        let deadline = std::time::Instant::now() + Duration::from_secs(300);
        while strays() > 0 {
            assert!(
                std::time::Instant::now() < deadline,
                "still there after five minutes of builds"
            );
            assert_success(&scratch.build());
        }
        assert_eq!(
            scratch.names(),
            ["agent", "files", "image.toml", "keys", "out"]
        );
    }
}

#[test]
fn verify_names_the_artifact_the_block_and_the_file() {
    let scratch = Scratch::new();
    let fresh = |name: &str, at: usize| {
        assert_success(&scratch.build());
        scratch.flip(name, at);
        let error = scratch.verify("out").unwrap_err();
        (error, fs::metadata(scratch.out(name)).unwrap().len())
    };
    let (error, length) = fresh("t_1.root.erofs", 2_000_000);
    assert!(
        error.contains(&format!(
            "t_1.root.erofs: block {} was changed: it belongs to /usr/share/noise",
            2_000_000 / 4096
        )),
        "{error} ({length})"
    );
    assert!(
        fresh("t_1.root.erofs", 1030)
            .0
            .contains("it belongs to the superblock")
    );
    assert!(
        fresh("t_1.root.verity", 4096 * 2 + 5)
            .0
            .contains("block 2 of the hash tree (level 1 below its top)")
    );
    assert!(fresh("t_1.root.verity", 4096 + 5).0.contains("top block"));
    assert!(fresh("t_1.root.verity", 100).0.contains("root hash"));
    assert!(
        fresh("t_1.initrd", 9)
            .0
            .contains("t_1.initrd: its SHA-256 is not the one in the manifest")
    );
    assert!(
        fresh("t_1.cmdline", 9)
            .0
            .contains("t_1.cmdline: its SHA-256 is not the one in the manifest")
    );
    assert!(fresh("t_1.raw", 530).0.contains("t_1.raw: partition table"));
    let (error, _) = fresh("t_1.raw", (1 << 20) + 2_000_000);
    assert!(
        error.contains(
            "t_1.raw, partition \"t_1\": block 488 was changed: it belongs to /usr/share/noise"
        ),
        "{error}"
    );
    assert_success(&scratch.build());
    fs::remove_file(scratch.out("t_1.vmlinuz")).unwrap();
    assert!(scratch.verify("out").unwrap_err().contains("t_1.vmlinuz"));
}

/// The hashes match data that was damaged before hashing; only reading the files finds it.
#[test]
fn verify_read_data_finds_data_that_cannot_be_decompressed() {
    let scratch = Scratch::new();
    let text = fs::read_to_string(scratch.0.path().join("image.toml")).unwrap();
    let text = text.replace(
        "CONFIG_RD_ZSTD=y",
        "CONFIG_RD_ZSTD=y\\nCONFIG_EROFS_FS_ZIP_ZSTD=y",
    );
    scratch.write(
        "image.toml",
        format!("{text}[root]\ncompression = \"zstd:3\"\n").as_bytes(),
    );
    assert_success(&scratch.build());
    let (root, tree) = (
        scratch.out("t_1.root.erofs"),
        scratch.out("t_1.root.verity"),
    );
    let mut bytes = fs::read(&root).unwrap();
    // The bytes after the magic number of the first Zstandard frame (RFC 8878, 3.1.1) become
    // invalid. The next frames belong to other files; damaging those too would make the first
    // error random.
    let at = (0..bytes.len() - 8)
        .find(|at| bytes[*at..].starts_with(&[0x28, 0xb5, 0x2f, 0xfd]))
        .unwrap();
    bytes[at + 4..at + 8].fill(0xff);
    fs::write(&root, bytes).unwrap();
    let Some(made) = tool(
        "veritysetup",
        &[Path::new("format"), &root, &tree, Path::new("--salt=00")],
    ) else {
        return;
    };
    let said = String::from_utf8(made.stdout).unwrap();
    let hash = said
        .lines()
        .find_map(|line| line.strip_prefix("Root hash:"))
        .unwrap_or_else(|| panic!("{said}"));
    fs::write(scratch.out("t_1.roothash"), hash.trim()).unwrap();
    assert!(
        scratch
            .verify("out/t_1.root.erofs")
            .unwrap()
            .starts_with("t_1: OK")
    );
    let error = scratch.verify_data("out/t_1.root.erofs").unwrap_err();
    assert!(
        error.contains("t_1.root.erofs: /usr/share/text: ")
            && error.contains("does not decompress"),
        "{error}"
    );
}

#[test]
fn an_image_without_a_kernel_has_only_a_root_and_a_warning() {
    let scratch = Scratch::new();
    let text = fs::read_to_string(scratch.0.path().join("image.toml")).unwrap();
    scratch.write(
        "image.toml",
        text.replace("/boot/vmlinuz-6.12.1", "/boot/something")
            .as_bytes(),
    );
    let output = scratch.build();
    assert_success(&output);
    assert!(String::from_utf8_lossy(&output.stderr).contains("has no kernel"));
    let mut names: Vec<_> = fs::read_dir(scratch.0.path().join("out"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            "t_1.manifest.json",
            "t_1.root.erofs",
            "t_1.root.verity",
            "t_1.roothash"
        ]
    );
    assert!(
        scratch
            .verify("out")
            .unwrap()
            .starts_with("t_1: OK: 3 artifacts")
    );
}

#[test]
fn a_failed_build_leaves_the_output_as_it_was() {
    let scratch = Scratch::new();
    assert_success(&scratch.build());
    let before = fs::read(scratch.out("t_1.manifest.json")).unwrap();
    let text = fs::read_to_string(scratch.0.path().join("image.toml")).unwrap();
    for (from, to) in [
        ("console=ttyS0", "root=/dev/vda1"),
        ("dir = \"files\"", "dir = \"missing\""),
        ("CONFIG_DM_VERITY=y", "CONFIG_NOTHING=y"),
    ] {
        scratch.write("image.toml", text.replace(from, to).as_bytes());
        let output = scratch.build();
        assert_eq!(output.status.code(), Some(1), "{to}");
        assert_eq!(fs::read(scratch.out("t_1.manifest.json")).unwrap(), before);
        assert_eq!(
            scratch.names(),
            ["agent", "files", "image.toml", "out"],
            "{to}"
        );
    }
}

/// Kills a build at many times, from before its first step to after its last.
#[test]
fn a_kill_at_any_time_leaves_a_complete_output() {
    let scratch = Scratch::new();
    let started = std::time::Instant::now();
    assert_success(&scratch.build());
    let whole = started.elapsed();
    let (mut killed, mut hidden) = (0, 0);
    const KILLS: u32 = 24;
    for n in 0..KILLS {
        scratch.define(&(n + 2).to_string());
        let mut child = scratch
            .adamant("build")
            .arg(scratch.0.path())
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(whole * n / (KILLS - 4) + Duration::from_micros(u64::from(n) * 137));
        child.kill().unwrap();
        killed += u32::from(!child.wait().unwrap().success());
        for (target, whole) in [("out@1", "t_1: OK"), ("out", ": OK")] {
            let text = scratch.verify(target).unwrap();
            assert!(text.contains(whole), "{text}");
        }
        let strays: Vec<String> = scratch
            .names()
            .into_iter()
            .filter(|name| !["agent", "files", "image.toml", "out"].contains(&name.as_str()))
            .collect();
        // Between naming and renaming there is a hidden directory.
        assert!(
            strays.iter().all(|name| name == ".out.adamant-new"),
            "{strays:?}"
        );
        hidden += strays.len();
    }
    assert!(killed > 0, "no kill came in time");
    println!("{killed} of {KILLS} killed, {hidden} hidden directories left to the next build");
    assert_success(&scratch.build());
    assert_eq!(scratch.names(), ["agent", "files", "image.toml", "out"]);
}

#[test]
fn a_full_disk_leaves_the_output_as_it_was() {
    let scratch = Scratch::new();
    scratch.write("run", b"set -e\nmount -t tmpfs -o size=\"$3\" tmpfs \"$1/small\"\n\"$2\" build \"$1\" -o \"$1/small/out\"\nls -A \"$1/small\"\nfor n in 2 3 4 5; do sed -i \"s/^version = .*/version = \\\"$n\\\"/\" \"$1/image.toml\"; \"$2\" build \"$1\" -o \"$1/small/out\" || { echo refused; break; }; done\n\"$2\" verify \"$1/small/out\"\nls -A \"$1/small\"\n");
    fs::create_dir(scratch.0.path().join("small")).unwrap();
    let mut command = Command::new("unshare");
    command
        .args(["-m", "sh"])
        .arg(scratch.0.path().join("run"))
        .arg(scratch.0.path())
        .arg(env!("CARGO_BIN_EXE_adamant"))
        .arg("12M");
    let output = command
        .env("ADAMANT_AGENT", scratch.0.path().join("agent"))
        .output()
        .unwrap();
    let (said, errors) = (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    );
    if errors.contains("unshare failed") || errors.contains("permission denied") {
        skip!(Root("mounting"));
    }
    assert!(output.status.success(), "{said}\n{errors}");
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[0], "out");
    assert!(
        said.contains("refused") && errors.contains("no space left on its file system"),
        "{said}\n{errors}"
    );
    assert!(said.contains("t_1: OK"), "{said}");
    assert_eq!(lines.last(), Some(&"out"));
}
