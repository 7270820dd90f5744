//! Makes the agent smaller in every initramfs: no tables for unwinding (some 170 KB), no reader of
//! them (180 KB), and packed relative relocations (DT_RELR, some 60 KB).
//!
//! A static program relocates itself with its own C library's code, which knows the packed form
//! from glibc 2.36 on (Debian 12). With an older one it would crash at its first instruction, so
//! the C library is asked.

use std::env;
use std::process::Command;

/// Tells the linker.
pub fn link() {
    let target = env::var("TARGET").unwrap_or_default();
    let target_is_linux = target.contains("-linux-");
    if target.ends_with("-linux-gnu")
        && Some(target) == env::var("HOST").ok()
        && glibc_version().is_some_and(|version| version >= (2, 36))
    {
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
    println!("cargo:rustc-check-cfg=cfg(without_tables)");
    // Only the profile for images is optimized for size, and only it aborts on a panic; tests
    // unwind.
    if target_is_linux && env::var("OPT_LEVEL").is_ok_and(|level| level == "z") {
        let script = env::current_dir()
            .unwrap_or_default()
            .join("build/no-unwinding.ld");
        println!("cargo:rerun-if-changed={}", script.display());
        println!("cargo:rustc-link-arg-bins=-Wl,--no-eh-frame-hdr");
        println!("cargo:rustc-link-arg-bins=-T{}", script.display());
        // The agent's own `_Unwind_Backtrace` (src/unwinding.rs) before libgcc's.
        println!("cargo:rustc-cfg=without_tables");
        println!("cargo:rustc-link-arg-bins=-Wl,-z,muldefs");
    }
}

fn glibc_version() -> Option<(u32, u32)> {
    let output = Command::new("getconf")
        .arg("GNU_LIBC_VERSION")
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let (major, minor) = text.trim().strip_prefix("glibc ")?.split_once('.')?;
    Some((major.parse().ok()?, minor.split('.').next()?.parse().ok()?))
}
