//! Checks a disk against the requirements of other projects' tools. Each line names a requirement
//! and the command that checks it (docs/formats.md, Checklist).

mod boot;
mod partitions;
mod roots;

use std::fmt;

use serde::Serialize;

use self::boot::{esp, pcr11, unified};
use self::partitions::{flags, labels, policy, table, types};
use self::roots::{blocks, one_root, per_root, root_hashes, signatures};
use super::content;
use super::found::InspectedDisk;
use crate::manifest::Manifest;
use crate::sign::certificate::Certificate;

/// Alignment of the partitions' starts and ends, bytes.
const GRAIN: u64 = 4096;

/// A line of the checklist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChecklistLine {
    /// Number in the list.
    pub number: u32,
    /// The requirement.
    pub title: &'static str,
    /// The result.
    pub verdict: LineVerdict,
    /// The difference, the reason for not checking, or the value.
    pub why: String,
    /// The command that checks the requirement.
    pub command: &'static str,
}

/// Result of a line of the checklist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum LineVerdict {
    /// The disk meets the requirement.
    #[serde(rename = "ok")]
    Ok,
    /// The disk does not meet the requirement.
    #[serde(rename = "differs")]
    Differs,
    /// The requirement can't be checked by reading the disk.
    #[serde(rename = "not checked")]
    NotChecked,
}

impl fmt::Display for LineVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LineVerdict::Ok => "ok",
            LineVerdict::Differs => "differs",
            LineVerdict::NotChecked => "not checked",
        })
    }
}

/// Result of a check.
enum Verdict {
    /// The value, as text.
    Ok(String),
    /// The faults. An empty list means that the check passed.
    Differs(Vec<String>),
    /// The reason.
    NotChecked(String),
}

/// The input of the checks.
pub struct Subject<'a> {
    /// The disk.
    pub disk: &'a InspectedDisk,
    /// The disk's manifest, if there is one.
    pub manifest: Option<&'a Manifest>,
    /// Trusted certificates.
    pub trusted: &'a [Certificate],
    /// Number of threads.
    pub jobs: usize,
}

pub use self::boot::program_faults;

/// Runs all checks. The lines are in the order of the documentation.
pub fn evaluate(subject: &Subject) -> Vec<ChecklistLine> {
    let mut lines = Vec::new();
    let mut line = |title, command, verdict: Verdict| {
        let (verdict, why) = match verdict {
            Verdict::Ok(what) => (LineVerdict::Ok, what),
            Verdict::Differs(why) if why.is_empty() => (LineVerdict::Ok, String::new()),
            Verdict::Differs(why) => (LineVerdict::Differs, why.join("; ")),
            Verdict::NotChecked(why) => (LineVerdict::NotChecked, why),
        };
        lines.push(ChecklistLine {
            number: lines.len() as u32 + 1,
            title,
            verdict,
            why,
            command,
        });
    };
    let disk = subject.disk;
    let blocks = blocks(subject);
    let roots: Vec<content::InspectedRoot> = disk
        .roots
        .iter()
        .map(|root| content::InspectedRoot::open(disk, root))
        .collect();
    line(
        "partition table",
        "sfdisk --verify",
        Verdict::Differs(table(disk)),
    );
    line(
        "partition types",
        "systemd-dissect --json=short",
        types(disk),
    );
    line(
        "PARTUUIDs contain the root hash",
        "systemd-dissect --root-hash --validate",
        root_hashes(subject),
    );
    line("flags", "sfdisk -J", Verdict::Differs(flags(disk)));
    line(
        "a signed, read-only root",
        "systemd-dissect --image-policy=root=signed+read-only-on",
        Verdict::Differs(policy(disk)),
    );
    line(
        "one root, with an os-release",
        "systemd-dissect",
        one_root(disk, &roots),
    );
    line("labels", "systemd-analyze compare-versions", labels(disk));
    line("hash tree and every block", "veritysetup verify", blocks);
    line(
        "signature of the root hash",
        "openssl cms -verify",
        signatures(subject),
    );
    line(
        "file system",
        "fsck.erofs",
        per_root(&roots, |root| root.structure()),
    );
    line(
        "files of the root",
        "systemd-dissect --mtree",
        per_root(&roots, |root| root.files()),
    );
    line(
        "unified kernel image",
        "ukify inspect; bootctl kernel-identify",
        unified(subject),
    );
    line("PCR 11", "systemd-measure calculate", pcr11(subject));
    line(
        "EFI system partition",
        "fsck.vfat -n",
        esp(disk, subject.trusted),
    );
    let by_running = |what: &str| Verdict::NotChecked(format!("needs {what}"));
    line(
        "boot counting and fallback",
        "five starts in QEMU",
        by_running("a boot of the disk"),
    );
    line(
        "nothing for systemd-repart to change",
        "systemd-repart --dry-run=yes",
        by_running("this command"),
    );
    line(
        "two builds are equal",
        "adamant build --check",
        by_running("this command"),
    );
    line(
        "credentials reach the image",
        "adamant boot --credential",
        by_running("a boot of the disk"),
    );
    lines
}
