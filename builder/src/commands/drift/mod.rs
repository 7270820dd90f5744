//! `adamant drift`: reports in one table how running hosts differ from their images.
//!
//! Each host's agent finds the differences. Its answer is trusted, but its size is bounded, and it
//! is cleaned before it reaches a terminal. A host without a valid answer is listed as one that
//! could not be asked; the others are reported nevertheless.

mod answer;
mod ask;
mod hosts;
mod images;
mod nonce;
mod text;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Instant;

pub use ask::SshOptions;
use serde::Serialize;

use self::answer::HostOutcome;
use self::nonce::Nonce;
use crate::error::Result;
use crate::io::ordered::{Job, OrderedPool};
use crate::term::output::Output;

/// Which hosts to query, and how.
#[derive(Debug, Clone)]
pub struct DriftOptions {
    /// Names of hosts.
    pub hosts: Vec<String>,
    /// A file with further names, or `-` for the standard input.
    pub list: Option<PathBuf>,
    /// Number of hosts that are queried at the same time.
    pub jobs: NonZeroUsize,
    /// How each host is queried.
    pub ssh: SshOptions,
}

/// The worst result, which decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DriftVerdict {
    /// All hosts answered, and none differs.
    NoDrift,
    /// At least one host differs.
    Drift,
    /// No host differs, but at least one did not answer.
    NotAsked,
}

/// A host and the result of its query.
#[derive(Debug, Serialize)]
struct Host {
    #[serde(rename = "host")]
    name: String,
    #[serde(flatten)]
    outcome: HostOutcome,
}

/// Numbers of hosts by result.
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

/// Queries all hosts and prints the results.
pub fn report_drift(options: &DriftOptions, output: &Output) -> Result<DriftVerdict> {
    let names = hosts::collect_hosts(&options.hosts, options.list.as_deref())?;
    let mut hosts = query_all(names, options, output)?;
    // The sort is stable: hosts of equal rank stay in the given order.
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

/// Queries all hosts in parallel. The results are in the order of the names.
fn query_all(names: Vec<String>, options: &DriftOptions, output: &Output) -> Result<Vec<Host>> {
    let pool = OrderedPool {
        threads: options.jobs.get().min(names.len()),
        // Hosts cost nothing: an answer is small, and a slow host must not keep others waiting.
        in_flight: 1,
    };
    let mut hosts = Vec::with_capacity(names.len());
    let jobs = names.into_iter().map(|work| Job { cost: 0, work });
    let query = |name: String| {
        let started = Instant::now();
        let nonce = Nonce::random()?;
        let outcome = match options.ssh.query(&name, &nonce) {
            Ok(captured) => HostOutcome::from_ssh(&captured, &nonce),
            Err(reason) => HostOutcome::NotAsked { reason },
        };
        let result = if outcome.answer().is_some() {
            "answered"
        } else {
            "could not be asked"
        };
        output.detail(format_args!(
            "{name}: {result} after {:.1} s",
            started.elapsed().as_secs_f64()
        ));
        Ok(Host { name, outcome })
    };
    pool.map(
        jobs,
        |_| Ok(query),
        |host| {
            hosts.push(host);
            Ok(())
        },
    )?;
    Ok(hosts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_host_with_drift_decides_the_verdict() {
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
