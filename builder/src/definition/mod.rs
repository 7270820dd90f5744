//! The definition, `image.toml`: parsed, checked and with all paths resolved.
//!
//! A [`Definition`] is complete and consistent, and the agent accepts its policy. Every error has
//! file, line, column and a remedy. Independent errors are reported together.

mod agent_policy;
pub mod keys;
mod machine;
pub mod mirror;
mod parse;
mod seal;
mod sources;
#[cfg(test)]
mod tests;
mod text;
mod unknown;
pub mod values;
mod volumes;

use std::io::Read;
use std::path::{Path, PathBuf};

use adamant_contract::policy::{self, Policy, is_below};

use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result, reason};

/// Default level of `zstd`. The next level takes twice the time and saves less than 1 %.
pub const ZSTD_LEVEL: i32 = 12;

pub(crate) use text::nearest;

pub use self::machine::{Boot, Disk, Kernel, Sign, SignBy};
pub use self::volumes::VolumeDefinition;

pub use adamant_contract::policy::{
    Enforce, FailureAction, FaultReaction, FileSystem, Level, ModuleLoading, OnCorruption,
    OnDamage, Reaction, Refresh, VerifyBoot, VolumeCheck,
};
pub use adamant_contract::signature::Mode;

/// A class of programs that the definition can forbid in the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Deny {
    /// Shells, by their usual names.
    Shell,
    /// Interpreters, by their usual names, with or without a version.
    Interpreter,
    /// Files with the setuid or setgid bit.
    Setuid,
    /// SSH servers.
    Ssh,
}

impl Deny {
    /// The name in the definition.
    pub fn name(self) -> &'static str {
        match self {
            Deny::Shell => "shell",
            Deny::Interpreter => "interpreter",
            Deny::Setuid => "setuid",
            Deny::Ssh => "ssh",
        }
    }
}

/// Whether the image's interpreters may read scripts that are not part of the image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scripts {
    /// They may.
    #[default]
    Allow,
    /// They may only read files of the image.
    Refuse,
}

/// A checked definition.
#[derive(Debug, Clone)]
pub struct Definition {
    /// The path of the file.
    pub path: PathBuf,
    /// SHA-256 of the file's bytes.
    pub digest: [u8; 32],
    /// IMAGE_ID: 1 to 28 of a-z 0-9 . _ -, so that partition labels fit into the GPT.
    pub id: String,
    /// IMAGE_VERSION, UAPI.10.
    pub version: String,
    /// Upper limit of modification times, seconds since 1970.
    pub epoch: Option<i64>,
    /// In the order of application; `[[file]]` entries are last.
    pub sources: Vec<Source>,
    /// Format of the root file system.
    pub root: Root,
    /// Globs of paths that scrubbing ignores.
    pub keep: Vec<String>,
    /// Parents before children.
    pub volumes: Vec<VolumeDefinition>,
    /// Verification of the root.
    pub verify: adamant_contract::policy::Verify,
    /// Whether the root hash must be signed; `None`: the default applies.
    pub signature: Option<adamant_contract::signature::Mode>,
    /// Credentials that the image's init receives from outside.
    pub credentials: adamant_contract::policy::Credentials,
    /// Reaction to a failed boot.
    pub failure: adamant_contract::policy::FailurePolicy,
    /// Restrictions of the running machine.
    pub seal: adamant_contract::policy::Seal,
    /// Whether interpreters may read foreign scripts.
    pub scripts: Scripts,
    /// Paths of additional interpreters.
    pub interpreters: Vec<String>,
    /// Programs that the image must not contain.
    pub deny: Vec<Deny>,
    /// Reaction of the watch to violations.
    pub on_violation: adamant_contract::policy::OnViolation,
    /// Expected state of the machine, besides the image.
    pub drift: adamant_contract::policy::DriftPolicy,
    /// Kernel command line and modules.
    pub kernel: Kernel,
    /// Programs that firmware starts.
    pub boot: Boot,
    /// Keys that sign the image.
    pub sign: Sign,
    /// The disk image.
    pub disk: Disk,
    /// Limits for the content of the sources.
    pub limits: Limits,
}

impl Definition {
    /// Whether an absolute path is below the mount point of a volume.
    pub fn is_on_volume(&self, path: &str) -> bool {
        self.volumes
            .iter()
            .any(|volume| is_below(path, &volume.policy.mount))
    }

    /// Reads a definition from a file, or from `image.toml` in a directory.
    pub fn read(path: &Path) -> Result<Definition> {
        let path = if path.is_dir() {
            path.join("image.toml")
        } else {
            path.to_owned()
        };
        let mut bytes = Vec::new();
        let missing = |e: std::io::Error| {
            Error::new(format!("{}: {}", path.display(), reason(&e)))
                .hint("name a definition, or a directory with an image.toml")
        };
        let file = std::fs::File::open(&path).map_err(missing)?;
        file.take(parse::LIMIT + 1)
            .read_to_end(&mut bytes)
            .context(|| path.display().to_string())?;
        if bytes.len() as u64 > parse::LIMIT {
            return Err(Error::new(format!(
                "{}: larger than the limit of {} bytes for a definition",
                path.display(),
                parse::LIMIT
            )));
        }
        let text = String::from_utf8(bytes).map_err(|e| {
            let line = e.as_bytes()[..e.utf8_error().valid_up_to()]
                .iter()
                .filter(|b| **b == b'\n')
                .count()
                + 1;
            Error::new(format!(
                "{}:{line}:1: not UTF-8 (save it as UTF-8)",
                path.display()
            ))
        })?;
        Definition::parse(&text, &path)
    }

    /// Parses a definition from its text, without reading other files. Messages name `path`, and
    /// paths in the definition are relative to its directory.
    pub fn parse(text: &str, path: &Path) -> Result<Definition> {
        parse::parse(text, path)
    }

    /// The policy for the agent.
    pub fn policy(&self) -> Policy {
        Policy {
            version: policy::VERSION,
            image: policy::Image {
                id: self.id.clone(),
                version: self.version.clone(),
            },
            verify: self.verify,
            credentials: self.credentials.clone(),
            failure: self.failure,
            seal: self.seal.clone(),
            on_violation: self.on_violation,
            drift: self.drift.clone(),
            volumes: self
                .volumes
                .iter()
                .map(|volume| volume.policy.clone())
                .collect(),
            image_data: Vec::new(),
        }
    }

    /// Whether the volumes are the default.
    pub fn has_default_volumes(&self) -> bool {
        let defaults = VolumeDefinition::defaults();
        self.volumes.len() == defaults.len()
            && self.volumes.iter().zip(&defaults).all(|(volume, default)| {
                volume.size == default.size && volume.policy == default.policy
            })
    }

    /// A path as the definition writes it: relative to the definition's directory.
    pub fn as_written<'a>(&self, path: &'a Path) -> &'a Path {
        self.path
            .parent()
            .and_then(|folder| path.strip_prefix(folder).ok())
            .unwrap_or(path)
    }

    /// `ID_VERSION`, the start of every artifact's name.
    pub fn stem(&self) -> String {
        format!("{}_{}", self.id, self.version)
    }
}

/// A policy without values.
fn empty_policy() -> Policy {
    Policy {
        version: policy::VERSION,
        image: policy::Image {
            id: String::new(),
            version: String::new(),
        },
        verify: policy::Verify::default(),
        credentials: policy::Credentials::default(),
        failure: policy::FailurePolicy::default(),
        seal: policy::Seal::default(),
        on_violation: policy::OnViolation::default(),
        drift: policy::DriftPolicy::default(),
        volumes: Vec::new(),
        image_data: Vec::new(),
    }
}

/// A source with its directory in the image.
#[derive(Debug, Clone)]
pub struct Source {
    /// The origin of the entries.
    pub origin: Origin,
    /// The directory of the image for the content: an absolute path.
    pub at: String,
    /// The position in the definition, for messages: `image.toml:12:1`.
    pub location: String,
}

/// The origin of a source's entries.
#[derive(Debug, Clone)]
pub enum Origin {
    /// Debian packages.
    Debian(Debian),
    /// A tar archive.
    Tar(PathBuf),
    /// A directory.
    Dir(Dir),
    /// A single entry.
    File(FileEntry),
}

/// Debian packages, installed by mmdebstrap.
#[derive(Debug, Clone)]
pub struct Debian {
    /// Suite, for example `trixie`.
    pub suite: String,
    /// Packages in addition to those of the variant.
    pub packages: Vec<String>,
    /// mmdebstrap's variant, by default `important`.
    pub variant: String,
    /// Architecture, `amd64`.
    pub architecture: String,
    /// Components, by default `main`.
    pub components: Vec<String>,
    /// Archives instead of Debian's own.
    pub mirrors: Vec<mirror::Mirror>,
    /// Time in the snapshot archive (`20261101T000000Z`); `None`: the current archive.
    pub snapshot: Option<String>,
    /// HTTP proxy for the downloads.
    pub proxy: Option<String>,
    /// Keyring that must have signed the archive, instead of Debian's.
    pub keyring: Option<PathBuf>,
    /// Whether recommended packages are installed too.
    pub recommends: bool,
}

/// A directory.
#[derive(Debug, Clone)]
pub struct Dir {
    /// The path on the build machine.
    pub path: PathBuf,
    /// Whether owners and groups are kept, instead of root:root.
    pub keep_owner: bool,
    /// Whether other file systems that are mounted below it are included.
    pub cross_mounts: bool,
}

/// A `[[file]]` entry.
#[derive(Debug, Clone)]
pub struct FileEntry {
    /// Absolute path in the image.
    pub path: String,
    /// The kind of entry.
    pub kind: FileKind,
    /// Permission bits; `None`: 0644 for files, 0755 for directories.
    pub mode: Option<u16>,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// The kind of a `[[file]]` entry.
#[derive(Debug, Clone)]
pub enum FileKind {
    /// A file with these bytes.
    Content(Vec<u8>),
    /// A copy of this file.
    Copy(PathBuf),
    /// A symbolic link to this target.
    Link(String),
    /// A directory.
    Directory,
    /// Nothing: the path and everything below it is removed.
    Absent,
}

/// The table `[root]`.
#[derive(Debug, Clone)]
pub struct Root {
    /// Compression.
    pub compression: Compression,
    /// Largest compressed cluster in bytes, a power of two from 4096 to 1 MiB.
    pub cluster: u32,
    /// Whether block positions favour small updates or a small image.
    pub optimize: Optimize,
}

impl Default for Root {
    fn default() -> Self {
        Root {
            compression: Compression::Auto,
            cluster: 64 << 10,
            optimize: Optimize::Updates,
        }
    }
}

/// The goal of the root file system's layout: small updates or a small image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Optimize {
    /// A small change of the input changes few blocks.
    #[default]
    Updates,
    /// The image is as small as possible; every change of the input changes most blocks.
    Size,
}

/// The compression of the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// zstd if the image's kernel supports it (Linux 6.10 or later, and configured), else lz4hc.
    Auto,
    /// No compression.
    None,
    /// LZ4, fast.
    Lz4,
    /// LZ4 with high compression. The reader is the same.
    Lz4hc,
    /// Zstandard at this level, 1 to 22.
    Zstd(i32),
}

/// The table `[limits]`.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Total bytes of all files, after decompression.
    pub bytes: u64,
    /// Number of entries.
    pub entries: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            bytes: 64 << 30,
            entries: 10_000_000,
        }
    }
}
