//! Compression of one segment of a file into physical clusters. The output depends only on the
//! bytes, algorithm, level and cluster size, so any thread can do it, and the result can be cached.

use super::algorithm::Algorithm;
use super::format::*;
use super::index::ClusterExtent;
use super::lz4;
use super::zstd::Zstd;

/// Length of a segment, the part of a file that is compressed on its own, bytes. The last segment
/// of a file may be shorter.
pub const SEGMENT: usize = 4 << 20;

/// Decompresses a cluster into all of `out`. `algorithm` is the number in a map header. False if
/// the cluster is corrupted or has another decompressed length.
pub fn decompress_cluster(algorithm: u8, cluster: &[u8], out: &mut [u8]) -> bool {
    // Zeros precede the compressed bytes (EROFS_FEATURE_INCOMPAT_LZ4_0PADDING).
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

/// A compressed segment.
#[derive(Debug, Default)]
pub struct Segment {
    /// Whole blocks.
    pub data: Vec<u8>,
    /// The clusters in `data`, in order.
    pub extents: Vec<ClusterExtent>,
}

/// A compressor with its working memory. The output depends only on parameters and input.
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

    /// Compresses a small file into at most a block; `None` if it does not fit.
    pub fn compress_whole(&mut self, input: &[u8]) -> Option<&[u8]> {
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
            Engine::Zstd(zstd) => zstd.compress_whole(input, out),
        };
        made.filter(|made| *made > 0)
            .map(|made| &self.scratch[..made])
    }

    /// Compresses a segment of at most [`SEGMENT`] bytes. Parts that don't shrink stay plain.
    /// `data` is an empty buffer for the output.
    pub fn compress_segment(&mut self, input: &[u8], data: Vec<u8>) -> Result<Segment, String> {
        let mut out = Segment {
            data,
            extents: Vec::new(),
        };
        let mut rest = input;
        let mut ratio = 3.0;
        let mut last_was_plain = false;
        while !rest.is_empty() {
            if rest.len() <= BLOCK {
                out.push_plain(rest);
                break;
            }
            let (taken, made) = match &mut self.engine {
                // Data behind incompressible data is mostly incompressible, too. Fast LZ4 finds
                // out.
                Engine::Lz4hc(_)
                    if last_was_plain && !shrinks(lz4::fill(rest, &mut self.scratch)) =>
                {
                    (self.cluster, 0)
                }
                Engine::Lz4 => lz4::fill(rest, &mut self.scratch),
                Engine::Lz4hc(state) => state.fill(rest, &mut self.scratch),
                Engine::Zstd(zstd) => {
                    zstd.fill(rest, self.cluster, &mut ratio, &mut self.scratch)?
                }
            };
            if !shrinks((taken, made)) {
                // No gain: the input of this attempt stays plain, in whole blocks unless the
                // segment ends.
                let plain = self.cluster.min(rest.len());
                let plain = if plain == rest.len() {
                    plain
                } else {
                    plain.min(taken.max(BLOCK)) / BLOCK * BLOCK
                };
                out.push_plain(&rest[..plain]);
                rest = &rest[plain..];
                last_was_plain = true;
                continue;
            }
            let blocks = made.div_ceil(BLOCK);
            // Zeros precede the compressed bytes (EROFS_FEATURE_INCOMPAT_LZ4_0PADDING).
            out.data.resize(out.data.len() + blocks * BLOCK - made, 0);
            out.data.extend_from_slice(&self.scratch[..made]);
            last_was_plain = false;
            out.extents.push(ClusterExtent {
                len: taken as u32,
                blocks: blocks as u16,
                plain: false,
            });
            rest = &rest[taken..];
        }
        Ok(out)
    }
}

/// Whether compression from `taken` bytes to `made` bytes saves space, in whole blocks.
fn shrinks((taken, made): (usize, usize)) -> bool {
    made > 0 && made.next_multiple_of(BLOCK) < taken
}

impl Segment {
    fn push_plain(&mut self, bytes: &[u8]) {
        for block in bytes.chunks(BLOCK) {
            self.data.extend_from_slice(block);
            self.extents.push(ClusterExtent {
                len: block.len() as u32,
                blocks: 1,
                plain: true,
            });
        }
        self.data.resize(self.data.len().next_multiple_of(BLOCK), 0);
    }

    /// Whether it has no compressed cluster.
    pub fn is_plain(&self) -> bool {
        self.extents.iter().all(|e| e.plain)
    }
}
