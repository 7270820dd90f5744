//! Headers of tar archives, as two formats need them.
//!
//! Formats: POSIX.1-2008, pax, "ustar Interchange Format"; GNU tar's manual, "Basic Tar Format",
//! for the old GNU format with sparse files. The field names are those of the manual's C
//! structures.

use std::ops::Range;

use zerocopy::{FromZeros, Immutable, IntoBytes, KnownLayout};

use crate::error::{Error, Result};

/// Bytes of a header. A file's bytes are padded to a multiple.
pub const BLOCK: u64 = 512;
/// Smallest size that does not fit into a field of octal digits.
const OCTAL_LIMIT: u64 = 1 << 33;

/// The fields that both formats share.
#[derive(FromZeros, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Common {
    name: [u8; 100],
    mode: [u8; 8],
    uid: [u8; 8],
    gid: [u8; 8],
    size: [u8; 12],
    mtime: [u8; 12],
    chksum: [u8; 8],
    typeflag: u8,
    linkname: [u8; 100],
    /// Magic and version.
    magic: [u8; 8],
    uname: [u8; 32],
    gname: [u8; 32],
    devmajor: [u8; 8],
    devminor: [u8; 8],
}

/// A header in the ustar format.
#[derive(FromZeros, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct UstarHeader {
    common: Common,
    prefix: [u8; 155],
    padding: [u8; 12],
}

/// A header in the old GNU format.
#[derive(FromZeros, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct OldGnuHeader {
    common: Common,
    atime: [u8; 12],
    ctime: [u8; 12],
    offset: [u8; 12],
    longnames: [u8; 4],
    unused: u8,
    sp: [SparseRange; 4],
    isextended: u8,
    realsize: [u8; 12],
    padding: [u8; 17],
}

/// A block that follows an [`OldGnuHeader`] whose `isextended` is set.
#[derive(FromZeros, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct SparseHeader {
    sp: [SparseRange; 21],
    isextended: u8,
    padding: [u8; 7],
}

/// A range of data in a sparse file.
#[derive(FromZeros, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct SparseRange {
    offset: [u8; 12],
    numbytes: [u8; 12],
}

const _: () = assert!(size_of::<UstarHeader>() as u64 == BLOCK);
const _: () = assert!(size_of::<OldGnuHeader>() as u64 == BLOCK);
const _: () = assert!(size_of::<SparseHeader>() as u64 == BLOCK);

/// A regular file in the ustar format.
pub fn ustar(name: &str, size: u64, mtime: i64) -> Result<Vec<u8>> {
    if size >= OCTAL_LIMIT {
        return Err(Error::new(format!(
            "{name} has {size} bytes; a ustar archive has room for 8 GiB in a file"
        ))
        .hint("use the format vmdk instead"));
    }
    let mut header = UstarHeader::new_zeroed();
    header.common = common(name, size, mtime)?;
    header.common.typeflag = b'0';
    header.common.magic = *b"ustar\x0000";
    header.common.chksum = checksum(header.as_bytes());
    Ok(header.as_bytes().to_vec())
}

/// A file with holes in the old GNU format. It has `size` bytes; those in the ranges `data` follow
/// the header.
pub fn sparse(name: &str, size: u64, data: &[Range<u64>], mtime: i64) -> Result<Vec<u8>> {
    let stored = data.iter().map(|range| range.end - range.start).sum();
    let mut header = OldGnuHeader::new_zeroed();
    header.common = common(name, stored, mtime)?;
    header.common.typeflag = b'S';
    header.common.magic = *b"ustar  \0";
    // If the file ends in a hole, an empty range marks its end, as GNU tar writes it.
    let mut pieces: Vec<(u64, u64)> = data
        .iter()
        .map(|range| (range.start, range.end - range.start))
        .collect();
    if data.last().is_none_or(|range| range.end < size) {
        pieces.push((size, 0));
    }
    let (first, more) = pieces.split_at(pieces.len().min(header.sp.len()));
    list(&mut header.sp, first);
    header.isextended = u8::from(!more.is_empty());
    number(&mut header.realsize, size);
    header.common.chksum = checksum(header.as_bytes());
    let mut blocks = header.as_bytes().to_vec();
    let mut left = more.len();
    let mut block = SparseHeader::new_zeroed();
    for some in more.chunks(block.sp.len()) {
        left -= some.len();
        block.zero();
        list(&mut block.sp, some);
        block.isextended = u8::from(left > 0);
        blocks.extend_from_slice(block.as_bytes());
    }
    Ok(blocks)
}

fn list(fields: &mut [SparseRange], pieces: &[(u64, u64)]) {
    for (field, (offset, length)) in fields.iter_mut().zip(pieces) {
        number(&mut field.offset, *offset);
        number(&mut field.numbytes, *length);
    }
}

fn common(name: &str, size: u64, mtime: i64) -> Result<Common> {
    let mut common = Common::new_zeroed();
    if name.len() >= common.name.len() {
        return Err(
            Error::new(format!("{name}: the name is too long for an archive"))
                .hint("give the image a shorter id or version"),
        );
    }
    common.name[..name.len()].copy_from_slice(name.as_bytes());
    number(&mut common.mode, 0o644);
    number(&mut common.uid, 0);
    number(&mut common.gid, 0);
    number(&mut common.size, size);
    let mtime = u64::try_from(mtime).unwrap_or(0);
    number(&mut common.mtime, mtime.min(OCTAL_LIMIT - 1));
    Ok(common)
}

/// Writes octal digits and a NUL. A larger number is written in GNU's way: in base 256, with the
/// first bit of the field set.
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

/// The sum of a header's bytes, of which those of the checksum count as spaces. The header's own
/// checksum is still 0.
fn checksum(header: &[u8]) -> [u8; 8] {
    let spaces = 8 * u32::from(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum::<u32>() + spaces;
    let mut field = [b' '; 8];
    field[..7].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    field
}
