//! The virtual machine that an image's artifacts describe.

use std::path::PathBuf;

use crate::commands::selection::Selection;
use crate::error::{Context, Error, Result};

/// A virtual machine and the image that it starts.
#[derive(Debug, Clone)]
pub struct VirtualMachine {
    /// Name of QEMU's window and process.
    pub name: String,
    /// Kernel image.
    pub kernel: PathBuf,
    /// Initramfs.
    pub initrd: PathBuf,
    /// Kernel command line.
    pub cmdline: String,
    /// Raw disk, which is never written to.
    pub disk: PathBuf,
    /// The unified kernel image on the disk, if firmware can start the disk.
    pub efi: Option<PathBuf>,
    /// Names of credentials that the image's policy accepts. `*` matches any characters.
    pub credentials: Vec<String>,
}

impl VirtualMachine {
    /// The machine of an image's artifacts ID_VERSION.{vmlinuz,initrd,cmdline,raw}, and .efi if the
    /// image has one.
    pub fn from_selection(selection: &Selection) -> Result<VirtualMachine> {
        let artifact = |suffix: &str| -> Result<PathBuf> {
            let path = selection.artifact(suffix).ok_or_else(|| {
                let hint = match suffix {
                    "raw" => "it was built with --format uki only: build it again with another format",
                    _ => "it was built without a kernel: add one to its sources (for example the package linux-image-cloud-amd64)",
                };
                Error::new(format!("{}: this image has no {suffix} file, so it can't be started", selection.manifest_path().display())).hint(hint)
            })?;
            let missing = || {
                Error::new(format!(
                    "{}: the manifest lists this file, but it does not exist",
                    path.display()
                ))
                .hint("build the image again")
            };
            if path.is_file() {
                Ok(path)
            } else {
                Err(missing())
            }
        };
        let kernel = artifact("vmlinuz")?;
        let cmdline = artifact("cmdline")?;
        Ok(VirtualMachine {
            kernel,
            initrd: artifact("initrd")?,
            cmdline: std::fs::read_to_string(&cmdline)
                .context(|| cmdline.display().to_string())?
                .trim()
                .to_owned(),
            disk: artifact("raw")?,
            efi: selection.artifact("efi").filter(|path| path.is_file()),
            credentials: selection.manifest.credentials.clone(),
            name: selection.stem(),
        })
    }
}

/// Escapes commas in a value of QEMU's option lists: a comma inside a value is written twice.
pub(super) fn escape_commas(value: &str) -> String {
    value.replace(',', ",,")
}
