//! The two copies of a partition table on a disk. Reading uses an intact copy; writing keeps one
//! intact at any time, so that a power cut cannot lose the table.
//!
//! Promise: at every moment of [`write_table`], the primary or the backup is intact, and
//! [`read_table`] finds it. Nothing on the disk is trusted. That the disk writes a sector
//! completely or not at all matters only for the protective MBR.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use zerocopy::IntoBytes;

use super::TableError;
use super::mbr::LegacyMbr;
use super::table::{GptHeader, PartitionTable, head_bytes, tail_bytes};

/// Storage with a partition table: a block device, an image file or, in tests, memory.
pub trait TableStorage {
    /// Fills `buffer` from byte `at` on.
    fn read_at(&self, at: u64, buffer: &mut [u8]) -> io::Result<()>;
    /// Writes all of `bytes` at byte `at`.
    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes all previous writes durable.
    fn flush(&mut self) -> io::Result<()>;
}

impl TableStorage for File {
    fn read_at(&self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(buffer, at)
    }

    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_all_at(bytes, at)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sync_all()
    }
}

/// The result of [`read_table`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundTable {
    /// The table. `table.sectors` is smaller than the disk if the disk has grown.
    pub table: PartitionTable,
    /// Why the primary was not used; `None` if it was.
    pub from_backup: Option<TableError>,
    /// Defects that [`write_table`] with the same table would repair, one message each.
    pub repairs: Vec<String>,
}

/// Reads the table of a disk with `sectors` sectors of `sector` bytes: the primary or, if that is
/// not intact, the backup.
pub fn read_table(
    disk: &impl TableStorage,
    sector: u32,
    sectors: u64,
) -> Result<FoundTable, TableError> {
    let mut head = vec![0; head_bytes(sector)];
    disk.read_at(0, &mut head)
        .map_err(|e| TableError::ReadStart(e.to_string()))?;
    let primary = PartitionTable::parse_primary(&head, sector, sectors);
    let mut repairs = Vec::new();
    let protective = LegacyMbr::parse(&head).and_then(|mbr| mbr.protective_record());
    if protective.is_none() {
        repairs.push("the protective MBR is missing".to_owned());
    }
    match primary {
        Ok(table) => {
            match read_backup(disk, sector, table.sectors) {
                Ok(backup) if backup == table => {}
                Ok(_) => repairs.push("the backup at the end differs from the primary".to_owned()),
                Err(why) => repairs.push(format!("the backup at the end is not intact: {why}")),
            }
            Ok(FoundTable {
                table,
                from_backup: None,
                repairs,
            })
        }
        Err(why) => {
            let protected = protective.map_or(0, |(_, length)| u64::from(length));
            let Some(table) = possible_lengths(&head, protected, sector, sectors)
                .into_iter()
                .find_map(|sectors| read_backup(disk, sector, sectors).ok())
            else {
                return Err(TableError::NoBackup(Box::new(why)));
            };
            repairs.push(format!("the primary at the start is not intact: {why}"));
            Ok(FoundTable {
                table,
                from_backup: Some(why),
                repairs,
            })
        }
    }
}

/// Returns the disk lengths at whose end the backup may be: the disk's own, then those in the
/// damaged header and in the protective MBR, because the disk may have grown. `protected` is the
/// length of the protective MBR's record.
fn possible_lengths(head: &[u8], protected: u64, sector: u32, sectors: u64) -> Vec<u64> {
    let header = head.get(sector as usize..);
    let alternate = header
        .and_then(GptHeader::read_unchecked)
        .map_or(0, |header| header.alternate_lba.get());
    let last_sectors = [alternate, protected];
    let mut lengths = vec![sectors];
    lengths.extend(
        last_sectors
            .iter()
            .filter_map(|last| last.checked_add(1))
            .filter(|&length| length < sectors),
    );
    lengths
}

fn read_backup(
    disk: &impl TableStorage,
    sector: u32,
    sectors: u64,
) -> Result<PartitionTable, TableError> {
    let mut tail = vec![0; tail_bytes(sector)];
    let at = sectors
        .checked_mul(u64::from(sector))
        .and_then(|end| end.checked_sub(tail.len() as u64))
        .ok_or(TableError::TooShort("a backup"))?;
    disk.read_at(at, &mut tail)
        .map_err(|e| TableError::ReadBackup(e.to_string()))?;
    PartitionTable::parse_backup(&tail, sector, sectors)
}

/// Writes both copies: first the backup and, when it is durable, the primary. Boot code in the MBR
/// is kept.
pub fn write_table(disk: &mut impl TableStorage, table: &PartitionTable) -> io::Result<()> {
    let sector = table.sector as usize;
    let backup = table.backup();
    let at = (table.sectors.checked_mul(table.sector.into()))
        .and_then(|end| end.checked_sub(backup.len() as u64));
    let at = at.ok_or_else(|| io::Error::other("the disk is too small for a partition table"))?;
    disk.write_at(at, &backup)?;
    disk.flush()?;

    let primary = table.primary();
    let mut mbr_sector = vec![0; sector];
    disk.read_at(0, &mut mbr_sector)?;
    let protective = LegacyMbr::parse(&mbr_sector)
        .and_then(|mbr| mbr.protective_record().map(|(index, _)| (mbr, index)));
    match protective {
        Some((mut mbr, index)) => {
            mbr.set_record(index, table.protective_record());
            let _ = mbr.write_to_prefix(&mut mbr_sector);
        }
        None => mbr_sector.copy_from_slice(&primary[..sector]),
    }
    disk.write_at(2 * sector as u64, &primary[2 * sector..])?;
    disk.write_at(sector as u64, &primary[sector..2 * sector])?;
    disk.write_at(0, &mbr_sector)?;
    disk.flush()
}

#[cfg(test)]
mod tests {
    use super::super::table::tests::sample;
    use super::*;
    use adamant_skip::skip;

    /// A disk in memory that remembers each write and flush.
    #[derive(Clone, Default)]
    struct Recorder {
        bytes: Vec<u8>,
        log: Vec<Option<(u64, Vec<u8>)>>,
    }

    impl TableStorage for Recorder {
        fn read_at(&self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
            let at = at as usize;
            buffer.copy_from_slice(
                self.bytes
                    .get(at..at + buffer.len())
                    .ok_or(io::ErrorKind::UnexpectedEof)?,
            );
            Ok(())
        }

        fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
            self.bytes[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
            self.log.push(Some((at, bytes.to_vec())));
            Ok(())
        }

        fn flush(&mut self) -> io::Result<()> {
            self.log.push(None);
            Ok(())
        }
    }

    fn disk_with(table: &PartitionTable, sectors: u64) -> Recorder {
        let mut disk = Recorder {
            bytes: vec![0; (sectors * u64::from(table.sector)) as usize],
            log: Vec::new(),
        };
        write_table(&mut disk, table).unwrap();
        disk.log.clear();
        disk
    }

    #[test]
    fn reads_the_backup_when_the_primary_is_gone_and_reports_it() {
        let table = sample(512, 32768);
        for length in [table.sectors, table.sectors + 4096] {
            let mut disk = disk_with(&table, length);
            assert_eq!(
                read_table(&disk, 512, length).unwrap(),
                FoundTable {
                    table: table.clone(),
                    from_backup: None,
                    repairs: vec![]
                }
            );
            disk.bytes[512..520].fill(0);
            let found = read_table(&disk, 512, length).unwrap();
            assert_eq!(found.table, table);
            assert!(found.from_backup.is_some() && !found.repairs.is_empty());
            write_table(&mut disk, &found.table).unwrap();
            assert_eq!(
                read_table(&disk, 512, length).unwrap().repairs,
                Vec::<String>::new()
            );
        }
    }

    #[test]
    fn finds_the_backup_of_a_grown_disk_by_either_record_of_its_old_length() {
        let table = sample(512, 32768);
        let length = table.sectors + 4096;
        for lost in [0..512, 512..1024] {
            let mut disk = disk_with(&table, length);
            // The primary is damaged in both cases.
            disk.bytes[512..520].fill(0);
            disk.bytes[lost.clone()].fill(0);
            let found = read_table(&disk, 512, length).unwrap();
            assert_eq!(found.table, table, "{lost:?}");
        }
        let mut disk = disk_with(&table, length);
        disk.bytes[..1024].fill(0);
        assert!(matches!(
            read_table(&disk, 512, length),
            Err(TableError::NoBackup(_))
        ));
    }

    #[test]
    fn reports_a_damaged_or_different_backup_and_a_missing_protective_mbr() {
        let table = sample(512, 32768);
        let repairs = |disk: &Recorder| read_table(disk, 512, table.sectors).unwrap().repairs;
        let intact = disk_with(&table, table.sectors);
        let mut disk = intact.clone();
        *disk.bytes.last_mut().unwrap() ^= 1;
        assert_eq!(repairs(&disk), Vec::<String>::new(), "an unused byte");
        let end = disk.bytes.len();
        disk.bytes[end - 512] ^= 1;
        assert!(repairs(&disk)[0].starts_with("the backup at the end is not intact"));

        let mut renamed = table.clone();
        renamed.partitions[0].as_mut().unwrap().label = "other".to_owned();
        let mut disk = intact.clone();
        let tail = renamed.backup();
        disk.bytes[end - tail.len()..].copy_from_slice(&tail);
        assert_eq!(
            repairs(&disk),
            ["the backup at the end differs from the primary"]
        );

        // No signature, another type, and another start.
        for (at, value) in [(510, 0), (446 + 4, 0x83), (446 + 8, 2)] {
            let mut disk = intact.clone();
            disk.bytes[at] = value;
            assert_eq!(
                repairs(&disk),
                ["the protective MBR is missing"],
                "byte {at}"
            );
        }
    }

    #[test]
    fn a_protective_record_at_any_position_is_kept_there() {
        let table = sample(512, 32768);
        let mut disk = disk_with(&table, table.sectors);
        disk.bytes.copy_within(446..462, 446 + 16);
        disk.bytes[446 + 4] = 0x83;
        let other = disk.bytes[446..462].to_vec();
        // The record's length is out of date.
        disk.bytes[446 + 16 + 12] ^= 1;
        write_table(&mut disk, &table).unwrap();
        assert_eq!(disk.bytes[446..462], other);
        let length = (table.sectors as u32 - 1).to_le_bytes();
        assert_eq!(disk.bytes[446 + 16 + 12..446 + 32], length);
        assert_eq!(disk.bytes[446 + 16 + 4], 0xee);
    }

    #[test]
    fn writes_tables_to_files_and_reports_a_failed_flush() {
        let table = sample(512, 32768);
        let path = scratch("file", &[]);
        let mut file = File::options().read(true).write(true).open(&path).unwrap();
        file.set_len(table.sectors * 512).unwrap();
        write_table(&mut file, &table).unwrap();
        assert_eq!(
            std::fs::read(&path).unwrap(),
            disk_with(&table, table.sectors).bytes
        );
        std::fs::remove_file(path).unwrap();
        // The kernel refuses to sync a character device.
        assert!(TableStorage::flush(&mut File::open("/dev/null").unwrap()).is_err());
    }

    #[test]
    fn boot_code_and_disk_signature_survive() {
        let table = sample(512, 32768);
        let mut disk = disk_with(&table, table.sectors);
        disk.bytes[..446].fill(0x90);
        write_table(&mut disk, &table).unwrap();
        assert!(disk.bytes[..446].iter().all(|&b| b == 0x90));
    }

    /// Between two flushes the disk may have written any subset of the sectors, in any order.
    #[test]
    fn a_power_cut_at_any_moment_of_growing_leaves_the_old_or_the_new_table() {
        for (sector, old_sectors, sectors) in [
            (512u32, 32768, 40960u64),
            (512, 32768, 32768),
            (4096, 4096, 5000),
        ] {
            let old = sample(sector, old_sectors);
            let before = disk_with(&old, sectors);
            let mut new = old.clone();
            new.sectors = sectors;
            if let Some(partition) = &mut new.partitions[4] {
                partition.last = new.sectors - 100;
            }
            let mut after = before.clone();
            write_table(&mut after, &new).unwrap();
            // A moment: everything up to `epoch` flushes is on the disk, and of the next epoch the
            // sectors that the seed picks.
            let mut seen = [0; 2];
            for epoch in 0..2 {
                for seed in 0..120u64 {
                    let mut disk = before.clone();
                    let (mut flushes, mut state) =
                        (0, seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
                    for entry in &after.log {
                        let Some((at, bytes)) = entry else {
                            flushes += 1;
                            continue;
                        };
                        for (n, chunk) in bytes.chunks(sector as usize).enumerate() {
                            state ^= state << 13;
                            state ^= state >> 7;
                            state ^= state << 17;
                            // Seeds 0 and 1 pick nothing and all of the epoch; others pick few,
                            // half or most sectors.
                            let picked = match seed {
                                0 => false,
                                1 => true,
                                _ => state % 16 < seed % 15 + 1,
                            };
                            if flushes < epoch || flushes == epoch && picked {
                                let at = *at as usize + n * sector as usize;
                                disk.bytes[at..at + chunk.len()].copy_from_slice(chunk);
                            }
                        }
                    }
                    let found = read_table(&disk, sector, sectors)
                        .unwrap_or_else(|e| panic!("epoch {epoch} seed {seed}: {e}"));
                    assert!(found.table == old || found.table == new);
                    seen[usize::from(found.table == new)] += 1;
                    // The next boot finishes it.
                    write_table(&mut disk, &new).unwrap();
                    assert_eq!(
                        read_table(&disk, sector, sectors).unwrap(),
                        FoundTable {
                            table: new.clone(),
                            from_backup: None,
                            repairs: vec![]
                        }
                    );
                }
            }
            assert!(seen[0] > 0 && seen[1] > 0);
        }
    }

    fn run(program: &str, args: &[&str], input: &str) -> Option<String> {
        use std::io::Write;
        use std::process::{Command, Stdio};
        let child = Command::new(program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let Ok(mut child) = child else {
            skip!(Program(program), None);
        };
        child
            .stdin
            .take()
            .unwrap()
            .write_all(input.as_bytes())
            .unwrap();
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program}: {text}");
        Some(text)
    }

    fn scratch(name: &str, bytes: &[u8]) -> String {
        let path = std::env::temp_dir().join(format!("adamant-gpt-{}-{name}", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    }

    #[test]
    fn writes_tables_that_sfdisk_and_sgdisk_accept() {
        let table = sample(512, 32768);
        let path = scratch("ours", &disk_with(&table, table.sectors).bytes);
        if let Some(text) = run("sfdisk", &["--verify", &path], "") {
            assert!(text.contains("No errors detected"), "{text}");
        }
        if let Some(text) = run("sfdisk", &["-J", &path], "") {
            let json: serde_json::Value = serde_json::from_str(&text).unwrap();
            let found = &json["partitiontable"]["partitions"];
            for (number, index) in [0usize, 1, 4].into_iter().enumerate() {
                let (ours, theirs) = (table.partitions[index].as_ref().unwrap(), &found[number]);
                assert_eq!(theirs["start"], ours.first);
                assert_eq!(theirs["size"], ours.sectors());
                assert_eq!(theirs["name"], ours.label);
                assert_eq!(theirs["uuid"], ours.id.to_string().to_uppercase());
                assert_eq!(theirs["type"], ours.kind.to_string().to_uppercase());
            }
        }
        if let Some(text) = run("sgdisk", &["-v", &path], "") {
            assert!(text.contains("No problems found"), "{text}");
        }
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn reads_tables_of_sfdisk_and_sgdisk() {
        let path = scratch("theirs", &vec![0; 16 << 20]);
        let script = "label: gpt\nlabel-id: 11111111-2222-3333-4444-555555555555\nstart=2048, size=4096, name=state, type=4d21b016-b534-45c2-a9fb-5c16e091fd2d\nsize=2048, name=logs, attrs=\"GUID:63\"\n";
        if run("sfdisk", &[&path], script).is_some() {
            let found = read_table(&File::open(&path).unwrap(), 512, 32768).unwrap();
            assert_eq!(found.repairs, Vec::<String>::new());
            assert_eq!(
                found.table.disk.to_string(),
                "11111111-2222-3333-4444-555555555555"
            );
            let [Some(state), Some(logs)] = &found.table.partitions[..2] else {
                panic!("{found:?}")
            };
            assert_eq!(
                (state.first, state.last, state.kind, state.label.as_str()),
                (2048, 6143, crate::gpt::VAR, "state")
            );
            assert_eq!(
                (logs.attributes, logs.sectors()),
                (crate::gpt::ATTR_NO_AUTO, 2048)
            );
        }
        if run(
            "sgdisk",
            &[
                "-Z",
                "-o",
                "-n",
                "1:2048:+1M",
                "-c",
                "1:café",
                "-A",
                "1:set:60",
                &path,
            ],
            "",
        )
        .is_some()
        {
            let found = read_table(&File::open(&path).unwrap(), 512, 32768).unwrap();
            let part = found.table.partitions[0].as_ref().unwrap();
            assert_eq!(
                (part.label.as_str(), part.attributes, part.last),
                ("café", crate::gpt::ATTR_READ_ONLY, 4095)
            );
        }
        std::fs::remove_file(path).unwrap();
    }
}
