//! The spool: an unnamed temporary file for the contents of sources (unpacked archives, files of a
//! directory). The kernel deletes it when the process ends, even after a crash.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result, from_io};

/// An unnamed file that grows.
#[derive(Debug)]
pub struct Spool {
    folder: PathBuf,
    file: Arc<File>,
    length: u64,
}

impl Spool {
    /// A new spool on the file system of this directory.
    pub fn new(folder: &Path) -> Result<Spool> {
        let file = tempfile::tempfile_in(folder).map_err(|error| full_or_broken(folder, &error))?;
        Ok(Spool {
            folder: folder.to_owned(),
            file: Arc::new(file),
            length: 0,
        })
    }

    /// The file, to be read with pread.
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Appends all bytes of `from` and returns their offset and number. `reading` tells what a
    /// failure to read them means.
    pub fn append(
        &mut self,
        from: &mut dyn Read,
        reading: &dyn Fn(io::Error) -> Error,
    ) -> Result<(u64, u64)> {
        let start = self.length;
        let mut buffer = vec![0; 256 << 10];
        loop {
            match from.read(&mut buffer) {
                Ok(0) => return Ok((start, self.length - start)),
                Ok(count) => self
                    .write_all(&buffer[..count])
                    .map_err(|error| full_or_broken(&self.folder, &error))?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(reading(error)),
            }
        }
    }
}

/// Why a temporary file can't be made or written.
fn full_or_broken(folder: &Path, error: &io::Error) -> Error {
    from_io(
        &format!("writing a temporary file in {}", folder.display()),
        error,
    )
}

impl Write for Spool {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_all_at(bytes, self.length)?;
        self.length += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
