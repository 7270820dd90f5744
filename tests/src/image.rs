//! Images built by the real programs from real definitions, once for all tests of a run.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use nix::fcntl::{Flock, FlockArg};

use crate::tool;

/// The workspace's folder.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("/"))
}

/// Cargo's target folder: everything that tests make is below it.
pub fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}

/// The programs as users get them: the builder optimized for speed, agent and tiny init for size.
pub struct Programs {
    /// `adamant`.
    pub builder: PathBuf,
    /// `adamant-agent`.
    pub agent: PathBuf,
    /// The init of images/tiny.
    pub tiny_init: PathBuf,
}

/// Builds the programs, once a process; Cargo sees to it that they are up to date.
pub fn programs() -> &'static Programs {
    static PROGRAMS: OnceLock<Programs> = OnceLock::new();
    PROGRAMS.get_or_init(|| {
        let _lock = lock("programs");
        let cargo = |arguments: &[&str]| {
            let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
            // What Cargo sets for the test itself must not reach this build: it would see a changed
            // environment and start over.
            let mut command = Command::new(cargo);
            for (name, _) in std::env::vars_os() {
                if name.to_str().is_some_and(|name| {
                    name.starts_with("CARGO_") && name != "CARGO_HOME" && name != "CARGO_TARGET_DIR"
                }) {
                    command.env_remove(name);
                }
            }
            // tests/run sets it for the test harness. Build scripts read it: Cargo would compile
            // all dependencies again, in 3 minutes of processor time.
            command.env_remove("RUSTC_BOOTSTRAP");
            tool::run(
                command
                    .current_dir(workspace())
                    .args(["build", "--quiet"])
                    .args(arguments),
            );
        };
        // While the builder is being worked on, ADAMANT_TESTS_PROFILE=dev saves minutes: the same
        // code, less optimized.
        let dev = std::env::var("ADAMANT_TESTS_PROFILE").is_ok_and(|profile| profile == "dev");
        cargo(if dev {
            &["-p", "adamant"]
        } else {
            &["--release", "-p", "adamant"]
        });
        cargo(&[
            "--profile",
            "agent",
            "-p",
            "adamant-agent",
            "-p",
            "tiny-init",
        ]);
        let dir = target_dir().join("x86_64-unknown-linux-gnu");
        Programs {
            builder: dir.join(if dev {
                "debug/adamant"
            } else {
                "release/adamant"
            }),
            agent: dir.join("agent/adamant-agent"),
            tiny_init: dir.join("agent/tiny-init"),
        }
    })
}

/// The builder, ready for arguments. Its cache is the tests' own.
pub fn builder() -> Command {
    let mut command = tool::command(&programs().builder);
    command.env("XDG_CACHE_HOME", target_dir().join("cache"));
    command
}

/// `adamant build DEFINITION -o OUT` with the agent that belongs to it.
pub fn build_command(definition: &Path, out: &Path) -> Command {
    let mut command = builder();
    command
        .arg("build")
        .arg(definition)
        .arg("-o")
        .arg(out)
        .arg("--agent")
        .arg(&programs().agent);
    command
}

/// What is added to a suite for Debian's kernel for any machine, instead of the one for virtual
/// ones.
pub const METAL: &str = "-metal";

/// The folder with the trees `kernel` and `e2fsprogs` of a Debian suite, see tests/kernel; with
/// [`METAL`] behind its name, of its kernel for any machine.
pub fn kernels(suite: &str) -> PathBuf {
    let _lock = lock(&format!("kernels-{suite}"));
    let dir = target_dir().join("kernels").join(suite);
    let (name, flavour) = suite
        .strip_suffix(METAL)
        .map_or((suite, "cloud-amd64"), |name| (name, "amd64"));
    tool::run(
        tool::command(workspace().join("tests/kernel"))
            .arg(&dir)
            .arg(name)
            .arg(flavour),
    );
    dir
}

/// What an image was built into.
#[derive(Debug, Clone)]
pub struct Image {
    /// OUT.
    pub dir: PathBuf,
    /// ID_VERSION.
    pub stem: String,
}

impl Image {
    /// One of its artifacts: `raw`, `root.erofs`, `roothash` ...
    pub fn path(&self, artifact: &str) -> PathBuf {
        self.dir.join(format!("{}.{artifact}", self.stem))
    }

    /// Its kernel command line.
    pub fn cmdline(&self) -> String {
        self.text("cmdline")
    }

    /// Its root hash, 64 hexadecimal digits.
    pub fn root_hash(&self) -> String {
        self.text("roothash")
    }

    fn text(&self, artifact: &str) -> String {
        let path = self.path(artifact);
        fs::read_to_string(&path)
            .unwrap_or_else(|e| panic!("{}: {e}", path.display()))
            .trim()
            .to_owned()
    }
}

/// A tiny image: images/tiny, in a variation.
#[derive(Debug, Clone)]
pub struct Tiny {
    /// IMAGE_ID.
    pub id: String,
    /// IMAGE_VERSION.
    pub version: String,
    /// Debian suite of the kernel and e2fsprogs.
    pub suite: &'static str,
    /// What follows in the definition.
    pub more: String,
}

impl Default for Tiny {
    fn default() -> Tiny {
        Tiny {
            id: "tiny".to_owned(),
            version: "1".to_owned(),
            suite: "trixie",
            more: String::new(),
        }
    }
}

/// Two volumes of the smallest useful size.
pub const SMALL_VOLUMES: &str = "[[volume]]\nname = \"state\"\nmount = \"/var\"\nsize = \"24M\"\n[[volume]]\nname = \"logs\"\nmount = \"/var/log\"\nsize = \"16M\"\n";
/// Every block is checked before init.
pub const FULL: &str = "[verify]\nboot = \"full\"\n";
/// Tests need not wait long for the outcome of a failure.
pub const POWEROFF_AT_ONCE: &str = "[failure]\naction = \"poweroff\"\nafter = \"1s\"\n";

impl Tiny {
    /// The image with small volumes, lazily verified; a failure switches off.
    pub fn usual() -> Tiny {
        Tiny {
            more: format!("{SMALL_VOLUMES}{POWEROFF_AT_ONCE}"),
            ..Tiny::default()
        }
    }

    /// As [`Tiny::usual`], with every block checked before init.
    pub fn full() -> Tiny {
        Tiny {
            more: format!("{SMALL_VOLUMES}{POWEROFF_AT_ONCE}{FULL}"),
            ..Tiny::default()
        }
    }

    /// Adds to the definition.
    pub fn with(mut self, more: &str) -> Tiny {
        self.more.push_str(more);
        self
    }

    /// Writes the definition and what belongs to it into a folder; gives the definition's path.
    pub fn define(&self, dir: &Path) -> PathBuf {
        fs::create_dir_all(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
        let input = dir.join("input");
        if !input.exists() {
            prepare_tiny(&input, self.suite);
        }
        let base = fs::read_to_string(workspace().join("images/tiny/image.toml"))
            .unwrap_or_else(|e| panic!("images/tiny/image.toml: {e}"));
        // The example's own volumes and policy come last in its file, behind a line that says so: a
        // variation replaces them.
        let (base, _) = base
            .split_once("# --- volumes")
            .unwrap_or_else(|| panic!("images/tiny/image.toml has lost its `# --- volumes` line"));
        let text = base
            .replacen("id = \"tiny\"", &format!("id = {:?}", self.id), 1)
            .replacen(
                "version = \"1\"",
                &format!("version = {:?}", self.version),
                1,
            )
            + &self.more;
        let path = dir.join("image.toml");
        fs::write(&path, text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        path
    }

    /// Builds it, unless an earlier test of this run has.
    pub fn build(&self) -> Image {
        use sha2::Digest;
        let mut key = sha2::Sha256::new();
        let files = ["images/tiny/image.toml", "tests/kernel"].map(|file| workspace().join(file));
        for file in [
            &programs().builder,
            &programs().agent,
            &programs().tiny_init,
        ]
        .into_iter()
        .chain(&files)
        {
            key.update(fs::read(file).unwrap_or_else(|e| panic!("{}: {e}", file.display())));
        }
        key.update(format!("{self:?}"));
        let key = adamant_contract::hex::encode(&key.finalize())[..16].to_owned();
        let _lock = lock(&format!("image-{key}"));
        let dir = target_dir().join("test-images").join(&key);
        let image = Image {
            dir: dir.join("out"),
            stem: format!("{}_{}", self.id, self.version),
        };
        if !image.path("manifest.json").exists() {
            let definition = self.define(&dir);
            build(&definition, &image.dir);
        }
        image
    }
}

/// Runs `adamant build`; the test fails when it does.
pub fn build(definition: &Path, out: &Path) -> String {
    // Programs of an earlier run may have made another image of this version here.
    let output = tool::output(build_command(definition, out).arg("--force"));
    let said = tool::lossy(&output.stderr);
    assert!(
        output.status.success(),
        "adamant build {}: {}\n{said}",
        definition.display(),
        output.status
    );
    said
}

/// Puts together what images/tiny/image.toml names below `input/`: the init, a kernel and
/// e2fsprogs.
pub fn prepare_tiny(input: &Path, suite: &str) {
    let trees = kernels(suite);
    fs::create_dir_all(input).unwrap_or_else(|e| panic!("{}: {e}", input.display()));
    fs::copy(&programs().tiny_init, input.join("init"))
        .unwrap_or_else(|e| panic!("{}: {e}", input.display()));
    for tree in ["kernel", "e2fsprogs"] {
        tool::run(
            tool::command("cp")
                .args(["-a", "--reflink=auto"])
                .arg(trees.join(tree))
                .arg(input),
        );
    }
}

/// Keys by `adamant keys new`, once a run: making them takes seconds.
pub fn our_keys() -> PathBuf {
    keys("keys")
}

/// Keys of somebody else.
pub fn other_keys() -> PathBuf {
    keys("other-keys")
}

fn keys(name: &str) -> PathBuf {
    let _lock = lock(name);
    let dir = target_dir().join(name);
    if !dir.join("pcr.pub").exists() {
        let _ = fs::remove_dir_all(&dir);
        adamant::sign::keys::new(&dir, "tests", 30).unwrap_or_else(|e| panic!("{e}"));
    }
    dir
}

/// A lock over all test programs of this target folder.
pub fn lock(name: &str) -> Flock<File> {
    let dir = target_dir().join("locks");
    fs::create_dir_all(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let path = dir.join(name);
    let file = File::create(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    Flock::lock(file, FlockArg::LockExclusive)
        .unwrap_or_else(|(_, e)| panic!("{}: {e}", path.display()))
}
