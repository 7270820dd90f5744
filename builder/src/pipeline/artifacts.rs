//! The list of artifacts of a build, and the time that each stage takes.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use adamant_contract::hex;
use sha2::{Digest, Sha256};

use super::staging::Staging;
use crate::error::Result;
use crate::manifest::{Artifact, ArtifactPart};
use crate::term::output::Output;
use crate::term::progress;
use crate::term::timings;

/// The artifacts that were written so far, with their digests.
pub struct Artifacts<'a> {
    /// The files on their way into OUT.
    pub staging: &'a mut Staging,
    /// `ID_VERSION`.
    pub stem: &'a str,
    /// The artifacts' records for the manifest.
    pub list: Vec<Artifact>,
}

impl<'a> Artifacts<'a> {
    /// An empty list.
    pub fn new(staging: &'a mut Staging, stem: &'a str) -> Artifacts<'a> {
        Artifacts {
            staging,
            stem,
            list: Vec::new(),
        }
    }

    /// Writes an artifact and records it.
    pub fn put(&mut self, kind: &str, bytes: &[u8]) -> Result<()> {
        self.staging.put(&format!("{}.{kind}", self.stem), bytes)?;
        self.note(kind, bytes.len() as u64, Sha256::digest(bytes).into());
        Ok(())
    }

    /// Records an artifact that is already written.
    pub fn note(&mut self, kind: &str, size: u64, sha256: [u8; 32]) {
        self.list.push(Artifact {
            name: format!("{}.{kind}", self.stem),
            size,
            sha256: Some(hex::encode(&sha256)),
            parts: Vec::new(),
        });
    }

    /// Records a sparse artifact that is already written.
    pub fn note_parts(&mut self, kind: &str, size: u64, parts: Vec<ArtifactPart>) {
        self.list.push(Artifact {
            name: format!("{}.{kind}", self.stem),
            size,
            sha256: None,
            parts,
        });
    }
}

/// Measures the time of each stage and reports it.
pub struct Clock<'a> {
    /// Where the times and the progress are reported.
    pub output: &'a Output,
    stages: RefCell<Vec<(&'static str, Duration)>>,
}

impl<'a> Clock<'a> {
    /// A clock without stages.
    pub fn new(output: &'a Output) -> Clock<'a> {
        Clock {
            output,
            stages: RefCell::default(),
        }
    }

    /// Runs the work of a stage and records its time if it succeeds.
    pub fn time<T>(&self, stage: &'static str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let started = Instant::now();
        progress::start_stage(stage);
        let span = timings::stage(stage);
        let result = work();
        drop(span);
        progress::end_stage();
        let result = result?;
        let took = started.elapsed();
        self.output
            .detail(format_args!("{stage}: {:.3} s", took.as_secs_f64()));
        self.stages.borrow_mut().push((stage, took));
        Ok(result)
    }

    /// The stages in order.
    pub fn into_stages(self) -> Vec<(&'static str, Duration)> {
        self.stages.into_inner()
    }
}
