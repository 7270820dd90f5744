//! The stage on real loop devices, with the kernel's ext4 and the host's e2fsprogs standing in for the image's.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::beneath;

/// Whether the test may go on; says why not otherwise.
pub fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        println!("skipped: needs root for mounts and loop devices");
    }
    root
}

/// Runs a tool of the host. False, with a word, when it is not installed; a failing one fails the test.
pub fn tool(program: &str, arguments: &[&str]) -> bool {
    match Command::new(program).args(arguments).stdin(Stdio::null()).output() {
        Ok(output) => {
            assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
            true
        }
        Err(error) => {
            println!("skipped: {program}: {error}");
            false
        }
    }
}

fn scratch_path(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("adamant-{}-{name}", std::process::id()))
}

/// A file of zeros that goes away.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new(name: &str, bytes: u64) -> Scratch {
        let path = scratch_path(name);
        fs::File::create(&path).unwrap().set_len(bytes).unwrap();
        Scratch(path)
    }

    pub fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }

    pub fn write(&self, at: u64, bytes: &[u8]) {
        use std::os::unix::fs::FileExt;
        fs::OpenOptions::new().write(true).open(&self.0).unwrap().write_all_at(bytes, at).unwrap();
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// A folder that goes away.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(name: &str) -> Folder {
        let path = scratch_path(name);
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Folder(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn open(&self) -> OwnedFd {
        beneath::open_trusted(&self.0).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Runs in a thread with a mount namespace of its own, which takes all that was mounted with it.
pub fn in_own_mounts(test: impl FnOnce() + Send + 'static) {
    use nix::mount::{MsFlags, mount};
    use nix::sched::{CloneFlags, unshare};
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}
