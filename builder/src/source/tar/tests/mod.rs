//! Archives of GNU tar, archives made block by block, and hostile archives.

mod gnu;
mod hostile;
mod landing;
mod writer;

/// A directory for one test, removed at its end.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}
