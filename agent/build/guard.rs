//! The guard: clang compiles it, and what the object file holds becomes tables of the agent, so
//! that the agent need not read object files.

use std::env;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::object::{Code, Object};

const SOURCE: &str = "bpf/guard.bpf.c";

/// Compiles it and writes `guard.rs` for the agent to include.
pub fn build() -> Result<(), String> {
    println!("cargo:rerun-if-changed=bpf");
    println!("cargo:rerun-if-env-changed=CLANG");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets no OUT_DIR")?);
    let compiled = out.join("guard.o");
    compile(&compiled)?;
    let bytes = fs::read(&compiled).map_err(|e| e.to_string())?;
    let object = Object::read(&bytes)?;
    fs::write(out.join("guard.rs"), tables(&object)).map_err(|e| e.to_string())
}

fn compile(to: &Path) -> Result<(), String> {
    let clang = env::var_os("CLANG").unwrap_or_else(|| "clang".into());
    // Without the paths of this machine: they would be in the debugging information, and the
    // agent's bytes must not depend on them.
    let arguments = [
        "-O2", "-g", "-Wall", "-Werror", "-target", "bpf", "-mcpu=v3", "-c", SOURCE, "-o",
    ];
    let ended = Command::new(&clang).args(arguments).arg(to).output();
    let output = ended.map_err(|e| {
        format!(
            "{}: {e} (install clang 14 or newer, or say with CLANG where it is)",
            clang.to_string_lossy()
        )
    })?;
    if output.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

fn tables(object: &Object) -> String {
    let mut text = String::from("// Made by build/guard.rs from bpf/guard.bpf.c.\n");
    // Writing to a String can't fail.
    let _ = writeln!(text, "pub static FIELDS: &[Field] = &[");
    for field in &object.fields {
        let _ = writeln!(
            text,
            "    Field {{ of: {:?}, path: &{:?} }},",
            field.of, field.path
        );
    }
    let _ = writeln!(text, "];");
    for (name, all) in [
        ("FUNCTIONS", &object.functions),
        ("PROGRAMS", &object.programs),
    ] {
        let _ = writeln!(text, "pub static {name}: &[Code] = &[");
        for code in all {
            write_code(&mut text, code);
        }
        let _ = writeln!(text, "];");
    }
    text
}

fn write_code(text: &mut String, code: &Code) {
    let Code {
        name,
        instructions,
        fields,
        maps,
        calls,
    } = code;
    let _ = writeln!(
        text,
        "    Code {{ name: {name:?}, instructions: &{instructions:?}, fields: &{fields:?}, maps: &{maps:?}, calls: &{calls:?} }},"
    );
}
