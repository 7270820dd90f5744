//! From one image of an output folder to a machine that can be started.

use std::path::PathBuf;

use super::Machine;
use crate::commands::selection::Selection;
use crate::error::{Context, Error, Result};

impl Machine {
    /// The machine that an image's artifacts make: ID_VERSION.{vmlinuz,initrd,cmdline,raw}, and
    /// .efi where firmware can start it.
    pub fn of(selection: &Selection) -> Result<Machine> {
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
