//! Extended attributes: each distinct set becomes one inline body. A name and value that several
//! inodes have is stored once, in the shared area.

use std::collections::BTreeMap;

use zerocopy::IntoBytes;
use zerocopy::little_endian::U32;

use super::format::*;
use super::layout::PathKey;
use crate::error::{Error, Result};
use crate::tree::Xattrs;

/// Most shared attributes of one inode (`h_shared_count` is a byte).
const SHARED_MAX: usize = 255;

/// Longer entries are appended at the end of the area, bytes. Labels and capabilities are short.
const SPREAD: usize = 256;
/// Number of positions to try for an entry, in units of 4 bytes.
const NEAR: usize = 4096;
/// Most bytes of shared attributes, so that positions have 32 bits with the gaps included.
const SHARED_BYTES: usize = 2 << 30;

/// Most sets: their numbers have 31 bits, and one number means "no set".
const SETS: u32 = (1 << 31) - 1;

type Set = BTreeMap<Box<[u8]>, Box<[u8]>>;

/// All sets of extended attributes in a tree.
#[derive(Default)]
pub struct XattrTables {
    ids: BTreeMap<Xattrs, u32>,
    sets: Vec<(Xattrs, u64)>,
    bodies: Vec<Vec<u8>>,
    area: Vec<u8>,
}

impl XattrTables {
    /// Counts one more inode with this set, and gives the set's number. `path` is for the message
    /// about a set that EROFS can't hold.
    pub fn add(&mut self, set: &Xattrs, path: impl FnOnce() -> String) -> Result<u32> {
        if let Some(&id) = self.ids.get(set) {
            self.sets[id as usize].1 += 1;
            return Ok(id);
        }
        check(set).map_err(|why| {
            Error::new(format!("{}: {why}", path()))
                .hint("remove the attribute from the source, or make it smaller")
        })?;
        let id = u32::try_from(self.sets.len())
            .ok()
            .filter(|id| *id < SETS)
            .ok_or_else(|| Error::new("too many different sets of extended attributes"))?;
        self.sets.push((set.clone(), 1));
        self.ids.insert(set.clone(), id);
        Ok(id)
    }

    /// Chooses the shared attributes. Call it after the last [`XattrTables::add`].
    pub fn build(&mut self) {
        self.ids = BTreeMap::new();
        let mut uses: BTreeMap<(&[u8], &[u8]), u64> = BTreeMap::new();
        for (set, count) in &self.sets {
            for (name, value) in set.iter() {
                *uses.entry((name, value)).or_default() += count;
            }
        }
        let (mut shared, mut entries, mut bytes) = (Vec::new(), Vec::new(), 0);
        for (&(name, value), &count) in &uses {
            let entry = entry(name, value);
            // A reference costs 4 bytes in each inode.
            let gains = entry.len() as u64 + 4 * count < entry.len() as u64 * count;
            if gains && bytes + entry.len() < SHARED_BYTES {
                bytes += entry.len();
                shared.push((name, value));
                entries.push(entry);
            }
        }
        let (area, units) = spread(&entries, bytes);
        self.area = area;
        let positions: BTreeMap<(&[u8], &[u8]), u32> = shared.into_iter().zip(units).collect();
        self.bodies = self
            .sets
            .iter()
            .map(|(set, _)| body(set, &positions))
            .collect();
    }

    /// The inline body of a set.
    pub fn body(&self, id: u32) -> &[u8] {
        &self.bodies[id as usize]
    }

    /// The shared area; the caller pads it to blocks.
    pub fn area(&self) -> &[u8] {
        &self.area
    }
}

/// An area with these entries of `bytes` bytes in all, and the position of each entry in units of 4
/// bytes.
///
/// The hash of an entry decides its position, or the next free one. So one more entry leaves nearly
/// all others in position, and with them the inodes that refer to them.
fn spread(entries: &[Vec<u8>], bytes: usize) -> (Vec<u8>, Vec<u32>) {
    let wanted = bytes + bytes / 4;
    let len = wanted.next_multiple_of((wanted.next_power_of_two() / 8).max(BLOCK));
    let mut area = vec![0; if entries.is_empty() { 0 } else { len }];
    let mut taken = vec![false; area.len() / 4];
    let mut order: Vec<(PathKey, usize)> = entries
        .iter()
        .enumerate()
        .map(|(i, entry)| (PathKey::hash(entry), i))
        .collect();
    order.sort_unstable_by_key(|(key, i)| (key.0, *i));
    let mut units = vec![0; entries.len()];
    for (key, i) in order {
        let need = entries[i].len() / 4;
        let start = (key.0 % taken.len() as u64) as usize;
        let free = |at: &usize| {
            taken[*at..].len() >= need && taken[*at..*at + need].iter().all(|taken| !taken)
        };
        let near = (start..taken.len()).take(if entries[i].len() <= SPREAD { NEAR } else { 0 });
        let at = near.into_iter().find(free).unwrap_or_else(|| {
            let end = taken.len();
            taken.resize(end + need, false);
            area.resize(taken.len() * 4, 0);
            end
        });
        taken[at..at + need].fill(true);
        area[at * 4..(at + need) * 4].copy_from_slice(&entries[i]);
        units[i] = at as u32;
    }
    (area, units)
}

/// `i_xattr_icount` for a body of this length.
pub fn icount(body: usize) -> u16 {
    if body == 0 {
        0
    } else {
        ((body - XATTR_IBODY_HEADER) / 4 + 1) as u16
    }
}

/// Length of the body for an `i_xattr_icount`.
pub fn body_len(icount: u16) -> usize {
    if icount == 0 {
        0
    } else {
        XATTR_IBODY_HEADER + (usize::from(icount) - 1) * 4
    }
}

fn body(set: &Set, positions: &BTreeMap<(&[u8], &[u8]), u32>) -> Vec<u8> {
    let shared: Vec<u32> = set
        .iter()
        .filter_map(|(name, value)| positions.get(&(&**name, &**value)).copied())
        .take(SHARED_MAX)
        .collect();
    let header = ErofsXattrIbodyHeader {
        h_shared_count: shared.len() as u8,
        ..Default::default()
    };
    let mut out = header.as_bytes().to_vec();
    for id in &shared {
        out.extend_from_slice(U32::new(*id).as_bytes());
    }
    let mut left = shared.len();
    for (name, value) in set {
        if left > 0 && positions.contains_key(&(&**name, &**value)) {
            left -= 1;
        } else {
            out.extend_from_slice(&entry(name, value));
        }
    }
    out
}

fn entry(name: &[u8], value: &[u8]) -> Vec<u8> {
    let (index, rest) = split(name).unwrap_or((0, name));
    let header = ErofsXattrEntry {
        e_name_len: rest.len() as u8,
        e_name_index: index,
        e_value_size: (value.len() as u16).into(),
    };
    let mut out = header.as_bytes().to_vec();
    out.extend_from_slice(rest);
    out.extend_from_slice(value);
    out.resize(out.len().next_multiple_of(4), 0);
    out
}

/// Splits a full name into the index of its prefix and the rest.
fn split(name: &[u8]) -> Option<(u8, &[u8])> {
    if name == b"system.posix_acl_access" {
        return Some((EROFS_XATTR_INDEX_POSIX_ACL_ACCESS, b""));
    }
    if name == b"system.posix_acl_default" {
        return Some((EROFS_XATTR_INDEX_POSIX_ACL_DEFAULT, b""));
    }
    for (prefix, index) in [
        (&b"user."[..], EROFS_XATTR_INDEX_USER),
        (b"trusted.", EROFS_XATTR_INDEX_TRUSTED),
        (b"security.", EROFS_XATTR_INDEX_SECURITY),
    ] {
        if let Some(rest) = name.strip_prefix(prefix)
            && !rest.is_empty()
        {
            return Some((index, rest));
        }
    }
    None
}

/// The full name for a prefix index and the rest; `None` for a combination that adamant never
/// writes.
pub fn join(index: u8, rest: &[u8]) -> Option<Vec<u8>> {
    let prefix: &[u8] = match (index, rest.is_empty()) {
        (EROFS_XATTR_INDEX_USER, false) => b"user.",
        (EROFS_XATTR_INDEX_TRUSTED, false) => b"trusted.",
        (EROFS_XATTR_INDEX_SECURITY, false) => b"security.",
        (EROFS_XATTR_INDEX_POSIX_ACL_ACCESS, true) => b"system.posix_acl_access",
        (EROFS_XATTR_INDEX_POSIX_ACL_DEFAULT, true) => b"system.posix_acl_default",
        _ => return None,
    };
    Some([prefix, rest].concat())
}

fn check(set: &Set) -> Result<(), String> {
    let mut size = XATTR_IBODY_HEADER;
    for (name, value) in set {
        let shown = String::from_utf8_lossy(name);
        let Some((_, rest)) = split(name) else {
            return Err(format!(
                "extended attribute {shown:?} is in a name space that EROFS can't hold (it holds user, trusted, security and POSIX ACLs)"
            ));
        };
        if rest.len() > 255 || name.contains(&0) {
            return Err(format!(
                "extended attribute {shown:?} has a name that the kernel does not accept"
            ));
        }
        if value.len() > usize::from(u16::MAX) {
            return Err(format!(
                "extended attribute {shown:?} has {} bytes, and EROFS holds at most {}",
                value.len(),
                u16::MAX
            ));
        }
        size += entry(name, value).len();
    }
    // The kernel lists at most 64 KiB of names for an inode; i_xattr_icount is the format's bound.
    match size > body_len(u16::MAX) {
        true => Err(format!(
            "extended attributes of {size} bytes in all, and EROFS holds at most {}",
            body_len(u16::MAX)
        )),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adding_a_shared_attribute_moves_few_others() {
        let labels: Vec<Vec<u8>> = (0..400)
            .map(|i| {
                entry(
                    b"security.selinux",
                    format!("system_u:object_r:type_{i}_t:s0\0").as_bytes(),
                )
            })
            .collect();
        let bytes = |entries: &[Vec<u8>]| entries.iter().map(Vec::len).sum();
        let (area, before) = spread(&labels, bytes(&labels));
        for (unit, label) in before.iter().zip(&labels) {
            assert!(area[*unit as usize * 4..].starts_with(label));
        }
        let mut more = labels.clone();
        more.insert(
            0,
            entry(b"security.selinux", b"system_u:object_r:a_new_t:s0\0"),
        );
        let (_, after) = spread(&more, bytes(&more));
        let moved = before
            .iter()
            .zip(&after[1..])
            .filter(|(before, after)| before != after)
            .count();
        assert!(moved < 10, "{moved} of 400");
        assert_eq!(spread(&[], 0), (vec![], vec![]));
    }
}
