//! Detects files that are compressed already, so that no time is spent on compressing them.

use super::format::BLOCK;
use super::lz4;
use crate::tree::Content;

/// First bytes of archives, pictures and compressed files. A file that starts with one of these is
/// probed; any other file is compressed or tried.
const MAGIC: [&[u8]; 14] = [
    b"\x1f\x8b\x08",           // gzip, RFC 1952
    b"\xfd7zXZ\0",             // xz
    b"\x28\xb5\x2f\xfd",       // zstd, RFC 8878
    b"BZh",                    // bzip2
    b"PK\x03\x04",             // zip
    b"\x04\x22\x4d\x18",       // lz4 frame
    b"7z\xbc\xaf\x27\x1c",     // 7-Zip
    b"\x89PNG\r\n\x1a\n",      // PNG
    b"\xff\xd8\xff",           // JPEG
    b"GIF8",                   // GIF
    b"OggS",                   // Ogg
    b"wOF2",                   // WOFF 2
    b"!<arch>\ndebian-binary", // deb
    b"LZIP",                   // lzip
];
/// Length of the longest magic number, bytes.
const MAGIC_MAX: usize = 21;

/// Whether a file is compressed already: it has at least a block, starts with a magic number, and a
/// block from its middle does not shrink. A file that can't be read gives false; the next read
/// reports the error.
pub fn is_incompressible(content: &Content) -> bool {
    let mut first = [0; MAGIC_MAX];
    if content.len() < BLOCK as u64
        || content.read_exact_at(0, &mut first).is_err()
        || !MAGIC.iter().any(|magic| first.starts_with(magic))
    {
        return false;
    }
    let mut middle = [0; BLOCK];
    // A gain of less than 1/32 does not count.
    let mut room = [0; BLOCK - BLOCK / 32];
    content
        .read_exact_at((content.len() - BLOCK as u64) / 2, &mut middle)
        .is_ok()
        && lz4::fill(&middle, &mut room).0 < BLOCK
}
