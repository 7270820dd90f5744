//! What root may open for writing in /proc, /sys and /dev: the groups of `tests/writable`, what a
//! walk of a running server found, and the tables of `docs/writable.md`.

pub mod document;
pub mod found;
pub mod groups;
pub mod pattern;

use std::path::PathBuf;

use crate::image::workspace;

/// The directory with the groups, `groups.toml`, and with the list of a walk, `found`.
pub fn directory() -> PathBuf {
    workspace().join("tests/writable")
}

/// The document with the tables.
pub fn document() -> PathBuf {
    workspace().join("docs/writable.md")
}
