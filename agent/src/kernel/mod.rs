//! The kernel interfaces that the agent uses. All `unsafe` code of the agent is here, behind safe
//! functions: one operation in each block, with the reason why it is sound.

#![deny(clippy::multiple_unsafe_ops_per_block)]

pub mod block;
pub mod bpf;
pub mod btf;
pub mod clock;
pub mod console;
pub mod dm;
pub mod guard_abi;
pub mod inode_flags;
pub mod instruction;
pub mod keyring;
pub mod memory;
pub mod mounts;
pub mod process;
pub mod ring_buffer;
pub mod rooted_fs;
pub mod tpm;
pub mod uevents;
pub mod watchdog;
pub mod xattr;
