//! Paths that the definition excludes from scrubbing: globs over paths as bytes, so that names that
//! are not UTF-8 can match.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use crate::error::{Error, Result};

/// Compiles one glob; the error is a phrase for a message. `*` and `?` do not match `/`; `**` does.
pub fn compile(glob: &str) -> Result<globset::Glob, String> {
    if !glob.starts_with('/') && glob != "**" {
        return Err("a glob starts with / or is \"**\"".to_owned());
    }
    GlobBuilder::new(glob)
        .literal_separator(true)
        .backslash_escape(true)
        .build()
        .map_err(|e| e.kind().to_string())
}

/// All globs of a definition.
pub struct Keep {
    everything: bool,
    globs: GlobSet,
}

impl Keep {
    /// Compiles the globs.
    pub fn new(globs: &[String]) -> Result<Keep> {
        let mut set = GlobSetBuilder::new();
        for glob in globs {
            set.add(compile(glob).map_err(|why| Error::new(format!("keep {glob:?}: {why}")))?);
        }
        let globs_built = set.build().map_err(|e| Error::new(format!("keep: {e}")))?;
        Ok(Keep {
            everything: globs.iter().any(|glob| glob == "**"),
            globs: globs_built,
        })
    }

    /// Whether scrubbing is turned off.
    pub fn everything(&self) -> bool {
        self.everything
    }

    /// Whether this path is excluded from scrubbing.
    pub fn holds(&self, path: &[u8]) -> bool {
        self.everything || self.globs.is_match(as_path(path))
    }
}

/// A glob that matches only this path. A byte that is not UTF-8 becomes `?`.
pub fn as_glob(path: &[u8]) -> String {
    let mut glob = String::with_capacity(path.len());
    for chunk in path.utf8_chunks() {
        for letter in chunk.valid().chars() {
            if "*?[]{}\\".contains(letter) {
                glob.push('\\');
            }
            glob.push(letter);
        }
        glob.extend(chunk.invalid().iter().map(|_| '?'));
    }
    glob
}

/// Converts a path of the tree for globset; it may hold any bytes.
pub fn as_path(path: &[u8]) -> &Path {
    Path::new(std::ffi::OsStr::from_bytes(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_as_a_glob_is_that_path() {
        for path in [
            &b"/a[1]*.{x}"[..],
            b"/back\\slash?",
            b"/\xff\xfe",
            "/ü".as_bytes(),
        ] {
            let keep = Keep::new(&[as_glob(path)]).unwrap();
            assert!(keep.holds(path), "{}", as_glob(path));
        }
        assert!(!Keep::new(&[as_glob(b"/a*")]).unwrap().holds(b"/ab"));
    }
}
