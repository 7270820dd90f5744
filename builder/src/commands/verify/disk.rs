//! Verifies a disk image without a manifest: its partition table, and each root by the root hash
//! that the PARTUUIDs of root and hash tree contain (UAPI.2).

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use adamant_contract::gpt::{Partition, ROOT_VERITY_X86_64, ROOT_X86_64};
use adamant_contract::root_hash::RootHash;
use adamant_contract::verity::{SUPERBLOCK, Superblock, partition_blocks};

use super::{Verified, VerifyOptions, root};
use crate::disk::{self, EMPTY};
use crate::erofs::BLOCK;
use crate::error::{Context, Error, Result};
use crate::io::part::Part;

/// Verifies every root on the disk.
pub fn verify(path: &Path, options: VerifyOptions) -> Result<Vec<Verified>> {
    let show = path.display();
    let file = Arc::new(File::open(path).context(|| format!("{show}"))?);
    let (sector, found) = disk::open_table(path, &file)?;
    if let Some(repair) = found.repairs.first() {
        return Err(Error::new(format!("{show}: partition table: {repair}"))
            .hint("build the image again, or boot it: the agent repairs its table"));
    }
    let partitions: Vec<&Partition> = found.table.partitions.iter().flatten().collect();
    let roots: Vec<&&Partition> = partitions
        .iter()
        .filter(|p| p.kind == ROOT_X86_64 && p.label != EMPTY)
        .collect();
    if roots.is_empty() {
        return Err(Error::new(format!("{show}: no root partition")));
    }
    let part = |partition: &Partition| {
        let range = partition
            .first
            .checked_mul(sector)
            .zip(partition.sectors().checked_mul(sector));
        range
            .and_then(|(start, length)| Part::range(file.clone(), start, length))
            .ok_or_else(|| {
                Error::new(format!(
                    "{show}: {}: the partition's offset and size exceed 64 bits",
                    partition.label
                ))
            })
    };
    let mut whole = Vec::new();
    for data in roots {
        let tree_label = format!("{}_verity", data.label);
        let tree = partitions
            .iter()
            .find(|p| p.kind == ROOT_VERITY_X86_64 && p.label == tree_label);
        let tree =
            tree.ok_or_else(|| Error::new(format!("{show}: root {:?} has no hash tree (no root-verity partition is labelled {tree_label:?})", data.label)))?;
        let hash = RootHash(
            [data.id.text_order(), tree.id.text_order()]
                .concat()
                .try_into()
                .unwrap_or_default(),
        );
        let names = (
            format!("{show}, partition {:?}", data.label),
            format!("{show}, partition {:?}", tree.label),
        );
        let (data_part, tree_part) = trim_to_superblock(part(data)?, part(tree)?)
            .map_err(|why| Error::new(format!("{}: {why}", names.1)))?;
        let found =
            root::verify_parts((data_part, tree_part), (&names.0, &names.1), &hash, options)?;
        whole.push(Verified {
            image: data.label.clone(),
            ..found
        });
    }
    Ok(whole)
}

/// Shortens a root partition and its hash tree partition to the file system and the hash tree in
/// them, whose sizes are in the superblock of the hash tree.
pub fn trim_to_superblock(data: Part, tree: Part) -> std::result::Result<(Part, Part), String> {
    let mut bytes = [0; SUPERBLOCK];
    tree.read_exact_at(&mut bytes, 0)
        .map_err(|e| e.to_string())?;
    let blocks = Superblock::parse(&bytes)
        .map_err(|e| e.to_string())?
        .data_blocks;
    Ok((
        data.first(blocks.saturating_mul(BLOCK as u64)),
        tree.first(partition_blocks(blocks).saturating_mul(BLOCK as u64)),
    ))
}
