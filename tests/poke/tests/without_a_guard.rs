//! On a machine without a guard, the subcommands must do what they ask for. Otherwise an attack
//! that fails would look like a refused one.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn poke(directory: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new(env!("CARGO_BIN_EXE_poke"))
        .args(arguments)
        .current_dir(directory)
        .output()
        .unwrap();
    let text = [stdout, stderr].concat();
    (status.code(), String::from_utf8(text).unwrap())
}

fn works(directory: &Path, arguments: &[&str]) {
    let (code, text) = poke(directory, arguments);
    assert_eq!(code, Some(0), "{arguments:?}: {text}");
}

/// A directory that is removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// x86-64 code: `mov eax, 42; ret`.
const CODE: [u8; 6] = [0xb8, 42, 0, 0, 0, 0xc3];

#[test]
fn executes_memory_by_every_technique() {
    let scratch = Scratch::new("memory");
    std::fs::write(scratch.0.join("code"), CODE).unwrap();
    let program = env!("CARGO_BIN_EXE_poke");
    // Without `huge`, `uffd`, `memfd-secret`, `writev` and `ptrace`, which need privileges or a
    // setting of the host.
    for arguments in [
        &["anonymous"][..],
        &["shared"],
        &["mprotect"],
        &["pkey"],
        &["heap"],
        &["stack"],
        &["grow-stack"],
        &["memfd"],
        &["shm"],
        &["personality"],
        &["brk"],
        &["remap"],
        &["map", "code"],
        &["map-later", "code"],
        &["private", program],
        &["private-rwx", program],
        &["fork", program],
        &["mremap", program],
        &["self", program],
    ] {
        let (code, text) = poke(&scratch.0, &[&["memory"], arguments].concat());
        assert_eq!(
            (code, text.as_str()),
            (Some(0), "code ran: 42\n"),
            "{arguments:?}"
        );
    }
}

#[test]
fn executes_copies_of_itself_without_a_path() {
    let scratch = Scratch::new("programs");
    let program = env!("CARGO_BIN_EXE_poke");
    for arguments in [&["memfd", program][..], &["tmpfile", ".", program]] {
        let (code, text) = poke(&scratch.0, arguments);
        assert_eq!(code, Some(0), "{arguments:?}: {text}");
        assert!(text.starts_with("evil program ran uid="), "{text}");
    }
}

#[test]
fn writes_to_files_by_path_and_by_exchange() {
    let scratch = Scratch::new("files");
    let (a, b) = (scratch.0.join("a"), scratch.0.join("b"));
    std::fs::write(&a, "old content").unwrap();
    std::fs::write(&b, [7; 8192]).unwrap();
    works(&scratch.0, &["write", "a", "4", "CONTENT"]);
    assert_eq!(std::fs::read(&a).unwrap(), b"old CONTENT");
    // Without a text, the bytes stay the same.
    works(&scratch.0, &["write", "b", "4096"]);
    assert_eq!(std::fs::read(&b).unwrap(), [7; 8192]);
    works(&scratch.0, &["exchange", "a", "b"]);
    assert_eq!(std::fs::read(&b).unwrap(), b"old CONTENT");
}

#[test]
fn exit_codes_tell_refusals_from_mistakes() {
    let scratch = Scratch::new("codes");
    std::fs::write(scratch.0.join("file"), "x").unwrap();
    for (arguments, expected) in [
        (&["write", "missing", "0"][..], 1),
        (&["blkpg", "file", "delete", "1"], 1),
        (&["signal", "999999999", "9"], 1),
        (&["write"], 2),
        (&["nonsense"], 2),
        (&["memory", "nonsense"], 2),
        (&["trace", "no number"], 2),
    ] {
        let (code, text) = poke(&scratch.0, arguments);
        assert_eq!(code, Some(expected), "{arguments:?}: {text}");
        assert!(text.starts_with("poke: "), "{arguments:?}: {text}");
    }
    let (code, text) = poke(&scratch.0, &["write", "missing", "0"]);
    assert_eq!(
        (code, text.as_str()),
        (
            Some(1),
            "poke: open for writing: No such file or directory\n"
        )
    );
    // A file has no such ioctl: the machine lacks nothing, so this is a refusal.
    let (code, _) = poke(&scratch.0, &["ioctl", "file", "0x1269"]);
    assert_eq!(code, Some(1));
}
