//! The doors through which hostile bytes come in, one function each: any bytes at all must end in a
//! result, and what is accepted must keep the promises that others rely on. `fuzz/` calls them with
//! cargo-fuzz, `tests/tests/any_bytes.rs` with a bounded number of inputs.

use adamant_contract::cmdline::CommandLine;
use adamant_contract::credentials::Sorter;
use adamant_contract::gpt::disk::{self, TableStorage};
use adamant_contract::gpt::{self, Guid, Partition, PartitionTable};
use adamant_contract::policy::Policy;
use adamant_contract::root_hash::RootHash;
use adamant_contract::signature::{self, Certificate, Embedded};
use adamant_contract::uevent::DeviceEvent;
use adamant_contract::verity::{self, Superblock};

use crate::alter::Random;

/// Made by OpenSSL; its key was not kept, so nothing but [`SIGNED`] will ever be signed by it.
const CERTIFICATE: &[u8] = include_bytes!("signed/certificate.pem");
const PARTITION: &[u8] = include_bytes!("signed/partition.json");
const SIGNED: RootHash = RootHash([0xa5; 32]);

/// Kernel command lines.
pub fn command_line(bytes: &[u8]) {
    if let Ok(read) = CommandLine::parse(bytes) {
        assert!(read.init.is_none_or(|init| init.starts_with('/')));
        assert!((1..=600).contains(&read.device_timeout.as_secs()));
    }
}

/// The kernel's device events.
pub fn uevent(bytes: &[u8]) {
    if let Some(event) = DeviceEvent::parse(bytes) {
        assert!(event.devpath.starts_with('/') && !event.action.is_empty());
    }
}

/// Policies.
pub fn policy(bytes: &[u8]) {
    if let Ok(policy) = Policy::parse(bytes) {
        assert!(policy.check().is_ok());
        for volume in &policy.volumes {
            assert!(
                volume.mount.starts_with('/') && !volume.mount.split('/').any(|part| part == "..")
            );
        }
    }
}

/// SMBIOS structures and kernel command lines with credentials: what is let through has a name that
/// the policy has, and is within bounds.
pub fn credentials(bytes: &[u8]) {
    let accept = ["a*".to_owned(), "system.*".to_owned()];
    let mut sorter = Sorter::new(&accept);
    sorter.offer_smbios(bytes);
    sorter.offer_command_line(bytes);
    for credential in &sorter.accepted {
        assert!(credential.name.starts_with('a') || credential.name.starts_with("system."));
        assert!(
            !credential.name.contains('/')
                && credential.value.len() <= adamant_contract::credentials::LIMIT
        );
    }
    assert!(
        sorter
            .dropped
            .iter()
            .all(|dropped| !dropped.name.contains(char::is_control))
    );
}

/// Signature partitions: what is accepted says that it signs this root hash. The same bytes as a
/// certificate are read or refused, too.
pub fn signature(bytes: &[u8]) {
    let _ = Certificate::from_der(bytes);
    let _ = Certificate::from_pem(bytes);
    if let (Ok(embedded), Ok(trusted)) =
        (Embedded::parse(bytes), Certificate::from_pem(CERTIFICATE))
        && let Ok(signer) = signature::check_signature(
            &embedded,
            &embedded.root_hash,
            std::slice::from_ref(&trusted),
            0,
        )
    {
        assert_eq!(embedded.root_hash, SIGNED);
        assert_eq!(signer.fingerprint(), embedded.certificate_fingerprint);
    }
}

/// Verity superblocks: an accepted one encodes to the same bytes, and its hash tree has a size.
pub fn verity_superblock(bytes: &[u8]) {
    if let Ok(read) = Superblock::parse(bytes) {
        assert_eq!(read.encode()[..], bytes[..512]);
        assert_eq!(
            verity::levels(read.data_blocks).first(),
            (read.data_blocks > 1).then_some(&1)
        );
        assert!(verity::partition_blocks(read.data_blocks) >= 1);
    }
}

/// Partition tables, of a disk whose start or end these bytes are. With an odd first byte the check
/// sums are made to fit first, because no random change would ever get past them.
pub fn partition_table(bytes: &[u8]) {
    let Some((&flags, bytes)) = bytes.split_first() else {
        return;
    };
    let sector = if flags & 2 == 0 { 512 } else { 4096 };
    let mut image = bytes.to_vec();
    image.resize(
        image
            .len()
            .next_multiple_of(sector as usize)
            .max(64 * sector as usize),
        0,
    );
    if flags & 1 == 1 {
        fit_check_sums(&mut image, sector as usize);
    }
    let sectors = image.len() as u64 / u64::from(sector);
    let mut disk = Bytes(image);
    if let Ok(found) = disk::read_table(&disk, sector, sectors) {
        let mut spans: Vec<(u64, u64)> = found
            .table
            .partitions
            .iter()
            .flatten()
            .map(|part| (part.first, part.last))
            .collect();
        spans.sort_unstable();
        assert!(
            spans
                .iter()
                .all(|(first, last)| first <= last && *last < found.table.sectors),
            "{spans:?}"
        );
        assert!(
            spans.windows(2).all(|pair| pair[0].1 < pair[1].0),
            "{spans:?}"
        );
        // What was read can be written, and reads as the same.
        if found.table.sectors == sectors && disk::write_table(&mut disk, &found.table).is_ok() {
            assert_eq!(
                disk::read_table(&disk, sector, sectors).map(|again| again.table),
                Ok(found.table)
            );
        }
    }
}

/// Archives: any entries and extended headers. With an odd first byte every header's check sum is
/// made to fit first. What is accepted is a tree whose names stay inside it.
pub fn archive(bytes: &[u8]) {
    let Some((&flags, bytes)) = bytes.split_first() else {
        return;
    };
    let mut bytes = bytes.to_vec();
    if flags & 1 == 1 {
        for block in bytes
            .chunks_exact_mut(512)
            .filter(|block| block[257..262] == *b"ustar")
        {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
    let limits = adamant::definition::Limits {
        bytes: 4 << 20,
        entries: 1000,
    };
    if let Ok(tree) = adamant::source::tar::read_bytes(&bytes, limits) {
        let mut sizes = std::collections::BTreeMap::new();
        for (path, id) in tree.walk() {
            let node = tree.node(id);
            assert!(
                adamant::tree::parts(&path).all(|name| name != b"."
                    && name != b".."
                    && name.len() <= 255
                    && !name.contains(&0)),
                "{path:?}"
            );
            assert!(
                node.links > 0
                    && node.meta.mode <= 0o7777
                    && node.meta.mtime.nanoseconds < 1_000_000_000
            );
            if let adamant::tree::Kind::File(file) = &node.kind {
                assert_eq!(
                    file.to_vec(limits.bytes)
                        .map(|bytes| bytes.len() as u64)
                        .ok(),
                    Some(file.len())
                );
                sizes.insert(id, file.len());
            }
        }
        assert!(
            tree.capacity() as u64 <= limits.entries + 1
                && sizes.into_values().sum::<u64>() <= limits.bytes,
            "more than the limits"
        );
    }
}

/// The oddities, and small archives with a file, a sparse one, links and a PAX header, written by
/// GNU tar.
fn archives() -> Vec<Vec<u8>> {
    let scratch = crate::scratch::Scratch::new("doors");
    let dir = scratch.join("d");
    let script = "mkdir $0; cd $0; echo text >file; ln file hard; ln -s file soft; mkfifo fifo; truncate -s 100K sparse; echo x >>sparse; touch $(printf n%0120d 1)";
    crate::tool::run(crate::tool::command("sh").args(["-ec", script]).arg(&dir));
    let formats: [&[&str]; 3] = [
        &["--format=gnu", "-S"],
        &["--format=pax", "-S"],
        &["--format=ustar"],
    ];
    let pack = |options: &&[&str]| {
        crate::tool::output(
            crate::tool::command("tar")
                .args(*options)
                .arg("-c")
                .arg("-C")
                .arg(&dir)
                .args([".", "-f", "-"]),
        )
        .stdout
    };
    let packed = formats
        .iter()
        .map(|options| [&[1][..], &pack(options)].concat())
        .filter(|archive| archive.len() < 150_000);
    packed
        .chain([[&[1][..], &crate::oddities::small()].concat()])
        .collect()
}

/// A disk in memory.
struct Bytes(Vec<u8>);

impl TableStorage for Bytes {
    fn read_at(&self, at: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        let range = usize::try_from(at)
            .ok()
            .and_then(|at| self.0.get(at..at.checked_add(buffer.len())?));
        buffer.copy_from_slice(range.ok_or(std::io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&mut self, at: u64, bytes: &[u8]) -> std::io::Result<()> {
        let range = usize::try_from(at)
            .ok()
            .and_then(|at| self.0.get_mut(at..at.checked_add(bytes.len())?));
        range
            .ok_or(std::io::ErrorKind::UnexpectedEof)?
            .copy_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn fit_check_sums(image: &mut [u8], sector: usize) {
    for header_at in [sector, image.len() - sector] {
        let header = &image[header_at..header_at + 92];
        let entries_at = u64::from_le_bytes([
            header[72], header[73], header[74], header[75], header[76], header[77], header[78],
            header[79],
        ]);
        let count =
            u32::from_le_bytes([header[80], header[81], header[82], header[83]]).min(128) as usize;
        if let Some(entries) = usize::try_from(entries_at)
            .ok()
            .and_then(|at| image.get(at.checked_mul(sector)?..)?.get(..count * 128))
        {
            let sum = crc32(entries);
            image[header_at + 88..header_at + 92].copy_from_slice(&sum.to_le_bytes());
        }
        image[header_at + 16..header_at + 20].fill(0);
        let sum = crc32(&image[header_at..header_at + 92]);
        image[header_at + 16..header_at + 20].copy_from_slice(&sum.to_le_bytes());
    }
}

/// CRC-32 as in IEEE 802.3, a bit at a time: written apart from the code it checks.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            if crc & 1 == 1 {
                (crc >> 1) ^ 0xedb8_8320
            } else {
                crc >> 1
            }
        })
    })
}

/// A door, with inputs that it accepts: the start of every mutation.
pub struct Door {
    /// Its name, also of the fuzz target.
    pub name: &'static str,
    /// Takes any bytes.
    pub enter: fn(&[u8]),
    /// Inputs that are accepted.
    pub seeds: Vec<Vec<u8>>,
}

/// All of them.
pub fn doors() -> Vec<Door> {
    let hash = "f6f9916eced28986000102030405060708090a0b0c0d0e0f1011121314151617";
    let line = format!(
        "console=ttyS0 roothash={hash} systemd.verity_root_data=PARTLABEL=a\\x20b \"x=a b\" init=/sbin/init adamant.device_timeout=5 -- x\n"
    );
    let event = "add@/devices/pci0/virtio0/block/vda\0ACTION=add\0DEVPATH=/devices/pci0/virtio0/block/vda\0SUBSYSTEM=block\0DEVNAME=vda\0SEQNUM=1\0";
    let text = r#"{"version": 1, "image": {"id": "web", "version": "1"}, "verify": {"boot": "full"}, "failure": {"action": "halt", "after_seconds": 3}, "credentials": {"accept": ["a.*"]}, "volume": [{"name": "state", "mount": "/var", "weight": 2, "on_damage": "recreate"}]}"#;
    let smbios = b"\x0b\x05\0\0\x01io.systemd.credential:a.key=x=1\0io.systemd.credential.binary:system.x=AAH/\0io.systemd.credential:other=y\0\0";
    let superblock = Superblock {
        uuid: [7; 16],
        data_blocks: 12345,
        salt: vec![3; 32],
    }
    .encode()
    .to_vec();
    let mut tables = Vec::new();
    for (flags, sector) in [(1u8, 512u32), (3, 4096)] {
        let sectors = 256;
        let part = |first, last, label: &str| Partition {
            kind: gpt::ROOT_X86_64,
            id: Guid([first as u8; 16]),
            first,
            last,
            attributes: gpt::ATTR_READ_ONLY,
            label: label.to_owned(),
        };
        let table = PartitionTable {
            disk: Guid([9; 16]),
            sector,
            sectors,
            partitions: vec![
                Some(part(64, 100, "root")),
                None,
                Some(part(101, 150, "größer")),
            ],
        };
        let mut disk = Bytes(vec![0; sectors as usize * sector as usize]);
        disk::write_table(&mut disk, &table).unwrap_or_else(|e| panic!("{e}"));
        tables.push([&[flags][..], &disk.0].concat());
    }
    vec![
        Door {
            name: "command_line",
            enter: command_line,
            seeds: vec![line.into_bytes()],
        },
        Door {
            name: "uevent",
            enter: uevent,
            seeds: vec![event.as_bytes().to_vec()],
        },
        Door {
            name: "policy",
            enter: policy,
            seeds: vec![text.as_bytes().to_vec()],
        },
        Door {
            name: "credentials",
            enter: credentials,
            seeds: vec![
                smbios.to_vec(),
                b"systemd.set_credential=a.b:c systemd.set_credential_binary=system.x:AA== x"
                    .to_vec(),
            ],
        },
        Door {
            name: "signature",
            enter: signature,
            seeds: vec![PARTITION.to_vec()],
        },
        Door {
            name: "verity_superblock",
            enter: verity_superblock,
            seeds: vec![superblock],
        },
        Door {
            name: "archive",
            enter: archive,
            seeds: archives(),
        },
        Door {
            name: "partition_table",
            enter: partition_table,
            seeds: tables,
        },
    ]
}

/// Changes an input in one to eight places: bits, bytes, whole numbers, pieces taken out, doubled,
/// or taken from elsewhere.
pub fn mutate(seed: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=random.below(8) {
        if bytes.is_empty() {
            bytes.push(random.next() as u8);
            continue;
        }
        let length = bytes.len() as u64;
        // Half of all changes fall into the first KiB, where headers are.
        let reach = if random.below(2) == 0 {
            length.min(1024)
        } else {
            length
        };
        let at = random.below(reach) as usize;
        let piece = (random.below(16) as usize + 1).min(bytes.len() - at);
        match random.below(8) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.next() as u8,
            2 => bytes[at..at + piece].fill([0, 0xff, b'9', b'0'][random.below(4) as usize]),
            3 => {
                bytes.drain(at..at + piece);
            }
            4 => {
                let double = bytes[at..at + piece].to_vec();
                bytes.splice(at..at, double);
            }
            5 => {
                let from = random.below(length) as usize;
                let taken = bytes[from..(from + piece).min(bytes.len())].to_vec();
                let end = (at + taken.len()).min(bytes.len());
                bytes[at..end].copy_from_slice(&taken[..end - at]);
            }
            6 => bytes.truncate(at),
            _ => {
                let number = [
                    u64::MAX,
                    1 << 63,
                    1 << 32,
                    u64::from(u32::MAX),
                    0,
                    1,
                    length,
                    length / 512,
                ][random.below(8) as usize]
                    .to_le_bytes();
                let width = [1, 2, 4, 8][random.below(4) as usize].min(bytes.len() - at);
                bytes[at..at + width].copy_from_slice(&number[..width]);
            }
        }
    }
    bytes
}
