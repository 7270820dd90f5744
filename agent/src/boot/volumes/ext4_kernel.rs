//! The kernel's side of ext4: mounts file systems, explains refused mounts, and grows mounted ones.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};

use super::features::{self, Features};
use super::progress::Progress;
use super::superblock::Ext4Superblock;
use crate::kernel::{console, mounts, rooted_fs};

/// Longest time for growing a file system.
const GROW_DEADLINE: Duration = Duration::from_secs(1800);

/// Why the kernel refuses to mount a file system that is not damaged: the kernel lacks a feature.
/// Taken from the kernel's log, for the end of a sentence.
#[inline(never)]
pub fn unknown_to_kernel(device: &str, features: Features) -> Option<String> {
    let line = console::last_logged(&format!("EXT4-fs ({device}): "))?;
    let said = line
        .split_once("): ")
        .map_or(line.as_str(), |(_, said)| said);
    let mask = || {
        said.rsplit_once('(')
            .and_then(|(_, mask)| u32::from_str_radix(mask.trim_end_matches(')'), 16).ok())
            .unwrap_or(!0)
    };
    let (what, named) =
        if said.contains("couldn't mount RDWR because of unsupported optional features") {
            (
                "can only read",
                features.masked(features::FeatureSet::RoCompat, mask()),
            )
        } else if said.contains("couldn't mount because of unsupported optional features") {
            (
                "can't mount",
                features.masked(features::FeatureSet::Incompat, mask()),
            )
        } else if ["CONFIG_", "revision level too high", "unsupported"]
            .iter()
            .any(|text| {
                said.to_ascii_lowercase()
                    .contains(&text.to_ascii_lowercase())
            })
        {
            ("can't mount", Vec::new())
        } else if said.contains("error loading journal")
            && console::last_logged("JBD2: Unrecognised features on journal").is_some()
        {
            // The kernel's line about the journal does not name the device.
            return Some("the kernel does not know a feature of its journal".to_owned());
        } else {
            return None;
        };
    let named = if named.is_empty() {
        String::new()
    } else {
        format!("it has {}, ", features::sentence(&named))
    };
    Some(format!("{named}which this image's kernel {what}: {said}"))
}

/// Mounts a volume on an open directory. With `executable`, programs on it can be run.
pub fn mount_on(device: &Path, folder: &OwnedFd, executable: bool) -> nix::Result<()> {
    let target = rooted_fs::path_of(folder);
    let mut flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    flags.set(MsFlags::MS_NOEXEC, !executable);
    mount(
        Some(device),
        target.as_c_str(),
        Some("ext4"),
        flags,
        Some("errors=remount-ro"),
    )
}

/// Number of groups in the first step of growing. Later steps are sized to take about [`STEP`].
const FIRST_STEP: u64 = 16;
/// How long one step should take. The watchdog is not fed during a step.
const STEP: Duration = Duration::from_secs(1);

/// Grows the mounted file system to `blocks` blocks, in steps that the kernel journals: after a
/// power cut at any moment it can be mounted, and the next boot continues. Returns the number of
/// blocks when the deadline ends the growth.
pub fn grow(
    root: &OwnedFd,
    found: &Ext4Superblock,
    blocks: u64,
    progress: &mut Progress<'_>,
) -> io::Result<u64> {
    let until = Instant::now() + GROW_DEADLINE;
    let (mut now, mut step) = (found.blocks, FIRST_STEP);
    while now < blocks && Instant::now() < until {
        progress.alive(&|| {
            format!(
                "{} of {} MB",
                megabytes(now, found.block),
                megabytes(blocks, found.block)
            )
        });
        let started = Instant::now();
        let next = next_size(found, now, step).min(blocks);
        mounts::resize_ext4(root, next)?;
        now = next;
        step = next_step(step, started.elapsed());
    }
    Ok(now)
}

/// The end of the group that is `step` groups further. The kernel drops a last group that is too
/// short for its own metadata.
fn next_size(found: &Ext4Superblock, now: u64, step: u64) -> u64 {
    let groups = now.saturating_sub(found.first) / found.group;
    found
        .first
        .saturating_add(groups.saturating_add(step).saturating_mul(found.group))
}

fn next_step(step: u64, took: Duration) -> u64 {
    match took {
        took if took < STEP / 4 => step.saturating_mul(2),
        took if took > STEP => (step / 2).max(1),
        _ => step,
    }
}

fn megabytes(blocks: u64, block: u64) -> u64 {
    blocks.saturating_mul(block) / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_by_complete_groups_at_the_disk_s_speed() {
        let found = Ext4Superblock {
            block: 1024,
            blocks: 10_000,
            group: 8192,
            first: 1,
            clean: true,
            corrupted: false,
            features: Features::default(),
            journal: Vec::new(),
        };
        assert_eq!(next_size(&found, 10_000, 16), 1 + 17 * 8192);
        assert_eq!(next_size(&found, 1 + 17 * 8192, 1), 1 + 18 * 8192);
        assert_eq!(next_size(&found, u64::MAX, u64::MAX), u64::MAX);
        assert_eq!(next_step(16, Duration::from_millis(10)), 32);
        assert_eq!(next_step(16, Duration::from_millis(500)), 16);
        assert_eq!(next_step(1, Duration::from_secs(50)), 1);
    }
}
