//! A directory tree as text, one line for each entry, in byte order of the paths. A line has all
//! attributes of an entry except its inode number and the times that the file system sets itself.
//! Equal listings mean equal trees.
//!
//! ```text
//! PATH TYPE MODE UID GID LINKS SECONDS.NANOSECONDS SIZE-OR-DEVICE CONTENT [NAME=VALUE ...]
//! ```
//!
//! PATH is escaped, MODE octal, CONTENT the SHA-256 of a file's bytes or a link's escaped target,
//! `-` otherwise; extended attributes follow in order of their names, values in hexadecimal.
//! Directories have neither size nor links: both depend on the file system.

use std::ffi::{CStr, CString, OsStr};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use adamant_contract::hex;
use sha2::{Digest, Sha256};

/// Writes the listing of the tree at `root`, without entering mounts below it. Returns the number
/// of entries, including the root.
pub fn write(root: &Path, out: &mut dyn Write) -> io::Result<u64> {
    let device = fs::symlink_metadata(root)?.dev();
    let mut count = 0;
    // A stack of paths: the content of a directory follows it directly.
    let mut todo = vec![Vec::new()];
    while let Some(path) = todo.pop() {
        let full = root.join(OsStr::from_bytes(path.strip_prefix(b"/").unwrap_or(&path)));
        let meta = fs::symlink_metadata(&full)?;
        line(&path, &full, &meta, out)
            .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", full.display())))?;
        count += 1;
        if meta.is_dir() && meta.dev() == device {
            let mut names = fs::read_dir(&full)?
                .map(|entry| Ok(entry?.file_name().as_bytes().to_vec()))
                .collect::<io::Result<Vec<_>>>()?;
            names.sort_by(|a, b| b.cmp(a));
            todo.extend(
                names
                    .into_iter()
                    .map(|name| [&path[..], b"/", &name].concat()),
            );
        }
    }
    Ok(count)
}

fn line(path: &[u8], full: &Path, meta: &fs::Metadata, out: &mut dyn Write) -> io::Result<()> {
    let kind = meta.file_type();
    let (letter, size, content) = if kind.is_dir() {
        ('d', "-".to_owned(), "-".to_owned())
    } else if kind.is_symlink() {
        (
            'l',
            meta.size().to_string(),
            escape(fs::read_link(full)?.as_os_str().as_bytes()),
        )
    } else if kind.is_file() {
        ('f', meta.size().to_string(), digest(full, meta.size())?)
    } else {
        let device = format!(
            "{}:{}",
            nix::sys::stat::major(meta.rdev()),
            nix::sys::stat::minor(meta.rdev())
        );
        match kind {
            k if k.is_char_device() => ('c', device, "-".to_owned()),
            k if k.is_block_device() => ('b', device, "-".to_owned()),
            k if k.is_fifo() => ('p', "-".to_owned(), "-".to_owned()),
            _ => ('s', "-".to_owned(), "-".to_owned()),
        }
    };
    let links = if kind.is_dir() {
        "-".to_owned()
    } else {
        meta.nlink().to_string()
    };
    write!(
        out,
        "{} {letter} {:04o} {} {} {links} {}.{:09} {size} {content}",
        if path.is_empty() {
            "/".to_owned()
        } else {
            escape(path)
        },
        meta.mode() & 0o7777,
        meta.uid(),
        meta.gid(),
        meta.mtime(),
        meta.mtime_nsec()
    )?;
    for (name, value) in xattrs(full)? {
        write!(out, " {}={}", escape(&name), hex::encode(&value))?;
    }
    writeln!(out)
}

/// Keeps printable ASCII, and writes everything else (also blanks and backslashes) as `\xNN`.
pub fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        match byte {
            b'!'..=b'~' if byte != b'\\' => text.push(char::from(byte)),
            _ => text.push_str(&format!("\\x{byte:02x}")),
        }
    }
    text
}

/// The buffer is no larger than the file: an emulated machine takes long to clear 256 KiB for each
/// of 20,000 small files.
fn digest(path: &Path, size: u64) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; size.clamp(1, 256 * 1024) as usize];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex::encode(&hasher.finalize())),
            read => hasher.update(&buffer[..read]),
        }
    }
}

/// All extended attributes of a path, sorted by name. A symbolic link is not followed.
pub fn xattrs(path: &Path) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let names = grow(|buffer| {
        // SAFETY: the path ends with a NUL, and the kernel writes at most the buffer's length.
        unsafe { libc::llistxattr(path.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) }
    })?;
    let mut all = Vec::new();
    for name in names.split_inclusive(|&b| b == 0) {
        let c_name = CStr::from_bytes_with_nul(name)
            .map_err(|_| io::Error::other("a name without a NUL"))?;
        let value = grow(|buffer| {
            // SAFETY: as above; the name ends with a NUL, too.
            unsafe {
                libc::lgetxattr(
                    path.as_ptr(),
                    c_name.as_ptr(),
                    buffer.as_mut_ptr().cast(),
                    buffer.len(),
                )
            }
        })?;
        all.push((c_name.to_bytes().to_vec(), value));
    }
    all.sort();
    Ok(all)
}

/// Calls twice: with an empty buffer, for which the kernel gives the length, and with one of this
/// length.
fn grow(call: impl Fn(&mut [u8]) -> libc::ssize_t) -> io::Result<Vec<u8>> {
    let mut buffer = Vec::new();
    for _ in 0..2 {
        match call(&mut buffer) {
            length if length >= 0 => buffer.resize(length as usize, 0),
            _ => {
                return match io::Error::last_os_error() {
                    e if e.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(Vec::new()),
                    e => Err(e),
                };
            }
        }
        if buffer.is_empty() {
            break;
        }
    }
    Ok(buffer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_a_tree_from_one_with_a_changed_byte_mode_or_name() {
        let dir = std::env::temp_dir().join(format!("listing-{}", std::process::id()));
        let listing = || {
            let mut out = Vec::new();
            write(&dir, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        fs::create_dir_all(dir.join("a b")).unwrap();
        fs::write(dir.join("a b/file"), "x").unwrap();
        let first = listing();
        assert!(first.contains("/a\\x20b/file f "), "{first}");
        fs::write(dir.join("a b/file"), "y").unwrap();
        let second = listing();
        std::os::unix::fs::symlink("file", dir.join("a b/link")).unwrap();
        let third = listing();
        fs::remove_dir_all(&dir).unwrap();
        assert_ne!(first, second);
        assert_eq!(third.lines().count(), second.lines().count() + 1);
    }
}
