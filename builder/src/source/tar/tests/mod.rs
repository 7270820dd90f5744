//! What archives become, judged by GNU tar and the kernel, and hostile ones.

mod gnu;
mod hostile;
mod landing;
mod writer;

/// A directory for one test, removed at its end.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}
