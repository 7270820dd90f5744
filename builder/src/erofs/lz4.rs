//! LZ4's "fill this many bytes" calls, which lz4-sys builds but does not declare.

use std::ffi::{c_char, c_int, c_void};

use super::format::BLOCK;

// The crate is linked for its C library; only this one of its own declarations is used.
use lz4_sys::{LZ4_decompress_safe, LZ4_versionNumber};

unsafe extern "C" {
    fn LZ4_compress_destSize(
        src: *const c_char,
        dst: *mut c_char,
        src_size: *mut c_int,
        target: c_int,
    ) -> c_int;
    fn LZ4_sizeofStateHC() -> c_int;
    fn LZ4_compress_HC_destSize(
        state: *mut c_void,
        src: *const c_char,
        dst: *mut c_char,
        src_size: *mut c_int,
        target: c_int,
        level: c_int,
    ) -> c_int;
}

/// LZ4's own default is 9, which searches four times as long for 0.3 % less.
const LEVEL: c_int = 6;
/// For ends that miss a block by a little.
const LAST_LEVEL: c_int = 9;
/// So many thousandths more than fits are a little: what [`LAST_LEVEL`] may gain.
const LITTLE: usize = 8;

/// The library's version: another one may give other bytes.
pub fn version() -> u32 {
    // SAFETY: takes nothing and gives a constant.
    unsafe { LZ4_versionNumber() }.unsigned_abs()
}

/// Compresses as much of `src` as fits into `dst`, fast. Gives bytes taken and bytes made.
pub fn fill(src: &[u8], dst: &mut [u8]) -> (usize, usize) {
    let mut taken = c_int::try_from(src.len()).unwrap_or(c_int::MAX);
    let room = c_int::try_from(dst.len()).unwrap_or(c_int::MAX);
    // SAFETY: both pointers are valid for the lengths given, which are those of the slices or less;
    // the call keeps none of them.
    let made = unsafe {
        LZ4_compress_destSize(
            src.as_ptr().cast(),
            dst.as_mut_ptr().cast(),
            &mut taken,
            room,
        )
    };
    (taken.max(0) as usize, made.max(0) as usize)
}

/// The state that high compression needs, kept between calls to save its allocation. Nothing in it
/// carries over.
pub struct HighCompression {
    state: Vec<u64>,
    again: Vec<u8>,
}

impl HighCompression {
    /// A new state.
    pub fn new() -> HighCompression {
        // SAFETY: takes nothing and gives a constant.
        let size = unsafe { LZ4_sizeofStateHC() }.max(0) as usize;
        HighCompression {
            state: vec![0; size.div_ceil(8)],
            again: Vec::new(),
        }
    }

    /// As [`fill`], with high compression. Where all of `src` fits, and a little less would have
    /// taken a block less, it is searched once more, and longer: that is worth nearly as much
    /// as searching everything so long, which takes many times the time.
    pub fn fill(&mut self, src: &[u8], dst: &mut [u8]) -> (usize, usize) {
        let (taken, made) = self.fill_at(LEVEL, src, dst);
        let spill = made % BLOCK;
        if taken == src.len() && made > BLOCK && spill > 0 && spill * 1000 <= made * LITTLE {
            let mut again = std::mem::take(&mut self.again);
            again.resize(made - spill, 0);
            let (taken, less) = self.fill_at(LAST_LEVEL, src, &mut again);
            let fits = taken == src.len();
            if fits {
                dst[..less].copy_from_slice(&again[..less]);
            }
            self.again = again;
            if fits {
                return (taken, less);
            }
        }
        (taken, made)
    }

    fn fill_at(&mut self, level: c_int, src: &[u8], dst: &mut [u8]) -> (usize, usize) {
        let mut taken = c_int::try_from(src.len()).unwrap_or(c_int::MAX);
        let room = c_int::try_from(dst.len()).unwrap_or(c_int::MAX);
        // SAFETY: as in the function `fill`; the state is as large as the library asks for and
        // aligned to 8 bytes, and the call initialises it itself.
        let made = unsafe {
            LZ4_compress_HC_destSize(
                self.state.as_mut_ptr().cast(),
                src.as_ptr().cast(),
                dst.as_mut_ptr().cast(),
                &mut taken,
                room,
                level,
            )
        };
        (taken.max(0) as usize, made.max(0) as usize)
    }
}

/// Decompresses all of `src` into all of `dst`; false where it is damaged or has another length.
pub fn decompress(src: &[u8], dst: &mut [u8]) -> bool {
    let (Ok(src_len), Ok(dst_len)) = (c_int::try_from(src.len()), c_int::try_from(dst.len()))
    else {
        return false;
    };
    // SAFETY: both pointers are valid for the lengths given; the call checks every access against
    // them, whatever `src` holds.
    let made = unsafe {
        LZ4_decompress_safe(
            src.as_ptr().cast(),
            dst.as_mut_ptr().cast(),
            src_len,
            dst_len,
        )
    };
    made == dst_len
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_that_misses_a_block_by_little_is_searched_longer() {
        let text: Vec<u8> = (0..9_000u32)
            .flat_map(|i| {
                format!(
                    "{} is what {i} leaves, and {} more\n",
                    i.pow(2) % 977,
                    i % 89
                )
                .into_bytes()
            })
            .collect();
        let mut hc = HighCompression::new();
        let (mut first, mut dst) = (vec![0; 65536], vec![0; 65536]);
        let mut shorter = 0;
        for len in (20_000..100_000).step_by(97) {
            let src = &text[..len];
            let (_, once) = hc.fill_at(LEVEL, src, &mut first);
            let (taken, made) = hc.fill(src, &mut dst);
            assert_eq!(taken, len);
            let mut back = vec![0; len];
            assert!(decompress(&dst[..made], &mut back) && back == src, "{len}");
            match made == once {
                true => assert_eq!(dst[..made], first[..once]),
                false => {
                    assert!(
                        made.div_ceil(BLOCK) < once.div_ceil(BLOCK),
                        "{len}: {made}, {once}"
                    );
                    shorter += 1;
                }
            }
        }
        assert!(shorter > 0);
    }
}
