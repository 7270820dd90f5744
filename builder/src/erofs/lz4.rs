//! LZ4's "fill this many bytes" calls, which lz4-sys builds but does not declare.

use std::ffi::{c_char, c_int, c_void};

// The crate is linked for its C library; only this one of its own declarations is used.
use lz4_sys::{LZ4_decompress_safe, LZ4_versionNumber};

unsafe extern "C" {
    fn LZ4_compress_destSize(src: *const c_char, dst: *mut c_char, src_size: *mut c_int, target: c_int) -> c_int;
    fn LZ4_sizeofStateHC() -> c_int;
    fn LZ4_compress_HC_destSize(state: *mut c_void, src: *const c_char, dst: *mut c_char, src_size: *mut c_int, target: c_int, level: c_int) -> c_int;
}

/// The library's version: another one may give other bytes.
pub fn version() -> u32 {
    // SAFETY: takes nothing and gives a constant.
    unsafe { LZ4_versionNumber() }.unsigned_abs()
}

/// Compresses as much of `src` as fits into `dst`, fast. Gives bytes taken and bytes made.
pub fn fill(src: &[u8], dst: &mut [u8]) -> (usize, usize) {
    let mut taken = c_int::try_from(src.len()).unwrap_or(c_int::MAX);
    let room = c_int::try_from(dst.len()).unwrap_or(c_int::MAX);
    // SAFETY: both pointers are valid for the lengths given, which are those of the slices or less; the call keeps none of them.
    let made = unsafe { LZ4_compress_destSize(src.as_ptr().cast(), dst.as_mut_ptr().cast(), &mut taken, room) };
    (taken.max(0) as usize, made.max(0) as usize)
}

/// The state that high compression needs, kept between calls to save its allocation. Nothing in it carries over.
pub struct HighCompression {
    state: Vec<u64>,
}

impl HighCompression {
    /// A new state.
    pub fn new() -> HighCompression {
        // SAFETY: takes nothing and gives a constant.
        let size = unsafe { LZ4_sizeofStateHC() }.max(0) as usize;
        HighCompression { state: vec![0; size.div_ceil(8)] }
    }

    /// As [`fill`], with high compression at this level (3 to 12).
    pub fn fill(&mut self, src: &[u8], dst: &mut [u8], level: i32) -> (usize, usize) {
        let mut taken = c_int::try_from(src.len()).unwrap_or(c_int::MAX);
        let room = c_int::try_from(dst.len()).unwrap_or(c_int::MAX);
        // SAFETY: as in `fill`; the state is as large as the library asks for and aligned to 8 bytes, and the call initialises it itself.
        let made = unsafe { LZ4_compress_HC_destSize(self.state.as_mut_ptr().cast(), src.as_ptr().cast(), dst.as_mut_ptr().cast(), &mut taken, room, level) };
        (taken.max(0) as usize, made.max(0) as usize)
    }
}

/// Decompresses all of `src` into all of `dst`; false where it is damaged or has another length.
pub fn decompress(src: &[u8], dst: &mut [u8]) -> bool {
    let (Ok(src_len), Ok(dst_len)) = (c_int::try_from(src.len()), c_int::try_from(dst.len())) else { return false };
    // SAFETY: both pointers are valid for the lengths given; the call checks every access against them, whatever `src` holds.
    let made = unsafe { LZ4_decompress_safe(src.as_ptr().cast(), dst.as_mut_ptr().cast(), src_len, dst_len) };
    made == dst_len
}
