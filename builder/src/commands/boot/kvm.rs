//! Whether KVM works: not whether its device node is there, but whether a kernel really starts
//! under it.
//!
//! A node can be there and be useless (nested virtualisation that stalls, missing permissions,
//! another hypervisor holding the CPU). So the image's own kernel is started with nothing to mount:
//! where KVM works it panics about that within a second and QEMU ends.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::io::process;

/// A kernel under a KVM that works is there in 1 s; one that is not there by now will not come.
const DEADLINE: Duration = Duration::from_secs(12);
/// The most of its words that are listened to, bytes of each output.
const SAID: u64 = 1 << 20;

/// `Err` says in a clause why KVM can't be used. The verdict is kept until the host restarts.
pub fn probe(qemu: &Path, kernel: &Path) -> Result<(), String> {
    let node = Path::new("/dev/kvm");
    match fs::metadata(node) {
        Err(_) => return Err("there is no /dev/kvm".to_owned()),
        Ok(meta) if !meta.file_type().is_char_device() => {
            return Err("/dev/kvm is not a device".to_owned());
        }
        Ok(_) => {}
    }
    if let Err(error) = fs::OpenOptions::new().read(true).write(true).open(node) {
        return Err(format!("/dev/kvm: {}", crate::error::reason(&error)));
    }
    let kept = verdict_file();
    if let Some(kept) = kept.as_ref().and_then(|path| fs::read_to_string(path).ok()) {
        match kept.trim() {
            "works" => return Ok(()),
            why if !why.is_empty() => return Err(why.to_owned()),
            _ => {}
        }
    }
    let verdict = start(qemu, kernel);
    if let Some(path) = kept {
        // Only a saving of time: where it can't be kept, the next run probes again.
        let _ = path.parent().map(fs::create_dir_all);
        let _ = fs::write(
            &path,
            verdict.as_ref().err().map_or("works", String::as_str),
        );
    }
    verdict
}

fn start(qemu: &Path, kernel: &Path) -> Result<(), String> {
    let mut command = Command::new(qemu);
    command
        .args([
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
            "-machine",
            "q35,accel=kvm",
            "-cpu",
            "host",
            "-smp",
            "2",
            "-m",
            "256M",
        ])
        .args([
            "-serial",
            "stdio",
            "-append",
            "console=ttyS0 panic=-1 quiet",
            "-kernel",
        ])
        .arg(kernel)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    match process::capture(&mut command, b"", SAID, DEADLINE) {
        Ok(Some(captured)) if captured.text().contains("Kernel panic") => Ok(()),
        Ok(Some(captured)) => {
            let said = captured.text();
            let last = said
                .lines()
                .rev()
                .find(|line| !line.trim().is_empty())
                .unwrap_or("QEMU ended without a word");
            log::debug!("the test guest under KVM: {}", last.trim());
            Err("a test guest did not start".to_owned())
        }
        Ok(None) => Err(format!(
            "a test guest did not start within {} s",
            DEADLINE.as_secs()
        )),
        Err(error) => Err(format!("QEMU could not be started: {error}")),
    }
}

/// One file a host start: `/proc` names each with a UUID of its own.
fn verdict_file() -> Option<PathBuf> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
    Some(cache.join("adamant").join(format!("kvm-{}", boot.trim())))
}
