//! Whether the image's files for a volume fit into the file system of the volume.
//!
//! The agent creates an ext4 with blocks of 4 KiB and inodes of 256 bytes. The number of free
//! blocks and inodes follows the arithmetic of e2fsprogs (mke2fs(8), lib/ext2fs/initialize.c), with
//! the inode ratios of its mke2fs.conf.

use adamant_contract::ext4::{SMALL_VOLUME, SMALL_VOLUME_GROUP, superblock_copies};

use super::{Finding, Image};
use crate::definition::VolumeDefinition;
use crate::io::zeros::is_zero;
use crate::rootfs::volumes::{Shipped, shipped};
use crate::tree::{Content, Kind, Node, show};

const BLOCK: u64 = 4096;
const INODE: u64 = 256;
const GROUP: u64 = 32768;
/// From this size on, mke2fs.conf has one inode per 16 KiB instead of 4 KiB.
const MANY_INODES_BELOW: u64 = 512 << 20;
/// Reserved inodes of ext4, and lost+found.
const OWN_INODES: u64 = 11;
/// Blocks of the root directory, of lost+found, and of the resize inode.
const OWN_BLOCKS: u64 = 1 + 4 + 1;
/// Reserve for the agent: its directory, its record, the machine-id, and growing directories.
const AGENT_BLOCKS: u64 = 64;
const AGENT_INODES: u64 = 16;
/// Suggested sizes are multiples of this.
const STEP: u64 = 16 << 20;
/// The agent replaces runs of zeroes of this length by holes.
const ZEROS: usize = 64 << 10;
/// Maximum number of units listed in a message.
const NAMED: usize = 3;

/// Blocks and inodes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Room {
    blocks: u64,
    inodes: u64,
}

impl Room {
    /// Free blocks and inodes of a new file system of this size.
    fn for_size(bytes: u64) -> Room {
        let blocks = bytes / BLOCK;
        let in_group = if bytes < SMALL_VOLUME {
            SMALL_VOLUME_GROUP
        } else {
            GROUP
        };
        let ratio = if bytes < MANY_INODES_BELOW {
            4096
        } else {
            16384
        };
        let groups = blocks.div_ceil(in_group);
        let table = (bytes / ratio).div_ceil(groups).div_ceil(BLOCK / INODE);
        let inodes = table * (BLOCK / INODE) * groups;
        // Group descriptors have 64 bytes. Blocks are reserved for the descriptors of a file system
        // of 1,024 times the size, with copies in some groups.
        let per_block = BLOCK / 64;
        let descriptors = groups.div_ceil(per_block);
        let later = (blocks * 1024)
            .min(u64::from(u32::MAX))
            .div_ceil(in_group)
            .div_ceil(per_block);
        let reserved = later.saturating_sub(descriptors).min(BLOCK / 4);
        let copies = (0..groups).filter(|group| has_copy(*group)).count() as u64;
        let overhead = copies * (1 + descriptors + reserved)
            + groups * (2 + table)
            + journal(blocks)
            + orphans(blocks)
            + OWN_BLOCKS;
        // ext4 reserves 2 % for its own metadata, at most 4,096 blocks.
        let kept = (blocks / 50).min(4096);
        Room {
            blocks: blocks.saturating_sub(overhead + kept + AGENT_BLOCKS),
            inodes: inodes.saturating_sub(OWN_INODES + AGENT_INODES),
        }
    }

    fn fits(self, room: Room) -> bool {
        self.blocks <= room.blocks && self.inodes <= room.inodes
    }
}

/// sparse_super: groups 0 and 1, and powers of 3, 5 and 7.
fn has_copy(group: u64) -> bool {
    group == 0 || superblock_copies(group).any(|copy| copy == group)
}

/// ext2fs_default_journal_size.
fn journal(blocks: u64) -> u64 {
    match blocks >> 10 {
        0..2 => 0,
        2..32 => 1024,
        32..256 => 4096,
        256..512 => 8192,
        512..4096 => 16384,
        4096..8192 => 32768,
        8192..16384 => 65536,
        16384..32768 => 131_072,
        _ => 262_144,
    }
}

/// ext2fs_default_orphan_file_blocks, for versions of e2fsprogs that create such a file.
fn orphans(blocks: u64) -> u64 {
    if blocks < 128 << 10 {
        32
    } else {
        (blocks / 4096).min(512)
    }
}

/// Checks every volume.
pub fn check(image: &Image) -> Vec<Finding> {
    image
        .definition
        .volumes
        .iter()
        .filter_map(|volume| too_small(image, volume))
        .collect()
}

fn too_small(image: &Image, volume: &VolumeDefinition) -> Option<Finding> {
    let mount = &volume.policy.mount;
    let shipped = shipped(image.tree, image.definition, mount);
    let room = Room::for_size(volume.size);
    if needs(image, &shipped, false).fits(room) {
        return None;
    }
    // Long runs of zeroes become holes. The search for them is slow, so it runs only if the result
    // depends on it.
    let need = needs(image, &shipped, true);
    if need.fits(room) {
        return None;
    }
    let name = &volume.policy.name;
    let message = format!(
        "volume {name:?} at {mount} is too small for the image's files: {} bytes and {} inodes are needed, but an ext4 of {} MiB has {} bytes and \
         {} inodes for content. The largest: {}",
        need.blocks * BLOCK,
        need.inodes,
        volume.size >> 20,
        room.blocks * BLOCK,
        room.inodes,
        largest(image, &shipped, mount),
    );
    let size = enough(need, volume.size).map_or("a larger one".to_owned(), |bytes| {
        format!("\"{}M\"", bytes >> 20)
    });
    let hint = match image.definition.has_default_volumes() {
        false => format!(
            "write size = {size} for [[volume]] name = {name:?}, or leave files out with absent = true"
        ),
        true => {
            let others = image.definition.volumes.iter().map(|other| {
                let size = if other.policy.name == *name {
                    size.clone()
                } else {
                    format!("\"{}M\"", other.size >> 20)
                };
                format!(
                    "[[volume]] name = {:?}, mount = {:?}, size = {size}",
                    other.policy.name, other.policy.mount
                )
            });
            format!(
                "write the default volumes with a larger size: {}",
                others.collect::<Vec<_>>().join("; ")
            )
        }
    };
    Some(Finding {
        is_error: true,
        rule: "volume-too-small",
        message,
        hint,
    })
}

/// Blocks and inodes that the image's entries need on a volume.
fn needs(image: &Image, shipped: &Shipped, without_zeros: bool) -> Room {
    let mut seen = std::collections::HashSet::new();
    let mut need = Room::default();
    for (_, id) in &shipped.entries {
        let node = image.tree.node(*id);
        if node.links > 1 && !seen.insert(*id) {
            continue;
        }
        need.inodes += 1;
        need.blocks += attributes(node)
            + match &node.kind {
                Kind::File(content) => file(content, without_zeros),
                Kind::Directory(names) => directory(names.keys().map(|name| name.len() as u64)),
                // Shorter targets are stored in the inode.
                Kind::Symlink(target) => u64::from(target.len() >= 60),
                _ => 0,
            };
    }
    need
}

fn file(content: &Content, without_zeros: bool) -> u64 {
    let mut blocks = content.len().div_ceil(BLOCK);
    if without_zeros {
        blocks -= zeros(content) / BLOCK;
    }
    // The inode has room for four extents, each at most as long as a small group.
    blocks
        + if blocks > 4 * SMALL_VOLUME_GROUP {
            blocks.div_ceil(SMALL_VOLUME_GROUP).div_ceil(340)
        } else {
            0
        }
}

/// Bytes in runs of zeroes that become holes. An unreadable file counts as 0; a later stage reports
/// the error.
fn zeros(content: &Content) -> u64 {
    let run = ZEROS as u64;
    let mut buffer = vec![0; ZEROS];
    let (mut end, mut zeros) = (0, 0);
    for extent in content.extents() {
        // A hole, minus the blocks at its ends that it shares with data.
        zeros += (extent.at / run).saturating_sub(u64::div_ceil(end, run)) * run;
        let mut at = extent.at.next_multiple_of(run);
        end = extent.at + extent.len;
        while at + run <= end {
            match content.read_exact_at(at, &mut buffer) {
                Ok(()) if is_zero(&buffer) => zeros += run,
                Ok(()) => {}
                Err(_) => return zeros,
            }
            at += run;
        }
    }
    zeros + (content.len() / run).saturating_sub(end.div_ceil(run)) * run
}

/// A directory entry needs 8 bytes more than its name, in multiples of 4. Blocks of an index are
/// three quarters full on average.
fn directory(names: impl Iterator<Item = u64>) -> u64 {
    let bytes: u64 = names
        .map(|length| (8 + length).next_multiple_of(4))
        .sum::<u64>()
        + 24;
    if bytes <= BLOCK {
        1
    } else {
        1 + (bytes * 4 / 3).div_ceil(BLOCK)
    }
}

/// Attributes that do not fit into the inode need a block.
fn attributes(node: &Node) -> u64 {
    let bytes: usize = node
        .meta
        .xattrs
        .iter()
        .flat_map(|all| all.iter())
        .map(|(name, value)| 16 + name.len() + value.len().next_multiple_of(4))
        .sum();
    u64::from(bytes > 88)
}

/// The suggested size: enough for the image's files, and a quarter more for services.
fn enough(need: Room, from: u64) -> Option<u64> {
    let fits = |bytes: &u64| need.fits(Room::for_size(*bytes));
    let sizes = |from: u64| (0..60_000).map(move |step| from.next_multiple_of(STEP) + step * STEP);
    let least = sizes(from).find(fits)?;
    sizes(least + least / 4).find(fits)
}

fn largest(image: &Image, shipped: &Shipped, mount: &str) -> String {
    let bytes = |id: &crate::tree::NodeId| match &image.tree.node(*id).kind {
        Kind::File(content) => content.len(),
        _ => 0,
    };
    // The sum of the files of each unit; for a volume that is one unit, the size of each entry.
    let mut sums: std::collections::BTreeMap<String, (u64, u64)> =
        std::collections::BTreeMap::new();
    for (path, id) in &shipped.entries {
        let path = show(path);
        let unit = shipped.units.iter().find(|unit| {
            *unit != mount && (path == **unit || adamant_contract::policy::is_below(&path, unit))
        });
        let sum = sums.entry(unit.cloned().unwrap_or(path)).or_default();
        *sum = (sum.0 + bytes(id), sum.1 + 1);
    }
    let mut sums: Vec<(String, (u64, u64))> = sums.into_iter().collect();
    sums.sort_by_key(|(_, (bytes, entries))| std::cmp::Reverse((*bytes).max(entries * BLOCK)));
    let named = sums
        .iter()
        .take(NAMED)
        .map(|(path, (bytes, entries))| match entries {
            1 => format!("{path} ({bytes} bytes)"),
            _ => format!("{path} ({bytes} bytes in {entries} entries)"),
        });
    named.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
#[path = "volumes_tests.rs"]
mod tests;
