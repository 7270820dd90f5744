//! Profiles of a unified kernel image (UAPI.5). A `.profile` section starts a profile, and the
//! sections after it replace the shared sections before the first profile. The boot loader offers
//! each profile and starts the first by default.
//!
//! The debug profile has its own kernel command line and its own name for sorting. No value of PCR
//! 11 is signed for it, so secrets that are sealed to the image can't be unsealed in it.

use super::measure;
use super::pe::{PeImage, PeSection};
use crate::error::{Error, Result};

const PROFILE: &str = ".profile";
const MAIN: &[u8] = b"ID=main\nTITLE=Main\n";
const DEBUG: &[u8] = b"ID=debug\nTITLE=Debug\n";
/// First version of systemd-stub with profiles.
const SINCE: u32 = 257;

/// Adds the main and the debug profile at the end of the image.
pub fn add_debug(image: &mut PeImage, cmdline: &str, os_release: &[u8]) -> Result<()> {
    if let Some(version) = measure::stub_version(image).filter(|version| *version < SINCE) {
        return Err(Error::new(format!(
            "boot.debug: systemd-stub {version} does not support profiles"
        ))
        .hint(format!("use systemd-stub {SINCE} or newer")));
    }
    image.add(PROFILE, MAIN.to_vec(), false)?;
    image.add(PROFILE, DEBUG.to_vec(), false)?;
    image.add(".osrel", sorted_behind(os_release), false)?;
    image.add(".cmdline", cmdline.as_bytes().to_vec(), false)
}

/// os-release with another IMAGE_ID. Boot loaders sort by it, and of two profiles with the same
/// IMAGE_ID systemd-boot 257 starts the second by default.
fn sorted_behind(os_release: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(os_release);
    let (mut lines, mut id) = (String::new(), "image");
    for line in text.lines() {
        match line.strip_prefix("IMAGE_ID=") {
            Some(value) => id = value.trim_matches(['"', '\'']),
            None => lines += &format!("{line}\n"),
        }
    }
    format!("{lines}IMAGE_ID={id}-debug\n").into_bytes()
}

/// Adds a section that all profiles share, before the first profile.
pub fn add_shared(image: &mut PeImage, name: &str, data: Vec<u8>) -> Result<()> {
    let profiles = image.split_off(PROFILE);
    image.add(name, data, false)?;
    for section in profiles {
        image.add(&section.name, section.data().to_vec(), false)?;
    }
    Ok(())
}

/// A profile and its sections.
pub struct Profile<'a> {
    /// `ID=` of its `.profile`; empty if the image has no profiles.
    pub id: String,
    /// Its own sections, and the shared sections that it does not replace.
    pub sections: Vec<&'a PeSection>,
}

/// The profiles of an image, the default one first. An image without profiles counts as one
/// profile.
pub fn profiles(image: &PeImage) -> Vec<Profile<'_>> {
    let starts: Vec<usize> = image
        .sections()
        .iter()
        .enumerate()
        .filter(|(_, section)| section.name == PROFILE)
        .map(|(at, _)| at)
        .collect();
    let Some(&first) = starts.first() else {
        return vec![Profile {
            id: String::new(),
            sections: image.sections().iter().collect(),
        }];
    };
    let (base, profiles) = image.sections().split_at(first);
    let mut all = Vec::new();
    for (index, start) in starts.iter().enumerate() {
        let own = &profiles[start - first
            ..starts
                .get(index + 1)
                .map_or(profiles.len(), |end| end - first)];
        let text = String::from_utf8_lossy(own[0].data());
        let id = text
            .lines()
            .find_map(|line| line.strip_prefix("ID="))
            .unwrap_or_default()
            .trim_matches(['"', '\'', '\0'])
            .to_owned();
        let sections = base
            .iter()
            .filter(|shared| !own.iter().any(|replaced| replaced.name == shared.name))
            .chain(own)
            .collect();
        all.push(Profile { id, sections });
    }
    all
}

/// Values of PCR 11 in the debug profile, like [`measure::phases`] for the main profile; `None` if
/// there is no debug profile.
pub fn debug_phases(image: &PeImage) -> Option<Vec<(String, [u8; 32])>> {
    profiles(image)
        .get(1)
        .map(|debug| measure::phases_of(image, &debug.sections))
}
