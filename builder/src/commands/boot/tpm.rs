//! A TPM 2.0 of its own for the machine: swtpm as a child beside QEMU, with a line between the two
//! that nobody else can open.

use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::error::{Context, Result};
use crate::io::prerequisite;
use crate::io::process;

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
    /// Starts one whose state is in the folder `state`, made where it is missing, and gives it to
    /// QEMU with its command line.
    pub fn attach(command: &mut Command, state: &Path) -> Result<Tpm> {
        let program = prerequisite::find("swtpm")?;
        // What the TPM keeps secret is in it.
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(state)
            .context(|| state.display().to_string())?;
        let (ours, theirs) = UnixStream::pair().context(|| "a line between QEMU and its TPM")?;
        let mut swtpm = Command::new(program);
        let swtpms_end = process::inherit(&mut swtpm, theirs.as_fd());
        // In the folder, because a path could have a comma, which divides options.
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
            line: Some(ours),
        })
    }
}

impl Drop for Tpm {
    fn drop(&mut self) {
        self.line = None;
        let _ = process::wait(&mut self.swtpm, GOODBYE);
    }
}
