//! The black box: a small partition with the records of earlier boots, including boots that failed
//! before a volume could be mounted.
//!
//! It is a ring of blocks. Each record fills one block, has its own checksum, and overwrites the
//! oldest record. A power cut during a write loses only the record that is being written.
//!
//! Records are hostile input, because anyone with access to the disk can write them. They are only
//! shown; no decision depends on them.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::gpt::Guid;

/// The type of its partition, defined by this project, so that no other program uses or mounts it.
pub const PARTITION_TYPE: Guid = Guid::from_text_order([
    0x8f, 0x4a, 0x6b, 0x1e, 0x0c, 0x35, 0x4d, 0x27, 0x9b, 0xd8, 0x61, 0xf2, 0xa7, 0x3e, 0x5c, 0x90,
]);
/// Its label.
pub const LABEL: &str = "black-box";
/// Size that the builder gives to the partition. Bytes beyond it are not used.
pub const BYTES: u64 = 1 << 20;
/// Size of a record's block, bytes: a multiple of every disk's sector size.
pub const BLOCK: usize = 4096;
const BLOCKS: usize = BYTES as usize / BLOCK;

const MAGIC: [u8; 8] = *b"adamant\x1b";
const VERSION: u32 = 1;
const HEADER: usize = size_of::<BlockHeader>();
/// The start of a record's block. The record's JSON follows.
#[derive(Clone, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct BlockHeader {
    magic: [u8; 8],
    version: U32,
    /// Length of the JSON in bytes.
    length: U32,
    /// Sequence number of the record.
    sequence: U64,
    /// SHA-256 of header and JSON as if these 32 bytes were 0.
    checksum: [u8; 32],
}

impl BlockHeader {
    /// The header with the right checksum for this JSON.
    fn sealed(mut self, json: &[u8]) -> BlockHeader {
        self.checksum = [0; 32];
        let digest = Sha256::new()
            .chain_update(self.as_bytes())
            .chain_update(json);
        self.checksum = digest.finalize().into();
        self
    }
}

/// The kind of a record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BootEvent {
    /// A stage of the boot has begun.
    #[default]
    Stage,
    /// The image's init was started. Possibly no program there records the end.
    Running,
    /// `adamant-agent watch` runs, and will record the end.
    Watched,
    /// The boot or the running machine failed; `reason` says why.
    Failed,
    /// The machine was shut down or restarted in an orderly way.
    Ended,
}

/// One record.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BootRecord {
    /// The kernel's boot id, 32 hexadecimal digits, which all records of one boot share.
    pub boot: String,
    /// The kind of the record.
    pub event: BootEvent,
    /// Seconds since 1970 by the machine's clock, which may be wrong.
    pub time: u64,
    /// Milliseconds since the kernel started.
    pub uptime_ms: u64,
    /// The label of the root's partition: the image and its version.
    pub slot: String,
    /// The root hash.
    pub root_hash: String,
    /// The stage of the boot, or empty.
    pub stage: String,
    /// Why the boot failed, as one line for the operator.
    pub reason: String,
    /// The kernel's last lines.
    pub log: Vec<String>,
}

impl BootRecord {
    /// Encodes the record as a block. If it is too long, the oldest log lines are left out first,
    /// then the end of the reason.
    pub fn to_block(&self, sequence: u64) -> Vec<u8> {
        let mut record = self.clone();
        let text = loop {
            let text = serde_json::to_vec(&record).unwrap_or_default();
            if text.len() <= BLOCK - HEADER {
                break text;
            }
            if record.log.is_empty() {
                record.reason = record
                    .reason
                    .chars()
                    .take(record.reason.chars().count() / 2)
                    .collect();
                if record.reason.is_empty() {
                    // The other fields are only long if another program wrote them.
                    record = BootRecord {
                        boot: record.boot.chars().take(64).collect(),
                        event: record.event,
                        ..BootRecord::default()
                    };
                }
            } else {
                record.log.remove(0);
            }
        };
        let header = BlockHeader {
            magic: MAGIC,
            version: VERSION.into(),
            length: (text.len() as u32).into(),
            sequence: sequence.into(),
            checksum: [0; 32],
        };
        let mut block = Vec::with_capacity(BLOCK);
        block.extend(header.sealed(&text).as_bytes());
        block.extend(text);
        block.resize(BLOCK, 0);
        block
    }

    /// Decodes a block to its sequence number and the record. `None` if it is not a complete
    /// record.
    fn from_block(block: &[u8]) -> Option<(u64, BootRecord)> {
        let (header, rest) = BlockHeader::ref_from_prefix(block).ok()?;
        if header.magic != MAGIC || header.version != VERSION {
            return None;
        }
        let text = rest.get(..usize::try_from(header.length.get()).ok()?)?;
        if header.checksum != header.clone().sealed(text).checksum {
            return None;
        }
        let record = serde_json::from_slice(text).ok()?;
        Some((header.sequence.get(), record))
    }
}

/// The records, and the position of the next one.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct RecordRing {
    /// Oldest first.
    pub records: Vec<BootRecord>,
    /// Sequence number of the next record.
    pub next: u64,
    /// Number of records that fit.
    blocks: u64,
}

impl RecordRing {
    /// Parses the partition's bytes, at most the first [`BYTES`]. `None` if there is no space for
    /// two records.
    pub fn parse(bytes: &[u8]) -> Option<RecordRing> {
        let blocks = (bytes.len() / BLOCK).min(BLOCKS);
        if blocks < 2 {
            return None;
        }
        let mut found: Vec<(u64, BootRecord)> = bytes
            .chunks_exact(BLOCK)
            .take(blocks)
            .filter_map(BootRecord::from_block)
            .collect();
        let newest = newest(&found, blocks as u64);
        found.retain(|(sequence, _)| newest.wrapping_sub(*sequence) < blocks as u64);
        found.sort_by_key(|(sequence, _)| std::cmp::Reverse(newest.wrapping_sub(*sequence)));
        let next = newest.wrapping_add(1);
        Some(RecordRing {
            records: found.into_iter().map(|(_, record)| record).collect(),
            next,
            blocks: blocks as u64,
        })
    }

    /// Reserves the position of the next record. Returns its sequence number and byte position.
    pub fn reserve_next(&mut self) -> (u64, u64) {
        let sequence = self.next;
        self.next = self.next.wrapping_add(1);
        (sequence, sequence % self.blocks.max(1) * BLOCK as u64)
    }
}

/// The sequence number of the newest record; 0 without records.
///
/// Consecutive records have consecutive numbers, so all genuine records are within `blocks` of the
/// newest one. Anyone with access to the disk can write a record with any number. The numbers wrap
/// around, so every number has a next one, and the newest record is the one that has the most
/// records within `blocks` before it: a forged number hides no others.
fn newest(found: &[(u64, BootRecord)], blocks: u64) -> u64 {
    let before = |newest: u64| {
        found
            .iter()
            .filter(|(sequence, _)| newest.wrapping_sub(*sequence) < blocks)
            .count()
    };
    // Of equally many, the later number: a record that was just written is never hidden.
    found
        .iter()
        .map(|(sequence, _)| *sequence)
        .max_by(|a, b| {
            let later = (a.wrapping_sub(*b) as i64).cmp(&0);
            before(*a).cmp(&before(*b)).then(later)
        })
        .unwrap_or(0)
}

/// A boot that did not end in an orderly way.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BadBoot {
    /// Its last record.
    pub record: BootRecord,
    /// Number of boots since then, with the current one: 1 is the previous boot.
    pub starts_ago: u64,
    /// Number of consecutive boots that ended like this, up to and including this one.
    pub in_a_row: u64,
    /// A line for the operator: how the boot ended, and why.
    #[serde(rename = "words")]
    pub summary: String,
}

/// The newest boot that did not end in an orderly way. `records` are those of other boots than the
/// running one, oldest first.
pub fn last_bad(records: &[BootRecord]) -> Option<BadBoot> {
    // The last record of each boot shows how it ended. Records are in order even if a clock was
    // wrong.
    let mut ends: Vec<&BootRecord> = Vec::new();
    for record in records {
        match ends.last_mut() {
            Some(last) if last.boot == record.boot => *last = record,
            _ => ends.push(record),
        }
    }
    let is_bad =
        |record: &&&BootRecord| !matches!(record.event, BootEvent::Running | BootEvent::Ended);
    let good = ends
        .iter()
        .rev()
        .take_while(|record| !is_bad(record))
        .count();
    let record = (*ends.iter().rev().nth(good)?).clone();
    let in_a_row = ends.iter().rev().skip(good).take_while(is_bad).count() as u64;
    let summary = match record.event {
        BootEvent::Stage => format!(
            "it ended in the stage {} without a further record: power cut, reset or hang",
            record.stage
        ),
        BootEvent::Running | BootEvent::Watched => {
            "it was not shut down: power cut, reset or hang".to_owned()
        }
        BootEvent::Failed | BootEvent::Ended => record.reason.clone(),
    };
    Some(BadBoot {
        record,
        starts_ago: good as u64 + 1,
        in_a_row,
        summary,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(boot: &str, event: BootEvent) -> BootRecord {
        BootRecord {
            boot: boot.to_owned(),
            event,
            stage: "verify".to_owned(),
            reason: "why".to_owned(),
            ..BootRecord::default()
        }
    }

    fn write(disk: &mut [u8], ring: &mut RecordRing, record: &BootRecord) {
        let (sequence, at) = ring.reserve_next();
        disk[at as usize..at as usize + BLOCK].copy_from_slice(&record.to_block(sequence));
    }

    #[test]
    fn reads_a_blank_partition_as_empty_and_refuses_one_that_is_too_small() {
        assert_eq!(
            RecordRing::parse(&vec![0; BYTES as usize]),
            Some(RecordRing {
                records: vec![],
                next: 1,
                blocks: 256
            })
        );
        assert_eq!(RecordRing::parse(&[0; BLOCK]), None);
        assert_eq!(RecordRing::parse(&vec![0; 3 << 20]).unwrap().blocks, 256);
    }

    #[test]
    fn overwrites_the_oldest_records_and_keeps_the_order() {
        let mut disk = vec![0; 8 * BLOCK];
        for number in 0..20 {
            let mut ring = RecordRing::parse(&disk).unwrap();
            assert_eq!(ring.next, number + 1);
            write(
                &mut disk,
                &mut ring,
                &record(&number.to_string(), BootEvent::Ended),
            );
        }
        let boots: Vec<String> = RecordRing::parse(&disk)
            .unwrap()
            .records
            .into_iter()
            .map(|record| record.boot)
            .collect();
        assert_eq!(
            boots,
            (12..20)
                .map(|number: u64| number.to_string())
                .collect::<Vec<_>>()
        );
    }

    #[test]
    fn loses_only_the_record_that_is_cut_off_or_altered() {
        let mut disk = vec![0; 4 * BLOCK];
        let mut ring = RecordRing::parse(&disk).unwrap();
        for boot in ["a", "b"] {
            write(&mut disk, &mut ring, &record(boot, BootEvent::Failed));
        }
        let end = disk[2 * BLOCK..3 * BLOCK]
            .iter()
            .rposition(|&byte| byte == b'}')
            .unwrap();
        for at in 0..=end {
            let mut altered = disk.clone();
            altered[2 * BLOCK + at] ^= 1;
            let read = RecordRing::parse(&altered).unwrap();
            assert_eq!(
                (read.records.len(), read.records[0].boot.as_str(), read.next),
                (1, "a", 2),
                "{at}"
            );
        }
        // The first sectors of the next record over an old one.
        let next = BootRecord {
            reason: "r".repeat(1000),
            ..record("c", BootEvent::Failed)
        }
        .to_block(3);
        disk[3 * BLOCK..3 * BLOCK + 512].copy_from_slice(&next[..512]);
        disk[3 * BLOCK + 512..].fill(7);
        assert_eq!(RecordRing::parse(&disk).unwrap().records.len(), 2);
    }

    #[test]
    fn leaves_out_the_oldest_lines_of_a_long_record() {
        let log: Vec<String> = (0..200)
            .map(|number| format!("{number} {}", "\"".repeat(40)))
            .collect();
        let long = BootRecord {
            log,
            reason: "r".repeat(500),
            ..record("a", BootEvent::Failed)
        };
        let (_, read) = BootRecord::from_block(&long.to_block(1)).unwrap();
        assert_eq!((read.log.last(), read.reason.len()), (long.log.last(), 500));
        assert!(read.log.len() > 20);
        let longer = BootRecord {
            log: vec![],
            reason: "é\n".repeat(5000),
            ..record("a", BootEvent::Failed)
        };
        let (_, read) = BootRecord::from_block(&longer.to_block(1)).unwrap();
        assert!(!read.reason.is_empty() && longer.reason.starts_with(&read.reason));
        let hopeless = BootRecord {
            slot: "x".repeat(9000),
            ..record("a", BootEvent::Failed)
        };
        assert_eq!(
            BootRecord::from_block(&hopeless.to_block(1))
                .unwrap()
                .1
                .boot,
            "a"
        );
    }

    #[test]
    fn a_forged_sequence_number_hides_no_later_record() {
        for forged in [
            0,
            1,
            2,
            9,
            1 << 20,
            1 << 48,
            (1 << 48) + 1,
            u64::MAX - 1,
            u64::MAX,
        ] {
            // Genuine records, then a forged one in any block, then more genuine records.
            for block in 0..8 {
                let mut disk = vec![0; 8 * BLOCK];
                let mut ring = RecordRing::parse(&disk).unwrap();
                for boot in 0..5 {
                    write(
                        &mut disk,
                        &mut ring,
                        &record(&format!("old {boot}"), BootEvent::Ended),
                    );
                }
                disk[block * BLOCK..(block + 1) * BLOCK]
                    .copy_from_slice(&record("forged", BootEvent::Failed).to_block(forged));
                for boot in 0..20 {
                    let mut ring = RecordRing::parse(&disk).unwrap();
                    let name = format!("new {boot}");
                    write(&mut disk, &mut ring, &record(&name, BootEvent::Ended));
                    let found = RecordRing::parse(&disk).unwrap().records;
                    let last = found.iter().rev().find(|record| record.boot != "forged");
                    assert_eq!(last.unwrap().boot, name, "{forged} in block {block}");
                }
            }
        }
    }

    #[test]
    fn sequence_numbers_wrap_around() {
        let mut disk = vec![0; 8 * BLOCK];
        let mut ring = RecordRing {
            records: vec![],
            next: u64::MAX - 2,
            blocks: 8,
        };
        for boot in 0..12 {
            write(
                &mut disk,
                &mut ring,
                &record(&boot.to_string(), BootEvent::Ended),
            );
            ring = RecordRing::parse(&disk).unwrap();
            assert_eq!(ring.records.last().unwrap().boot, boot.to_string());
        }
        assert_eq!(ring.records.len(), 8);
        assert_eq!(ring.next, 9);
    }

    #[test]
    fn finds_the_last_bad_boot_and_counts_its_attempts() {
        let boots = |all: &[(&str, BootEvent)]| {
            all.iter()
                .map(|(boot, event)| record(boot, *event))
                .collect::<Vec<_>>()
        };
        let told = |all: &[(&str, BootEvent)]| {
            last_bad(&boots(all))
                .map(|bad| (bad.record.boot, bad.starts_ago, bad.in_a_row, bad.summary))
        };
        assert_eq!(told(&[]), None);
        assert_eq!(
            told(&[
                ("a", BootEvent::Stage),
                ("a", BootEvent::Running),
                ("a", BootEvent::Ended)
            ]),
            None
        );
        assert_eq!(
            told(&[
                ("a", BootEvent::Ended),
                ("b", BootEvent::Failed),
                ("c", BootEvent::Failed)
            ]),
            Some(("c".to_owned(), 1, 2, "why".to_owned()))
        );
        assert_eq!(
            told(&[
                ("a", BootEvent::Stage),
                ("b", BootEvent::Ended),
                ("c", BootEvent::Ended)
            ]),
            Some((
                "a".to_owned(),
                3,
                1,
                "it ended in the stage verify without a further record: power cut, reset or hang"
                    .to_owned()
            ))
        );
        assert_eq!(
            told(&[("a", BootEvent::Running), ("b", BootEvent::Running)]),
            None
        );
        assert_eq!(
            told(&[("a", BootEvent::Running), ("a", BootEvent::Watched)])
                .unwrap()
                .3,
            "it was not shut down: power cut, reset or hang"
        );
    }

    #[test]
    fn any_bytes_parse_without_a_panic() {
        let mut seed = 1u64;
        let mut random = || {
            seed = seed
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (seed >> 33) as u8
        };
        for round in 0..200 {
            let mut block = record("a", BootEvent::Failed).to_block(round);
            for _ in 0..8 {
                let at = usize::from(random()) * 16 % BLOCK;
                block[at] = random();
            }
            // Also with a valid checksum.
            let (header, rest) = BlockHeader::mut_from_prefix(&mut block).unwrap();
            if let Some(text) = rest.get(..header.length.get() as usize) {
                *header = header.clone().sealed(text);
            }
            let _ = BootRecord::from_block(&block).map(|(_, record)| last_bad(&[record]));
        }
    }
}
