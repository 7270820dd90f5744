//! Compression of one segment of a file into physical clusters: a pure function of bytes,
//! algorithm, level and cluster size, so that segments can be done on any thread, and one day be
//! taken from a cache.

use super::format::*;
use super::index::Extent;
use super::lz4;
use super::zstd::Zstd;

/// Bytes of a file that are compressed on their own. Every segment but the last has this length.
pub const SEGMENT: usize = 4 << 20;

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

/// The window that a reader needs for zstd clusters of this size, as a power of two: eight times
/// the cluster, as far as the format goes.
pub fn window_log(cluster: usize) -> u32 {
    (cluster * 8).min(Z_EROFS_ZSTD_MAX_DICT_SIZE).ilog2()
}

/// Unpacks a cluster, of an algorithm by its number in a map header, into all of `out`; false where
/// it does not give just that.
pub fn unpack(algorithm: u8, cluster: &[u8], out: &mut [u8]) -> bool {
    // The zeros in front of the compressed bytes (EROFS_FEATURE_INCOMPAT_LZ4_0PADDING).
    let padding = cluster
        .iter()
        .take(BLOCK - 1)
        .take_while(|&&b| b == 0)
        .count();
    let (packed, len) = (&cluster[padding..], out.len());
    match algorithm {
        Z_EROFS_COMPRESSION_LZ4 => lz4::decompress(packed, out),
        _ => zstd_safe::decompress(out, packed) == Ok(len),
    }
}

/// One segment, compressed.
#[derive(Debug, Default)]
pub struct Segment {
    /// Whole blocks.
    pub data: Vec<u8>,
    /// What they hold, in order.
    pub extents: Vec<Extent>,
}

/// A compressor with its working memory. What it makes depends on its parameters and input alone.
pub struct Compressor {
    cluster: usize,
    engine: Engine,
    scratch: Vec<u8>,
}

enum Engine {
    Lz4,
    Lz4hc(lz4::HighCompression),
    Zstd(Zstd),
}

impl Compressor {
    /// For clusters of at most `cluster` bytes (a power of two from 4096 to 1 MiB).
    pub fn new(algorithm: Algorithm, cluster: usize) -> Result<Compressor, String> {
        let engine = match algorithm {
            Algorithm::Lz4 => Engine::Lz4,
            Algorithm::Lz4hc => Engine::Lz4hc(lz4::HighCompression::new()),
            Algorithm::Zstd(level) => Engine::Zstd(Zstd::new(level, cluster)?),
        };
        Ok(Compressor {
            cluster,
            engine,
            scratch: vec![0; cluster],
        })
    }

    /// Compresses all of a small file into at most a block; `None` where it does not fit.
    pub fn whole(&mut self, input: &[u8]) -> Option<&[u8]> {
        if self.scratch.len() < BLOCK {
            self.scratch.resize(BLOCK, 0);
        }
        let out = &mut self.scratch[..BLOCK];
        let made = match &mut self.engine {
            Engine::Lz4 => Some(lz4::fill(input, out))
                .filter(|(taken, _)| *taken == input.len())
                .map(|(_, made)| made),
            Engine::Lz4hc(state) => Some(state.fill(input, out))
                .filter(|(taken, _)| *taken == input.len())
                .map(|(_, made)| made),
            Engine::Zstd(zstd) => zstd.whole(input, out),
        };
        made.filter(|made| *made > 0)
            .map(|made| &self.scratch[..made])
    }

    /// Compresses a segment of at most [`SEGMENT`] bytes. What doesn't shrink stays plain.
    /// `data` is an empty buffer to be filled.
    pub fn segment(&mut self, input: &[u8], data: Vec<u8>) -> Result<Segment, String> {
        let mut out = Segment {
            data,
            extents: Vec::new(),
        };
        let mut rest = input;
        let mut ratio = 3.0;
        let mut packed = false;
        while !rest.is_empty() {
            if rest.len() <= BLOCK {
                out.plain(rest);
                break;
            }
            let (taken, made) = match &mut self.engine {
                // What follows packed data mostly is: a fast look tells.
                Engine::Lz4hc(_) if packed && !shrinks(lz4::fill(rest, &mut self.scratch)) => {
                    (self.cluster, 0)
                }
                Engine::Lz4 => lz4::fill(rest, &mut self.scratch),
                Engine::Lz4hc(state) => state.fill(rest, &mut self.scratch),
                Engine::Zstd(zstd) => {
                    zstd.fill(rest, self.cluster, &mut ratio, &mut self.scratch)?
                }
            };
            if !shrinks((taken, made)) {
                // No gain: as much as this attempt was about stays plain, in whole blocks unless it
                // is the end.
                let plain = self.cluster.min(rest.len());
                let plain = if plain == rest.len() {
                    plain
                } else {
                    plain.min(taken.max(BLOCK)) / BLOCK * BLOCK
                };
                out.plain(&rest[..plain]);
                rest = &rest[plain..];
                packed = true;
                continue;
            }
            let blocks = made.div_ceil(BLOCK);
            // Readers skip the zeros in front of the compressed bytes
            // (EROFS_FEATURE_INCOMPAT_LZ4_0PADDING).
            out.data.resize(out.data.len() + blocks * BLOCK - made, 0);
            out.data.extend_from_slice(&self.scratch[..made]);
            packed = false;
            out.extents.push(Extent {
                len: taken as u32,
                blocks: blocks as u16,
                plain: false,
            });
            rest = &rest[taken..];
        }
        Ok(out)
    }
}

/// Whether so many bytes taken are worth being kept as so many made: in whole blocks, there are
/// fewer of them.
fn shrinks((taken, made): (usize, usize)) -> bool {
    made > 0 && made.next_multiple_of(BLOCK) < taken
}

impl Segment {
    fn plain(&mut self, bytes: &[u8]) {
        for block in bytes.chunks(BLOCK) {
            self.data.extend_from_slice(block);
            self.extents.push(Extent {
                len: block.len() as u32,
                blocks: 1,
                plain: true,
            });
        }
        self.data.resize(self.data.len().next_multiple_of(BLOCK), 0);
    }

    /// Whether nothing in it is compressed.
    pub fn is_plain(&self) -> bool {
        self.extents.iter().all(|e| e.plain)
    }
}
