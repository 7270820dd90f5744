//! A TPM 2.0 for the machine: swtpm as a child process, connected to QEMU by a socket pair that no
//! other process can open.

use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::error::{Context, Result};
use crate::io::prerequisite;
use crate::io::process;

/// Longest wait for swtpm, which ends when QEMU's end of the connection closes.
const GOODBYE: Duration = Duration::from_secs(2);

/// A running TPM, which ends on drop.
#[derive(Debug)]
pub struct Tpm {
    swtpm: Child,
    /// QEMU's end of the connection, which QEMU inherits.
    connection: Option<UnixStream>,
}

impl Tpm {
    /// Starts swtpm with its state in the folder `state`, which is created if necessary, and adds
    /// the TPM to QEMU's command line.
    pub fn attach(command: &mut Command, state: &Path) -> Result<Tpm> {
        let program = prerequisite::find("swtpm")?;
        // The folder contains the TPM's secrets.
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(state)
            .context(|| state.display().to_string())?;
        let (ours, theirs) = UnixStream::pair().context(|| "connecting QEMU and swtpm")?;
        let mut swtpm = Command::new(program);
        let swtpms_end = process::inherit(&mut swtpm, theirs.as_fd());
        // It runs in the folder, because commas in a path would separate options.
        swtpm
            .current_dir(state)
            .args([
                "socket",
                "--tpm2",
                "--terminate",
                "--tpmstate",
                "dir=.",
                "--ctrl",
            ])
            .arg(format!("type=unixio,clientfd={swtpms_end}"));
        swtpm.stdin(Stdio::null()).stdout(Stdio::null());
        let swtpm = process::spawn(&mut swtpm).context(|| "starting swtpm")?;
        let qemus_end = process::inherit(command, ours.as_fd());
        command
            .arg("-chardev")
            .arg(format!("socket,id=tpm,fd={qemus_end}"));
        command.args([
            "-tpmdev",
            "emulator,id=tpm0,chardev=tpm",
            "-device",
            "tpm-crb,tpmdev=tpm0",
        ]);
        Ok(Tpm {
            swtpm,
            connection: Some(ours),
        })
    }
}

impl Drop for Tpm {
    fn drop(&mut self) {
        self.connection = None;
        let _ = process::wait(&mut self.swtpm, GOODBYE);
    }
}
