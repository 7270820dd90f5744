//! The stages of a build, in order. Data flows one way, content is streamed, and what goes wrong
//! anywhere leaves OUT as it was.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use adamant_contract::hex;

use super::artifacts::{Artifacts, Clock};
use super::staging::Staging;
use super::{Options, agent, cmdline, compression, machine, root, signatures, signers, start};
use crate::cache::Cache;
use crate::definition::Definition;
use crate::disk::{DiskLayout, PartitionSizes};
use crate::erofs::{self, Reference};
use crate::error::{Context, Error, Result};
use crate::initramfs::{self, ImageKernel};
use crate::io::part::Part;
use crate::manifest::{self, Artifact, Manifest};
use crate::rootfs::check::{Finding, check};
use crate::rootfs::inject;
use crate::rootfs::scrub::keep::Keep;
use crate::rootfs::scrub::{self, Done, scrub};
use crate::rootfs::volumes;
use crate::source::{
    CacheTrust, LoadContext, Loaded, bound_lengths, cache_folder, debian, dpkg, load,
};
use crate::term::output::Output;
use crate::tree::{Tree, show};
use crate::uki;

/// So many packages are named where there is no room.
const BIGGEST: usize = 5;

/// What a build made.
#[derive(Debug)]
pub struct Built {
    /// The folder that the artifacts are in.
    pub out: PathBuf,
    /// `ID_VERSION`: what the artifacts' names start with.
    pub stem: String,
    /// The manifest, as it is in OUT.
    pub manifest: Manifest,
    /// What scrubbing did.
    pub scrubbed: Vec<Done>,
    /// What an operator should know; none of it is an error.
    pub findings: Vec<Finding>,
    /// Modules in the initramfs, in load order.
    pub modules: Vec<String>,
    /// The stages in order, with the time each took.
    pub stages: Vec<(&'static str, Duration)>,
}

/// Builds the image and puts its artifacts into `out`.
pub fn build(
    definition: &Definition,
    out: &Path,
    options: &Options,
    output: &Output,
) -> Result<Built> {
    let mut sources = Vec::new();
    match attempt(
        definition,
        out,
        options,
        output,
        CacheTrust::Optimistic,
        &mut sources,
    ) {
        // A corrupted archive of the cache explains any error. Build again with verified archives.
        Err(_) if sources.iter().any(Loaded::is_corrupted) => {
            output.warn("packages in the cache are damaged: they are put together again, and all is built from the start", None);
            attempt(
                definition,
                out,
                options,
                output,
                CacheTrust::Verified,
                &mut sources,
            )
        }
        done => done,
    }
}

/// Builds once. `sources` receives the loaded sources. `trust_cache` decides whether archives of
/// the cache are used before their digest is known.
fn attempt(
    definition: &Definition,
    out: &Path,
    options: &Options,
    output: &Output,
    trust_cache: CacheTrust,
    sources: &mut Vec<Loaded>,
) -> Result<Built> {
    let stem = definition.stem();
    let mut clock = Clock {
        output,
        stages: Vec::new(),
    };
    let mut staging = Staging::open(out)?;
    let agent = agent::read(options.agent.as_deref())?;
    let signers = signers::open(&definition.sign, options.unsigned)?;

    let (cache, spool) = (
        cache_folder(options.cache.as_deref()),
        staging.parent().to_owned(),
    );
    let context = LoadContext {
        cache,
        spool,
        use_cache: options.use_cache,
        trust_cache,
    };
    let cache = if options.use_cache {
        Some(Arc::new(Cache::open(
            &context.cache,
            &erofs::library_versions(),
        )?))
    } else {
        None
    };
    // Before anything is put into OUT, where it may be.
    let reference = options
        .reference
        .as_deref()
        .map(|path| clock.time("reference", || read_reference(path)))
        .transpose()?;
    let mut tree = clock.time("sources", || load(definition, &context, sources))?;
    let epoch = definition
        .epoch
        .or_else(|| sources.iter().filter_map(|source| source.date).max());
    let scrubbed = clock.time("scrub", || scrub(&mut tree, definition, epoch))?;
    tell_scrubbed(&scrubbed, output);
    tell_volumes(&tree, definition, output);
    let findings = clock.time("check", || {
        bound_lengths(&tree, definition.limits)?;
        inject::inject(&mut tree, definition, &agent, epoch)?;
        let archives = sources
            .iter()
            .filter_map(|source| source.archive.as_ref())
            .flat_map(|archive| &archive.warnings)
            .map(missing_suite);
        let keep = Keep::new(&definition.keep)?;
        let databases = sources
            .iter()
            .flat_map(|source| &source.databases)
            .filter_map(|database| database.finding(&tree, &keep));
        let of_sources = sources
            .iter()
            .flat_map(|source| source.findings.iter().cloned())
            .chain(archives)
            .chain(databases);
        refuse_errors(
            of_sources
                .chain(scrub::notes(&scrubbed))
                .chain(check(&tree, definition))
                .collect(),
            output,
        )
    })?;

    let kernel = initramfs::find_kernel(&tree)?;
    let compression = compression::choose(definition.root.compression, kernel.as_ref())?;
    compression::check_optimize(definition.root.optimize, compression, kernel.as_ref())?;
    let initramfs = match &kernel {
        Some(kernel) => {
            let certificate = signers
                .verity
                .as_ref()
                .map(|holder| holder.certificate.pem())
                .transpose()?;
            let own = &definition.kernel.cmdline;
            let debug = definition.boot.debug.as_ref().map(|words| {
                cmdline::words(&format!("{own} {words}"))
                    .context(|| "boot.debug, behind kernel.cmdline".to_owned())
            });
            let command_lines = std::iter::once(cmdline::words(own))
                .chain(debug)
                .collect::<Result<_>>()?;
            let embedded = initramfs::EmbeddedConfig {
                certificate,
                rule: signers::rule(definition.signature, &signers, epoch)?,
                command_lines,
            };
            Some(clock.time("initramfs", || {
                initramfs::build(
                    &tree,
                    definition,
                    kernel,
                    &agent,
                    &embedded,
                    cache.as_deref(),
                )
            })?)
        }
        None => {
            let wanted = if options.disk {
                options.formats.first().map(|format| format.name())
            } else {
                Some("uki")
            };
            if let Some(wanted) = wanted {
                return Err(Error::new(format!("--format {wanted}: the image has no kernel, so there will be nothing that starts"))
                    .hint("add a kernel to the sources, or leave --format away"));
            }
            output.warn("the image has no kernel: there will be a root, its verity tree and its root hash, but nothing to boot", None);
            None
        }
    };

    let (root_name, tree_name) = (format!("{stem}.root.erofs"), format!("{stem}.root.verity"));
    let (root_file, tree_file) = (staging.file(&root_name)?, staging.file(&tree_name)?);
    let names = [out.join(&root_name), out.join(&tree_name)];
    let means = root::Means {
        jobs: options.jobs,
        spool: &context.spool,
        names: [&names[0], &names[1]],
        cache: cache.clone(),
    };
    let root = clock.time("root", || {
        root::write(
            &tree,
            definition,
            compression,
            reference.clone(),
            means,
            &root_file,
            &tree_file,
        )
    })?;
    if reference.is_some() && !root.written.placement_reused {
        output.warn("with the block positions of the reference image this image would be more than 1 % larger, so they were not reused", None);
    }

    staging.sync(&root_name, &root_file);

    // Before anything is signed.
    if clock.time("source hash", || {
        Ok(sources.iter().any(Loaded::is_corrupted))
    })? {
        return Err(Error::new("what the cache has of the sources is damaged"));
    }

    let mut artifacts = Artifacts {
        staging: &mut staging,
        stem: &stem,
        list: Vec::new(),
    };
    let (root_size, tree_size) = (root.written.blocks * 4096, root.tree_blocks * 4096);
    let hash = root.hash;
    let image = manifest::ImageVersion {
        id: definition.id.clone(),
        version: definition.version.clone(),
    };
    let (mut pcr11, mut pcr11_debug) = (Vec::new(), Vec::new());
    let root_sha256 = match (&kernel, &initramfs) {
        (Some(kernel), Some(initramfs)) => {
            let cmdline = cmdline::compose(&root.hash, &definition.kernel.cmdline)?;
            let linux = kernel.read_image(&tree)?;
            artifacts.put("vmlinuz", &linux)?;
            artifacts.put("initrd", &initramfs.bytes)?;
            artifacts.put("cmdline", format!("{cmdline}\n").as_bytes())?;
            let programs = match start::programs(&tree, definition, output)? {
                None if !options.disk => {
                    return Err(Error::new(
                        "--format uki: there will be none without systemd's stub",
                    )
                    .hint("add the package systemd-boot-efi, or write boot.stub and boot.loader"));
                }
                None => None,
                Some(programs) => {
                    let public_key = signers
                        .pcr
                        .as_ref()
                        .map(|holder| holder.certificate.public_key_pem())
                        .transpose()?;
                    let key = public_key.as_deref().map(str::as_bytes);
                    let kernel_words = &definition.kernel.cmdline;
                    let debug = definition
                        .boot
                        .debug
                        .as_ref()
                        .map(|words| {
                            cmdline::compose(&root.hash, &format!("{kernel_words} {words}"))
                        })
                        .transpose()?;
                    let started = start::Started {
                        initrd: &initramfs.bytes,
                        cmdline: &cmdline,
                        pcr_public_key: key,
                        debug: debug.as_deref(),
                    };
                    let unified =
                        start::unified(&tree, definition, kernel, &programs.stub, &linux, started)?;
                    pcr11 = uki::measure::phases(&unified);
                    pcr11_debug = uki::profile::debug_phases(&unified).unwrap_or_default();
                    Some((programs.loader, unified))
                }
            };
            let sizes = PartitionSizes {
                root: root_size,
                hash_tree: tree_size,
                esp: programs.is_some(),
                signature: signers.verity.is_some(),
            };
            let layout = if options.disk {
                Some(
                    DiskLayout::new(definition, &root.hash, sizes)
                        .map_err(|e| with_packages(e, &tree))?,
                )
            } else {
                None
            };
            let (root, tree, layout, formats) =
                (&root_file, &tree_file, layout.as_ref(), &options.formats);
            let parts = machine::Parts {
                image: &image,
                hash,
                programs,
                root,
                tree,
                layout,
                formats,
                epoch,
            };
            machine::make(parts, &signers, &mut artifacts, &mut clock, options.jobs)?
        }
        _ => clock.time("hash", || {
            machine::digest(&root_file).context(|| root_name.clone())
        })?,
    };
    artifacts.note("root.erofs", root_size, root_sha256);
    artifacts.note("root.verity", tree_size, root.tree_sha256);
    artifacts.put("roothash", format!("{}\n", root.hash).as_bytes())?;
    let mut list = artifacts.list;
    list.sort_by(|a, b| a.name.cmp(&b.name));

    let manifest = describe(
        definition,
        image,
        &tree,
        sources,
        &scrubbed,
        epoch,
        kernel.as_ref(),
        compression,
        reference.as_deref(),
        &root,
        list,
    )?;
    let manifest = Manifest {
        pcr11: measurements(&pcr11),
        pcr11_debug: measurements(&pcr11_debug),
        signatures: signatures(&signers),
        ..manifest
    };
    staging.put(&format!("{stem}{}", manifest::SUFFIX), &manifest.to_json()?)?;
    drop((root_file, tree_file));
    clock.time("publish", || staging.publish(&manifest, options.replace))?;
    let cached = cache
        .and_then(Arc::into_inner)
        .map(|cache| clock.time("cache", || Ok(cache.finish())))
        .transpose()?
        .unwrap_or_default();
    output.detail(format_args!(
        "cache: {} results found, {} made",
        cached.hits, cached.misses
    ));
    let modules = initramfs
        .map(|initramfs| initramfs.modules)
        .unwrap_or_default();
    Ok(Built {
        out: out.to_owned(),
        stem,
        manifest,
        scrubbed,
        findings,
        modules,
        stages: clock.stages,
    })
}

/// Reads the reference image.
fn read_reference(path: &Path) -> Result<Arc<Reference>> {
    let what = || format!("--reference {}", path.display());
    let file = File::open(path).and_then(Part::whole).context(what)?;
    let hint = "name an OUT folder or a .root.erofs that adamant built, or leave out --reference: the image is then as good, but the update is larger";
    Ok(Arc::new(
        Reference::read(file)
            .context(what)
            .map_err(|error| error.hint(hint))?,
    ))
}

/// What fits no slot is made smaller by leaving out what is big.
fn with_packages(error: Error, tree: &Tree) -> Error {
    let Ok(mut packages) = dpkg::installed_sizes(tree, b"/") else {
        return error;
    };
    packages.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let biggest: Vec<String> = packages
        .iter()
        .take(BIGGEST)
        .map(|(name, kib)| format!("{name} {} MiB", kib >> 10))
        .collect();
    let Some(hint) = error.remedy().filter(|_| !biggest.is_empty()).map(|hint| {
        format!(
            "{hint}; the biggest, before compression: {}",
            biggest.join(", ")
        )
    }) else {
        return error;
    };
    error.hint(hint)
}

fn measurements(pcr11: &[(String, [u8; 32])]) -> Vec<manifest::Measurement> {
    pcr11
        .iter()
        .map(|(phases, value)| manifest::Measurement {
            phases: phases.clone(),
            sha256: hex::encode(value),
        })
        .collect()
}

fn tell_scrubbed(scrubbed: &[Done], output: &Output) {
    for done in scrubbed.iter().filter(|done| !done.paths.is_empty()) {
        output.say(format_args!("scrub {}: {}", done.rule, done.paths.len()));
        for path in &done.paths {
            output.detail(format_args!("scrub {}: {}", done.rule, show(path)));
        }
    }
}

/// A suite with updates that the archives of a source do not have.
fn missing_suite(warning: &debian::Warning) -> Finding {
    Finding {
        is_error: false,
        rule: "suites",
        message: warning.message.clone(),
        hint: warning.remedy.clone(),
    }
}

/// What updates replace on servers, and what is always the running image's.
fn tell_volumes(tree: &Tree, definition: &Definition, output: &Output) {
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

/// Errors end the build, all at once; warnings are said and given back.
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
        "the image can't work like this:\n{}",
        lines.join("\n")
    )))
}

#[expect(
    clippy::too_many_arguments,
    reason = "the manifest is about everything there is"
)]
fn describe(
    definition: &Definition,
    image: manifest::ImageVersion,
    tree: &Tree,
    sources: &[Loaded],
    scrubbed: &[Done],
    epoch: Option<i64>,
    kernel: Option<&ImageKernel>,
    compression: crate::definition::Compression,
    reference: Option<&Reference>,
    root: &root::Root,
    artifacts: Vec<Artifact>,
) -> Result<Manifest> {
    Ok(Manifest {
        version: manifest::VERSION,
        image,
        tool: format!("adamant {}", env!("CARGO_PKG_VERSION")),
        definition: hex::encode(&definition.digest),
        epoch,
        root: manifest::RootRecord {
            hash: root.hash.to_string(),
            salt: hex::encode(&root.superblock.salt),
            verity_uuid: adamant_contract::gpt::Guid::from_text_order(root.superblock.uuid)
                .to_string(),
            blocks: root.written.blocks,
            tree_blocks: root.tree_blocks,
            compression: compression::name(compression),
            cluster: definition.root.cluster,
            optimize: definition.root.optimize,
            reference: reference.map(|reference| hex::encode(&reference.sha256)),
            inodes: root.written.inodes,
            content: root.written.content,
        },
        kernel: kernel.map(|kernel| kernel.release.clone()),
        pcr11: Vec::new(),
        pcr11_debug: Vec::new(),
        credentials: definition.credentials.accept.clone(),
        signatures: Vec::new(),
        artifacts,
        sources: sources
            .iter()
            .map(|source| {
                let sha256 = hex::encode(&source.sha256.wait().context(|| source.name.clone())?);
                let suites = source
                    .archive
                    .as_ref()
                    .map(|archive| archive.suites.clone())
                    .unwrap_or_default();
                Ok(manifest::SourceRecord {
                    kind: source.kind.to_owned(),
                    name: source.name.clone(),
                    sha256,
                    entries: source.entries,
                    suites,
                })
            })
            .collect::<Result<_>>()?,
        scrubbed: scrubbed
            .iter()
            .filter(|done| !done.paths.is_empty())
            .map(|done| manifest::Scrubbed {
                rule: done.rule.to_owned(),
                entries: done.paths.len() as u64,
            })
            .collect(),
        packages: dpkg::installed_packages(tree, b"/")?,
        volumes: definition
            .volumes
            .iter()
            .map(|volume| {
                let adamant_contract::policy::Volume {
                    name,
                    mount,
                    refresh,
                    ..
                } = volume.policy.clone();
                let units = volumes::shipped(tree, definition, &mount).units;
                manifest::VolumeRecord {
                    name,
                    mount,
                    refresh,
                    units,
                }
            })
            .collect(),
        image_data: volumes::image_data(tree, definition),
    })
}
