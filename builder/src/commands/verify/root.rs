//! Verifies a root file system: every block by its hash tree, then the file system's structure.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use adamant_contract::root_hash::RootHash;

use super::{Verified, VerifyOptions, open, read_small};
use crate::erofs::read::ErofsImage;
use crate::error::{Context, Error, Result};
use crate::io::part::Part;
use crate::tree::show;
use crate::verity::{self, Corruption};

/// Verifies a root whose hash tree and root hash are in the same directory, by the usual names
/// `X.root.verity` and `X.roothash`.
pub fn with_sidecars(root: &Path, stem: &str, options: VerifyOptions) -> Result<Verified> {
    let beside = |kind: &str| root.with_file_name(format!("{stem}.{kind}"));
    let hash_path = beside("roothash");
    let hash: RootHash = read_small(&hash_path)?
        .trim()
        .parse()
        .map_err(|why| Error::new(format!("{}: {why}", hash_path.display())))?;
    Ok(Verified {
        image: stem.to_owned(),
        ..verify(root, &beside("root.verity"), &hash, options)?
    })
}

/// Verifies a root and a hash tree in separate files.
pub fn verify(
    root: &Path,
    tree: &Path,
    hash: &RootHash,
    options: VerifyOptions,
) -> Result<Verified> {
    verify_parts(
        (open(root)?, open(tree)?),
        (&root.display().to_string(), &tree.display().to_string()),
        hash,
        options,
    )
}

/// Verifies a root and a hash tree. `names` are for messages.
pub fn verify_parts(
    (root, tree): (Part, Part),
    names: (&str, &str),
    hash: &RootHash,
    options: VerifyOptions,
) -> Result<Verified> {
    match verity::check(&root, &tree, hash, options.jobs)? {
        Ok(superblock) => {
            let inodes = check_structure(root, options).context(|| names.0)?;
            Ok(Verified {
                image: String::new(),
                root_hash: hash.to_string(),
                blocks: superblock.data_blocks,
                inodes,
                artifacts: 0,
            })
        }
        Err(damage) => Err(describe(&damage, root, names)),
    }
}

fn describe(corruption: &Corruption, root: Part, (root_name, tree_name): (&str, &str)) -> Error {
    let message = match corruption {
        Corruption::Superblock(why) => format!("{tree_name}: {why}"),
        Corruption::HashTree { level: 0, .. } => {
            format!("{tree_name}: the top block of the hash tree does not match the root hash")
        }
        Corruption::HashTree { level, block } => format!(
            "{tree_name}: block {block} of the hash tree (level {level} below its top) was changed"
        ),
        Corruption::Data { block } => format!(
            "{root_name}: block {block} was changed: it belongs to {}",
            owner(root, *block)
        ),
    };
    Error::new(message)
        .hint("do not use this image: build it again, or copy it again from an intact copy")
}

/// The owner of a block, as far as the damaged file system can tell.
fn owner(root: Part, block: u64) -> String {
    match ErofsImage::open(root) {
        Ok(image) => image.owner(block).map_or_else(
            || "no file (free space or the file system's own structures)".to_owned(),
            |path| show(&path),
        ),
        Err(_) if block == 0 => "the superblock".to_owned(),
        Err(error) => format!("the file system's own structures ({})", error.message()),
    }
}

/// Reads every inode, directory and index, and on request every file. Returns the number of inodes.
fn check_structure(root: Part, options: VerifyOptions) -> Result<u64> {
    let image = ErofsImage::open(root)?;
    if options.read_data {
        let next = AtomicUsize::new(0);
        let read = || loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= image.inodes() {
                return Ok(());
            }
            // A fragment is read with the inode that contains it.
            if !image.is_fragment(number) {
                image.read(number, &mut |_| Ok(()))?;
            }
        };
        thread::scope(|scope| {
            let threads: Vec<_> = (0..options.jobs.clamp(1, image.inodes().max(1)))
                .map(|_| scope.spawn(read))
                .collect();
            threads.into_iter().try_for_each(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err(Error::new("a reading thread panicked")))
            })
        })?;
    }
    Ok(image.named() as u64)
}
