//! Predicts a TPM's PCR 11. systemd-stub measures the sections of the unified kernel image into it,
//! and each phase of the boot adds its name (systemd-stub(7), systemd-pcrphase.service(8),
//! systemd-measure(1)).

use sha2::{Digest, Sha256};

use super::pe::{PeImage, PeSection};
use super::profile;

/// The measured sections. They are measured in this order, whatever their order in the image
/// (systemd: src/fundamental/uki.h).
const MEASURED: [&str; 13] = [
    ".linux", ".osrel", ".cmdline", ".initrd", ".ucode", ".splash", ".dtb", ".uname", ".sbat",
    ".pcrpkey", ".profile", ".dtbauto", ".hwids",
];
/// Measured sections that stubs before [`MEASURES_LATER_SECTIONS`] do not measure.
const LATER_SECTIONS: [&str; 2] = [".uname", ".sbat"];
/// First version of systemd-stub that measures all sections.
const MEASURES_LATER_SECTIONS: u32 = 253;

/// The phases of the boot, in order.
pub const PHASES: [&str; 5] = [
    "enter-initrd",
    "leave-initrd",
    "sysinit",
    "ready",
    "shutdown",
];

/// PCR 11's value (SHA-256 bank) when the stub starts the kernel.
pub fn pcr11_at_start(image: &PeImage) -> [u8; 32] {
    profile::profiles(image)
        .first()
        .map(|main| after_sections(image, &main.sections))
        .unwrap_or_default()
}

/// The value with these sections. Of two sections with one name the first is measured.
fn after_sections(image: &PeImage, sections: &[&PeSection]) -> [u8; 32] {
    let old = stub_version(image).is_some_and(|version| version < MEASURES_LATER_SECTIONS);
    let mut pcr = [0; 32];
    for name in MEASURED
        .into_iter()
        .filter(|name| !(old && LATER_SECTIONS.contains(name)))
    {
        if let Some(section) = sections.iter().find(|section| section.name == name) {
            pcr = extend(&pcr, &[name.as_bytes(), b"\0"].concat());
            pcr = extend(&pcr, section.data());
        }
    }
    pcr
}

/// Values of PCR 11 at the start and after each phase: the phases so far, joined by colons, and the
/// value.
pub fn phases(image: &PeImage) -> Vec<(String, [u8; 32])> {
    profile::profiles(image)
        .first()
        .map(|main| phases_of(image, &main.sections))
        .unwrap_or_default()
}

/// The same for a profile with these sections.
pub fn phases_of(image: &PeImage, sections: &[&PeSection]) -> Vec<(String, [u8; 32])> {
    let mut pcr = after_sections(image, sections);
    let mut path = String::new();
    let mut values = vec![(path.clone(), pcr)];
    for phase in PHASES {
        pcr = extend(&pcr, phase.as_bytes());
        if !path.is_empty() {
            path.push(':');
        }
        path.push_str(phase);
        values.push((path.clone(), pcr));
    }
    values
}

/// The stub's version, from its section `.sdmagic`: `#### LoaderInfo: systemd-stub 257.13-1 ####`.
pub fn stub_version(image: &PeImage) -> Option<u32> {
    let magic = String::from_utf8_lossy(image.section(".sdmagic")?.data()).into_owned();
    let version = magic.split_once("systemd-stub ")?.1;
    version
        .split(|c: char| !c.is_ascii_digit())
        .next()?
        .parse()
        .ok()
}

fn extend(pcr: &[u8; 32], data: &[u8]) -> [u8; 32] {
    Sha256::new()
        .chain_update(pcr)
        .chain_update(Sha256::digest(data))
        .finalize()
        .into()
}
