//! Directories on disk: names in byte order, `.` and `..` among them, in blocks that each start
//! with their table.

use super::format::*;

/// One name.
pub struct Name<'a> {
    /// The name.
    pub name: &'a [u8],
    /// Its inode.
    pub nid: u64,
    /// `EROFS_FT_*`.
    pub file_type: u8,
}

pub const EROFS_FT_REG_FILE: u8 = 1;
pub const EROFS_FT_DIR: u8 = 2;
pub const EROFS_FT_CHRDEV: u8 = 3;
pub const EROFS_FT_BLKDEV: u8 = 4;
pub const EROFS_FT_FIFO: u8 = 5;
pub const EROFS_FT_SOCK: u8 = 6;
pub const EROFS_FT_SYMLINK: u8 = 7;

/// Names in the order they have on disk: those given (in byte order), with `.` and `..` at their
/// places.
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

/// Size of the directory with these names (dots included), bytes.
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

/// The directory's bytes, as many as [`size`] says.
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
        out.extend_from_slice(&name.nid.to_le_bytes());
        out.extend_from_slice(&(offset as u16).to_le_bytes());
        out.extend_from_slice(&[name.file_type, 0]);
        offset += name.name.len();
    }
    for name in names {
        out.extend_from_slice(name.name);
    }
}

/// Reads one block of a directory (the last one may be shorter): names, inode numbers and types.
/// `None` where it is damaged.
pub fn decode(block: &[u8]) -> Option<Vec<(&[u8], u64, u8)>> {
    let table = usize::from(get16(block, 8)?);
    if table == 0 || table % DIRENT != 0 || table > block.len() {
        return None;
    }
    let count = table / DIRENT;
    let offset = |i: usize| get16(block, i * DIRENT + 8).map(usize::from);
    let mut names = Vec::with_capacity(count);
    for i in 0..count {
        let start = offset(i)?;
        let name = if i + 1 < count {
            block.get(start..offset(i + 1)?)?
        } else {
            // The last name ends with the block or before the zeros that fill it.
            let rest = block.get(start..)?;
            &rest[..rest.iter().position(|&b| b == 0).unwrap_or(rest.len())]
        };
        if start < table
            || name.is_empty()
            || name.len() > 255
            || name.contains(&0)
            || name.contains(&b'/')
        {
            return None;
        }
        names.push((
            name,
            get64(block, i * DIRENT)?,
            *block.get(i * DIRENT + 10)?,
        ));
    }
    Some(names)
}
