//! Replaces libgcc's unwinder: the agent's program has no unwind tables (no-unwinding.ld), so
//! libgcc could never find a caller.
//!
//! The linker prefers this function because it comes first (build/small.rs). The standard library's
//! reader of debugging information, 180 KB, is then unreachable, and the linker drops it.

use std::ffi::{c_int, c_void};

/// `_URC_END_OF_STACK` of the Itanium C++ ABI, "Exception Handling", 1.2: there are no frames.
const END_OF_STACK: c_int = 5;

/// Reports that there are no frames.
// SAFETY: name, arguments and result are those of the ABI's function that this one replaces, and
// that one may be called at any time.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Backtrace(_each: *mut c_void, _argument: *mut c_void) -> c_int {
    END_OF_STACK
}
