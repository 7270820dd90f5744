//! Describes an EFI program: its sections, its signature, and its measurements in a TPM.

use adamant_contract::hex;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::error::Result;
use crate::sign::authenticode;
use crate::sign::certificate::Certificate;
use crate::uki::profile::{self, Profile};
use crate::uki::{measure, pe};

/// An EFI program on a disk or in a file.
#[derive(Debug, Clone, Serialize)]
pub struct EfiProgram {
    /// Path of the program.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// Its sections in the table's order.
    pub sections: Vec<SectionDigest>,
    /// Content of `.osrel`.
    pub os_release: Option<String>,
    /// The kernel command line, from `.cmdline`.
    pub cmdline: Option<String>,
    /// The kernel's release, from `.uname`.
    pub uname: Option<String>,
    /// PCR 11 after each phase, SHA-256; empty if it is not a unified kernel image.
    pub pcr11: Vec<(String, String)>,
    /// Id and PCR 11 of each profile after the first.
    pub profiles: Vec<(String, Vec<(String, String)>)>,
    /// The signature; `None` if the program is not signed.
    pub signature: Option<ProgramSignature>,
    /// Faults of the program's structure.
    pub faults: Vec<String>,
}

/// A section and its hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SectionDigest {
    /// Name.
    pub name: String,
    /// Size in bytes without padding.
    pub size: u64,
    /// SHA-256 of these bytes, hexadecimal.
    pub sha256: String,
}

/// A signature and its certificate.
#[derive(Debug, Clone, Serialize)]
pub struct ProgramSignature {
    /// Subject of the certificate.
    pub signer: String,
    /// SHA-256 of the certificate, hexadecimal.
    pub fingerprint: String,
    /// First and last second of the certificate's validity. Firmware and kernel ignore it.
    pub valid: (String, String),
    /// Why the signature is invalid; `None` if it is valid.
    pub fault: Option<String>,
    /// Whether the certificate is trusted; `None` if no trusted certificates were given.
    pub trusted: Option<bool>,
}

impl ProgramSignature {
    /// Describes a signature that was checked.
    pub fn new(
        certificate: &Certificate,
        holds: std::result::Result<(), String>,
        trusted: &[Certificate],
    ) -> ProgramSignature {
        let fingerprint = certificate.fingerprint();
        let known = trusted.iter().any(|one| one.fingerprint() == fingerprint);
        ProgramSignature {
            signer: certificate.subject(),
            valid: certificate.validity(),
            fault: holds.err(),
            trusted: (!trusted.is_empty()).then_some(known),
            fingerprint,
        }
    }

    /// Why the signature is invalid or not trusted, if it is.
    pub fn fault(&self) -> Option<String> {
        match (&self.fault, self.trusted) {
            (Some(why), _) => Some(why.clone()),
            (None, Some(false)) => Some(format!(
                "signed by {}, whose certificate is not one of the given ones",
                self.signer
            )),
            (None, _) => None,
        }
    }

    /// A description for people.
    pub fn describe(&self) -> String {
        let trusted = if self.trusted.is_none() {
            "; compare with --certificate"
        } else {
            ""
        };
        match self.fault() {
            Some(why) => format!("signature: {why}"),
            None => {
                format!(
                    "signed by {}, certificate {} valid to {}{trusted}",
                    self.signer,
                    &self.fingerprint[..16.min(self.fingerprint.len())],
                    self.valid.1
                )
            }
        }
    }
}

impl EfiProgram {
    /// Parses a program. `path` is for messages.
    pub fn parse(path: &str, bytes: &[u8], trusted: &[Certificate]) -> Result<EfiProgram> {
        let image = pe::PeImage::parse(path, bytes)?;
        let text = |name: &str| {
            image.section(name).map(|section| {
                String::from_utf8_lossy(section.data())
                    .trim_end_matches(['\0', '\n'])
                    .to_owned()
            })
        };
        let sections = image.sections().iter().map(|section| SectionDigest {
            name: section.name.clone(),
            size: section.data().len() as u64,
            sha256: hex::encode(&Sha256::digest(section.data())),
        });
        let is_unified = image.section(".linux").is_some();
        let pcr11 = |profile: &Profile| {
            measure::phases_of(&image, &profile.sections)
                .into_iter()
                .map(|(phases, value)| (phases, hex::encode(&value)))
                .collect()
        };
        let profiles = if is_unified {
            profile::profiles(&image)
        } else {
            Vec::new()
        };
        let signature = authenticode::check(path, bytes)?
            .map(|(certificate, holds)| ProgramSignature::new(&certificate, holds, trusted));
        Ok(EfiProgram {
            path: path.to_owned(),
            size: bytes.len() as u64,
            sections: sections.collect(),
            os_release: text(".osrel"),
            cmdline: text(".cmdline"),
            uname: text(".uname"),
            pcr11: profiles.first().map(pcr11).unwrap_or_default(),
            profiles: profiles
                .iter()
                .skip(1)
                .map(|profile| (profile.id.clone(), pcr11(profile)))
                .collect(),
            signature,
            faults: faults(&image),
        })
    }

    /// Whether it is a unified kernel image.
    pub fn is_unified(&self) -> bool {
        !self.pcr11.is_empty()
    }

    /// The value of an argument of the kernel command line.
    pub fn argument(&self, key: &str) -> Option<&str> {
        self.cmdline
            .as_deref()?
            .split_whitespace()
            .find_map(|argument| argument.strip_prefix(key)?.strip_prefix('='))
    }
}

/// Faults that violate the specification (UAPI.5) or that change measurements.
fn faults(image: &pe::PeImage) -> Vec<String> {
    let mut faults = Vec::new();
    if !image.is_efi_application() {
        faults.push("it is not an EFI application (Subsystem 10)".to_owned());
    }
    for pair in image.sections().windows(2) {
        if u64::from(pair[0].address) + u64::from(pair[0].virtual_size) > u64::from(pair[1].address)
        {
            faults.push(format!(
                "sections {} and {} overlap or are out of order",
                pair[0].name, pair[1].name
            ));
        }
    }
    let grain = image.section_alignment().max(1);
    for section in image.sections() {
        if !section.address.is_multiple_of(grain) {
            faults.push(format!(
                "section {} is not aligned to {grain} bytes",
                section.name
            ));
        }
        if section.name.starts_with('.')
            && (section.data().len() as u64) < u64::from(section.virtual_size)
            && MEASURED.contains(&section.name.as_str())
        {
            faults.push(format!(
                "section {} is longer in memory than in the file: zeros are measured",
                section.name
            ));
        }
    }
    faults
}

/// Sections whose measured bytes must be exactly those in the file.
const MEASURED: [&str; 8] = [
    ".linux", ".osrel", ".cmdline", ".initrd", ".ucode", ".uname", ".pcrpkey", ".profile",
];
