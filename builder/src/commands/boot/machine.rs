//! The machine that an image's artifacts make, and what both of its starts need of QEMU's syntax.

use std::path::PathBuf;

use crate::commands::selection::Selection;
use crate::error::{Context, Error, Result};

/// What is started.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Shown as the window's and the process' name.
    pub name: String,
    /// Kernel image.
    pub kernel: PathBuf,
    /// Initramfs.
    pub initrd: PathBuf,
    /// Kernel command line.
    pub cmdline: String,
    /// Raw disk; never written to.
    pub disk: PathBuf,
    /// The unified kernel image on the disk, where firmware can start it.
    pub efi: Option<PathBuf>,
    /// Names of credentials that the image's policy lets in; `*` stands for any characters.
    pub credentials: Vec<String>,
}

impl Machine {
    /// The machine that an image's artifacts make: ID_VERSION.{vmlinuz,initrd,cmdline,raw}, and
    /// .efi where firmware can start it.
    pub fn from_selection(selection: &Selection) -> Result<Machine> {
        let artifact = |suffix: &str| -> Result<PathBuf> {
            let path = selection.artifact(suffix).ok_or_else(|| {
                let hint = match suffix {
                    "raw" => "it was built with --format uki alone: build it again without that",
                    _ => "it was built without a kernel: add one to its sources (for example the package linux-image-cloud-amd64)",
                };
                Error::new(format!("{}: this image has no {suffix} file, so it can't be started", selection.manifest_path().display())).hint(hint)
            })?;
            let lost = || {
                Error::new(format!(
                    "{}: the manifest names this file, but it is not there",
                    path.display()
                ))
                .hint("build the image again")
            };
            if path.is_file() {
                Ok(path)
            } else {
                Err(lost())
            }
        };
        let kernel = artifact("vmlinuz")?;
        let cmdline = artifact("cmdline")?;
        Ok(Machine {
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
