//! A build's artifacts as they come to be, and the time that it takes.

use std::time::{Duration, Instant};

use adamant_contract::hex;
use sha2::{Digest, Sha256};

use super::staging::Staging;
use crate::error::Result;
use crate::manifest::{Artifact, Piece};
use crate::term::output::Output;
use crate::term::progress;
use crate::term::timings;

/// Artifacts with their digests.
pub struct Artifacts<'a> {
    /// Where they are put.
    pub staging: &'a mut Staging,
    /// `ID_VERSION`.
    pub stem: &'a str,
    /// For the manifest.
    pub list: Vec<Artifact>,
}

impl Artifacts<'_> {
    /// A whole artifact.
    pub fn put(&mut self, kind: &str, bytes: &[u8]) -> Result<()> {
        self.staging.put(&format!("{}.{kind}", self.stem), bytes)?;
        self.note(kind, bytes.len() as u64, Sha256::digest(bytes).into());
        Ok(())
    }

    /// One that was written by somebody else.
    pub fn note(&mut self, kind: &str, size: u64, sha256: [u8; 32]) {
        self.list.push(Artifact {
            name: format!("{}.{kind}", self.stem),
            size,
            sha256: Some(hex::encode(&sha256)),
            parts: Vec::new(),
        });
    }

    /// One that was written by somebody else, and is mostly empty.
    pub fn note_parts(&mut self, kind: &str, size: u64, parts: Vec<Piece>) {
        self.list.push(Artifact {
            name: format!("{}.{kind}", self.stem),
            size,
            sha256: None,
            parts,
        });
    }
}

/// Notes how long each stage takes.
pub struct Clock<'a> {
    /// Who is told.
    pub output: &'a Output,
    /// The stages in order.
    pub stages: Vec<(&'static str, Duration)>,
}

impl Clock<'_> {
    /// Does a stage's work.
    pub fn time<T>(&mut self, stage: &'static str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let started = Instant::now();
        progress::begin(stage);
        let span = timings::stage(stage);
        let done = work();
        drop(span);
        progress::end();
        let done = done?;
        let took = started.elapsed();
        self.output
            .detail(format_args!("{stage}: {:.3} s", took.as_secs_f64()));
        self.stages.push((stage, took));
        Ok(done)
    }
}
