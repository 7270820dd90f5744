//! The results of `adamant inspect` as text.

use std::fmt::Write;

use adamant_contract::blackbox;
use adamant_contract::gpt::{
    self, ATTR_MAKING, ATTR_NEVER_USED, ATTR_NO_AUTO, ATTR_READ_ONLY, Partition,
};

use super::checklist::{ChecklistLine, LineVerdict};
use super::found::{InspectedDisk, XBOOTLDR};
use super::program::EfiProgram;
use crate::disk::EMPTY;
use crate::term::columns::column_width;

/// Name of a partition's type in the Discoverable Partitions Specification, or of a type of our
/// own; `None` for any other type, also those of other architectures.
pub fn type_name(partition: &Partition) -> Option<&'static str> {
    let known = [
        (gpt::ROOT_X86_64, "root"),
        (gpt::ROOT_VERITY_X86_64, "root-verity"),
        (gpt::ROOT_VERITY_SIG_X86_64, "root-verity-sig"),
        (gpt::EFI_SYSTEM, "esp"),
        (gpt::VAR, "var"),
        (gpt::SRV, "srv"),
        (gpt::HOME, "home"),
        (gpt::LINUX_GENERIC, "linux-generic"),
        (blackbox::PARTITION_TYPE, "black-box"),
    ];
    let others = [
        (XBOOTLDR, "xbootldr"),
        ("0657fd6d-a4ab-43c4-84e5-0933c84b4f4f", "swap"),
        ("7ec6f557-3bc5-4aca-b293-16ef5df639d1", "tmp"),
        ("8484680c-9521-48c6-9c11-b0720656f69e", "usr"),
        ("77ff5f63-e7b6-4633-acf4-1565b864c0e6", "usr-verity"),
        ("e7bb33fb-06cf-4e81-8273-e543b413e2e2", "usr-verity-sig"),
    ];
    let kind = partition.kind.to_string();
    known
        .iter()
        .find(|(guid, _)| *guid == partition.kind)
        .map(|(_, name)| *name)
        .or_else(|| {
            others
                .iter()
                .find(|(guid, _)| *guid == kind)
                .map(|(_, name)| *name)
        })
}

/// Numbers of the flags that are set (UAPI.2).
pub fn flags(partition: &Partition) -> Vec<u32> {
    (0..64)
        .filter(|bit| partition.attributes >> bit & 1 == 1)
        .collect()
}

fn flag_names(partition: &Partition) -> String {
    let name = |bit: u32| match 1u64 << bit {
        ATTR_READ_ONLY => "read-only".to_owned(),
        ATTR_NO_AUTO => "no-auto".to_owned(),
        ATTR_NEVER_USED => "never-used".to_owned(),
        ATTR_MAKING => "making".to_owned(),
        0x0800_0000_0000_0000 => "grow".to_owned(),
        _ => bit.to_string(),
    };
    flags(partition)
        .into_iter()
        .map(name)
        .collect::<Vec<_>>()
        .join(",")
}

/// The partition table as text.
pub fn partitions(disk: &InspectedDisk) -> String {
    let mut out = String::new();
    let rows: Vec<[String; 5]> = disk
        .partitions
        .iter()
        .map(|(number, part)| {
            let mib = part.sectors().saturating_mul(disk.sector) as f64 / f64::from(1 << 20);
            let kind = type_name(part).map_or_else(|| part.kind.to_string(), str::to_owned);
            let label = if part.label == EMPTY {
                "(empty)".to_owned()
            } else {
                printable(&part.label)
            };
            [
                number.to_string(),
                label,
                kind,
                format!("{mib:.1}"),
                flag_names(part),
            ]
        })
        .collect();
    let width = |column| column_width(&rows, column);
    let (labels, kinds, sizes) = (width(1), width(2), width(3));
    for ([number, label, kind, size, flags], (_, part)) in rows.iter().zip(&disk.partitions) {
        let line = format!(
            "{number:>3}  {label:labels$}  {kind:kinds$}  {size:>sizes$} MiB  {}  {flags}",
            part.id
        );
        // Writing to a String can't fail.
        let _ = writeln!(out, "{}", line.trim_end());
    }
    out
}

/// A program as text.
pub fn program(program: &EfiProgram) -> String {
    let mut out = format!("{}  {} bytes\n", printable(&program.path), program.size);
    let signed = program
        .signature
        .as_ref()
        .map_or("not signed".to_owned(), |signature| signature.describe());
    let _ = writeln!(out, "     {}", printable(&signed));
    if !program.is_unified() {
        return out;
    }
    let field = |key: &str| {
        program
            .os_release
            .as_deref()
            .and_then(|text| text.lines().find_map(|line| line.strip_prefix(key)))
            .unwrap_or("?")
            .to_owned()
    };
    let _ = writeln!(
        out,
        "     image {} {}, kernel {}",
        printable(&field("IMAGE_ID=")),
        printable(&field("IMAGE_VERSION=")),
        printable(program.uname.as_deref().unwrap_or("?"))
    );
    let _ = writeln!(
        out,
        "     command line {}",
        printable(program.cmdline.as_deref().unwrap_or_default())
    );
    for section in &program.sections {
        let _ = writeln!(
            out,
            "     {:9} {:>10}  {}",
            printable(&section.name),
            section.size,
            section.sha256
        );
    }
    for (phases, value) in &program.pcr11 {
        let _ = writeln!(
            out,
            "     PCR 11    {value}  {}",
            if phases.is_empty() {
                "(the stub)"
            } else {
                phases
            }
        );
    }
    for (id, values) in &program.profiles {
        let _ = writeln!(out, "     profile {}", printable(id));
        for (phases, value) in values {
            let _ = writeln!(
                out,
                "     PCR 11    {value}  {}",
                if phases.is_empty() {
                    "(the stub)"
                } else {
                    phases
                }
            );
        }
    }
    out
}

/// The checklist as text.
pub fn checklist(lines: &[ChecklistLine]) -> String {
    let mut out = String::new();
    for line in lines {
        let why = match (line.verdict, line.why.is_empty()) {
            (_, true) => String::new(),
            (LineVerdict::Ok, false) => format!(" ({})", line.why),
            (_, false) => format!(": {}", line.why),
        };
        let by = if line.verdict == LineVerdict::NotChecked {
            format!(" [{}]", line.command)
        } else {
            String::new()
        };
        let _ = writeln!(
            out,
            "{:>3}  {}: {}{}{by}",
            line.number,
            line.title,
            line.verdict,
            printable(&why)
        );
    }
    out
}

/// Replaces control characters, because text of a disk must not control a terminal.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}
