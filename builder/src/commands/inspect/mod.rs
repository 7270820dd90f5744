//! `adamant inspect`: describes a disk or a unified kernel image, whatever program made it, and
//! checks it against the requirements of other projects' tools. It only reads, and needs no
//! privileges.

mod checklist;
mod content;
mod found;
mod program;
mod text;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::json;

use self::checklist::{ChecklistLine, LineVerdict, Subject};
use self::found::InspectedDisk;
use self::program::EfiProgram;
use crate::commands::selection::Selection;
use crate::error::{Context, Error, Result};
use crate::manifest::{self, Manifest};
use crate::sign::certificate::Certificate;
use crate::term::output::Output;
use crate::uki::pe;

/// Inspects a disk image, a unified kernel image or a build's OUT directory, and prints the result.
/// Fails if a line of the checklist differs.
pub fn inspect_target(
    target: &Path,
    certificates: &[std::path::PathBuf],
    output: &Output,
) -> Result<()> {
    let trusted = certificates
        .iter()
        .map(|path| Certificate::read(path))
        .collect::<Result<Vec<_>>>()?;
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let mut found = Vec::new();
    if target.is_dir() || !target.exists() || target.to_string_lossy().ends_with(manifest::SUFFIX) {
        let selection = Selection::resolve(target)?;
        selection.announce(output);
        match (selection.artifact("raw"), selection.artifact("efi")) {
            (Some(disk), _) => found.push(inspect_disk(
                &disk,
                Some(&selection.manifest),
                &trusted,
                jobs,
            )?),
            (None, Some(efi)) => {
                found.push(inspect_program(&efi, Some(&selection.manifest), &trusted)?)
            }
            (None, None) => {
                return Err(Error::new(format!(
                    "{}: this image has neither a disk nor a unified kernel image",
                    selection.manifest_path().display()
                ))
                .hint("it was built without a kernel: add one to its sources"));
            }
        }
    } else if is_program(target)? {
        found.push(inspect_program(target, None, &trusted)?);
    } else {
        found.push(inspect_disk(target, None, &trusted, jobs)?);
    }
    let text: String = found.iter().map(|(text, ..)| text.as_str()).collect();
    let documents: Vec<_> = found.iter().map(|(_, document, _)| document).collect();
    output.answer(&text, &json!({ "found": documents }))?;
    let differ: Vec<String> = found
        .iter()
        .flat_map(|(.., lines)| lines)
        .filter(|line| line.verdict == LineVerdict::Differs)
        .map(|line| line.number.to_string())
        .collect();
    match differ.as_slice() {
        [] => Ok(()),
        [one] => Err(Error::new(format!(
            "{}: line {one} of the checklist differs",
            target.display()
        ))),
        several => Err(Error::new(format!(
            "{}: lines {} of the checklist differ",
            target.display(),
            several.join(", ")
        ))),
    }
}

type Inspected = (String, serde_json::Value, Vec<ChecklistLine>);

fn inspect_disk(
    path: &Path,
    manifest: Option<&Manifest>,
    trusted: &[Certificate],
    jobs: usize,
) -> Result<Inspected> {
    let disk = InspectedDisk::read(path, trusted)?;
    let lines = checklist::evaluate(&Subject {
        disk: &disk,
        manifest,
        trusted,
        jobs,
    });
    let esp = disk.esp.iter().flatten();
    let programs: Vec<&EfiProgram> = esp.flat_map(|esp| &esp.programs).collect();
    let signatures = disk
        .roots
        .iter()
        .map(|root| disk.root_signature(root, trusted));
    let signatures: Vec<_> = signatures
        .map(|found| json!({ "found": found.as_ref().ok(), "fault": found.as_ref().err() }))
        .collect();
    let mut text = format!(
        "{}: sectors of {} bytes\n\n{}\n",
        path.display(),
        disk.sector,
        text::partitions(&disk)
    );
    for program in &programs {
        text += &format!("{}\n", text::program(program));
    }
    text += &text::checklist(&lines);
    let partitions = disk.partitions.iter().map(|(number, part)| {
        json!({ "number": number, "label": part.label, "type": part.kind.to_string(), "type_name": text::type_name(part), "uuid": part.id.to_string(),
            "bytes": part.sectors().saturating_mul(disk.sector), "flags": text::flags(part) })
    });
    let document = json!({ "what": "disk", "sector": disk.sector, "partitions": partitions.collect::<Vec<_>>(), "programs": programs,
        "root_signatures": signatures, "checklist": lines });
    Ok((text, document, lines))
}

fn inspect_program(
    path: &Path,
    manifest: Option<&Manifest>,
    trusted: &[Certificate],
) -> Result<Inspected> {
    let name = path.display().to_string();
    let bytes = crate::io::bounded::read(path, pe::LIMIT).context(|| name.clone())?;
    let program = EfiProgram::parse(&name, &bytes, trusted)?;
    let mut faults = if program.is_unified() {
        checklist::program_faults(&program, manifest)
    } else {
        program.faults.clone()
    };
    faults.extend(
        program
            .signature
            .as_ref()
            .and_then(program::ProgramSignature::fault),
    );
    if program.signature.is_none() && !trusted.is_empty() {
        faults.push("it is not signed".to_owned());
    }
    let verdict = if faults.is_empty() {
        LineVerdict::Ok
    } else {
        LineVerdict::Differs
    };
    let line = ChecklistLine {
        number: 12,
        title: "unified kernel image",
        verdict,
        why: faults.join("; "),
        command: "ukify inspect; bootctl kernel-identify",
    };
    let lines = vec![line];
    let text = format!("{}\n{}", text::program(&program), text::checklist(&lines));
    Ok((
        text,
        json!({ "what": "program", "program": program, "checklist": lines }),
        lines,
    ))
}

/// Whether a file is an EFI program. A disk with boot code can start with the same bytes, but it
/// has a partition table.
fn is_program(path: &Path) -> Result<bool> {
    let name = || path.display().to_string();
    let mut head = Vec::new();
    File::open(path)
        .context(name)?
        .take(520)
        .read_to_end(&mut head)
        .context(name)?;
    Ok(head.starts_with(b"MZ") && head.get(512..520) != Some(b"EFI PART"))
}
