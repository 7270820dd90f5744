//! Probes whether KVM works, by starting a kernel under it.
//!
//! The device node can exist and be useless: nested virtualisation may stall, permissions may be
//! missing, or another hypervisor may hold the processor. The probe starts the image's kernel
//! without a root file system. If KVM works, the kernel panics within a second and QEMU ends.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use super::command::{Accelerator, Hardware, QemuCommand};
use crate::io::process;

/// Longest wait for the panic. With working KVM it takes 1 s.
const DEADLINE: Duration = Duration::from_secs(12);
/// Most bytes of each output that are read.
const SAID: u64 = 1 << 20;

/// `Err` contains the reason why KVM can't be used. The verdict is cached until the host restarts.
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
    let cached = verdict_file();
    if let Some(verdict) = cached
        .as_ref()
        .and_then(|path| fs::read_to_string(path).ok())
    {
        match verdict.trim() {
            "works" => return Ok(()),
            why if !why.is_empty() => return Err(why.to_owned()),
            _ => {}
        }
    }
    let verdict = start_kernel(qemu, kernel);
    if let Some(path) = cached {
        // If it can't be written, the next run probes again.
        let _ = path.parent().map(fs::create_dir_all);
        let _ = fs::write(
            &path,
            verdict.as_ref().err().map_or("works", String::as_str),
        );
    }
    verdict
}

fn start_kernel(qemu: &Path, kernel: &Path) -> Result<(), String> {
    let mut command = QemuCommand::new(
        qemu,
        Hardware {
            name: "probe",
            accelerator: Accelerator::Kvm,
            sata: true,
            smp: 2,
            memory: "256M",
        },
    );
    command.kernel(kernel, None, "console=ttyS0 panic=-1 quiet");
    command.serial("console", "stdio");
    command.arguments(["-no-reboot"]);
    let mut command = command.into_command();
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    match process::capture(&mut command, b"", SAID, DEADLINE) {
        Ok(Some(captured)) if captured.text().contains("Kernel panic") => Ok(()),
        Ok(Some(captured)) => {
            let text = captured.text();
            let last = text
                .lines()
                .rev()
                .find(|line| !line.trim().is_empty())
                .unwrap_or("no output");
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

/// The file that caches the verdict. Its name contains the id of the host's boot.
fn verdict_file() -> Option<PathBuf> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
    Some(cache.join("adamant").join(format!("kvm-{}", boot.trim())))
}
