//! Builds with the real program: the artifacts, their verification by independent tools, and the
//! output directory after an interrupted build.
//!
//! The image has a placeholder kernel and an agent that exits at once, because nothing here boots
//! (the `tests` package boots).

mod cache;
mod check;
mod interrupted;
mod verify;

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
        // Another user must be able to read it: `--check` builds as one.
        let mode = fs::Permissions::from_mode(0o755);
        let folder = tempfile::Builder::new().permissions(mode).tempdir();
        let scratch = Scratch(folder.unwrap());
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

    /// Builds with `--check`, which finds no difference, and returns the JSON document.
    fn check_identical(&self) -> serde_json::Value {
        let output = self
            .adamant("build")
            .args(["--check", "--json"])
            .arg(self.0.path())
            .output()
            .unwrap();
        assert_success(&output);
        let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(document["check"]["identical"], true);
        document
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
    let document = scratch.check_identical();
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
