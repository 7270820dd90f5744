//! Directories on disk: names in byte order, including `.` and `..`, in blocks. Each block starts
//! with a table of entries.

use zerocopy::{FromBytes, IntoBytes};

use super::format::*;

/// One name in a directory.
pub struct Name<'a> {
    /// The name.
    pub name: &'a [u8],
    /// Number of its inode.
    pub nid: u64,
    /// `EROFS_FT_*`.
    pub file_type: u8,
}

/// Adds `.` and `..` to names that are in byte order, and keeps the order.
pub fn with_dots<'a, T: Clone>(
    names: impl Iterator<Item = (&'a [u8], T)>,
    dot: T,
    dot_dot: T,
) -> impl Iterator<Item = (&'a [u8], T)> {
    let mut dots = vec![(&b".."[..], dot_dot), (&b"."[..], dot)];
    let mut names = names.peekable();
    std::iter::from_fn(move || match (names.peek(), dots.last()) {
        (Some((name, _)), Some((dot, _))) if name < dot => names.next(),
        (_, Some(_)) => dots.pop(),
        (_, None) => names.next(),
    })
}

/// Size of a directory with these names, `.` and `..` included, bytes.
pub fn size<'a>(names: impl Iterator<Item = &'a [u8]>) -> u64 {
    let mut full = 0;
    let mut used = 0;
    for name in names {
        let more = DIRENT + name.len();
        if used + more > BLOCK {
            full += BLOCK as u64;
            used = 0;
        }
        used += more;
    }
    full + used as u64
}

/// The bytes of a directory. [`size`] computes their number.
pub fn encode<'a>(names: impl Iterator<Item = Name<'a>>) -> Vec<u8> {
    let mut out = Vec::new();
    let mut block: Vec<Name<'a>> = Vec::new();
    let mut used = 0;
    for name in names {
        let more = DIRENT + name.name.len();
        if used + more > BLOCK {
            encode_block(&block, &mut out);
            out.resize(out.len().next_multiple_of(BLOCK), 0);
            block.clear();
            used = 0;
        }
        used += more;
        block.push(name);
    }
    encode_block(&block, &mut out);
    out
}

fn encode_block(names: &[Name<'_>], out: &mut Vec<u8>) {
    let mut offset = names.len() * DIRENT;
    for name in names {
        let entry = ErofsDirent {
            nid: name.nid.into(),
            nameoff: (offset as u16).into(),
            file_type: name.file_type,
            reserved: 0,
        };
        out.extend_from_slice(entry.as_bytes());
        offset += name.name.len();
    }
    for name in names {
        out.extend_from_slice(name.name);
    }
}

/// Reads one block of a directory (the last one may be shorter). `None` for a corrupted block.
pub fn decode(block: &[u8]) -> Option<Vec<Name<'_>>> {
    let (first, _) = ErofsDirent::read_from_prefix(block).ok()?;
    // The names start behind the table.
    let table = usize::from(first.nameoff.get());
    if table == 0 || table % DIRENT != 0 {
        return None;
    }
    let entries = <[ErofsDirent]>::ref_from_bytes(block.get(..table)?).ok()?;
    let mut names = Vec::with_capacity(entries.len());
    for (i, entry) in entries.iter().enumerate() {
        let start = usize::from(entry.nameoff.get());
        let name = match entries.get(i + 1) {
            Some(next) => block.get(start..usize::from(next.nameoff.get()))?,
            None => {
                // The last name ends with the block, or before the zeros that fill it.
                let rest = block.get(start..)?;
                &rest[..rest.iter().position(|&b| b == 0).unwrap_or(rest.len())]
            }
        };
        if start < table
            || name.is_empty()
            || name.len() > 255
            || name.contains(&0)
            || name.contains(&b'/')
        {
            return None;
        }
        names.push(Name {
            name,
            nid: entry.nid.get(),
            file_type: entry.file_type,
        });
    }
    Some(names)
}
