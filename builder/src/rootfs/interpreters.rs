//! Finds the interpreters of an image: shells and other programs that run their input as a program.
//! They are found by their usual names and by the definition's list.
//!
//! Only programs whose usual input is a program count. Programs that process data and could start
//! others (sed, ed, vim, find, less, jq, sqlite3) do not: their input is nearly always data, so
//! refusing it would break more than it protects.

use crate::definition::{Definition, Scripts};
use crate::tree::{Kind, NodeId, Tree, show};

const SHELLS: [&str; 17] = [
    "ash", "bash", "busybox", "csh", "dash", "elvish", "fish", "ksh", "lksh", "mksh", "nu", "posh",
    "sh", "tcsh", "toybox", "yash", "zsh",
];
const INTERPRETERS: [&str; 40] = [
    "awk",
    "beam.smp",
    "bun",
    "bwk",
    "clisp",
    "deno",
    "dotnet",
    "expect",
    "gawk",
    "gdb",
    "gforth",
    "guile",
    "java",
    "julia",
    "lua",
    "luajit",
    "make",
    "mawk",
    "micropython",
    "mono-sgen",
    "node",
    "nodejs",
    "ocamlrun",
    "octave-cli",
    "original-awk",
    "perl",
    "php",
    "php-cgi",
    "php-fpm",
    "pwsh",
    "pypy",
    "python",
    "qjs",
    "R",
    "racket",
    "ruby",
    "sbcl",
    "tclsh",
    "uwsgi",
    "wish",
];
/// What may follow an interpreter's name, besides a version.
const VARIANTS: [&str; 4] = ["-static", "-dbg", "-x86_64-linux-gnu", ".real"];

/// The name without version and variant: python3.13, lua5.4, perl5.40-x86_64-linux-gnu,
/// bash-static.
fn bare(name: &str) -> &str {
    let name = VARIANTS
        .iter()
        .find_map(|variant| name.strip_suffix(variant))
        .unwrap_or(name);
    name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.' || c == '-')
}

/// Whether a program of this name is a shell.
pub fn is_shell(name: &str) -> bool {
    SHELLS.contains(&bare(name))
}

/// Whether a program of this name is another interpreter.
pub fn is_interpreter(name: &str) -> bool {
    INTERPRETERS.contains(&name) || INTERPRETERS.contains(&bare(name))
}

/// Whether this is the name of a dynamic loader. When it is started directly, it runs any program
/// of the image, and the kernel sees only the loader.
fn is_loader(name: &str) -> bool {
    name.starts_with("ld") && name.contains(".so")
}

/// The last component of a path.
pub fn name_of(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

/// Whether the file is a machine program. The kernel identifies the interpreter of a script, never
/// the script.
pub fn is_program(tree: &Tree, id: NodeId) -> bool {
    let node = tree.node(id);
    let mut magic = [0; 4];
    matches!(&node.kind, Kind::File(content) if node.meta.mode & 0o111 != 0 && content.read_exact_at(0, &mut magic).is_ok())
        && magic == *b"\x7fELF"
}

/// All interpreters of the image, each once: by name, by a symbolic link with such a name, and by
/// the definition's list. Prefers a path that is a regular file. Files below mount points of
/// volumes are excluded.
pub fn find(tree: &Tree, definition: &Definition) -> Vec<(String, NodeId)> {
    let mut found: Vec<(String, NodeId)> = Vec::new();
    let mut add = |path: String, id: NodeId| {
        if is_program(tree, id)
            && !definition.is_on_volume(&path)
            && found.iter().all(|(_, known)| *known != id)
        {
            found.push((path, id));
        }
    };
    let mut links = definition.interpreters.clone();
    tree.visit(&mut |path, id| {
        let path = show(path);
        let name = name_of(&path);
        if is_shell(name) || is_interpreter(name) || is_loader(name) {
            match tree.node(id).kind {
                Kind::File(_) => add(path, id),
                Kind::Symlink(_) => links.push(path),
                _ => {}
            }
        }
    });
    for path in links {
        if let Some(id) = tree.resolve(path.as_bytes()) {
            add(path, id);
        }
    }
    found
}

/// Paths of interpreters that may read no scripts from outside the image: all but the exceptions of
/// the definition. Empty if the seal does not refuse scripts.
pub fn refused(tree: &Tree, definition: &Definition) -> Vec<String> {
    if definition.scripts == Scripts::Allow {
        return Vec::new();
    }
    let excepted: Vec<Option<NodeId>> = definition
        .seal
        .allow
        .scripts
        .iter()
        .map(|path| tree.resolve(path.as_bytes()))
        .collect();
    find(tree, definition)
        .into_iter()
        .filter(|(_, id)| !excepted.contains(&Some(*id)))
        .map(|(path, _)| path)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::tree::{Content, Meta};

    fn refused(seal: &str) -> Vec<String> {
        let text = format!(
            "[image]\nid = \"t\"\nversion = \"1\"\n[[source]]\ndir = \"x\"\n[seal]\nlevel = \"guard\"\n{seal}"
        );
        let definition = Definition::parse(&text, Path::new("image.toml")).unwrap();
        let mut tree = Tree::new();
        for (path, text) in [
            ("/usr/bin/dash", "\x7fELF"),
            ("/usr/bin/sh", "-> dash"),
            ("/usr/bin/perl5.40-x86_64-linux-gnu", "\x7fELF"),
            ("/usr/bin/python3.13", "\x7fELF"),
            ("/usr/bin/python3.13-config", "\x7fELF"),
            ("/usr/bin/ruby", "#!/bin/sh\n"),
            ("/usr/bin/sed", "\x7fELF"),
            ("/usr/bin/engine", "\x7fELF"),
            ("/opt/shell", "\x7fELF"),
            ("/usr/bin/ksh", "-> /opt/shell"),
            ("/usr/lib64/ld-linux-x86-64.so.2", "\x7fELF"),
            ("/usr/share/bash/bash", "-> nowhere"),
            ("/var/lib/app/python3", "\x7fELF"),
        ] {
            let kind = match text.strip_prefix("-> ") {
                Some(target) => Kind::Symlink(target.as_bytes().into()),
                None => Kind::File(Content::from_memory(text.as_bytes())),
            };
            tree.insert(
                path.as_bytes(),
                Meta {
                    mode: 0o755,
                    ..Meta::default()
                },
                kind,
            )
            .unwrap();
        }
        let perl = tree.resolve(b"/usr/bin/perl5.40-x86_64-linux-gnu").unwrap();
        tree.link(b"/usr/bin/perl", perl).unwrap();
        super::refused(&tree, &definition)
    }

    #[test]
    fn finds_each_interpreter_once_by_its_name_or_a_link() {
        assert_eq!(refused(""), [""; 0]);
        let usual = [
            "/usr/bin/dash",
            "/usr/bin/perl",
            "/usr/bin/python3.13",
            "/usr/lib64/ld-linux-x86-64.so.2",
            "/usr/bin/ksh",
        ];
        assert_eq!(refused("scripts = \"refuse\""), usual);
    }

    #[test]
    fn the_definition_adds_and_excludes_interpreters_by_any_name() {
        let all = "scripts = \"refuse\"\ninterpreters = [\"/usr/bin/engine\"]\n[seal.allow]\nscripts = [\"/usr/bin/sh\", \"/usr/bin/python3.13\"]";
        assert_eq!(
            refused(all),
            [
                "/usr/bin/perl",
                "/usr/lib64/ld-linux-x86-64.so.2",
                "/usr/bin/engine",
                "/usr/bin/ksh"
            ]
        );
    }
}
