//! The contract between the builder and the agent: what the agent accepts, and the builder therefore produces.
//!
//! Every on-disk structure that both sides need is defined here once, with its parser: the verifier owns the format. All input is
//! treated as hostile: parsers are bounded, return errors and never panic. No threads, no network, no C libraries.

mod base64;
pub mod blackbox;
pub mod cmdline;
pub mod contract;
pub mod credentials;
pub mod gpt;
pub mod guard;
pub mod hash;
pub mod modalias;
pub mod policy;
pub mod report;
pub mod settings;
pub mod signature;
pub mod uevent;
pub mod verity;
