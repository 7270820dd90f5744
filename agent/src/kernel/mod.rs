//! The interfaces of the kernel that the agent uses. All `unsafe` code of the agent is here, behind
//! safe functions.

pub mod beneath;
pub mod block;
pub mod bpf;
pub mod btf;
pub mod clock;
pub mod console;
pub mod dm;
pub mod keyring;
pub mod tpm;
pub mod uevents;
pub mod watchdog;
