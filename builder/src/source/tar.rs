//! Archives.

use std::path::Path;

use super::{Budget, Loaded};
use crate::error::{Error, Result};
use crate::tree::Tree;

/// Takes all of the archive below `at`.
pub fn load(_: &mut Tree, _: &[u8], archive: &Path, _: &mut Budget, _: &Path) -> Result<Loaded> {
    Err(Error::new(format!("{}: archives are not read yet", archive.display())))
}
