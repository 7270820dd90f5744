//! The attack suite of `tests/attacks`: its index, its results, and the table of
//! `docs/threat-model.md`.

pub mod capabilities;
pub mod index;
pub mod machine;
pub mod results;
pub mod table;

use std::path::PathBuf;

use crate::image::workspace;

/// The suite's directory.
pub fn directory() -> PathBuf {
    workspace().join("tests/attacks")
}
