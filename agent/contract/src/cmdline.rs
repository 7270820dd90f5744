//! The kernel command line: the arguments that the agent reads.
//!
//! Format: the kernel's Documentation/admin-guide/kernel-parameters.rst and lib/cmdline.c.
//! Arguments are separated by white space, double quotes protect white space, and everything after
//! `--` belongs to init. The command line is hostile input: its length is bounded, and an argument
//! with two different values is refused.

use std::time::Duration;

use thiserror::Error;

use crate::gpt::{Guid, NotAGuid};
use crate::root_hash::{NotARootHash, RootHash};

/// Longest accepted command line in bytes. The kernel's own limit on x86-64 is 2048.
pub const LIMIT: usize = 64 * 1024;
/// Longest wait for the root's devices without `adamant.device_timeout=`.
pub const DEVICE_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest value of `adamant.device_timeout=`, in seconds.
pub const DEVICE_TIMEOUT_MAX: u64 = 600;

/// Why a command line is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CommandLineError {
    /// It is longer than [`LIMIT`].
    #[error("longer than {LIMIT} bytes")]
    TooLong,
    /// An argument has an empty value.
    #[error("{0}= has no value")]
    NoValue(&'static str),
    /// An argument has two different values.
    #[error("{key}= is given twice, as {first} and as {second}")]
    Twice {
        /// The argument.
        key: &'static str,
        /// One of its values.
        first: String,
        /// The other value.
        second: String,
    },
    /// `roothash=` is malformed.
    #[error("roothash={value}: {source}")]
    RootHash {
        /// The value.
        value: String,
        /// Reason of the refusal.
        source: NotARootHash,
    },
    /// A device argument is malformed.
    #[error("{key}={value}: {source}")]
    Device {
        /// The argument.
        key: &'static str,
        /// Its value.
        value: String,
        /// Reason of the refusal.
        source: NotADevice,
    },
    /// `init=` is malformed.
    #[error("init={0}: not an absolute path")]
    Init(String),
    /// `adamant.device_timeout=` is malformed or too large.
    #[error("adamant.device_timeout={0}: not a number of seconds from 1 to {DEVICE_TIMEOUT_MAX}")]
    Timeout(String),
}

/// Why a text does not name a device.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NotADevice {
    /// The PARTUUID is malformed.
    #[error(transparent)]
    PartUuid(#[from] NotAGuid),
    /// The PARTLABEL is empty.
    #[error("an empty label")]
    EmptyLabel,
    /// It has another form.
    #[error("not PARTUUID=, PARTLABEL= or a node in /dev")]
    OtherForm,
}

/// The arguments that the agent reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandLine {
    /// `roothash=`.
    pub root_hash: Option<RootHash>,
    /// `systemd.verity_root_data=`.
    pub root_data: Option<DeviceName>,
    /// `systemd.verity_root_hash=`: the hash device, despite its name.
    pub root_tree: Option<DeviceName>,
    /// `init=`: an absolute path inside the image.
    pub init: Option<String>,
    /// `adamant.device_timeout=`, seconds.
    pub device_timeout: Duration,
}

/// The name of a partition, in a form that works without udev.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceName {
    /// `PARTUUID=` or `/dev/disk/by-partuuid/`.
    PartUuid(Guid),
    /// `PARTLABEL=` or `/dev/disk/by-partlabel/`.
    PartLabel(String),
    /// A node directly in /dev, for example `/dev/vda1`: its name in /sys/class/block.
    Node(String),
}

impl CommandLine {
    /// Parses the content of /proc/cmdline.
    pub fn parse(bytes: &[u8]) -> Result<CommandLine, CommandLineError> {
        if bytes.len() > LIMIT {
            return Err(CommandLineError::TooLong);
        }
        let arguments = arguments(bytes);
        let root_hash = unique_value(&arguments, "roothash")?
            .map(|value| {
                value
                    .parse()
                    .map_err(|source| CommandLineError::RootHash { value, source })
            })
            .transpose()?;
        let device = |key| {
            unique_value(&arguments, key)?
                .map(|value| {
                    DeviceName::parse(&value).map_err(|source| CommandLineError::Device {
                        key,
                        value,
                        source,
                    })
                })
                .transpose()
        };
        // As in the kernel, the last `init=` counts, because people append one in the boot loader.
        let init = arguments
            .iter()
            .rev()
            .find(|(key, _)| key == "init")
            .and_then(|(_, value)| value.clone());
        if let Some(init) = &init
            && !init.starts_with('/')
        {
            return Err(CommandLineError::Init(init.clone()));
        }
        let device_timeout = match unique_value(&arguments, "adamant.device_timeout")? {
            None => DEVICE_TIMEOUT,
            Some(text) => match text.parse() {
                Ok(seconds) if (1..=DEVICE_TIMEOUT_MAX).contains(&seconds) => {
                    Duration::from_secs(seconds)
                }
                _ => return Err(CommandLineError::Timeout(text)),
            },
        };
        Ok(CommandLine {
            root_hash,
            root_data: device("systemd.verity_root_data")?,
            root_tree: device("systemd.verity_root_hash")?,
            init,
            device_timeout,
        })
    }
}

/// Whether a command line consists of one root hash and the arguments of one of `lines`, in the
/// same order. Arguments after `--` count too.
pub fn is_one_of(bytes: &[u8], lines: &str) -> bool {
    let split = |text: &str| {
        text.split_ascii_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let Ok(text) = std::str::from_utf8(bytes) else {
        return false;
    };
    let (hashes, arguments): (Vec<_>, Vec<_>) = split(text)
        .into_iter()
        .partition(|argument| argument.starts_with("roothash="));
    hashes.len() == 1 && lines.lines().any(|line| split(line) == arguments)
}

/// Returns all values of an argument that can be given several times. The kernel treats `-` and `_`
/// in keys as equal.
pub fn values(bytes: &[u8], key: &str) -> Vec<String> {
    let bytes = &bytes[..bytes.len().min(LIMIT)];
    arguments(bytes)
        .into_iter()
        .filter(|(k, _)| k.replace('-', "_") == key)
        .filter_map(|(_, value)| value)
        .collect()
}

/// Returns the value of an argument that may be given several times only with the same value. The
/// kernel treats `-` and `_` in keys as equal.
fn unique_value(
    arguments: &[(String, Option<String>)],
    key: &'static str,
) -> Result<Option<String>, CommandLineError> {
    let mut found: Option<&str> = None;
    for (_, value) in arguments.iter().filter(|(k, _)| k.replace('-', "_") == key) {
        let value = value
            .as_deref()
            .filter(|v| !v.is_empty())
            .ok_or(CommandLineError::NoValue(key))?;
        match found {
            Some(earlier) if earlier != value => {
                return Err(CommandLineError::Twice {
                    key,
                    first: earlier.to_owned(),
                    second: value.to_owned(),
                });
            }
            _ => found = Some(value),
        }
    }
    Ok(found.map(str::to_owned))
}

/// Splits the arguments up to `--`, each at its first `=`. Bytes that are not UTF-8 are replaced:
/// the agent's keys and values have none.
fn arguments(bytes: &[u8]) -> Vec<(String, Option<String>)> {
    let mut arguments = Vec::new();
    let (mut argument, mut quoted, mut any) = (Vec::new(), false, false);
    for &byte in bytes.iter().chain(b" ") {
        if byte == b'"' {
            (quoted, any) = (!quoted, true);
        } else if !quoted && (byte.is_ascii_whitespace() || byte == 0) {
            if any {
                let text = String::from_utf8_lossy(&argument).into_owned();
                if text == "--" {
                    break;
                }
                arguments.push(match text.split_once('=') {
                    Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                    None => (text, None),
                });
            }
            argument.clear();
            any = false;
        } else {
            argument.push(byte);
            any = true;
        }
    }
    arguments
}

impl DeviceName {
    /// Parses a device name.
    pub fn parse(text: &str) -> Result<DeviceName, NotADevice> {
        let after =
            |prefixes: [&str; 2]| prefixes.iter().find_map(|prefix| text.strip_prefix(prefix));
        if let Some(id) = after(["PARTUUID=", "/dev/disk/by-partuuid/"]) {
            return Ok(DeviceName::PartUuid(id.parse()?));
        }
        if let Some(label) = after(["PARTLABEL=", "/dev/disk/by-partlabel/"]) {
            let label = unescape(label);
            return if label.is_empty() {
                Err(NotADevice::EmptyLabel)
            } else {
                Ok(DeviceName::PartLabel(label))
            };
        }
        match text.strip_prefix("/dev/") {
            Some(name)
                if !name.is_empty()
                    && name.split('/').all(|part| !matches!(part, "" | "." | ".."))
                    && !name.starts_with("disk/") =>
            {
                Ok(DeviceName::Node(name.replace('/', "!")))
            }
            _ => Err(NotADevice::OtherForm),
        }
    }
}

/// Decodes udev's escapes for bytes that are not allowed in file names, for example `\x20`.
fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let escaped = after
            .strip_prefix(b"x")
            .and_then(|hex| hex.get(..2))
            .and_then(|hex| std::str::from_utf8(hex).ok());
        match escaped.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) if first == b'\\' => {
                out.push(byte);
                rest = &after[3..];
            }
            _ => {
                out.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "f6f9916eced28986000102030405060708090a0b0c0d0e0f1011121314151617";

    fn refusal(text: &str) -> String {
        CommandLine::parse(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn reads_the_arguments_as_systemd_does() {
        let text = format!(
            "BOOT_IMAGE=/x console=ttyS0 roothash={HASH} systemd.verity_root_data=PARTUUID=4f68bce3-e8cd-4db1-96e7-fbcaf984b709 systemd.verity-root-hash=/dev/vdb2 init=/bin/a adamant.device_timeout=5 \"dyndbg=a b\" init=/bin/b -- roothash=x\n"
        );
        let read = CommandLine::parse(text.as_bytes()).unwrap();
        assert_eq!(read.root_hash.unwrap().to_string(), HASH);
        assert_eq!(
            read.root_data,
            Some(DeviceName::PartUuid(crate::gpt::ROOT_X86_64))
        );
        assert_eq!(read.root_tree, Some(DeviceName::Node("vdb2".to_owned())));
        assert_eq!(read.init.as_deref(), Some("/bin/b"));
        assert_eq!(read.device_timeout, Duration::from_secs(5));
    }

    #[test]
    fn refuses_contradicting_and_malformed_arguments() {
        assert!(CommandLine::parse(format!("roothash={HASH} roothash={HASH}").as_bytes()).is_ok());
        assert!(
            refusal(&format!(
                "roothash={HASH} roothash={}",
                HASH.replace('f', "e")
            ))
            .contains("given twice")
        );
        assert!(refusal("roothash=").contains("no value"));
        assert!(refusal("roothash").contains("no value"));
        assert!(refusal("roothash=12").contains("64"));
        assert!(refusal("init=sh").contains("absolute"));
        for bad in ["0", "601", "-1", "x", "99999999999999999999"] {
            assert!(refusal(&format!("adamant.device_timeout={bad}")).contains("seconds"));
        }
        for bad in [
            "UUID=x",
            "/dev/",
            "/dev/../etc",
            "/dev/disk/by-uuid/x",
            "vda",
            "PARTUUID=1",
            "PARTLABEL=",
        ] {
            assert!(
                refusal(&format!("systemd.verity_root_data={bad}"))
                    .contains("systemd.verity_root_data"),
                "{bad}"
            );
        }
        assert!(CommandLine::parse(&vec![b'a'; LIMIT + 1]).is_err());
    }

    #[test]
    fn quotes_hide_white_space_and_labels_are_unescaped() {
        let read = CommandLine::parse(b"systemd.verity_root_data=\"PARTLABEL=my root\" systemd.verity_root_hash=/dev/disk/by-partlabel/a\\x20b\\x").unwrap();
        assert_eq!(
            read.root_data,
            Some(DeviceName::PartLabel("my root".to_owned()))
        );
        assert_eq!(
            read.root_tree,
            Some(DeviceName::PartLabel("a b\\x".to_owned()))
        );
    }

    #[test]
    fn refuses_a_command_line_with_other_arguments() {
        let lines = "ro panic=10 console=ttyS0\nro panic=10 console=ttyS0 debug\n";
        for line in [
            "roothash=1 ro panic=10 console=ttyS0\n",
            "ro  panic=10 roothash=1 console=ttyS0 debug",
        ] {
            assert!(is_one_of(line.as_bytes(), lines), "{line}");
        }
        for line in [
            "ro panic=10 console=ttyS0",
            "roothash=1 ro panic=10 console=ttyS0 x",
            "roothash=1 ro panic=10",
            "roothash=1 panic=10 ro console=ttyS0",
            "roothash=1 roothash=2 ro panic=10 console=ttyS0",
            "roothash=1 ro panic=10 console=ttyS0 -- x",
            "",
        ] {
            assert!(!is_one_of(line.as_bytes(), lines), "{line}");
        }
        assert!(!is_one_of(b"roothash=1 \xff", "\u{fffd}"));
    }

    #[test]
    fn any_bytes_end_in_a_result() {
        let alphabet = b"roothash=init\"/\\x -\xff\0\n.dev_PARTLABEL";
        let mut state = 1u64;
        let mut next = |below: usize| {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (state >> 33) as usize % below
        };
        for _ in 0..20_000 {
            let bytes: Vec<u8> = (0..next(60))
                .map(|_| alphabet[next(alphabet.len())])
                .collect();
            let _ = CommandLine::parse(&bytes);
        }
    }
}
