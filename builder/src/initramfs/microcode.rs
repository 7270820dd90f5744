//! Early microcode: an uncompressed cpio that the kernel looks into before anything else
//! (Documentation/arch/x86/microcode.rst), from the files that Debian's intel-microcode and
//! amd64-microcode install.

use super::cpio::CpioArchive;
use crate::error::{Context, Error, Result};
use crate::tree::{Tree, show};

/// Where the files are, and what the kernel looks for.
const VENDORS: [(&[u8], &str); 2] = [
    (b"/usr/lib/firmware/intel-ucode", "GenuineIntel.bin"),
    (b"/usr/lib/firmware/amd-ucode", "AuthenticAMD.bin"),
];
const DIRECTORY: &str = "/kernel/x86/microcode";
/// All of Intel's together have some 15 MB.
const FILE_LIMIT: u64 = 16 << 20;

/// The archive, uncompressed. Each vendor's files in the order of their names.
pub fn early(tree: &Tree) -> Result<Vec<u8>> {
    let mut archive = CpioArchive::default();
    let mut found = false;
    for (folder, name) in VENDORS {
        let mut all = Vec::new();
        for (file, _) in tree
            .resolve(folder)
            .into_iter()
            .flat_map(|folder| tree.children(folder))
        {
            // Beside microcode there are AMD's signatures and descriptions.
            if file.ends_with(b".asc") || file.starts_with(b"README") {
                continue;
            }
            let path = [folder, b"/", file].concat();
            let content = tree
                .file_content(&path)
                .ok_or_else(|| Error::new(format!("{}: not a file", show(&path))))?;
            all.extend_from_slice(&content.to_vec(FILE_LIMIT).context(|| show(&path))?);
        }
        if !all.is_empty() {
            archive.file(&format!("{DIRECTORY}/{name}"), 0o644, all);
            found = true;
        }
    }
    match found {
        true => Ok(archive.encode()),
        false => Err(Error::new("boot.microcode = true, but the image has no microcode")
            .hint("add the packages intel-microcode and amd64-microcode (component non-free-firmware)")),
    }
}
