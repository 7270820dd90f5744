//! The definition: `image.toml`, read, checked and with every path resolved.
//!
//! What it promises: a `Definition` is complete and consistent, and what the builder accepts the
//! agent accepts too. It trusts nothing in the text: every mistake is an error with file, line,
//! column and what to write instead, and as many as can be told apart are told at once.

pub mod keys;
mod machine;
pub mod mirror;
mod parse;
#[cfg(test)]
mod tests;
mod text;
mod unknown;
pub mod values;

use std::io::Read;
use std::path::{Path, PathBuf};

use adamant_contract::policy::{self, Policy};

use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result};
use crate::sign::KeySource;

/// Level of `zstd` without one: beyond it, time doubles for less than a percent.
pub const ZSTD_LEVEL: i32 = 12;

pub(crate) use text::nearest;

pub use adamant_contract::policy::{
    Enforce, FailureAction, FaultReaction, FileSystem, Level, ModuleLoading, OnCorruption,
    OnDamage, Reaction, Refresh, VerifyBoot,
};
pub use adamant_contract::signature::Mode;

/// Something that an image may have to do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Deny {
    /// Shells, by the usual names.
    Shell,
    /// Interpreters, by the usual names, with or without a version.
    Interpreter,
    /// Files that run as their owner or group.
    Setuid,
    /// Servers for SSH.
    Ssh,
}

impl Deny {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Deny::Shell => "shell",
            Deny::Interpreter => "interpreter",
            Deny::Setuid => "setuid",
            Deny::Ssh => "ssh",
        }
    }
}

/// Whether interpreters of the image read scripts from anywhere.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scripts {
    /// They do.
    #[default]
    Allow,
    /// Only files of the image.
    Refuse,
}

/// A checked definition.
#[derive(Debug, Clone)]
pub struct Definition {
    /// The file it was read from.
    pub path: PathBuf,
    /// SHA-256 of the file's bytes.
    pub digest: [u8; 32],
    /// IMAGE_ID: 1 to 28 of a-z 0-9 . _ - (so that labels fit into a GPT).
    pub id: String,
    /// IMAGE_VERSION, UAPI.10.
    pub version: String,
    /// Seconds since 1970 that newer modification times are clamped to.
    pub epoch: Option<i64>,
    /// In order of application; `[[file]]` entries come last.
    pub sources: Vec<Source>,
    /// How the root is written.
    pub root: Root,
    /// Globs of paths that scrubbing leaves alone.
    pub keep: Vec<String>,
    /// Parents before children.
    pub volumes: Vec<Volume>,
    /// How the root is verified at boot.
    pub verify: adamant_contract::policy::Verify,
    /// Whether the root hash must be signed, where the definition says so.
    pub signature: Option<adamant_contract::signature::Mode>,
    /// What the world outside may tell the image's init.
    pub credentials: adamant_contract::policy::Credentials,
    /// What happens when the boot fails.
    pub failure: adamant_contract::policy::FailurePolicy,
    /// What the running machine refuses.
    pub seal: adamant_contract::policy::Seal,
    /// Whether interpreters read scripts from anywhere.
    pub scripts: Scripts,
    /// Programs that are interpreters beside the usual ones, by path.
    pub interpreters: Vec<String>,
    /// What the image must not hold.
    pub deny: Vec<Deny>,
    /// What the watch does about violations.
    pub on_violation: adamant_contract::policy::OnViolation,
    /// What the machine is held against, beside the image.
    pub drift: adamant_contract::policy::Drift,
    /// The kernel's command line and modules.
    pub kernel: Kernel,
    /// What firmware starts.
    pub boot: Boot,
    /// What the image is signed with.
    pub sign: Sign,
    /// The disk image.
    pub disk: Disk,
    /// Bounds on what sources may hold.
    pub limits: Limits,
}

impl Definition {
    /// Reads a definition: a file, or a directory's `image.toml`.
    pub fn read(path: &Path) -> Result<Definition> {
        let path = if path.is_dir() {
            path.join("image.toml")
        } else {
            path.to_owned()
        };
        let mut bytes = Vec::new();
        let missing = |e: std::io::Error| {
            Error::new(format!("{}: {e}", path.display()))
                .hint("give a definition, or a directory that holds an image.toml")
        };
        let file = std::fs::File::open(&path).map_err(missing)?;
        file.take(parse::LIMIT + 1)
            .read_to_end(&mut bytes)
            .context(|| path.display().to_string())?;
        if bytes.len() as u64 > parse::LIMIT {
            return Err(Error::new(format!(
                "{}: larger than {} bytes, the most a definition may have",
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

    /// Reads a definition from its text; nothing else is looked at. `path` is what messages call it
    /// by, and its folder is what paths in it are relative to.
    pub fn parse(text: &str, path: &Path) -> Result<Definition> {
        parse::parse(text, path)
    }

    /// What the agent is told.
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

    /// Whether the volumes are those of a definition that says nothing about volumes.
    pub fn has_default_volumes(&self) -> bool {
        let defaults = Volume::defaults();
        self.volumes.len() == defaults.len()
            && self
                .volumes
                .iter()
                .zip(&defaults)
                .all(|(one, other)| one.size == other.size && one.policy == other.policy)
    }

    /// A path of this definition as it was written there: relative to its folder.
    pub fn as_written<'a>(&self, path: &'a Path) -> &'a Path {
        self.path
            .parent()
            .and_then(|folder| path.strip_prefix(folder).ok())
            .unwrap_or(path)
    }

    /// `ID_VERSION`, with which every artifact's name begins.
    pub fn stem(&self) -> String {
        format!("{}_{}", self.id, self.version)
    }
}

/// A policy of no image, to be filled.
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
        drift: policy::Drift::default(),
        volumes: Vec::new(),
        image_data: Vec::new(),
    }
}

/// One source, with where it is put and where the definition says so.
#[derive(Debug, Clone)]
pub struct Source {
    /// What it is.
    pub origin: Origin,
    /// The directory of the image it is put below: `/` or an absolute path.
    pub at: String,
    /// `image.toml:12:1`, for messages.
    pub location: String,
}

/// Where entries come from.
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

/// Debian packages, put together by mmdebstrap.
#[derive(Debug, Clone)]
pub struct Debian {
    /// Suite, for example `trixie`.
    pub suite: String,
    /// Packages beside those of the variant.
    pub packages: Vec<String>,
    /// mmdebstrap's variant, `important` unless said otherwise.
    pub variant: String,
    /// Architecture, `amd64`.
    pub architecture: String,
    /// Components, `main` unless said otherwise.
    pub components: Vec<String>,
    /// Archives instead of Debian's own.
    pub mirrors: Vec<mirror::Mirror>,
    /// A date of the snapshot archive (`20261101T000000Z`) instead of now.
    pub snapshot: Option<String>,
    /// HTTP proxy for the downloads.
    pub proxy: Option<String>,
    /// Keyrings or certificates that the archive must be signed by, instead of Debian's.
    pub keyring: Option<PathBuf>,
    /// Whether recommended packages are installed too.
    pub recommends: bool,
}

/// A directory.
#[derive(Debug, Clone)]
pub struct Dir {
    /// Where it is.
    pub path: PathBuf,
    /// Owners and groups as they are, instead of root:root.
    pub keep_owner: bool,
    /// Whether other file systems mounted below it are entered.
    pub cross_mounts: bool,
}

/// A single entry, written in the definition itself.
#[derive(Debug, Clone)]
pub struct FileEntry {
    /// Absolute path in the image.
    pub path: String,
    /// What it is.
    pub kind: FileKind,
    /// Permission bits; `None`: 0644 for files, 0755 for directories.
    pub mode: Option<u16>,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// What a single entry is.
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
    /// Nothing: what stands there is removed.
    Absent,
}

/// How the root is written.
#[derive(Debug, Clone)]
pub struct Root {
    /// Which compression.
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

/// Which compression the root gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// zstd where the image's kernel can (6.10 and configured), else lz4hc.
    Auto,
    /// Plain blocks.
    None,
    /// LZ4, fast.
    Lz4,
    /// LZ4, high compression: the same reader.
    Lz4hc,
    /// Zstandard at this level, 1 to 22.
    Zstd(i32),
}

/// A volume: its policy and its size on the disk image.
#[derive(Debug, Clone)]
pub struct Volume {
    /// What the agent is told.
    pub policy: adamant_contract::policy::Volume,
    /// Size in bytes on the disk image, a multiple of 1 MiB.
    pub size: u64,
}

impl Volume {
    /// What there is when the definition says nothing: state at /var, and logs at /var/log so that
    /// they can't fill it.
    fn defaults() -> Vec<Volume> {
        let volume = |name: &str, mount: &str, size| Volume {
            policy: policy::Volume {
                name: name.to_owned(),
                mount: mount.to_owned(),
                filesystem: FileSystem::default(),
                weight: 1,
                on_damage: OnDamage::default(),
                refresh: Refresh::default(),
            },
            size,
        };
        vec![
            volume("state", "/var", 512 << 20),
            volume("logs", "/var/log", 256 << 20),
        ]
    }
}

/// The kernel's command line and modules.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// Added to what the builder writes.
    pub cmdline: String,
    /// Modules by name beside the builder's own list.
    pub modules: Vec<String>,
}

/// What firmware starts.
#[derive(Debug, Clone, Default)]
pub struct Boot {
    /// systemd's stub, instead of the image's own.
    pub stub: Option<PathBuf>,
    /// systemd's boot loader, instead of the image's own.
    pub loader: Option<PathBuf>,
    /// Whether early microcode is in the unified kernel image.
    pub microcode: bool,
    /// Words for the command line of a debug profile.
    pub debug: Option<String>,
}

/// What the image is signed with.
#[derive(Debug, Clone, Default)]
pub struct Sign {
    /// Boot loader and unified kernel image.
    pub secure_boot: Option<SignBy>,
    /// The root hash.
    pub verity: Option<SignBy>,
    /// Predicted values of PCR 11.
    pub pcr: Option<SignBy>,
}

impl Sign {
    /// All three, from a folder made by `adamant keys new`.
    pub fn from_folder(folder: &Path) -> Sign {
        let by = |name: &str| {
            Some(SignBy {
                key: Some(KeySource::File(folder.join(format!("{name}.key")))),
                certificate: folder.join(format!("{name}.crt")),
            })
        };
        Sign {
            secure_boot: by("secure-boot"),
            verity: by("verity"),
            pcr: by("pcr"),
        }
    }
}

/// A key and its certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignBy {
    /// Where the key is held; `None`: somebody else signs later.
    pub key: Option<KeySource>,
    /// Its certificate.
    pub certificate: PathBuf,
}

/// The disk image.
#[derive(Debug, Clone)]
pub struct Disk {
    /// Bytes of the EFI system partition, a multiple of 1 MiB.
    pub esp: u64,
    /// One or two; `None`: two where there is a boot loader.
    pub slots: Option<u32>,
    /// Bytes of a slot's root partition, a multiple of 1 MiB.
    pub slot_size: Option<u64>,
    /// Percent of a slot that must stay free.
    pub headroom: u64,
    /// Whether it has a black box.
    pub black_box: bool,
    /// Bytes of a sector.
    pub sector: u32,
}

impl Default for Disk {
    fn default() -> Self {
        Disk {
            esp: 512 << 20,
            slots: None,
            slot_size: None,
            headroom: 50,
            black_box: true,
            sector: 512,
        }
    }
}

/// Bounds on what sources may hold.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of all files together, after decompression.
    pub bytes: u64,
    /// Entries.
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
