//! The smallest form: all files' contents in one packed inode that has no name, compressed as one, and every file a fragment of it. Files with
//! the same contents are the same fragment.
//!
//! Format: `z_erofs_map_header` with its highest bit set, in the kernel's fs/erofs/zmap.c. Linux reads it since 6.1.

use std::collections::HashMap;

use sha2::{Digest, Sha256};

use super::inodes::{Inodes, path_of};
use crate::error::{Context, Result};
use crate::tree::{Content, Extent, Kind, Tree};

/// Bytes that are read at a time.
const CHUNK: usize = 1 << 20;

/// Files in one.
pub struct Fragments {
    /// The packed inode's bytes.
    pub content: Content,
    /// Where each item's begin; `None` for what has none.
    pub places: Vec<Option<u64>>,
}

/// Puts the contents of all files together, in the order of their first paths: neighbours are alike.
pub fn collect(tree: &Tree, inodes: &Inodes) -> Result<Fragments> {
    let mut sizes: HashMap<u64, u32> = HashMap::new();
    for item in &inodes.items {
        if matches!(tree.node(item.node).kind, Kind::File(_)) {
            *sizes.entry(item.size).or_default() += 1;
        }
    }
    let mut places = vec![None; inodes.items.len()];
    let mut known: HashMap<[u8; 32], u64> = HashMap::new();
    let (mut extents, mut end) = (Vec::new(), 0);
    for (item, place) in inodes.items.iter().zip(&mut places) {
        let Kind::File(content) = &tree.node(item.node).kind else { continue };
        if content.is_empty() {
            continue;
        }
        // Only what is as long as another can be the same.
        let digest = if sizes[&item.size] > 1 { Some(digest(content).context(|| path_of(tree, item.node))?) } else { None };
        if let Some(same) = digest.and_then(|digest| known.get(&digest)) {
            *place = Some(*same);
            continue;
        }
        if let Some(digest) = digest {
            known.insert(digest, end);
        }
        *place = Some(end);
        extents.extend(content.extents().iter().map(|extent| Extent { at: end + extent.at, ..extent.clone() }));
        end += content.len();
    }
    Ok(Fragments { content: Content::sparse(end, extents)?, places })
}

fn digest(content: &Content) -> std::io::Result<[u8; 32]> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; content.len().min(CHUNK as u64) as usize];
    let mut at = 0;
    while at < content.len() {
        let take = (content.len() - at).min(CHUNK as u64) as usize;
        content.read_exact_at(at, &mut buffer[..take])?;
        hasher.update(&buffer[..take]);
        at += take as u64;
    }
    Ok(hasher.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Meta;

    #[test]
    fn the_same_contents_are_kept_once() {
        let mut tree = Tree::new();
        for (name, bytes) in [("a", "one"), ("b", "two"), ("c", ""), ("d", "one"), ("e", "three")] {
            tree.insert(format!("/{name}").as_bytes(), Meta::default(), Kind::File(Content::from_memory(bytes.as_bytes()))).unwrap();
        }
        let inodes = Inodes::collect(&tree).unwrap();
        let found = collect(&tree, &inodes).unwrap();
        assert_eq!(found.content.to_vec(100).unwrap(), b"onetwothree");
        assert_eq!(found.places, [None, Some(0), Some(3), None, Some(0), Some(6)]);
    }
}
