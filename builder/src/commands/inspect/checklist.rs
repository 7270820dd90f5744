//! Checks a disk against the requirements of other projects' tools. Each line names a requirement
//! and the command that checks it (docs/formats.md, Checklist).

use std::fmt;

use adamant_contract::gpt::{
    self, ATTR_NO_AUTO, ATTR_READ_ONLY, EFI_SYSTEM, Partition, ROOT_VERITY_SIG_X86_64,
    ROOT_VERITY_X86_64, ROOT_X86_64,
};
use serde::Serialize;

use super::content;
use super::found::{EspContent, InspectedDisk, RootPartitions};
use super::program::EfiProgram;
use crate::disk::EMPTY;
use crate::disk::fat::read::FatKind;
use crate::manifest::Manifest;
use crate::sign::certificate::Certificate;
use crate::verity::{self, Corruption};

/// Flag "grow the file system" (UAPI.2), which verified partitions must not have.
const ATTR_GROW: u64 = 1 << 59;
/// Start of the first partition, bytes.
const FIRST: u64 = 1 << 20;
/// Alignment of the partitions' starts and ends, bytes.
const GRAIN: u64 = 4096;
/// Smallest EFI system partition that systemd-repart creates, bytes.
const ESP_LEAST: u64 = 260 << 20;

/// A line of the checklist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChecklistLine {
    /// Number in the list.
    pub number: u32,
    /// The requirement.
    pub title: &'static str,
    /// The result.
    pub verdict: LineVerdict,
    /// Why it differs or was not checked, or what was found.
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
    /// A description of what was found.
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

fn table(disk: &InspectedDisk) -> Vec<String> {
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

fn types(disk: &InspectedDisk) -> Verdict {
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
        .filter(|(_, part)| super::text::type_name(part).is_none())
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

/// Checks that the root hash in the PARTUUIDs is that of the manifest, of the kernel command line
/// and of the hash tree.
fn root_hashes(subject: &Subject) -> Verdict {
    if subject.disk.roots.is_empty() {
        return Verdict::NotChecked("there is no root".to_owned());
    }
    let mut faults = Vec::new();
    for root in &subject.disk.roots {
        let label = &root.data.label;
        let Some(root_hash) = InspectedDisk::root_hash(root).map(|hash| hash.to_string()) else {
            faults.push(format!("{label} has no hash tree"));
            continue;
        };
        let stem = subject
            .manifest
            .map(|manifest| format!("{}_{}", manifest.image.id, manifest.image.version));
        if let Some(manifest) = subject.manifest.filter(|_| stem.as_ref() == Some(label))
            && manifest.root.hash != root_hash
        {
            faults.push(format!(
                "{label}: the PARTUUIDs contain the root hash {}…, the manifest {}…",
                &root_hash[..12],
                &manifest.root.hash[..12.min(manifest.root.hash.len())]
            ));
        }
        let programs = subject
            .disk
            .esp
            .iter()
            .flatten()
            .flat_map(|esp| &esp.programs);
        let unified: Vec<&EfiProgram> = programs.filter(|program| program.is_unified()).collect();
        if !unified.is_empty()
            && !unified
                .iter()
                .any(|program| program.argument("roothash") == Some(&root_hash))
        {
            faults.push(format!(
                "{label}: no unified kernel image on the ESP has roothash={}…",
                &root_hash[..12]
            ));
        }
        if !top_block_matches(subject.disk, root) {
            faults.push(format!(
                "{label}: the top block of the hash tree does not match the root hash in the PARTUUIDs"
            ));
        }
    }
    Verdict::Differs(faults)
}

fn top_block_matches(disk: &InspectedDisk, root: &RootPartitions) -> bool {
    use adamant_contract::verity::{BLOCK, CorruptedBlock, SUPERBLOCK, Superblock, check_path};
    let (Some(hash), Some(tree)) = (InspectedDisk::root_hash(root), &root.tree) else {
        return false;
    };
    let Ok(tree) = disk.part(tree) else {
        return false;
    };
    let mut bytes = [0; SUPERBLOCK];
    let Ok(superblock) = tree
        .read_exact_at(&mut bytes, 0)
        .map_err(|e| e.to_string())
        .and_then(|()| Superblock::parse(&bytes).map_err(|e| e.to_string()))
    else {
        return false;
    };
    let result = check_path(&superblock, &hash, 0, |at, bytes| {
        matches!(at, CorruptedBlock::Hash(1)) && tree.read_exact_at(bytes, BLOCK as u64).is_ok()
    });
    result != Err(CorruptedBlock::Hash(1))
}

fn flags(disk: &InspectedDisk) -> Vec<String> {
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

fn policy(disk: &InspectedDisk) -> Vec<String> {
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

fn one_root(disk: &InspectedDisk, roots: &[content::InspectedRoot]) -> Verdict {
    if disk.roots.len() != 1 {
        // Updates install a second version. systemd then uses the root with the newest label.
        return if disk.roots.is_empty() {
            Verdict::Differs(vec!["there is no root".to_owned()])
        } else {
            Verdict::Ok(format!("{} roots", disk.roots.len()))
        };
    }
    per_root(roots, content::InspectedRoot::os_release)
}

fn labels(disk: &InspectedDisk) -> Verdict {
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

fn blocks(subject: &Subject) -> Verdict {
    let disk = subject.disk;
    let mut faults = Vec::new();
    let mut verified = 0;
    for root in &disk.roots {
        let label = &root.data.label;
        let result = (|| {
            let (Some(hash), Some(tree)) = (InspectedDisk::root_hash(root), &root.tree) else {
                return Err("no hash tree".to_owned());
            };
            let (data, tree) = crate::commands::verify::disk::trim_to_superblock(
                disk.part(&root.data)?,
                disk.part(tree)?,
            )?;
            match verity::check(&data, &tree, &hash, subject.jobs)
                .map_err(|e| e.message().to_owned())?
            {
                Ok(superblock) => Ok(superblock.data_blocks),
                Err(Corruption::Superblock(why)) => Err(why),
                Err(Corruption::HashTree { block, .. }) => {
                    Err(format!("block {block} of the hash tree was changed"))
                }
                Err(Corruption::Data { block }) => Err(format!("block {block} was changed")),
            }
        })();
        match result {
            Ok(blocks) => verified += blocks,
            Err(why) => faults.push(format!("{label}: {why}")),
        }
    }
    if faults.is_empty() && verified > 0 {
        Verdict::Ok(format!("{verified} blocks"))
    } else {
        Verdict::Differs(faults)
    }
}

fn signatures(subject: &Subject) -> Verdict {
    let mut faults = Vec::new();
    let mut told = Vec::new();
    for root in &subject.disk.roots {
        let label = &root.data.label;
        if let Some(part) = &root.signature
            && !(part.sectors().saturating_mul(subject.disk.sector)).is_multiple_of(GRAIN)
        {
            faults.push(format!(
                "{label}: the signature partition's size is not a multiple of 4096 bytes"
            ));
        }
        match subject.disk.root_signature(root, subject.trusted) {
            Ok(None) => faults.push(format!("{label} is not signed")),
            Ok(Some(found))
                if InspectedDisk::root_hash(root)
                    .is_some_and(|hash| hash.to_string() != found.root_hash) =>
            {
                faults.push(format!(
                    "{label}: it is the signature of another root hash, {}…",
                    &found.root_hash[..12]
                ));
            }
            Ok(Some(found)) => match found.signature.fault() {
                Some(why) => faults.push(format!("{label}: {why}")),
                None => told.push(found.signature.describe()),
            },
            Err(why) => faults.push(format!("{label}: {why}")),
        }
    }
    if faults.is_empty() {
        Verdict::Ok(told.join("; "))
    } else {
        Verdict::Differs(faults)
    }
}

/// The same question for every root.
fn per_root(
    roots: &[content::InspectedRoot],
    ask: impl Fn(&content::InspectedRoot) -> content::ContentAnswer,
) -> Verdict {
    let (mut faults, mut told, mut unknown) = (Vec::new(), Vec::new(), Vec::new());
    for root in roots {
        match ask(root) {
            content::ContentAnswer::Fine(what) => told.push(what),
            content::ContentAnswer::Faults(why) => faults.extend(why),
            content::ContentAnswer::Unknown(why) => unknown.push(why),
        }
    }
    match (faults.is_empty(), unknown.is_empty()) {
        (false, _) => Verdict::Differs(faults),
        (true, false) => Verdict::NotChecked(unknown.join("; ")),
        (true, true) if roots.is_empty() => Verdict::NotChecked("there is no root".to_owned()),
        (true, true) => Verdict::Ok(told.join("; ")),
    }
}

fn unified(subject: &Subject) -> Verdict {
    let Some(Ok(esp)) = &subject.disk.esp else {
        return Verdict::NotChecked("there is no ESP".to_owned());
    };
    let programs: Vec<&EfiProgram> = esp
        .programs
        .iter()
        .filter(|program| program.is_unified())
        .collect();
    if programs.is_empty() {
        return Verdict::Differs(
            [
                vec!["there is none on the ESP".to_owned()],
                esp.unread.clone(),
            ]
            .concat(),
        );
    }
    let mut faults = esp.unread.clone();
    for program in programs {
        faults.extend(program_faults(program, subject.manifest));
    }
    Verdict::Differs(faults)
}

/// The faults of a unified kernel image, also compared with its manifest.
pub fn program_faults(program: &EfiProgram, manifest: Option<&Manifest>) -> Vec<String> {
    let path = &program.path;
    let mut faults: Vec<String> = program
        .faults
        .iter()
        .map(|fault| format!("{path}: {fault}"))
        .collect();
    for section in [".osrel", ".cmdline", ".uname", ".initrd"] {
        if !program.sections.iter().any(|there| there.name == section) {
            faults.push(format!("{path}: it has no {section}"));
        }
    }
    if program.cmdline.is_some() && program.argument("roothash").is_none() {
        faults.push(format!(
            "{path}: its command line has no roothash=: it starts the newest root"
        ));
    }
    let release = program.os_release.as_deref().unwrap_or_default();
    for key in ["IMAGE_ID=", "IMAGE_VERSION="] {
        if !release.lines().any(|line| line.starts_with(key)) {
            faults.push(format!(
                "{path}: its os-release has no {key}: boot loaders can't sort it by version"
            ));
        }
    }
    let Some(manifest) =
        manifest.filter(|manifest| program.argument("roothash") == Some(&manifest.root.hash))
    else {
        return faults;
    };
    for (section, artifact) in [(".linux", ".vmlinuz"), (".initrd", ".initrd")] {
        let found = program.sections.iter().find(|there| there.name == section);
        if let (Some(found), Some(wanted)) = (found, manifest.artifact(artifact))
            && wanted.sha256.as_ref() != Some(&found.sha256)
        {
            faults.push(format!("{path}: {section} is not {}", wanted.name));
        }
    }
    faults
}

fn pcr11(subject: &Subject) -> Verdict {
    let programs: Vec<&EfiProgram> = subject
        .disk
        .esp
        .iter()
        .flatten()
        .flat_map(|esp| &esp.programs)
        .filter(|program| program.is_unified())
        .collect();
    if programs.is_empty() {
        return Verdict::NotChecked("there is no unified kernel image".to_owned());
    }
    let Some(manifest) = subject.manifest else {
        return Verdict::NotChecked(
            "shown above; there is no manifest to compare it with".to_owned(),
        );
    };
    let predicted: Vec<(&str, &str)> = manifest
        .pcr11
        .iter()
        .map(|one| (one.phases.as_str(), one.sha256.as_str()))
        .collect();
    let same = |program: &&EfiProgram| {
        program
            .pcr11
            .iter()
            .map(|(phases, value)| (phases.as_str(), value.as_str()))
            .eq(predicted.iter().copied())
    };
    match programs
        .iter()
        .find(|program| program.argument("roothash") == Some(&manifest.root.hash))
    {
        Some(program) if same(program) => Verdict::Ok("as the manifest predicts".to_owned()),
        Some(program) => Verdict::Differs(vec![format!(
            "{}: differs from the manifest's prediction",
            program.path
        )]),
        None => Verdict::Differs(vec![
            "the ESP does not contain the manifest's image".to_owned(),
        ]),
    }
}

fn esp(disk: &InspectedDisk, trusted: &[Certificate]) -> Verdict {
    let esp = match &disk.esp {
        None => return Verdict::NotChecked("there is none".to_owned()),
        Some(Err(why)) => return Verdict::Differs(vec![why.clone()]),
        Some(Ok(esp)) => esp,
    };
    let mut faults = Vec::new();
    if esp.kind != FatKind::Fat32 {
        faults.push(format!("FAT{}, not FAT32", esp.kind.bits()));
    }
    let lower = |path: &str| path.to_ascii_lowercase();
    if !esp
        .files
        .iter()
        .any(|file| lower(&file.path) == "efi/boot/bootx64.efi")
    {
        faults.push("no EFI/BOOT/BOOTX64.EFI".to_owned());
    }
    let images: Vec<_> = esp
        .files
        .iter()
        .filter(|file| {
            lower(&file.path).starts_with("efi/linux/") && lower(&file.path).ends_with(".efi")
        })
        .collect();
    if images.is_empty() {
        faults.push("no unified kernel image in EFI/Linux".to_owned());
    }
    faults.extend(
        images
            .iter()
            .filter(|file| file.read_only)
            .map(|file| format!("{} is read-only: its tries can't be counted", file.path)),
    );
    let largest = images
        .iter()
        .map(|file| file.size)
        .max()
        .unwrap_or_default();
    let used: u64 = esp.files.iter().map(|file| file.size).sum();
    if esp.bytes.saturating_sub(used) < largest.saturating_mul(2) {
        faults.push(format!(
            "no room for two more unified kernel images of {} MiB",
            largest.div_ceil(1 << 20)
        ));
    }
    let conf = esp.loader_conf.as_deref().unwrap_or_default();
    if conf
        .lines()
        .any(|line| line.split_whitespace().next() == Some("default"))
    {
        faults.push(
            "loader.conf has `default`, which also starts an image whose tries are used up"
                .to_owned(),
        );
    }
    faults.extend(unsigned(esp, trusted));
    if !faults.is_empty() {
        return Verdict::Differs(faults);
    }
    let small = if esp.bytes < ESP_LEAST {
        format!(
            ", less than the {} that systemd-repart would make",
            ESP_LEAST >> 20
        )
    } else {
        String::new()
    };
    Verdict::Ok(format!("{} MiB{small}", esp.bytes >> 20))
}

/// Programs whose signature is invalid and, if certificates were given, programs without a
/// signature.
fn unsigned(esp: &EspContent, trusted: &[Certificate]) -> Vec<String> {
    let fault = |program: &EfiProgram| match &program.signature {
        Some(signature) => signature
            .fault()
            .map(|why| format!("{}: {why}", program.path)),
        None if trusted.is_empty() => None,
        None => Some(format!("{} is not signed", program.path)),
    };
    esp.programs.iter().filter_map(fault).collect()
}
