//! What a TPM's PCR 11 will hold: systemd-stub measures the sections of the unified kernel image
//! into it, and each phase of the boot adds its name (systemd-stub(7), systemd-pcrphase.service(8),
//! systemd-measure(1)).

use sha2::{Digest, Sha256};

use super::pe::{PeImage, PeSection};
use super::profile;

/// The sections that are measured, in this order wherever they stand (systemd:
/// src/fundamental/uki.h).
const MEASURED: [&str; 13] = [
    ".linux", ".osrel", ".cmdline", ".initrd", ".ucode", ".splash", ".dtb", ".uname", ".sbat",
    ".pcrpkey", ".profile", ".dtbauto", ".hwids",
];
/// Not measured by a stub older than this (systemd 253).
const YOUNGER: [&str; 2] = [".uname", ".sbat"];
const MEASURES_THEM: u32 = 253;

/// The boot's phases, in the order in which they are reached.
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
        .map(|main| started(image, &main.sections))
        .unwrap_or_default()
}

/// The same, with these sections; of two with one name the first.
fn started(image: &PeImage, sections: &[&PeSection]) -> [u8; 32] {
    let old = stub_version(image).is_some_and(|version| version < MEASURES_THEM);
    let mut pcr = [0; 32];
    for name in MEASURED
        .into_iter()
        .filter(|name| !(old && YOUNGER.contains(name)))
    {
        if let Some(section) = sections.iter().find(|section| section.name == name) {
            pcr = extend(&pcr, &[name.as_bytes(), b"\0"].concat());
            pcr = extend(&pcr, section.data());
        }
    }
    pcr
}

/// Its value at the start and after each phase: the phases so far joined by colons, and the value.
pub fn phases(image: &PeImage) -> Vec<(String, [u8; 32])> {
    // An image without profiles has one that is all of it.
    profile::profiles(image)
        .first()
        .map(|main| phases_of(image, &main.sections))
        .unwrap_or_default()
}

/// The same for the image with these sections alone.
pub fn phases_of(image: &PeImage, sections: &[&PeSection]) -> Vec<(String, [u8; 32])> {
    let mut pcr = started(image, sections);
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

/// systemd's version, from what the stub says of itself: `#### LoaderInfo: systemd-stub 257.13-1
/// ####`.
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
