//! Files, processes and worker threads.

pub mod bounded;
pub mod clock;
pub mod hashing;
pub mod ordered;
pub mod part;
pub mod prerequisite;
pub mod process;
pub mod unnamed;
pub mod zeros;
