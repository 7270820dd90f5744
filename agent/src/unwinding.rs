//! No backtraces: the agent's program has no tables to unwind by (no-unwinding.ld), so that what
//! libgcc has for that could never find a caller.
//!
//! In its place there is this, which the linker takes since it comes first (build/small.rs). The
//! standard library's reader of debugging information, some 180 KB, is then code that nothing can
//! reach, and is left out.

use std::ffi::{c_int, c_void};

/// `_URC_END_OF_STACK` of the Itanium C++ ABI, "Exception Handling", 1.2: there are no frames.
const END_OF_STACK: c_int = 5;

/// Calls nothing for no frame.
// SAFETY: the name, arguments and result are those of the ABI's function that it stands for, and
// that one may be called at any time.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Backtrace(_each: *mut c_void, _argument: *mut c_void) -> c_int {
    END_OF_STACK
}
