//! The subcommands that work on finished images. `build` is [`crate::pipeline`].

pub mod boot;
pub mod diff;
pub mod drift;
pub mod inspect;
pub mod selection;
pub mod summary;
pub mod verify;
