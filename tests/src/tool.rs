//! Other projects' programs as judges. One that is not installed is named, and the check it would
//! have made is skipped, aloud.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

pub use adamant_skip::{Need, report as skipped};

/// Where programs for administrators are, which are not in everyone's PATH.
fn search_path() -> String {
    format!(
        "{}:/usr/local/sbin:/usr/sbin:/sbin",
        std::env::var("PATH").unwrap_or_default()
    )
}

/// Whether a program is installed; says so when it is not.
pub fn have(program: &str) -> bool {
    let found = search_path()
        .split(':')
        .any(|dir| Path::new(dir).join(program).exists());
    if !found {
        skipped(Need::Program(program));
    }
    found
}

/// A program of a newer Debian, see tests/newer; says so when there is none.
pub fn newer(program: &str) -> Option<Command> {
    static THERE: OnceLock<bool> = OnceLock::new();
    let script = crate::image::workspace().join("tests/newer");
    let there = THERE.get_or_init(|| {
        // Asked for once, so that what it needs is made once.
        let made = output(command(&script).args(["fsck.erofs", "--version"]));
        if !made.status.success() {
            let said = lossy(&made.stderr);
            skipped(Need::Host(said.trim().trim_start_matches("SKIPPED: ")));
        }
        made.status.success()
    });
    there.then(|| {
        let mut command = command(&script);
        command.arg(program);
        command
    })
}

/// Whether this is the long form of the tests, `tests/run --all`.
pub fn is_long() -> bool {
    std::env::var_os("ADAMANT_ALL").is_some()
}

/// Whether this user may mount; says so when not.
pub fn root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        skipped(Need::Root("mounting"));
    }
    root
}

/// Whether this machine's kernel mounts erofs; says so when not.
pub fn mounts_erofs() -> bool {
    static KNOWN: OnceLock<bool> = OnceLock::new();
    *KNOWN.get_or_init(|| {
        let known = std::fs::read_to_string("/proc/filesystems")
            .unwrap_or_default()
            .contains("erofs");
        if !known {
            skipped(Need::Host(
                "this host's kernel does not know erofs: only the guest's kernel judges",
            ));
        }
        known
    })
}

/// A root file system on a loop device, unmounted at the end.
pub struct Mounted(PathBuf);

impl Mounted {
    /// Mounts it, read-only.
    pub fn new(image: &Path, at: PathBuf) -> Mounted {
        std::fs::create_dir_all(&at).unwrap_or_else(|e| panic!("{}: {e}", at.display()));
        run(command("mount")
            .args(["-t", "erofs", "-o", "loop,ro"])
            .arg(image)
            .arg(&at));
        Mounted(at)
    }

    /// Where.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        output(command("umount").arg(&self.0));
    }
}

/// A command found in the administrators' folders too.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command
        .env("PATH", search_path())
        .env("LC_ALL", "C")
        .stdin(Stdio::null());
    command
}

/// Runs it; the test fails unless it ends with 0. Gives what it wrote to its standard output.
pub fn run(command: &mut Command) -> String {
    let output = output(command);
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        lossy(&output.stdout),
        lossy(&output.stderr)
    );
    lossy(&output.stdout)
}

/// Runs it, whatever it ends with.
pub fn output(command: &mut Command) -> Output {
    command
        .output()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"))
}

/// Bytes for people.
pub fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
