//! A partition table as bytes: protective MBR, header and entries in front, entries and header
//! again at the end.
//!
//! Format: UEFI Specification 2.10, 5.2.3 (protective MBR) and 5.3 (GPT). What is written has 128
//! entries of 128 bytes, directly behind the header in front and directly before it at the end, as
//! every tool writes them. What is read may have fewer entries, not more and not elsewhere: each
//! field is checked, because the disk is not trusted.

use super::{Guid, Refusal};

/// Entries in a table.
pub const ENTRIES: usize = 128;
/// Size of an entry, bytes.
pub const ENTRY: usize = 128;
/// UTF-16 units in a label.
pub const LABEL_UNITS: usize = 36;
/// Size of the header's fields, bytes.
const HEADER: usize = 92;
const SIGNATURE: &[u8; 8] = b"EFI PART";
const REVISION: u32 = 0x0001_0000;

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Its type.
    pub kind: Guid,
    /// Its own id, PARTUUID.
    pub id: Guid,
    /// First sector.
    pub first: u64,
    /// Last sector, which belongs to it.
    pub last: u64,
    /// Attribute bits.
    pub attributes: u64,
    /// At most 36 UTF-16 units; what is beyond them is not written.
    pub label: String,
}

impl Partition {
    /// Its length in sectors.
    pub fn sectors(&self) -> u64 {
        self.last.saturating_sub(self.first).saturating_add(1)
    }
}

/// A whole table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// The disk's id.
    pub disk: Guid,
    /// Size of a sector, bytes: 512 or 4096.
    pub sector: u32,
    /// The disk's length in sectors, as this table knows it.
    pub sectors: u64,
    /// By partition number less one; shorter than [`ENTRIES`] means that the rest is unused.
    pub partitions: Vec<Option<Partition>>,
}

impl Table {
    /// Sectors of one copy of the entries.
    pub fn entry_sectors(&self) -> u64 {
        entry_sectors(self.sector)
    }

    /// First sector a partition may use.
    pub fn first_usable(&self) -> u64 {
        2 + self.entry_sectors()
    }

    /// Last sector a partition may use.
    pub fn last_usable(&self) -> u64 {
        self.sectors.saturating_sub(2 + self.entry_sectors())
    }

    /// What stands at the start of the disk: protective MBR, header, entries.
    pub fn primary(&self) -> Vec<u8> {
        let entries = self.entries();
        let mut out = self.protective_mbr();
        out.extend(self.header(&entries, 1, self.sectors.saturating_sub(1), 2));
        out.extend(entries);
        out
    }

    /// What stands at the end of the disk: entries, header. Its last byte is the disk's last.
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

    /// The protective MBR's sector (5.2.3): one partition of type 0xEE over the whole disk.
    pub fn protective_mbr(&self) -> Vec<u8> {
        let mut out = vec![0; self.sector as usize];
        out[446..462].copy_from_slice(&self.protective_record());
        out[510..512].copy_from_slice(&[0x55, 0xaa]);
        out
    }

    pub(super) fn protective_record(&self) -> [u8; 16] {
        let mut record = [
            0x00, 0x00, 0x02, 0x00, 0xee, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0, 0, 0, 0,
        ];
        let length = u32::try_from(self.sectors.saturating_sub(1)).unwrap_or(u32::MAX);
        record[12..].copy_from_slice(&length.to_le_bytes());
        record
    }

    fn entries(&self) -> Vec<u8> {
        let mut out = vec![0; ENTRIES * ENTRY];
        for (slot, partition) in out.chunks_exact_mut(ENTRY).zip(&self.partitions) {
            let Some(partition) = partition else { continue };
            slot[0..16].copy_from_slice(&partition.kind.0);
            slot[16..32].copy_from_slice(&partition.id.0);
            slot[32..40].copy_from_slice(&partition.first.to_le_bytes());
            slot[40..48].copy_from_slice(&partition.last.to_le_bytes());
            slot[48..56].copy_from_slice(&partition.attributes.to_le_bytes());
            for (unit, value) in slot[56..]
                .chunks_exact_mut(2)
                .zip(partition.label.encode_utf16())
            {
                unit.copy_from_slice(&value.to_le_bytes());
            }
        }
        out
    }

    fn header(&self, entries: &[u8], own: u64, other: u64, entries_at: u64) -> Vec<u8> {
        let mut out = vec![0; self.sector as usize];
        out[0..8].copy_from_slice(SIGNATURE);
        out[8..12].copy_from_slice(&REVISION.to_le_bytes());
        out[12..16].copy_from_slice(&(HEADER as u32).to_le_bytes());
        out[24..32].copy_from_slice(&own.to_le_bytes());
        out[32..40].copy_from_slice(&other.to_le_bytes());
        out[40..48].copy_from_slice(&self.first_usable().to_le_bytes());
        out[48..56].copy_from_slice(&self.last_usable().to_le_bytes());
        out[56..72].copy_from_slice(&self.disk.0);
        out[72..80].copy_from_slice(&entries_at.to_le_bytes());
        out[80..84].copy_from_slice(&(ENTRIES as u32).to_le_bytes());
        out[84..88].copy_from_slice(&(ENTRY as u32).to_le_bytes());
        out[88..92].copy_from_slice(&crc32(entries).to_le_bytes());
        let crc = crc32(&out[..HEADER]);
        out[16..20].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads what stands at the start of a disk of `sectors` sectors; `head` needs [`head_bytes`].
    /// The table may know a shorter disk: it has grown.
    pub fn parse_primary(head: &[u8], sector: u32, sectors: u64) -> Result<Table, Refusal> {
        check_geometry(sector, sectors)?;
        let size = sector as usize;
        let header = Header::parse(
            head.get(size..2 * size)
                .ok_or("too short for a partition table")?,
        )?;
        if header.own != 1 || header.entries_at != 2 {
            return Err(format!(
                "header says it is at sector {} with entries at {}, not 1 and 2",
                header.own, header.entries_at
            ));
        }
        let known = header.other.checked_add(1).ok_or("no disk is that long")?;
        if known > sectors {
            return Err(format!(
                "the table is for a disk of {known} sectors, this one has {sectors}"
            ));
        }
        header.table(head.get(2 * size..).unwrap_or_default(), sector, known)
    }

    /// Reads what stands at the end of a disk of `sectors` sectors; `tail` ends with the disk and
    /// needs [`tail_bytes`].
    pub fn parse_backup(tail: &[u8], sector: u32, sectors: u64) -> Result<Table, Refusal> {
        check_geometry(sector, sectors)?;
        let at = tail
            .len()
            .checked_sub(sector as usize)
            .ok_or("too short for a partition table")?;
        let header = Header::parse(&tail[at..])?;
        if header.own != sectors - 1 || header.other != 1 {
            return Err(format!(
                "header says it is at sector {} with the other at {}, not {} and 1",
                header.own,
                header.other,
                sectors - 1
            ));
        }
        let back = header
            .own
            .checked_sub(header.entries_at)
            .and_then(|n| n.checked_mul(u64::from(sector)))
            .and_then(|n| usize::try_from(n).ok());
        match back.and_then(|back| at.checked_sub(back)) {
            Some(from) => header.table(&tail[from..at], sector, sectors),
            None => Err(format!(
                "entries at sector {} are not next to their header",
                header.entries_at
            )),
        }
    }
}

/// Bytes at the start of a disk that hold protective MBR, header and entries.
pub fn head_bytes(sector: u32) -> usize {
    2 * sector as usize + ENTRIES * ENTRY
}

/// Bytes at the end of a disk that hold entries and header.
pub fn tail_bytes(sector: u32) -> usize {
    sector as usize + ENTRIES * ENTRY
}

fn entry_sectors(sector: u32) -> u64 {
    ((ENTRIES * ENTRY) as u64).div_ceil(u64::from(sector.max(1)))
}

fn check_geometry(sector: u32, sectors: u64) -> Result<(), Refusal> {
    if sector != 512 && sector != 4096 {
        return Err(format!(
            "sectors of {sector} bytes, only 512 and 4096 are possible"
        ));
    }
    if sectors < 2 * entry_sectors(sector) + 4 || sectors > u64::MAX / u64::from(sector) {
        return Err(format!(
            "{sectors} sectors is no disk for a partition table"
        ));
    }
    Ok(())
}

/// The header's fields that vary.
struct Header {
    own: u64,
    other: u64,
    first_usable: u64,
    last_usable: u64,
    disk: Guid,
    entries_at: u64,
    count: usize,
    entries_crc: u32,
}

impl Header {
    fn parse(sector: &[u8]) -> Result<Header, Refusal> {
        if sector.len() < 512 || &sector[0..8] != SIGNATURE {
            return Err("no partition table (signature missing)".to_owned());
        }
        let size = u32_at(sector, 12) as usize;
        if size < HEADER || size > sector.len() {
            return Err(format!("header of {size} bytes"));
        }
        let mut checked = sector[..size].to_vec();
        checked[16..20].fill(0);
        if crc32(&checked) != u32_at(sector, 16) {
            return Err("header checksum is wrong".to_owned());
        }
        let (revision, count, entry) = (u32_at(sector, 8), u32_at(sector, 80), u32_at(sector, 84));
        if revision != REVISION {
            return Err(format!(
                "revision {revision:#x}, only {REVISION:#x} is known"
            ));
        }
        if count == 0 || count as usize > ENTRIES || entry as usize != ENTRY {
            return Err(format!(
                "{count} entries of {entry} bytes, at most {ENTRIES} of {ENTRY} are accepted"
            ));
        }
        Ok(Header {
            own: u64_at(sector, 24),
            other: u64_at(sector, 32),
            first_usable: u64_at(sector, 40),
            last_usable: u64_at(sector, 48),
            disk: guid_at(sector, 56),
            entries_at: u64_at(sector, 72),
            count: count as usize,
            entries_crc: u32_at(sector, 88),
        })
    }

    fn table(&self, entries: &[u8], sector: u32, sectors: u64) -> Result<Table, Refusal> {
        check_geometry(sector, sectors)?;
        let entries = entries
            .get(..self.count * ENTRY)
            .ok_or("too short for its entries")?;
        if crc32(entries) != self.entries_crc {
            return Err("entries' checksum is wrong".to_owned());
        }
        let mut table = Table {
            disk: self.disk,
            sector,
            sectors,
            partitions: vec![None; ENTRIES],
        };
        if self.first_usable < table.first_usable()
            || self.first_usable > self.last_usable
            || self.last_usable > table.last_usable()
        {
            return Err(format!(
                "usable sectors {} to {} can't be",
                self.first_usable, self.last_usable
            ));
        }
        for (index, entry) in entries.chunks_exact(ENTRY).enumerate() {
            let partition =
                parse_entry(entry).map_err(|why| format!("partition {}: {why}", index + 1))?;
            if let Some(found) = &partition
                && (found.first > found.last
                    || found.first < self.first_usable
                    || found.last > self.last_usable)
            {
                return Err(format!(
                    "partition {}: sectors {} to {} lie outside the disk's usable ones",
                    index + 1,
                    found.first,
                    found.last
                ));
            }
            table.partitions[index] = partition;
        }
        table.check_overlaps()?;
        Ok(table)
    }
}

impl Table {
    fn check_overlaps(&self) -> Result<(), Refusal> {
        let mut ranges: Vec<_> = self
            .partitions
            .iter()
            .enumerate()
            .filter_map(|(i, p)| p.as_ref().map(|p| (p.first, p.last, i + 1)))
            .collect();
        ranges.sort_unstable();
        match ranges.windows(2).find(|pair| pair[0].1 >= pair[1].0) {
            Some(pair) => Err(format!(
                "partitions {} and {} overlap",
                pair[0].2, pair[1].2
            )),
            None => Ok(()),
        }
    }
}

fn parse_entry(entry: &[u8]) -> Result<Option<Partition>, Refusal> {
    let kind = guid_at(entry, 0);
    if kind == Guid::ZERO {
        return Ok(None);
    }
    let units = entry[56..]
        .chunks_exact(2)
        .map(|unit| u16::from_le_bytes([unit[0], unit[1]]));
    let label = char::decode_utf16(units.take_while(|&unit| unit != 0))
        .collect::<Result<String, _>>()
        .map_err(|_| "label is not UTF-16")?;
    Ok(Some(Partition {
        kind,
        id: guid_at(entry, 16),
        first: u64_at(entry, 32),
        last: u64_at(entry, 40),
        attributes: u64_at(entry, 48),
        label,
    }))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

fn guid_at(bytes: &[u8], at: usize) -> Guid {
    let mut guid = [0; 16];
    guid.copy_from_slice(&bytes[at..at + 16]);
    Guid(guid)
}

/// CRC-32 as UEFI wants it (reflected, 0xEDB88320). Bit by bit: a table takes more room than the 16
/// KiB it would speed up are worth.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |mut crc, &byte| {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
        }
        crc
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn sample(sector: u32, sectors: u64) -> Table {
        let mut table = Table {
            disk: Guid([1; 16]),
            sector,
            sectors,
            partitions: vec![None; ENTRIES],
        };
        let per_mib = (1 << 20) / u64::from(sector);
        let part = |n: u64, label: &str, length: u64| {
            Some(Partition {
                kind: crate::gpt::LINUX_GENERIC,
                id: Guid([n as u8 + 0x10; 16]),
                first: n * per_mib,
                last: (n + length) * per_mib - 1,
                attributes: if n == 1 {
                    crate::gpt::ATTR_READ_ONLY
                } else {
                    crate::gpt::ATTR_NO_AUTO
                },
                label: label.to_owned(),
            })
        };
        table.partitions[0] = part(1, "web_1.0.0", 2);
        table.partitions[1] = part(3, "state", 4);
        table.partitions[4] = part(7, "logs-é", 1);
        table
    }

    /// Recomputes both checksums, so that a changed field is judged for itself.
    fn resealed(head: &mut [u8], sector: usize) {
        let crc = crc32(&head[2 * sector..2 * sector + ENTRIES * ENTRY]).to_le_bytes();
        head[sector + 88..sector + 92].copy_from_slice(&crc);
        head[sector + 16..sector + 20].fill(0);
        let crc = crc32(&head[sector..sector + HEADER]).to_le_bytes();
        head[sector + 16..sector + 20].copy_from_slice(&crc);
    }

    #[test]
    fn checksum_is_the_one_everybody_uses() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn tables_survive_the_round_trip_in_both_places_and_sector_sizes() {
        for sector in [512, 4096] {
            let table = sample(sector, (16 << 20) / u64::from(sector));
            assert_eq!(
                Table::parse_primary(&table.primary(), sector, table.sectors),
                Ok(table.clone())
            );
            assert_eq!(
                Table::parse_backup(&table.backup(), sector, table.sectors),
                Ok(table.clone())
            );
            assert_eq!(
                Table::parse_primary(&table.primary(), sector, table.sectors + 99),
                Ok(table.clone()),
                "a disk that has grown"
            );
            assert!(
                Table::parse_primary(&table.primary(), sector, table.sectors - 1).is_err(),
                "a disk that has shrunk"
            );
            assert_eq!(table.primary().len(), head_bytes(sector));
            assert_eq!(table.backup().len(), tail_bytes(sector));
        }
    }

    #[test]
    fn every_changed_bit_of_header_and_entries_is_refused() {
        let table = sample(512, 32768);
        let head = table.primary();
        for at in (512..512 + HEADER).chain((1024..head.len()).step_by(61)) {
            let mut bad = head.clone();
            bad[at] ^= 0x10;
            assert!(
                Table::parse_primary(&bad, 512, table.sectors).is_err(),
                "byte {at}"
            );
        }
    }

    #[test]
    fn every_lie_under_a_right_checksum_is_refused() {
        let table = sample(512, 32768);
        let last = table.last_usable();
        let lies: [(usize, u64, &str); 11] = [
            (512 + 8, 0x2_0000 | 92 << 32, "revision"),
            (512 + 24, 2, "header says"),
            (512 + 32, u64::MAX, "no disk is that long"),
            (512 + 32, 5, "no disk for a partition table"),
            (512 + 32, 1 << 40, "this one has"),
            (512 + 40, 3, "usable sectors"),
            (512 + 48, 32767, "usable sectors"),
            (512 + 72, 3, "header says"),
            (512 + 80, 129 | 128 << 32, "129 entries"),
            (1024 + 40, last + 1, "outside"),
            (1024 + 40, 3 * 2048, "partitions 1 and 2 overlap"),
        ];
        for (at, value, why) in lies {
            let mut bad = table.primary();
            bad[at..at + 8].copy_from_slice(&value.to_le_bytes());
            resealed(&mut bad, 512);
            let error = Table::parse_primary(&bad, 512, table.sectors).unwrap_err();
            assert!(error.contains(why), "{error}, not {why}");
        }
        for size in [0u32, 91, 513, u32::MAX] {
            let mut bad = table.primary();
            bad[512 + 12..512 + 16].copy_from_slice(&size.to_le_bytes());
            assert!(
                Table::parse_primary(&bad, 512, table.sectors)
                    .unwrap_err()
                    .contains("header of")
            );
        }
        for length in [0, 511, 512, 1023, 1024, 5000] {
            assert!(Table::parse_primary(&table.primary()[..length], 512, table.sectors).is_err());
            assert!(
                Table::parse_backup(
                    &table.backup()[table.backup().len() - length..],
                    512,
                    table.sectors
                )
                .is_err()
            );
        }
        for sectors in [0, 1, 67, u64::MAX] {
            assert!(Table::parse_primary(&table.primary(), 512, sectors).is_err());
            assert!(Table::parse_backup(&table.backup(), 512, sectors).is_err());
        }
    }

    /// Bounded fuzzing under right checksums: what is accepted keeps every promise and reads back
    /// from what it would be written as.
    #[test]
    fn whatever_is_accepted_lies_within_the_disk_without_overlap() {
        let (table, mut state, mut accepted) = (sample(512, 32768), 3u64, 0);
        let mut random = |below: u64| {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (state >> 33) % below
        };
        for _ in 0..400 {
            let mut head = table.primary();
            for _ in 0..1 + random(4) {
                // Header fields and the first six entries, with bits, small numbers and extremes.
                let at = 512
                    + if random(3) == 0 {
                        random(92) as usize
                    } else {
                        512 + random(6 * 128) as usize
                    };
                match random(4) {
                    0 => head[at] ^= 1 << random(8),
                    1 => head[at] = [0, 1, 0x7f, 0x80, 0xff][random(5) as usize],
                    2 => head[at..at + 8].fill(0xff),
                    _ => head[at..at + 8].copy_from_slice(&random(40000).to_le_bytes()),
                }
            }
            resealed(&mut head, 512);
            let Ok(found) = Table::parse_primary(&head, 512, 32768) else {
                continue;
            };
            accepted += 1;
            let mut parts: Vec<_> = found.partitions.iter().flatten().collect();
            parts.sort_by_key(|p| p.first);
            assert!(parts.iter().all(|p| p.first <= p.last
                && p.first >= found.first_usable()
                && p.last <= found.last_usable()));
            assert!(parts.windows(2).all(|pair| pair[0].last < pair[1].first));
            assert!(found.sectors <= 32768);
            assert_eq!(
                Table::parse_primary(&found.primary(), 512, found.sectors),
                Ok(found.clone())
            );
            assert_eq!(
                Table::parse_backup(&found.backup(), 512, found.sectors),
                Ok(found)
            );
        }
        assert!(
            accepted > 20,
            "{accepted} only: the test no longer reaches what it is for"
        );
    }
}
