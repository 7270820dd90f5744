//! ext4 by the image's own e2fsprogs: making, checking, and, by the kernel, mounting and growing.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use nix::mount::{MsFlags, mount};

use super::probe::{self, SMALL_GROUP};
use super::{beneath, tool};

/// Longest time for making a file system, and for checking one. A check reads all metadata only after a crash that the journal can't mend.
const MAKE_DEADLINE: Duration = Duration::from_secs(300);
const CHECK_DEADLINE: Duration = Duration::from_secs(1800);
/// A volume smaller than two full block groups would have no copy of its super block.
const SMALL: u64 = 2 * 32768 * 4096;
/// Longest label that ext4 has room for, bytes.
const LABEL: usize = 16;

// <linux/ext4.h>: the argument is the new number of blocks.
nix::ioctl_write_ptr!(resize_fs, b'f', 16, u64);

/// Runs the image's programs.
pub struct Programs<'a> {
    /// The image.
    pub sysroot: &'a Path,
    /// Called about every second while a program runs.
    pub tick: &'a mut dyn FnMut(),
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checked {
    /// In order; the journal may have been replayed.
    Clean,
    /// Put right: what the program said.
    Repaired(String),
    /// Beyond what was asked for: what the program said.
    Damaged(String),
}

impl Programs<'_> {
    /// Makes a file system and waits until it is durable. `Err` says why it could not be made, in a clause.
    pub fn make(&mut self, device: &Path, bytes: u64, name: &str) -> Result<(), String> {
        let label = &name[..name.len().min(LABEL)];
        let path = device.to_string_lossy();
        // 4 KiB blocks and 256-byte inodes whatever the size: what small volumes get by default can't grow far nor tell time beyond 2038.
        // The kernel zeroes inode tables and journal later, in its own time.
        let small_group = SMALL_GROUP.to_string();
        let mut arguments = vec!["-q", "-F", "-b", "4096", "-I", "256", "-L", label, "-E", "lazy_itable_init=1,lazy_journal_init=1", &path];
        if bytes < SMALL {
            arguments.splice(0..0, ["-g", &small_group]);
        }
        let ended = tool::run(self.sysroot, "mkfs.ext4", &arguments, MAKE_DEADLINE, self.tick)?;
        if ended.code != 0 {
            return Err(format!("mkfs.ext4 ended with {}: {}", ended.code, ended.said));
        }
        OpenOptions::new().write(true).open(device).and_then(|file| file.sync_all()).map_err(|e| format!("writing it out: {e}"))
    }

    /// Checks, and repairs only what is safe to repair without asking. `Damaged` means that there is more.
    pub fn check(&mut self, device: &Path) -> Result<Checked, String> {
        let ended = self.fsck(&["-p", &device.to_string_lossy()])?;
        match ended.code {
            0 => Ok(Checked::Clean),
            1 | 2 => Ok(Checked::Repaired(ended.said)),
            // Bits: 4 is errors left, 8 an operational error, which a bad super block is too.
            4 | 8 | 12 => Ok(Checked::Damaged(ended.said)),
            code => Err(format!("fsck.ext4 ended with {code}: {}", ended.said)),
        }
    }

    /// Doubts a file system, also one that says it is in order, and repairs everything that e2fsck knows to repair, because nobody is there to be
    /// asked. What was there before may be lost: whoever wants it keeps it first.
    pub fn repair(&mut self, device: &Path, bytes: u64) -> Result<Checked, String> {
        let path = device.to_string_lossy();
        let mut ended = self.fsck(&["-fy", &path])?;
        if !matches!(ended.code, 0..=2)
            && let Some((block, size)) = File::open(device).ok().and_then(|file| probe::backup(&file, bytes))
        {
            // Of copies of the super block e2fsck itself looks only where full groups have them.
            ended = self.fsck(&["-fy", "-b", &block.to_string(), "-B", &size.to_string(), &path])?;
        }
        match ended.code {
            0 => Ok(Checked::Clean),
            1 | 2 => Ok(Checked::Repaired(ended.said)),
            _ => Ok(Checked::Damaged(format!("fsck.ext4 can't repair it: {}", ended.said))),
        }
    }

    fn fsck(&mut self, arguments: &[&str]) -> Result<tool::Ended, String> {
        tool::run(self.sysroot, "fsck.ext4", arguments, CHECK_DEADLINE, self.tick)
    }
}

/// Mounts a volume on an open folder; with `executable`, programs on it can be run.
pub fn mount_on(device: &Path, folder: &OwnedFd, executable: bool) -> nix::Result<()> {
    let target = beneath::path_of(folder);
    let mut flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    flags.set(MsFlags::MS_NOEXEC, !executable);
    mount(Some(device), target.as_c_str(), Some("ext4"), flags, Some("errors=remount-ro"))
}

/// Grows the mounted file system to `blocks` blocks; the kernel journals each step.
pub fn grow(root: &OwnedFd, blocks: u64) -> io::Result<()> {
    // SAFETY: the request reads one 64-bit number, which outlives the call.
    unsafe { resize_fs(root.as_raw_fd(), &raw const blocks) }?;
    Ok(())
}
