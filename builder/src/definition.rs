//! The definition: `image.toml`, read, checked and with every path resolved.

use std::path::PathBuf;

pub use adamant_agent::policy::{FailureAction, FileSystem, OnCorruption, OnDamage, VerifyBoot};

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
    pub verify: adamant_agent::policy::Verify,
    /// What happens when the boot fails.
    pub failure: adamant_agent::policy::Failure,
    /// The kernel's command line and modules.
    pub kernel: Kernel,
    /// Bounds on what sources may hold.
    pub limits: Limits,
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
    /// Archive addresses instead of Debian's own.
    pub mirrors: Vec<String>,
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
    pub policy: adamant_agent::policy::Volume,
    /// Size in bytes on the disk image, a multiple of 1 MiB.
    pub size: u64,
}

/// The kernel's command line and modules.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// Added to what the builder writes.
    pub cmdline: String,
    /// Modules by name beside the builder's own list.
    pub modules: Vec<String>,
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
        Limits { bytes: 64 << 30, entries: 10_000_000 }
    }
}
