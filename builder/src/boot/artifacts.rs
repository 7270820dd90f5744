//! From a build's OUT directory to a machine that can be started.

use std::path::{Path, PathBuf};

use super::Machine;
use crate::error::{Context, Error, Result};
use crate::manifest;

impl Machine {
    /// The machine that the artifacts in `out` make: OUT/ID_VERSION.{vmlinuz,initrd,cmdline,raw}, and .efi where firmware can start it.
    pub fn from_artifacts(out: &Path) -> Result<Machine> {
        let name = only_stem(out)?;
        let artifact = |suffix: &str| -> Result<PathBuf> {
            let path = out.join(format!("{name}.{suffix}"));
            match path.is_file() {
                true => Ok(path),
                false => Err(Error::new(format!("{}: not there, so this image can't be started", path.display()))
                    .hint("an image without a kernel has no vmlinuz, initrd and raw: add a kernel to its sources (for example linux-image-cloud-amd64); one built with --format uki alone has no raw")),
            }
        };
        let cmdline = artifact("cmdline")?;
        Ok(Machine {
            kernel: artifact("vmlinuz")?,
            initrd: artifact("initrd")?,
            cmdline: std::fs::read_to_string(&cmdline).context(|| cmdline.display().to_string())?.trim().to_owned(),
            disk: artifact("raw")?,
            efi: Some(out.join(format!("{name}.efi"))).filter(|path| path.is_file()),
            credentials: manifest::Manifest::read(&out.join(format!("{name}{}", manifest::SUFFIX)))?.credentials,
            name,
        })
    }
}

/// `ID_VERSION` of the one image in a directory.
fn only_stem(out: &Path) -> Result<String> {
    let name = |path: &PathBuf| Some(path.file_name()?.to_str()?.strip_suffix(manifest::SUFFIX)?.to_owned());
    let stems: Vec<String> = manifest::files(out)?.iter().filter_map(name).collect();
    match stems.as_slice() {
        [stem] => Ok(stem.clone()),
        [] => Err(Error::new(format!("{}: no image in it", out.display())).hint("give a build's OUT directory, or a definition")),
        several => {
            Err(Error::new(format!("{}: {} images in it: {}", out.display(), several.len(), several.join(", "))).hint("give a directory that holds one"))
        }
    }
}
