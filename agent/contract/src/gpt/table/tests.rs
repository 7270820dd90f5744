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
    let lies: [(usize, u64, &str); 13] = [
        (512 + 8, 0x2_0000 | 92 << 32, "revision"),
        (512 + 24, 2, "header says"),
        (512 + 32, u64::MAX, "no disk is that long"),
        (512 + 32, 5, "no disk for a partition table"),
        (512 + 32, 1 << 40, "this one has"),
        (512 + 40, 3, "usable sectors"),
        (512 + 40, last + 1, "usable sectors"),
        (512 + 48, 32767, "usable sectors"),
        (512 + 72, 3, "header says"),
        (512 + 80, 129 | 128 << 32, "129 entries"),
        (512 + 80, 127 | 256 << 32, "entries of 256 bytes"),
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
    // A header of the complete sector is accepted, and its checksum covers all of it.
    let mut long = table.primary();
    long[512 + 12..512 + 16].copy_from_slice(&512u32.to_le_bytes());
    long[512 + 16..512 + 20].fill(0);
    let crc = crc32(&long[512..1024]).to_le_bytes();
    long[512 + 16..512 + 20].copy_from_slice(&crc);
    assert_eq!(
        PartitionTable::parse_primary(&long, 512, table.sectors),
        Ok(table.clone())
    );
    long[1023] ^= 1;
    assert_eq!(
        PartitionTable::parse_primary(&long, 512, table.sectors),
        Err(TableError::HeaderChecksum)
    );
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

/// A table on the smallest disk for which there is one, with these partitions in sectors.
fn small_table(ranges: &[(u64, u64)]) -> PartitionTable {
    let mut table = PartitionTable {
        sectors: 1000,
        ..sample(512, 32768)
    };
    let template = table.partitions[0].take().unwrap();
    table.partitions.fill(None);
    for (slot, &(first, last)) in table.partitions.iter_mut().zip(ranges) {
        *slot = Some(Partition {
            first,
            last,
            ..template.clone()
        });
    }
    table
}

#[test]
fn partitions_may_fill_the_usable_sectors_and_touch_but_not_overlap() {
    let parsed = |table: &PartitionTable| {
        let copies = [
            PartitionTable::parse_primary(&table.primary(), 512, table.sectors),
            PartitionTable::parse_backup(&table.backup(), 512, table.sectors),
        ];
        assert_eq!(copies[0], copies[1]);
        copies[0].clone()
    };
    let (first, last) = (34, 966);
    for good in [
        &[][..],
        &[(first, last)],
        &[(first, first), (last, last)],
        &[(500, last), (first, 499)],
    ] {
        let table = small_table(good);
        assert_eq!((table.first_usable(), table.last_usable()), (first, last));
        assert_eq!(parsed(&table), Ok(table));
    }
    let outside = |first, last| TableError::Outside {
        number: 1,
        first,
        last,
    };
    for (bad, why) in [
        (&[(first - 1, last)][..], outside(first - 1, last)),
        (&[(first, last + 1)], outside(first, last + 1)),
        (&[(501, 500)], outside(501, 500)),
        (&[(first, 500), (500, last)], TableError::Overlap(1, 2)),
        (&[(500, 600), (first, last)], TableError::Overlap(2, 1)),
    ] {
        assert_eq!(parsed(&small_table(bad)), Err(why));
    }
}

#[test]
fn the_smallest_and_the_largest_disk_have_a_table() {
    for (sector, smallest) in [(512, 68), (4096, 12)] {
        assert_eq!(
            check_geometry(sector, smallest - 1),
            Err(TableError::DiskSize(smallest - 1))
        );
        assert_eq!(check_geometry(sector, smallest), Ok(()));
        let largest = u64::MAX / u64::from(sector);
        assert_eq!(check_geometry(sector, largest), Ok(()));
        assert_eq!(
            check_geometry(sector, largest + 1),
            Err(TableError::DiskSize(largest + 1))
        );
    }
    for sector in [0, 1, 511, 1024, 8192] {
        assert_eq!(
            check_geometry(sector, 32768),
            Err(TableError::SectorSize(sector))
        );
    }
}

#[test]
fn tables_with_fewer_entries_are_accepted_and_with_none_refused() {
    let table = sample(512, 32768);
    for (count, refused) in [(128u32, false), (5, false), (0, true), (129, true)] {
        let mut head = table.primary();
        head[512 + 80..512 + 84].copy_from_slice(&count.to_le_bytes());
        let entries = head.get(1024..1024 + count as usize * ENTRY);
        let crc = crc32(entries.unwrap_or_default()).to_le_bytes();
        head[512 + 88..512 + 92].copy_from_slice(&crc);
        head[512 + 16..512 + 20].fill(0);
        let crc = crc32(&head[512..512 + HEADER]).to_le_bytes();
        head[512 + 16..512 + 20].copy_from_slice(&crc);
        let found = PartitionTable::parse_primary(&head, 512, table.sectors);
        if refused {
            assert_eq!(found, Err(TableError::Entries { count, size: 128 }));
        } else {
            assert_eq!(found, Ok(table.clone()));
        }
    }
}

#[test]
fn a_copy_at_another_position_than_its_own_is_refused_for_it() {
    let table = sample(512, 32768);
    for (at, value) in [(24, 5u64), (32, 2)] {
        let mut tail = table.backup();
        let header = tail.len() - 512;
        tail[header + at..header + at + 8].copy_from_slice(&value.to_le_bytes());
        tail[header + 16..header + 20].fill(0);
        let crc = crc32(&tail[header..header + HEADER]).to_le_bytes();
        tail[header + 16..header + 20].copy_from_slice(&crc);
        assert!(matches!(
            PartitionTable::parse_backup(&tail, 512, table.sectors),
            Err(TableError::BackupPosition { .. })
        ));
    }
    let mut unsigned = table.primary();
    unsigned[512] ^= 1;
    assert_eq!(
        PartitionTable::parse_primary(&unsigned, 512, table.sectors),
        Err(TableError::NoSignature)
    );
}
