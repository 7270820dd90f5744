//! Linker flags that make the agent, and so every initramfs, smaller: no unwind tables (170 KB), no
//! reader of debugging information (180 KB), and packed relative relocations (DT_RELR, 60 KB).
//!
//! A static program relocates itself with the code of its own C library. glibc supports the packed
//! form from 2.36 on (Debian 12); with an older one the program would crash at its first
//! instruction, so the version is checked.

use std::env;
use std::process::Command;

/// Prints the flags for Cargo.
pub fn print_linker_flags() {
    let target = env::var("TARGET").unwrap_or_default();
    let target_is_linux = target.contains("-linux-");
    if target.ends_with("-linux-gnu")
        && Some(target) == env::var("HOST").ok()
        && glibc_version().is_some_and(|version| version >= (2, 36))
    {
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
    println!("cargo:rustc-check-cfg=cfg(without_tables)");
    // Only the profile `agent` optimizes for size, and only it aborts on a panic. Tests unwind.
    if target_is_linux && env::var("OPT_LEVEL").is_ok_and(|level| level == "z") {
        let script = env::current_dir()
            .unwrap_or_default()
            .join("build/no-unwinding.ld");
        println!("cargo:rerun-if-changed={}", script.display());
        println!("cargo:rustc-link-arg-bins=-Wl,--no-eh-frame-hdr");
        println!("cargo:rustc-link-arg-bins=-T{}", script.display());
        // `_Unwind_Backtrace` of src/unwinding.rs takes precedence over libgcc's.
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
