//! The manifest: hashes of all artifacts and of all sources of a build.
//!
//! It is the file `ID_VERSION.manifest.json`, which docs/formats.md describes. It contains no path
//! of the build machine and no time of the build, so equal inputs give equal manifests.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::definition::Optimize;
use crate::error::{Context, Error, Result, json_reason};

/// The only version of the format.
pub const VERSION: u32 = 1;
/// Suffix of a manifest's name after `ID_VERSION`.
pub const SUFFIX: &str = ".manifest.json";
/// Largest manifest that is read, bytes.
pub const LIMIT: u64 = 64 << 20;

/// A manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of this format, [`VERSION`].
    pub version: u32,
    /// Id and version of the image.
    pub image: ImageVersion,
    /// The program that built the image, for example `adamant 0.1.0`.
    pub tool: String,
    /// SHA-256 of the definition's bytes, hexadecimal.
    pub definition: String,
    /// Newest modification time in the image, seconds since 1970, if the definition sets one.
    pub epoch: Option<i64>,
    /// The root file system.
    pub root: RootRecord,
    /// `uname -r` of the image's kernel, if it has one.
    pub kernel: Option<String>,
    /// Predicted values of a TPM's PCR 11, if there is a unified kernel image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pcr11: Vec<Measurement>,
    /// Predicted values in the debug profile, if there is one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pcr11_debug: Vec<Measurement>,
    /// Names of credentials that the image's policy accepts. `*` matches any characters.
    #[serde(default)]
    pub credentials: Vec<String>,
    /// Signatures that exist or that `adamant sign` will make.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signatures: Vec<SignatureRecord>,
    /// The artifacts, in a fixed order.
    pub artifacts: Vec<Artifact>,
    /// The sources, in the order in which they are applied.
    pub sources: Vec<SourceRecord>,
    /// Number of entries that each scrub rule removed or changed. Rules without a match are left
    /// out.
    pub scrubbed: Vec<ScrubCount>,
    /// Debian packages by name, if the image has dpkg's database.
    pub packages: Vec<Package>,
    /// Content that the image ships for its volumes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<VolumeRecord>,
    /// Absolute paths of image data that the verified root provides on volumes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub image_data: Vec<String>,
}

/// Content that the image ships for a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeRecord {
    /// Name of the volume.
    pub name: String,
    /// Mount point.
    pub mount: String,
    /// Whether a later image replaces unmodified units: `unchanged` or `never`.
    pub refresh: adamant_contract::policy::Refresh,
    /// Units, as absolute paths, sorted.
    pub units: Vec<String>,
}

/// Id and version of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageVersion {
    /// IMAGE_ID.
    pub id: String,
    /// IMAGE_VERSION.
    pub version: String,
}

impl ImageVersion {
    /// `ID_VERSION`, the prefix of the artifacts' names.
    pub fn stem(&self) -> String {
        format!("{}_{}", self.id, self.version)
    }
}

/// The root file system and its hash tree. Blocks have 4096 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootRecord {
    /// Root hash, 64 hexadecimal digits.
    pub hash: String,
    /// Salt of the hash tree, hexadecimal.
    pub salt: String,
    /// UUID in the superblock of the hash tree.
    pub verity_uuid: String,
    /// Data blocks.
    pub blocks: u64,
    /// Blocks of the hash tree, including its superblock.
    pub tree_blocks: u64,
    /// `none`, `lz4`, `lz4hc` or `zstd:LEVEL`.
    pub compression: String,
    /// Largest compressed cluster, bytes.
    pub cluster: u32,
    /// The goal of the layout; left out for `updates`.
    #[serde(default, skip_serializing_if = "is_for_updates")]
    pub optimize: Optimize,
    /// SHA-256 of the reference image's root file system, hexadecimal; left out without one. The
    /// same bytes need the same reference image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// Inodes.
    pub inodes: u64,
    /// Bytes of file content before compression.
    pub content: u64,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde requires a reference"
)]
fn is_for_updates(optimize: &Optimize) -> bool {
    *optimize == Optimize::Updates
}

/// A predicted value of PCR 11, SHA-256 bank.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measurement {
    /// The phases so far, joined by colons (systemd-pcrphase.service(8)); empty when the kernel
    /// starts.
    pub phases: String,
    /// The value, hexadecimal.
    pub sha256: String,
}

/// What a signature is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SignaturePurpose {
    /// The boot loader and the unified kernel image, for firmware.
    SecureBoot,
    /// The root hash, for the agent and the kernel.
    Verity,
    /// Predicted values of PCR 11, for secrets that are sealed to a TPM.
    Pcr,
}

impl fmt::Display for SignaturePurpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SignaturePurpose::SecureBoot => "secure-boot",
            SignaturePurpose::Verity => "verity",
            SignaturePurpose::Pcr => "pcr",
        })
    }
}

/// A signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignatureRecord {
    /// What it is for.
    pub purpose: SignaturePurpose,
    /// SHA-256 of the certificate's DER, hexadecimal.
    pub certificate: String,
    /// Whether the signature exists.
    pub signed: bool,
}

/// A file of the output directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Artifact {
    /// File name.
    pub name: String,
    /// Size in bytes.
    pub size: u64,
    /// SHA-256 of the file, hexadecimal; left out if there are `parts`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Parts of the raw disk that are not all zeros, in order. The zeros are not hashed, because
    /// that would take longer than the rest of an incremental build.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<ArtifactPart>,
}

/// A part of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArtifactPart {
    /// Offset in bytes.
    pub offset: u64,
    /// Size in bytes.
    pub size: u64,
    /// SHA-256, hexadecimal.
    pub sha256: String,
}

impl Artifact {
    /// The parts of the file in order. Between them are zeros.
    pub fn pieces(&self) -> Vec<ArtifactPart> {
        let whole = self.sha256.as_ref().map(|sha256| ArtifactPart {
            offset: 0,
            size: self.size,
            sha256: sha256.clone(),
        });
        whole.map_or_else(|| self.parts.clone(), |whole| vec![whole])
    }

    /// Whether it has either one hash or parts in order that do not overlap.
    fn is_consistent(&self) -> bool {
        let mut end = 0;
        let in_order = self.parts.iter().all(|part| {
            let follows = part.offset >= end;
            end = part.offset.saturating_add(part.size);
            follows && end <= self.size
        });
        in_order && self.sha256.is_some() == self.parts.is_empty()
    }
}

/// A source of the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceRecord {
    /// `debian`, `tar`, `dir` or `file`.
    pub kind: String,
    /// The source as the definition writes it.
    pub name: String,
    /// SHA-256 of its content, hexadecimal.
    pub sha256: String,
    /// Number of entries.
    pub entries: u64,
    /// Suites of the packages of a debian source.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub suites: Vec<SuiteRecord>,
}

/// A suite of a package archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SuiteRecord {
    /// URL of the archive, without user name and password.
    pub archive: String,
    /// Name of the suite, for example `trixie-security`.
    pub suite: String,
    /// `Date` of its Release file, seconds since 1970; left out if it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub date: Option<i64>,
}

/// Number of entries that a scrub rule matched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScrubCount {
    /// Name of the rule.
    pub rule: String,
    /// Number of entries that were removed or changed.
    pub entries: u64,
}

/// A Debian package.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// Name.
    pub name: String,
    /// Architecture.
    pub architecture: String,
    /// Version.
    pub version: String,
}

impl Manifest {
    /// The file's bytes.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        let mut json = serde_json::to_vec_pretty(self)
            .map_err(|e| Error::new(format!("the manifest can't be written: {e}")))?;
        json.push(b'\n');
        Ok(json)
    }

    /// Reads a manifest from a file.
    pub fn read(path: &Path) -> Result<Manifest> {
        let name = path.display().to_string();
        let mut bytes = Vec::new();
        File::open(path)
            .context(|| name.clone())?
            .take(LIMIT + 1)
            .read_to_end(&mut bytes)
            .context(|| name.clone())?;
        if bytes.len() as u64 > LIMIT {
            return Err(Error::new(format!(
                "{name}: larger than {LIMIT} bytes, the limit of a manifest"
            )));
        }
        Manifest::parse(&name, &bytes)
    }

    /// Parses a manifest. `name` is for messages.
    pub fn parse(name: &str, bytes: &[u8]) -> Result<Manifest> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let wrong = |e: serde_json::Error| match e.is_eof() {
            true => Error::new(format!(
                "{name}: the manifest is truncated at line {}",
                e.line()
            ))
            .hint("copy the directory again from where it is complete, or build the image again"),
            false => Error::new(format!("{name}: not a manifest: {}", json_reason(&e)))
                .hint("build the image again"),
        };
        // The version is parsed first, so that the error for a newer manifest names its version and
        // not an unknown key.
        let Version { version } = serde_json::from_slice(bytes).map_err(wrong)?;
        if version != VERSION {
            return Err(Error::new(format!(
                "{name}: version {version}, this program knows version {VERSION}"
            ))
            .hint("use a newer adamant"));
        }
        let manifest: Manifest = serde_json::from_slice(bytes).map_err(wrong)?;
        // Names become paths below the output directory, so they must not leave it.
        if let Some(bad) = manifest
            .artifacts
            .iter()
            .find(|a| a.name.is_empty() || a.name.starts_with('.') || a.name.contains('/'))
        {
            return Err(Error::new(format!(
                "{name}: {:?} is not an artifact's name",
                bad.name
            )));
        }
        if let Some(bad) = manifest.artifacts.iter().find(|a| !a.is_consistent()) {
            return Err(Error::new(format!(
                "{name}: {}: neither one hash nor parts that follow each other",
                bad.name
            )));
        }
        Ok(manifest)
    }

    /// The artifact whose name ends in this, for example `.root.erofs`.
    pub fn artifact(&self, suffix: &str) -> Option<&Artifact> {
        self.artifacts
            .iter()
            .find(|artifact| artifact.name.ends_with(suffix))
    }
}

/// The manifests in a directory, sorted.
pub fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let what = || folder.display().to_string();
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).context(what)? {
        let path = entry.context(what)?.path();
        if path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().ends_with(SUFFIX.as_bytes()))
        {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
mod tests;
