//! The bytes of a partition table: protective MBR, header and entries at the start of the disk,
//! entries and header again at its end.
//!
//! Format: UEFI Specification 2.10, 5.2.3 (protective MBR) and 5.3 (GPT). Tables are written as
//! every tool writes them: 128 entries of 128 bytes, directly after the primary header and directly
//! before the backup header. Tables with fewer entries are accepted, but not with more or at other
//! positions. The disk is not trusted, so each field is checked.

#[cfg(test)]
pub(super) mod tests;

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::mbr::{LegacyMbr, MbrRecord};
use super::{Guid, TableError};

/// Entries in a table.
pub const ENTRIES: usize = 128;
/// Size of an entry in bytes.
pub const ENTRY: usize = size_of::<GptEntry>();
/// UTF-16 units in a label.
pub const LABEL_UNITS: usize = 36;
/// Size of the header's fields in bytes.
const HEADER: usize = size_of::<GptHeader>();
const SIGNATURE: [u8; 8] = *b"EFI PART";
const REVISION: u32 = 0x0001_0000;

/// The header on disk, with the field names of the kernel's block/partitions/efi.h.
#[derive(Clone, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct GptHeader {
    signature: [u8; 8],
    revision: U32,
    header_size: U32,
    header_crc32: U32,
    reserved1: U32,
    my_lba: U64,
    pub(super) alternate_lba: U64,
    first_usable_lba: U64,
    last_usable_lba: U64,
    disk_guid: Guid,
    partition_entry_lba: U64,
    num_partition_entries: U32,
    sizeof_partition_entry: U32,
    partition_entry_array_crc32: U32,
}

/// An entry on disk, with the field names of the kernel's block/partitions/efi.h.
#[derive(Clone, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct GptEntry {
    partition_type_guid: Guid,
    unique_partition_guid: Guid,
    starting_lba: U64,
    ending_lba: U64,
    attributes: U64,
    partition_name: [U16; LABEL_UNITS],
}

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// The partition's type.
    pub kind: Guid,
    /// PARTUUID.
    pub id: Guid,
    /// First sector.
    pub first: u64,
    /// Last sector, inclusive.
    pub last: u64,
    /// Attribute bits.
    pub attributes: u64,
    /// At most 36 UTF-16 units. Further ones are not written.
    pub label: String,
}

impl Partition {
    /// Length in sectors.
    pub fn sectors(&self) -> u64 {
        self.last.saturating_sub(self.first).saturating_add(1)
    }

    /// Decodes an entry; `None` for an unused one.
    fn from_entry(entry: &GptEntry, number: usize) -> Result<Option<Partition>, TableError> {
        if entry.partition_type_guid == Guid::ZERO {
            return Ok(None);
        }
        let units = entry.partition_name.iter().map(|unit| unit.get());
        let label = char::decode_utf16(units.take_while(|&unit| unit != 0))
            .collect::<Result<String, _>>()
            .map_err(|_| TableError::Label(number))?;
        Ok(Some(Partition {
            kind: entry.partition_type_guid,
            id: entry.unique_partition_guid,
            first: entry.starting_lba.get(),
            last: entry.ending_lba.get(),
            attributes: entry.attributes.get(),
            label,
        }))
    }

    fn to_entry(&self) -> GptEntry {
        let mut partition_name = [U16::ZERO; LABEL_UNITS];
        for (unit, value) in partition_name.iter_mut().zip(self.label.encode_utf16()) {
            unit.set(value);
        }
        GptEntry {
            partition_type_guid: self.kind,
            unique_partition_guid: self.id,
            starting_lba: self.first.into(),
            ending_lba: self.last.into(),
            attributes: self.attributes.into(),
            partition_name,
        }
    }
}

/// The content of a partition table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionTable {
    /// The disk's GUID.
    pub disk: Guid,
    /// Sector size in bytes: 512 or 4096.
    pub sector: u32,
    /// Length of the disk in sectors, according to this table.
    pub sectors: u64,
    /// The partition with number N is at index N - 1. Entries beyond the end are unused.
    pub partitions: Vec<Option<Partition>>,
}

impl PartitionTable {
    /// Number of sectors of one copy of the entries.
    pub fn entry_sectors(&self) -> u64 {
        entry_sectors(self.sector)
    }

    /// First sector that a partition may use.
    pub fn first_usable(&self) -> u64 {
        2 + self.entry_sectors()
    }

    /// Last sector that a partition may use.
    pub fn last_usable(&self) -> u64 {
        self.sectors.saturating_sub(2 + self.entry_sectors())
    }

    /// Encodes the start of the disk: protective MBR, header, entries.
    pub fn primary(&self) -> Vec<u8> {
        let entries = self.entries();
        let mut out = self.protective_mbr();
        out.extend(self.header(&entries, 1, self.sectors.saturating_sub(1), 2));
        out.extend(entries);
        out
    }

    /// Encodes the end of the disk: entries, header.
    pub fn backup(&self) -> Vec<u8> {
        let mut out = self.entries();
        let header = self.header(
            &out,
            self.sectors.saturating_sub(1),
            1,
            self.sectors.saturating_sub(1 + self.entry_sectors()),
        );
        out.extend(header);
        out
    }

    /// Encodes the sector with the protective MBR (5.2.3): one partition of type 0xEE over the
    /// complete disk.
    pub fn protective_mbr(&self) -> Vec<u8> {
        let mbr = LegacyMbr::protective(self.protective_record());
        let mut out = mbr.as_bytes().to_vec();
        out.resize(self.sector as usize, 0);
        out
    }

    pub(super) fn protective_record(&self) -> MbrRecord {
        MbrRecord::protective(self.sectors)
    }

    fn entries(&self) -> Vec<u8> {
        let mut out = vec![0; ENTRIES * ENTRY];
        for (slot, partition) in out.chunks_exact_mut(ENTRY).zip(&self.partitions) {
            if let Some(partition) = partition {
                slot.copy_from_slice(partition.to_entry().as_bytes());
            }
        }
        out
    }

    fn header(&self, entries: &[u8], my: u64, alternate: u64, entries_at: u64) -> Vec<u8> {
        let mut header = GptHeader {
            signature: SIGNATURE,
            revision: REVISION.into(),
            header_size: (HEADER as u32).into(),
            header_crc32: U32::ZERO,
            reserved1: U32::ZERO,
            my_lba: my.into(),
            alternate_lba: alternate.into(),
            first_usable_lba: self.first_usable().into(),
            last_usable_lba: self.last_usable().into(),
            disk_guid: self.disk,
            partition_entry_lba: entries_at.into(),
            num_partition_entries: (ENTRIES as u32).into(),
            sizeof_partition_entry: (ENTRY as u32).into(),
            partition_entry_array_crc32: crc32(entries).into(),
        };
        header.header_crc32 = crc32(header.as_bytes()).into();
        let mut out = header.as_bytes().to_vec();
        out.resize(self.sector as usize, 0);
        out
    }

    /// Parses the start of a disk of `sectors` sectors; `head` needs [`head_bytes`]. The table may
    /// be for a shorter disk, because the disk may have grown since.
    pub fn parse_primary(
        head: &[u8],
        sector: u32,
        sectors: u64,
    ) -> Result<PartitionTable, TableError> {
        check_geometry(sector, sectors)?;
        let size = sector as usize;
        let header = GptHeader::parse(
            head.get(size..2 * size)
                .ok_or(TableError::TooShort("a partition table"))?,
        )?;
        let (my_lba, entries) = (header.my_lba.get(), header.partition_entry_lba.get());
        if my_lba != 1 || entries != 2 {
            return Err(TableError::PrimaryPosition { my_lba, entries });
        }
        let table = header
            .alternate_lba
            .get()
            .checked_add(1)
            .ok_or(TableError::Endless)?;
        if table > sectors {
            return Err(TableError::LongerDisk {
                table,
                disk: sectors,
            });
        }
        header.table(head.get(2 * size..).unwrap_or_default(), sector, table)
    }

    /// Parses the end of a disk of `sectors` sectors; `tail` ends with the disk and needs
    /// [`tail_bytes`].
    pub fn parse_backup(
        tail: &[u8],
        sector: u32,
        sectors: u64,
    ) -> Result<PartitionTable, TableError> {
        check_geometry(sector, sectors)?;
        let at = tail
            .len()
            .checked_sub(sector as usize)
            .ok_or(TableError::TooShort("a partition table"))?;
        let header = GptHeader::parse(&tail[at..])?;
        let (my_lba, alternate) = (header.my_lba.get(), header.alternate_lba.get());
        if my_lba != sectors - 1 || alternate != 1 {
            return Err(TableError::BackupPosition {
                my_lba,
                alternate,
                expected: sectors - 1,
            });
        }
        let entries_at = header.partition_entry_lba.get();
        let back = my_lba
            .checked_sub(entries_at)
            .and_then(|n| n.checked_mul(u64::from(sector)))
            .and_then(|n| usize::try_from(n).ok());
        match back.and_then(|back| at.checked_sub(back)) {
            Some(from) => header.table(&tail[from..at], sector, sectors),
            None => Err(TableError::EntriesPosition(entries_at)),
        }
    }

    fn check_overlaps(&self) -> Result<(), TableError> {
        let mut ranges: Vec<_> = self
            .partitions
            .iter()
            .enumerate()
            .filter_map(|(i, p)| p.as_ref().map(|p| (p.first, p.last, i + 1)))
            .collect();
        ranges.sort_unstable();
        match ranges.windows(2).find(|pair| pair[0].1 >= pair[1].0) {
            Some(pair) => Err(TableError::Overlap(pair[0].2, pair[1].2)),
            None => Ok(()),
        }
    }
}

/// Number of bytes at the start of a disk with protective MBR, header and entries.
pub fn head_bytes(sector: u32) -> usize {
    2 * sector as usize + ENTRIES * ENTRY
}

/// Number of bytes at the end of a disk with entries and header.
pub fn tail_bytes(sector: u32) -> usize {
    sector as usize + ENTRIES * ENTRY
}

fn entry_sectors(sector: u32) -> u64 {
    ((ENTRIES * ENTRY) as u64).div_ceil(u64::from(sector.max(1)))
}

fn check_geometry(sector: u32, sectors: u64) -> Result<(), TableError> {
    if sector != 512 && sector != 4096 {
        return Err(TableError::SectorSize(sector));
    }
    if sectors < 2 * entry_sectors(sector) + 4 || sectors > u64::MAX / u64::from(sector) {
        return Err(TableError::DiskSize(sectors));
    }
    Ok(())
}

impl GptHeader {
    /// Reads a header without checking it.
    pub(super) fn read_unchecked(sector: &[u8]) -> Option<GptHeader> {
        Some(GptHeader::read_from_prefix(sector).ok()?.0)
    }

    fn parse(sector: &[u8]) -> Result<GptHeader, TableError> {
        let header = GptHeader::read_unchecked(sector)
            .filter(|header| sector.len() >= 512 && header.signature == SIGNATURE)
            .ok_or(TableError::NoSignature)?;
        let size = header.header_size.get() as usize;
        if size < HEADER || size > sector.len() {
            return Err(TableError::HeaderSize(header.header_size.get()));
        }
        // The checksum covers all `size` bytes, with its own field as 0.
        let mut checked = header.clone();
        checked.header_crc32 = U32::ZERO;
        let checked = [checked.as_bytes(), &sector[HEADER..size]].concat();
        if crc32(&checked) != header.header_crc32.get() {
            return Err(TableError::HeaderChecksum);
        }
        if header.revision.get() != REVISION {
            return Err(TableError::Revision(header.revision.get()));
        }
        let (count, size) = (
            header.num_partition_entries.get(),
            header.sizeof_partition_entry.get(),
        );
        if count == 0 || count as usize > ENTRIES || size as usize != ENTRY {
            return Err(TableError::Entries { count, size });
        }
        Ok(header)
    }

    /// Checks the entries, and builds the table.
    fn table(
        &self,
        entries: &[u8],
        sector: u32,
        sectors: u64,
    ) -> Result<PartitionTable, TableError> {
        check_geometry(sector, sectors)?;
        let entries = entries
            .get(..self.num_partition_entries.get() as usize * ENTRY)
            .ok_or(TableError::TooShort("its entries"))?;
        if crc32(entries) != self.partition_entry_array_crc32.get() {
            return Err(TableError::EntriesChecksum);
        }
        let mut table = PartitionTable {
            disk: self.disk_guid,
            sector,
            sectors,
            partitions: vec![None; ENTRIES],
        };
        let usable = (self.first_usable_lba.get(), self.last_usable_lba.get());
        if usable.0 < table.first_usable() || usable.0 > usable.1 || usable.1 > table.last_usable()
        {
            return Err(TableError::Usable(usable.0, usable.1));
        }
        for (index, entry) in entries.chunks_exact(ENTRY).enumerate() {
            let number = index + 1;
            let entry =
                GptEntry::ref_from_bytes(entry).map_err(|_| TableError::TooShort("an entry"))?;
            let partition = Partition::from_entry(entry, number)?;
            if let Some(Partition { first, last, .. }) = partition
                && (first > last || first < usable.0 || last > usable.1)
            {
                return Err(TableError::Outside {
                    number,
                    first,
                    last,
                });
            }
            table.partitions[index] = partition;
        }
        table.check_overlaps()?;
        Ok(table)
    }
}

/// CRC-32 of UEFI (reflected, 0xEDB88320), bit by bit: for 16 KiB, a lookup table would cost more
/// in the agent's size than it saves in time.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |mut crc, &byte| {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
        }
        crc
    })
}
