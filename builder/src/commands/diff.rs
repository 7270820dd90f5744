//! `adamant diff`: the blocks of an image that an older image does not have. A server with the
//! older image transfers them to update.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::path::Path;

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::commands::selection::{self, Selection};
use crate::erofs::BLOCK;
use crate::erofs::read::ErofsImage;
use crate::error::{Context, Result};
use crate::io::part::Part;
use crate::term::output::Output;
use crate::tree::show;

/// Bytes read at a time.
const CHUNK: usize = 1 << 20;
/// Number of files that are listed. The others are summed up in one line.
const NAMED: usize = 20;

/// Difference of an image from an older one.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct BlockDifference {
    /// Blocks of the image, 4096 bytes each.
    pub blocks: u64,
    /// Blocks that the older image has at no position. Equal blocks count separately.
    pub new: u64,
    /// Runs of adjacent new blocks.
    pub runs: u64,
    /// Bytes of new blocks by owner, the largest first.
    pub owners: Vec<BlockOwner>,
}

/// The new blocks of one owner.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct BlockOwner {
    /// The first path of a file, or a name for blocks that belong to no file.
    pub what: String,
    /// Bytes.
    pub bytes: u64,
}

/// Compares two images and prints the difference. Each is a build's OUT directory or a file. The
/// owners of new blocks are known for root file systems that adamant wrote; `blocks_only` leaves
/// them out.
pub fn print_difference(old: &Path, new: &Path, blocks_only: bool, output: &Output) -> Result<()> {
    warn_of_other_id(old, new, output)?;
    let has = digests(&root(old)?).context(|| old.display().to_string())?;
    let part = root(new)?;
    let mut difference = BlockDifference::default();
    let mut fresh = Vec::new();
    let known: HashSet<BlockDigest> = has.into_iter().collect();
    for (block, name) in digests(&part)
        .context(|| new.display().to_string())?
        .into_iter()
        .enumerate()
    {
        difference.blocks += 1;
        if !known.contains(&name) {
            difference.new += 1;
            difference.runs += u64::from(fresh.last().is_none_or(|last| last + 1 != block as u64));
            fresh.push(block as u64);
        }
    }
    if !blocks_only {
        difference.owners = owners(part, &fresh).context(|| new.display().to_string())?;
    }
    output.answer(&text(&difference), &difference)
}

/// Warns about images of different ids: no server updates from one to the other.
fn warn_of_other_id(old: &Path, new: &Path, output: &Output) -> Result<()> {
    let selections = (
        Selection::resolve_if_image(old)?,
        Selection::resolve_if_image(new)?,
    );
    for selection in [&selections.0, &selections.1].into_iter().flatten() {
        selection.announce(output);
    }
    if let (Some(old), Some(new)) = selections
        && old.manifest.image.id != new.manifest.image.id
    {
        let (old, new) = (&old.manifest.image, &new.manifest.image);
        output.warn(
            format_args!(
                "{} and {} are images of different ids: no server updates from one to the other",
                old.stem(),
                new.stem()
            ),
            Some(&format!(
                "to see what an update of {} transfers, compare it with an earlier version of {}",
                new.stem(),
                new.id
            )),
        );
    }
    Ok(())
}

/// The root file system of a build, or a whole file.
fn root(path: &Path) -> Result<Part> {
    let path = selection::root_path(path)?;
    File::open(&path)
        .and_then(Part::whole)
        .context(|| path.display().to_string())
}

fn text(difference: &BlockDifference) -> String {
    let bytes = difference.new * BLOCK as u64;
    let part = 100.0 * difference.new as f64 / difference.blocks.max(1) as f64;
    let mut text = format!(
        "{} of {} blocks are new: {:.2} MB, {part:.1} %, in {} runs\n",
        difference.new,
        difference.blocks,
        bytes as f64 / 1e6,
        difference.runs
    );
    for owner in difference.owners.iter().take(NAMED) {
        text += &format!("{:>12}  {}\n", owner.bytes, owner.what);
    }
    if let Some(others @ [_, ..]) = difference.owners.get(NAMED..) {
        text += &format!(
            "{:>12}  in {} other files\n",
            others.iter().map(|owner| owner.bytes).sum::<u64>(),
            others.len()
        );
    }
    text
}

/// Half of a SHA-256 digest, which identifies a block's content.
type BlockDigest = [u8; 16];

fn digests(part: &Part) -> std::io::Result<Vec<BlockDigest>> {
    let mut names = Vec::with_capacity((part.len() / BLOCK as u64) as usize);
    let mut buffer = vec![0; CHUNK];
    let mut at = 0;
    while at < part.len() {
        let take = (part.len() - at).min(CHUNK as u64) as usize;
        part.read_exact_at(&mut buffer[..take], at)?;
        for block in buffer[..take].chunks(BLOCK) {
            let mut name = BlockDigest::default();
            name.copy_from_slice(&Sha256::digest(block)[..16]);
            names.push(name);
        }
        at += take as u64;
    }
    Ok(names)
}

fn owners(part: Part, fresh: &[u64]) -> Result<Vec<BlockOwner>> {
    let image = ErofsImage::open(part)?;
    let mut bytes: BTreeMap<String, u64> = BTreeMap::new();
    for &block in fresh {
        let what = match block {
            0 => "the superblock".to_owned(),
            _ if image.is_metadata(block) => "inodes and inline data".to_owned(),
            _ => image
                .owner(block)
                .map_or_else(|| "no file".to_owned(), |path| show(&path)),
        };
        *bytes.entry(what).or_default() += BLOCK as u64;
    }
    let mut owners: Vec<BlockOwner> = bytes
        .into_iter()
        .map(|(what, bytes)| BlockOwner { what, bytes })
        .collect();
    owners.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.what.cmp(&b.what)));
    Ok(owners)
}
