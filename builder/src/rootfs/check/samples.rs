//! For tests: a small image without faults, and ELF programs that consist of headers, a loader and
//! a dynamic section, without code.

use std::path::Path;

use super::{Finding, check};
use crate::definition::Definition;
use crate::tree::{Content, Kind, Meta, Tree};

use object::elf::{EM_X86_64, PT_DYNAMIC, PT_INTERP, PT_LOAD};

/// Describes a program or library to create.
#[derive(Debug, Clone, Copy)]
pub struct Program<'a> {
    /// `e_machine`.
    pub machine: u16,
    /// `PT_INTERP`.
    pub loader: Option<&'a str>,
    /// `DT_NEEDED`.
    pub needed: &'a [&'a str],
    /// `DT_SONAME`.
    pub soname: Option<&'a str>,
    /// `DT_RPATH`.
    pub rpath: Option<&'a str>,
    /// `DT_RUNPATH`.
    pub runpath: Option<&'a str>,
}

impl Default for Program<'_> {
    fn default() -> Self {
        Program {
            machine: EM_X86_64,
            loader: None,
            needed: &[],
            soname: None,
            rpath: None,
            runpath: None,
        }
    }
}

/// Load address of the file.
const BASE: u64 = 0x40_0000;
const HEADER: u64 = 64;
const PROGRAM_HEADER: u64 = 56;

impl Program<'_> {
    /// The bytes of the file.
    pub fn bytes(&self) -> Vec<u8> {
        let mut strings = vec![0u8];
        let mut add = |text: &str| {
            let at = strings.len() as u64;
            strings.extend(text.bytes().chain([0]));
            at
        };
        let mut dynamic: Vec<(u64, u64)> = self.needed.iter().map(|name| (1, add(name))).collect();
        for (tag, text) in [(14, self.soname), (15, self.rpath), (29, self.runpath)] {
            dynamic.extend(text.map(|text| (tag, add(text))));
        }
        let is_dynamic = !dynamic.is_empty();
        let loader = self.loader.map(|path| [path.as_bytes(), &[0]].concat());
        let count = 1 + u64::from(loader.is_some()) + u64::from(is_dynamic);
        let strings_at = HEADER + count * PROGRAM_HEADER;
        let loader_at = strings_at + strings.len() as u64;
        let dynamic_at =
            (loader_at + loader.as_ref().map_or(0, Vec::len) as u64).next_multiple_of(8);
        dynamic.extend([(5, BASE + strings_at), (0, 0)]);
        let dynamic_bytes: Vec<u8> = dynamic
            .iter()
            .flat_map(|(tag, value)| [tag.to_le_bytes(), value.to_le_bytes()].concat())
            .collect();
        let end = dynamic_at + dynamic_bytes.len() as u64;

        let mut out = vec![0x7f, b'E', b'L', b'F', 2, 1, 1];
        out.resize(16, 0);
        out.extend(3u16.to_le_bytes());
        out.extend(self.machine.to_le_bytes());
        out.extend(1u32.to_le_bytes());
        for word in [BASE, HEADER, 0] {
            out.extend(word.to_le_bytes());
        }
        out.extend(0u32.to_le_bytes());
        for half in [HEADER as u16, PROGRAM_HEADER as u16, count as u16, 0, 0, 0] {
            out.extend(half.to_le_bytes());
        }
        let mut segment = |kind: u32, at: u64, length: u64| {
            out.extend(kind.to_le_bytes());
            out.extend(5u32.to_le_bytes());
            for word in [at, BASE + at, BASE + at, length, length, 1] {
                out.extend(word.to_le_bytes());
            }
        };
        segment(PT_LOAD, 0, end);
        if let Some(loader) = &loader {
            segment(PT_INTERP, loader_at, loader.len() as u64);
        }
        if is_dynamic {
            segment(PT_DYNAMIC, dynamic_at, dynamic_bytes.len() as u64);
        }
        out.extend(strings);
        out.extend(loader.unwrap_or_default());
        out.resize(dynamic_at as usize, 0);
        out.extend(dynamic_bytes);
        out
    }
}

/// A small image without faults: paths with a text, with a link target after `->`, or with a final
/// slash for a directory.
const GOOD: &[(&str, &str)] = &[
    ("/proc/", ""),
    ("/sys/", ""),
    ("/dev/", ""),
    ("/run/", ""),
    ("/tmp/", ""),
    ("/var/log/", ""),
    ("/bin", "-> usr/bin"),
    ("/usr/bin/sh", "ELF"),
    ("/etc/machine-id", ""),
    (
        "/etc/passwd",
        "root:x:0:0::/root:/bin/sh\nweb:x:990:990::/:/usr/sbin/nologin\n",
    ),
    ("/etc/group", "root:x:0:\nweb:x:990:\n"),
    (
        "/usr/lib/os-release",
        "ID=debian\nIMAGE_ID=t\nIMAGE_VERSION=1\n",
    ),
    ("/etc/os-release", "-> ../usr/lib/os-release"),
    ("/usr/lib/systemd/systemd", "ELF"),
    ("/sbin", "-> usr/sbin"),
    ("/usr/sbin/init", "-> ../lib/systemd/systemd"),
    ("/usr/sbin/mkfs.ext4", "-> mke2fs"),
    ("/usr/sbin/mke2fs", "ELF"),
    ("/usr/sbin/e2fsck", "ELF"),
    ("/usr/sbin/resize2fs", "ELF"),
    (
        "/usr/lib/systemd/system/default.target",
        "-> multi-user.target",
    ),
    (
        "/usr/lib/systemd/system/multi-user.target",
        "[Unit]\nRequires=basic.target\n",
    ),
    (
        "/usr/lib/systemd/system/basic.target",
        "[Unit]\nRequires=sysinit.target\n",
    ),
    (
        "/usr/lib/systemd/system/sysinit.target",
        "[Unit]\nWants=local-fs.target swap.target\n",
    ),
    ("/usr/lib/systemd/system/local-fs.target", "[Unit]\n"),
    (
        "/usr/lib/systemd/system/local-fs.target.wants/tmp.mount",
        "-> ../tmp.mount",
    ),
    (
        "/usr/lib/systemd/system/tmp.mount",
        "[Mount]\nWhat=tmpfs\nWhere=/tmp\n",
    ),
    (
        "/usr/lib/systemd/system/good.service",
        "[Service]\nStateDirectory=good\nPIDFile=good.pid\n",
    ),
    (
        "/etc/systemd/system/multi-user.target.wants/good.service",
        "-> /usr/lib/systemd/system/good.service",
    ),
];

/// Findings in the good image after a change: entries that are added, or removed if the text is
/// `-`. `ELF` is a program; a text after `0644:` is not executable.
pub fn found(head: &str, changes: &[(&str, &str)]) -> Vec<Finding> {
    found_with(head, changes, |_| ())
}

/// The same, with a final change to the tree.
pub fn found_with(
    head: &str,
    changes: &[(&str, &str)],
    change: impl FnOnce(&mut Tree),
) -> Vec<Finding> {
    let text = format!("{head}\n[image]\nid = \"t\"\nversion = \"1\"\n[[source]]\ndir = \"x\"\n");
    let definition = Definition::parse(&text, Path::new("image.toml")).unwrap();
    let mut tree = Tree::new();
    for (path, text) in GOOD.iter().chain(changes) {
        let (mode, text) = text
            .strip_prefix("0644:")
            .map_or((0o755, *text), |text| (0o644, text));
        let kind = match text.strip_prefix("-> ") {
            _ if path.ends_with('/') => Kind::Directory(Default::default()),
            Some(target) => Kind::Symlink(target.as_bytes().into()),
            None if text == "ELF" => Kind::File(Content::from_memory(Program::default().bytes())),
            None => Kind::File(Content::from_memory(text.as_bytes())),
        };
        match text {
            "-" => tree.remove(path.as_bytes()),
            _ => drop(
                tree.insert(
                    path.as_bytes(),
                    Meta {
                        mode,
                        ..Meta::default()
                    },
                    kind,
                )
                .unwrap(),
            ),
        }
    }
    change(&mut tree);
    check(&tree, &definition)
}

/// Adds an executable file to a tree.
pub fn put(tree: &mut Tree, path: &str, bytes: impl Into<Vec<u8>>) {
    let meta = Meta {
        mode: 0o755,
        ..Meta::default()
    };
    tree.insert(
        path.as_bytes(),
        meta,
        Kind::File(Content::from_memory(bytes.into())),
    )
    .unwrap();
}

/// Rule and severity of each finding, with its message.
pub fn summaries(findings: &[Finding]) -> Vec<String> {
    findings
        .iter()
        .map(|found| {
            format!(
                "{} {}: {}",
                if found.is_error { "error" } else { "warning" },
                found.rule,
                found.message
            )
        })
        .collect()
}
