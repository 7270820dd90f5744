//! Parses the sources of a definition: `[[source]]` and `[[file]]`.

use toml::Spanned;

use super::mirror::Mirror;
use super::parse::DefinitionReader;
use super::{Debian, Dir, FileEntry, FileKind, Origin, Source, keys, values};
use crate::error::Result;

impl DefinitionReader<'_> {
    pub(super) fn source(&self, spanned: &Spanned<keys::SourceTable>) -> Result<Source> {
        let source = spanned.get_ref();
        let origin = match (&source.debian, &source.tar, &source.dir) {
            (Some(debian), None, None) => Origin::Debian(self.debian(debian.get_ref())?),
            (None, Some(tar), None) => Origin::Tar(self.path(tar)?),
            (None, None, Some(dir)) => Origin::Dir(self.dir(dir, source)?),
            (None, None, None) => return Err(self.error(spanned, "this source is empty (write one of debian = { ... }, tar = \"...\" or dir = \"...\")")),
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
                    format!("key `{key}` has an effect only with dir (leave it out)"),
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

    fn dir(&self, dir: &Spanned<String>, source: &keys::SourceTable) -> Result<Dir> {
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

    fn debian(&self, debian: &Spanned<keys::DebianTable>) -> Result<Debian> {
        let table = debian.get_ref();
        let suite = self.required(debian, "suite", &table.suite)?;
        self.checked(suite, |suite| values::argument("a suite", suite))?;
        let mut components = self.strings(&table.components, |text| {
            values::argument("a component", text)
        })?;
        if components.is_empty() {
            components.push("main".to_owned());
        }
        if let Some(snapshot) = &table.snapshot {
            self.checked(snapshot, |text| values::snapshot(text))?;
            if let Some(mirrors) = &table.mirrors {
                return Err(self.error(
                    mirrors,
                    "mirrors and snapshot both choose the archive (leave one out)",
                ));
            }
        }
        if let Some(proxy) = &table.proxy {
            self.checked(proxy, |text| values::line("proxy", text, 1024))?;
        }
        Ok(Debian {
            suite: suite.get_ref().clone(),
            packages: self.strings(&table.packages, |text| values::argument("a package", text))?,
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

    /// The agent, the partition types and the unified kernel image support only x86-64.
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

    pub(super) fn file(&self, spanned: &Spanned<keys::FileTable>) -> Result<Source> {
        let entry = spanned.get_ref();
        let path = self.required(spanned, "path", &entry.path)?;
        self.checked(path, |path| values::absolute(path))?;
        for (name, flag) in [("directory", &entry.directory), ("absent", &entry.absent)] {
            if let Some(flag) = flag.as_ref().filter(|flag| !*flag.get_ref()) {
                return Err(self.error(
                    flag,
                    format!("`{name} = false` has no effect (write true, or leave it out)"),
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
                    true => Err(
                        "this is not a target of a symbolic link (write 1 to 4095 bytes)"
                            .to_owned(),
                    ),
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
                .error(span, "an absent path has no owner (leave out uid and gid)"));
        }
        if matches!(kind, FileKind::Absent | FileKind::Link(_))
            && let Some(mode) = &entry.mode
        {
            return Err(self.error(
                mode,
                "a symbolic link and an absent path have no mode (leave it out)",
            ));
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
}
