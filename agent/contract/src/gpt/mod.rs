//! GUID partition tables: partition types and attributes, the bytes of a table
//! ([`PartitionTable`]), and the two copies on a disk ([`disk`]).
//!
//! Formats: UEFI Specification 2.10, chapter 5; Discoverable Partitions Specification (UAPI.2).

use std::fmt;
use std::str::FromStr;

pub mod disk;
pub mod grow;
mod mbr;
mod table;

pub use table::{ENTRIES, LABEL_UNITS, Partition, PartitionTable, head_bytes, tail_bytes};

use thiserror::Error;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Why a partition table is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TableError {
    /// Reading the disk failed.
    #[error("reading its start: {0}")]
    ReadStart(String),
    /// Reading the backup failed.
    #[error("{0}")]
    ReadBackup(String),
    /// Neither copy is intact.
    #[error("{0}, and there is no intact backup at the end")]
    NoBackup(Box<TableError>),
    /// The disk's sector size is not supported.
    #[error("sectors of {0} bytes, only 512 and 4096 are possible")]
    SectorSize(u32),
    /// The disk is too small for a table, or impossibly large.
    #[error("{0} sectors is no disk for a partition table")]
    DiskSize(u64),
    /// There are too few bytes.
    #[error("too short for {0}")]
    TooShort(&'static str),
    /// The signature is missing.
    #[error("no partition table (signature missing)")]
    NoSignature,
    /// The header has an impossible size.
    #[error("header of {0} bytes")]
    HeaderSize(u32),
    /// The header's checksum does not match.
    #[error("header checksum is wrong")]
    HeaderChecksum,
    /// The revision is not 1.0.
    #[error("revision {0:#x}, only 0x10000 is known")]
    Revision(u32),
    /// There are too many entries, or they have another size.
    #[error("{count} entries of {size} bytes, at most {ENTRIES} of 128 are accepted")]
    Entries {
        /// Number of entries.
        count: u32,
        /// Size of an entry in bytes.
        size: u32,
    },
    /// The entries' checksum does not match.
    #[error("entries' checksum is wrong")]
    EntriesChecksum,
    /// The primary header names other positions than its own.
    #[error("header says it is at sector {my_lba} with entries at {entries}, not 1 and 2")]
    PrimaryPosition {
        /// Sector of the header.
        my_lba: u64,
        /// First sector of the entries.
        entries: u64,
    },
    /// The backup header names other positions than its own.
    #[error(
        "header says it is at sector {my_lba} with the other at {alternate}, not {expected} and 1"
    )]
    BackupPosition {
        /// Sector of the header.
        my_lba: u64,
        /// Sector of the other header.
        alternate: u64,
        /// The disk's last sector.
        expected: u64,
    },
    /// The backup's entries are not directly before its header.
    #[error("entries at sector {0} are not next to their header")]
    EntriesPosition(u64),
    /// The table is for a disk of 2^64 sectors.
    #[error("no disk is that long")]
    Endless,
    /// The table is for a longer disk.
    #[error("the table is for a disk of {table} sectors, this one has {disk}")]
    LongerDisk {
        /// Sectors of the disk in the table.
        table: u64,
        /// Sectors of the disk.
        disk: u64,
    },
    /// The range of usable sectors is impossible.
    #[error("usable sectors {0} to {1} are impossible")]
    Usable(u64, u64),
    /// A label is not UTF-16.
    #[error("partition {0}: label is not UTF-16")]
    Label(usize),
    /// A partition is not within the usable sectors.
    #[error("partition {number}: sectors {first} to {last} lie outside the disk's usable ones")]
    Outside {
        /// Number of the partition.
        number: usize,
        /// Its first sector.
        first: u64,
        /// Its last sector.
        last: u64,
    },
    /// Two partitions overlap.
    #[error("partitions {0} and {1} overlap")]
    Overlap(usize, usize),
}

/// A GUID in its on-disk byte order (first three fields little-endian).
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Default,
    FromBytes,
    IntoBytes,
    KnownLayout,
    Immutable,
    Unaligned,
)]
#[repr(transparent)]
pub struct Guid(pub [u8; 16]);

impl Guid {
    /// All zero: an unused entry.
    pub const ZERO: Guid = Guid([0; 16]);

    /// Converts from the byte order of the text form.
    pub const fn from_text_order(b: [u8; 16]) -> Guid {
        Guid([
            b[3], b[2], b[1], b[0], b[5], b[4], b[7], b[6], b[8], b[9], b[10], b[11], b[12], b[13],
            b[14], b[15],
        ])
    }

    /// Converts to the byte order of the text form.
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

/// A text is not a GUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not a GUID (8-4-4-4-12 hexadecimal digits)")]
pub struct NotAGuid;

impl FromStr for Guid {
    type Err = NotAGuid;

    /// Parses the 8-4-4-4-12 form, in either case.
    fn from_str(text: &str) -> Result<Guid, NotAGuid> {
        let bytes = text.as_bytes();
        if bytes.len() != 36 {
            return Err(NotAGuid);
        }
        let mut out = [0u8; 16];
        let mut digits = 0;
        for (at, &c) in bytes.iter().enumerate() {
            if matches!(at, 8 | 13 | 18 | 23) {
                if c != b'-' {
                    return Err(NotAGuid);
                }
                continue;
            }
            let digit = (c as char).to_digit(16).ok_or(NotAGuid)? as u8;
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
/// Hash tree of the root, x86-64 (UAPI.2).
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
/// Attribute bit 63: not mounted automatically (UAPI.2). Set on volumes, which only the agent
/// mounts.
pub const ATTR_NO_AUTO: u64 = 1 << 63;

/// Attribute bit 48, the first bit that UEFI leaves to the type's owner: set while the file system
/// of a volume is being made, until it is durable. The content of such a partition may be
/// overwritten.
pub const ATTR_MAKING: u64 = 1 << 48;

/// Attribute bit 49: nothing was ever written to the volume. The builder sets it. The agent clears
/// it durably before it writes to the volume. With it, a short check shows whether a volume is
/// blank.
pub const ATTR_NEVER_USED: u64 = 1 << 49;

/// Returns the partition type of a volume with a mount point. /var/log has no type of its own.
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
        assert_eq!(format!("{ROOT_X86_64:?}"), format!("Guid({text})"));
    }

    #[test]
    fn volumes_have_the_type_of_their_mount_point() {
        for (mount, kind) in [
            ("/var", "4d21b016-b534-45c2-a9fb-5c16e091fd2d"),
            ("/srv", "3b8f8425-20e0-4f3b-907f-1a25a76f98e8"),
            ("/home", "933ac7e1-2eb4-4f13-b844-0e14e2aef915"),
            ("/var/log", "0fc63daf-8483-4772-8e79-3d69d8477de4"),
        ] {
            assert_eq!(volume_type(mount).to_string(), kind, "{mount}");
        }
    }
}
