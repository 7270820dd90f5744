//! The commands that look after the running machine: `scrub` reads its root, `watch` tells of what
//! happens to it, `drift` of what became of it.
//!
//! None of them changes anything but the agent's own files. What should be is known from the
//! policy, which lies in the verified root.

#![forbid(unsafe_code)]

pub mod drift;
mod events;
mod findings;
mod guard;
mod mounts;
mod opened;
mod outlets;
pub mod scrub;
mod sockets;
pub mod watch;

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use adamant_contract::paths::{POLICY_PATH, ROOT_MAPPING};
use adamant_contract::policy::Policy;
use nix::sys::stat::{major, minor};

use crate::kernel::guard_abi::HOOKS;
use crate::kernel::{clock, dm};

/// Longest file of the kernel's or the agent's that is read, bytes.
const LIMIT: u64 = 1 << 20;
/// What the agent tells others, in memory.
const RUN: &str = "/run/adamant";

/// A file's text.
fn read(path: &str) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(LIMIT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LIMIT {
        return Err(io::Error::other("longer than a MiB"));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Puts a file in the place of another, or leaves that; once it is done, also a power cut does not
/// undo it.
fn replace(path: &str, text: &str) -> io::Result<()> {
    let folder = Path::new(path).parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder)?;
    let new = [path, ".new"].concat();
    let mut file = File::create(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(new, path)?;
    File::open(folder)?.sync_all()
}

/// How often the guard refused, by hook, where it did. `None` without a guard that lets itself be
/// looked at.
pub fn denials() -> Option<Vec<(&'static str, u64)>> {
    let counts = guard::Counters::open().ok()??.read().ok()?;
    Some(
        HOOKS
            .into_iter()
            .zip(counts)
            .filter(|(_, count)| *count > 0)
            .collect(),
    )
}

/// What the readings of the root have found so far.
pub fn last_scrub() -> Option<scrub::State> {
    scrub::State::read(&scrub::path(&policy().ok()?))
}

/// The image's policy.
fn policy() -> Result<Policy, String> {
    let fail = |why: String| {
        [
            "adamant: ",
            POLICY_PATH,
            ": ",
            &why,
            ": only the image that adamant built has it\n",
        ]
        .concat()
    };
    Policy::parse(
        read(POLICY_PATH)
            .map_err(|e| fail(e.to_string()))?
            .as_bytes(),
    )
    .map_err(fail)
}

/// The verified device that the root is on.
struct Root {
    /// Its node.
    device: PathBuf,
    /// Its length.
    bytes: u64,
    /// As the kernel has it in the device's table, 64 hexadecimal digits.
    hash: String,
}

impl Root {
    /// `Err` is a clause.
    fn find() -> Result<Root, String> {
        let folder = mapping_of(Path::new("/"), Path::new("/sys/dev/block"))
            .ok_or("it is not on the verified device")?;
        let sectors = fs::read_to_string(folder.join("size"))
            .ok()
            .and_then(|text| text.trim_end().parse::<u64>().ok());
        let name = fs::canonicalize(&folder)
            .ok()
            .and_then(|path| path.file_name().map(|name| Path::new("/dev").join(name)));
        let (Some(sectors), Some(device)) = (sectors, name) else {
            return Err("the kernel does not tell its device and size".to_owned());
        };
        let table =
            dm::table(ROOT_MAPPING).map_err(|e| ["its table: ", &e.to_string()].concat())?;
        match root_hash(&table) {
            Some(hash) => Ok(Root {
                device,
                bytes: sectors.saturating_mul(512),
                hash: hash.to_owned(),
            }),
            None => Err("its table is not one of dm-verity".to_owned()),
        }
    }
}

/// The folder in sysfs of the device that `root` lies on, where it is the one that the agent made.
pub fn mapping_of(root: &Path, block: &Path) -> Option<PathBuf> {
    let found = fs::metadata(root).ok()?.dev();
    let folder = block.join(format!("{}:{}", major(found), minor(found)));
    fs::read_to_string(folder.join("dm/name"))
        .is_ok_and(|name| name.trim_end() == ROOT_MAPPING)
        .then_some(folder)
}

/// Of a table of dm-verity: version, two devices, two block sizes, two numbers, the algorithm, and
/// then it.
fn root_hash(table: &str) -> Option<&str> {
    table
        .split(' ')
        .nth(8)
        .filter(|word| word.len() == 64 && word.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// A line for the journal, or for a person. Nobody reading is no reason to end.
fn say(line: &str) {
    let mut out = io::stdout();
    let _ = out
        .write_all(&[line.as_bytes(), b"\n"].concat())
        .and_then(|()| out.flush());
}

/// Seconds from a moment to now, both since 1970.
pub fn since(moment: u64) -> u64 {
    now().saturating_sub(moment)
}

/// Seconds since 1970.
fn now() -> u64 {
    clock::seconds(SystemTime::now())
}

/// Text within a string of JSON. Names come from whoever made them.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => {
                let digit =
                    |shift: u32| char::from_digit(c as u32 >> shift & 15, 16).unwrap_or('0');
                out.extend(['\\', 'u', '0', '0', digit(4), digit(0)]);
            }
            c => out.push(c),
        }
    }
    out
}

/// Text for a terminal: escaped, but with its quotation marks.
fn printable(text: &str) -> String {
    escaped(text).replace("\\\"", "\"")
}

/// Strings as members of an object of JSON.
fn members(all: &[(&str, &str)]) -> String {
    let all: Vec<String> = all
        .iter()
        .map(|(key, value)| ["\"", key, "\":\"", &escaped(value), "\""].concat())
        .collect();
    all.join(",")
}

/// The first number or plain string of that name in JSON that the agent wrote itself.
fn value<'a>(json: &'a str, key: &str) -> Option<&'a str> {
    let (_, rest) = json.split_once(&["\"", key, "\":"].concat())?;
    rest.split([',', '}', '\n'])
        .next()
        .map(|value| value.trim().trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn what_is_escaped_is_read_back() {
        let text = "a\"b\\c\nd\u{1b}[31m\u{7f}\u{85}ä";
        let read: serde_json::Value =
            serde_json::from_str(&format!("\"{}\"", escaped(text))).unwrap();
        assert_eq!(read.as_str(), Some(text));
    }
}
