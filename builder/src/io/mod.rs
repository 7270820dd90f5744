//! Files and processes: what several modules share.

pub mod bounded;
pub mod part;
pub mod prerequisite;
pub mod process;
pub mod zeros;
