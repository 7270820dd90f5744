//! `adamant verify`: every hash in the manifest, the whole verity tree, and the file system's structure.

use std::path::Path;

use crate::error::{Error, Result};
use crate::output::Output;

/// Verifies a build's OUT directory or a disk image.
pub fn run(target: &Path, output: &Output) -> Result<()> {
    let _ = output;
    Err(Error::new(format!("{}: this version can't verify", target.display())))
}
