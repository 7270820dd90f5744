//! The output folder: it appears whole or not at all.
//!
//! Artifacts are written to files without a name, which the kernel forgets when we end, however we
//! end. Only when all are complete do they get names, in a new folder that takes the old one's
//! place by one rename. A kill in that last moment leaves a hidden folder beside the output at
//! most, which the next build removes.

use std::any::Any;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use nix::fcntl::{AT_FDCWD, AtFlags, Flock, FlockArg, RenameFlags, renameat2};
use nix::libc;
use nix::sys::signal::{SigSet, Signal};

use crate::error::{Context, Error, Result};
use crate::manifest::{self, Manifest};

/// What a build may replace in its output folder.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Replace {
    /// An image of the same id and version only if it has the same content. Artifacts of other
    /// versions stay.
    #[default]
    SameContent,
    /// An image of the same id and version, whatever its content. Artifacts of other versions stay.
    SameVersion,
    /// Everything, for work directories.
    Everything,
}

/// Artifacts on their way into an output folder.
#[derive(Debug)]
pub struct Staging {
    out: PathBuf,
    parent: PathBuf,
    /// Where names are given, beside the output.
    fresh: PathBuf,
    files: Vec<(String, File)>,
    /// Those that are on their way to the disk already.
    begun: Vec<(String, JoinHandle<io::Result<()>>)>,
    /// Artifacts that stay from an earlier build of the same version.
    kept: Vec<String>,
    /// File systems without unnamed files: held from the start, since the names are there from the
    /// start.
    named: Option<Flock<File>>,
}

impl Staging {
    /// Prepares to fill `out`, which must be absent, empty, or an output folder of ours.
    pub fn open(out: &Path) -> Result<Staging> {
        let name = out.file_name().filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| {
            Error::new(format!("{}: not a folder's name", out.display()))
                .hint("write for example --output out")
        })?;
        let parent = match out.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        fs::create_dir_all(&parent).context(|| format!("{}", parent.display()))?;
        others(out, &[], &[])?;
        let mut fresh = std::ffi::OsString::from(".");
        fresh.push(name);
        fresh.push(".adamant-new");
        let mut staging = Staging {
            out: out.to_owned(),
            fresh: parent.join(fresh),
            parent,
            files: Vec::new(),
            begun: Vec::new(),
            kept: Vec::new(),
            named: None,
        };
        staging.sweep();
        match unnamed(&staging.parent) {
            Ok(_) => {}
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::EOPNOTSUPP | libc::EISDIR | libc::ENOENT | libc::EINVAL)
                ) =>
            {
                staging.named = Some(staging.lock()?);
                staging.make_fresh()?;
            }
            Err(error) => return Err(Error::new(format!("{}: {error}", staging.parent.display()))),
        }
        Ok(staging)
    }

    /// The folder beside the output, on the same file system: the place for other temporary files.
    pub fn parent(&self) -> &Path {
        &self.parent
    }

    /// A new, empty artifact.
    pub fn file(&mut self, name: &str) -> Result<File> {
        let file = if self.named.is_some() {
            OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .open(self.fresh.join(name))
        } else {
            unnamed(&self.parent)
        };
        let file = file.context(|| format!("{name} in {}", self.parent.display()))?;
        // Whatever the umask.
        file.set_permissions(fs::Permissions::from_mode(0o644))
            .context(|| name)?;
        let again = file.try_clone().context(|| name)?;
        self.files.push((name.to_owned(), file));
        Ok(again)
    }

    /// A new, empty file that is gone when it is closed.
    pub fn scratch(&self) -> Result<File> {
        let file = match unnamed(&self.parent) {
            Err(_) if self.named.is_some() => {
                let path = self.fresh.join(".scratch");
                let file = OpenOptions::new()
                    .read(true)
                    .write(true)
                    .create_new(true)
                    .open(&path);
                fs::remove_file(&path).and(file)
            }
            other => other,
        };
        file.context(|| format!("a temporary file in {}", self.parent.display()))
    }

    /// A new artifact with these bytes.
    pub fn put(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        use std::io::Write;
        self.file(name)?
            .write_all(bytes)
            .context(|| format!("writing {name}"))
    }

    /// An artifact is whole: it goes to the disk while others are made.
    pub fn sync(&mut self, name: &str, file: &File) {
        if let Ok(file) = file.try_clone() {
            // What goes wrong is kept for the end: the kernel tells it once.
            self.begun
                .push((name.to_owned(), std::thread::spawn(move || file.sync_all())));
        }
    }

    /// Has an artifact of the same version that is there already stay there.
    pub fn keep(&mut self, name: &str) {
        self.kept.push(name.to_owned());
    }

    /// Moves the artifacts of `new` into the output folder, where `replace` allows it.
    pub fn publish(mut self, new: &Manifest, replace: Replace) -> Result<()> {
        // All at once: the file system has one journal for them.
        std::thread::scope(|scope| {
            let synced: Vec<_> = self
                .files
                .iter()
                .map(|(name, file)| (name, scope.spawn(|| file.sync_all())))
                .collect();
            synced.into_iter().try_for_each(|(name, synced)| {
                synced
                    .join()
                    .unwrap_or_else(failed)
                    .context(|| format!("writing {name}"))
            })
        })?;
        self.begun.drain(..).try_for_each(|(name, thread)| {
            thread
                .join()
                .unwrap_or_else(failed)
                .context(|| format!("writing {name}"))
        })?;
        // The rest takes milliseconds: interruptions wait for its end.
        let _uninterrupted = Uninterrupted::begin();
        let done = self.give_names(new, replace);
        if done.is_err() {
            let _ = fs::remove_dir_all(&self.fresh);
        }
        done
    }

    fn give_names(&mut self, new: &Manifest, replace: Replace) -> Result<()> {
        let lock = match self.named.take() {
            Some(lock) => lock,
            None => {
                let lock = self.lock()?;
                self.make_fresh()?;
                for (name, file) in &self.files {
                    let source = format!("/proc/self/fd/{}", file.as_raw_fd());
                    nix::unistd::linkat(
                        AT_FDCWD,
                        source.as_str(),
                        AT_FDCWD,
                        &self.fresh.join(name),
                        AtFlags::AT_SYMLINK_FOLLOW,
                    )
                    .context(|| format!("naming {name}"))?;
                }
                lock
            }
        };
        if replace == Replace::SameContent {
            refuse_other_content(&self.out, new)?;
        }
        let names: Vec<&str> = self.files.iter().map(|(name, _)| name.as_str()).collect();
        let others = if replace == Replace::Everything {
            Vec::new()
        } else {
            others(&self.out, &names, &self.kept)?
        };
        for other in others {
            let file = &other;
            fs::hard_link(self.out.join(file), self.fresh.join(file))
                .context(|| format!("{}: keeping {file}", self.out.display()))?;
        }
        sync_dir(&self.fresh)?;
        let replaces = self.out.symlink_metadata().is_ok();
        let flags = if replaces {
            RenameFlags::RENAME_EXCHANGE
        } else {
            RenameFlags::RENAME_NOREPLACE
        };
        renameat2(AT_FDCWD, &self.fresh, AT_FDCWD, &self.out, flags)
            .context(|| format!("{}: putting it in place", self.out.display()))?;
        sync_dir(&self.parent)?;
        // Now the old one bears the hidden name.
        remove(&self.fresh)?;
        drop(lock);
        Ok(())
    }

    /// One build at a time gives names: an flock on the parent itself, which leaves nothing behind.
    fn lock(&self) -> Result<Flock<File>> {
        let dir = File::open(&self.parent).context(|| format!("{}", self.parent.display()))?;
        Flock::lock(dir, FlockArg::LockExclusive).map_err(|(_, error)| {
            Error::new(format!(
                "{}: locking: {}",
                self.parent.display(),
                error.desc()
            ))
        })
    }

    /// Removes what a killed build left, unless a build is about to give names just now.
    fn sweep(&self) {
        if self.fresh.exists()
            && let Ok(dir) = File::open(&self.parent)
            && let Ok(_lock) = Flock::lock(dir, FlockArg::LockExclusiveNonblock)
        {
            let _ = fs::remove_dir_all(&self.fresh);
        }
    }

    fn make_fresh(&self) -> Result<()> {
        // We hold the lock, so whoever made it is gone.
        remove(&self.fresh)?;
        fs::create_dir(&self.fresh).context(|| format!("{}", self.fresh.display()))?;
        fs::set_permissions(&self.fresh, fs::Permissions::from_mode(0o755))
            .context(|| format!("{}", self.fresh.display()))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if self.named.is_some() {
            let _ = fs::remove_dir_all(&self.fresh);
        }
    }
}

/// While it lives, interrupt, hang-up and termination wait.
struct Uninterrupted(SigSet);

impl Uninterrupted {
    fn begin() -> Option<Uninterrupted> {
        let before = SigSet::thread_get_mask().ok()?;
        let set: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]
            .into_iter()
            .collect();
        set.thread_block().ok()?;
        Some(Uninterrupted(before))
    }
}

impl Drop for Uninterrupted {
    fn drop(&mut self) {
        let _ = self.0.thread_set_mask();
    }
}

/// What a thread that ended by itself came to.
fn failed(_: Box<dyn Any + Send>) -> io::Result<()> {
    Err(io::Error::other("a thread that syncs failed"))
}

fn unnamed(dir: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .mode(0o644)
        .custom_flags(libc::O_TMPFILE)
        .open(dir)
}

fn remove(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::new(format!("{}: {error}", dir.display())))
        }
        _ => Ok(()),
    }
}

fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .context(|| format!("{}", dir.display()))
}

/// An image that others may have installed already keeps its content: two different images of one
/// version can't be told apart later.
fn refuse_other_content(out: &Path, new: &Manifest) -> Result<()> {
    let manifest::ImageVersion { id, version } = &new.image;
    let path = out.join(format!("{id}_{version}{}", manifest::SUFFIX));
    if path.symlink_metadata().is_err() {
        return Ok(());
    }
    let old = Manifest::read(&path)?;
    let difference = if old.root.hash == new.root.hash {
        // Other signers are asked for by name, and change what depends on their certificates.
        let signers = |manifest: &Manifest| {
            manifest
                .signatures
                .iter()
                .map(|one| (one.purpose, one.certificate.clone(), one.signed))
                .collect::<Vec<_>>()
        };
        let differs = |artifact: &&manifest::Artifact| {
            new.artifacts
                .iter()
                .any(|other| other.name == artifact.name && other != *artifact)
        };
        let differing: Vec<&str> = old
            .artifacts
            .iter()
            .filter(differs)
            .map(|artifact| artifact.name.as_str())
            .collect();
        if differing.is_empty() || signers(&old) != signers(new) {
            return Ok(());
        }
        format!(
            "both have root hash {}, but these files differ: {}",
            old.root.hash,
            differing.join(", ")
        )
    } else {
        format!(
            "it has root hash {}, this build has {}",
            old.root.hash, new.root.hash
        )
    };
    Err(Error::new(format!("{}: holds {id} {version} with other content: {difference}", out.display()))
        .hint("raise [image] version, choose another folder with --output, or replace the image with --force"))
}

/// What an output folder holds beside `names`: artifacts of other builds, each named in a manifest
/// there. Anything else means that it is no output folder, and must not be replaced. `kept` are
/// artifacts of the version in the making that stay as they are.
fn others(out: &Path, names: &[&str], kept: &[String]) -> Result<Vec<String>> {
    let listing = match fs::read_dir(out) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.context(|| format!("{}", out.display()))?,
    };
    let mut found = Vec::new();
    let (mut known, mut replaced) = (Vec::new(), Vec::new());
    for entry in listing {
        let entry = entry.context(|| format!("{}", out.display()))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".manifest.json") {
            let path = entry.path();
            if entry
                .metadata()
                .is_ok_and(|meta| meta.len() > manifest::LIMIT)
            {
                return Err(Error::new(format!(
                    "{}: too large for a manifest",
                    path.display()
                )));
            }
            let bytes = fs::read(&path).context(|| format!("{}", path.display()))?;
            let artifacts = Manifest::parse(&path.display().to_string(), &bytes)?
                .artifacts
                .into_iter()
                .map(|artifact| artifact.name);
            // With its manifest goes all that it names: this build may make less.
            if names.contains(&name.as_str()) {
                replaced.extend(artifacts.clone());
            }
            known.extend(artifacts);
            known.push(name.clone());
        }
        found.push(name);
    }
    if let Some(foreign) = found.iter().filter(|name| !known.contains(name)).min() {
        return Err(Error::new(format!(
            "{}: holds {foreign:?}, which adamant did not build, so the folder is not replaced",
            out.display()
        ))
        .hint("give another folder with --output, or move that file away"));
    }
    found.retain(|name| {
        !names.contains(&name.as_str()) && (!replaced.contains(name) || kept.contains(name))
    });
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Dir {
            let dir =
                std::env::temp_dir().join(format!("adamant-staging-{name}-{}", std::process::id()));
            fs::create_dir_all(&dir).unwrap();
            Dir(dir)
        }

        fn names(&self, of: &str) -> Vec<String> {
            let mut names: Vec<_> = fs::read_dir(self.0.join(of))
                .unwrap()
                .map(|e| e.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn manifest(version: &str) -> Vec<u8> {
        format!(
            r#"{{"version":1,"image":{{"id":"a","version":"{version}"}},"tool":"","definition":"","epoch":null,"root":{{"hash":"","salt":"","verity_uuid":"","blocks":1,"tree_blocks":1,"compression":"","cluster":1,"inodes":1,"content":1}},
            "kernel":null,"artifacts":[{{"name":"a_{version}.raw","size":1,"sha256":""}}],"sources":[],"scrubbed":[],"packages":[]}}"#
        )
        .into_bytes()
    }

    fn build(dir: &Dir, version: &str, bytes: &[u8]) -> Result<()> {
        let mut staging = Staging::open(&dir.0.join("out"))?;
        staging.put(&format!("a_{version}.raw"), bytes)?;
        let manifest = manifest(version);
        staging.put(&format!("a_{version}.manifest.json"), &manifest)?;
        staging.publish(&Manifest::parse("", &manifest)?, Replace::SameVersion)
    }

    #[test]
    fn an_unfinished_build_leaves_no_trace_and_a_finished_one_replaces_its_own_version_only() {
        let dir = Dir::new("replace");
        let mut staging = Staging::open(&dir.0.join("out")).unwrap();
        staging.put("a_1.raw", b"x").unwrap();
        drop(staging);
        assert_eq!(dir.names("."), [""; 0]);
        build(&dir, "1", b"one").unwrap();
        build(&dir, "2", b"two").unwrap();
        build(&dir, "1", b"one again").unwrap();
        assert_eq!(
            dir.names("out"),
            [
                "a_1.manifest.json",
                "a_1.raw",
                "a_2.manifest.json",
                "a_2.raw"
            ]
        );
        assert_eq!(fs::read(dir.0.join("out/a_1.raw")).unwrap(), b"one again");
        assert_eq!(dir.names("."), ["out"]);
    }

    #[test]
    fn what_a_second_build_of_a_version_does_not_make_any_more_is_gone() {
        let dir = Dir::new("fewer");
        build(&dir, "2", b"two").unwrap();
        build(&dir, "1", b"one").unwrap();
        let mut staging = Staging::open(&dir.0.join("out")).unwrap();
        staging.put("a_1.manifest.json", &manifest("1")).unwrap();
        staging
            .publish(
                &Manifest::parse("", &manifest("1")).unwrap(),
                Replace::SameVersion,
            )
            .unwrap();
        assert_eq!(
            dir.names("out"),
            ["a_1.manifest.json", "a_2.manifest.json", "a_2.raw"]
        );
    }

    #[test]
    fn an_image_is_replaced_by_other_content_of_its_version_only_when_asked_to() {
        let dir = Dir::new("content");
        let publish = |root: &str, raw: &str, replace: Replace| -> Result<()> {
            let text = String::from_utf8(manifest("1")).unwrap();
            let text = text
                .replacen("\"hash\":\"\"", &format!("\"hash\":\"{root}\""), 1)
                .replacen("\"sha256\":\"\"", &format!("\"sha256\":\"{raw}\""), 1);
            let mut staging = Staging::open(&dir.0.join("out"))?;
            staging.put("a_1.raw", raw.as_bytes())?;
            staging.put("a_1.manifest.json", text.as_bytes())?;
            staging.publish(&Manifest::parse("", text.as_bytes())?, replace)
        };
        let raw = || fs::read_to_string(dir.0.join("out/a_1.raw")).unwrap();
        publish("aa", "x", Replace::SameContent).unwrap();
        publish("aa", "x", Replace::SameContent).unwrap();
        let error = publish("bb", "y", Replace::SameContent).unwrap_err();
        assert!(
            error
                .message()
                .contains("holds a 1 with other content: it has root hash aa, this build has bb"),
            "{error}"
        );
        assert!(error.remedy().is_some_and(|hint| hint.contains("--force")) && raw() == "x");
        let error = publish("aa", "y", Replace::SameContent).unwrap_err();
        assert!(
            error
                .message()
                .contains("both have root hash aa, but these files differ: a_1.raw"),
            "{error}"
        );
        publish("bb", "y", Replace::SameVersion).unwrap();
        assert_eq!(raw(), "y");
        build(&dir, "2", b"two").unwrap();
        publish("cc", "z", Replace::Everything).unwrap();
        assert_eq!(
            (dir.names("out"), raw()),
            (
                vec!["a_1.manifest.json".to_owned(), "a_1.raw".to_owned()],
                "z".to_owned()
            )
        );
    }

    #[test]
    fn a_folder_with_foreign_files_is_not_replaced() {
        let dir = Dir::new("foreign");
        build(&dir, "1", b"one").unwrap();
        fs::write(dir.0.join("out/thesis.tex"), "years of work").unwrap();
        let error = build(&dir, "2", b"two").unwrap_err();
        assert!(error.message().contains("thesis.tex"), "{error}");
        assert_eq!(
            dir.names("out"),
            ["a_1.manifest.json", "a_1.raw", "thesis.tex"]
        );
    }

    #[test]
    fn what_a_killed_build_left_is_removed_by_the_next() {
        let dir = Dir::new("killed");
        fs::create_dir_all(dir.0.join(".out.adamant-new/x")).unwrap();
        drop(Staging::open(&dir.0.join("out")).unwrap());
        assert_eq!(dir.names("."), [""; 0]);
        fs::create_dir_all(dir.0.join(".out.adamant-new/x")).unwrap();
        build(&dir, "1", b"one").unwrap();
        assert_eq!(dir.names("."), ["out"]);
    }
}
