//! The kernel command line: the root hash, what the agent and systemd need, and what the definition
//! adds.

use adamant_contract::root_hash::RootHash;

use crate::error::{Error, Result};

/// The kernel's COMMAND_LINE_SIZE on x86, with the NUL at the end: what is longer is cut off in
/// silence.
const LIMIT: usize = 2048;

/// Words that would make the kernel, the agent or systemd take another root than the verified one.
const RESERVED: [&str; 12] = [
    "roothash",
    "root",
    "rootfstype",
    "rootflags",
    "rw",
    "usrhash",
    "mount.usr",
    "systemd.verity",
    "rd.systemd.verity",
    "systemd.volatile",
    "rdinit",
    "noinitrd",
];

/// The command line for this root. `systemd.verity=no`: the agent has set the root up, and
/// systemd's generator would wait for what it finds done. `panic=10`: a kernel that panics
/// restarts.
pub fn compose(root_hash: &RootHash, added: &str) -> Result<String> {
    let line = format!("roothash={root_hash} {}", words(added)?);
    if line.len() >= LIMIT {
        return Err(Error::new(format!(
            "kernel.cmdline: the whole command line has {} bytes, the kernel takes {}",
            line.len(),
            LIMIT - 1
        ))
        .hint("put some of it into the image's files"));
    }
    Ok(line)
}

/// All of it but the root hash: what the agent holds the command line against where Secure Boot is
/// on.
pub fn words(added: &str) -> Result<String> {
    check(added)?;
    Ok(format!("ro systemd.verity=no panic=10 {}", added.trim())
        .trim_end()
        .to_owned())
}

fn check(added: &str) -> Result<()> {
    if added.chars().any(char::is_control) {
        return Err(Error::new(
            "kernel.cmdline has a line break or another control character",
        ));
    }
    for word in added.split_whitespace() {
        // To the kernel `-` and `_` are the same in a parameter's name.
        let key = word
            .split('=')
            .next()
            .unwrap_or_default()
            .trim_matches('"')
            .replace('-', "_");
        if RESERVED.contains(&key.as_str()) || key.starts_with("systemd.verity_") {
            return Err(Error::new(format!(
                "kernel.cmdline: {word:?} would have another root taken than the verified one"
            ))
            .hint("remove it from kernel.cmdline"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_the_root_hash_and_refuses_another_root() {
        let hash = RootHash([0xab; 32]);
        let line = compose(&hash, " console=ttyS0 ").unwrap();
        assert_eq!(
            line,
            format!(
                "roothash={} ro systemd.verity=no panic=10 console=ttyS0",
                "ab".repeat(32)
            )
        );
        assert!(!compose(&hash, "").unwrap().ends_with(' '));
        for bad in [
            "root=/dev/vda1",
            "quiet roothash=00",
            "systemd.verity=1",
            "systemd.verity-root-data=/dev/vdb",
            "\"root=/dev/vda\"",
            "rw",
            "a\nb",
        ] {
            assert!(compose(&hash, bad).is_err(), "{bad}");
        }
        assert!(compose(&hash, "rootwait rootdelay=1").is_ok());
        assert!(
            compose(&hash, &"x".repeat(1900)).is_ok()
                && compose(&hash, &"x".repeat(1960))
                    .unwrap_err()
                    .to_string()
                    .contains("2047")
        );
    }
}
