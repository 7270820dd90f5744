//! The temporary folder of a run.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::error::{Context, Result};

/// A folder of this process, which is removed on drop.
#[derive(Debug)]
pub struct ScratchDir(PathBuf);

impl ScratchDir {
    /// Creates a folder in the system's folder for temporary files.
    pub fn new() -> Result<ScratchDir> {
        let dir = std::env::temp_dir().join(format!("adamant-boot-{}", std::process::id()));
        // Fails if the folder exists, because it may belong to another user. It holds the disk of
        // the virtual machine, which nobody else may read.
        DirBuilder::new()
            .mode(0o700)
            .create(&dir)
            .context(|| dir.display().to_string())?;
        Ok(ScratchDir(dir))
    }

    /// Path of the folder.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for ScratchDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
