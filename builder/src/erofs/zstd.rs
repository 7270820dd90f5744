//! Zstandard: clusters whose last block is full.
//!
//! zstd has no "fill this many bytes" mode, but after a flush it is known how long a frame has
//! become. So a cluster is made of a few pieces: large ones, as long as zstd's own blocks, until it
//! is nearly full, each by how well the one before went, and a small one for what is missing of its
//! last 4 KiB. Each byte is compressed once, but for the few clusters that came out too long.

use zstd_safe::zstd_sys::ZSTD_EndDirective;
use zstd_safe::{CCtx, CParameter, InBuffer, OutBuffer, ResetDirective};

use super::compress::window_log;
use super::format::BLOCK;

/// Bytes of input in one block of zstd's at most (RFC 8878, 3.1.1.2.4): a flush there costs
/// nothing.
const PIECE: usize = 128 << 10;
/// The part of the room in a cluster that a large piece is to fill: one that came out too long is
/// all made again, and one more piece costs little.
const LARGE: f64 = 0.75;
/// The part of the rest of a block that a small one is to: it is compressed less well than what it
/// is guessed by.
const SMALL: f64 = 0.75;
/// Bytes that may be lost at the end of a cluster's last block.
const SLACK: usize = 512;
/// So often a cluster that came out too long is made again; then it stays shorter.
const AGAIN: u32 = 4;
/// What the frame's header gets longer by, when it is known how much is in it, bytes.
const SIZE: usize = 4;
/// An empty block that is the last one, bytes.
const END: usize = 3;

/// A compressor with its working memory.
pub struct Zstd {
    context: CCtx<'static>,
    /// Room for a longer header, and the frame so far.
    out: Vec<u8>,
    ended: bool,
    /// Where the pieces of this cluster end in the input.
    ends: Vec<usize>,
}

impl Zstd {
    /// At this level, for clusters of at most so many bytes.
    pub fn new(level: i32, cluster: usize) -> Result<Zstd, String> {
        let mut context = CCtx::try_create().ok_or("no memory for zstd")?;
        for parameter in [
            CParameter::CompressionLevel(level),
            CParameter::WindowLog(window_log(cluster)),
        ] {
            context.set_parameter(parameter).map_err(|code| {
                format!(
                    "zstd refuses level {level}: {}",
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

    /// Compresses all of the input into `out`; `None` where it does not fit.
    pub fn whole(&mut self, input: &[u8], out: &mut [u8]) -> Option<usize> {
        // What is too long for its room is the one thing that can be wrong here.
        self.context.compress2(out, input).ok()
    }

    /// Compresses as much of the input as a cluster takes, into `out`. Gives bytes taken and bytes
    /// made, or no bytes made where there is no gain. `ratio` is what bytes taken for each made
    /// are expected, and how many there were.
    pub fn fill(
        &mut self,
        input: &[u8],
        cluster: usize,
        ratio: &mut f64,
        out: &mut Vec<u8>,
    ) -> Result<(usize, usize), String> {
        let mut again = 0;
        self.ends.clear();
        let expected = (cluster as f64 * *ratio) as usize;
        'cluster: loop {
            self.begin(expected.clamp(1, input.len()))?;
            let (mut taken, mut local) = (0, *ratio);
            for piece in 0.. {
                let planned = self.ends.get(piece).copied();
                let next = planned.or_else(|| {
                    if again < AGAIN {
                        next(taken, self.len(), local, input.len(), cluster)
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
                    again += 1;
                    self.ends.truncate(piece);
                    let shorter = ((end - taken) as f64 * (cluster - before) as f64
                        / (made - before) as f64
                        * LARGE) as usize;
                    if taken == 0 {
                        self.ends.push(shorter.clamp(least, end - 1));
                    } else if again < AGAIN && shorter >= BLOCK {
                        self.ends.push(taken + shorter.min(end - taken - 1));
                    } else {
                        again = AGAIN;
                    }
                    continue 'cluster;
                }
                local = (end - taken) as f64 / (made - before).max(1) as f64;
                if planned.is_none() {
                    self.ends.push(end);
                }
                taken = end;
            }
            let made = self.end(taken)?;
            *ratio = taken as f64 / made as f64;
            out.clear();
            out.extend_from_slice(&self.out);
            return Ok((taken, made));
        }
    }

    /// Begins a frame that will have about so much in it.
    fn begin(&mut self, expected: usize) -> Result<(), String> {
        self.context
            .reset(ResetDirective::SessionOnly)
            .map_err(wrong)?;
        self.context
            .set_parameter(CParameter::SrcSizeHint(
                u32::try_from(expected).unwrap_or(u32::MAX),
            ))
            .map_err(wrong)?;
        self.out.clear();
        self.out.resize(SIZE, 0);
        self.ended = false;
        Ok(())
    }

    /// Adds a piece.
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
                .map_err(wrong)?;
            if left == 0 && input.pos() == input.src.len() {
                return Ok(());
            }
        }
    }

    /// Bytes that the frame has when it ends here.
    fn len(&self) -> usize {
        self.out.len() + if self.ended { 0 } else { END }
    }

    /// Ends the frame, and writes into its header how much is in it, which readers want to know and
    /// zstd did not. Gives its length.
    fn end(&mut self, content: usize) -> Result<usize, String> {
        if !self.ended {
            self.step(&[], ZSTD_EndDirective::ZSTD_e_end)?;
        }
        // RFC 8878, 3.1.1.1: magic number, descriptor, window's size; a descriptor of 0x80 says
        // that a content size of four bytes follows.
        if self.out.get(SIZE + 4) == Some(&0) {
            self.out.copy_within(SIZE..SIZE + 6, 0);
            self.out[4] = 0x80;
            self.out[6..6 + SIZE].copy_from_slice(&(content as u32).to_le_bytes());
        } else {
            // All of the input in one piece: then zstd has written it.
            self.out.drain(..SIZE);
        }
        Ok(self.out.len())
    }
}

/// Where the next piece of a cluster ends in the input; `None`: it is as full as it needs to be.
fn next(taken: usize, made: usize, ratio: f64, most: usize, cluster: usize) -> Option<usize> {
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
    (taken < most).then(|| (taken + bytes.max(1)).min(most))
}

fn wrong(code: zstd_safe::ErrorCode) -> String {
    format!("zstd: {}", zstd_safe::get_error_name(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Text of numbers, some of it the same, some not.
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
    fn clusters_are_full_and_hold_what_was_taken() {
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
            println!("{cluster}: {blocks} blocks, {lost} bytes lost");
            assert!(
                cluster == 4096 || lost * 20 < blocks * BLOCK,
                "{cluster}: {blocks} blocks, {lost} bytes lost"
            );
        }
    }

    #[test]
    fn what_does_not_shrink_is_told_to_be_no_gain() {
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
