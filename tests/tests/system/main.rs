//! Whole systems: real images in real machines, judged by other projects' tools.
//!
//! One program for all of them, because each statically linked test program costs seconds to link.
//! `cargo test -p adamant-tests volumes::` runs one module.

#![expect(clippy::unwrap_used, reason = "a panic in a test is a failed test")]

mod any_bytes;
mod archives;
mod attach;
mod attacks;
mod boot;
mod boot_command;
mod boot_counting;
mod bounds;
mod conformance;
mod credentials;
mod documentation;
mod dracut;
mod faithful;
mod first_use;
mod formats;
mod history;
mod hostile;
mod hotplug;
mod impossible;
mod inspect;
mod netboot;
mod outcomes;
mod postgresql;
mod power_cuts;
mod refusals;
mod running;
mod same_bytes;
mod seal;
mod servers;
mod signatures;
mod signing;
mod uefi;
mod uki;
mod unworkable;
mod volumes;
mod writable;
mod year;
