//! From text to a checked definition. Everything that is wrong in it is found here, with its place;
//! nothing outside the text is looked at.

use std::cell::RefCell;
use std::path::{Component, Path, PathBuf};

use adamant_contract::policy::{self, Policy, PolicyKey, is_below};
use sha2::{Digest, Sha256};
use toml::Spanned;

use super::mirror::Mirror;
use super::text::Text;
use super::{
    Compression, Debian, Definition, Dir, FileEntry, FileKind, Kernel, Limits, Optimize, Origin,
    Root, Source, Volume, keys, unknown, values,
};
use crate::error::{Error, Result};

/// Largest definition that is read, bytes.
pub const LIMIT: u64 = 1 << 20;
/// A volume is at least this large, bytes: ext4 with a journal needs it.
const SMALLEST_VOLUME: u64 = 16 << 20;
/// And at most this large: what ext4 with blocks of 4096 bytes holds in 32 bits.
pub(super) const LARGEST_VOLUME: u64 = 16 << 40;

/// Reads a definition from its text. `path` is what messages call it by, and its folder is what
/// paths in it are relative to.
pub fn parse(text: &str, path: &Path) -> Result<Definition> {
    let text = Text { path, text };
    let file: keys::File = toml::from_str(text.text)
        .map_err(|e| together(unknown::errors(&text)).unwrap_or_else(|| text.syntax(&e)))?;
    let reader = Reader {
        base: path.parent().unwrap_or(Path::new("")),
        text: &text,
        wrong: RefCell::default(),
    };
    let Some(image) = &file.image else {
        return Err(text.error(
            0..0,
            "table [image] is missing (write [image], id = \"...\" and version = \"...\")",
        ));
    };
    // Each table is read, also when an earlier one was wrong: its mistakes are noted, and told
    // together.
    let identity = reader.noted(reader.identity(image));
    let epoch = image
        .get_ref()
        .epoch
        .as_ref()
        .map(|value| reader.checked(value, values::epoch))
        .transpose();
    let epoch = reader.noted(epoch);
    let mut sources: Vec<Source> = file
        .source
        .iter()
        .filter_map(|source| reader.noted(reader.source(source)))
        .collect();
    sources.extend(
        file.file
            .iter()
            .filter_map(|entry| reader.noted(reader.file(entry))),
    );
    if file.source.is_empty() && file.file.is_empty() {
        reader.noted::<()>(Err(text.error(
            0..0,
            "there is no source (write a [[source]] with debian, tar or dir)",
        )));
    }
    let root = reader.noted(reader.root(file.root.as_ref()));
    let keep = reader.noted(reader.keep(file.scrub.as_ref()));
    let volumes = reader.noted(reader.volumes(&file));
    let verify = reader.noted(reader.verify(file.verify.as_ref()));
    let failure = reader.noted(reader.failure(file.failure.as_ref()));
    let seal =
        reader.noted(reader.seal(file.seal.as_ref(), volumes.as_deref().unwrap_or_default()));
    let kernel = reader.noted(reader.kernel(file.kernel.as_ref()));
    let boot = reader.noted(reader.boot(file.boot.as_ref()));
    let sign = reader.noted(reader.sign(file.sign.as_ref()));
    let disk = reader.noted(reader.disk(file.disk.as_ref()));
    let limits = reader.noted(reader.limits(file.limits.as_ref()));
    if let Some(error) = together(reader.wrong.take()) {
        return Err(error);
    }
    let (
        Some((id, version)),
        Some(epoch),
        Some(root),
        Some(keep),
        Some(volumes),
        Some(verify),
        Some(failure),
        Some(seal),
        Some(kernel),
        Some(boot),
        Some(sign),
        Some(disk),
        Some(limits),
    ) = (
        identity, epoch, root, keep, volumes, verify, failure, seal, kernel, boot, sign, disk,
        limits,
    )
    else {
        return Err(text.error(0..0, "this definition can't be read"));
    };
    let table = file.seal.as_ref().map(|seal| seal.get_ref());
    let scripts = table
        .and_then(|seal| seal.scripts.as_ref())
        .map(|key| *key.get_ref())
        .unwrap_or_default();
    let interpreters = table
        .and_then(|seal| seal.interpreters.as_ref())
        .map(|list| {
            list.get_ref()
                .iter()
                .map(|path| path.get_ref().clone())
                .collect()
        });
    let deny = table
        .and_then(|seal| seal.deny.as_ref())
        .map(|list| list.get_ref().clone())
        .unwrap_or_default();
    let on_violation = file
        .on_violation
        .as_ref()
        .map(|table| violations(table.get_ref()))
        .unwrap_or_default();
    let listen = file
        .drift
        .as_ref()
        .and_then(|table| table.get_ref().listen.as_ref())
        .map(|list| list.get_ref());
    for port in listen.into_iter().flatten() {
        let alone = policy::Drift {
            listen: Some(vec![port.get_ref().clone()]),
        };
        Policy {
            drift: alone,
            ..super::empty_policy()
        }
        .check()
        .map_err(|why| text.error(port.span(), why))?;
    }
    let drift = policy::Drift {
        listen: listen.map(|list| list.iter().map(|port| port.get_ref().clone()).collect()),
    };
    let credentials = file
        .credentials
        .as_ref()
        .and_then(|table| table.get_ref().accept.as_ref());
    let credentials = match credentials.map(|list| list.get_ref()) {
        None => policy::Credentials::default(),
        Some(list) => {
            for glob in list {
                let alone = Policy {
                    credentials: policy::Credentials {
                        accept: vec![glob.get_ref().clone()],
                    },
                    ..super::empty_policy()
                };
                alone.check().map_err(|why| text.error(glob.span(), why))?;
            }
            policy::Credentials {
                accept: list.iter().map(|glob| glob.get_ref().clone()).collect(),
            }
        }
    };
    let signature = file
        .verify
        .as_ref()
        .and_then(|verify| verify.get_ref().signature.as_ref())
        .map(|key| *key.get_ref());
    let digest = Sha256::digest(text.text).into();
    let definition = Definition {
        path: path.to_owned(),
        digest,
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
        seal,
        scripts,
        interpreters: interpreters.unwrap_or_default(),
        deny,
        on_violation,
        drift,
        kernel,
        boot,
        sign,
        disk,
        limits,
    };
    // The agent's own rules, once more over the whole: what the builder accepts, the agent accepts.
    definition
        .policy()
        .check()
        .map_err(|why| text.error(0..0, why))?;
    Ok(definition)
}

fn violations(table: &keys::OnViolation) -> policy::OnViolation {
    let read = |key: &Option<Spanned<policy::Reaction>>| {
        key.as_ref().map(|key| *key.get_ref()).unwrap_or_default()
    };
    policy::OnViolation {
        mounts: read(&table.mounts),
        sysctls: read(&table.sysctls),
        verity: read(&table.verity),
        devices: read(&table.devices),
        denials: read(&table.denials),
    }
}

/// The most mistakes that are told at once; whoever has more has one that repeats.
const TOLD: usize = 20;

/// Many errors as one; `None` where there is none.
fn together(errors: Vec<Error>) -> Option<Error> {
    let mut lines: Vec<&str> = errors.iter().take(TOLD).map(Error::message).collect();
    let more = format!("and {} more mistakes", errors.len().saturating_sub(TOLD));
    if errors.len() > TOLD {
        lines.push(&more);
    }
    (!lines.is_empty()).then(|| Error::new(lines.join("\n")))
}

/// What every table needs to be read.
pub(super) struct Reader<'a> {
    base: &'a Path,
    text: &'a Text<'a>,
    /// Mistakes so far.
    wrong: RefCell<Vec<Error>>,
}

impl Reader<'_> {
    /// Notes a mistake, so that reading can go on with what does not depend on it.
    fn noted<T>(&self, read: Result<T>) -> Option<T> {
        read.map_err(|error| self.wrong.borrow_mut().push(error))
            .ok()
    }

    pub(super) fn error<T>(&self, at: &Spanned<T>, what: impl std::fmt::Display) -> Error {
        self.text.error(at.span(), what)
    }

    /// A value that a function of `values` reads; its complaint gets the value's place.
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

    /// A path of the builder's machine, relative to the definition.
    pub(super) fn path(&self, value: &Spanned<String>) -> Result<PathBuf> {
        let text = value.get_ref();
        if text.is_empty() || text.contains('\0') {
            return Err(self.error(
                value,
                format!("{text:?} is not a path (write it relative to the definition)"),
            ));
        }
        // `.` for the definition's own folder and `a/./b` are the same place as without: one name
        // in messages and manifests.
        let clean: PathBuf = Path::new(text)
            .components()
            .filter(|part| *part != Component::CurDir)
            .collect();
        Ok(self.base.join(clean))
    }

    fn identity(&self, image: &Spanned<keys::Image>) -> Result<(String, String)> {
        let id = self.required(image, "id", &image.get_ref().id)?;
        let version = self.required(image, "version", &image.get_ref().version)?;
        self.checked(id, |id| values::id(id))?;
        self.checked(version, |version| values::version(version))?;
        self.checked(version, |version| values::label(id.get_ref(), version))?;
        Ok((id.get_ref().clone(), version.get_ref().clone()))
    }

    fn source(&self, spanned: &Spanned<keys::Source>) -> Result<Source> {
        let source = spanned.get_ref();
        let origin = match (&source.debian, &source.tar, &source.dir) {
            (Some(debian), None, None) => Origin::Debian(self.debian(debian.get_ref())?),
            (None, Some(tar), None) => Origin::Tar(self.path(tar)?),
            (None, None, Some(dir)) => Origin::Dir(self.dir(dir, source)?),
            (None, None, None) => return Err(self.error(spanned, "this source gives nothing (write one of debian = { ... }, tar = \"...\" or dir = \"...\")")),
            _ => return Err(self.error(spanned, "this source has more than one of debian, tar and dir (write a [[source]] for each)")),
        };
        if source.dir.is_none() {
            let stray = source
                .owner
                .as_ref()
                .map(|key| ("owner", key.span()))
                .or(source
                    .cross_mounts
                    .as_ref()
                    .map(|key| ("cross_mounts", key.span())));
            if let Some((key, span)) = stray {
                return Err(self.text.error(
                    span,
                    format!("key `{key}` belongs to a source with dir (leave it out)"),
                ));
            }
        }
        let at = match &source.at {
            Some(at) if at.get_ref() != "/" => {
                self.checked(at, |at| values::absolute(at).map(|()| at.clone()))?
            }
            _ => "/".to_owned(),
        };
        Ok(Source {
            origin,
            at,
            location: self.text.location(spanned.span()),
        })
    }

    fn dir(&self, dir: &Spanned<String>, source: &keys::Source) -> Result<Dir> {
        let keep_owner = match &source.owner {
            None => false,
            Some(owner) => self.checked(owner, |owner| match owner.as_str() {
                "root" => Ok(false),
                "keep" => Ok(true),
                _ => Err(format!(
                    "owner {owner:?} is not known (use \"root\" or \"keep\")"
                )),
            })?,
        };
        Ok(Dir {
            path: self.path(dir)?,
            keep_owner,
            cross_mounts: source
                .cross_mounts
                .as_ref()
                .is_some_and(|cross| *cross.get_ref()),
        })
    }

    fn debian(&self, debian: &Spanned<keys::Debian>) -> Result<Debian> {
        let table = debian.get_ref();
        let suite = self.required(debian, "suite", &table.suite)?;
        self.checked(suite, |suite| values::word("a suite", suite))?;
        let mut components =
            self.words(&table.components, |text| values::word("a component", text))?;
        if components.is_empty() {
            components.push("main".to_owned());
        }
        if let Some(snapshot) = &table.snapshot {
            self.checked(snapshot, |text| values::snapshot(text))?;
            if let Some(mirrors) = &table.mirrors {
                return Err(self.error(
                    mirrors,
                    "mirrors and snapshot both say where packages come from (leave one out)",
                ));
            }
        }
        if let Some(proxy) = &table.proxy {
            self.checked(proxy, |text| values::line("proxy", text, 1024))?;
        }
        Ok(Debian {
            suite: suite.get_ref().clone(),
            packages: self.words(&table.packages, |text| values::word("a package", text))?,
            variant: self.variant(table.variant.as_ref())?,
            architecture: self.architecture(table.architecture.as_ref())?,
            components,
            mirrors: self.mirrors(&table.mirrors)?,
            snapshot: table.snapshot.as_ref().map(|text| text.get_ref().clone()),
            proxy: table.proxy.as_ref().map(|text| text.get_ref().clone()),
            keyring: table
                .keyring
                .as_ref()
                .map(|path| self.path(path))
                .transpose()?,
            recommends: table.recommends.as_ref().is_some_and(|yes| *yes.get_ref()),
        })
    }

    /// The agent, the disk's partition types and the unified kernel image are for x86-64 alone.
    fn architecture(&self, architecture: Option<&Spanned<String>>) -> Result<String> {
        const ONLY: &str = "amd64";
        let Some(architecture) = architecture else {
            return Ok(ONLY.to_owned());
        };
        self.checked(architecture, |text| match text == ONLY {
            true => Ok(text.clone()),
            false => Err(format!(
                "architecture {text:?} is not supported yet (use {ONLY:?}, or leave it out)"
            )),
        })
    }

    fn variant(&self, variant: Option<&Spanned<String>>) -> Result<String> {
        const VARIANTS: &[&str] = &[
            "extract",
            "custom",
            "essential",
            "apt",
            "minbase",
            "buildd",
            "important",
            "standard",
        ];
        let Some(variant) = variant else {
            return Ok("important".to_owned());
        };
        self.checked(variant, |text| match VARIANTS.contains(&text.as_str()) {
            true => Ok(text.clone()),
            false => Err(format!(
                "variant {text:?} is not known (use {})",
                VARIANTS.join(", ")
            )),
        })
    }

    fn mirrors(&self, list: &Option<Spanned<Vec<Spanned<String>>>>) -> Result<Vec<Mirror>> {
        let list = list
            .as_ref()
            .map(|list| list.get_ref().as_slice())
            .unwrap_or_default();
        list.iter()
            .map(|text| self.checked(text, |text| Mirror::parse(text)))
            .collect()
    }

    fn words(
        &self,
        list: &Option<Spanned<Vec<Spanned<String>>>>,
        check: impl Fn(&str) -> Result<(), String>,
    ) -> Result<Vec<String>> {
        let list = list
            .as_ref()
            .map(|list| list.get_ref().as_slice())
            .unwrap_or_default();
        list.iter()
            .map(|word| self.checked(word, |text| check(text).map(|()| text.clone())))
            .collect()
    }

    fn file(&self, spanned: &Spanned<keys::FileEntry>) -> Result<Source> {
        let entry = spanned.get_ref();
        let path = self.required(spanned, "path", &entry.path)?;
        self.checked(path, |path| values::absolute(path))?;
        for (name, flag) in [("directory", &entry.directory), ("absent", &entry.absent)] {
            if let Some(flag) = flag.as_ref().filter(|flag| !*flag.get_ref()) {
                return Err(self.error(
                    flag,
                    format!("`{name} = false` says nothing (write true, or leave it out)"),
                ));
            }
        }
        let mut kinds = Vec::new();
        kinds.extend(
            entry
                .content
                .as_ref()
                .map(|content| FileKind::Content(content.get_ref().clone().into_bytes())),
        );
        if let Some(copy) = &entry.copy {
            kinds.push(FileKind::Copy(self.path(copy)?));
        }
        if let Some(link) = &entry.link {
            kinds.push(self.checked(link, |target| {
                match target.is_empty()
                    || target.contains('\0')
                    || target.len() > crate::tree::TARGET_MAX
                {
                    true => Err("this is not a link's target (write 1 to 4095 bytes)".to_owned()),
                    false => Ok(FileKind::Link(target.clone())),
                }
            })?);
        }
        kinds.extend(entry.directory.as_ref().map(|_| FileKind::Directory));
        kinds.extend(entry.absent.as_ref().map(|_| FileKind::Absent));
        let kind = kinds.pop().filter(|_| kinds.is_empty()).ok_or_else(|| {
            self.error(spanned, format!("file {:?} needs exactly one of content, copy, link, directory = true and absent = true", path.get_ref()))
        })?;
        let mode = entry
            .mode
            .as_ref()
            .map(|mode| self.checked(mode, |text| values::mode(text)))
            .transpose()?;
        let stray = [&entry.uid, &entry.gid]
            .into_iter()
            .flatten()
            .map(Spanned::span)
            .next();
        if matches!(kind, FileKind::Absent)
            && let Some(span) = stray
        {
            return Err(self
                .text
                .error(span, "what is absent has no owner (leave uid and gid out)"));
        }
        if matches!(kind, FileKind::Absent | FileKind::Link(_))
            && let Some(mode) = &entry.mode
        {
            return Err(self.error(mode, "a mode here has no effect (leave it out)"));
        }
        let owner = |id: &Option<Spanned<u32>>| id.as_ref().map_or(0, |id| *id.get_ref());
        let file = FileEntry {
            path: path.get_ref().clone(),
            kind,
            mode,
            uid: owner(&entry.uid),
            gid: owner(&entry.gid),
        };
        Ok(Source {
            origin: Origin::File(file),
            at: "/".to_owned(),
            location: self.text.location(spanned.span()),
        })
    }

    fn root(&self, root: Option<&Spanned<keys::Root>>) -> Result<Root> {
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

    fn keep(&self, scrub: Option<&Spanned<keys::Scrub>>) -> Result<Vec<String>> {
        let Some(scrub) = scrub.map(Spanned::get_ref) else {
            return Ok(Vec::new());
        };
        self.words(&scrub.keep, |glob| {
            crate::glob::compile_glob(glob).map(|_| ()).map_err(|why| {
                format!("keep {glob:?}: {why} (write for example \"/etc/ssh/ssh_host_*\")")
            })
        })
    }

    /// The volumes as written, or the two of the default; parents before children.
    fn volumes(&self, file: &keys::File) -> Result<Vec<Volume>> {
        let none = file.volumes.as_ref();
        if let Some(none) = none.filter(|list| !list.get_ref().is_empty()) {
            return Err(self.error(
                none,
                "`volumes` can only be the empty list (write a [[volume]] for each)",
            ));
        }
        let Some(written) = &file.volume else {
            return Ok(if none.is_some() {
                Vec::new()
            } else {
                Volume::defaults()
            });
        };
        if none.is_some() {
            return Err(self.error(
                written,
                "`volumes = []` and a [[volume]] contradict each other (leave one out)",
            ));
        }
        let mut volumes: Vec<Volume> = Vec::new();
        for spanned in written.get_ref() {
            let Some(volume) = self.noted(self.volume(spanned)) else {
                continue;
            };
            for earlier in &volumes {
                let twice = match (
                    earlier.policy.name == volume.policy.name,
                    earlier.policy.mount == volume.policy.mount,
                ) {
                    (true, _) => Some((
                        "name",
                        &spanned.get_ref().name,
                        "two volumes have the name",
                        &volume.policy.name,
                    )),
                    (_, true) => Some((
                        "mount",
                        &spanned.get_ref().mount,
                        "two volumes are mounted at",
                        &volume.policy.mount,
                    )),
                    _ => None,
                };
                if let Some((key, value, what, which)) = twice {
                    let span = value.as_ref().map_or(spanned.span(), Spanned::span);
                    return Err(self.text.error(
                        span,
                        format!("{what} {which:?} (give this one another {key})"),
                    ));
                }
            }
            volumes.push(volume);
        }
        if volumes.len() > policy::MAX_VOLUMES {
            return Err(self.error(
                written,
                format!(
                    "{} volumes, at most {} are possible",
                    volumes.len(),
                    policy::MAX_VOLUMES
                ),
            ));
        }
        // A stable order in which each volume comes after those that it lies below.
        volumes.sort_by_key(|volume| volume.policy.mount.matches('/').count());
        debug_assert!(
            volumes
                .windows(2)
                .all(|pair| !is_below(&pair[0].policy.mount, &pair[1].policy.mount))
        );
        Ok(volumes)
    }

    fn volume(&self, spanned: &Spanned<keys::Volume>) -> Result<Volume> {
        let keys = spanned.get_ref();
        let name = self.required(spanned, "name", &keys.name)?;
        let mount = self.required(spanned, "mount", &keys.mount)?;
        let size = self.required(spanned, "size", &keys.size)?;
        let bytes = self.checked(size, |text| {
            values::size(text).map_err(|why| format!("volume {:?}: size {why}", name.get_ref()))
        })?;
        let wrong = |what: &str| {
            Err(self.error(
                size,
                format!(
                    "volume {:?}: size {:?} {what}",
                    name.get_ref(),
                    size.get_ref()
                ),
            ))
        };
        match bytes {
            bytes if bytes % (1 << 20) != 0 => wrong("is not whole MiB (use for example 512M)")?,
            bytes if bytes < SMALLEST_VOLUME => {
                wrong("is too small for a file system (use 16M or more)")?
            }
            bytes if bytes > LARGEST_VOLUME => wrong("is too large for ext4 (use 16T or less)")?,
            _ => {}
        }
        let volume = policy::Volume {
            name: name.get_ref().clone(),
            mount: mount.get_ref().clone(),
            filesystem: keys
                .filesystem
                .as_ref()
                .map(|key| *key.get_ref())
                .unwrap_or_default(),
            weight: keys.weight.as_ref().map_or(1, |key| *key.get_ref()),
            on_damage: keys
                .on_damage
                .as_ref()
                .map(|key| *key.get_ref())
                .unwrap_or_default(),
            refresh: keys
                .refresh
                .as_ref()
                .map(|key| *key.get_ref())
                .unwrap_or_default(),
        };
        // The agent's rules for one volume decide; only the place is ours.
        let alone = Policy {
            volumes: vec![volume.clone()],
            ..super::empty_policy()
        };
        alone.check().map_err(|why| match why.key() {
            Some(PolicyKey::VolumeName) => self.error(name, why),
            _ => self.error(mount, why),
        })?;
        Ok(Volume {
            policy: volume,
            size: bytes,
        })
    }

    fn verify(&self, verify: Option<&Spanned<keys::Verify>>) -> Result<policy::Verify> {
        let mut out = policy::Verify::default();
        let Some(verify) = verify.map(Spanned::get_ref) else {
            return Ok(out);
        };
        out.boot = verify
            .boot
            .as_ref()
            .map(|key| *key.get_ref())
            .unwrap_or_default();
        out.on_corruption = verify
            .on_corruption
            .as_ref()
            .map(|key| *key.get_ref())
            .unwrap_or_default();
        for (written, rate) in [(&verify.scrub_rate, true), (&verify.scrub_every, false)] {
            let Some(written) = written else { continue };
            *if rate {
                &mut out.scrub_rate
            } else {
                &mut out.scrub_every
            } = *written.get_ref();
            Policy {
                verify: out,
                ..super::empty_policy()
            }
            .check()
            .map_err(|why| self.error(written, why))?;
        }
        Ok(out)
    }

    fn failure(&self, failure: Option<&Spanned<keys::Failure>>) -> Result<policy::FailurePolicy> {
        let mut out = policy::FailurePolicy::default();
        let Some(failure) = failure.map(Spanned::get_ref) else {
            return Ok(out);
        };
        if let Some(action) = &failure.action {
            out.action = *action.get_ref();
        }
        for (written, fault) in [
            (&failure.oops, &mut out.oops),
            (&failure.lockup, &mut out.lockup),
            (&failure.hung_task, &mut out.hung_task),
        ] {
            if let Some(written) = written {
                *fault = *written.get_ref();
            }
        }
        if let Some(after) = &failure.after {
            out.after_seconds = self.checked(after, |text| {
                match values::duration(text).map_err(|why| format!("after {why}"))? {
                    seconds @ 0..=3600 => Ok(seconds as u32),
                    _ => Err(format!("after {text:?} is too long (use 1h or less)")),
                }
            })?;
        }
        Ok(out)
    }

    fn kernel(&self, kernel: Option<&Spanned<keys::Kernel>>) -> Result<Kernel> {
        let Some(kernel) = kernel.map(Spanned::get_ref) else {
            return Ok(Kernel {
                cmdline: String::new(),
                modules: Vec::new(),
            });
        };
        let cmdline = match &kernel.cmdline {
            Some(text) => self.checked(text, |text| {
                values::cmdline(text).map(|()| text.trim().to_owned())
            })?,
            None => String::new(),
        };
        Ok(Kernel {
            cmdline,
            modules: self.words(&kernel.modules, values::module)?,
        })
    }

    fn limits(&self, limits: Option<&Spanned<keys::Limits>>) -> Result<Limits> {
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
