//! Early microcode: an uncompressed cpio archive that the kernel reads first
//! (Documentation/arch/x86/microcode.rst). It has the files of Debian's packages intel-microcode
//! and amd64-microcode.

use super::cpio::CpioArchive;
use crate::error::{Context, Error, Result};
use crate::tree::{Tree, show};

/// Directory of each vendor's files, and the name that the kernel looks for.
const VENDORS: [(&[u8], &str); 2] = [
    (b"/usr/lib/firmware/intel-ucode", "GenuineIntel.bin"),
    (b"/usr/lib/firmware/amd-ucode", "AuthenticAMD.bin"),
];
const DIRECTORY: &str = "/kernel/x86/microcode";
/// Largest file, bytes. Intel's files together have about 15 MB.
const FILE_LIMIT: u64 = 16 << 20;

/// Creates the archive. The files of a vendor are concatenated in the order of their names.
pub fn early_archive(tree: &Tree) -> Result<Vec<u8>> {
    let mut archive = CpioArchive::default();
    let mut found = false;
    for (folder, name) in VENDORS {
        let mut all = Vec::new();
        for (file, _) in tree
            .resolve(folder)
            .into_iter()
            .flat_map(|folder| tree.children(folder))
        {
            // AMD's directory also has signatures and descriptions.
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
