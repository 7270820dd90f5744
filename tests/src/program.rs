//! The smallest program there is: an ELF file that ends with 0. An init for images that no machine
//! starts.

use std::path::PathBuf;

use crate::{image, scratch::Scratch};

/// The file's bytes: headers and `exit(0)`.
pub fn bytes() -> Vec<u8> {
    /// mov eax, 60; xor edi, edi; syscall
    const CODE: [u8; 9] = [0xb8, 60, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05];
    /// Address that the file is loaded at.
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    let length = HEADERS + CODE.len() as u64;
    let mut out = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    // ET_EXEC, EM_X86_64, version, entry, program headers, no sections.
    out.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    [BASE + HEADERS, 64, 0]
        .into_iter()
        .for_each(|word| out.extend(word.to_le_bytes()));
    out.extend([0, 0, 0, 0]);
    [64u16, 56, 1, 0, 0, 0]
        .into_iter()
        .for_each(|half| out.extend(half.to_le_bytes()));
    // PT_LOAD, readable and executable.
    out.extend([1, 0, 0, 0, 5, 0, 0, 0]);
    [0, BASE, BASE, length, length, 4096]
        .into_iter()
        .for_each(|word| out.extend(word.to_le_bytes()));
    out.extend(CODE);
    out
}

/// A file that holds it, for a definition's `copy`.
pub fn file() -> PathBuf {
    let _lock = image::lock("smallest-program");
    let path = image::target_dir().join("cache/smallest-program");
    if std::fs::read(&path).ok() != Some(bytes()) {
        let scratch = Scratch::new("smallest-program");
        let new = scratch.join("new");
        std::fs::write(&new, bytes()).unwrap_or_else(|e| panic!("{}: {e}", new.display()));
        std::fs::create_dir_all(image::target_dir().join("cache"))
            .unwrap_or_else(|e| panic!("{e}"));
        std::fs::copy(&new, &path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }
    path
}

/// The entry of a definition that makes it the init.
pub fn init() -> String {
    format!(
        "[[file]]\npath = \"/sbin/init\"\ncopy = {:?}\nmode = \"0755\"\n",
        file().display().to_string()
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn it_runs_here() {
        let scratch = Scratch::new("program-runs");
        let path = scratch.join("program");
        std::fs::write(&path, bytes()).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert!(
            std::process::Command::new(&path)
                .status()
                .unwrap()
                .success()
        );
    }
}
