//! Checks of the EFI system partition and its programs.

use super::{Subject, Verdict};
use crate::commands::inspect::found::{EspContent, InspectedDisk};
use crate::commands::inspect::program::EfiProgram;
use crate::disk::fat::read::FatKind;
use crate::manifest::Manifest;
use crate::sign::certificate::Certificate;

/// Smallest EFI system partition that systemd-repart creates, bytes.
const ESP_LEAST: u64 = 260 << 20;

pub(super) fn unified(subject: &Subject) -> Verdict {
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

pub(super) fn pcr11(subject: &Subject) -> Verdict {
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

pub(super) fn esp(disk: &InspectedDisk, trusted: &[Certificate]) -> Verdict {
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
pub(super) fn unsigned(esp: &EspContent, trusted: &[Certificate]) -> Vec<String> {
    let fault = |program: &EfiProgram| match &program.signature {
        Some(signature) => signature
            .fault()
            .map(|why| format!("{}: {why}", program.path)),
        None if trusted.is_empty() => None,
        None => Some(format!("{} is not signed", program.path)),
    };
    esp.programs.iter().filter_map(fault).collect()
}
