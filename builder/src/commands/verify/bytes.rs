//! Checks artifacts against the hashes in the manifest.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use adamant_contract::hex;

use crate::error::{Context, Error, Result};
use crate::io::part::Part;
use crate::io::zeros;
use crate::manifest::{Artifact, Manifest};
use crate::term::progress;

/// A part of an artifact that one thread checks.
struct Stretch<'a> {
    artifact: &'a Artifact,
    at: u64,
    size: u64,
    /// Expected hash, hexadecimal; `None` if the part must be zeros.
    sha256: Option<String>,
}

/// The names of the artifacts whose content differs from the manifest, in its order. The caller has
/// checked their sizes.
pub fn mismatched_artifacts(
    folder: &Path,
    manifest: &Manifest,
    jobs: usize,
) -> Result<Vec<String>> {
    let parts: Vec<Stretch> = manifest.artifacts.iter().flat_map(parts).collect();
    let next = AtomicUsize::new(0);
    let work = || -> Result<Vec<&str>> {
        let mut wrong = Vec::new();
        while let Some(part) = parts.get(next.fetch_add(1, Ordering::Relaxed)) {
            if !part.is_right(&folder.join(&part.artifact.name))? {
                wrong.push(part.artifact.name.as_str());
            }
        }
        Ok(wrong)
    };
    let mut wrong = Vec::new();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..jobs.clamp(1, parts.len().max(1)))
            .map(|_| scope.spawn(work))
            .collect();
        for thread in threads {
            wrong.extend(
                thread
                    .join()
                    .unwrap_or_else(|_| Err(Error::new("a hashing thread panicked")))?,
            );
        }
        Ok::<_, Error>(())
    })?;
    Ok(manifest
        .artifacts
        .iter()
        .filter(|artifact| wrong.contains(&artifact.name.as_str()))
        .map(|artifact| artifact.name.clone())
        .collect())
}

/// The parts of an artifact: its pieces, and the zeros between them.
fn parts(artifact: &Artifact) -> Vec<Stretch<'_>> {
    let mut all = Vec::new();
    let mut end = 0;
    let zeros = |from: u64, to: u64| Stretch {
        artifact,
        at: from,
        size: to - from,
        sha256: None,
    };
    for piece in artifact.pieces() {
        all.push(zeros(end, piece.offset));
        end = piece.offset + piece.size;
        all.push(Stretch {
            artifact,
            at: piece.offset,
            size: piece.size,
            sha256: Some(piece.sha256),
        });
    }
    all.push(zeros(end, artifact.size));
    all.retain(|part| part.size > 0 || part.sha256.is_some());
    all
}

impl Stretch<'_> {
    fn is_right(&self, path: &Path) -> Result<bool> {
        let what = || path.display().to_string();
        // Each part opens the file, because searching for holes moves the position.
        let file = File::open(path).context(what)?;
        let Some(wanted) = &self.sha256 else {
            progress::add(self.size);
            return zeros::is_zero_range(&file, self.at..self.at + self.size).context(what);
        };
        let part = Part::range(Arc::new(file), self.at, self.size).ok_or_else(|| {
            Error::new(format!(
                "{}: offset and size exceed 64 bits",
                path.display()
            ))
        })?;
        let read = |bytes| {
            progress::add(bytes);
            Ok(())
        };
        Ok(hex::encode(&part.sha256(read).context(what)?) == *wanted)
    }
}
