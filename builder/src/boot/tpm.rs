//! A TPM 2.0 of its own for the machine: swtpm as a child beside QEMU, with a line between the two that nobody else can open.

use std::os::fd::AsRawFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::libc;

use super::qemu;
use crate::error::{Context, Result};

/// swtpm ends by itself when QEMU's end of the line closes; how long that may take.
const GOODBYE: Duration = Duration::from_secs(2);

/// A running TPM. It ends when this goes out of use.
#[derive(Debug)]
pub struct Tpm {
    swtpm: Child,
    /// QEMU's end, which it inherits.
    line: Option<UnixStream>,
}

impl Tpm {
    /// Starts one whose state is in the folder `state`, made where it is missing, and gives it to QEMU with its command line.
    pub fn attach(command: &mut Command, state: &Path) -> Result<Tpm> {
        let swtpm = qemu::program("swtpm", "swtpm")?;
        // What the TPM keeps secret is in it.
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(state).context(|| state.display().to_string())?;
        let (ours, theirs) = UnixStream::pair().context(|| "a line between QEMU and its TPM")?;
        let (qemus, swtpms) = (ours.as_raw_fd(), theirs.as_raw_fd());
        let mut child = Command::new(swtpm);
        // In the folder, because a path could have a comma, which divides options.
        child.current_dir(state).args(["socket", "--tpm2", "--terminate", "--tpmstate", "dir=.", "--ctrl"]).arg(format!("type=unixio,clientfd={swtpms}"));
        child.stdin(Stdio::null()).stdout(Stdio::null());
        inherit(&mut child, swtpms);
        let swtpm = qemu::spawn(&mut child).context(|| "starting swtpm")?;
        command.arg("-chardev").arg(format!("socket,id=tpm,fd={qemus}"));
        command.args(["-tpmdev", "emulator,id=tpm0,chardev=tpm", "-device", "tpm-crb,tpmdev=tpm0"]);
        inherit(command, qemus);
        Ok(Tpm { swtpm, line: Some(ours) })
    }
}

/// Leaves a descriptor open in the child; it must be open until the child is started.
fn inherit(command: &mut Command, descriptor: i32) {
    // SAFETY: between fork and exec only fcntl is called, which is async-signal-safe.
    unsafe {
        command.pre_exec(move || match libc::fcntl(descriptor, libc::F_SETFD, 0) {
            -1 => Err(std::io::Error::last_os_error()),
            _ => Ok(()),
        });
    }
}

impl Drop for Tpm {
    fn drop(&mut self) {
        self.line = None;
        let deadline = Instant::now() + GOODBYE;
        while Instant::now() < deadline {
            if !matches!(self.swtpm.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.swtpm.kill();
        let _ = self.swtpm.wait();
    }
}
