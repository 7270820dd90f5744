//! The table of all hosts for people, with the most important results first.

use std::fmt::Write;

use super::answer::{DriftAnswer, HostOutcome};
use super::images::{self, ImageVariant};
use super::{Host, Total};
use crate::term::columns::column_width;

/// Number of differences of a host that are listed.
const SHOWN: usize = 20;
/// Number of hosts that are named in a line about an image.
const NAMED: usize = 5;

/// A table with a line for each host followed by its differences, then the images of which the
/// hosts run different variants, and the totals.
pub fn table(hosts: &[Host]) -> String {
    let mut out = String::new();
    let rows: Vec<[String; 4]> =
        std::iter::once(["HOST", "IMAGE", "ROOT HASH", "DRIFT"].map(str::to_owned))
            .chain(hosts.iter().map(row))
            .collect();
    let width = |column| column_width(&rows, column);
    let (names, images, hashes) = (width(0), width(1), width(2));
    for (number, [name, image, hash, drift]) in rows.iter().enumerate() {
        // Writing to a String can't fail.
        let _ = writeln!(
            out,
            "{name:names$}  {image:images$}  {hash:hashes$}  {drift}"
        );
        if let Some(HostOutcome::Drift(answer)) = number
            .checked_sub(1)
            .and_then(|at| hosts.get(at))
            .map(|host| &host.outcome)
        {
            differences(answer, &mut out);
        }
    }
    let mixed = images::mixed_images(hosts);
    if !mixed.is_empty() {
        out.push('\n');
    }
    for image in &mixed {
        let _ = writeln!(
            out,
            "{} is not the same everywhere: {}",
            image.image_id,
            variants(&image.variants)
        );
    }
    let Total {
        hosts,
        drift,
        not_asked,
        no_drift,
    } = Total::new(hosts);
    let plural = if hosts == 1 { "" } else { "s" };
    let _ = writeln!(
        out,
        "\n{hosts} host{plural}: {drift} with drift, {not_asked} could not be asked, {no_drift} without drift"
    );
    out
}

fn row(host: &Host) -> [String; 4] {
    let none = || "-".to_owned();
    let (image, hash) = match host.outcome.answer() {
        Some(answer) => (
            image(answer).unwrap_or_else(none),
            answer.root_hash.as_deref().map_or_else(none, short),
        ),
        None => (none(), none()),
    };
    let drift = match &host.outcome {
        HostOutcome::Drift(answer) => {
            let classes: Vec<String> = answer
                .classes()
                .iter()
                .map(|(class, count)| format!("{class} {count}"))
                .collect();
            format!(
                "{} ({}){}",
                answer.drift.len(),
                classes.join(", "),
                denied(answer)
            )
        }
        HostOutcome::NotAsked { reason } => format!("could not be asked: {reason}"),
        HostOutcome::NoDrift(answer) => format!("no drift{}", denied(answer)),
    };
    [host.name.clone(), image, hash, drift]
}

fn image(answer: &DriftAnswer) -> Option<String> {
    let id = answer.image_id.as_deref()?;
    Some(
        answer
            .image_version
            .as_deref()
            .map_or_else(|| id.to_owned(), |version| format!("{id} {version}")),
    )
}

/// The first digits of a root hash, as `adamant-agent status` shows them.
fn short(hash: &str) -> String {
    format!("{hash:.8}")
}

/// Denials of the guard are not a difference, but worth a look.
fn denied(answer: &DriftAnswer) -> String {
    match answer.denied() {
        0 => String::new(),
        1 => ", 1 denial".to_owned(),
        count => format!(", {count} denials"),
    }
}

fn differences(answer: &DriftAnswer, out: &mut String) {
    for one in answer.drift.iter().take(SHOWN) {
        let _ = writeln!(
            out,
            "    {}: {}: is {}, should be {}",
            one.class, one.what, one.is, one.should
        );
    }
    if answer.drift.len() > SHOWN {
        let _ = writeln!(
            out,
            "    and {} more, which --json has",
            answer.drift.len() - SHOWN
        );
    }
}

/// `3 hosts run 1.2 (ab12cd34), 1 runs 1.1 (00ff00ff: db1)`
fn variants(all: &[ImageVariant]) -> String {
    let mut parts = Vec::new();
    for (number, variant) in all.iter().enumerate() {
        let count = variant.hosts.len();
        let hosts = match (number, count) {
            (0, 1) => " host",
            (0, _) => " hosts",
            _ => "",
        };
        let run = if count == 1 { "runs" } else { "run" };
        let again = all[..number]
            .iter()
            .any(|earlier| earlier.image_version == variant.image_version);
        let another = if again { "another " } else { "" };
        // The hosts of the most common variant are not listed.
        let names = if number == 0 {
            String::new()
        } else {
            format!(": {}", names(&variant.hosts))
        };
        parts.push(format!(
            "{count}{hosts} {run} {another}{} ({}{names})",
            variant.image_version.as_deref().unwrap_or("?"),
            short(&variant.root_hash)
        ));
    }
    parts.join(", ")
}

fn names(hosts: &[String]) -> String {
    let named = hosts
        .iter()
        .take(NAMED)
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(" ");
    if hosts.len() > NAMED {
        format!("{named} and {} more", hosts.len() - NAMED)
    } else {
        named
    }
}

#[cfg(test)]
mod tests {
    use super::super::answer::DriftItem;
    use super::*;

    fn answer(version: &str, digit: &str, drift: usize) -> DriftAnswer {
        let one = DriftItem {
            class: "units".to_owned(),
            what: "/run/x".to_owned(),
            is: "there".to_owned(),
            should: "absent".to_owned(),
        };
        DriftAnswer {
            image_id: Some("debian".to_owned()),
            image_version: Some(version.to_owned()),
            root_hash: Some(digit.repeat(64)),
            nonce: None,
            drift: vec![one; drift],
            denials: [("file_open".to_owned(), drift as u64)].into(),
        }
    }

    fn host(name: &str, outcome: HostOutcome) -> Host {
        Host {
            name: name.to_owned(),
            outcome,
        }
    }

    #[test]
    fn lists_drift_first_and_hosts_that_run_another_variant() {
        let hosts = [
            host("web3", HostOutcome::Drift(answer("1.2", "a", 21))),
            host(
                "web4",
                HostOutcome::NotAsked {
                    reason: "Permission denied".to_owned(),
                },
            ),
            host("web1", HostOutcome::NoDrift(answer("1.2", "a", 0))),
            host("web2", HostOutcome::NoDrift(answer("1.1", "b", 0))),
            host("w", HostOutcome::NoDrift(answer("1.2", "c", 0))),
            host("old", HostOutcome::NoDrift(DriftAnswer::default())),
        ];
        let text = table(&hosts);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[..3],
            [
                "HOST  IMAGE       ROOT HASH  DRIFT",
                "web3  debian 1.2  aaaaaaaa   21 (units 21), 21 denials",
                "    units: /run/x: is there, should be absent",
            ]
        );
        assert_eq!(
            lines[22..],
            [
                "    and 1 more, which --json has",
                "web4  -           -          could not be asked: Permission denied",
                "web1  debian 1.2  aaaaaaaa   no drift",
                "web2  debian 1.1  bbbbbbbb   no drift",
                "w     debian 1.2  cccccccc   no drift",
                "old   -           -          no drift",
                "",
                "debian is not the same everywhere: 2 hosts run 1.2 (aaaaaaaa), 1 runs 1.1 (bbbbbbbb: web2), 1 runs another 1.2 (cccccccc: w)",
                "",
                "6 hosts: 1 with drift, 1 could not be asked, 4 without drift",
            ]
        );
        assert!(
            table(&hosts[..1])
                .ends_with("\n\n1 host: 1 with drift, 0 could not be asked, 0 without drift\n")
        );
        assert_eq!(names(&["a"; 7].map(str::to_owned)), "a a a a a and 2 more");
    }
}
