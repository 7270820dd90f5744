//! A library that prints a line when a program loads it. It uses no other library, so that every
//! program can load it. `tests/attacks/run` compiles it with rustc, because the workspace's target
//! is static and has no shared libraries.

#![no_std]
#![crate_type = "cdylib"]

use core::arch::asm;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

/// The dynamic loader calls the functions in this section.
#[used]
#[unsafe(link_section = ".init_array")]
static LOADED: extern "C" fn() = print_line;

extern "C" fn print_line() {
    const WRITE: usize = 1;
    const STANDARD_OUTPUT: usize = 1;
    let text = "evil library loaded\n";
    // SAFETY: write(2) reads the text and changes no memory.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") WRITE => _,
            in("rdi") STANDARD_OUTPUT,
            in("rsi") text.as_ptr(),
            in("rdx") text.len(),
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack, readonly),
        );
    }
}
