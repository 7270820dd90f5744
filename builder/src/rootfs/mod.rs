//! Changes and checks of the file tree before it is written as a file system.

pub mod check;
pub mod inject;
pub mod interpreters;
pub mod scrub;
pub mod start_places;
pub mod volumes;
