//! An image's kernel without its compression. An emulated processor takes a second to decompress a
//! kernel, in each start.

use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::image::{lock, target_dir};
use crate::scratch::Scratch;
use crate::tool;

/// Offset of `setup_sects` in a bzImage, see Documentation/arch/x86/boot.rst.
const SETUP_SECTORS: usize = 0x1f1;
/// Offset of `payload_offset`.
const PAYLOAD_OFFSET: usize = 0x248;
/// Offset of `payload_length`.
const PAYLOAD_LENGTH: usize = 0x24c;
/// The length of the ELF file follows the compressed data.
const TRAILER: usize = 4;
/// First bytes of zstd's frames.
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// The ELF file in a bzImage, decompressed once for all tests. QEMU starts it by its PVH entry.
/// A kernel with another compression than zstd is given as it is: Debian 12 has LZ4, which is fast.
pub fn uncompressed(kernel: &Path) -> PathBuf {
    let image = fs::read(kernel).unwrap_or_else(|e| panic!("{}: {e}", kernel.display()));
    let payload = payload(&image);
    if !payload.starts_with(&ZSTD) {
        return kernel.to_owned();
    }
    let digest = adamant_contract::hex::encode(&Sha256::digest(&image));
    let _lock = lock("vmlinux");
    let path = target_dir().join(format!("kernels/vmlinux-{}", &digest[..16]));
    if !path.exists() {
        fs::create_dir_all(target_dir().join("kernels")).unwrap_or_else(|e| panic!("{e}"));
        let scratch = Scratch::new("vmlinux");
        let packed = scratch.join("packed");
        fs::write(&packed, payload).unwrap_or_else(|e| panic!("{}: {e}", packed.display()));
        let elf = path.with_extension("new");
        let mut zstd = tool::command("zstd");
        tool::run(zstd.args(["-q", "-f", "-d", "-o"]).arg(&elf).arg(&packed));
        fs::rename(&elf, &path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }
    path
}

/// The compressed ELF file.
fn payload(image: &[u8]) -> &[u8] {
    let number = |at: usize| {
        let bytes = image[at..at + 4].try_into();
        u32::from_le_bytes(bytes.unwrap_or_default()) as usize
    };
    let start = (usize::from(image[SETUP_SECTORS]) + 1) * 512 + number(PAYLOAD_OFFSET);
    &image[start..start + number(PAYLOAD_LENGTH) - TRAILER]
}
