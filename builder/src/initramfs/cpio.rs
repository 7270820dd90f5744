//! Writes newc cpio archives, the format of an initramfs. The same entries give the same bytes.
//!
//! Format: the kernel's Documentation/driver-api/early-userspace/buffer-format.rst. Owners and
//! times are 0, inode numbers count up.

use std::collections::BTreeMap;

/// Type and content of an entry.
enum CpioKind {
    Directory,
    File(Vec<u8>),
    /// Major and minor device number.
    CharDevice(u32, u32),
}

/// The entries of an archive by path, with their modes.
#[derive(Default)]
pub struct CpioArchive {
    entries: BTreeMap<String, (u32, CpioKind)>,
}

impl CpioArchive {
    /// Adds a directory and its parents with mode 0755. Paths are absolute.
    pub fn directory(&mut self, path: &str) {
        let path = path.trim_matches('/');
        if path.is_empty() {
            return;
        }
        if let Some((parent, _)) = path.rsplit_once('/') {
            self.directory(parent);
        }
        self.entries
            .entry(path.to_owned())
            .or_insert((0o040_755, CpioKind::Directory));
    }

    /// Adds a file and its parent directories.
    pub fn file(&mut self, path: &str, permissions: u32, bytes: Vec<u8>) {
        self.insert(path, 0o100_000 | permissions, CpioKind::File(bytes));
    }

    /// Adds a character device and its parent directories.
    pub fn char_device(&mut self, path: &str, permissions: u32, major: u32, minor: u32) {
        self.insert(
            path,
            0o020_000 | permissions,
            CpioKind::CharDevice(major, minor),
        );
    }

    fn insert(&mut self, path: &str, mode: u32, kind: CpioKind) {
        let path = path.trim_matches('/');
        if let Some((parent, _)) = path.rsplit_once('/') {
            self.directory(parent);
        }
        self.entries.insert(path.to_owned(), (mode, kind));
    }

    /// The archive's bytes, uncompressed. Entries are in byte order of their paths, so each
    /// directory precedes its content.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (inode, (path, (mode, kind))) in (1u32..).zip(&self.entries) {
            let (links, device, bytes): (u32, (u32, u32), &[u8]) = match kind {
                CpioKind::Directory => (2, (0, 0), &[]),
                CpioKind::File(bytes) => (1, (0, 0), bytes),
                CpioKind::CharDevice(major, minor) => (1, (*major, *minor), &[]),
            };
            entry(&mut out, path, [inode, *mode, links], device, bytes);
        }
        entry(&mut out, "TRAILER!!!", [0, 0, 1], (0, 0), &[]);
        // Padded as GNU cpio pads it. The kernel skips zeros.
        out.resize(out.len().next_multiple_of(512), 0);
        out
    }
}

fn entry(
    out: &mut Vec<u8>,
    path: &str,
    [inode, mode, links]: [u32; 3],
    device: (u32, u32),
    bytes: &[u8],
) {
    let size = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let name_size = path.len() as u32 + 1;
    // c_ino, c_mode, c_uid, c_gid, c_nlink, c_mtime, c_filesize, c_maj, c_min, c_rmaj, c_rmin,
    // c_namesize, c_chksum.
    let fields = [
        inode, mode, 0, 0, links, 0, size, 0, 0, device.0, device.1, name_size, 0,
    ];
    out.extend_from_slice(b"070701");
    for field in fields {
        out.extend_from_slice(format!("{field:08X}").as_bytes());
    }
    out.extend_from_slice(path.as_bytes());
    out.push(0);
    out.resize(out.len().next_multiple_of(4), 0);
    out.extend_from_slice(bytes);
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use adamant_skip::skip;
    use std::io::Write;
    use std::process::{Command, Stdio};

    #[test]
    fn cpio_lists_all_entries() {
        let mut archive = CpioArchive::default();
        archive.file("/init", 0o755, b"#!".to_vec());
        archive.file("/usr/lib/x", 0o644, vec![1; 5]);
        archive.char_device("/dev/console", 0o600, 5, 1);
        archive.directory("/sysroot");
        let bytes = archive.encode();
        assert_eq!(bytes.len() % 512, 0);
        let child = Command::new("cpio")
            .args(["-tv", "--quiet", "-n"])
            .env("TZ", "UTC")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let Ok(mut child) = child else {
            skip!(Program("cpio"));
        };
        child.stdin.take().unwrap().write_all(&bytes).unwrap();
        let listed = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
        let lines: Vec<Vec<&str>> = listed
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        let short: Vec<String> = lines
            .iter()
            .map(|words| format!("{} {} {}", words[0], words[1], words[words.len() - 1]))
            .collect();
        let wanted = [
            "drwxr-xr-x 2 dev",
            "crw------- 1 dev/console",
            "-rwxr-xr-x 1 init",
            "drwxr-xr-x 2 sysroot",
            "drwxr-xr-x 2 usr",
            "drwxr-xr-x 2 usr/lib",
            "-rw-r--r-- 1 usr/lib/x",
        ];
        assert_eq!(short, wanted);
        assert!(
            lines
                .iter()
                .all(|words| words[2] == "0" && words[3] == "0" && listed.contains("1970"))
        );
    }
}
