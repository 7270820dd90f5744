//! The stages that make the content of the root: [`Loaded`], [`Scrubbed`] and [`Checked`].

use std::sync::Arc;

use super::cmdline::KernelArguments;
use super::compression;
use super::root::{RootWritten, WriteOptions, write_root};
use super::signers;
use super::stages::{BuildContext, FailedAttempt};
use super::staging::Staging;
use crate::definition::{Compression, Definition};
use crate::error::{Error, Result};
use crate::glob::PathGlobs;
use crate::initramfs::{self, ImageKernel, Initramfs};
use crate::rootfs::check::{Finding, check};
use crate::rootfs::inject;
use crate::rootfs::scrub::{self, Done, scrub};
use crate::rootfs::volumes;
use crate::source::{self, bound_lengths, debian};
use crate::term::output::Output;
use crate::tree::{Tree, show};

/// The sources of a build, which its failure handling needs too.
pub(super) type SharedSources = Arc<[source::LoadedSource]>;

/// Whether a cached source turned out to be damaged. Waits until this is known.
pub(super) fn is_any_damaged(sources: &[source::LoadedSource]) -> bool {
    sources.iter().any(source::LoadedSource::is_corrupted)
}

/// The file tree of the image, and its origin.
pub(super) struct RootContent {
    pub tree: Tree,
    pub sources: SharedSources,
    /// Newest modification time in the image, seconds since 1970.
    pub epoch: Option<i64>,
}

/// First stage: all sources are loaded into one file tree.
pub(super) struct Loaded(RootContent);

impl Loaded {
    /// Loads the sources of the definition.
    pub fn load(context: &BuildContext) -> Result<Loaded, FailedAttempt> {
        let definition = context.definition;
        let mut sources = Vec::new();
        let tree = context
            .clock
            .time("sources", || {
                source::load(definition, &context.load_context, &mut sources)
            })
            .map_err(|error| FailedAttempt::new(error, &sources))?;
        let published = sources.iter().filter_map(|source| source.date).max();
        Ok(Loaded(RootContent {
            tree,
            sources: sources.into(),
            epoch: definition.epoch.or(published),
        }))
    }

    /// The sources.
    pub fn sources(&self) -> SharedSources {
        self.0.sources.clone()
    }

    /// Removes content that must differ between servers or builds.
    pub fn scrub(self, context: &BuildContext) -> Result<Scrubbed> {
        let Loaded(mut content) = self;
        let epoch = content.epoch;
        let done = context.clock.time("scrub", || {
            scrub(&mut content.tree, context.definition, epoch)
        })?;
        report_scrubbed(&done, context.output);
        Ok(Scrubbed { content, done })
    }
}

/// Second stage: the tree is scrubbed.
pub(super) struct Scrubbed {
    content: RootContent,
    done: Vec<Done>,
}

impl Scrubbed {
    /// Adds the builder's own files, checks the tree, and makes the initramfs.
    pub fn check(mut self, context: &BuildContext) -> Result<Checked> {
        let findings = context.clock.time("check", || {
            bound_lengths(&self.content.tree, context.definition.limits)?;
            inject::inject(
                &mut self.content.tree,
                context.definition,
                &context.agent,
                self.content.epoch,
            )?;
            refuse_errors(self.findings(context.definition)?, context.output)
        })?;
        report_volumes(&self.content.tree, context.definition, context.output);
        let kernel = initramfs::find_kernel(&self.content.tree)?;
        let root = &context.definition.root;
        let compression = compression::choose(root.compression, kernel.as_ref())?;
        compression::check_optimize(root.optimize, compression, kernel.as_ref())?;
        let boot_files = match kernel {
            Some(kernel) => Some(BootFiles::make(kernel, &self.content, context)?),
            None => {
                accept_missing_kernel(context)?;
                None
            }
        };
        Ok(Checked {
            content: self.content,
            scrubbed: self.done,
            findings,
            compression,
            boot_files,
        })
    }

    fn findings(&self, definition: &Definition) -> Result<Vec<Finding>> {
        let RootContent { tree, sources, .. } = &self.content;
        let keep = PathGlobs::new(&definition.keep)?;
        let from_sources = sources
            .iter()
            .flat_map(|source| source.findings.iter().cloned());
        let missing_suites = sources
            .iter()
            .filter_map(|source| source.archive.as_ref())
            .flat_map(|archive| &archive.warnings)
            .map(missing_suite);
        let databases = sources
            .iter()
            .flat_map(|source| &source.databases)
            .filter_map(|database| database.finding(tree, &keep));
        Ok(from_sources
            .chain(missing_suites)
            .chain(databases)
            .chain(scrub::notes(&self.done))
            .chain(check(tree, definition))
            .collect())
    }
}

/// Third stage: the tree is final and passed all checks.
pub(super) struct Checked {
    pub content: RootContent,
    pub scrubbed: Vec<Done>,
    /// Warnings; errors have ended the build.
    pub findings: Vec<Finding>,
    /// Never `Auto`.
    pub compression: Compression,
    /// `None` if the image has no kernel.
    pub boot_files: Option<BootFiles>,
}

impl Checked {
    /// Writes the root file system and its hash tree.
    pub fn write_root(self, context: &BuildContext, staging: &mut Staging) -> Result<RootWritten> {
        let root_name = format!("{}.root.erofs", context.stem);
        let hash_tree_name = format!("{}.root.verity", context.stem);
        let root_file = staging.file(&root_name)?;
        let hash_tree_file = staging.file(&hash_tree_name)?;
        let options = WriteOptions {
            jobs: context.options.jobs,
            spool: context.load_context.spool.clone(),
            root_name: context.out.join(&root_name),
            hash_tree_name: context.out.join(&hash_tree_name),
            cache: context.cache.clone(),
            reference: context.reference.clone(),
        };
        let root = context.clock.time("root", || {
            write_root(
                &self.content.tree,
                context.definition,
                self.compression,
                options,
                &root_file,
                &hash_tree_file,
            )
        })?;
        if context.reference.is_some() && !root.written.placement_reused {
            context.output.warn(
                "with the block positions of the reference image this image would be more than 1 % larger, so they were not reused",
                None,
            );
        }
        staging.sync(&root_name, &root_file);
        // Nothing may be signed before the content is known to be right.
        let is_corrupted = || Ok(is_any_damaged(&self.content.sources));
        if context.clock.time("source hash", is_corrupted)? {
            return Err(Error::new("the sources in the cache are damaged"));
        }
        Ok(RootWritten {
            checked: self,
            root,
            root_file,
            hash_tree_file,
        })
    }
}

/// What boots the root, but for the root hash.
pub(super) struct BootFiles {
    pub kernel: ImageKernel,
    pub arguments: KernelArguments,
    pub initramfs: Initramfs,
}

impl BootFiles {
    fn make(
        kernel: ImageKernel,
        content: &RootContent,
        context: &BuildContext,
    ) -> Result<BootFiles> {
        let (definition, signers) = (context.definition, &context.signers);
        let certificate = signers
            .verity
            .as_ref()
            .map(|identity| identity.certificate.pem())
            .transpose()?;
        let arguments = KernelArguments::new(definition)?;
        let demands = initramfs::EmbeddedConfig {
            certificate,
            rule: signers::signature_rule(definition.signature, signers, content.epoch)?,
            command_lines: arguments.list(),
        };
        let initramfs = context.clock.time("initramfs", || {
            initramfs::build(
                &content.tree,
                definition,
                &kernel,
                &context.agent,
                &demands,
                context.cache.as_deref(),
            )
        })?;
        Ok(BootFiles {
            kernel,
            arguments,
            initramfs,
        })
    }
}

/// Warns about an image without a kernel, and refuses it if the options ask for artifacts that
/// boot.
fn accept_missing_kernel(context: &BuildContext) -> Result<()> {
    let wanted = if context.options.disk {
        context.options.formats.first().map(|format| format.name())
    } else {
        Some("uki")
    };
    if let Some(wanted) = wanted {
        return Err(Error::new(format!(
            "--format {wanted}: the image has no kernel, so there is nothing to boot"
        ))
        .hint("add a kernel to the sources, or leave out --format"));
    }
    context.output.warn(
        "the image has no kernel: the build makes a root file system, its hash tree and its root hash, but nothing that boots",
        None,
    );
    Ok(())
}

fn report_scrubbed(scrubbed: &[Done], output: &Output) {
    for done in scrubbed.iter().filter(|done| !done.paths.is_empty()) {
        output.say(format_args!("scrub {}: {}", done.rule, done.paths.len()));
        for path in &done.paths {
            output.detail(format_args!("scrub {}: {}", done.rule, show(path)));
        }
    }
}

/// A warning about a suite that the archives of a source do not have.
fn missing_suite(warning: &debian::Warning) -> Finding {
    Finding {
        is_error: false,
        rule: "suites",
        message: warning.message.clone(),
        hint: warning.remedy.clone(),
    }
}

/// Names the units that updates replace on servers, and the paths that always show the running
/// image's content.
fn report_volumes(tree: &Tree, definition: &Definition, output: &Output) {
    if !output.verbose() {
        return;
    }
    for volume in &definition.volumes {
        for unit in volumes::shipped(tree, definition, &volume.policy.mount).units {
            output.detail(format_args!("volume {}: unit {unit}", volume.policy.name));
        }
    }
    for path in volumes::image_data(tree, definition) {
        output.detail(format_args!(
            "image data {path}: shown from the verified root"
        ));
    }
}

/// Reports warnings and returns them. Errors end the build, all at once.
fn refuse_errors(findings: Vec<Finding>, output: &Output) -> Result<Vec<Finding>> {
    let (errors, warnings): (Vec<_>, Vec<_>) =
        findings.into_iter().partition(|finding| finding.is_error);
    for warning in &warnings {
        output.warn(
            format_args!("{}: {}", warning.rule, warning.message),
            Some(&warning.hint),
        );
    }
    if errors.is_empty() {
        return Ok(warnings);
    }
    let lines: Vec<String> = errors
        .iter()
        .map(|error| format!("{}: {}\n  {}", error.rule, error.message, error.hint))
        .collect();
    Err(Error::new(format!(
        "the image would not work:\n{}",
        lines.join("\n")
    )))
}
