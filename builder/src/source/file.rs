//! `[[file]]` sources: single entries whose content is in the definition or in one file.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::report::Report;
use super::spool::Spool;
use super::{Budget, LoadedSource, put};
use crate::definition::{FileEntry, FileKind};
use crate::error::{Context, Error, Result, from_io};
use crate::io::hashing::HashingReader;
use crate::tree::{Content, Kind, Meta, TARGET_MAX, Time, Tree};

/// Adds the entry to the tree. Its time is the epoch of the image, or 0.
pub fn load(
    tree: &mut Tree,
    at: &[u8],
    entry: &FileEntry,
    budget: &mut Budget,
    spool: &Path,
    epoch: Option<i64>,
) -> Result<LoadedSource> {
    budget.entry()?;
    let path = entry.path.as_bytes();
    let mut digest = Sha256::new();
    digest.update(format!(
        "{}\0{:?}\0{}\0{}\0",
        entry.path, entry.mode, entry.uid, entry.gid
    ));
    let kind = match &entry.kind {
        FileKind::Absent => {
            digest.update("absent");
            let landed = super::landing(tree, at, path)?;
            tree.remove(&landed);
            None
        }
        FileKind::Directory => {
            digest.update("directory");
            Some(Kind::Directory(BTreeMap::new()))
        }
        FileKind::Link(target) => {
            if target.is_empty() || target.len() > TARGET_MAX || target.contains('\0') {
                return Err(Error::new(format!(
                    "{}: the target of a symbolic link must have 1 to {TARGET_MAX} bytes and no NUL",
                    entry.path
                )));
            }
            digest.update("link\0");
            digest.update(target);
            Some(Kind::Symlink(target.as_bytes().into()))
        }
        FileKind::Content(bytes) => {
            budget.bytes(bytes.len() as u64)?;
            digest.update("file\0");
            digest.update(bytes);
            Some(Kind::File(Content::from_memory(&bytes[..])))
        }
        FileKind::Copy(from) => {
            let file = File::open(from).context(|| format!("{}", from.display()))?;
            let meta = file.metadata().context(|| format!("{}", from.display()))?;
            if !meta.is_file() {
                return Err(Error::new(format!("{}: not a file", from.display()))
                    .hint("`copy` takes one file; use a [[source]] with `dir` for a directory"));
            }
            budget.bytes(meta.len())?;
            let mut spool = Spool::new(spool)?;
            digest.update("file\0");
            let mut reader = HashingReader {
                inner: std::io::Read::take(file, meta.len().saturating_add(1)),
                sha256: &mut digest,
            };
            let (start, length) = spool.append(&mut reader, &|error| {
                from_io(&format!("reading {}", from.display()), &error)
            })?;
            if length != meta.len() {
                return Err(
                    Error::new(format!("{}: changed while it was read", from.display()))
                        .hint("build again when nothing writes to it"),
                );
            }
            Some(Kind::File(Content::from_file(
                spool.file().clone(),
                start,
                length,
            )))
        }
    };
    let mut report = Report::default();
    if let Some(kind) = kind {
        let usual = if matches!(kind, Kind::Directory(_)) {
            0o755
        } else if matches!(kind, Kind::Symlink(_)) {
            0o777
        } else {
            0o644
        };
        let mtime = Time {
            seconds: epoch.unwrap_or(0),
            nanoseconds: 0,
        };
        let meta = Meta {
            mode: entry.mode.unwrap_or(usual),
            uid: entry.uid,
            gid: entry.gid,
            mtime,
            xattrs: None,
        };
        put(tree, at, path, meta, kind, &mut report)?;
    }
    let absent = format!(
        "write [[file]] path = {:?}, absent = true before it to remove the directory",
        entry.path
    );
    let findings = report.finish(&absent)?;
    Ok(LoadedSource {
        findings,
        kind: "file",
        name: entry.path.clone(),
        sha256: super::ArchiveHash::known(digest.finalize().into()),
        expected: None,
        entries: 1,
        date: None,
        archive: None,
        databases: Vec::new(),
    })
}
