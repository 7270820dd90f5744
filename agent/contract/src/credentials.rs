//! Credentials: what the world outside the image may tell its init (systemd.system-credentials(7)),
//! and the rule about which of it gets there.
//!
//! Promise: [`Sorter`] lets through what the policy names, once, and within bounds; everything else
//! is dropped, and counted with its reason. Values are bytes of any kind, and appear in no message.

use crate::base64;
use crate::cmdline;

/// Most bytes of all values together, and of one: systemd's own limit.
pub const LIMIT: usize = 1 << 20;
/// Most credentials that are let through.
pub const MAX_ACCEPTED: usize = 256;
/// So many that were dropped are named; of the others only the number is kept.
pub const MAX_NAMED: usize = 64;
/// Longest name, bytes: that of a file.
const NAME_LIMIT: usize = 255;

/// Where a credential came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// QEMU's firmware configuration, `opt/io.systemd.credentials/NAME`.
    FwCfg,
    /// An SMBIOS string of type 11.
    Smbios,
    /// The kernel command line.
    CommandLine,
    /// The EFI system partition. Anybody can write to it, so systemd takes from there what was
    /// encrypted for this machine.
    Esp,
}

impl Source {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Source::FwCfg => "fw_cfg",
            Source::Smbios => "SMBIOS",
            Source::CommandLine => "the command line",
            Source::Esp => "the EFI system partition",
        }
    }
}

/// One that was let through.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// As the policy names it.
    pub name: String,
    /// Any bytes.
    pub value: Vec<u8>,
    /// Where it came from.
    pub source: Source,
}

/// One that was not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    /// Printable, and at most 64 characters of it.
    pub name: String,
    /// Where it came from.
    pub source: Source,
    /// Why.
    pub why: &'static str,
}

/// Sorts what is offered, in the order in which it is: of two with one name the first counts.
pub struct Sorter<'a> {
    accept: &'a [String],
    /// What was let through.
    pub accepted: Vec<Credential>,
    /// What was dropped, the first [`MAX_NAMED`].
    pub dropped: Vec<Dropped>,
    /// How many were dropped.
    pub drops: u64,
    bytes: usize,
}

impl<'a> Sorter<'a> {
    /// Lets through what one of these globs names.
    pub fn new(accept: &'a [String]) -> Sorter<'a> {
        Sorter {
            accept,
            accepted: Vec::new(),
            dropped: Vec::new(),
            drops: 0,
            bytes: 0,
        }
    }

    /// Takes a credential or drops it. The value is only asked for where the name would be let
    /// through.
    pub fn offer(
        &mut self,
        source: Source,
        name: &[u8],
        value: impl FnOnce() -> Result<Vec<u8>, &'static str>,
    ) {
        if let Err(why) = self.take(source, name, value) {
            self.drop(source, name, why);
        }
    }

    /// Drops what can't even be offered: what has no name, or can't be read.
    pub fn drop(&mut self, source: Source, name: &[u8], why: &'static str) {
        self.drops += 1;
        if self.dropped.len() < MAX_NAMED {
            let printable = String::from_utf8_lossy(name)
                .chars()
                .take(64)
                .map(|c| if c.is_control() { '?' } else { c })
                .collect();
            self.dropped.push(Dropped {
                name: printable,
                source,
                why,
            });
        }
    }

    fn take(
        &mut self,
        source: Source,
        name: &[u8],
        value: impl FnOnce() -> Result<Vec<u8>, &'static str>,
    ) -> Result<(), &'static str> {
        let name = std::str::from_utf8(name)
            .ok()
            .filter(|name| is_name(name))
            .ok_or("that is not a credential's name")?;
        if !is_accepted(self.accept, name) {
            return Err("the image's policy does not name it");
        }
        let encrypted = source == Source::Esp;
        if self
            .accepted
            .iter()
            .any(|there| there.name == name && (there.source == Source::Esp) == encrypted)
        {
            return Err("it was given before");
        }
        if self.accepted.len() >= MAX_ACCEPTED {
            return Err("there are too many");
        }
        let value = value()?;
        self.bytes = Some(self.bytes + value.len())
            .filter(|bytes| *bytes <= LIMIT)
            .ok_or("it is larger than the 1 MiB that all may have together")?;
        self.accepted.push(Credential {
            name: name.to_owned(),
            value,
            source,
        });
        Ok(())
    }

    /// Offers the credentials among the OEM strings of an SMBIOS structure (SMBIOS 3.7, 7.12): a
    /// formatted part, its length in the second byte, then strings that end with NUL. A string
    /// has the value as it is or, for any bytes, in base64.
    pub fn offer_smbios(&mut self, structure: &[u8]) {
        let strings = structure
            .get(1)
            .and_then(|length| structure.get(usize::from(*length)..))
            .unwrap_or_default();
        for string in strings.split(|&b| b == 0) {
            if !string.starts_with(b"io.systemd.credential") {
                continue;
            }
            let (kind, rest) = split(string, b':').unwrap_or((string, b""));
            match (kind, split(rest, b'=')) {
                (b"io.systemd.credential", Some((name, value))) => {
                    self.offer(Source::Smbios, name, || Ok(value.to_vec()))
                }
                (b"io.systemd.credential.binary", Some((name, value))) => {
                    self.offer(Source::Smbios, name, || decode(value))
                }
                (b"io.systemd.credential" | b"io.systemd.credential.binary", None) => {
                    self.drop(Source::Smbios, rest, "it is not NAME=VALUE")
                }
                _ => self.drop(Source::Smbios, kind, "that is no kind of credential"),
            }
        }
    }

    /// Offers the credentials on a kernel command line: `systemd.set_credential=NAME:VALUE`, and
    /// `systemd.set_credential_binary=` in base64.
    pub fn offer_command_line(&mut self, line: &[u8]) {
        for (key, binary) in [
            ("systemd.set_credential", false),
            ("systemd.set_credential_binary", true),
        ] {
            for word in cmdline::values(line, key) {
                let Some((name, value)) = word.split_once(':') else {
                    // Without a value it is a name whose value systemd finds elsewhere: there is no
                    // elsewhere here.
                    self.drop(Source::CommandLine, word.as_bytes(), "it is not NAME:VALUE");
                    continue;
                };
                let value = value.as_bytes();
                self.offer(Source::CommandLine, name.as_bytes(), || {
                    if binary {
                        decode(value)
                    } else {
                        Ok(value.to_vec())
                    }
                });
            }
        }
    }
}

fn decode(digits: &[u8]) -> Result<Vec<u8>, &'static str> {
    base64::decode(digits).map_err(|_| "it is not base64")
}

fn split(bytes: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let (before, after) = bytes.split_at_checked(bytes.iter().position(|&b| b == at)?)?;
    Some((before, after.get(1..)?))
}

/// Whether systemd would take it for a name: that of a file, of printable ASCII without a colon.
fn is_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..")
        && name.len() <= NAME_LIMIT
        && name
            .bytes()
            .all(|b| (b' '..0x7f).contains(&b) && b != b':' && b != b'/')
}

/// Whether a policy may say this: a name in which `*` stands for any characters.
pub fn is_glob(glob: &str) -> bool {
    is_name(glob)
}

/// Whether one of a policy's globs lets a name through.
pub fn is_accepted(accept: &[String], name: &str) -> bool {
    accept
        .iter()
        .any(|glob| matches(glob.as_bytes(), name.as_bytes()))
}

/// `*` stands for any number of any bytes.
fn matches(glob: &[u8], name: &[u8]) -> bool {
    let (mut g, mut n) = (0, 0);
    let mut star = None;
    while n < name.len() {
        if glob.get(g) == Some(&b'*') {
            star = Some((g, n));
            g += 1;
        } else if glob.get(g) == name.get(n) {
            (g, n) = (g + 1, n + 1);
        } else if let Some((at, taken)) = star {
            star = Some((at, taken + 1));
            (g, n) = (at + 1, taken + 1);
        } else {
            return false;
        }
    }
    glob[g..].iter().all(|&b| b == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn globs(globs: &[&str]) -> Vec<String> {
        globs.iter().map(|glob| (*glob).to_owned()).collect()
    }

    fn names(sorter: &Sorter) -> Vec<String> {
        sorter
            .accepted
            .iter()
            .map(|c| format!("{}={}", c.name, String::from_utf8_lossy(&c.value)))
            .collect()
    }

    fn structure(strings: &[u8]) -> Vec<u8> {
        [&[11, 5, 0, 0, 1][..], strings, b"\0\0"].concat()
    }

    #[test]
    fn only_what_is_named_gets_through_and_the_first_of_two() {
        let accept = globs(&["ssh.*", "a*c", "system.hostname"]);
        let mut sorter = Sorter::new(&accept);
        let strings = b"other\0io.systemd.credential:ssh.key=k=1\0io.systemd.credential:secret=x\0io.systemd.credential.binary:abc=AAH/\0io.systemd.credential.odd:abc=1\0io.systemd.credential:abc\0io.systemd.credential:ssh.key=2";
        sorter.offer_smbios(&structure(strings));
        sorter.offer_command_line(b"quiet systemd.set_credential=system.hostname:web1 systemd.set_credential_binary=aXc:AA= \"systemd.set_credential=ac:two words\" -- systemd.set_credential=abbc:no");
        assert_eq!(
            names(&sorter),
            [
                "ssh.key=k=1",
                "abc=\0\u{1}\u{fffd}",
                "system.hostname=web1",
                "ac=two words"
            ]
        );
        let dropped: Vec<_> = sorter
            .dropped
            .iter()
            .map(|d| (d.name.as_str(), d.why))
            .collect();
        assert_eq!(
            dropped,
            [
                ("secret", "the image's policy does not name it"),
                ("io.systemd.credential.odd", "that is no kind of credential"),
                ("abc", "it is not NAME=VALUE"),
                ("ssh.key", "it was given before"),
                ("aXc", "it is not base64")
            ]
        );
    }

    #[test]
    fn names_that_are_none_too_many_and_too_large_ones_are_dropped() {
        let accept = globs(&["*"]);
        let mut sorter = Sorter::new(&accept);
        for name in ["", ".", "..", "a/b", "a:b", "a\nb", "ä", &"x".repeat(256)] {
            sorter.offer(Source::FwCfg, name.as_bytes(), || {
                panic!("its value is not asked for")
            });
        }
        assert!(
            sorter
                .dropped
                .iter()
                .all(|d| d.why == "that is not a credential's name"
                    && !d.name.contains('\n')
                    && d.name.len() <= 128)
        );
        sorter.offer(Source::FwCfg, b"large", || Ok(vec![0; LIMIT + 1]));
        assert!(sorter.accepted.is_empty() && sorter.drops == 9);
        for number in 0..10_000 {
            sorter.offer(Source::Smbios, format!("n{number}").as_bytes(), || {
                Ok(vec![0; 8])
            });
        }
        assert_eq!(
            (sorter.accepted.len(), sorter.drops, sorter.dropped.len()),
            (MAX_ACCEPTED, 9 + 10_000 - MAX_ACCEPTED as u64, MAX_NAMED)
        );
    }

    #[test]
    fn what_is_from_the_esp_does_not_stand_in_for_what_is_not() {
        let accept = globs(&["*"]);
        let mut sorter = Sorter::new(&accept);
        sorter.offer(Source::Esp, b"a", || Ok(vec![1]));
        sorter.offer(Source::FwCfg, b"a", || Ok(vec![2]));
        assert_eq!(sorter.accepted.len(), 2);
    }

    #[test]
    fn lying_structures_hold_nothing() {
        let accept = globs(&["*"]);
        let mut sorter = Sorter::new(&accept);
        for bad in [&b""[..], &[11], &[11, 200, 0, 0, 1], &structure(b"")] {
            sorter.offer_smbios(bad);
        }
        assert!(sorter.accepted.is_empty() && sorter.drops == 0);
        for bad in [
            &b"io.systemd.credential"[..],
            b"io.systemd.credential:",
            b"io.systemd.credential:a",
            b"io.systemd.credential:=a",
        ] {
            sorter.offer_smbios(&structure(bad));
        }
        assert!(sorter.accepted.is_empty() && sorter.drops == 4);
    }

    #[test]
    fn a_star_stands_for_anything_and_nothing_else_does() {
        for (glob, name) in [
            ("*", ""),
            ("*", "x"),
            ("a*", "a"),
            ("a*b*c", "a-b-b-c"),
            ("a.b", "a.b"),
            ("**", "x"),
            ("*x", "xxx"),
        ] {
            assert!(matches(glob.as_bytes(), name.as_bytes()), "{glob} {name}");
        }
        for (glob, name) in [
            ("", "x"),
            ("a*b", "a"),
            ("a?", "ab"),
            ("a.b", "axb"),
            ("a*c", "ab"),
            ("*x", "xy"),
        ] {
            assert!(!matches(glob.as_bytes(), name.as_bytes()), "{glob} {name}");
        }
    }
}
