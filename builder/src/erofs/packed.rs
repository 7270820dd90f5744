//! Which files are packed already, and need not be tried.

use super::format::BLOCK;
use super::lz4;
use crate::tree::Content;

/// What archives, pictures and compressed files begin with. What begins so is looked at; what does
/// not is compressed, or tried.
const BEGINNINGS: [&[u8]; 14] = [
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
/// Bytes of the longest beginning.
const BEGINNING: usize = 21;

/// Whether a file of at least a block is packed: it begins so, and a block from its middle does not
/// shrink. A file that can't be read is not; what reads it next says why.
pub fn is_packed(content: &Content) -> bool {
    let mut beginning = [0; BEGINNING];
    if content.len() < BLOCK as u64
        || content.read_exact_at(0, &mut beginning).is_err()
        || !BEGINNINGS.iter().any(|b| beginning.starts_with(b))
    {
        return false;
    }
    let mut middle = [0; BLOCK];
    // A part of 32 is what makes no difference.
    let mut room = [0; BLOCK - BLOCK / 32];
    content
        .read_exact_at((content.len() - BLOCK as u64) / 2, &mut middle)
        .is_ok()
        && lz4::fill(&middle, &mut room).0 < BLOCK
}
