//! Extended headers of POSIX.1-2001 (`pax`): records of `LENGTH KEY=VALUE\n`, with the keys that
//! star, GNU tar and libarchive added.

use std::collections::{BTreeMap, BTreeSet};

use base64ct::{Base64Unpadded, Encoding};

use crate::error::{Error, Result};
use crate::percent;
use crate::tree::{NAME_MAX, Time};

/// Maximum length of an extended header, bytes. Linux limits the attributes of a file to 64 KiB,
/// and names have a few KiB.
pub const LENGTH_MAX: u64 = 1 << 20;
/// Maximum length of an attribute's value, bytes: EROFS has a 16-bit length field.
const VALUE_MAX: usize = 65535;

/// Attributes by name.
type AttributeMap = BTreeMap<Box<[u8]>, Box<[u8]>>;

/// The metadata of an entry from extended headers.
#[derive(Clone, Debug, Default)]
pub struct Pax {
    /// Name.
    pub path: Option<Vec<u8>>,
    /// Target of a link.
    pub link: Option<Vec<u8>>,
    /// Length of the content that follows, bytes.
    pub size: Option<u64>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// The owner's name.
    pub owner: Option<Vec<u8>>,
    /// The group's name.
    pub group: Option<Vec<u8>>,
    /// Modification time.
    pub mtime: Option<Time>,
    /// Access control list of the entry, as text.
    pub acl_access: Option<Vec<u8>>,
    /// Default access control list of a directory, as text.
    pub acl_default: Option<Vec<u8>>,
    /// GNU tar's keys for sparse files.
    pub sparse: SparseKeys,
    /// Names of attributes that describe the file system of the archived files.
    pub left_out: BTreeSet<Vec<u8>>,
    schily: AttributeMap,
    libarchive: AttributeMap,
}

/// GNU's keys for sparse files.
#[derive(Clone, Debug, Default)]
pub struct SparseKeys {
    /// Major version of the format.
    pub major: Option<u64>,
    /// Minor version of the format.
    pub minor: Option<u64>,
    /// Name of the file; the name in the header is a placeholder.
    pub name: Option<Vec<u8>>,
    /// Length of the file with its holes (`size` in 0.0 and 0.1, `realsize` in 1.0).
    pub real_size: Option<u64>,
    /// Alternating offsets and lengths of 0.0 and 0.1.
    pub map: Option<Vec<u64>>,
}

impl Pax {
    /// Adds the records of one header. A `global` header applies to all following entries.
    pub fn read(&mut self, mut records: &[u8], global: bool) -> Result<()> {
        while !records.is_empty() {
            let (record, rest) = next(records)?;
            let equals = record
                .iter()
                .position(|&byte| byte == b'=')
                .ok_or_else(|| malformed("a record without `=`"))?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            if global
                && (matches!(key, b"path" | b"linkpath" | b"size")
                    || key.starts_with(b"GNU.sparse."))
            {
                return Err(Error::new(format!(
                    "a global extended header gives every entry the same {}",
                    key.escape_ascii()
                )));
            }
            self.record(key, value).map_err(|why| {
                Error::new(format!(
                    "{} in an extended header: {why}",
                    key.escape_ascii()
                ))
            })?;
            records = rest;
        }
        Ok(())
    }

    /// All attributes. If an attribute has both forms, star's wins: it needs no second encoding.
    pub fn xattrs(&self) -> AttributeMap {
        let mut all = self.libarchive.clone();
        all.extend(
            self.schily
                .iter()
                .map(|(name, value)| (name.clone(), value.clone())),
        );
        all
    }

    /// Applies one record. An empty value removes a key. Keys without a counterpart in the tree
    /// (comments, other times, character sets) are ignored.
    fn record(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        let text = || (!value.is_empty()).then(|| value.to_vec());
        match key {
            b"path" => self.path = name(value)?,
            b"linkpath" => self.link = name(value)?,
            b"size" => self.size = number(value)?,
            b"uid" => self.uid = id(value)?,
            b"gid" => self.gid = id(value)?,
            b"uname" => self.owner = text(),
            b"gname" => self.group = text(),
            b"mtime" => {
                self.mtime = if value.is_empty() {
                    None
                } else {
                    Some(time(value)?)
                }
            }
            b"SCHILY.acl.access" => self.acl_access = text(),
            b"SCHILY.acl.default" => self.acl_default = text(),
            b"SCHILY.acl.ace" => {
                return Err("EROFS does not support NFSv4 access control lists".into());
            }
            // The kernel stores a NUL after the label, which the record omits.
            b"RHT.security.selinux" => attribute(
                &mut self.schily,
                b"security.selinux",
                &[value, b"\0"].concat(),
            )?,
            b"GNU.sparse.major" => self.sparse.major = number(value)?,
            b"GNU.sparse.minor" => self.sparse.minor = number(value)?,
            b"GNU.sparse.name" => self.sparse.name = name(value)?,
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.sparse.real_size = number(value)?,
            b"GNU.sparse.numblocks" => {}
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                let map = self.sparse.map.get_or_insert_default();
                if map.len() % 2 != usize::from(key.ends_with(b"numbytes")) {
                    return Err("offsets and lengths must alternate".into());
                }
                map.push(number(value)?.ok_or("an empty number")?);
            }
            b"GNU.sparse.map" => {
                let numbers = value
                    .split(|&byte| byte == b',')
                    .map(|part| number(part)?.ok_or_else(|| "an empty number".to_owned()));
                self.sparse.map = Some(if value.is_empty() {
                    Vec::new()
                } else {
                    numbers.collect::<Result<_, String>>()?
                });
            }
            _ if key.starts_with(b"SCHILY.xattr.") => match unquote(&key[13..]) {
                name if is_of_file_system(&name) => drop(self.left_out.insert(name)),
                name => attribute(&mut self.schily, &name, value)?,
            },
            _ if key.starts_with(b"LIBARCHIVE.xattr.") => {
                match percent::decode(&key[17..]).ok_or("a `%` without two digits")? {
                    name if is_of_file_system(&name) => drop(self.left_out.insert(name)),
                    name => attribute(&mut self.libarchive, &name, &base64(value)?)?,
                }
            }
            _ => log::debug!("extended header: {} is ignored", key.escape_ascii()),
        }
        Ok(())
    }
}

/// The value of the next record without its length and newline, and the remaining bytes.
fn next(records: &[u8]) -> Result<(&[u8], &[u8])> {
    let space = records
        .iter()
        .take(20)
        .position(|&byte| byte == b' ')
        .ok_or_else(|| malformed("a record without a length"))?;
    let length = decimal(&records[..space])
        .and_then(|length| usize::try_from(length).ok())
        .ok_or_else(|| malformed("a length that is not a number"))?;
    if length <= space + 1 || length > records.len() {
        return Err(malformed("a record longer than the header"));
    }
    let (record, rest) = records.split_at(length);
    match record[space + 1..].split_last() {
        Some((b'\n', record)) => Ok((record, rest)),
        _ => Err(malformed(
            "a record that does not end where its length says",
        )),
    }
}

fn malformed(why: &str) -> Error {
    Error::new(format!("extended header: {why}"))
        .hint("the archive is damaged: make or fetch it again")
}

fn name(value: &[u8]) -> Result<Option<Vec<u8>>, String> {
    match value {
        [] => Ok(None),
        _ if value.contains(&0) => Err("a name can't hold a NUL".into()),
        _ => Ok(Some(value.to_vec())),
    }
}

fn number(value: &[u8]) -> Result<Option<u64>, String> {
    match value {
        [] => Ok(None),
        _ => decimal(value)
            .map(Some)
            .ok_or_else(|| format!("\"{}\" is not a number below 2^64", value.escape_ascii())),
    }
}

fn id(value: &[u8]) -> Result<Option<u32>, String> {
    number(value)?
        .map(|id| {
            u32::try_from(id)
                .map_err(|_| format!("{id} is more than the largest number of Linux, 4294967295"))
        })
        .transpose()
}

/// A decimal number without a sign.
pub fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Seconds with a fraction and a sign. More than nine digits are rounded towards the past, as the
/// standard requires.
fn time(value: &[u8]) -> Result<Time, String> {
    let wrong = || format!("\"{}\" is not a time", value.escape_ascii());
    let (negative, digits) = match value {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, value),
    };
    let (whole, fraction) = match digits.iter().position(|&byte| byte == b'.') {
        Some(dot) => (&digits[..dot], &digits[dot + 1..]),
        None => (digits, &[][..]),
    };
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err(wrong());
    }
    let whole = decimal(whole)
        .and_then(|whole| i64::try_from(whole).ok())
        .ok_or_else(wrong)?;
    let mut nanoseconds = (0..9).fold(0u32, |value, place| {
        value * 10
            + fraction
                .get(place)
                .map_or(0, |digit| u32::from(digit - b'0'))
    });
    let mut seconds = whole;
    if negative {
        // -1.25 s is 0.75 s after -2 s.
        nanoseconds += u32::from(fraction.iter().skip(9).any(|&digit| digit != b'0'));
        seconds = -whole;
        if nanoseconds > 0 {
            seconds -= 1;
            nanoseconds = 1_000_000_000 - nanoseconds;
        }
    }
    Ok(Time {
        seconds,
        nanoseconds,
    })
}

/// Whether an attribute describes the file system of the archived files (btrfs, NFS, CIFS, NTFS)
/// and not the file. Archivers that copy all attributes include these.
fn is_of_file_system(name: &[u8]) -> bool {
    name.starts_with(b"btrfs.")
        || name.starts_with(b"system.") && !name.starts_with(b"system.posix_acl_")
}

/// Adds an attribute, if the image's kernel can return it.
fn attribute(all: &mut AttributeMap, name: &[u8], value: &[u8]) -> Result<(), String> {
    let known = name == b"system.posix_acl_access"
        || name == b"system.posix_acl_default"
        || [&b"user."[..], b"trusted.", b"security."]
            .iter()
            .any(|space| {
                name.strip_prefix(*space)
                    .is_some_and(|rest| !rest.is_empty())
            });
    if !known {
        return Err("EROFS supports only attributes in user, trusted, security and system.posix_acl_* (leave others out with `--xattrs-exclude`)".into());
    }
    if name.len() > NAME_MAX || name.contains(&0) {
        return Err(format!(
            "the name of an attribute has at most {NAME_MAX} bytes and no NUL"
        ));
    }
    if value.len() > VALUE_MAX {
        return Err(format!(
            "{} bytes, more than the {VALUE_MAX} of EROFS",
            value.len()
        ));
    }
    all.insert(name.into(), value.into());
    Ok(())
}

/// Decodes an attribute name: GNU tar writes `%` and `=` as %25 and %3D.
fn unquote(name: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((&byte, after)) = rest.split_first() {
        match rest.get(..3) {
            Some(b"%25") => out.push(b'%'),
            Some(b"%3D" | b"%3d") => out.push(b'='),
            _ => {
                out.push(byte);
                rest = after;
                continue;
            }
        }
        rest = &rest[3..];
    }
    out
}

/// Decodes Base64 (RFC 4648), with or without padding.
fn base64(text: &[u8]) -> Result<Vec<u8>, String> {
    let padding = text.iter().rev().take_while(|&&byte| byte == b'=').count();
    std::str::from_utf8(&text[..text.len() - padding])
        .ok()
        .filter(|_| padding <= 2)
        .and_then(|digits| Base64Unpadded::decode_vec(digits).ok())
        .ok_or_else(|| "the value is not Base64".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_kept_to_the_nanosecond_before_and_after_1970() {
        for (text, seconds, nanoseconds) in [
            ("0", 0, 0),
            ("1700000000.123456789", 1_700_000_000, 123_456_789),
            ("1.5", 1, 500_000_000),
            ("1.0000000019", 1, 1),
            ("-1.25", -2, 750_000_000),
            ("-0.000000001", -1, 999_999_999),
            ("-1.0000000001", -2, 999_999_999),
            ("-5", -5, 0),
            ("9223372036854775807", i64::MAX, 0),
            ("-9223372036854775807", -i64::MAX, 0),
            ("-9223372036854775807.5", i64::MIN, 500_000_000),
            ("7.", 7, 0),
        ] {
            assert_eq!(
                time(text.as_bytes()),
                Ok(Time {
                    seconds,
                    nanoseconds
                }),
                "{text}"
            );
        }
        for text in [
            "",
            "-",
            ".",
            "1e5",
            "1.5x",
            "9223372036854775808",
            "--1",
            "+1",
            "1.-5",
        ] {
            assert!(time(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn decodes_base64_with_and_without_padding() {
        assert_eq!(base64(b"YQ=="), Ok(b"a".to_vec()));
        assert_eq!(base64(b"YWI"), Ok(b"ab".to_vec()));
        assert_eq!(base64(b"YWJj"), Ok(b"abc".to_vec()));
        assert_eq!(base64(b""), Ok(Vec::new()));
        assert!(base64(b"Y").is_err() && base64(b"YQ===").is_err() && base64(b"Y*==").is_err());
    }

    #[test]
    fn refuses_malformed_records() {
        for records in [
            "5",
            "0 \n",
            "5 a=b\n",
            "7 a=b\n",
            "99 a=b\n",
            "99999999999999999999 a=b\n",
            "-6 a=b\n",
            "6 abc\n",
            "6 a=b\n\0\0",
        ] {
            assert!(
                Pax::default().read(records.as_bytes(), false).is_err(),
                "{records:?}"
            );
        }
        Pax::default().read(b"6 a=b\n6 c=d\n", false).unwrap();
    }
}
