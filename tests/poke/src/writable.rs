//! The files of the kernel that root may open for writing.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::arguments::Arguments;
use crate::failure::{Failure, Named, Result};

/// The directories that the walk starts from. Device nodes come last: opening one can load a
/// driver, which adds files to the others.
const ROOTS: [&str; 3] = ["/proc", "/sys", "/dev"];
/// Number of entries after which the walk ends with a failure. Debian has about 40,000.
const LIMIT: usize = 400_000;

/// The results of the walk: the number of files for each kind, normalised path and result.
type Results = BTreeMap<(String, char, &'static str), usize>;

/// `writable`: opens every file that has a write bit, and every device node, for writing, and
/// closes it again. It writes nothing. Prints a line for each result and normalised path: result,
/// kind (`f`, `c`, `b`), number of files and path, separated by tabs.
pub fn list(_: &Arguments) -> Result {
    let mut walk = Walk {
        results: Results::new(),
        entries: 0,
    };
    for root in ROOTS {
        walk.directory(Path::new(root))?;
    }
    let mut out = io::stdout().lock();
    for ((path, kind, result), count) in &walk.results {
        writeln!(out, "{result}\t{kind}\t{count}\t{path}").named("write of the list")?;
    }
    writeln!(out, "entries\t{}", walk.entries).named("write of the list")
}

struct Walk {
    results: Results,
    entries: usize,
}

impl Walk {
    /// Walks a directory and everything below it. Symbolic links are not followed.
    fn directory(&mut self, directory: &Path) -> Result {
        // A directory can disappear while the walk goes on: a process ends, a cgroup is removed.
        let Ok(entries) = fs::read_dir(directory) else {
            return Ok(());
        };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            self.entries += 1;
            if self.entries > LIMIT {
                let reason = format!("more than {LIMIT} entries, at {}", path.display());
                return Err(Failure::NoEffect(reason));
            }
            let Ok(metadata) = fs::symlink_metadata(&path) else {
                continue;
            };
            let kind = metadata.file_type();
            if kind.is_dir() {
                if !is_other_process(&path) {
                    self.directory(&path)?;
                }
            } else if kind.is_char_device() {
                self.file(&path, 'c');
            } else if kind.is_block_device() {
                self.file(&path, 'b');
            } else if kind.is_file() && metadata.mode() & 0o222 != 0 {
                self.file(&path, 'f');
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &Path, kind: char) {
        let result = if opening_has_an_effect(path) {
            "untried"
        } else {
            let opened = OpenOptions::new()
                .write(true)
                .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
                .open(path);
            match opened {
                Ok(_) => "open",
                Err(error) if error.kind() == io::ErrorKind::NotFound => return,
                Err(error) => error_name(error.raw_os_error().unwrap_or_default()),
            }
        };
        let name = match below_refused(path) {
            Some(directory) if result == "EPERM" => format!("{directory}/**"),
            _ => normalised(path),
        };
        let key = (name, kind, result);
        *self.results.entry(key).or_default() += 1;
    }
}

/// File systems with thousands of files, all of which the guard refuses: they are one entry. A file
/// that is not refused is an entry of its own.
fn below_refused(path: &Path) -> Option<&'static str> {
    ["/sys/kernel/debug", "/sys/kernel/tracing"]
        .into_iter()
        .find(|directory| path.starts_with(directory))
}

/// Whether this is the directory of a process in /proc, other than PID 1 and this one. All
/// processes have the same files.
fn is_other_process(path: &Path) -> bool {
    let Ok(name) = path.strip_prefix("/proc") else {
        return false;
    };
    let name = name.to_string_lossy();
    name.bytes().all(|byte| byte.is_ascii_digit())
        && name != "1"
        && name != std::process::id().to_string()
}

/// A watchdog that is opened restarts the machine, unless it is served from then on.
fn opening_has_an_effect(path: &Path) -> bool {
    path.to_string_lossy().starts_with("/dev/watchdog")
}

/// The path, with N for each number. PID 1 stays, and this process is `self`.
fn normalised(path: &Path) -> String {
    let path = path.to_string_lossy();
    let own = format!("/proc/{}/", std::process::id());
    let (start, rest) = if let Some(rest) = path.strip_prefix(&own) {
        ("/proc/self/", rest)
    } else if let Some(rest) = path.strip_prefix("/proc/1/") {
        ("/proc/1/", rest)
    } else {
        ("", &*path)
    };
    let components: Vec<String> = rest.split('/').map(without_numbers).collect();
    start.to_owned() + &components.join("/")
}

/// Directories whose names have a digit that is no number.
const NAMES: [&str; 2] = ["ipv4", "ipv6"];

/// One component of a path, with N for each number. Addresses of devices (`0000:00:1f.2`) and UUIDs
/// are hexadecimal numbers.
fn without_numbers(component: &str) -> String {
    if NAMES.contains(&component) {
        return component.to_owned();
    }
    let (start, uuid) = match component.len().checked_sub(36) {
        Some(at) if component.is_char_boundary(at) && is_uuid(&component[at..]) => {
            (&component[..at], "N")
        }
        _ => (component, ""),
    };
    let address = start.contains([':', '.'])
        && start
            .chars()
            .all(|char| ":.".contains(char) || char.is_ascii_hexdigit());
    let in_number = |char: char| char.is_ascii_digit() || (address && char.is_ascii_hexdigit());
    let mut text = String::new();
    for char in start.chars() {
        if !in_number(char) {
            text.push(char);
        } else if !text.ends_with('N') {
            text.push('N');
        }
    }
    text + uuid
}

fn is_uuid(text: &str) -> bool {
    let lengths: Vec<usize> = text.split('-').map(str::len).collect();
    lengths == [8, 4, 4, 4, 12]
        && text
            .chars()
            .all(|char| char == '-' || char.is_ascii_hexdigit())
}

/// The name of an error that opening a file can end with.
fn error_name(error: i32) -> &'static str {
    match error {
        libc::EPERM => "EPERM",
        libc::EACCES => "EACCES",
        libc::EINVAL => "EINVAL",
        libc::EIO => "EIO",
        libc::ENXIO => "ENXIO",
        libc::ENODEV => "ENODEV",
        libc::EBUSY => "EBUSY",
        libc::EAGAIN => "EAGAIN",
        libc::EROFS => "EROFS",
        libc::ENOTTY => "ENOTTY",
        libc::EOPNOTSUPP => "EOPNOTSUPP",
        libc::ENOMEDIUM => "ENOMEDIUM",
        libc::ETXTBSY => "ETXTBSY",
        libc::ESRCH => "ESRCH",
        _ => "another error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_the_same_kind_have_one_normalised_form() {
        for (path, expected) in [
            (
                "/proc/sys/net/ipv6/conf/eth0/mtu",
                "/proc/sys/net/ipv6/conf/ethN/mtu",
            ),
            (
                "/sys/devices/pci0000:00/0000:00:1f.2/ata1/host0/scan",
                "/sys/devices/pciN:N/N:N:N.N/ataN/hostN/scan",
            ),
            (
                "/sys/firmware/efi/efivars/Boot0001-8be4df61-93ca-11d2-aa0d-00e098032b8c",
                "/sys/firmware/efi/efivars/BootN-N",
            ),
            ("/proc/bus/pci/00/1f.2", "/proc/bus/pci/N/N.N"),
            (
                "/sys/bus/pci/devices/0000:0a:00.0",
                "/sys/bus/pci/devices/N:N:N.N",
            ),
            ("/dev/fb0", "/dev/fbN"),
            ("/proc/1/oom_score_adj", "/proc/1/oom_score_adj"),
            ("/proc/1/task/1/comm", "/proc/1/task/N/comm"),
            ("/proc/irq/10/smp_affinity", "/proc/irq/N/smp_affinity"),
        ] {
            assert_eq!(normalised(Path::new(path)), expected);
        }
        let own = format!("/proc/{}/mem", std::process::id());
        assert_eq!(normalised(Path::new(&own)), "/proc/self/mem");
    }

    #[test]
    fn only_other_processes_are_passed_over() {
        assert!(is_other_process(Path::new("/proc/4711999")));
        for path in ["/proc/1", "/proc/sys", "/proc/irq/10", "/sys/10"] {
            assert!(!is_other_process(Path::new(path)), "{path}");
        }
    }

    #[test]
    fn watchdogs_are_not_opened() {
        let mut walk = Walk {
            results: Results::new(),
            entries: 0,
        };
        walk.file(Path::new("/dev/watchdog0"), 'c');
        walk.file(Path::new("/dev/null"), 'c');
        let results: Vec<_> = walk.results.into_keys().collect();
        assert_eq!(
            results,
            [
                ("/dev/null".to_owned(), 'c', "open"),
                ("/dev/watchdogN".to_owned(), 'c', "untried")
            ]
        );
    }
}
