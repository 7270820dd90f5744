//! The builder: turns a definition into a read-only, verified root and the machine image around it.
//!
//! Data flows one way, and the modules stand in that order: definition, source, tree, scrub, erofs, verity, initramfs, uki, sign, disk, format, manifest.

pub mod boot;
pub mod bounded;
pub mod build;
pub mod cache;
pub mod check;
pub mod child;
pub mod cli;
pub mod definition;
pub mod diff;
pub mod disk;
pub mod drift;
pub mod erofs;
pub mod error;
pub mod format;
pub mod initramfs;
pub mod inspect;
pub mod interpreters;
pub mod manifest;
pub mod output;
pub mod part;
pub mod paths;
pub mod percent;
pub mod prerequisite;
pub mod progress;
pub mod scrub;
pub mod selection;
pub mod sign;
pub mod source;
pub mod summary;
pub mod timings;
pub mod tree;
pub mod uki;
pub mod verify;
pub mod verity;
pub mod version;
pub mod volumes;
pub mod zeros;

pub use error::{Context, Error, Result};
