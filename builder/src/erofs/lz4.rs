//! LZ4 calls that fill a destination of a given size. lz4-sys builds them but does not declare
//! them.

use std::ffi::{c_char, c_int, c_void};

use super::format::BLOCK;

// The crate's other declarations are not used, only its C library.
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
/// Level of the second attempt at a cluster that exceeds a block boundary by little.
const RETRY_LEVEL: c_int = 9;
/// "Little" in thousandths of the cluster: what [`RETRY_LEVEL`] may gain.
const RETRY_GAIN: usize = 8;

/// The library's version. Another version may produce other bytes.
pub fn version() -> u32 {
    // SAFETY: the function has no arguments and returns a constant.
    unsafe { LZ4_versionNumber() }.unsigned_abs()
}

/// Compresses as much of `src` as fits into `dst`, fast. Returns bytes taken and bytes made.
pub fn fill(src: &[u8], dst: &mut [u8]) -> (usize, usize) {
    let mut taken = c_int::try_from(src.len()).unwrap_or(c_int::MAX);
    let room = c_int::try_from(dst.len()).unwrap_or(c_int::MAX);
    // SAFETY: both pointers are valid for the given lengths, which are those of the slices or less,
    // and the call does not keep them.
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

/// The state for high compression. It is reused to save allocations; each call initialises it.
pub struct HighCompression {
    state: Vec<u64>,
    /// Destination of a second attempt.
    retry: Vec<u8>,
}

impl HighCompression {
    /// A new state.
    pub fn new() -> HighCompression {
        // SAFETY: the function has no arguments and returns a constant.
        let size = unsafe { LZ4_sizeofStateHC() }.max(0) as usize;
        HighCompression {
            state: vec![0; size.div_ceil(8)],
            retry: Vec::new(),
        }
    }

    /// Like [`fill`], with high compression. If all of `src` fits, but exceeds a block boundary by
    /// little, a second attempt at a higher level may save the block. That gains nearly as much as
    /// the higher level for everything, which takes many times as long.
    pub fn fill(&mut self, src: &[u8], dst: &mut [u8]) -> (usize, usize) {
        let (taken, made) = self.fill_at(LEVEL, src, dst);
        let excess = made % BLOCK;
        if taken == src.len() && made > BLOCK && excess > 0 && excess * 1000 <= made * RETRY_GAIN {
            let mut retry = std::mem::take(&mut self.retry);
            retry.resize(made - excess, 0);
            let (taken, less) = self.fill_at(RETRY_LEVEL, src, &mut retry);
            let fits = taken == src.len();
            if fits {
                dst[..less].copy_from_slice(&retry[..less]);
            }
            self.retry = retry;
            if fits {
                return (taken, less);
            }
        }
        (taken, made)
    }

    fn fill_at(&mut self, level: c_int, src: &[u8], dst: &mut [u8]) -> (usize, usize) {
        let mut taken = c_int::try_from(src.len()).unwrap_or(c_int::MAX);
        let room = c_int::try_from(dst.len()).unwrap_or(c_int::MAX);
        // SAFETY: as in the function `fill`; the state has the size that the library asks for, is
        // aligned to 8 bytes, and the call initialises it.
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

/// Decompresses all of `src` into all of `dst`; false for corrupted data or another length.
pub fn decompress(src: &[u8], dst: &mut [u8]) -> bool {
    let (Ok(src_len), Ok(dst_len)) = (c_int::try_from(src.len()), c_int::try_from(dst.len()))
    else {
        return false;
    };
    // SAFETY: both pointers are valid for the given lengths; the call checks every access against
    // them, whatever `src` contains.
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
    fn a_second_attempt_saves_a_block_or_changes_nothing() {
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
