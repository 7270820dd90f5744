//! The commands for the running machine: `scrub` reads the root, `watch` reports violations,
//! `drift` reports differences from the image.
//!
//! They change only the agent's own files. The policy, in the verified root, defines the expected
//! state.

#![forbid(unsafe_code)]

pub mod drift;
mod events;
mod finding;
mod findings;
mod guard;
mod instructions;
mod json;
mod mounts;
mod opened;
mod outlets;
pub mod scrub;
pub mod services;
mod sockets;
pub mod volume_trouble;
pub mod watch;

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use adamant_contract::paths::{BOOT_REPORT_PATH, POLICY_PATH, ROOT_MAPPING};
use adamant_contract::policy::Policy;
use adamant_contract::report::BootReport;
use nix::libc;
use nix::sys::stat::{major, minor};
use thiserror::Error;

use crate::kernel::guard_abi::HOOKS;
use crate::kernel::{clock, dm};

/// Longest file that is read from the kernel or the agent's directories, in bytes.
const LIMIT: u64 = 1 << 20;
/// Directory, in memory, of the agent's files for other programs.
const RUN: &str = "/run/adamant";

/// Reads a regular file as text. Root can leave a FIFO in the place of a file on a volume, which
/// would block the reader.
fn read(path: &str) -> io::Result<String> {
    let mut bytes = Vec::new();
    let mut how = File::options();
    let file = how.read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    file.take(LIMIT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LIMIT {
        return Err(io::Error::other("longer than a MiB"));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Replaces a file's content atomically and durably.
fn replace(path: &str, text: &str) -> io::Result<()> {
    let folder = Path::new(path).parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder)?;
    let new = [path, ".new"].concat();
    // Root may have left a symbolic link or a device there. This process may write where root may
    // not.
    let _ = fs::remove_file(&new);
    let mut file = File::create_new(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(new, path)?;
    File::open(folder)?.sync_all()
}

/// Denials of the guard by hook, without the hooks that refused nothing. `None` without a guard, or
/// if it does not let this process read its counters.
pub fn denials() -> Option<Vec<(&'static str, u64)>> {
    let counts = guard::DenialCounters::open().ok()??.read().ok()?;
    Some(
        HOOKS
            .into_iter()
            .zip(counts)
            .filter(|(_, count)| *count > 0)
            .collect(),
    )
}

/// The stored state of the scrub.
pub fn last_scrub() -> Option<scrub::ScrubState> {
    scrub::ScrubState::read(&scrub::path(&policy().ok()?))
}

/// The boot report; `None` if it cannot be read.
fn boot_report() -> Option<BootReport> {
    json::from_text(&read(BOOT_REPORT_PATH).ok()?)
}

/// The image's policy. `Err` is a line for the standard error.
fn policy() -> Result<Policy, String> {
    let fail = |why: String| {
        [
            "adamant: ",
            POLICY_PATH,
            ": ",
            &why,
            ": run this command on a server that runs an image of adamant\n",
        ]
        .concat()
    };
    let text = read(POLICY_PATH).map_err(|e| fail(e.to_string()))?;
    Policy::parse(text.as_bytes()).map_err(|e| fail(e.to_string()))
}

/// The dm-verity device that the running root is on.
struct VerifiedDevice {
    /// Its device node.
    device: PathBuf,
    /// Its length.
    bytes: u64,
    /// The root hash in the kernel's table, 64 hexadecimal digits.
    hash: String,
}

/// Why the running root is not on a dm-verity device.
#[derive(Debug, Error)]
enum NotVerified {
    #[error("it is not on the verified device")]
    OtherDevice,
    #[error("sysfs does not show its device and size")]
    NotInSysfs,
    #[error("its device-mapper table: {0}")]
    NoTable(io::Error),
    #[error("its device-mapper table is not one of dm-verity")]
    NotVerity,
}

impl VerifiedDevice {
    fn find() -> Result<VerifiedDevice, NotVerified> {
        let folder = mapping_of(Path::new("/"), Path::new("/sys/dev/block"))
            .ok_or(NotVerified::OtherDevice)?;
        let sectors = fs::read_to_string(folder.join("size"))
            .ok()
            .and_then(|text| text.trim_end().parse::<u64>().ok())
            .ok_or(NotVerified::NotInSysfs)?;
        let device = fs::canonicalize(&folder)
            .ok()
            .and_then(|path| path.file_name().map(|name| Path::new("/dev").join(name)))
            .ok_or(NotVerified::NotInSysfs)?;
        let table = dm::table(ROOT_MAPPING).map_err(NotVerified::NoTable)?;
        let hash = root_hash(&table).ok_or(NotVerified::NotVerity)?;
        Ok(VerifiedDevice {
            device,
            bytes: sectors.saturating_mul(512),
            hash: hash.to_owned(),
        })
    }
}

/// Returns the sysfs directory of the device that `root` is on, if it is the mapping that the agent
/// made. `block` is /sys/dev/block.
pub fn mapping_of(root: &Path, block: &Path) -> Option<PathBuf> {
    let found = fs::metadata(root).ok()?.dev();
    let folder = block.join(format!("{}:{}", major(found), minor(found)));
    fs::read_to_string(folder.join("dm/name"))
        .is_ok_and(|name| name.trim_end() == ROOT_MAPPING)
        .then_some(folder)
}

/// The root hash in a dm-verity table. Before it: version, two devices, two block sizes, two
/// numbers, and the algorithm.
fn root_hash(table: &str) -> Option<&str> {
    table
        .split(' ')
        .nth(8)
        .filter(|field| field.len() == 64 && field.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Prints a line for the journal or a person. A closed standard output is no reason to end.
fn print_line(line: &str) {
    let mut out = io::stdout();
    let _ = out
        .write_all(&[line.as_bytes(), b"\n"].concat())
        .and_then(|()| out.flush());
}

/// Seconds from a time, in seconds since 1970, until now.
pub fn since(moment: u64) -> u64 {
    clock::now().saturating_sub(moment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_left_beside_a_file_of_the_agent_is_not_followed() {
        let folder = std::env::temp_dir().join(format!("adamant-replace-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (path, other) = (folder.join("state.json"), folder.join("other"));
        fs::write(&other, "as it was").unwrap();
        std::os::unix::fs::symlink(&other, folder.join("state.json.new")).unwrap();
        replace(path.to_str().unwrap(), "new").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert!(!path.is_symlink());
        assert_eq!(fs::read_to_string(&other).unwrap(), "as it was");
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_fifo_in_place_of_a_file_blocks_no_reader() {
        let path = std::env::temp_dir().join(format!("adamant-fifo-{}", std::process::id()));
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let why = read(path.to_str().unwrap()).unwrap_err();
        assert_eq!(why.to_string(), "not a regular file");
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn the_root_hash_is_found_in_the_kernels_table() {
        let hash = "0f".repeat(32);
        let table = format!(
            "1 254:1 254:2 4096 4096 77 1 sha256 {hash} - 2 restart_on_corruption restart_on_error"
        );
        assert_eq!(root_hash(&table), Some(hash.as_str()));
        assert_eq!(
            root_hash("1 254:1 254:2 4096 4096 77 1 sha256 short -"),
            None
        );
        assert_eq!(root_hash(""), None);
    }
}
