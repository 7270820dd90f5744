//! Whether artifacts have the bytes that the manifest says.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use adamant_agent::hash::hex;
use sha2::{Digest, Sha256};

use super::CHUNK;
use crate::error::{Context, Error, Result};
use crate::manifest::{Artifact, Manifest};
use crate::{progress, zeros};

/// Part of an artifact that is looked at by one thread.
struct Part<'a> {
    artifact: &'a Artifact,
    at: u64,
    size: u64,
    /// Hexadecimal; `None`: there are only zeros.
    sha256: Option<String>,
}

/// The names of the artifacts that have others, in the manifest's order. Their sizes are right.
pub fn wrong(folder: &Path, manifest: &Manifest, jobs: usize) -> Result<Vec<String>> {
    let parts: Vec<Part> = manifest.artifacts.iter().flat_map(parts).collect();
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
        let threads: Vec<_> = (0..jobs.clamp(1, parts.len().max(1))).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            wrong.extend(thread.join().unwrap_or_else(|_| Err(Error::new("a hashing thread failed")))?);
        }
        Ok::<_, Error>(())
    })?;
    Ok(manifest.artifacts.iter().filter(|artifact| wrong.contains(&artifact.name.as_str())).map(|artifact| artifact.name.clone()).collect())
}

/// All of an artifact: what is in it, and what is in between.
fn parts(artifact: &Artifact) -> Vec<Part<'_>> {
    let mut all = Vec::new();
    let mut end = 0;
    let zeros = |from: u64, to: u64| Part { artifact, at: from, size: to - from, sha256: None };
    for piece in artifact.pieces() {
        all.push(zeros(end, piece.offset));
        end = piece.offset + piece.size;
        all.push(Part { artifact, at: piece.offset, size: piece.size, sha256: Some(piece.sha256) });
    }
    all.push(zeros(end, artifact.size));
    all.retain(|part| part.size > 0 || part.sha256.is_some());
    all
}

impl Part<'_> {
    fn is_right(&self, path: &Path) -> Result<bool> {
        let what = || path.display().to_string();
        // Opened for each: where a file has holes is found by its position.
        let file = File::open(path).context(what)?;
        let end = self.at + self.size;
        let Some(wanted) = &self.sha256 else {
            progress::add(self.size);
            return zeros::are_all(&file, self.at..end).context(what);
        };
        let (mut sha256, mut buffer, mut at) = (Sha256::new(), vec![0; CHUNK], self.at);
        while at < end {
            let take = (end - at).min(CHUNK as u64) as usize;
            file.read_exact_at(&mut buffer[..take], at).context(what)?;
            sha256.update(&buffer[..take]);
            progress::add(take as u64);
            at += take as u64;
        }
        Ok(hex(&sha256.finalize()) == *wanted)
    }
}
