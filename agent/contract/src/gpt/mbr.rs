//! The protective MBR of a disk with a GUID partition table (UEFI Specification 2.10, 5.2.3).

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A record of the MBR, with the field names of the kernel's block/partitions/efi.h.
#[derive(Debug, Clone, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct MbrRecord {
    boot_indicator: u8,
    start_head: u8,
    start_sector: u8,
    start_track: u8,
    os_type: u8,
    end_head: u8,
    end_sector: u8,
    end_track: u8,
    starting_lba: U32,
    size_in_lba: U32,
}

/// The protective MBR.
#[derive(Clone, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct LegacyMbr {
    boot_code: [u8; 440],
    unique_mbr_signature: U32,
    unknown: U16,
    partition_record: [MbrRecord; 4],
    signature: U16,
}

/// Type of the record of a protective MBR.
const EFI_PMBR_OSTYPE_EFI_GPT: u8 = 0xee;
const MSDOS_MBR_SIGNATURE: u16 = 0xaa55;

impl MbrRecord {
    /// The record of a protective MBR for a disk of `sectors` sectors.
    pub(super) fn protective(sectors: u64) -> MbrRecord {
        let length = u32::try_from(sectors.saturating_sub(1)).unwrap_or(u32::MAX);
        MbrRecord {
            boot_indicator: 0,
            start_head: 0,
            start_sector: 2,
            start_track: 0,
            os_type: EFI_PMBR_OSTYPE_EFI_GPT,
            end_head: 0xff,
            end_sector: 0xff,
            end_track: 0xff,
            starting_lba: 1.into(),
            size_in_lba: length.into(),
        }
    }
}

impl LegacyMbr {
    /// The MBR with this record alone.
    pub(super) fn protective(record: MbrRecord) -> LegacyMbr {
        let mut mbr = LegacyMbr::new_zeroed();
        mbr.signature = MSDOS_MBR_SIGNATURE.into();
        mbr.set_record(0, record);
        mbr
    }

    /// Reads the MBR at the start of a disk; `None` without its signature.
    pub(super) fn parse(head: &[u8]) -> Option<LegacyMbr> {
        let (mbr, _) = LegacyMbr::read_from_prefix(head).ok()?;
        (mbr.signature.get() == MSDOS_MBR_SIGNATURE).then_some(mbr)
    }

    /// The index of the protective record, and the number of sectors that it covers.
    pub(super) fn protective_record(&self) -> Option<(usize, u32)> {
        self.partition_record
            .iter()
            .position(|record| {
                record.os_type == EFI_PMBR_OSTYPE_EFI_GPT && record.starting_lba.get() == 1
            })
            .map(|index| (index, self.partition_record[index].size_in_lba.get()))
    }

    /// Replaces a record.
    pub(super) fn set_record(&mut self, index: usize, record: MbrRecord) {
        if let Some(slot) = self.partition_record.get_mut(index) {
            *slot = record;
        }
    }
}
