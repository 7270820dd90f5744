//! The kernel command line, as far as the agent reads it.
