//! The image that a command works on: `OUT` (its newest version), `OUT@VERSION`, or the path of an
//! artifact.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::manifest::{self, Manifest, SUFFIX};
use crate::term::output::Output;
use crate::version;

/// An image of an output directory.
#[derive(Debug)]
pub struct Selection {
    /// The output directory.
    pub folder: PathBuf,
    /// The image's manifest.
    pub manifest: Manifest,
    /// Older versions in the directory, newest first; empty if the target names a version.
    pub older: Vec<String>,
}

/// A target, as its path describes it.
enum Target {
    Folder(PathBuf),
    Version(PathBuf, String),
    File(PathBuf),
}

impl Target {
    fn parse(path: &Path) -> Result<Target> {
        if path.is_dir() {
            return Ok(Target::Folder(path.to_owned()));
        }
        if path.exists() {
            return Ok(Target::File(path.to_owned()));
        }
        match path.to_str().and_then(|text| text.rsplit_once('@')) {
            Some((folder, version)) if Path::new(folder).is_dir() && !version.contains('/') => {
                Ok(Target::Version(folder.into(), version.to_owned()))
            }
            _ => Err(
                Error::new(format!("{}: no such file or directory", path.display()))
                    .hint("give a build's OUT directory, OUT@VERSION, or the path of an artifact"),
            ),
        }
    }
}

impl Selection {
    /// Finds the image that `target` selects.
    pub fn resolve(target: &Path) -> Result<Selection> {
        match Target::parse(target)? {
            Target::Folder(folder) => newest(&folder),
            Target::Version(folder, version) => with_version(&folder, &version),
            Target::File(file) => of_artifact(&file),
        }
    }

    /// The same; `None` for a file that belongs to no image, such as a single disk.
    pub fn resolve_if_image(target: &Path) -> Result<Option<Selection>> {
        match Target::parse(target)? {
            Target::File(file) => Ok(of_artifact(&file).ok()),
            _ => Selection::resolve(target).map(Some),
        }
    }

    /// `ID_VERSION`.
    pub fn stem(&self) -> String {
        self.manifest.image.stem()
    }

    /// Path of `ID_VERSION.SUFFIX`, if the manifest lists it.
    pub fn artifact(&self, suffix: &str) -> Option<PathBuf> {
        let name = format!("{}.{suffix}", self.stem());
        self.manifest
            .artifacts
            .iter()
            .any(|artifact| artifact.name == name)
            .then(|| self.folder.join(name))
    }

    /// Path of the manifest.
    pub fn manifest_path(&self) -> PathBuf {
        self.folder.join(format!("{}{SUFFIX}", self.stem()))
    }

    /// Prints which version was selected, if there are several.
    pub fn announce(&self, output: &Output) {
        if let Some(next) = self.older.first() {
            let (folder, version, more) = (
                self.folder.display(),
                &self.manifest.image.version,
                self.older.len(),
            );
            let versions = if more == 1 {
                "an older version"
            } else {
                "older versions"
            };
            output.say(format_args!(
                "{folder}: taking {version}, the newest; {folder}@{next} selects {versions}"
            ));
        }
    }
}

/// All images of a directory, or the one image that another target selects.
pub fn resolve_all(target: &Path) -> Result<Vec<Selection>> {
    let Target::Folder(folder) = Target::parse(target)? else {
        return Selection::resolve(target).map(|one| vec![one]);
    };
    let selection = |path: PathBuf| {
        Ok(Selection {
            folder: folder.clone(),
            manifest: read(&path)?,
            older: Vec::new(),
        })
    };
    let found = manifest::files(&folder)?
        .into_iter()
        .map(selection)
        .collect::<Result<Vec<_>>>()?;
    if found.is_empty() {
        Err(no_image(&folder))
    } else {
        Ok(found)
    }
}

/// The newest version in a directory whose images all have one id.
fn newest(folder: &Path) -> Result<Selection> {
    let mut found = Vec::new();
    for path in manifest::files(folder)? {
        found.push(read(&path)?);
    }
    found.sort_by(|a, b| {
        version::compare(&b.image.version, &a.image.version)
            .then_with(|| b.image.version.cmp(&a.image.version))
    });
    let mut ids: Vec<&str> = found
        .iter()
        .map(|manifest| manifest.image.id.as_str())
        .collect();
    ids.sort_unstable();
    ids.dedup();
    if let [first, _, ..] = ids[..] {
        let all = found
            .iter()
            .find(|manifest| manifest.image.id == first)
            .map(|manifest| manifest.image.stem())
            .unwrap_or_default();
        return Err(Error::new(format!(
            "{}: holds images of several ids: {}",
            folder.display(),
            ids.join(", ")
        ))
        .hint(format!(
            "select one, for example {}@{all}",
            folder.display()
        )));
    }
    let mut found = found.into_iter();
    let manifest = found.next().ok_or_else(|| no_image(folder))?;
    Ok(Selection {
        folder: folder.to_owned(),
        manifest,
        older: found.map(|manifest| manifest.image.version).collect(),
    })
}

/// The image with this version. `ID_VERSION` selects among images of several ids.
fn with_version(folder: &Path, wanted: &str) -> Result<Selection> {
    let mut matching = Vec::new();
    let mut all = Vec::new();
    for path in manifest::files(folder)? {
        let stem = stem(&path);
        if stem == wanted
            || stem
                .rsplit_once('_')
                .is_some_and(|(_, version)| version == wanted)
        {
            matching.push(read(&path)?);
        }
        all.push(stem);
    }
    if all.is_empty() {
        return Err(no_image(folder));
    }
    match matching.len() {
        1 => Ok(Selection {
            folder: folder.to_owned(),
            manifest: matching.remove(0),
            older: Vec::new(),
        }),
        0 => Err(Error::new(format!(
            "{}: no image with version {wanted}",
            folder.display()
        ))
        .hint(format!("it holds {}", all.join(", ")))),
        _ => {
            let stems: Vec<String> = matching
                .iter()
                .map(|manifest| format!("{}@{}", folder.display(), manifest.image.stem()))
                .collect();
            Err(Error::new(format!(
                "{}: several images with version {wanted}",
                folder.display()
            ))
            .hint(format!("select one: {}", stems.join(", "))))
        }
    }
}

/// The image of an artifact, by the manifest in the same directory.
fn of_artifact(file: &Path) -> Result<Selection> {
    let folder = match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let name = file
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    for path in manifest::files(folder)? {
        if !name.starts_with(&format!("{}.", stem(&path))) {
            continue;
        }
        let manifest = read(&path)?;
        if path.file_name() == file.file_name()
            || manifest
                .artifacts
                .iter()
                .any(|artifact| artifact.name == name)
        {
            return Ok(Selection {
                folder: folder.to_owned(),
                manifest,
                older: Vec::new(),
            });
        }
    }
    Err(Error::new(format!(
        "{}: not an artifact of a build: no manifest beside it names it",
        file.display()
    ))
    .hint("give a build's OUT directory, OUT@VERSION, or the path of an artifact in OUT"))
}

/// Reads a manifest, and checks that it describes the image in its file name.
fn read(path: &Path) -> Result<Manifest> {
    let manifest = Manifest::read(path)?;
    let about = manifest.image.stem();
    if stem(path) != about {
        return Err(Error::new(format!(
            "{}: describes {about}, which is not the image in its name",
            path.display()
        ))
        .hint("rename the file back, or build the image again"));
    }
    Ok(manifest)
}

fn stem(path: &Path) -> String {
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    name.strip_suffix(SUFFIX).unwrap_or(&name).to_owned()
}

/// The error for a directory without an image, which is often the definition's directory.
fn no_image(folder: &Path) -> Error {
    let below = folder.join("out");
    let hint = if manifest::files(&below).is_ok_and(|found| !found.is_empty()) {
        format!("did you mean {}?", below.display())
    } else if folder.join("image.toml").is_file() {
        format!(
            "it holds a definition: run `adamant build {}` first",
            folder.display()
        )
    } else {
        "give the output directory of `adamant build`: `out` in the definition's directory, or the one named by --output".to_owned()
    };
    Error::new(format!(
        "{}: holds no image (no file in it ends in {SUFFIX})",
        folder.display()
    ))
    .hint(hint)
}

/// Path of the root file system: of the image that `target` selects, or `target` itself if it is a
/// file.
pub fn root_path(target: &Path) -> Result<PathBuf> {
    if target.exists() && !target.is_dir() && !target.to_string_lossy().ends_with(SUFFIX) {
        return Ok(target.to_owned());
    }
    let selection = Selection::resolve(target)?;
    selection.artifact("root.erofs").ok_or_else(|| {
        Error::new(format!(
            "{}: lists no root file system",
            selection.manifest_path().display()
        ))
        .hint("build the image again")
    })
}

#[cfg(test)]
#[path = "selection_tests.rs"]
mod tests;
