//! `adamant drift`: asks many hosts at once in what they differ from their images, and tells it in
//! one table.
//!
//! Each host's own agent says it. A host is believed in that, but its words are bounded, and never
//! reach a terminal unread; one that says something else than an answer, or nothing, is told as a
//! host that could not be asked, and does not keep the others from being told.

mod answer;
mod ask;
mod hosts;
mod images;
mod text;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

pub use ask::SshOptions;
use serde::Serialize;

use self::answer::HostOutcome;
use crate::error::Result;
use crate::term::output::Output;

/// Whom to ask, and how.
#[derive(Debug, Clone)]
pub struct DriftOptions {
    /// Hosts by name.
    pub hosts: Vec<String>,
    /// A file with more of them, or `-`.
    pub list: Option<PathBuf>,
    /// How many are asked at the same time.
    pub jobs: NonZeroUsize,
    /// How each is asked.
    pub ssh: SshOptions,
}

/// The worst that was found; the program's exit code says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DriftVerdict {
    /// All hosts were asked, and none differs.
    NoDrift,
    /// A host differs, whatever became of the others.
    Drift,
    /// No host that answered differs, and another could not be asked.
    NotAsked,
}

/// A host and what came of asking it.
#[derive(Debug, Serialize)]
struct Host {
    #[serde(rename = "host")]
    name: String,
    #[serde(flatten)]
    outcome: HostOutcome,
}

/// The sums.
#[derive(Debug, Serialize)]
struct Total {
    hosts: usize,
    drift: usize,
    not_asked: usize,
    no_drift: usize,
}

impl Total {
    fn new(hosts: &[Host]) -> Total {
        let count =
            |is: fn(&HostOutcome) -> bool| hosts.iter().filter(|host| is(&host.outcome)).count();
        Total {
            hosts: hosts.len(),
            drift: count(|outcome| matches!(outcome, HostOutcome::Drift(_))),
            not_asked: count(|outcome| matches!(outcome, HostOutcome::NotAsked { .. })),
            no_drift: count(|outcome| matches!(outcome, HostOutcome::NoDrift(_))),
        }
    }

    fn verdict(&self) -> DriftVerdict {
        match (self.drift, self.not_asked) {
            (0, 0) => DriftVerdict::NoDrift,
            (0, _) => DriftVerdict::NotAsked,
            _ => DriftVerdict::Drift,
        }
    }
}

/// The document of `--json`.
#[derive(Debug, Serialize)]
struct Document<'a> {
    hosts: &'a [Host],
    images: Vec<images::RunningImage>,
    total: Total,
}

/// Asks all, and tells what they said.
pub fn report_drift(options: &DriftOptions, output: &Output) -> Result<DriftVerdict> {
    let names = hosts::collect_hosts(&options.hosts, options.list.as_deref())?;
    let mut hosts = ask_all(names, options, output);
    // Stable: those of one rank stay as they were given.
    hosts.sort_by_key(|host| host.outcome.rank());
    let document = Document {
        hosts: &hosts,
        images: images::running_images(&hosts),
        total: Total::new(&hosts),
    };
    let verdict = document.total.verdict();
    output.answer(&text::table(&hosts), &document)?;
    Ok(verdict)
}

/// In the order of the names.
fn ask_all(names: Vec<String>, options: &DriftOptions, output: &Output) -> Vec<Host> {
    let next = AtomicUsize::new(0);
    let outcomes = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..options.jobs.get().min(names.len()) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(name) = names.get(number) else { break };
                    let started = Instant::now();
                    let outcome = match options.ssh.ask(name) {
                        Ok(said) => HostOutcome::from_ssh(&said),
                        Err(reason) => HostOutcome::NotAsked { reason },
                    };
                    let word = if outcome.answer().is_some() {
                        "answered"
                    } else {
                        "could not be asked"
                    };
                    output.detail(format_args!(
                        "{name}: {word} after {:.1} s",
                        started.elapsed().as_secs_f64()
                    ));
                    outcomes
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push((number, outcome));
                }
            });
        }
    });
    let mut outcomes = outcomes
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    outcomes.sort_by_key(|(number, _)| *number);
    names
        .into_iter()
        .zip(outcomes)
        .map(|(name, (_, outcome))| Host { name, outcome })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drift_is_the_verdict_whatever_became_of_the_others() {
        let verdict = |drift, not_asked| {
            Total {
                hosts: 9,
                drift,
                not_asked,
                no_drift: 1,
            }
            .verdict()
        };
        assert_eq!(
            [verdict(0, 0), verdict(0, 1), verdict(1, 0), verdict(1, 1)],
            [
                DriftVerdict::NoDrift,
                DriftVerdict::NotAsked,
                DriftVerdict::Drift,
                DriftVerdict::Drift
            ]
        );
    }
}
