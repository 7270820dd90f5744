//! Compression of one segment of a file into physical clusters: a pure function of bytes, algorithm, level and cluster size, so that
//! segments can be done on any thread, and one day be taken from a cache.

use zstd_safe::{CCtx, CParameter};

use super::format::*;
use super::index::Extent;
use super::lz4;

/// Bytes of a file that are compressed on their own. Every segment but the last has this length.
pub const SEGMENT: usize = 4 << 20;
/// LZ4's own default is 9, which searches four times as long for 0.2 % less.
const LZ4HC_LEVEL: i32 = 7;
/// Bytes that may be lost at the end of a zstd cluster's last block without another attempt.
const SLACK: usize = 640;
/// How often one zstd cluster is compressed at most.
const ATTEMPTS: u32 = 6;
/// After so many attempts a quarter of a block may be lost.
const ENOUGH: u32 = 2;
/// The part of a cluster that the first guess is to fill: what came out too long has to be made again, what came out short only may.
const FIRST: f64 = 0.94;
/// A guess misses by this part of how far it is from the last one.
const UNSURE: f64 = 16.0;

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

/// The window that a reader needs for zstd clusters of this size, as a power of two: eight times the cluster, as far as the format goes.
pub fn window_log(cluster: usize) -> u32 {
    (cluster * 8).min(Z_EROFS_ZSTD_MAX_DICT_SIZE).ilog2()
}

/// Unpacks a cluster, of an algorithm by its number in a map header, into all of `out`; false where it does not give just that.
pub fn unpack(algorithm: u8, cluster: &[u8], out: &mut [u8]) -> bool {
    // The zeros in front of the compressed bytes (EROFS_FEATURE_INCOMPAT_LZ4_0PADDING).
    let padding = cluster.iter().take(BLOCK - 1).take_while(|&&b| b == 0).count();
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
    Zstd { context: CCtx<'static>, other: Vec<u8> },
}

impl Compressor {
    /// For clusters of at most `cluster` bytes (a power of two from 4096 to 1 MiB).
    pub fn new(algorithm: Algorithm, cluster: usize) -> Result<Compressor, String> {
        let engine = match algorithm {
            Algorithm::Lz4 => Engine::Lz4,
            Algorithm::Lz4hc => Engine::Lz4hc(lz4::HighCompression::new()),
            Algorithm::Zstd(level) => {
                let mut context = CCtx::try_create().ok_or("no memory for zstd")?;
                for parameter in [CParameter::CompressionLevel(level), CParameter::WindowLog(window_log(cluster))] {
                    context.set_parameter(parameter).map_err(|code| format!("zstd refuses level {level}: {}", zstd_safe::get_error_name(code)))?;
                }
                Engine::Zstd { context, other: Vec::new() }
            }
        };
        Ok(Compressor { cluster, engine, scratch: vec![0; cluster] })
    }

    /// Compresses all of a small file into at most a block; `None` where it does not fit.
    pub fn whole(&mut self, input: &[u8]) -> Option<&[u8]> {
        if self.scratch.len() < BLOCK {
            self.scratch.resize(BLOCK, 0);
        }
        let out = &mut self.scratch[..BLOCK];
        let made = match &mut self.engine {
            Engine::Lz4 => Some(lz4::fill(input, out)).filter(|(taken, _)| *taken == input.len()).map(|(_, made)| made),
            Engine::Lz4hc(state) => Some(state.fill(input, out, LZ4HC_LEVEL)).filter(|(taken, _)| *taken == input.len()).map(|(_, made)| made),
            // What is too long for its room is the one thing that can be wrong here.
            Engine::Zstd { context, .. } => context.compress2(out, input).ok(),
        };
        made.filter(|made| *made > 0).map(|made| &self.scratch[..made])
    }

    /// Compresses a segment of at most [`SEGMENT`] bytes. What doesn't shrink stays plain.
    /// `data` is an empty buffer to be filled.
    pub fn segment(&mut self, input: &[u8], data: Vec<u8>) -> Result<Segment, String> {
        let mut out = Segment { data, extents: Vec::new() };
        let mut rest = input;
        let mut ratio = 3.0;
        while !rest.is_empty() {
            if rest.len() <= BLOCK {
                out.plain(rest);
                break;
            }
            let (taken, made) = match &mut self.engine {
                Engine::Lz4 => lz4::fill(rest, &mut self.scratch),
                Engine::Lz4hc(state) => state.fill(rest, &mut self.scratch, LZ4HC_LEVEL),
                Engine::Zstd { context, other } => zstd_fill(context, rest, self.cluster, &mut ratio, &mut self.scratch, other)?,
            };
            let blocks = made.div_ceil(BLOCK);
            if made == 0 || blocks * BLOCK >= taken {
                // No gain: as much as this attempt was about stays plain, in whole blocks unless it is the end.
                let plain = self.cluster.min(rest.len());
                let plain = if plain == rest.len() { plain } else { plain.min(taken.max(BLOCK)) / BLOCK * BLOCK };
                out.plain(&rest[..plain]);
                rest = &rest[plain..];
                continue;
            }
            // Readers skip the zeros in front of the compressed bytes (EROFS_FEATURE_INCOMPAT_LZ4_0PADDING).
            out.data.resize(out.data.len() + blocks * BLOCK - made, 0);
            out.data.extend_from_slice(&self.scratch[..made]);
            out.extents.push(Extent { len: taken as u32, blocks: blocks as u16, plain: false });
            rest = &rest[taken..];
        }
        Ok(out)
    }
}

impl Segment {
    fn plain(&mut self, bytes: &[u8]) {
        for block in bytes.chunks(BLOCK) {
            self.data.extend_from_slice(block);
            self.extents.push(Extent { len: block.len() as u32, blocks: 1, plain: true });
        }
        self.data.resize(self.data.len().next_multiple_of(BLOCK), 0);
    }

    /// Whether nothing in it is compressed.
    pub fn is_plain(&self) -> bool {
        self.extents.iter().all(|e| e.plain)
    }
}

/// zstd has no "fill this many bytes" mode: it is given a guess, and the guess is mended from what came out. A cluster need not be as large as it
/// may be; what counts is that its last block is full. So the second guess is rarely far from the first, and nearly always good.
/// Gives bytes taken and bytes made (in `best`), or no bytes made where there is no gain.
fn zstd_fill(
    context: &mut CCtx<'static>,
    input: &[u8],
    cluster: usize,
    ratio: &mut f64,
    best: &mut Vec<u8>,
    other: &mut Vec<u8>,
) -> Result<(usize, usize), String> {
    let most = input.len();
    let least = cluster.min(most);
    let mut guess = ((cluster as f64 * FIRST * *ratio) as usize).clamp(least, most);
    let (mut fits, mut fits_made) = (0, 0);
    let mut too_long = most + 1;
    let mut before: Option<(usize, usize)> = None;
    for attempt in 1..=ATTEMPTS {
        other.clear();
        other.reserve(zstd_safe::compress_bound(guess));
        let made = context.compress2(other, &input[..guess]).map_err(|code| format!("zstd: {}", zstd_safe::get_error_name(code)))?;
        let mut room = cluster;
        if made <= cluster {
            if gain(guess, made) >= gain(fits, fits_made) {
                (fits, fits_made) = (guess, made);
                std::mem::swap(best, other);
            }
            room = made.next_multiple_of(BLOCK);
            if guess == most || room - made <= SLACK || attempt >= ENOUGH && room - made <= BLOCK / 4 {
                break;
            }
        } else {
            too_long = too_long.min(guess);
            if guess == least {
                break;
            }
        }
        // How much more input a byte of output takes around here; further away, how much all of them took.
        let average = guess as f64 / made as f64;
        let local = before
            .map(|(taken, out)| (guess as f64 - taken as f64) / (made as f64 - out as f64))
            .filter(|local| (average / 3.0..average * 3.0).contains(local));
        let missing = room as f64 - made as f64;
        let missing = missing - missing.abs() / UNSURE - SLACK as f64 / 4.0;
        let next = (guess as f64 + missing * local.unwrap_or(average)).max(0.0) as usize;
        let next = next.clamp(least, most.min(too_long - 1).max(least));
        if next <= fits {
            break;
        }
        before = Some((guess, made));
        guess = next;
    }
    if fits == 0 {
        return Ok((least, 0));
    }
    *ratio = fits as f64 / fits_made as f64;
    Ok((fits, fits_made))
}

/// Bytes of input for each block of output.
fn gain(taken: usize, made: usize) -> f64 {
    if made == 0 { 0.0 } else { taken as f64 / made.div_ceil(BLOCK) as f64 }
}
