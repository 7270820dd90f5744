//! Fragments: the contents of all but large files are compressed together, in one packed inode that
//! has no name. Every such file is a fragment of it. Files with equal contents are the same
//! fragment.
//!
//! Format: `z_erofs_map_header` with its highest bit set, in the kernel's fs/erofs/zmap.c. Linux
//! reads it since version 6.1.

use std::collections::HashMap;

use sha2::{Digest, Sha256};

use super::inodes::{Inodes, Item, path_of};
use crate::error::{Context, Result};
use crate::tree::{Content, ContentExtent, Kind, Tree};

/// Larger files have clusters of their own. They gain little from fragments, and Linux before 6.18
/// reads all of a fragment for each requested page. Linux before 6.11 reads some fragments of more
/// than 4 GiB wrongly.
const LARGEST: u64 = 1 << 20;

/// The packed inode's content.
pub struct Fragments {
    /// The packed inode's bytes.
    pub content: Content,
    /// For each inode the offset of its fragment; `None` for an inode that is no fragment.
    pub offsets: Vec<Option<u64>>,
}

/// Concatenates the contents of all files in the order of their first paths, since neighbours are
/// similar.
pub fn collect(tree: &Tree, inodes: &Inodes) -> Result<Fragments> {
    let mut sizes: HashMap<u64, u32> = HashMap::new();
    let content = |item: &Item| match &tree.node(item.node).kind {
        Kind::File(content) if (1..=LARGEST).contains(&content.len()) => Some(content.clone()),
        _ => None,
    };
    for content in inodes.items.iter().filter_map(content) {
        *sizes.entry(content.len()).or_default() += 1;
    }
    let mut offsets = vec![None; inodes.items.len()];
    let mut known: HashMap<[u8; 32], u64> = HashMap::new();
    let (mut extents, mut end) = (Vec::new(), 0);
    for (item, offset) in inodes.items.iter().zip(&mut offsets) {
        let Some(content) = content(item) else {
            continue;
        };
        // Files of a unique length have unique contents.
        let digest = if sizes[&content.len()] > 1 {
            Some(digest(&content).context(|| path_of(tree, item.node))?)
        } else {
            None
        };
        if let Some(same) = digest.and_then(|digest| known.get(&digest)) {
            *offset = Some(*same);
            continue;
        }
        if let Some(digest) = digest {
            known.insert(digest, end);
        }
        *offset = Some(end);
        extents.extend(content.extents().map(|extent| ContentExtent {
            at: end + extent.at,
            ..extent
        }));
        end += content.len();
    }
    Ok(Fragments {
        content: Content::sparse(end, extents)?,
        offsets,
    })
}

fn digest(content: &Content) -> std::io::Result<[u8; 32]> {
    Ok(Sha256::digest(content.to_vec(LARGEST)?).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Meta;

    #[test]
    fn equal_contents_are_stored_once() {
        let mut tree = Tree::new();
        for (name, bytes) in [
            ("a", "one"),
            ("b", "two"),
            ("c", ""),
            ("d", "one"),
            ("e", "three"),
        ] {
            tree.insert(
                format!("/{name}").as_bytes(),
                Meta::default(),
                Kind::File(Content::from_memory(bytes.as_bytes())),
            )
            .unwrap();
        }
        let inodes = Inodes::collect(&tree, None).unwrap();
        let found = collect(&tree, &inodes).unwrap();
        assert_eq!(found.content.to_vec(100).unwrap(), b"onetwothree");
        assert_eq!(
            found.offsets,
            [None, Some(0), Some(3), None, Some(0), Some(6)]
        );
    }
}
