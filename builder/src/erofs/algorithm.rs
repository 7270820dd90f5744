//! Compression algorithms of EROFS that the writer uses.

use super::format::{Z_EROFS_COMPRESSION_LZ4, Z_EROFS_COMPRESSION_ZSTD};

/// Algorithm and level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// LZ4, fast.
    Lz4,
    /// LZ4, high compression.
    Lz4hc,
    /// Zstandard at this level.
    Zstd(i32),
}

impl Algorithm {
    /// Its number in a map header.
    pub fn code(self) -> u8 {
        match self {
            Algorithm::Lz4 | Algorithm::Lz4hc => Z_EROFS_COMPRESSION_LZ4,
            Algorithm::Zstd(_) => Z_EROFS_COMPRESSION_ZSTD,
        }
    }
}
