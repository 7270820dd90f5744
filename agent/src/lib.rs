//! The agent: PID 1 of the initramfs until it starts the image's own init, and later an ordinary
//! command in the running image.
//!
//! The library has one user, `main.rs`. It is a library so that its documentation and its
//! compile-time guarantees can be tested.
//!
//! - [`boot`]: the stages, from the kernel command line to the image's init
//! - [`monitor`]: what runs later: `watch`, `scrub`, `drift`
//! - [`status`]: what `adamant-agent status` prints
//! - [`kernel`]: the kernel interfaces, with all `unsafe` code

pub mod boot;
pub mod kernel;
pub mod monitor;
pub mod status;
