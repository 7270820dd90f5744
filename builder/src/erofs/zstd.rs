//! Zstandard clusters whose last block is nearly full.
//!
//! zstd has no call that fills a destination of a given size. But after a flush the length of the
//! frame so far is known. So a cluster is compressed in a few pieces. Large pieces of up to zstd's
//! own block size come first, until the cluster is nearly full. Small pieces then fill its last 4
//! KiB. The compression ratio so far determines the length of the next piece. A cluster that
//! exceeds its size is compressed again with a shorter piece; all others are compressed once.

use zstd_safe::zstd_sys::ZSTD_EndDirective;
use zstd_safe::{CCtx, CParameter, InBuffer, OutBuffer, ResetDirective};

use super::format::{BLOCK, Z_EROFS_ZSTD_MAX_DICT_SIZE};

/// Largest input of one zstd block, bytes (RFC 8878, 3.1.1.2.4). A flush at its end costs nothing.
const PIECE: usize = 128 << 10;
/// The fraction of the room in a cluster that a large piece should fill. A cluster that gets too
/// long must be compressed again, but one more piece costs little.
const LARGE: f64 = 0.75;
/// The fraction of the rest of a block that a small piece should fill. Small pieces compress less
/// well than the ratio so far suggests.
const SMALL: f64 = 0.75;
/// Bytes that may stay unused at the end of a cluster's last block.
const SLACK: usize = 512;
/// Most attempts at a cluster that gets too long. After them it stays shorter.
const ATTEMPTS: u32 = 4;
/// Size of the field with the content's size, which is added to the frame's header at the end,
/// bytes.
const CONTENT_SIZE: usize = 4;
/// Size of an empty last block, bytes.
const EMPTY_BLOCK: usize = 3;

/// The window that a reader needs for clusters of this size, as a power of two: eight times the
/// cluster, up to the format's limit.
pub fn window_log(cluster: usize) -> u32 {
    (cluster * 8).min(Z_EROFS_ZSTD_MAX_DICT_SIZE).ilog2()
}

/// A compressor with its working memory.
pub struct Zstd {
    context: CCtx<'static>,
    /// Room for the content's size, and the frame so far.
    out: Vec<u8>,
    /// Whether the last block of the frame is written.
    ended: bool,
    /// Ends of the pieces of this cluster in the input.
    ends: Vec<usize>,
}

impl Zstd {
    /// A compressor at this level, for clusters of at most `cluster` bytes.
    pub fn new(level: i32, cluster: usize) -> Result<Zstd, String> {
        let mut context = CCtx::try_create().ok_or("zstd can't allocate its memory")?;
        for parameter in [
            CParameter::CompressionLevel(level),
            CParameter::WindowLog(window_log(cluster)),
        ] {
            context.set_parameter(parameter).map_err(|code| {
                format!(
                    "zstd does not accept level {level}: {}",
                    zstd_safe::get_error_name(code)
                )
            })?;
        }
        Ok(Zstd {
            context,
            out: Vec::new(),
            ended: false,
            ends: Vec::new(),
        })
    }

    /// Compresses all of the input into `out`; `None` if it does not fit.
    pub fn compress_whole(&mut self, input: &[u8], out: &mut [u8]) -> Option<usize> {
        // The only possible error here is that `out` is too small.
        self.context.compress2(out, input).ok()
    }

    /// Compresses as much of the input as fits into a cluster, into `out`. Returns bytes taken and
    /// bytes made; 0 bytes made means no gain. `ratio` is the expected number of input bytes for
    /// each output byte, and the reached one afterwards.
    pub fn fill(
        &mut self,
        input: &[u8],
        cluster: usize,
        ratio: &mut f64,
        out: &mut Vec<u8>,
    ) -> Result<(usize, usize), String> {
        let mut attempts = 0;
        self.ends.clear();
        let expected = (cluster as f64 * *ratio) as usize;
        'cluster: loop {
            self.start_frame(expected.clamp(1, input.len()))?;
            let (mut taken, mut local) = (0, *ratio);
            for piece in 0.. {
                let planned = self.ends.get(piece).copied();
                let next = planned.or_else(|| {
                    if attempts < ATTEMPTS {
                        next_piece(taken, self.len(), local, input.len(), cluster)
                    } else {
                        None
                    }
                });
                let Some(end) = next else { break };
                let before = self.len();
                self.add(&input[taken..end], end == input.len())?;
                let made = self.len();
                if made > cluster {
                    let least = cluster.min(input.len());
                    if taken == 0 && end <= least {
                        *ratio = 1.0;
                        return Ok((end, 0));
                    }
                    attempts += 1;
                    self.ends.truncate(piece);
                    let shorter = ((end - taken) as f64 * (cluster - before) as f64
                        / (made - before) as f64
                        * LARGE) as usize;
                    if taken == 0 {
                        self.ends.push(shorter.clamp(least, end - 1));
                    } else if attempts < ATTEMPTS && shorter >= BLOCK {
                        self.ends.push(taken + shorter.min(end - taken - 1));
                    } else {
                        attempts = ATTEMPTS;
                    }
                    continue 'cluster;
                }
                local = (end - taken) as f64 / (made - before).max(1) as f64;
                if planned.is_none() {
                    self.ends.push(end);
                }
                taken = end;
            }
            let made = self.finish_frame(taken)?;
            *ratio = taken as f64 / made as f64;
            out.clear();
            out.extend_from_slice(&self.out);
            return Ok((taken, made));
        }
    }

    /// Starts a frame for about `expected` bytes of input.
    fn start_frame(&mut self, expected: usize) -> Result<(), String> {
        self.context
            .reset(ResetDirective::SessionOnly)
            .map_err(zstd_error)?;
        self.context
            .set_parameter(CParameter::SrcSizeHint(
                u32::try_from(expected).unwrap_or(u32::MAX),
            ))
            .map_err(zstd_error)?;
        self.out.clear();
        self.out.resize(CONTENT_SIZE, 0);
        self.ended = false;
        Ok(())
    }

    /// Compresses a piece.
    fn add(&mut self, input: &[u8], is_last: bool) -> Result<(), String> {
        self.ended = is_last;
        self.step(
            input,
            if is_last {
                ZSTD_EndDirective::ZSTD_e_end
            } else {
                ZSTD_EndDirective::ZSTD_e_flush
            },
        )
    }

    fn step(&mut self, input: &[u8], directive: ZSTD_EndDirective) -> Result<(), String> {
        let mut input = InBuffer::around(input);
        loop {
            self.out
                .reserve(zstd_safe::compress_bound(input.src.len() - input.pos()) + BLOCK);
            let at = self.out.len();
            let left = self
                .context
                .compress_stream2(
                    &mut OutBuffer::around_pos(&mut self.out, at),
                    &mut input,
                    directive,
                )
                .map_err(zstd_error)?;
            if left == 0 && input.pos() == input.src.len() {
                return Ok(());
            }
        }
    }

    /// Length of the frame if it ended here, bytes.
    fn len(&self) -> usize {
        self.out.len() + if self.ended { 0 } else { EMPTY_BLOCK }
    }

    /// Ends the frame and returns its length. Adds the content's size to the header, since readers
    /// need it and zstd did not know it.
    fn finish_frame(&mut self, content: usize) -> Result<usize, String> {
        if !self.ended {
            self.step(&[], ZSTD_EndDirective::ZSTD_e_end)?;
        }
        // RFC 8878, 3.1.1.1: magic number, descriptor, window size. A descriptor of 0x80 means that
        // a content size of four bytes follows.
        if self.out.get(CONTENT_SIZE + 4) == Some(&0) {
            self.out.copy_within(CONTENT_SIZE..CONTENT_SIZE + 6, 0);
            self.out[4] = 0x80;
            self.out[6..6 + CONTENT_SIZE].copy_from_slice(&(content as u32).to_le_bytes());
        } else {
            // With the input in one piece, zstd has written the size itself.
            self.out.drain(..CONTENT_SIZE);
        }
        Ok(self.out.len())
    }
}

/// End of the next piece of a cluster in the input of `len` bytes; `None` if the cluster is full
/// enough.
fn next_piece(taken: usize, made: usize, ratio: f64, len: usize, cluster: usize) -> Option<usize> {
    let room = cluster.saturating_sub(made);
    let bytes = if made == 0 || room > cluster / 8 {
        ((room as f64 * LARGE * ratio) as usize).min(PIECE)
    } else {
        let slack = made.next_multiple_of(BLOCK) - made;
        if slack <= SLACK {
            return None;
        }
        ((slack as f64 * SMALL * ratio) as usize).min(PIECE)
    };
    (taken < len).then(|| (taken + bytes.max(1)).min(len))
}

fn zstd_error(code: zstd_safe::ErrorCode) -> String {
    format!("zstd: {}", zstd_safe::get_error_name(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Text with numbers, partly repeated.
    fn text(bytes: usize, seed: u32) -> Vec<u8> {
        let mut state = seed;
        let mut out = Vec::new();
        while out.len() < bytes {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            out.extend_from_slice(
                format!("line {} of {:x}\n", state >> 26, state >> (state >> 29)).as_bytes(),
            );
        }
        out.truncate(bytes);
        out
    }

    #[test]
    fn clusters_are_full_and_decompress_to_their_input() {
        let mut input = text(1 << 20, 1);
        input.extend(vec![0; 3 << 20]);
        let mut noise = 1u64;
        input.extend((0..300_000).map(|_| {
            noise = noise
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (noise >> 56) as u8
        }));
        input.extend(text(700_001, 9));
        for cluster in [4096, 65536, 1 << 20] {
            let mut zstd = Zstd::new(3, cluster).unwrap();
            let (mut rest, mut ratio, mut out) = (&input[..], 3.0, Vec::new());
            let (mut blocks, mut lost) = (0, 0);
            while !rest.is_empty() {
                let (taken, made) = zstd.fill(rest, cluster, &mut ratio, &mut out).unwrap();
                assert!(
                    taken > 0 && taken <= rest.len() && made <= cluster,
                    "{taken} {made}"
                );
                if made > 0 {
                    let mut back = vec![0; taken];
                    assert_eq!(
                        (out.len(), zstd_safe::get_frame_content_size(&out).unwrap()),
                        (made, Some(taken as u64))
                    );
                    assert_eq!(zstd_safe::decompress(&mut back[..], &out), Ok(taken));
                    assert!(back == rest[..taken]);
                    blocks += made.div_ceil(BLOCK);
                    lost += made.next_multiple_of(BLOCK) - made;
                }
                rest = &rest[taken..];
            }
            println!("{cluster}: {blocks} blocks, {lost} bytes unused");
            assert!(
                cluster == 4096 || lost * 20 < blocks * BLOCK,
                "{cluster}: {blocks} blocks, {lost} bytes unused"
            );
        }
    }

    #[test]
    fn incompressible_data_gives_no_gain() {
        let mut state = 7u64;
        let noise: Vec<u8> = (0..200_000)
            .map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                (state >> 56) as u8
            })
            .collect();
        let mut zstd = Zstd::new(3, 65536).unwrap();
        let (mut ratio, mut out) = (3.0, Vec::new());
        let (taken, made) = zstd.fill(&noise, 65536, &mut ratio, &mut out).unwrap();
        assert!(
            made == 0 || made.div_ceil(BLOCK) * BLOCK >= taken,
            "{taken} {made}"
        );
    }
}
