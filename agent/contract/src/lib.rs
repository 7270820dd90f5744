//! The contract between the builder and the agent: every structure that both sides need, defined
//! once, with its parser.
//!
//! The agent verifies what the builder wrote, so the verifier owns the format: the builder, the
//! fuzz targets and the tests call the same parsers that run as PID 1.
//!
//! | to read or write | module |
//! |---|---|
//! | the policy inside the image | [`policy`] |
//! | the report that the agent leaves in `/run` | [`report`] |
//! | the kernel command line, the root hash | [`cmdline`], [`root_hash`] |
//! | the partition table | [`gpt`] |
//! | dm-verity superblock and hash tree geometry | [`verity`] |
//! | the root hash signature and its certificates | [`signature`] |
//! | system credentials | [`credentials`] |
//! | the record of boots on the disk | [`blackbox`] |
//! | kernel events and device names | [`uevent`], [`modalias`] |
//! | fixed paths and names | [`paths`] |
//! | the kernel settings of the seal | [`sysctls`] |
//!
//! All input is hostile: parsers are bounded, return errors and never panic. This crate has no
//! build script, no C code, no threads, no network and no `unsafe`.

#![forbid(unsafe_code)]

pub mod blackbox;
pub mod cmdline;
pub mod credentials;
pub mod ext4;
pub mod gpt;
pub mod hex;
pub mod modalias;
pub mod paths;
pub mod policy;
pub mod report;
pub mod root_hash;
pub mod signature;
pub mod sysctls;
pub mod uevent;
pub mod verity;
