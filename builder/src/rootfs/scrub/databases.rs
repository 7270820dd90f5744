//! Databases of Berkeley DB: the maps of postfix and sendmail. Three parts differ in each build:
//!
//! - A random number, by which the library tells the files of one process apart. A number derived
//!   from the path serves the same purpose.
//! - The free space of pages, which holds old contents of the library's memory.
//! - The time at which postfix made a map, which is an entry of the map.

use sha2::{Digest, Sha256};

use crate::error::{Context, Result};
use crate::glob::PathGlobs;
use crate::tree::{Content, Kind, Tree, show};

/// Directories of maps.
const FOLDER: &[u8] = b"/etc/";
const SUFFIX: &[u8] = b".db";
/// The only map without the suffix.
const SASL: &[u8] = b"/etc/sasldb2";
/// Maximum size of a map that is changed, bytes.
const LARGEST: u64 = 16 << 20;

/// The metadata page that all types start with (DBMETA of Berkeley DB's db_page.h): its type, its
/// flags and its number.
const MAGIC: std::ops::Range<usize> = 12..16;
const ENCRYPTION: usize = 24;
const FLAGS: usize = 26;
const PAGE_SIZE: std::ops::Range<usize> = 20..24;
const NUMBER: std::ops::Range<usize> = 52..72;
/// Flag: the page has a checksum.
const CHECKSUM: u8 = 1;
/// Magic numbers of hash, B-tree and queue databases.
const MAGICS: [u32; 3] = [0x0006_1561, 0x0005_3162, 0x0004_2253];

/// Sizes of pages that the library accepts, bytes.
const PAGE_SIZES: std::ops::RangeInclusive<usize> = 512..=64 << 10;

/// The head of a page (PAGE of db_page.h): the number of its items, the offset of the lowest item,
/// and its type.
const ENTRIES: std::ops::Range<usize> = 20..22;
const ITEMS_START: std::ops::Range<usize> = 22..24;
const TYPE: usize = 25;
/// Size of the head, bytes. Two bytes for each item's offset follow, then free space, then items.
const HEAD: usize = 26;
/// Types of pages with this layout: pages of hashes (unsorted, sorted), and the inner pages, leaves
/// and duplicates' pages of trees.
const HASH: [u8; 2] = [2, 13];
const TREE: [u8; 5] = [3, 4, 5, 6, 12];
const TREE_LEAF: u8 = 5;
/// The type of an item that holds its bytes itself.
const PLAIN: u8 = 1;

/// The entry for the time at which postalias or postmap made the map: ten digits, Unix time.
const MADE_AT: &[u8] = b"YP_LAST_MODIFIED";

/// Gives each database below /etc the number of its path, clears its free space, and sets a time of
/// making after `epoch` to `epoch`. Returns the paths of the databases that it changed.
pub fn make_reproducible(
    tree: &mut Tree,
    keep: &PathGlobs,
    epoch: Option<i64>,
) -> Result<Vec<Vec<u8>>> {
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
        if !is_database(&bytes) {
            continue;
        }
        let made = bytes.clone();
        let number = Sha256::new_with_prefix(b"adamant berkeley db\0")
            .chain_update(&path)
            .finalize();
        bytes[NUMBER].copy_from_slice(&number[..NUMBER.len()]);
        for page in pages(&mut bytes) {
            clear_free_space(page);
            clamp_time(page, epoch);
        }
        if bytes != made {
            tree.replace_content(&[&path], Content::from_memory(bytes))?;
            changed.push(path);
        }
    }
    Ok(changed)
}

/// Whether these bytes start with a metadata page whose file id can be replaced.
fn is_database(bytes: &[u8]) -> bool {
    let magic = bytes[MAGIC]
        .try_into()
        .map(|magic| (u32::from_le_bytes(magic), u32::from_be_bytes(magic)));
    magic.is_ok_and(|(little, big)| MAGICS.contains(&little) || MAGICS.contains(&big))
        && bytes[ENCRYPTION] == 0
        && bytes[FLAGS] & CHECKSUM == 0
}

/// The pages of a little-endian database; none for a big-endian one, whose pages stay as they are.
fn pages(bytes: &mut [u8]) -> std::slice::ChunksExactMut<'_, u8> {
    let little = bytes[MAGIC]
        .try_into()
        .is_ok_and(|magic| MAGICS.contains(&u32::from_le_bytes(magic)));
    let size = bytes[PAGE_SIZE]
        .try_into()
        .map_or(0, |size| u32::from_le_bytes(size) as usize);
    match little && size.is_power_of_two() && PAGE_SIZES.contains(&size) {
        true => bytes.chunks_exact_mut(size),
        false => <&mut [u8]>::default().chunks_exact_mut(1),
    }
}

/// A number of two bytes in a page.
fn short(page: &[u8], at: usize) -> Option<usize> {
    let bytes = page.get(at..at + 2)?.try_into().ok()?;
    Some(usize::from(u16::from_le_bytes(bytes)))
}

/// Where a page's free space is; `None` for a page of another type, or one that contradicts itself.
fn free_space(page: &[u8]) -> Option<std::ops::Range<usize>> {
    let free = HEAD + 2 * short(page, ENTRIES.start)?..short(page, ITEMS_START.start)?;
    let fits = free.start <= free.end && free.end <= page.len();
    (fits && (HASH.contains(&page[TYPE]) || TREE.contains(&page[TYPE]))).then_some(free)
}

fn clear_free_space(page: &mut [u8]) {
    if let Some(free) = free_space(page) {
        page[free].fill(0);
    }
}

/// Where the bytes of an item are; `None` for one that is stored elsewhere.
fn item(page: &[u8], index: usize) -> Option<std::ops::Range<usize>> {
    let start = short(page, HEAD + 2 * index)?;
    let (kind, bytes) = match page[TYPE] {
        // A hash's items follow each other downwards, each with one byte for its type.
        kind if HASH.contains(&kind) => {
            let end = if index == 0 {
                page.len()
            } else {
                short(page, HEAD + 2 * (index - 1))?
            };
            (start, start + 1..end)
        }
        // A tree's have their length before the type.
        TREE_LEAF => (start + 2, start + 3..start + 3 + short(page, start)?),
        _ => return None,
    };
    (*page.get(kind)? == PLAIN && page.get(bytes.clone()).is_some()).then_some(bytes)
}

fn clamp_time(page: &mut [u8], epoch: Option<i64>) {
    let Some(epoch) = epoch.filter(|epoch| *epoch >= 0 && free_space(page).is_some()) else {
        return;
    };
    let entries = short(page, ENTRIES.start).unwrap_or(0);
    for index in (0..entries).step_by(2) {
        let is_time = item(page, index).is_some_and(|key| {
            page[key]
                .strip_prefix(MADE_AT)
                .is_some_and(|rest| rest.is_empty() || rest == b"\0")
        });
        let Some(value) = item(page, index + 1).filter(|_| is_time && index + 1 < entries) else {
            continue;
        };
        let Some(digits) = page[value].first_chunk_mut::<10>() else {
            continue;
        };
        let time = std::str::from_utf8(digits)
            .ok()
            .and_then(|digits| digits.parse::<i64>().ok());
        if time.is_some_and(|time| time > epoch) {
            let text = format!("{epoch:010}");
            digits.copy_from_slice(text.as_bytes());
        }
    }
}
