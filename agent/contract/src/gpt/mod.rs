//! GUID partition tables: the types and labels this project uses; a table's bytes ([`Table`]), and
//! a disk's two copies of it ([`disk`]).
//!
//! Formats: UEFI Specification 2.10, chapter 5; Discoverable Partitions Specification (UAPI.2).

use std::fmt;
use std::str::FromStr;

pub mod disk;
pub mod grow;
mod table;

pub use table::{ENTRIES, LABEL_UNITS, Partition, Table, head_bytes, tail_bytes};

/// Why bytes are not a table this project accepts: a clause for a person.
pub type Refusal = String;

/// A GUID in its on-disk byte order (first three fields little-endian).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Guid(pub [u8; 16]);

impl Guid {
    /// All zero: an unused entry.
    pub const ZERO: Guid = Guid([0; 16]);

    /// From 16 bytes in the order in which they are written as text.
    pub const fn from_text_order(b: [u8; 16]) -> Guid {
        Guid([
            b[3], b[2], b[1], b[0], b[5], b[4], b[7], b[6], b[8], b[9], b[10], b[11], b[12], b[13],
            b[14], b[15],
        ])
    }

    /// The 16 bytes in the order in which they are written as text.
    pub const fn text_order(&self) -> [u8; 16] {
        // The swap is its own inverse.
        Guid::from_text_order(self.0).0
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = crate::hex::encode(&self.text_order());
        write!(
            f,
            "{}-{}-{}-{}-{}",
            &hex[0..8],
            &hex[8..12],
            &hex[12..16],
            &hex[16..20],
            &hex[20..32]
        )
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Guid({self})")
    }
}

impl FromStr for Guid {
    type Err = &'static str;

    /// Takes the 8-4-4-4-12 form, of either case.
    fn from_str(text: &str) -> Result<Guid, &'static str> {
        const WRONG: &str = "not a GUID (8-4-4-4-12 hexadecimal digits)";
        let bytes = text.as_bytes();
        if bytes.len() != 36 {
            return Err(WRONG);
        }
        let mut out = [0u8; 16];
        let mut digits = 0;
        for (at, &c) in bytes.iter().enumerate() {
            if matches!(at, 8 | 13 | 18 | 23) {
                if c != b'-' {
                    return Err(WRONG);
                }
                continue;
            }
            let digit = (c as char).to_digit(16).ok_or(WRONG)? as u8;
            out[digits / 2] = out[digits / 2] << 4 | digit;
            digits += 1;
        }
        Ok(Guid::from_text_order(out))
    }
}

const fn hex_guid(high: u64, low: u64) -> Guid {
    let (h, l) = (high.to_be_bytes(), low.to_be_bytes());
    Guid::from_text_order([
        h[0], h[1], h[2], h[3], h[4], h[5], h[6], h[7], l[0], l[1], l[2], l[3], l[4], l[5], l[6],
        l[7],
    ])
}

/// Root file system, x86-64 (UAPI.2).
pub const ROOT_X86_64: Guid = hex_guid(0x4f68bce3e8cd4db1, 0x96e7fbcaf984b709);
/// Verity tree of the root, x86-64 (UAPI.2).
pub const ROOT_VERITY_X86_64: Guid = hex_guid(0x2c7357edebd246d9, 0xaec123d437ec2bf5);
/// Type: signature of the root hash.
pub const ROOT_VERITY_SIG_X86_64: Guid = hex_guid(0x41092b059fc84523, 0x994f2def0408b176);
/// Type: EFI system partition.
pub const EFI_SYSTEM: Guid = hex_guid(0xc12a7328f81f11d2, 0xba4b00a0c93ec93b);
/// /var (UAPI.2).
pub const VAR: Guid = hex_guid(0x4d21b016b53445c2, 0xa9fb5c16e091fd2d);
/// /srv (UAPI.2).
pub const SRV: Guid = hex_guid(0x3b8f842520e04f3b, 0x907f1a25a76f98e8);
/// /home (UAPI.2).
pub const HOME: Guid = hex_guid(0x933ac7e12eb44f13, 0xb8440e14e2aef915);
/// Any Linux file system.
pub const LINUX_GENERIC: Guid = hex_guid(0x0fc63daf84834772, 0x8e793d69d8477de4);

/// Attribute bit 60: the partition is read-only (UAPI.2).
pub const ATTR_READ_ONLY: u64 = 1 << 60;
/// Attribute bit 63: nothing mounts it by itself (UAPI.2). Set on volumes, which are the agent's
/// alone.
pub const ATTR_NO_AUTO: u64 = 1 << 63;

/// Attribute bit 48, the first that UEFI leaves to the type's owner: set while a volume has no file
/// system of its own yet, from before it is first written to until what was made is durable.
/// Whatever is in such a partition may be overwritten.
pub const ATTR_MAKING: u64 = 1 << 48;

/// Attribute bit 49: set by the builder on a volume into which nothing was ever written, and taken
/// away by the agent, in a write of the table that is durable before anything is written to the
/// volume. Whether it is blank takes a short look then.
pub const ATTR_NEVER_USED: u64 = 1 << 49;

/// The partition type of a volume, by its mount point. There is none for /var/log, so that is a
/// generic one.
pub fn volume_type(mount: &str) -> Guid {
    match mount {
        "/var" => VAR,
        "/srv" => SRV,
        "/home" => HOME,
        _ => LINUX_GENERIC,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guids_read_and_print_in_text_order() {
        let text = "4f68bce3-e8cd-4db1-96e7-fbcaf984b709";
        assert_eq!(ROOT_X86_64.to_string(), text);
        assert_eq!(text.parse(), Ok(ROOT_X86_64));
        assert_eq!(ROOT_X86_64.0[..4], [0xe3, 0xbc, 0x68, 0x4f]);
        assert!(
            "4f68bce3e8cd-4db1-96e7-fbcaf984b70900"
                .parse::<Guid>()
                .is_err()
        );
    }
}
