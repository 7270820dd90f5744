//! The builder: turns an image definition into a read-only, verified root file system and the
//! machine images around it.
//!
//! Data flows one way:
//!
//! ```text
//! definition -> source -> tree -> rootfs -> erofs -> verity
//!            -> initramfs, uki, sign -> disk -> format -> manifest
//! ```
//!
//! | module | subject |
//! |---|---|
//! | [`definition`] | `image.toml`: keys, values, errors |
//! | [`source`] | input: archives, directories, files and Debian packages |
//! | [`tree`] | the file tree in memory |
//! | [`rootfs`] | scrubbing, checks and the builder's own files in the tree |
//! | [`erofs`] | the EROFS writer and reader |
//! | [`verity`] | the dm-verity hash tree |
//! | [`mod@derive`] | salts and UUIDs derived from the image id |
//! | [`initramfs`], [`uki`], [`sign`] | the initramfs, the unified kernel image, signatures |
//! | [`disk`], [`mod@format`] | partition table, ESP, cloud formats |
//! | [`manifest`] | the list of artifacts with their hashes |
//! | [`pipeline`] | the stages of a build, in order |
//! | [`commands`] | the other subcommands |
//! | [`cli`] | the command line |
//! | [`cache`] | cached results of earlier builds |
//! | [`glob`] | globs over paths of the image |
//! | [`io`] | files, processes and worker threads |
//! | [`term`] | messages, progress, JSON documents |

pub mod cache;
pub mod cli;
pub mod commands;
pub mod definition;
pub mod derive;
pub mod disk;
pub mod erofs;
pub mod error;
pub mod format;
pub mod glob;
pub mod initramfs;
pub mod io;
pub mod manifest;
pub mod percent;
pub mod pipeline;
pub mod rootfs;
pub mod sign;
pub mod source;
pub mod term;
pub mod tree;
pub mod uki;
pub mod verity;
pub mod version;

pub use error::{Context, Error, Result};
