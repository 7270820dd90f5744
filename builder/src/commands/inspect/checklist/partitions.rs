//! Checks of the partition table: positions, types, flags and labels.

use adamant_contract::gpt::{
    self, ATTR_NO_AUTO, ATTR_READ_ONLY, EFI_SYSTEM, Partition, ROOT_VERITY_SIG_X86_64,
    ROOT_VERITY_X86_64, ROOT_X86_64,
};

use super::{GRAIN, Verdict};
use crate::commands::inspect::found::InspectedDisk;
use crate::commands::inspect::text;
use crate::disk::EMPTY;

/// Flag "grow the file system" (UAPI.2), which verified partitions must not have.
const ATTR_GROW: u64 = 1 << 59;
/// Start of the first partition, bytes.
const FIRST: u64 = 1 << 20;

pub(super) fn table(disk: &InspectedDisk) -> Vec<String> {
    let mut faults = disk.repairs.clone();
    let bytes = |part: &Partition| {
        (
            part.first.saturating_mul(disk.sector),
            part.sectors().saturating_mul(disk.sector),
        )
    };
    if let Some((number, first)) = disk.partitions.iter().min_by_key(|(_, part)| part.first)
        && bytes(first).0 != FIRST
    {
        faults.push(format!(
            "the first partition ({number}) starts at {} KiB, not at 1 MiB",
            bytes(first).0 >> 10
        ));
    }
    for (number, part) in &disk.partitions {
        let (start, length) = bytes(part);
        if !start.is_multiple_of(GRAIN) || !length.is_multiple_of(GRAIN) {
            faults.push(format!(
                "partition {number} does not start and end on 4 KiB"
            ));
        }
    }
    faults
}

pub(super) fn types(disk: &InspectedDisk) -> Verdict {
    let count = |kind: gpt::Guid| disk.of_type(kind).count();
    let (roots, trees, signatures) = (
        count(ROOT_X86_64),
        count(ROOT_VERITY_X86_64),
        count(ROOT_VERITY_SIG_X86_64),
    );
    let mut faults = Vec::new();
    for (there, what) in [
        (roots, "root"),
        (trees, "root-verity"),
        (count(EFI_SYSTEM), "ESP"),
    ] {
        if there == 0 {
            faults.push(format!("no {what} partition for x86-64"));
        }
    }
    if count(EFI_SYSTEM) > 1 {
        faults.push("more than one ESP".to_owned());
    }
    if trees > roots {
        faults.push(format!("{trees} hash trees for {roots} roots"));
    }
    if signatures > trees {
        faults.push(format!("{signatures} signatures for {trees} hash trees"));
    }
    let unknown: Vec<String> = disk
        .partitions
        .iter()
        .filter(|(_, part)| text::type_name(part).is_none())
        .map(|(number, _)| number.to_string())
        .collect();
    if !unknown.is_empty() {
        return Verdict::Differs(
            [
                faults,
                vec![format!(
                    "partitions of unknown type: {}",
                    unknown.join(", ")
                )],
            ]
            .concat(),
        );
    }
    Verdict::Differs(faults)
}

pub(super) fn flags(disk: &InspectedDisk) -> Vec<String> {
    let mut faults = Vec::new();
    for (number, part) in &disk.partitions {
        let slot = [ROOT_X86_64, ROOT_VERITY_X86_64, ROOT_VERITY_SIG_X86_64].contains(&part.kind);
        let has = |bit: u64| part.attributes & bit != 0;
        let mut wants = |there: bool, wanted: bool, bit: u32, why: &str| {
            if there != wanted {
                let state = if there { "is set" } else { "is not set" };
                faults.push(format!(
                    "partition {number} ({}): flag {bit} {state}: {why}",
                    part.label
                ));
            }
        };
        if slot {
            wants(
                has(ATTR_READ_ONLY),
                true,
                60,
                "a strict image policy requires read-only partitions",
            );
            wants(has(ATTR_GROW), false, 59, "a verified root can't grow");
            wants(
                has(ATTR_NO_AUTO),
                part.label == EMPTY,
                63,
                "it marks empty slots, which some versions of systemd would take for the newest",
            );
        } else if [gpt::VAR, gpt::SRV, gpt::HOME, gpt::LINUX_GENERIC].contains(&part.kind) {
            wants(has(ATTR_NO_AUTO), true, 63, "only the agent may mount it");
        }
    }
    faults
}

pub(super) fn policy(disk: &InspectedDisk) -> Vec<String> {
    let mut faults = Vec::new();
    if disk.roots.is_empty() {
        faults.push("there is no root".to_owned());
    }
    for root in &disk.roots {
        let parts = [
            ("root", Some(&root.data)),
            ("tree", root.tree.as_ref()),
            ("signature", root.signature.as_ref()),
        ];
        for (what, part) in parts {
            match part {
                None => faults.push(format!("{} has no {what}", root.data.label)),
                Some(part) if part.attributes & ATTR_READ_ONLY == 0 => faults.push(format!(
                    "the {what} of {} is not read-only",
                    root.data.label
                )),
                Some(_) => {}
            }
        }
    }
    faults
}

pub(super) fn labels(disk: &InspectedDisk) -> Verdict {
    let mut faults = Vec::new();
    for root in &disk.roots {
        let label = &root.data.label;
        if !label.contains('_') {
            faults.push(format!("{label:?} is not NAME_VERSION"));
        }
        for (part, suffix) in [(&root.tree, "_verity"), (&root.signature, "_sig")] {
            if let Some(part) = part
                && part.label != format!("{label}{suffix}")
                && part.label != *label
            {
                faults.push(format!("{:?} does not match {label:?}", part.label));
            }
        }
    }
    Verdict::Differs(faults)
}
