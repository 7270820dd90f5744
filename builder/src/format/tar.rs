//! Headers of tar archives as two formats need them.
//!
//! Formats: POSIX.1-2008, pax, "ustar Interchange Format"; GNU tar's manual, "Basic Tar Format",
//! for the old GNU one with sparse files.

use std::ops::Range;

use crate::error::{Error, Result};

/// Bytes of a header, and what a file's bytes are padded to.
pub const BLOCK: u64 = 512;
/// From here on a size has no room in a field of octal digits.
const OCTAL: u64 = 1 << 33;
/// Pieces that a header, and each of its extensions, can list.
const FIRST: usize = 4;
const MORE: usize = 21;

/// A plain file in the ustar format.
pub fn ustar(name: &str, size: u64, mtime: i64) -> Result<[u8; 512]> {
    if size >= OCTAL {
        return Err(Error::new(format!(
            "{name} has {size} bytes; a ustar archive has room for 8 GiB in a file"
        ))
        .hint("use the format vmdk instead"));
    }
    let mut header = basic(name, size, mtime)?;
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar\x0000");
    sum(&mut header);
    Ok(header)
}

/// A file with holes in the old GNU format: `size` bytes, of which those in `data` follow the
/// header.
pub fn sparse(name: &str, size: u64, data: &[Range<u64>], mtime: i64) -> Result<Vec<u8>> {
    let stored = data.iter().map(|range| range.end - range.start).sum();
    let mut header = basic(name, stored, mtime)?;
    header[156] = b'S';
    header[257..265].copy_from_slice(b"ustar  \0");
    // A file that ends in a hole has a last piece of no bytes there, as GNU tar writes it.
    let mut pieces: Vec<(u64, u64)> = data
        .iter()
        .map(|range| (range.start, range.end - range.start))
        .collect();
    if data.last().is_none_or(|range| range.end < size) {
        pieces.push((size, 0));
    }
    let (first, more) = pieces.split_at(pieces.len().min(FIRST));
    list(&mut header[386..482], first);
    header[482] = u8::from(!more.is_empty());
    number(&mut header[483..495], size);
    sum(&mut header);
    let mut blocks = header.to_vec();
    let mut left = more.len();
    for some in more.chunks(MORE) {
        left -= some.len();
        let mut block = [0; BLOCK as usize];
        list(&mut block[..504], some);
        block[504] = u8::from(left > 0);
        blocks.extend_from_slice(&block);
    }
    Ok(blocks)
}

fn list(field: &mut [u8], pieces: &[(u64, u64)]) {
    for (field, (at, length)) in field.chunks_mut(24).zip(pieces) {
        number(&mut field[..12], *at);
        number(&mut field[12..], *length);
    }
}

fn basic(name: &str, size: u64, mtime: i64) -> Result<[u8; 512]> {
    if name.len() > 99 {
        return Err(
            Error::new(format!("{name}: too long a name for an archive"))
                .hint("give the image a shorter id or version"),
        );
    }
    let mut header = [0; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    number(&mut header[100..108], 0o644);
    number(&mut header[108..116], 0);
    number(&mut header[116..124], 0);
    number(&mut header[124..136], size);
    number(
        &mut header[136..148],
        u64::try_from(mtime).unwrap_or(0).min(OCTAL - 1),
    );
    Ok(header)
}

/// Octal digits and a NUL; what needs more in GNU's way, in base 256 behind a set first bit.
fn number(field: &mut [u8], value: u64) {
    let digits = field.len() - 1;
    let text = format!("{value:0digits$o}\0");
    if text.len() == field.len() {
        field.copy_from_slice(text.as_bytes());
    } else {
        field.fill(0);
        let end = field.len() - 8;
        field[end..].copy_from_slice(&value.to_be_bytes());
        field[0] |= 0x80;
    }
}

fn sum(header: &mut [u8; 512]) {
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
}
