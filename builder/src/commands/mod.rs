//! The subcommands that work on built images. [`crate::pipeline`] is `adamant build`.

pub mod boot;
pub mod cache;
pub mod diff;
pub mod drift;
pub mod inspect;
pub mod selection;
pub mod summary;
pub mod verify;
