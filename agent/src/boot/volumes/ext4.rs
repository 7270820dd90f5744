//! Makes, checks and repairs ext4 file systems with the image's own e2fsprogs.

use std::fs::{File, OpenOptions};
use std::path::Path;
use std::time::Duration;

use adamant_contract::ext4::{SMALL_VOLUME, SMALL_VOLUME_GROUP};
use adamant_contract::policy::VolumeCheck;

use super::features::{self, Features};
use super::probe;
use super::progress::Progress;
use super::tool::{Tool, ToolError, ToolExit};

/// Longest time for making and for checking a file system. A check reads all metadata only after
/// damage that replaying the journal can't repair.
const MAKE_DEADLINE: Duration = Duration::from_secs(300);
const CHECK_DEADLINE: Duration = Duration::from_secs(1800);
/// Longest label of an ext4 file system, bytes.
const LABEL: usize = 16;

/// Errors of the disk or the machine in e2fsck's output. They say nothing about the volume, which
/// may be sound. A damaged pointer to a block beyond the disk's end gives other errors.
const TROUBLE: [&str; 7] = [
    "Input/output error",
    "No data available",
    "Remote I/O error",
    "Link has been severed",
    "Connection timed out",
    "Cannot allocate memory",
    "Memory allocation failed",
];
/// What e2fsck prints for a file system or a journal that is newer than itself.
const NEWER: [&str; 7] = [
    "newer version of e2fsck",
    "unsupported feature",
    "unsupported read-only feature",
    "unsupported encoding",
    "unknown incompatible feature",
    "unknown read-only feature",
    "version not supported by this e2fsck",
];
/// What e2fsck prints if it finds no usable superblock.
const NO_SUPERBLOCK: &str = "does not describe a valid";

/// Runs the image's e2fsprogs on one volume.
pub struct E2fsprogs<'a> {
    /// The mounted root of the image.
    pub sysroot: &'a Path,
    /// The volume's name, for progress lines on the console.
    pub volume: &'a str,
    /// Called about every second while a program runs.
    pub tick: &'a mut dyn FnMut(),
}

/// The result of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FsckResult {
    /// No errors. The journal may have been replayed.
    Clean,
    /// All errors were repaired. Holds e2fsck's output.
    Repaired(String),
    /// Errors are left that this kind of check does not repair. Holds e2fsck's output.
    Damaged(String),
    /// Not checked, because this e2fsck is older than the program that made the file system.
    Unsupported(Unsupported),
}

/// Why this image's programs can't check or mount a file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsupported {
    /// For the end of a sentence about the volume.
    pub why: String,
}

impl E2fsprogs<'_> {
    /// Makes a file system and waits until it is durable.
    pub fn make_file_system(&mut self, device: &Path, bytes: u64) -> Result<(), ToolError> {
        let name = self.volume;
        let label = &name[..name.len().min(LABEL)];
        let path = device.to_string_lossy();
        // 4 KiB blocks and 256-byte inodes at every size: mke2fs' defaults for small volumes can't
        // grow far, and can't store dates beyond 2038. The kernel zeroes inode tables and the
        // journal later, in the background. A flexible group of small groups is as large as one of
        // full groups, 2 GiB, because the kernel grows by one flexible group at a time.
        let (small_group, small_flexible) = (
            SMALL_VOLUME_GROUP.to_string(),
            (SMALL_VOLUME / 2 * 16 / (SMALL_VOLUME_GROUP * 4096)).to_string(),
        );
        let mut arguments = vec![
            "-q",
            "-F",
            "-b",
            "4096",
            "-I",
            "256",
            "-L",
            label,
            "-E",
            "lazy_itable_init=1,lazy_journal_init=1",
            &path,
        ];
        if bytes < SMALL_VOLUME {
            arguments.splice(0..0, ["-g", &small_group, "-G", &small_flexible]);
        }
        let tool = Tool {
            sysroot: self.sysroot,
            program: "mkfs.ext4",
            arguments: &arguments,
            progress: None,
            deadline: MAKE_DEADLINE,
            watched: &[],
        };
        let mut progress = Progress::new(
            format!("making a file system for volume {name:?}"),
            self.tick,
        );
        let ended = tool.run_to_end(&mut |_| progress.alive(&String::new))?;
        if ended.code != 0 {
            return Err(failed("mkfs.ext4", &ended));
        }
        let written = OpenOptions::new()
            .write(true)
            .open(device)
            .and_then(|file| file.sync_all());
        written.map_err(|e| ToolError {
            why: format!("writing it out: {e}"),
            remedy: DISK,
        })
    }

    /// Checks, and makes only the repairs that `e2fsck -p` considers safe. `Damaged` means that
    /// other errors are left. Without `VolumeCheck::Always`, e2fsck believes a superblock that says
    /// that the file system is clean.
    pub fn check(
        &mut self,
        device: &Path,
        features: Features,
        check: VolumeCheck,
    ) -> Result<FsckResult, ToolError> {
        let how = match check {
            VolumeCheck::Always => "-fp",
            VolumeCheck::Unclean => "-p",
        };
        let ended = self.fsck(&[how, &device.to_string_lossy()], true)?;
        if let Some(unsupported) = self.unsupported(&ended, features) {
            return Ok(FsckResult::Unsupported(unsupported));
        }
        trouble(&ended)?;
        match ended.code {
            0 => Ok(FsckResult::Clean),
            1 | 2 => Ok(FsckResult::Repaired(ended.said)),
            // Exit bits: 4 is "errors left"; 8 is an operational error, which includes a corrupted
            // superblock. Only a repair shows which of them it is.
            4 | 8 | 12 => Ok(FsckResult::Damaged(ended.said)),
            _ => Err(failed("fsck.ext4", &ended)),
        }
    }

    /// Decides without writing whether a repair is possible; `None` if it is. A repair would
    /// overwrite unreadable sectors, and e2fsck can't repair a file system without any superblock.
    pub fn examine(
        &mut self,
        device: &Path,
        bytes: u64,
        features: Features,
    ) -> Result<Option<FsckResult>, ToolError> {
        let ended = self.with_each_superblock("-fn", device, bytes)?;
        if let Some(unsupported) = self.unsupported(&ended, features) {
            return Ok(Some(FsckResult::Unsupported(unsupported)));
        }
        trouble(&ended)?;
        match ended.code {
            0..=15 => Ok(lacks_superblock(&ended)),
            _ => Err(failed("fsck.ext4", &ended)),
        }
    }

    /// Checks a file system even if it is marked clean, and repairs everything that e2fsck can
    /// repair, because there is no operator to ask. A repair can delete data: save evidence first.
    /// `Damaged` means that e2fsck can't repair it.
    pub fn repair(
        &mut self,
        device: &Path,
        bytes: u64,
        features: Features,
    ) -> Result<FsckResult, ToolError> {
        let ended = self.with_each_superblock("-fy", device, bytes)?;
        if let Some(unsupported) = self.unsupported(&ended, features) {
            return Ok(FsckResult::Unsupported(unsupported));
        }
        trouble(&ended)?;
        match ended.code {
            0 => Ok(FsckResult::Clean),
            1 | 2 => Ok(FsckResult::Repaired(ended.said)),
            4..=7 => Ok(FsckResult::Damaged(format!(
                "fsck.ext4 can't repair it: {}",
                ended.said
            ))),
            _ => lacks_superblock(&ended).ok_or_else(|| failed("fsck.ext4", &ended)),
        }
    }

    /// Runs e2fsck, and runs it again with a copy of the superblock if it finds none. e2fsck itself
    /// searches for copies only in file systems with full-size groups.
    #[inline(never)]
    fn with_each_superblock(
        &mut self,
        how: &str,
        device: &Path,
        bytes: u64,
    ) -> Result<ToolExit, ToolError> {
        let path = device.to_string_lossy();
        let ended = self.fsck(&[how, &path], true)?;
        if ended.seen.contains(&NO_SUPERBLOCK)
            && let Some((block, size)) = File::open(device)
                .ok()
                .and_then(|file| probe::backup_superblock(&file, bytes))
        {
            return self.fsck(
                &[
                    how,
                    "-b",
                    &block.to_string(),
                    "-B",
                    &size.to_string(),
                    &path,
                ],
                true,
            );
        }
        Ok(ended)
    }

    /// Whether e2fsck refused a file system because e2fsck is too old.
    #[inline(never)]
    fn unsupported(&mut self, ended: &ToolExit, features: Features) -> Option<Unsupported> {
        if !ended.seen.iter().any(|text| NEWER.contains(text)) {
            return None;
        }
        let version = self
            .fsck(&["-V"], false)
            .map(|ended| version(&ended.said))
            .unwrap_or_default();
        let named = features.named_in(&ended.said);
        let why = if named.is_empty() {
            format!(
                "it was made by newer tools than this image's e2fsck{version}, which ended with: {}",
                ended.said
            )
        } else {
            format!(
                "it was made by newer tools: it has {}, which this image's e2fsck{version} does not know",
                features::sentence(&named)
            )
        };
        Some(Unsupported { why })
    }

    #[inline(never)]
    fn fsck(&mut self, arguments: &[&str], is_check: bool) -> Result<ToolExit, ToolError> {
        let watched = [&TROUBLE[..], &NEWER, &[NO_SUPERBLOCK]].concat();
        let progress = is_check.then_some("-C");
        let tool = Tool {
            sysroot: self.sysroot,
            program: "fsck.ext4",
            arguments,
            progress,
            deadline: CHECK_DEADLINE,
            watched: &watched,
        };
        let mut progress = Progress::new(format!("checking volume {:?}", self.volume), self.tick);
        tool.run_to_end(&mut |line| progress.alive(&|| how_far(line)))
    }
}

/// The remedy for a disk that fails.
const DISK: &str = "check the disk and its connection; the kernel's log has its messages";

/// Parses a progress line of `e2fsck -C`: pass, units done, units in total.
#[inline(never)]
fn how_far(line: &str) -> String {
    let mut numbers = line
        .split_ascii_whitespace()
        .map_while(|word| word.parse::<u64>().ok());
    match (numbers.next(), numbers.next(), numbers.next()) {
        (Some(pass), Some(done), Some(all)) if all > 0 => format!(
            "pass {pass} of 5, {} %",
            done.min(all).saturating_mul(100) / all
        ),
        _ => String::new(),
    }
}

/// The version, as ` 1.47.0`, from the first line of `e2fsck -V`.
fn version(said: &str) -> String {
    said.split_ascii_whitespace()
        .nth(1)
        .map(|version| format!(" {version}"))
        .unwrap_or_default()
}

/// Rejects the result of an e2fsck that met an I/O error or ran out of memory, because it says
/// nothing about the file system.
#[inline(never)]
fn trouble(ended: &ToolExit) -> Result<(), ToolError> {
    let Some(text) = ended.seen.iter().find(|text| TROUBLE.contains(text)) else {
        return Ok(());
    };
    let remedy = if text.contains("memory") || text.contains("Memory") {
        "give the machine more memory"
    } else {
        DISK
    };
    Err(ToolError {
        why: format!(
            "fsck.ext4 ended with {} because of {text:?}, which says nothing about the file system: {}",
            ended.code, ended.said
        ),
        remedy,
    })
}

fn lacks_superblock(ended: &ToolExit) -> Option<FsckResult> {
    ended.seen.contains(&NO_SUPERBLOCK).then(|| {
        FsckResult::Damaged(format!(
            "fsck.ext4 can't repair it, because it finds no superblock: {}",
            ended.said
        ))
    })
}

/// The error for a program whose exit code says nothing about the volume.
#[inline(never)]
fn failed(program: &str, ended: &ToolExit) -> ToolError {
    let (how, remedy) = match ended.code {
        // The kernel kills programs as well, when memory runs out.
        137 => ("was killed".to_owned(), "give the machine more memory"),
        129..=192 => (
            format!("was ended by signal {}", ended.code - 128),
            "put a working e2fsprogs into the image",
        ),
        126 | 127 => (
            format!("can't be run (exit code {})", ended.code),
            "put e2fsprogs with its libraries into the image",
        ),
        code => (
            format!("ended with {code}"),
            "check the volume with e2fsck on another machine: it was not made anew",
        ),
    };
    let said = if ended.said.is_empty() {
        String::new()
    } else {
        format!(": {}", ended.said)
    };
    ToolError {
        why: format!("{program} {how}{said}"),
        remedy,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_progress_and_version_from_e2fsck_s_output() {
        assert_eq!(how_far("1 30 120 /dev/vda5"), "pass 1 of 5, 25 %");
        assert_eq!(
            (how_far(""), how_far("2 1 0 x"), how_far("x")),
            (String::new(), String::new(), String::new())
        );
        assert_eq!(
            version("e2fsck 1.47.0 (5-Feb-2023) Using EXT2FS Library version 1.47.0, 5-Feb-2023"),
            " 1.47.0"
        );
        assert_eq!(version(""), "");
    }
}
