//! The data that the agent exchanges with the guard (agent/bpf/guard.bpf.c). The build script
//! generates the types from the compiled guard, so layouts and flag bits cannot disagree.

include!(concat!(env!("OUT_DIR"), "/guard_abi.rs"));

/// Name of the map with the configuration: one [`GuardConfig`], frozen by the seal.
pub const CONFIG: &str = "adamant_config";
/// Name of the map with the counters: one [`Denials`].
pub const DENIALS: &str = "adamant_denials";
/// Name of the ring buffer with one [`GuardEvent`] for each denial.
pub const EVENTS: &str = "adamant_events";
/// Number of denials of each of [`HOOKS`].
pub type Denials = [u64; HOOKS.len()];
/// Fills unused entries of the sorted lists in [`GuardConfig`]: greater than any key (`UNUSED` of
/// agent/bpf/guard.bpf.c).
pub const UNUSED: u64 = u64::MAX >> 1;
