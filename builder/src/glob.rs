//! Globs over paths of the image. Paths are bytes, so names that are not UTF-8 match too.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use crate::error::{Error, Result};

/// Compiles a glob. `*` and `?` do not match a slash, `**` does. The error is a phrase.
pub fn compile_glob(glob: &str) -> Result<globset::Glob, String> {
    if !glob.starts_with('/') && glob != "**" {
        return Err("a glob starts with / or is \"**\"".to_owned());
    }
    GlobBuilder::new(glob)
        .literal_separator(true)
        .backslash_escape(true)
        .build()
        .map_err(|e| e.kind().to_string())
}

/// A compiled set of globs.
pub struct PathGlobs {
    everything: bool,
    globs: GlobSet,
}

impl PathGlobs {
    /// Compiles the globs of `[scrub] keep`.
    pub fn new(globs: &[String]) -> Result<PathGlobs> {
        let mut set = GlobSetBuilder::new();
        for glob in globs {
            set.add(compile_glob(glob).map_err(|why| Error::new(format!("keep {glob:?}: {why}")))?);
        }
        let globs_built = set.build().map_err(|e| Error::new(format!("keep: {e}")))?;
        Ok(PathGlobs {
            everything: globs.iter().any(|glob| glob == "**"),
            globs: globs_built,
        })
    }

    /// Whether the globs match every path.
    pub fn everything(&self) -> bool {
        self.everything
    }

    /// Whether a glob matches this path.
    pub fn holds(&self, path: &[u8]) -> bool {
        self.everything || self.globs.is_match(as_path(path))
    }
}

/// The glob that matches only this path. A byte that is not UTF-8 becomes `?`.
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

/// Converts a path of the tree for matching; its bytes may be anything.
pub fn as_path(path: &[u8]) -> &Path {
    Path::new(std::ffi::OsStr::from_bytes(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_as_a_glob_matches_only_that_path() {
        for path in [
            &b"/a[1]*.{x}"[..],
            b"/back\\slash?",
            b"/\xff\xfe",
            "/ü".as_bytes(),
        ] {
            let keep = PathGlobs::new(&[as_glob(path)]).unwrap();
            assert!(keep.holds(path), "{}", as_glob(path));
        }
        assert!(!PathGlobs::new(&[as_glob(b"/a*")]).unwrap().holds(b"/ab"));
    }
}
