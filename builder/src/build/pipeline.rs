//! The stages of a build, in order. Data flows one way, content is streamed, and what goes wrong anywhere leaves OUT as it was.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use adamant_agent::gpt::Guid;
use adamant_agent::hash::{RootHash, hex};
use sha2::{Digest, Sha256};

use super::signers::Signers;
use super::staging::Staging;
use super::{Options, agent, cmdline, compression, fit, root, signers, start};
use crate::check::{Finding, check};
use crate::definition::Definition;
use crate::disk::{self, Contents, Layout, Sizes};
use crate::error::{Context, Error, Result};
use crate::format::{self, Facts};
use crate::initramfs::{self, Kernel};
use crate::manifest::{self, Artifact, Manifest};
use crate::output::Output;
use crate::scrub::{Done, scrub};
use crate::sign::roothash;
use crate::source::{Loaded, Surroundings, cache_folder, load};
use crate::tree::{Tree, show};
use crate::uki;
use crate::verity::uuid_from;

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
pub fn build(definition: &Definition, out: &Path, options: &Options, output: &Output) -> Result<Built> {
    let stem = definition.stem();
    let mut clock = Clock { output, stages: Vec::new() };
    let mut staging = Staging::open(out)?;
    let agent = agent::read(options.agent.as_deref())?;
    let signers = signers::open(&definition.sign, options.unsigned)?;

    let surroundings = Surroundings { cache: cache_folder(options.cache.as_deref()), spool: staging.parent().to_owned(), use_cache: options.use_cache };
    let (mut tree, sources) = clock.time("sources", || load(definition, &surroundings))?;
    let epoch = definition.epoch.or_else(|| sources.iter().filter_map(|source| source.date).max());
    let scrubbed = clock.time("scrub", || scrub(&mut tree, definition, epoch))?;
    tell_scrubbed(&scrubbed, output);
    let findings = clock.time("check", || {
        fit::fit(&mut tree, definition, &agent, epoch)?;
        refuse_errors(check(&tree, definition), output)
    })?;

    let kernel = initramfs::find_kernel(&tree)?;
    let compression = compression::choose(definition.root.compression, kernel.as_ref())?;
    let initramfs = match &kernel {
        Some(kernel) => {
            let trusted = signers.verity.as_ref().map(|holder| holder.certificate.pem()).transpose()?;
            Some(clock.time("initramfs", || initramfs::build(&tree, definition, kernel, &agent, trusted.as_deref()))?)
        }
        None => {
            if let Some(format) = options.formats.first() {
                return Err(Error::new(format!("--format {format}: the image has no kernel, so there will be no disk"))
                    .hint("add a kernel to the sources, or leave --format away"));
            }
            output.warn("the image has no kernel: there will be a root, its verity tree and its root hash, but nothing to boot", None);
            None
        }
    };

    let (root_name, tree_name) = (format!("{stem}.root.erofs"), format!("{stem}.root.verity"));
    let (root_file, tree_file) = (staging.file(&root_name)?, staging.file(&tree_name)?);
    let root = clock.time("root", || root::write(&tree, definition, compression, options.jobs, &root_file, &tree_file))?;

    let mut artifacts = Artifacts { staging: &mut staging, stem: &stem, list: Vec::new() };
    let (root_size, tree_size) = (root.written.blocks * 4096, root.tree_blocks * 4096);
    let mut pcr11 = Vec::new();
    let root_sha256 = match (&kernel, &initramfs) {
        (Some(kernel), Some(initramfs)) => {
            let cmdline = cmdline::compose(&root.hash, &definition.kernel.cmdline)?;
            let linux = kernel.read_image(&tree)?;
            artifacts.put("vmlinuz", &linux)?;
            artifacts.put("initrd", &initramfs.bytes)?;
            artifacts.put("cmdline", format!("{cmdline}\n").as_bytes())?;
            let signature = artifacts.sign_root_hash(&signers, &root.hash)?;
            let esp = match start::programs(&tree, definition, output)? {
                None => None,
                Some(programs) => {
                    let public_key = signers.pcr.as_ref().map(|holder| holder.certificate.public_key_pem()).transpose()?;
                    let key = public_key.as_deref().map(str::as_bytes);
                    let started = start::Started { initrd: &initramfs.bytes, cmdline: &cmdline, pcr_public_key: key };
                    let image = start::unified(&tree, definition, kernel, &programs.stub, &linux, started)?;
                    pcr11 = uki::measure::phases(&image);
                    let (loader, image) = clock.time("sign", || start::sign(programs.loader, image, &signers))?;
                    artifacts.put("efi", &image)?;
                    artifacts.put("loader.efi", &loader)?;
                    let file = artifacts.staging.scratch()?;
                    let entries = disk::esp::entries(&stem, loader, image);
                    let guid = disk::derived_guid(&definition.id, "esp");
                    clock.time("esp", || disk::esp::write(&file, definition.disk.esp, definition.disk.sector, &guid, &entries))?;
                    Some(file)
                }
            };
            let sizes = Sizes { root: root_size, tree: tree_size, esp: esp.is_some(), signature: signers.verity.is_some() };
            let layout = Layout::new(definition, &root.hash, sizes)?;
            let contents = Contents { esp: esp.as_ref(), root: &root_file, tree: &tree_file, signature: &signature };
            let raw = artifacts.staging.file(&format!("{stem}.raw"))?;
            let digests = clock.time("disk", || layout.write(&contents, &raw))?;
            artifacts.note("raw", layout.bytes(), digests.disk);
            for &format in &options.formats {
                let out = artifacts.staging.file(&format!("{stem}.{}", format.suffix()))?;
                let written = clock.time(format.name(), || format::write(format, &raw, &facts(definition, &root.hash, epoch), &out, options.jobs))?;
                artifacts.note(format.suffix(), written.size, written.sha256);
            }
            digests.root
        }
        _ => clock.time("hash", || digest_of(&root_file).context(|| root_name.clone()))?,
    };
    artifacts.note("root.erofs", root_size, root_sha256);
    artifacts.note("root.verity", tree_size, root.tree_sha256);
    artifacts.put("roothash", format!("{}\n", root.hash).as_bytes())?;
    let mut list = artifacts.list;
    list.sort_by(|a, b| a.name.cmp(&b.name));

    let manifest = describe(definition, &tree, &sources, &scrubbed, epoch, kernel.as_ref(), compression, &root, list)?;
    let manifest = Manifest { pcr11: measurements(&pcr11), signatures: signatures(&signers), ..manifest };
    staging.put(&format!("{stem}.manifest.json"), &manifest.to_json()?)?;
    drop((root_file, tree_file));
    clock.time("publish", || staging.publish())?;
    let modules = initramfs.map(|initramfs| initramfs.modules).unwrap_or_default();
    Ok(Built { out: out.to_owned(), stem, manifest, scrubbed, findings, modules, stages: clock.stages })
}

/// What the disk's formats say about it. To a hypervisor two disks of one GUID are the same disk, so the content has a part in it.
fn facts(definition: &Definition, root_hash: &RootHash, epoch: Option<i64>) -> Facts {
    let Definition { id, version, .. } = definition;
    let guid = Guid::from_text_order(uuid_from(b"adamant disk image\0", &format!("{id} {version} {root_hash}")));
    Facts { id: id.clone(), version: version.clone(), guid, epoch: epoch.unwrap_or(0) }
}

fn measurements(pcr11: &[(String, [u8; 32])]) -> Vec<manifest::Measurement> {
    pcr11.iter().map(|(phases, value)| manifest::Measurement { phases: phases.clone(), sha256: hex(value) }).collect()
}

fn signatures(signers: &Signers) -> Vec<manifest::Signature> {
    let all = [("secure-boot", &signers.secure_boot), ("verity", &signers.verity), ("pcr", &signers.pcr)];
    let signature = |(purpose, holder): (&str, &Option<signers::Holder>)| {
        let holder = holder.as_ref()?;
        Some(manifest::Signature { purpose: purpose.to_owned(), certificate: holder.certificate.fingerprint(), signed: holder.signer.is_some() })
    };
    all.into_iter().filter_map(signature).collect()
}

/// Notes how long each stage takes.
struct Clock<'a> {
    output: &'a Output,
    stages: Vec<(&'static str, Duration)>,
}

impl Clock<'_> {
    fn time<T>(&mut self, stage: &'static str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let started = Instant::now();
        let done = work()?;
        let took = started.elapsed();
        self.output.detail(format_args!("{stage}: {:.3} s", took.as_secs_f64()));
        self.stages.push((stage, took));
        Ok(done)
    }
}

/// Artifacts with their digests, as they come to be.
struct Artifacts<'a> {
    staging: &'a mut Staging,
    stem: &'a str,
    list: Vec<Artifact>,
}

impl Artifacts<'_> {
    /// The root hash's signature as an artifact, and the bytes of its partition; empty where nobody has signed.
    fn sign_root_hash(&mut self, signers: &Signers, hash: &RootHash) -> Result<Vec<u8>> {
        let Some(signer) = signers::signer(&signers.verity) else { return Ok(Vec::new()) };
        let signature = roothash::sign(signer, hash)?;
        self.put("roothash.p7s", &signature)?;
        roothash::partition(signer, hash, &signature)
    }

    fn put(&mut self, kind: &str, bytes: &[u8]) -> Result<()> {
        self.staging.put(&format!("{}.{kind}", self.stem), bytes)?;
        self.note(kind, bytes.len() as u64, Sha256::digest(bytes).into());
        Ok(())
    }

    fn note(&mut self, kind: &str, size: u64, sha256: [u8; 32]) {
        self.list.push(Artifact { name: format!("{}.{kind}", self.stem), size, sha256: hex(&sha256) });
    }
}

fn tell_scrubbed(scrubbed: &[Done], output: &Output) {
    for done in scrubbed.iter().filter(|done| !done.paths.is_empty()) {
        output.say(format_args!("scrub {}: {}", done.rule, done.paths.len()));
        for path in &done.paths {
            output.detail(format_args!("scrub {}: {}", done.rule, show(path)));
        }
    }
}

/// Errors end the build, all at once; warnings are said and given back.
fn refuse_errors(findings: Vec<Finding>, output: &Output) -> Result<Vec<Finding>> {
    let (errors, warnings): (Vec<_>, Vec<_>) = findings.into_iter().partition(|finding| finding.is_error);
    for warning in &warnings {
        output.warn(format_args!("{}: {}", warning.rule, warning.message), Some(&warning.hint));
    }
    if errors.is_empty() {
        return Ok(warnings);
    }
    let lines: Vec<String> = errors.iter().map(|error| format!("{}: {}\n  {}", error.rule, error.message, error.hint)).collect();
    Err(Error::new(format!("the image can't work like this:\n{}", lines.join("\n"))))
}

fn digest_of(file: &File) -> std::io::Result<[u8; 32]> {
    use std::io::Seek;
    let mut file = file.try_clone()?;
    file.rewind()?;
    let mut sha256 = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(sha256.finalize().into()),
            read => sha256.update(&buffer[..read]),
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "the manifest is about everything there is")]
fn describe(
    definition: &Definition,
    tree: &Tree,
    sources: &[Loaded],
    scrubbed: &[Done],
    epoch: Option<i64>,
    kernel: Option<&Kernel>,
    compression: crate::definition::Compression,
    root: &root::Root,
    artifacts: Vec<Artifact>,
) -> Result<Manifest> {
    Ok(Manifest {
        version: manifest::VERSION,
        image: manifest::Image { id: definition.id.clone(), version: definition.version.clone() },
        tool: format!("adamant {}", env!("CARGO_PKG_VERSION")),
        definition: hex(&definition.digest),
        epoch,
        root: manifest::Root {
            hash: root.hash.to_string(),
            salt: hex(&root.superblock.salt),
            verity_uuid: adamant_agent::gpt::Guid::from_text_order(root.superblock.uuid).to_string(),
            blocks: root.written.blocks,
            tree_blocks: root.tree_blocks,
            compression: compression::name(compression),
            cluster: definition.root.cluster,
            inodes: root.written.inodes,
            content: root.written.content,
        },
        kernel: kernel.map(|kernel| kernel.release.clone()),
        pcr11: Vec::new(),
        signatures: Vec::new(),
        artifacts,
        sources: sources
            .iter()
            .map(|source| manifest::Source { kind: source.kind.to_owned(), name: source.name.clone(), sha256: hex(&source.sha256), entries: source.entries })
            .collect(),
        scrubbed: scrubbed
            .iter()
            .filter(|done| !done.paths.is_empty())
            .map(|done| manifest::Scrubbed { rule: done.rule.to_owned(), entries: done.paths.len() as u64 })
            .collect(),
        packages: manifest::packages(tree)?,
    })
}
