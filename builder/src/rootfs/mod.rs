//! What changes or checks the file tree before it becomes a file system.

pub mod check;
pub mod inject;
pub mod interpreters;
pub mod scrub;
pub mod volumes;
