//! The disk image: a GPT with the EFI system partition, one or two slots, the black box and the
//! volumes. It is written sparse and in one pass, without a loop device, a mount or privileges.
//!
//! Types and labels follow the Discoverable Partitions Specification (UAPI.2). Every GUID is
//! derived from the image's id or the root hash; none is random.

pub mod esp;
pub mod fat;
mod write;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use adamant_contract::blackbox;
use adamant_contract::gpt::{
    self, ATTR_NEVER_USED, ATTR_NO_AUTO, ATTR_READ_ONLY, EFI_SYSTEM, Guid, LABEL_UNITS, Partition,
    PartitionTable, ROOT_VERITY_SIG_X86_64, ROOT_VERITY_X86_64, ROOT_X86_64, volume_type,
};
use adamant_contract::root_hash::RootHash;
use adamant_contract::verity::partition_blocks;

pub use write::{DiskContents, WrittenDisk};

use crate::definition::Definition;
use crate::derive::derive_uuid;
use crate::error::{Context, Error, Result};
use crate::sign::roothash;

/// Alignment of the partitions' starts and ends, bytes. Partitioning tools use it, and it is a
/// multiple of every flash page.
pub const GRAIN: u64 = 1 << 20;
/// Unit of the slot size that the builder chooses, bytes.
const SLOT_GRAIN: u64 = 64 << 20;
/// Label of the partitions of an empty slot (systemd-sysupdate's convention).
pub const EMPTY: &str = "_empty";

/// The partition table of a disk, and what each partition holds.
#[derive(Debug, Clone)]
pub struct DiskLayout {
    table: PartitionTable,
    /// The role of each partition of the table.
    roles: Vec<PartitionRole>,
}

/// Content of a partition in the disk image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PartitionRole {
    Esp,
    Root,
    HashTree,
    Signature,
    /// Empty until a boot or an update fills it.
    Blank,
}

/// Sizes that decide the layout.
#[derive(Debug, Clone, Copy)]
pub struct PartitionSizes {
    /// Bytes of the root file system.
    pub root: u64,
    /// Bytes of the hash tree.
    pub hash_tree: u64,
    /// Whether there is an EFI system partition.
    pub esp: bool,
    /// Whether the slots have a signature partition.
    pub signature: bool,
}

impl DiskLayout {
    /// The layout for artifacts of these sizes.
    pub fn new(
        definition: &Definition,
        root_hash: &RootHash,
        sizes: PartitionSizes,
    ) -> Result<DiskLayout> {
        let Definition {
            id, version, disk, ..
        } = definition;
        let slots = disk.slots.unwrap_or(if sizes.esp { 2 } else { 1 });
        let root_size = slot_size(definition, sizes.root, slots)?;
        // The hash tree of the largest root that fits into the slot.
        let hash_tree_size = if root_size > sizes.root {
            partition_blocks(root_size / 4096) * 4096
        } else {
            sizes.hash_tree
        };
        let derived = |purpose: &str| derived_guid(id, purpose);
        let mut parts = Vec::new();
        if sizes.esp {
            parts.push((
                PartitionRole::Esp,
                EFI_SYSTEM,
                derived("esp"),
                0,
                "esp".to_owned(),
                disk.esp,
            ));
        }
        parts.push((
            PartitionRole::Root,
            ROOT_X86_64,
            root_hash.data_partuuid(),
            ATTR_READ_ONLY,
            format!("{id}_{version}"),
            root_size,
        ));
        parts.push((
            PartitionRole::HashTree,
            ROOT_VERITY_X86_64,
            root_hash.tree_partuuid(),
            ATTR_READ_ONLY,
            format!("{id}_{version}_verity"),
            hash_tree_size,
        ));
        let signature = roothash::PARTITION as u64;
        if sizes.signature {
            let guid = derived_guid(&root_hash.to_string(), "signature");
            parts.push((
                PartitionRole::Signature,
                ROOT_VERITY_SIG_X86_64,
                guid,
                ATTR_READ_ONLY,
                format!("{id}_{version}_sig"),
                signature,
            ));
        }
        if slots == 2 {
            let attributes = ATTR_READ_ONLY | ATTR_NO_AUTO;
            let mut empty = |kind, purpose: &str, size| {
                parts.push((
                    PartitionRole::Blank,
                    kind,
                    derived(purpose),
                    attributes,
                    EMPTY.to_owned(),
                    size,
                ))
            };
            empty(ROOT_X86_64, "slot 2 root", root_size);
            empty(ROOT_VERITY_X86_64, "slot 2 verity", hash_tree_size);
            if sizes.signature {
                empty(ROOT_VERITY_SIG_X86_64, "slot 2 signature", signature);
            }
        }
        if disk.black_box {
            parts.push((
                PartitionRole::Blank,
                blackbox::PARTITION_TYPE,
                derived("black box"),
                ATTR_NO_AUTO,
                blackbox::LABEL.to_owned(),
                blackbox::BYTES,
            ));
        }
        // If the disk is enlarged later, only the last partition can grow into the new space, so
        // the volume with the largest weight is last.
        let mut volumes: Vec<_> = definition.volumes.iter().rev().collect();
        volumes.sort_by_key(|volume| (volume.policy.weight, volume.size));
        for volume in volumes {
            let name = &volume.policy.name;
            let attributes = ATTR_NO_AUTO | ATTR_NEVER_USED;
            parts.push((
                PartitionRole::Blank,
                volume_type(&volume.policy.mount),
                derived(&format!("volume {name}")),
                attributes,
                name.clone(),
                volume.size,
            ));
        }
        let sector = u64::from(disk.sector);
        let mut next = GRAIN;
        let mut partitions = Vec::with_capacity(parts.len());
        let mut roles = Vec::with_capacity(parts.len());
        for (role, kind, partition_id, attributes, label, bytes) in parts {
            if label.encode_utf16().count() > LABEL_UNITS {
                return Err(Error::new(format!("partition label {label:?} is longer than the {LABEL_UNITS} characters a GPT holds"))
                    .hint("give the image a shorter id or version"));
            }
            let end = round_up(bytes.max(1))
                .and_then(|bytes| next.checked_add(bytes))
                .filter(|&end| end < 1 << 62);
            let end = end.ok_or_else(|| {
                Error::new(format!(
                    "partition {label:?}: {bytes} bytes is not a valid size"
                ))
            })?;
            partitions.push(Some(Partition {
                kind,
                id: partition_id,
                first: next / sector,
                last: end / sector - 1,
                attributes,
                label,
            }));
            roles.push(role);
            next = end;
        }
        // The backup table takes one more grain.
        let table = PartitionTable {
            disk: derived("disk"),
            sector: disk.sector,
            sectors: (next + GRAIN) / sector,
            partitions,
        };
        Ok(DiskLayout { table, roles })
    }

    /// Size of the disk in bytes.
    pub fn bytes(&self) -> u64 {
        self.table.sectors * self.sector()
    }

    /// Bytes of the EFI system partition; 0 if there is none.
    pub fn esp_bytes(&self) -> u64 {
        let mut all = self.table.partitions.iter().flatten().zip(&self.roles);
        all.find(|(_, role)| **role == PartitionRole::Esp)
            .map_or(0, |(partition, _)| partition.sectors() * self.sector())
    }

    /// Reads the layout of a disk that a build wrote.
    pub fn read_from(disk: &File) -> Result<DiskLayout> {
        let bytes = disk.metadata().context(|| "reading its size")?.len();
        let (_, found) =
            read_table(disk, bytes).map_err(|why| Error::new(format!("partition table: {why}")))?;
        let role = |partition: &Partition| match partition.kind {
            EFI_SYSTEM => PartitionRole::Esp,
            _ if partition.label == EMPTY => PartitionRole::Blank,
            ROOT_X86_64 => PartitionRole::Root,
            ROOT_VERITY_X86_64 => PartitionRole::HashTree,
            ROOT_VERITY_SIG_X86_64 => PartitionRole::Signature,
            _ => PartitionRole::Blank,
        };
        let roles = found.table.partitions.iter().flatten().map(role).collect();
        Ok(DiskLayout {
            table: found.table,
            roles,
        })
    }

    /// Size of a sector in bytes.
    pub fn sector(&self) -> u64 {
        u64::from(self.table.sector)
    }
}

/// Reads the partition table of a file of `len` bytes. The position of the table tells whether the
/// disk's sectors have 512 or 4096 bytes. Returns the size of a sector and the table.
pub fn read_table(
    file: &File,
    len: u64,
) -> std::result::Result<(u64, gpt::disk::FoundTable), String> {
    if len < 34 * 512 {
        return Err(format!(
            "{len} bytes are too few for one: the file is truncated, or is not a disk"
        ));
    }
    match gpt::disk::read_table(file, 512, len / 512) {
        Ok(found) => Ok((512, found)),
        Err(why) => gpt::disk::read_table(file, 4096, len / 4096)
            .map(|found| (4096, found))
            .map_err(|_| why.to_string()),
    }
}

/// Reads the partition table of the disk image `path`. The error for any other file says what kind
/// of file it is, and what to do.
pub fn open_table(path: &Path, file: &File) -> Result<(u64, gpt::disk::FoundTable)> {
    let name = path.display();
    let len = file.metadata().context(|| name.to_string())?.len();
    let why = match read_table(file, len) {
        Ok(found) => return Ok(found),
        Err(why) => why,
    };
    let mut head = vec![0; len.min(1100) as usize];
    file.read_exact_at(&mut head, 0)
        .context(|| name.to_string())?;
    let starts = |at: usize, magic: &[u8]| head.get(at..at + magic.len()) == Some(magic);
    let converted = "convert it with `qemu-img convert -O raw FROM TO`";
    let (what, hint) = if starts(512, b"EFI PART") || starts(4096, b"EFI PART") {
        (
            format!("a disk image with a damaged partition table, or truncated: {why}"),
            "copy it again from where it is complete, or build it again",
        )
    } else if starts(0, b"QFI\xfb") {
        ("a qcow2 disk, not a raw one".to_owned(), converted)
    } else if starts(0, b"KDMV") || starts(0, b"# Disk DescriptorFile") {
        ("a VMDK disk, not a raw one".to_owned(), converted)
    } else if starts(0, b"conectix") || starts(0, b"vhdxfile") {
        ("a VHD disk, not a raw one".to_owned(), converted)
    } else if starts(0, &[0x28, 0xb5, 0x2f, 0xfd])
        || starts(0, &[0x1f, 0x8b])
        || starts(257, b"ustar")
    {
        (
            "a compressed file or an archive".to_owned(),
            "unpack it first",
        )
    } else if starts(1024, &0xe0f5_e1e2u32.to_le_bytes()) {
        (
            "an EROFS file system, not a disk".to_owned(),
            "`adamant verify` checks it, with the .root.verity and .roothash beside it",
        )
    } else {
        (
            format!("neither a disk with a partition table nor an EFI program: {why}"),
            "give a raw disk image, a unified kernel image (.efi) or a build's OUT directory",
        )
    };
    Err(Error::new(format!("{name}: {what}")).hint(hint))
}

/// Bytes of a slot's root partition. Fails if the configured size leaves less than the configured
/// headroom.
fn slot_size(definition: &Definition, root: u64, slots: u32) -> Result<u64> {
    let disk = &definition.disk;
    // Largest part of the slot that the root may fill, percent.
    let share = 100 - disk.headroom.min(99);
    match disk.slot_size {
        Some(size) if u128::from(root) * 100 > u128::from(size) * u128::from(share) => {
            let (size, root, headroom) = (size >> 20, root.div_ceil(1 << 20), disk.headroom);
            Err(Error::new(format!("the root has {root} MiB: in a slot of {size} MiB less than the headroom of {headroom}% is left for later images"))
                .hint("make disk.slot_size larger or disk.headroom smaller, or leave packages out"))
        }
        Some(size) => Ok(size),
        None if slots == 1 => Ok(root),
        None => {
            let wanted = (u128::from(root) * 100).div_ceil(u128::from(share));
            let wanted = u64::try_from(wanted)
                .ok()
                .and_then(|wanted| wanted.checked_next_multiple_of(SLOT_GRAIN));
            wanted.ok_or_else(|| {
                Error::new(format!("a root of {root} bytes is too large for a slot"))
            })
        }
    }
}

/// Derives a GUID from the image's id and a purpose.
pub fn derived_guid(id: &str, purpose: &str) -> Guid {
    Guid::from_text_order(derive_uuid(format!("adamant {purpose}\0").as_bytes(), id))
}

fn round_up(bytes: u64) -> Option<u64> {
    bytes.checked_next_multiple_of(GRAIN)
}

#[cfg(test)]
mod tests;
