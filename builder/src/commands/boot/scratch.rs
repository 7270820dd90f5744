//! The folder of one run, removed when it goes out of use.

use std::path::{Path, PathBuf};

use crate::error::{Context, Result};

/// A folder of this process alone.
#[derive(Debug)]
pub struct ScratchDir(PathBuf);

impl ScratchDir {
    /// A new one in the folder for temporary files.
    pub fn new() -> Result<ScratchDir> {
        let dir = std::env::temp_dir().join(format!("adamant-boot-{}", std::process::id()));
        // Not create_dir_all: a folder that is there already may be somebody else's.
        std::fs::create_dir(&dir).context(|| dir.display().to_string())?;
        Ok(ScratchDir(dir))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for ScratchDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
