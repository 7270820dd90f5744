//! The stages of a build, in order. Each stage is a type, and its function gives the next one:
//!
//! ```text
//! Loaded -> Scrubbed -> Checked -> RootWritten -> Started -> Published
//! ```
//!
//! Content is streamed from the sources to the artifacts. OUT does not change before the last
//! stage, so an error in any stage leaves OUT as it was.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::artifacts::Clock;
use super::content::{Loaded, SharedSources, is_any_damaged};
use super::published::Published;
use super::signers::{self, Signers};
use super::staging::Staging;
use super::{BuildOptions, agent};
use crate::cache::Cache;
use crate::definition::Definition;
use crate::erofs::{self, Reference};
use crate::error::{Context, Error, Result};
use crate::io::part::Part;
use crate::manifest::Manifest;
use crate::rootfs::check::Finding;
use crate::rootfs::scrub::Done;
use crate::source::{CacheTrust, LoadContext, cache_folder};
use crate::term::output::Output;

/// The result of a build.
#[derive(Debug)]
pub struct Built {
    /// The directory of the artifacts.
    pub out: PathBuf,
    /// `ID_VERSION`, the start of every artifact's name.
    pub stem: String,
    /// The manifest, as it is in OUT.
    pub manifest: Manifest,
    /// Actions of the scrubbing rules.
    pub scrubbed: Vec<Done>,
    /// Warnings for the operator.
    pub findings: Vec<Finding>,
    /// Modules in the initramfs, in load order.
    pub modules: Vec<String>,
    /// The stages in order, with the time that each took.
    pub stages: Vec<(&'static str, Duration)>,
}

/// Builds the image and puts its artifacts into `out`.
///
/// The first attempt uses cached packages while their hashes are still being verified. If one is
/// damaged, the result is discarded and a second attempt verifies each before its use.
pub fn build(
    definition: &Definition,
    out: &Path,
    options: &BuildOptions,
    output: &Output,
) -> Result<Built> {
    match attempt(definition, out, options, output, CacheTrust::Optimistic) {
        Err(failed) if failed.is_cache_damaged => {
            output.warn(
                "packages in the cache are damaged: they are installed again, and the build starts over",
                None,
            );
            attempt(definition, out, options, output, CacheTrust::Verified)
        }
        result => result,
    }
    .map_err(|failed| failed.error)
}

/// Runs all stages once. `trust_cache` allows the use of cached packages before their hashes are
/// verified.
fn attempt(
    definition: &Definition,
    out: &Path,
    options: &BuildOptions,
    output: &Output,
    trust_cache: CacheTrust,
) -> Result<Built, FailedAttempt> {
    let staging = Staging::open(out)?;
    let context = BuildContext::open(definition, out, options, output, &staging, trust_cache)?;
    let loaded = Loaded::load(&context)?;
    let sources: SharedSources = loaded.sources();
    match finish_stages(loaded, &context, staging) {
        Ok(published) => context.into_built(published).map_err(FailedAttempt::from),
        Err(error) => Err(FailedAttempt {
            is_cache_damaged: is_any_damaged(&sources),
            error,
        }),
    }
}

fn finish_stages(
    loaded: Loaded,
    context: &BuildContext,
    mut staging: Staging,
) -> Result<Published> {
    let scrubbed = loaded.scrub(context)?;
    let checked = scrubbed.check(context)?;
    let root_written = checked.write_root(context, &mut staging)?;
    let started = root_written.write_boot_artifacts(context, &mut staging)?;
    started.publish(context, staging)
}

/// Why an attempt failed.
pub(super) struct FailedAttempt {
    error: Error,
    /// Whether a cached source was damaged. Any other error may be its consequence.
    is_cache_damaged: bool,
}

impl FailedAttempt {
    /// A failure while `sources` were in use.
    pub fn new(error: Error, sources: &[crate::source::LoadedSource]) -> FailedAttempt {
        FailedAttempt {
            is_cache_damaged: is_any_damaged(sources),
            error,
        }
    }
}

impl From<Error> for FailedAttempt {
    fn from(error: Error) -> FailedAttempt {
        FailedAttempt {
            error,
            is_cache_damaged: false,
        }
    }
}

/// The inputs that do not change during a build.
pub(super) struct BuildContext<'a> {
    pub definition: &'a Definition,
    pub out: &'a Path,
    pub options: &'a BuildOptions,
    pub output: &'a Output,
    /// `ID_VERSION`.
    pub stem: String,
    /// The agent's program.
    pub agent: Vec<u8>,
    pub signers: Signers,
    /// Directories and cache policy of the sources.
    pub load_context: LoadContext,
    /// The cache of compressed clusters.
    pub cache: Option<Arc<Cache>>,
    /// The reference image.
    pub reference: Option<Arc<Reference>>,
    pub clock: Clock<'a>,
}

impl<'a> BuildContext<'a> {
    /// Opens all inputs but the sources.
    fn open(
        definition: &'a Definition,
        out: &'a Path,
        options: &'a BuildOptions,
        output: &'a Output,
        staging: &Staging,
        trust_cache: CacheTrust,
    ) -> Result<BuildContext<'a>> {
        let clock = Clock::new(output);
        let agent = agent::read(options.agent.as_deref())?;
        let signers = signers::open(&definition.sign, options.unsigned)?;
        let load_context = LoadContext {
            cache: cache_folder(options.cache.as_deref()),
            spool: staging.parent().to_owned(),
            use_cache: options.use_cache,
            trust_cache,
        };
        let cache = if options.use_cache {
            Some(Arc::new(Cache::open(
                &load_context.cache,
                &erofs::library_versions(),
            )?))
        } else {
            None
        };
        // The reference image may be in OUT, so it is opened before OUT changes.
        let reference = options
            .reference
            .as_deref()
            .map(|path| clock.time("reference", || read_reference(path)))
            .transpose()?;
        Ok(BuildContext {
            definition,
            out,
            options,
            output,
            stem: definition.stem(),
            agent,
            signers,
            load_context,
            cache,
            reference,
            clock,
        })
    }

    /// Writes the new cache entries and gives the result of the build.
    fn into_built(self, published: Published) -> Result<Built> {
        let clock = self.clock;
        let used = self
            .cache
            .and_then(Arc::into_inner)
            .map(|cache| clock.time("cache", || Ok(cache.finish())))
            .transpose()?
            .unwrap_or_default();
        self.output.detail(format_args!(
            "cache: {} results found, {} made",
            used.hits, used.misses
        ));
        Ok(Built {
            out: self.out.to_owned(),
            stem: self.stem,
            manifest: published.manifest,
            scrubbed: published.scrubbed,
            findings: published.findings,
            modules: published.modules,
            stages: clock.into_stages(),
        })
    }
}

fn read_reference(path: &Path) -> Result<Arc<Reference>> {
    let what = || format!("--reference {}", path.display());
    let remedy = "name an OUT directory or a .root.erofs that adamant built, or leave out --reference: the image is equally good, but the update is larger";
    let file = File::open(path).and_then(Part::whole).context(what)?;
    Reference::read(file)
        .map(Arc::new)
        .context(what)
        .map_err(|error| error.hint(remedy))
}
