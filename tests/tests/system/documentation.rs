//! The commands in README.md and docs/*.md work as they are written, in order, in a fresh checkout.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use adamant_tests::image::{target_dir, workspace};
use adamant_tests::markdown::{self, Block};
use adamant_tests::scratch::Scratch;
use adamant_tests::tool;

/// README.md and the pages below docs, by name.
fn pages() -> Vec<(String, Vec<Block>)> {
    let mut docs: Vec<PathBuf> = std::fs::read_dir(workspace().join("docs"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    docs.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    docs.sort();
    docs.insert(0, workspace().join("README.md"));
    let read = |path: PathBuf| {
        let name = path
            .strip_prefix(workspace())
            .unwrap()
            .display()
            .to_string();
        let blocks = markdown::blocks(&std::fs::read_to_string(&path).unwrap())
            .unwrap_or_else(|fault| panic!("{name}, {fault}"));
        (name, blocks)
    };
    docs.into_iter().map(read).collect()
}

#[test]
fn every_block_of_the_documentation_has_a_language_or_a_mark() {
    let pages = pages();
    assert!(
        pages
            .iter()
            .any(|(name, blocks)| name == "README.md" && blocks.len() > 5),
        "README.md has lost its tour"
    );
}

/// What a clone of this checkout would hold, and what is not committed yet.
fn check_out(into: &Path) {
    let leave_out = [
        "./target",
        "./.git",
        "./images/*/out",
        "./images/*/input",
        "./fuzz/target",
        "./out",
    ]
    .map(|path| format!("--exclude={path}"));
    let archive = into.join("checkout.tar");
    tool::run(
        tool::command("tar")
            .arg("-C")
            .arg(workspace())
            .args(leave_out)
            .arg("-cf")
            .arg(&archive)
            .arg("."),
    );
    tool::run(
        tool::command("tar")
            .arg("-C")
            .arg(into)
            .arg("-xf")
            .arg(&archive),
    );
    std::fs::remove_file(archive).unwrap();
    // The programs are compiled there again, but not what they depend on.
    std::os::unix::fs::symlink(
        std::path::absolute(target_dir()).unwrap(),
        into.join("target"),
    )
    .unwrap();
}

#[test]
#[ignore = "builds three images and boots them: tests/run --all"]
fn every_command_of_the_documentation_works_in_order() {
    let scratch = Scratch::new("documentation");
    let checkout = scratch.join("adamant");
    std::fs::create_dir_all(&checkout).unwrap();
    check_out(&checkout);
    let mut script = "set -euo pipefail\n".to_owned();
    for (name, blocks) in pages() {
        script += &format!("cd {:?}\n", checkout);
        script += &markdown::script(&name, &blocks);
    }
    script += "echo '=== end'\n";
    let file = scratch.join("commands.sh");
    std::fs::write(&file, script).unwrap();
    let home = scratch.join("home");
    std::fs::create_dir_all(&home).unwrap();
    let mut bash = Command::new("timeout");
    bash.args(["--kill-after=10", "5400", "bash"])
        .arg(&file)
        .current_dir(&checkout)
        .stdin(Stdio::null());
    // Rust where it is; everything else of the person who runs this stays untouched.
    let user = std::env::var_os("HOME")
        .map(PathBuf::from)
        .unwrap_or_default();
    for (variable, folder) in [("CARGO_HOME", ".cargo"), ("RUSTUP_HOME", ".rustup")] {
        bash.env(
            variable,
            std::env::var_os(variable).map_or_else(|| user.join(folder), PathBuf::from),
        );
    }
    for (variable, _) in std::env::vars_os().filter(|(name, _)| {
        name.to_str()
            .is_some_and(|name| name.starts_with("CARGO_") && name != "CARGO_HOME")
    }) {
        bash.env_remove(variable);
    }
    bash.env("HOME", &home)
        .env("XDG_CACHE_HOME", target_dir().join("cache"))
        .env_remove("XDG_STATE_HOME")
        .env_remove("ADAMANT_ALL");
    let log = scratch.join("commands.log");
    let output = std::fs::File::create(&log).unwrap();
    let status = bash
        .stdout(output.try_clone().unwrap())
        .stderr(output)
        .status()
        .unwrap();
    let said = tool::lossy(&std::fs::read(&log).unwrap());
    assert!(
        status.success() && said.contains("=== end"),
        "{status}\n{said}"
    );
}
