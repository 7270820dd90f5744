use super::*;

pub fn sample(sector: u32, sectors: u64) -> PartitionTable {
    let mut table = PartitionTable {
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

/// Recomputes both checksums, so that only the changed field can be refused.
fn resealed(head: &mut [u8], sector: usize) {
    let crc = crc32(&head[2 * sector..2 * sector + ENTRIES * ENTRY]).to_le_bytes();
    head[sector + 88..sector + 92].copy_from_slice(&crc);
    head[sector + 16..sector + 20].fill(0);
    let crc = crc32(&head[sector..sector + HEADER]).to_le_bytes();
    head[sector + 16..sector + 20].copy_from_slice(&crc);
}

#[test]
fn the_checksum_is_crc_32() {
    assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
}

#[test]
fn both_copies_survive_the_round_trip_with_both_sector_sizes() {
    for sector in [512, 4096] {
        let table = sample(sector, (16 << 20) / u64::from(sector));
        assert_eq!(
            PartitionTable::parse_primary(&table.primary(), sector, table.sectors),
            Ok(table.clone())
        );
        assert_eq!(
            PartitionTable::parse_backup(&table.backup(), sector, table.sectors),
            Ok(table.clone())
        );
        assert_eq!(
            PartitionTable::parse_primary(&table.primary(), sector, table.sectors + 99),
            Ok(table.clone()),
            "a disk that has grown"
        );
        assert!(
            PartitionTable::parse_primary(&table.primary(), sector, table.sectors - 1).is_err(),
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
            PartitionTable::parse_primary(&bad, 512, table.sectors).is_err(),
            "byte {at}"
        );
    }
}

#[test]
fn every_wrong_field_under_a_valid_checksum_is_refused() {
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
        let error = PartitionTable::parse_primary(&bad, 512, table.sectors)
            .unwrap_err()
            .to_string();
        assert!(error.contains(why), "{error}, not {why}");
    }
    for size in [0u32, 91, 513, u32::MAX] {
        let mut bad = table.primary();
        bad[512 + 12..512 + 16].copy_from_slice(&size.to_le_bytes());
        assert!(
            PartitionTable::parse_primary(&bad, 512, table.sectors)
                .unwrap_err()
                .to_string()
                .contains("header of")
        );
    }
    for length in [0, 511, 512, 1023, 1024, 5000] {
        assert!(
            PartitionTable::parse_primary(&table.primary()[..length], 512, table.sectors).is_err()
        );
        assert!(
            PartitionTable::parse_backup(
                &table.backup()[table.backup().len() - length..],
                512,
                table.sectors
            )
            .is_err()
        );
    }
    for sectors in [0, 1, 67, u64::MAX] {
        assert!(PartitionTable::parse_primary(&table.primary(), 512, sectors).is_err());
        assert!(PartitionTable::parse_backup(&table.backup(), 512, sectors).is_err());
    }
}

/// Bounded fuzzing with valid checksums: accepted tables fulfil all promises and survive the
/// round trip.
#[test]
fn accepted_tables_lie_within_the_disk_without_overlap() {
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
        let Ok(found) = PartitionTable::parse_primary(&head, 512, 32768) else {
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
            PartitionTable::parse_primary(&found.primary(), 512, found.sectors),
            Ok(found.clone())
        );
        assert_eq!(
            PartitionTable::parse_backup(&found.backup(), 512, found.sectors),
            Ok(found)
        );
    }
    assert!(
        accepted > 20,
        "{accepted} only: the test no longer covers accepted tables"
    );
}
