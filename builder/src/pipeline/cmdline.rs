//! The kernel command line: the root hash, the arguments that the agent and systemd need, and the
//! arguments of the definition.

use adamant_contract::root_hash::RootHash;

use crate::definition::Definition;
use crate::error::{Context, Error, Result};

/// The kernel's COMMAND_LINE_SIZE on x86, with the NUL at the end. The kernel drops a longer tail
/// without a message.
const LIMIT: usize = 2048;

/// `systemd.verity=no`: the agent has set up the root, and systemd's generator would wait for
/// devices that are in use already. `panic=10`: a kernel that panics restarts after 10 seconds.
const BASE: &str = "ro systemd.verity=no panic=10";

/// Arguments that make the kernel, the agent or systemd use another root than the verified one.
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

/// The command lines of an image without `roothash=`. The agent compares its own command line with
/// them if Secure Boot is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelArguments {
    /// For the default profile.
    pub regular: String,
    /// For the debug profile.
    pub debug: Option<String>,
}

impl KernelArguments {
    /// Composes and checks the arguments of a definition.
    pub fn new(definition: &Definition) -> Result<KernelArguments> {
        let own = &definition.kernel.cmdline;
        let debug = definition.boot.debug.as_ref().map(|added| {
            arguments(&format!("{own} {added}")).context(|| "boot.debug, after kernel.cmdline")
        });
        Ok(KernelArguments {
            regular: arguments(own)?,
            debug: debug.transpose()?,
        })
    }

    /// All command lines, the regular one first.
    pub fn list(&self) -> Vec<String> {
        std::iter::once(&self.regular)
            .chain(&self.debug)
            .cloned()
            .collect()
    }
}

/// The command line with these arguments for the root with this hash.
pub fn with_root_hash(root_hash: &RootHash, arguments: &str) -> Result<String> {
    let line = format!("roothash={root_hash} {arguments}");
    if line.len() >= LIMIT {
        return Err(Error::new(format!(
            "kernel.cmdline: the command line has {} bytes, but the kernel takes at most {}",
            line.len(),
            LIMIT - 1
        ))
        .hint("move some arguments into files of the image, for example /etc/sysctl.d"));
    }
    Ok(line)
}

fn arguments(added: &str) -> Result<String> {
    refuse_reserved(added)?;
    Ok(format!("{BASE} {}", added.trim()).trim_end().to_owned())
}

fn refuse_reserved(added: &str) -> Result<()> {
    if added.chars().any(char::is_control) {
        return Err(Error::new(
            "kernel.cmdline contains a line break or another control character",
        ));
    }
    for argument in added.split_whitespace() {
        // The kernel treats `-` and `_` in a parameter's name as the same character.
        let key = argument
            .split('=')
            .next()
            .unwrap_or_default()
            .trim_matches('"')
            .replace('-', "_");
        if RESERVED.contains(&key.as_str()) || key.starts_with("systemd.verity_") {
            return Err(Error::new(format!(
                "kernel.cmdline: {argument:?} would boot another root than the verified one"
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
    fn contains_the_root_hash_and_refuses_another_root() {
        let hash = RootHash([0xab; 32]);
        let compose =
            |hash: &RootHash, added: &str| with_root_hash(hash, &super::arguments(added)?);
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
