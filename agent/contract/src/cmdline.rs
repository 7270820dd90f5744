//! The kernel command line, as far as the agent reads it.
//!
//! Format: the kernel's Documentation/admin-guide/kernel-parameters.rst and lib/cmdline.c: words
//! between white space, a double quote hides white space, everything after `--` belongs to init.
//! The command line is hostile input: it is bounded, and a word said twice with two meanings is
//! refused instead of picking one.

use std::time::Duration;

use crate::gpt::Guid;
use crate::root_hash::RootHash;

/// Longest command line read, bytes. The kernel's own limit on x86-64 is 2048.
pub const LIMIT: usize = 64 * 1024;
/// Longest wait for the root's devices, when the command line says nothing.
pub const DEVICE_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest wait that can be asked for, seconds.
pub const DEVICE_TIMEOUT_MAX: u64 = 600;

/// Why a command line can't be used: a clause for a person.
pub type Refusal = String;

/// What the agent takes from the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandLine {
    /// `roothash=`.
    pub root_hash: Option<RootHash>,
    /// `systemd.verity_root_data=`.
    pub root_data: Option<DeviceName>,
    /// `systemd.verity_root_hash=`: the verity partition, in spite of its name.
    pub root_tree: Option<DeviceName>,
    /// `init=`: an absolute path inside the image.
    pub init: Option<String>,
    /// `adamant.device_timeout=`, seconds.
    pub device_timeout: Duration,
}

/// A partition, named in one of the ways that need no udev.
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
    /// Reads the contents of /proc/cmdline.
    pub fn parse(bytes: &[u8]) -> Result<CommandLine, Refusal> {
        if bytes.len() > LIMIT {
            return Err(format!("longer than {LIMIT} bytes"));
        }
        let words = words(bytes);
        let root_hash = one(&words, "roothash")?
            .map(|text| {
                text.parse()
                    .map_err(|why| format!("roothash={text}: {why}"))
            })
            .transpose()?;
        let device = |key: &str| {
            one(&words, key)?
                .map(|text| DeviceName::parse(&text).map_err(|why| format!("{key}={text}: {why}")))
                .transpose()
        };
        // As in the kernel, the last `init=` counts: boot loaders let a person append one.
        let init = words
            .iter()
            .rev()
            .find(|(key, _)| key == "init")
            .and_then(|(_, value)| value.clone());
        if let Some(init) = &init
            && !init.starts_with('/')
        {
            return Err(format!("init={init}: not an absolute path"));
        }
        let device_timeout = match one(&words, "adamant.device_timeout")? {
            None => DEVICE_TIMEOUT,
            Some(text) => match text.parse() {
                Ok(seconds) if (1..=DEVICE_TIMEOUT_MAX).contains(&seconds) => {
                    Duration::from_secs(seconds)
                }
                _ => {
                    return Err(format!(
                        "adamant.device_timeout={text}: not a number of seconds from 1 to {DEVICE_TIMEOUT_MAX}"
                    ));
                }
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

/// Whether a command line has a root hash and otherwise the words of one of these lines, in their
/// order, and no others. The words behind `--` count too.
pub fn is_one_of(bytes: &[u8], lines: &str) -> bool {
    let split = |text: &str| {
        text.split_ascii_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let Ok(text) = std::str::from_utf8(bytes) else {
        return false;
    };
    let (hashes, words): (Vec<_>, Vec<_>) = split(text)
        .into_iter()
        .partition(|word| word.starts_with("roothash="));
    hashes.len() == 1 && lines.lines().any(|line| split(line) == words)
}

/// The values that a key has, each as often as it is said: for keys that add up. The kernel takes
/// `-` and `_` for the same in keys.
pub fn values(bytes: &[u8], key: &str) -> Vec<String> {
    let bytes = &bytes[..bytes.len().min(LIMIT)];
    words(bytes)
        .into_iter()
        .filter(|(k, _)| k.replace('-', "_") == key)
        .filter_map(|(_, value)| value)
        .collect()
}

/// The value of a key that may be said once, or several times in the same words. The kernel takes
/// `-` and `_` for the same in keys.
fn one(words: &[(String, Option<String>)], key: &str) -> Result<Option<String>, Refusal> {
    let mut found: Option<&str> = None;
    for (_, value) in words.iter().filter(|(k, _)| k.replace('-', "_") == key) {
        let value = value
            .as_deref()
            .filter(|v| !v.is_empty())
            .ok_or_else(|| format!("{key}= has no value"))?;
        match found {
            Some(earlier) if earlier != value => {
                return Err(format!(
                    "{key}= is given twice, as {earlier} and as {value}"
                ));
            }
            _ => found = Some(value),
        }
    }
    Ok(found.map(str::to_owned))
}

/// The words up to `--`, split at their first `=`. What is not UTF-8 is replaced: no key or value
/// of ours has any.
fn words(bytes: &[u8]) -> Vec<(String, Option<String>)> {
    let mut words = Vec::new();
    let (mut word, mut quoted, mut any) = (Vec::new(), false, false);
    for &byte in bytes.iter().chain(b" ") {
        if byte == b'"' {
            (quoted, any) = (!quoted, true);
        } else if !quoted && (byte.is_ascii_whitespace() || byte == 0) {
            if any {
                let text = String::from_utf8_lossy(&word).into_owned();
                if text == "--" {
                    break;
                }
                words.push(match text.split_once('=') {
                    Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                    None => (text, None),
                });
            }
            word.clear();
            any = false;
        } else {
            word.push(byte);
            any = true;
        }
    }
    words
}

impl DeviceName {
    /// Reads the forms that need no udev.
    pub fn parse(text: &str) -> Result<DeviceName, Refusal> {
        let after =
            |prefixes: [&str; 2]| prefixes.iter().find_map(|prefix| text.strip_prefix(prefix));
        if let Some(id) = after(["PARTUUID=", "/dev/disk/by-partuuid/"]) {
            return id.parse().map(DeviceName::PartUuid).map_err(str::to_owned);
        }
        if let Some(label) = after(["PARTLABEL=", "/dev/disk/by-partlabel/"]) {
            let label = unescape(label);
            return if label.is_empty() {
                Err("an empty label".to_owned())
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
            _ => Err("not PARTUUID=, PARTLABEL= or a node in /dev".to_owned()),
        }
    }
}

/// udev writes bytes that may not stand in a file name as `\x20`.
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
        CommandLine::parse(text.as_bytes()).unwrap_err()
    }

    #[test]
    fn reads_what_systemd_would() {
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
    fn refuses_two_meanings_and_nonsense() {
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
    fn a_line_with_other_words_is_not_one_of_those() {
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
