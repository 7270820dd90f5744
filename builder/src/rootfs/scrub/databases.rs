//! Databases of Berkeley DB: postfix' and sendmail's maps. Each has a random number from its making
//! in it, by which the library tells the files of one process apart. A number made of the path does
//! that as well, and is the same in every build.

use sha2::{Digest, Sha256};

use super::keep::Keep;
use crate::error::{Context, Result};
use crate::tree::{Content, Kind, Tree, show};

/// Where maps are.
const FOLDER: &[u8] = b"/etc/";
const SUFFIX: &[u8] = b".db";
/// The one map without the suffix.
const SASL: &[u8] = b"/etc/sasldb2";
/// Larger maps stay as they are, bytes.
const LARGEST: u64 = 16 << 20;

/// The metadata page that all types start with (DBMETA of Berkeley DB's db_page.h): what it is, its
/// flags and its number.
const MAGIC: std::ops::Range<usize> = 12..16;
const ENCRYPTION: usize = 24;
const FLAGS: usize = 26;
const NUMBER: std::ops::Range<usize> = 52..72;
/// Flag: the page has a checksum.
const CHECKSUM: u8 = 1;
/// Hash, tree and queue.
const MAGICS: [u32; 3] = [0x0006_1561, 0x0005_3162, 0x0004_2253];

/// Gives each database below /etc the number of its path; the paths of those that were changed.
pub fn number_by_path(tree: &mut Tree, keep: &Keep) -> Result<Vec<Vec<u8>>> {
    let mut found = Vec::new();
    tree.visit(&mut |path, id| {
        if let Kind::File(content) = &tree.node(id).kind
            && path.starts_with(FOLDER)
            && (path.ends_with(SUFFIX) || path == SASL)
            && (NUMBER.end as u64..=LARGEST).contains(&content.len())
            && !keep.holds(path)
        {
            found.push((path.to_vec(), content.clone()));
        }
    });
    let mut changed = Vec::new();
    for (path, content) in found {
        let mut bytes = content.to_vec(LARGEST).context(|| show(&path))?;
        let number = &Sha256::new_with_prefix(b"adamant berkeley db\0")
            .chain_update(&path)
            .finalize()[..NUMBER.len()];
        if is_database(&bytes) && bytes[NUMBER] != *number {
            bytes[NUMBER].copy_from_slice(number);
            tree.replace_content(&[&path], Content::from_memory(bytes))?;
            changed.push(path);
        }
    }
    Ok(changed)
}

/// Whether these bytes start with a metadata page whose number can be replaced.
fn is_database(bytes: &[u8]) -> bool {
    let magic = bytes[MAGIC]
        .try_into()
        .map(|magic| (u32::from_le_bytes(magic), u32::from_be_bytes(magic)));
    magic.is_ok_and(|(little, big)| MAGICS.contains(&little) || MAGICS.contains(&big))
        && bytes[ENCRYPTION] == 0
        && bytes[FLAGS] & CHECKSUM == 0
}
