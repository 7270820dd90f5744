//! The kernel's device events, as far as the agent reads them.
