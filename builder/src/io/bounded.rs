//! Reading small files whole: never more than a bound, whatever the file turns out to be.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// The file's bytes; an error when there are more than `limit` of them.
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(limit.saturating_add(1))
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("larger than {limit} bytes, the most such a file may have"),
        ));
    }
    Ok(bytes)
}
