//! Checks of each root: root hash, blocks, signature and content.

use super::{GRAIN, Subject, Verdict};
use crate::commands::inspect::content;
use crate::commands::inspect::found::{InspectedDisk, RootPartitions};
use crate::commands::inspect::program::EfiProgram;
use crate::verity::{self, Corruption};

/// Checks that the root hash in the PARTUUIDs is that of the manifest, of the kernel command line
/// and of the hash tree.
pub(super) fn root_hashes(subject: &Subject) -> Verdict {
    if subject.disk.roots.is_empty() {
        return Verdict::NotChecked("there is no root".to_owned());
    }
    let mut faults = Vec::new();
    for root in &subject.disk.roots {
        let label = &root.data.label;
        let Some(root_hash) = InspectedDisk::root_hash(root).map(|hash| hash.to_string()) else {
            faults.push(format!("{label} has no hash tree"));
            continue;
        };
        let stem = subject
            .manifest
            .map(|manifest| format!("{}_{}", manifest.image.id, manifest.image.version));
        if let Some(manifest) = subject.manifest.filter(|_| stem.as_ref() == Some(label))
            && manifest.root.hash != root_hash
        {
            faults.push(format!(
                "{label}: the PARTUUIDs contain the root hash {}…, the manifest {}…",
                &root_hash[..12],
                &manifest.root.hash[..12.min(manifest.root.hash.len())]
            ));
        }
        let programs = subject
            .disk
            .esp
            .iter()
            .flatten()
            .flat_map(|esp| &esp.programs);
        let unified: Vec<&EfiProgram> = programs.filter(|program| program.is_unified()).collect();
        if !unified.is_empty()
            && !unified
                .iter()
                .any(|program| program.argument("roothash") == Some(&root_hash))
        {
            faults.push(format!(
                "{label}: no unified kernel image on the ESP has roothash={}…",
                &root_hash[..12]
            ));
        }
        if !top_block_matches(subject.disk, root) {
            faults.push(format!(
                "{label}: the top block of the hash tree does not match the root hash in the PARTUUIDs"
            ));
        }
    }
    Verdict::Differs(faults)
}

pub(super) fn top_block_matches(disk: &InspectedDisk, root: &RootPartitions) -> bool {
    use adamant_contract::verity::{BLOCK, CorruptedBlock, SUPERBLOCK, Superblock, check_path};
    let (Some(hash), Some(tree)) = (InspectedDisk::root_hash(root), &root.tree) else {
        return false;
    };
    let Ok(tree) = disk.part(tree) else {
        return false;
    };
    let mut bytes = [0; SUPERBLOCK];
    let Ok(superblock) = tree
        .read_exact_at(&mut bytes, 0)
        .map_err(|e| e.to_string())
        .and_then(|()| Superblock::parse(&bytes).map_err(|e| e.to_string()))
    else {
        return false;
    };
    let result = check_path(&superblock, &hash, 0, |at, bytes| {
        matches!(at, CorruptedBlock::Hash(1)) && tree.read_exact_at(bytes, BLOCK as u64).is_ok()
    });
    result != Err(CorruptedBlock::Hash(1))
}

pub(super) fn one_root(disk: &InspectedDisk, roots: &[content::InspectedRoot]) -> Verdict {
    if disk.roots.len() != 1 {
        // Updates install a second version. systemd then uses the root with the newest label.
        return if disk.roots.is_empty() {
            Verdict::Differs(vec!["there is no root".to_owned()])
        } else {
            Verdict::Ok(format!("{} roots", disk.roots.len()))
        };
    }
    per_root(roots, content::InspectedRoot::os_release)
}

pub(super) fn blocks(subject: &Subject) -> Verdict {
    let disk = subject.disk;
    let mut faults = Vec::new();
    let mut verified = 0;
    for root in &disk.roots {
        let label = &root.data.label;
        let result = (|| {
            let (Some(hash), Some(tree)) = (InspectedDisk::root_hash(root), &root.tree) else {
                return Err("no hash tree".to_owned());
            };
            let (data, tree) = crate::commands::verify::disk::trim_to_superblock(
                disk.part(&root.data)?,
                disk.part(tree)?,
            )?;
            match verity::check(&data, &tree, &hash, subject.jobs)
                .map_err(|e| e.message().to_owned())?
            {
                Ok(superblock) => Ok(superblock.data_blocks),
                Err(Corruption::Superblock(why)) => Err(why),
                Err(Corruption::HashTree { block, .. }) => {
                    Err(format!("block {block} of the hash tree was changed"))
                }
                Err(Corruption::Data { block }) => Err(format!("block {block} was changed")),
            }
        })();
        match result {
            Ok(blocks) => verified += blocks,
            Err(why) => faults.push(format!("{label}: {why}")),
        }
    }
    if faults.is_empty() && verified > 0 {
        Verdict::Ok(format!("{verified} blocks"))
    } else {
        Verdict::Differs(faults)
    }
}

pub(super) fn signatures(subject: &Subject) -> Verdict {
    let mut faults = Vec::new();
    let mut told = Vec::new();
    for root in &subject.disk.roots {
        let label = &root.data.label;
        if let Some(part) = &root.signature
            && !(part.sectors().saturating_mul(subject.disk.sector)).is_multiple_of(GRAIN)
        {
            faults.push(format!(
                "{label}: the signature partition's size is not a multiple of 4096 bytes"
            ));
        }
        match subject.disk.root_signature(root, subject.trusted) {
            Ok(None) => faults.push(format!("{label} is not signed")),
            Ok(Some(found))
                if InspectedDisk::root_hash(root)
                    .is_some_and(|hash| hash.to_string() != found.root_hash) =>
            {
                faults.push(format!(
                    "{label}: it is the signature of another root hash, {}…",
                    &found.root_hash[..12]
                ));
            }
            Ok(Some(found)) => match found.signature.fault() {
                Some(why) => faults.push(format!("{label}: {why}")),
                None => told.push(found.signature.describe()),
            },
            Err(why) => faults.push(format!("{label}: {why}")),
        }
    }
    if faults.is_empty() {
        Verdict::Ok(told.join("; "))
    } else {
        Verdict::Differs(faults)
    }
}

/// The same question for every root.
pub(super) fn per_root(
    roots: &[content::InspectedRoot],
    ask: impl Fn(&content::InspectedRoot) -> content::ContentAnswer,
) -> Verdict {
    let (mut faults, mut told, mut unknown) = (Vec::new(), Vec::new(), Vec::new());
    for root in roots {
        match ask(root) {
            content::ContentAnswer::Fine(what) => told.push(what),
            content::ContentAnswer::Faults(why) => faults.extend(why),
            content::ContentAnswer::Unknown(why) => unknown.push(why),
        }
    }
    match (faults.is_empty(), unknown.is_empty()) {
        (false, _) => Verdict::Differs(faults),
        (true, false) => Verdict::NotChecked(unknown.join("; ")),
        (true, true) if roots.is_empty() => Verdict::NotChecked("there is no root".to_owned()),
        (true, true) => Verdict::Ok(told.join("; ")),
    }
}
