//! Parses and checks the text of a definition. All errors carry their position. No other file is
//! read.
//!
//! This module has the parser and the small tables; the large tables have modules of their own.

use std::cell::RefCell;
use std::path::{Component, Path, PathBuf};

use sha2::{Digest, Sha256};
use toml::Spanned;

use super::text::Text;
use super::{Compression, Definition, Limits, Optimize, Root, Source, keys, unknown, values};
use crate::error::{Error, Result};

/// Largest definition, bytes.
pub const LIMIT: u64 = 1 << 20;
/// Largest volume or partition, bytes: the limit of ext4 with 4096-byte blocks and 32-bit numbers.
pub(super) const LARGEST_VOLUME: u64 = 16 << 40;

/// Parses a definition. Messages name `path`, and paths in the definition are relative to its
/// directory.
pub fn parse(text: &str, path: &Path) -> Result<Definition> {
    let text = Text { path, text };
    let tables: keys::DefinitionTables = toml::from_str(text.text)
        .map_err(|e| join_errors(unknown::errors(&text)).unwrap_or_else(|| text.syntax(&e)))?;
    let Some(image) = &tables.image else {
        return Err(text.error(
            0..0,
            "table [image] is missing (write [image], id = \"...\" and version = \"...\")",
        ));
    };
    let reader = DefinitionReader {
        base: path.parent().unwrap_or(Path::new("")),
        text: &text,
        errors: RefCell::default(),
    };
    let definition = reader.definition(&tables, image);
    if let Some(error) = join_errors(reader.errors.take()) {
        return Err(error);
    }
    // The agent's own check of the complete policy: the agent accepts every policy that the builder
    // writes.
    definition
        .policy()
        .check()
        .map_err(|why| text.error(0..0, why))?;
    Ok(definition)
}

/// Number of errors that are reported at once. More are usually repetitions of one error.
const MAX_ERRORS: usize = 20;

/// Joins errors into one; `None` if there are none.
fn join_errors(errors: Vec<Error>) -> Option<Error> {
    let mut lines: Vec<&str> = errors.iter().take(MAX_ERRORS).map(Error::message).collect();
    let more = format!(
        "and {} more errors",
        errors.len().saturating_sub(MAX_ERRORS)
    );
    if errors.len() > MAX_ERRORS {
        lines.push(&more);
    }
    (!lines.is_empty()).then(|| Error::new(lines.join("\n")))
}

/// The text that is parsed, and the errors found so far.
pub(super) struct DefinitionReader<'a> {
    base: &'a Path,
    pub(super) text: &'a Text<'a>,
    /// Errors found so far.
    errors: RefCell<Vec<Error>>,
}

impl DefinitionReader<'_> {
    /// Reads all tables, even after an error, so that all errors are reported together. A table
    /// with an error has its default value.
    fn definition(
        &self,
        tables: &keys::DefinitionTables,
        image: &Spanned<keys::ImageTable>,
    ) -> Definition {
        let (id, version) = self.or_default(self.identity(image));
        let epoch = image
            .get_ref()
            .epoch
            .as_ref()
            .map(|value| self.checked(value, values::epoch))
            .transpose();
        let epoch = self.or_default(epoch);
        let sources = self.sources(tables);
        let root = self.or_default(self.root(tables.root.as_ref()));
        let keep = self.or_default(self.keep(tables.scrub.as_ref()));
        let volumes = self.or_default(self.volumes(tables));
        let verify = self.or_default(self.verify(tables.verify.as_ref()));
        let failure = self.or_default(self.failure(tables.failure.as_ref()));
        let seal = self.or_default(self.seal(tables.seal.as_ref(), &volumes));
        let kernel = self.or_default(self.kernel(tables.kernel.as_ref()));
        let boot = self.or_default(self.boot(tables.boot.as_ref()));
        let sign = self.or_default(self.sign(tables.sign.as_ref()));
        let disk = self.or_default(self.disk(tables.disk.as_ref()));
        let limits = self.or_default(self.limits(tables.limits.as_ref()));
        let drift = self.or_default(self.drift(tables.drift.as_ref()));
        let credentials = self.or_default(self.credentials(tables.credentials.as_ref()));
        let signature = tables
            .verify
            .as_ref()
            .and_then(|verify| verify.get_ref().signature.as_ref())
            .map(|key| *key.get_ref());
        Definition {
            path: self.text.path.to_owned(),
            digest: Sha256::digest(self.text.text).into(),
            id,
            version,
            epoch,
            sources,
            root,
            keep,
            volumes,
            verify,
            signature,
            credentials,
            failure,
            seal: seal.seal,
            scripts: seal.scripts,
            interpreters: seal.interpreters,
            deny: seal.deny,
            on_violation: self.on_violation(tables.on_violation.as_ref()),
            drift,
            kernel,
            boot,
            sign,
            disk,
            limits,
        }
    }

    fn sources(&self, tables: &keys::DefinitionTables) -> Vec<Source> {
        if tables.source.is_empty() && tables.file.is_empty() {
            let error = self.text.error(
                0..0,
                "the definition has no source (write a [[source]] with debian, tar or dir)",
            );
            self.errors.borrow_mut().push(error);
        }
        let sources = tables
            .source
            .iter()
            .filter_map(|source| self.collect(self.source(source)));
        let files = tables
            .file
            .iter()
            .filter_map(|entry| self.collect(self.file(entry)));
        sources.chain(files).collect()
    }

    fn or_default<T: Default>(&self, read: Result<T>) -> T {
        self.collect(read).unwrap_or_default()
    }

    /// Collects an error, so that independent tables are still read.
    pub(super) fn collect<T>(&self, read: Result<T>) -> Option<T> {
        read.map_err(|error| self.errors.borrow_mut().push(error))
            .ok()
    }

    pub(super) fn error<T>(&self, at: &Spanned<T>, what: impl std::fmt::Display) -> Error {
        self.text.error(at.span(), what)
    }

    /// Parses a value with a function of `values`. Its error gets the position of the value.
    pub(super) fn checked<T, U>(
        &self,
        value: &Spanned<T>,
        read: impl FnOnce(&T) -> Result<U, String>,
    ) -> Result<U> {
        read(value.get_ref()).map_err(|why| self.error(value, why))
    }

    pub(super) fn required<'k, T, U>(
        &self,
        table: &Spanned<T>,
        key: &str,
        value: &'k Option<Spanned<U>>,
    ) -> Result<&'k Spanned<U>> {
        value
            .as_ref()
            .ok_or_else(|| self.error(table, format!("key `{key}` is missing (write {key} = ...)")))
    }

    /// A path on the build machine, relative to the definition.
    pub(super) fn path(&self, value: &Spanned<String>) -> Result<PathBuf> {
        let text = value.get_ref();
        if text.is_empty() || text.contains('\0') {
            return Err(self.error(
                value,
                format!("{text:?} is not a path (write a path relative to the definition)"),
            ));
        }
        // Without `.` components, a path has the same name in messages and manifests.
        let clean: PathBuf = Path::new(text)
            .components()
            .filter(|part| *part != Component::CurDir)
            .collect();
        Ok(self.base.join(clean))
    }

    pub(super) fn strings(
        &self,
        list: &Option<Spanned<Vec<Spanned<String>>>>,
        check: impl Fn(&str) -> Result<(), String>,
    ) -> Result<Vec<String>> {
        let list = list
            .as_ref()
            .map(|list| list.get_ref().as_slice())
            .unwrap_or_default();
        list.iter()
            .map(|entry| self.checked(entry, |text| check(text).map(|()| text.clone())))
            .collect()
    }

    fn identity(&self, image: &Spanned<keys::ImageTable>) -> Result<(String, String)> {
        let id = self.required(image, "id", &image.get_ref().id)?;
        let version = self.required(image, "version", &image.get_ref().version)?;
        self.checked(id, |id| values::id(id))?;
        self.checked(version, |version| values::version(version))?;
        self.checked(version, |version| values::label(id.get_ref(), version))?;
        Ok((id.get_ref().clone(), version.get_ref().clone()))
    }

    fn root(&self, root: Option<&Spanned<keys::RootTable>>) -> Result<Root> {
        /// Small files share clusters when the image is optimized for size.
        const OPTIMIZED_CLUSTER: u32 = 128 << 10;
        let default = Root::default();
        let Some(root) = root.map(Spanned::get_ref) else {
            return Ok(default);
        };
        let compression = root
            .compression
            .as_ref()
            .map_or(Ok(default.compression), |text| {
                self.checked(text, |text| values::compression(text))
            })?;
        let optimize = root
            .optimize
            .as_ref()
            .map_or(Ok(default.optimize), |text| {
                self.checked(text, |text| values::optimize(text))
            })?;
        if let Some(written) = root
            .optimize
            .as_ref()
            .filter(|_| optimize == Optimize::Size && compression == Compression::None)
        {
            return Err(self.error(
                written,
                "optimize = \"size\" needs compression (use another compression than none)",
            ));
        }
        let usual = if optimize == Optimize::Size {
            OPTIMIZED_CLUSTER
        } else {
            default.cluster
        };
        let cluster = root.cluster.as_ref().map_or(Ok(usual), |text| {
            self.checked(text, |text| values::cluster(text))
        })?;
        Ok(Root {
            compression,
            cluster,
            optimize,
        })
    }

    fn keep(&self, scrub: Option<&Spanned<keys::ScrubTable>>) -> Result<Vec<String>> {
        let Some(scrub) = scrub.map(Spanned::get_ref) else {
            return Ok(Vec::new());
        };
        self.strings(&scrub.keep, |glob| {
            crate::glob::compile_glob(glob).map(|_| ()).map_err(|why| {
                format!("keep {glob:?}: {why} (write for example \"/etc/ssh/ssh_host_*\")")
            })
        })
    }

    fn limits(&self, limits: Option<&Spanned<keys::LimitsTable>>) -> Result<Limits> {
        let mut out = Limits::default();
        let Some(limits) = limits.map(Spanned::get_ref) else {
            return Ok(out);
        };
        if let Some(bytes) = &limits.bytes {
            out.bytes = self.checked(bytes, |text| {
                values::size(text).map_err(|why| format!("bytes {why}"))
            })?;
        }
        if let Some(entries) = &limits.entries {
            out.entries = *entries.get_ref();
        }
        Ok(out)
    }
}
