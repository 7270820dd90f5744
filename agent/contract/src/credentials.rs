//! System credentials (systemd.system-credentials(7)), and the rule that decides which of them
//! reach the image's init.
//!
//! Promise: [`Sorter`] accepts a credential only if the policy names it, only once, and within
//! bounds. It drops all others and counts them with a reason. Values are arbitrary bytes, and
//! appear in no message.

use base64ct::{Base64, Encoding};

use crate::cmdline;

/// Largest size in bytes of all values together: systemd's own limit.
pub const LIMIT: usize = 1 << 20;
/// Largest number of accepted credentials.
pub const MAX_ACCEPTED: usize = 256;
/// Number of dropped credentials that are listed. Further ones are only counted.
pub const MAX_NAMED: usize = 64;
/// Longest name in bytes: that of a file.
const NAME_LIMIT: usize = 255;

/// Origin of a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CredentialSource {
    /// QEMU's firmware configuration, `opt/io.systemd.credentials/NAME`.
    FwCfg,
    /// An SMBIOS string of type 11.
    Smbios,
    /// The kernel command line.
    CommandLine,
    /// The EFI system partition. It is not protected against writes, so systemd accepts only
    /// credentials that were encrypted for this machine.
    Esp,
}

impl CredentialSource {
    /// The name in messages and in the boot report.
    pub fn name(self) -> &'static str {
        match self {
            CredentialSource::FwCfg => "fw_cfg",
            CredentialSource::Smbios => "SMBIOS",
            CredentialSource::CommandLine => "the command line",
            CredentialSource::Esp => "the EFI system partition",
        }
    }
}

/// An accepted credential.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// Its name.
    pub name: String,
    /// Its value: arbitrary bytes.
    pub value: Vec<u8>,
    /// Its origin.
    pub source: CredentialSource,
}

/// A dropped credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    /// Its name: printable, at most 64 characters.
    pub name: String,
    /// Its origin.
    pub source: CredentialSource,
    /// Why it was dropped.
    pub why: &'static str,
}

/// Accepts or drops credentials in the order in which they are offered. Of two with the same name
/// the first one counts.
pub struct Sorter<'a> {
    accept: &'a [String],
    /// The accepted credentials.
    pub accepted: Vec<Credential>,
    /// The first [`MAX_NAMED`] dropped credentials.
    pub dropped: Vec<Dropped>,
    /// Number of dropped credentials.
    pub drops: u64,
    bytes: usize,
}

impl<'a> Sorter<'a> {
    /// A sorter that accepts the names that match one of these patterns.
    pub fn new(accept: &'a [String]) -> Sorter<'a> {
        Sorter {
            accept,
            accepted: Vec::new(),
            dropped: Vec::new(),
            drops: 0,
            bytes: 0,
        }
    }

    /// Accepts or drops a credential. Calls `value` only if the name is accepted.
    pub fn offer(
        &mut self,
        source: CredentialSource,
        name: &[u8],
        value: impl FnOnce() -> Result<Vec<u8>, &'static str>,
    ) {
        if let Err(why) = self.take(source, name, value) {
            self.drop(source, name, why);
        }
    }

    /// Drops a credential that is malformed or cannot be read.
    pub fn drop(&mut self, source: CredentialSource, name: &[u8], why: &'static str) {
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
        source: CredentialSource,
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
        let encrypted = source == CredentialSource::Esp;
        if self
            .accepted
            .iter()
            .any(|there| there.name == name && (there.source == CredentialSource::Esp) == encrypted)
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

    /// Offers the credentials among the OEM strings of an SMBIOS structure (SMBIOS 3.7, 7.12). It
    /// has a formatted part, whose length is the second byte, and then strings that end with
    /// NUL. A string has the value as text or in Base64.
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
                    self.offer(CredentialSource::Smbios, name, || Ok(value.to_vec()))
                }
                (b"io.systemd.credential.binary", Some((name, value))) => {
                    self.offer(CredentialSource::Smbios, name, || decode(value))
                }
                (b"io.systemd.credential" | b"io.systemd.credential.binary", None) => {
                    self.drop(CredentialSource::Smbios, rest, "it is not NAME=VALUE")
                }
                _ => self.drop(CredentialSource::Smbios, kind, "unknown kind of credential"),
            }
        }
    }

    /// Offers the credentials on a kernel command line: `systemd.set_credential=NAME:VALUE`, and
    /// `systemd.set_credential_binary=NAME:BASE64`.
    pub fn offer_command_line(&mut self, line: &[u8]) {
        for (key, binary) in [
            ("systemd.set_credential", false),
            ("systemd.set_credential_binary", true),
        ] {
            for word in cmdline::values(line, key) {
                let Some((name, value)) = word.split_once(':') else {
                    // systemd looks up the value of a credential without one in other sources. The
                    // agent has no others.
                    self.drop(
                        CredentialSource::CommandLine,
                        word.as_bytes(),
                        "it is not NAME:VALUE",
                    );
                    continue;
                };
                let value = value.as_bytes();
                self.offer(CredentialSource::CommandLine, name.as_bytes(), || {
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
    std::str::from_utf8(digits)
        .ok()
        .and_then(|digits| Base64::decode_vec(digits).ok())
        .ok_or("it is not base64")
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

/// Whether this is a valid glob in a policy: a credential name in which `*` matches any characters.
pub fn is_glob(glob: &str) -> bool {
    is_name(glob)
}

/// Whether one of a policy's globs lets a name through.
pub fn is_accepted(accept: &[String], name: &str) -> bool {
    accept
        .iter()
        .any(|glob| matches(glob.as_bytes(), name.as_bytes()))
}

/// Whether the glob matches the name. `*` matches any number of bytes.
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
    fn accepts_only_named_credentials_and_the_first_of_two() {
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
                ("io.systemd.credential.odd", "unknown kind of credential"),
                ("abc", "it is not NAME=VALUE"),
                ("ssh.key", "it was given before"),
                ("aXc", "it is not base64")
            ]
        );
    }

    #[test]
    fn drops_invalid_names_and_too_many_or_too_large_credentials() {
        let accept = globs(&["*"]);
        let mut sorter = Sorter::new(&accept);
        for name in ["", ".", "..", "a/b", "a:b", "a\nb", "ä", &"x".repeat(256)] {
            sorter.offer(CredentialSource::FwCfg, name.as_bytes(), || {
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
        sorter.offer(CredentialSource::FwCfg, b"large", || Ok(vec![0; LIMIT + 1]));
        assert!(sorter.accepted.is_empty() && sorter.drops == 9);
        for number in 0..10_000 {
            sorter.offer(
                CredentialSource::Smbios,
                format!("n{number}").as_bytes(),
                || Ok(vec![0; 8]),
            );
        }
        assert_eq!(
            (sorter.accepted.len(), sorter.drops, sorter.dropped.len()),
            (MAX_ACCEPTED, 9 + 10_000 - MAX_ACCEPTED as u64, MAX_NAMED)
        );
    }

    #[test]
    fn never_uses_a_credential_of_the_esp_in_place_of_another_source_s() {
        let accept = globs(&["*"]);
        let mut sorter = Sorter::new(&accept);
        sorter.offer(CredentialSource::Esp, b"a", || Ok(vec![1]));
        sorter.offer(CredentialSource::FwCfg, b"a", || Ok(vec![2]));
        assert_eq!(sorter.accepted.len(), 2);
    }

    #[test]
    fn finds_nothing_in_structures_with_wrong_lengths() {
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
    fn matches_anything_with_a_star_and_only_with_a_star() {
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
