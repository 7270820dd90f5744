//! Finds the agent's program and checks that it can be PID 1 of an initramfs: a static program for
//! x86-64.
//!
//! Format: ELF-64, System V ABI, chapters 4 and 5.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::error::{Context, Error, Result};

const NAME: &str = "adamant-agent";
/// Largest program, bytes. The agent has about 1.7 MB, with debug information about 30 MB.
const LIMIT: u64 = 128 << 20;
const HOW_TO_BUILD: &str = "build it with: cargo build --profile agent -p adamant-agent";

/// Reads the agent's program: from `given`, else from $ADAMANT_AGENT, else from the directory of
/// this program.
pub fn read(given: Option<&Path>) -> Result<Vec<u8>> {
    let path = find(given)?;
    let what = || format!("the agent {}", path.display());
    let mut bytes = Vec::new();
    File::open(&path)
        .context(what)
        .map_err(|e| e.hint(HOW_TO_BUILD))?
        .take(LIMIT + 1)
        .read_to_end(&mut bytes)
        .context(what)?;
    if bytes.len() as u64 > LIMIT {
        return Err(
            Error::new(format!("{}: more than {} MiB", what(), LIMIT >> 20)).hint(HOW_TO_BUILD),
        );
    }
    check(&bytes).map_err(|why| Error::new(format!("{}: {why}", what())).hint(HOW_TO_BUILD))?;
    Ok(bytes)
}

/// The path that [`read`] reads.
pub fn find(given: Option<&Path>) -> Result<PathBuf> {
    locate(
        given,
        std::env::var_os("ADAMANT_AGENT"),
        std::env::current_exe().ok().as_deref(),
    )
}

/// The agent in the directory of this program.
pub fn find_beside_builder() -> Result<PathBuf> {
    locate(None, None, std::env::current_exe().ok().as_deref())
}

fn locate(
    given: Option<&Path>,
    environment: Option<OsString>,
    program: Option<&Path>,
) -> Result<PathBuf> {
    if let Some(path) = given {
        return Ok(path.to_owned());
    }
    if let Some(path) = environment.filter(|path| !path.is_empty()) {
        return Ok(path.into());
    }
    let folder = program.and_then(Path::parent);
    // In Cargo's target directory, the program of the profile `agent` is optimized for size.
    let candidates = [
        folder
            .and_then(Path::parent)
            .map(|target| target.join("agent").join(NAME)),
        folder.map(|folder| folder.join(NAME)),
    ];
    candidates
        .into_iter()
        .flatten()
        .find(|path| path.is_file())
        .ok_or_else(|| {
            Error::new(
                "the agent's program, adamant-agent, is not in the directory of this program",
            )
            .hint(format!(
                "{HOW_TO_BUILD}; or name it with --agent or ADAMANT_AGENT"
            ))
        })
}

/// Checks the ELF header. The error is a phrase that says why this cannot be PID 1 of an initramfs.
fn check(elf: &[u8]) -> Result<(), String> {
    const PROGRAM_HEADER: usize = 56;
    let bytes = |at: usize, n: usize| elf.get(at..at.checked_add(n)?);
    let number = |at: usize, n: usize| {
        bytes(at, n)
            .map(|bytes| {
                bytes
                    .iter()
                    .rev()
                    .fold(0u64, |sum, &b| sum << 8 | u64::from(b))
            })
            .ok_or("a truncated program")
    };
    // 64-bit, little-endian, version 1.
    if bytes(0, 7) != Some(b"\x7fELF\x02\x01\x01") {
        return Err("not a 64-bit ELF program".to_owned());
    }
    if number(18, 2)? != 62 {
        return Err("not a program for x86-64".to_owned());
    }
    if !matches!(number(16, 2)?, 2 | 3) {
        return Err("not an executable program".to_owned());
    }
    let (at, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    if size as usize != PROGRAM_HEADER || count == 0 {
        return Err("an ELF file without program headers".to_owned());
    }
    let at = usize::try_from(at).map_err(|_| "a truncated program")?;
    for index in 0..count as usize {
        let header = at
            .checked_add(index * PROGRAM_HEADER)
            .ok_or("a truncated program")?;
        // PT_INTERP asks for a dynamic loader, which the initramfs does not have.
        if number(header, 4)? == 3 {
            return Err("linked dynamically, but it has to be static".to_owned());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_a_static_program_and_refuses_others() {
        // This test program is static, and the shell is not.
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert_eq!(check(&own), Ok(()));
        if let Ok(shell) = std::fs::read("/bin/sh") {
            assert_eq!(
                check(&shell),
                Err("linked dynamically, but it has to be static".to_owned())
            );
        }
        let mut other = own[..4096].to_vec();
        other[18] = 183;
        assert!(check(&other).unwrap_err().contains("x86-64"));
        assert!(check(b"#!/bin/sh\n").is_err());
        for length in 0..64 {
            assert!(check(&own[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn a_missing_agent_is_an_error_that_says_how_to_build_it() {
        let error = locate(
            None,
            Some(OsString::new()),
            Some(Path::new("/nowhere/bin/adamant")),
        )
        .unwrap_err()
        .to_string();
        assert!(error.contains("cargo build --profile agent"));
        assert_eq!(
            locate(Some(Path::new("/x")), Some("/y".into()), None).unwrap(),
            Path::new("/x")
        );
        assert_eq!(
            locate(None, Some("/y".into()), None).unwrap(),
            Path::new("/y")
        );
    }
}
