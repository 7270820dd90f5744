//! A reader that hashes.

use std::io::{self, Read};

use sha2::{Digest, Sha256};

/// A reader that hashes the bytes it passes on.
pub struct HashingReader<'a, R> {
    /// The source of the bytes.
    pub inner: R,
    /// Their hash so far.
    pub sha256: &'a mut Sha256,
}

impl<R: Read> Read for HashingReader<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.sha256.update(&buffer[..count]);
        Ok(count)
    }
}
