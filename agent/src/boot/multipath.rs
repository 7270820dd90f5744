//! Detects several paths to one disk: a LUN behind two controllers appears as two disks of the
//! kernel.
//!
//! Two disks are one if they have the same world wide name, the same size and the same partition
//! table id. Weaker evidence, such as a serial number that an administrator can choose, is used in
//! messages only. A copy of a disk that is taken for a second path to it would cause harm before
//! anyone notices.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use adamant_contract::gpt::{Guid, disk};

use crate::kernel::block::{self, Disk};

/// Longest name that is read, bytes.
const NAME_LIMIT: u64 = 256;
/// Designators that are unique in the world (SPC-4, 7.8.6; NVMe base specification, 4.7.1). `t10.`
/// is not among them: virtual machines derive it from a name that their owner chooses.
const UNIQUE: [&str; 4] = ["naa.", "eui.", "uuid.", "nvme."];

/// What a disk reports about itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DiskIdentity {
    /// Its world wide name, as the kernel writes it.
    pub wwid: Option<String>,
    /// Its serial number.
    pub serial: Option<String>,
}

/// A disk with its table.
pub type Surveyed = (Disk, Result<disk::FoundTable, String>);

/// Another path to a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherPath {
    /// The name of the disk that is used.
    pub of: String,
    /// The path that is not used.
    pub disk: Disk,
    /// The world wide name that both have.
    pub wwid: String,
}

impl DiskIdentity {
    /// Reads the identity of a disk from /sys/block.
    #[inline(never)]
    pub fn read(name: &str) -> DiskIdentity {
        let sys = Path::new("/sys/block").join(name);
        let first = |paths: [&str; 2]| paths.into_iter().find_map(|path| text(&sys.join(path)));
        // Page 0x80 of a SCSI disk: four bytes, then the number.
        let page = bytes(&sys.join("device/vpd_pg80")).and_then(|page| printable(page.get(4..)?));
        DiskIdentity {
            wwid: first(["device/wwid", "wwid"]),
            serial: page.or_else(|| first(["serial", "device/serial"])),
        }
    }

    /// Its world wide name, if that is unique in the world.
    fn unique(&self) -> Option<&str> {
        self.wwid.as_deref().filter(|wwid| {
            UNIQUE.iter().any(|kind| {
                wwid.strip_prefix(kind)
                    .is_some_and(|rest| rest.contains(|c: char| !matches!(c, '0' | '.' | '-')))
            })
        })
    }

    /// Why this disk is probably the same as another one, for a message.
    pub fn alike(&self, other: &DiskIdentity) -> Option<String> {
        let same = |mine: &Option<String>, others: &Option<String>| {
            mine.clone().filter(|mine| Some(mine) == others.as_ref())
        };
        same(&self.wwid, &other.wwid)
            .map(|wwid| format!("WWN {wwid}"))
            .or_else(|| {
                same(&self.serial, &other.serial).map(|serial| format!("serial number {serial}"))
            })
    }
}

/// Keeps one of several paths to a disk, the first by name, and returns the others.
#[inline(never)]
pub fn merge(
    disks: Vec<(Surveyed, DiskIdentity)>,
) -> (Vec<(Surveyed, DiskIdentity)>, Vec<OtherPath>) {
    let (mut kept, mut others): (Vec<(Surveyed, DiskIdentity)>, Vec<OtherPath>) =
        (Vec::new(), Vec::new());
    for ((disk, found), identity) in disks {
        let of = kept.iter().find(|((known, table), known_as)| {
            let is_one = identity.unique().is_some() && identity.unique() == known_as.unique();
            is_one
                && (known.sector, known.sectors) == (disk.sector, disk.sectors)
                && table_id(table).is_some()
                && table_id(table) == table_id(&found)
        });
        match of {
            Some(((known, _), _)) => others.push(OtherPath {
                of: known.name.clone(),
                disk,
                wwid: identity.wwid.unwrap_or_default(),
            }),
            None => kept.push(((disk, found), identity)),
        }
    }
    (kept, others)
}

fn table_id(found: &Result<disk::FoundTable, String>) -> Option<Guid> {
    found.as_ref().ok().map(|found| found.table.disk)
}

impl OtherPath {
    /// Makes the path and its partitions read-only, so that all writes use the other path.
    #[inline(never)]
    pub fn close(&self) -> io::Result<()> {
        let folder = Path::new("/sys/block").join(&self.disk.name);
        for entry in fs::read_dir(folder)?.flatten() {
            if let Some(name) = entry
                .file_name()
                .to_str()
                .filter(|name| block::partition_number(&self.disk.name, name).is_some())
            {
                read_only(&block::node(name))?;
            }
        }
        read_only(&self.disk.path)
    }
}

fn read_only(device: &Path) -> io::Result<()> {
    block::set_read_only(File::open(device)?)
}

#[inline(never)]
fn bytes(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)
        .ok()?
        .take(NAME_LIMIT)
        .read_to_end(&mut bytes)
        .ok()?;
    Some(bytes)
}

fn text(path: &Path) -> Option<String> {
    bytes(path).and_then(|bytes| printable(&bytes))
}

/// Trims a name. `None` if nothing is left, or if it is not printable.
#[inline(never)]
fn printable(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
    (!text.is_empty() && !text.contains(char::is_control)).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use adamant_contract::gpt::PartitionTable;

    use super::*;

    fn disk(name: &str, table: u8, sectors: u64, wwid: Option<&str>) -> (Surveyed, DiskIdentity) {
        let table = PartitionTable {
            disk: Guid([table; 16]),
            sector: 512,
            sectors: 4096,
            partitions: Vec::new(),
        };
        let disk = Disk {
            path: block::node(name),
            name: name.to_owned(),
            sector: 512,
            sectors,
        };
        let identity = DiskIdentity {
            wwid: wwid.map(str::to_owned),
            serial: Some("lun7".to_owned()),
        };
        (
            (
                disk,
                Ok(disk::FoundTable {
                    table,
                    from_backup: None,
                    repairs: Vec::new(),
                }),
            ),
            identity,
        )
    }

    fn names(disks: Vec<(Surveyed, DiskIdentity)>) -> (Vec<String>, Vec<String>) {
        let (kept, others) = merge(disks);
        (
            kept.into_iter().map(|((disk, _), _)| disk.name).collect(),
            others
                .into_iter()
                .map(|other| format!("{} is {}", other.disk.name, other.of))
                .collect(),
        )
    }

    #[test]
    fn treats_disks_with_equal_name_size_and_table_as_one() {
        let wwid = Some("naa.5000c50015ea71aa");
        let three = vec![
            disk("sda", 1, 4096, wwid),
            disk("sdb", 1, 4096, wwid),
            disk("sdc", 1, 4096, wwid),
        ];
        assert_eq!(
            names(three),
            (
                vec!["sda".to_owned()],
                vec!["sdb is sda".to_owned(), "sdc is sda".to_owned()]
            )
        );
    }

    #[test]
    fn treats_disks_with_weaker_evidence_as_two() {
        let wwid = Some("naa.5000c50015ea71aa");
        for other in [
            disk("sdb", 2, 4096, wwid),
            disk("sdb", 1, 8192, wwid),
            disk("sdb", 1, 4096, Some("naa.5000c50015ea71ab")),
            disk("sdb", 1, 4096, None),
        ] {
            assert_eq!(
                names(vec![disk("sda", 1, 4096, wwid), other]).1,
                Vec::<String>::new()
            );
        }
        // Names that are not unique, and empty names.
        for wwid in [
            "t10.ATA QEMU HARDDISK lun7",
            "0QEMU    QEMU HARDDISK   lun7",
            "naa.0000000000000000",
            "eui.",
            "",
        ] {
            let pair = vec![
                disk("sda", 1, 4096, Some(wwid)),
                disk("sdb", 1, 4096, Some(wwid)),
            ];
            assert_eq!(names(pair).1, Vec::<String>::new(), "{wwid}");
        }
        let mut unread = disk("sdb", 1, 4096, wwid);
        unread.0.1 = Err("no partition table".to_owned());
        assert_eq!(
            names(vec![disk("sda", 1, 4096, wwid), unread]).1,
            Vec::<String>::new()
        );
    }

    #[test]
    fn names_the_common_property_of_two_disks() {
        let of = |wwid| disk("sda", 1, 4096, wwid).1;
        assert_eq!(
            of(Some("t10.x")).alike(&of(Some("t10.x"))),
            Some("WWN t10.x".to_owned())
        );
        assert_eq!(
            of(None).alike(&of(Some("t10.x"))),
            Some("serial number lun7".to_owned())
        );
        assert_eq!(
            DiskIdentity::default().alike(&DiskIdentity::default()),
            None
        );
        assert_eq!(printable(b"  lun7 \0\n"), Some("lun7".to_owned()));
        assert!(printable(b" ").is_none() && printable(b"a\x1b[2J").is_none());
    }
}
