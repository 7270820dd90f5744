//! `adamant summary`: prints what a build would make, and from which sources. It reads the
//! definition and the cache, and checks whether the named files exist. It builds and downloads
//! nothing.

use std::fmt;
use std::path::Path;

use adamant_contract::hex;
use adamant_contract::policy::Refresh;
use serde::Serialize;

use crate::definition::values::format_time;
use crate::definition::{Compression, Debian, Definition, Dir, FileKind, Optimize, Origin};
use crate::error::reason;
use crate::source;

/// The summary of a definition, as text and as JSON.
#[derive(Debug, Serialize)]
pub struct DefinitionSummary {
    definition: String,
    definition_sha256: String,
    id: String,
    version: String,
    epoch: Option<i64>,
    sources: Vec<SourceSummary>,
    compression: String,
    cluster: u32,
    optimize: Optimize,
    keep: Vec<String>,
    volumes: Vec<VolumeSummary>,
    policy: adamant_contract::policy::Policy,
    cmdline: String,
    modules: Vec<String>,
    artifacts: Vec<String>,
}

#[derive(Debug, Serialize)]
struct SourceSummary {
    kind: &'static str,
    what: String,
    at: String,
    location: String,
    /// State of the source, for example its size.
    state: String,
}

#[derive(Debug, Serialize)]
struct VolumeSummary {
    name: String,
    mount: String,
    size: u64,
    weight: u32,
    refresh: Refresh,
}

/// Suffixes of the artifacts after `ID_VERSION.`. Those of the second list need a kernel in the
/// image.
const ARTIFACTS: &[&str] = &["root.erofs", "root.verity", "roothash", "manifest.json"];
const KERNEL_ARTIFACTS: &[&str] = &["vmlinuz", "initrd", "cmdline", "raw"];

impl DefinitionSummary {
    /// The summary of a definition. `cache` is the cache directory, by default the user's.
    pub fn new(definition: &Definition, cache: Option<&Path>) -> DefinitionSummary {
        let cache = source::cache_folder(cache);
        let stem = definition.stem();
        DefinitionSummary {
            definition: definition.path.display().to_string(),
            definition_sha256: hex::encode(&definition.digest),
            id: definition.id.clone(),
            version: definition.version.clone(),
            epoch: definition.epoch,
            sources: definition
                .sources
                .iter()
                .map(|source| describe(definition, source, &cache))
                .collect(),
            compression: compression(definition.root.compression),
            cluster: definition.root.cluster,
            optimize: definition.root.optimize,
            keep: definition.keep.clone(),
            volumes: definition
                .volumes
                .iter()
                .map(|v| VolumeSummary {
                    name: v.policy.name.clone(),
                    mount: v.policy.mount.clone(),
                    size: v.size,
                    weight: v.policy.weight,
                    refresh: v.policy.refresh,
                })
                .collect(),
            policy: definition.policy(),
            cmdline: definition.kernel.cmdline.clone(),
            modules: definition.kernel.modules.clone(),
            artifacts: ARTIFACTS
                .iter()
                .chain(KERNEL_ARTIFACTS)
                .map(|suffix| format!("{stem}.{suffix}"))
                .collect(),
        }
    }
}

fn describe(
    definition: &Definition,
    source: &crate::definition::Source,
    cache: &Path,
) -> SourceSummary {
    let (kind, what, state) = match &source.origin {
        Origin::Debian(debian) => {
            let from = match &debian.snapshot {
                Some(moment) => format!("{} of {moment}", debian.suite),
                None => debian.suite.clone(),
            };
            let packages = if debian.packages.is_empty() {
                String::new()
            } else {
                format!(" + {}", debian.packages.join(" "))
            };
            (
                "debian",
                format!(
                    "{from} {} ({}){packages}",
                    debian.architecture, debian.variant
                ),
                in_cache(debian, cache),
            )
        }
        Origin::Tar(path) => (
            "tar",
            definition.as_written(path).display().to_string(),
            on_disk(path),
        ),
        Origin::Dir(Dir { path, .. }) => (
            "dir",
            definition.as_written(path).display().to_string(),
            on_disk(path),
        ),
        Origin::File(file) => {
            let (what, state) = match &file.kind {
                FileKind::Content(bytes) => (format!("{} bytes", bytes.len()), String::new()),
                FileKind::Copy(from) => (
                    format!("copy of {}", definition.as_written(from).display()),
                    on_disk(from),
                ),
                FileKind::Link(target) => (format!("link to {target}"), String::new()),
                FileKind::Directory => ("directory".to_owned(), String::new()),
                FileKind::Absent => ("absent".to_owned(), String::new()),
            };
            ("file", format!("{}: {what}", file.path), state)
        }
    };
    SourceSummary {
        kind,
        what,
        at: source.at.clone(),
        location: source.location.clone(),
        state,
    }
}

/// State of a package source: whether the cache has it. Whether the archive has newer packages is
/// not checked.
fn in_cache(debian: &Debian, cache: &Path) -> String {
    match source::debian::cached(debian, cache) {
        Ok(Some(date)) if debian.snapshot.is_some() => {
            format!("cached, archive of {}", format_time(date))
        }
        Ok(Some(date)) => format!(
            "cached, archive of {}; to be fetched if there is a newer one",
            format_time(date)
        ),
        Ok(None) => "to be fetched".to_owned(),
        Err(e) => format!("MISSING: {}", e.message()),
    }
}

/// State of a file or directory. A build fails if it is missing.
fn on_disk(path: &Path) -> String {
    match std::fs::metadata(path) {
        Ok(meta) if meta.is_dir() => "a directory".to_owned(),
        Ok(meta) => format!("{} bytes", meta.len()),
        Err(e) => format!("MISSING: {}", reason(&e)),
    }
}

fn compression(compression: Compression) -> String {
    match compression {
        Compression::Auto => "auto: zstd if the image's kernel supports it, else lz4hc".to_owned(),
        Compression::None => "none".to_owned(),
        Compression::Lz4 => "lz4".to_owned(),
        Compression::Lz4hc => "lz4hc".to_owned(),
        Compression::Zstd(level) => format!("zstd, level {level}"),
    }
}

impl fmt::Display for DefinitionSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "image      {} {} (from {})",
            self.id, self.version, self.definition
        )?;
        for source in &self.sources {
            let at = if source.at == "/" {
                String::new()
            } else {
                format!(" at {}", source.at)
            };
            let state = if source.state.is_empty() {
                String::new()
            } else {
                format!(" ({})", source.state)
            };
            writeln!(f, "{:<10} {}{at}{state}", source.kind, source.what)?;
        }
        match self.epoch {
            Some(epoch) => writeln!(f, "epoch      {}", format_time(epoch))?,
            None if self.sources.iter().any(|source| source.kind == "debian") => {
                writeln!(f, "epoch      the archive's own date")?
            }
            None => writeln!(f, "epoch      none: modification times stay as they are")?,
        }
        let optimize = if self.optimize == Optimize::Size {
            "; optimized for size"
        } else {
            ""
        };
        writeln!(
            f,
            "root       {}; clusters of {} KiB{optimize}",
            self.compression,
            self.cluster >> 10
        )?;
        for glob in &self.keep {
            writeln!(f, "keep       {glob}")?;
        }
        if self.volumes.is_empty() {
            writeln!(f, "volumes    none: nothing outlives a reboot")?;
        }
        for volume in &self.volumes {
            let VolumeSummary {
                name,
                mount,
                size,
                weight,
                refresh,
            } = volume;
            writeln!(
                f,
                "volume     {name} at {mount}, {} MiB, weight {weight}, refresh {}",
                size >> 20,
                value_name(refresh)
            )?;
        }
        let (verify, failure) = (self.policy.verify, self.policy.failure);
        writeln!(
            f,
            "verify     {}; {} on corruption",
            value_name(&verify.boot),
            value_name(&verify.on_corruption)
        )?;
        writeln!(
            f,
            "failure    {} after {} s",
            value_name(&failure.action),
            failure.after_seconds
        )?;
        if !self.cmdline.is_empty() {
            writeln!(f, "cmdline    {}", self.cmdline)?;
        }
        if !self.modules.is_empty() {
            writeln!(f, "modules    {}", self.modules.join(" "))?;
        }
        let (always, with_kernel) = self
            .artifacts
            .split_at(ARTIFACTS.len().min(self.artifacts.len()));
        writeln!(f, "artifacts  {}", always.join(" "))?;
        writeln!(
            f,
            "           with a kernel in the image: {}",
            with_kernel.join(" ")
        )
    }
}

/// The name of a value in the policy's JSON.
fn value_name(value: &impl Serialize) -> String {
    serde_json::to_value(value)
        .ok()
        .and_then(|value| value.as_str().map(str::to_owned))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_every_source_volume_and_artifact() {
        let text = "[image]\nid = \"web\"\nversion = \"1\"\n[[source]]\ndebian = { suite = \"trixie\", packages = [\"nginx\"] }\n\
                    [[source]]\ndir = \"not-there\"\nat = \"/srv\"\n[[file]]\npath = \"/x\"\ncontent = \"12\"\n";
        let definition = Definition::parse(text, Path::new("/nowhere/image.toml")).unwrap();
        let text = DefinitionSummary::new(&definition, Some(Path::new("/nowhere"))).to_string();
        for part in [
            "web 1 (from",
            "trixie amd64 (important) + nginx",
            "not-there at /srv (MISSING",
            "/x: 2 bytes",
            "logs at /var/log, 256 MiB",
            "web_1.root.verity",
            "web_1.raw",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }
}
