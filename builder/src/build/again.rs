//! `build --check`: the same definition a second time, from scratch, by a process of its own that lives in other circumstances: another
//! folder, time zone, locale, umask and number of threads, and no cache. Then every artifact is compared to the last byte.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, umask};

use super::{Built, Options};
use crate::definition::Definition;
use crate::erofs::BLOCK;
use crate::erofs::read::Image;
use crate::error::{Context, Error, Result};
use crate::output::Output;
use crate::part::Part;
use crate::tree::show;

/// Bytes compared at a time.
const CHUNK: usize = 1 << 20;

/// Builds again; `None` when every byte is the same, else the first difference in a sentence.
pub fn compare(first: &Built, definition: &Definition, options: &Options, output: &Output) -> Result<Option<String>> {
    let scratch = Scratch::beside(&first.out)?;
    let second = scratch.0.join("second").join("out");
    std::fs::create_dir_all(scratch.0.join("second")).context(|| format!("{}", scratch.0.display()))?;
    output.say("building a second time, from scratch");
    let mut command = command(definition, &second, &scratch.0, options)?;
    let done = command.output().context(|| "starting the second build")?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr);
        return Err(Error::new(format!("the second build failed ({}):\n{}", done.status, said.trim_end())));
    }
    // The root first: when it differs, so do its tree, its hash and the disk, and only there has a byte a file's name.
    let root = format!("{}.root.erofs", first.stem);
    let manifest = format!("{}.manifest.json", first.stem);
    let others = first.manifest.artifacts.iter().map(|artifact| artifact.name.as_str()).filter(|name| *name != root);
    for name in [root.as_str()].into_iter().chain(others).chain([manifest.as_str()]) {
        if let Some(difference) = first_difference(&first.out, &second, name)? {
            return Ok(Some(difference));
        }
    }
    Ok(None)
}

fn command(definition: &Definition, out: &Path, elsewhere: &Path, options: &Options) -> Result<Command> {
    let absolute = |path: &Path| std::path::absolute(path).context(|| format!("{}", path.display()));
    let mut command = Command::new("/proc/self/exe");
    command.arg("build").arg(absolute(&definition.path)?).arg("--output").arg(out).args(["--no-cache", "--quiet"]);
    command.args(["--jobs", if options.jobs == 1 { "3" } else { "1" }]);
    if let Some(agent) = &options.agent {
        command.arg("--agent").arg(absolute(agent)?);
    } else if let Some(agent) = std::env::var_os("ADAMANT_AGENT").filter(|agent| !agent.is_empty()) {
        command.arg("--agent").arg(absolute(Path::new(&agent))?);
    } else {
        // The program is started by another name, so it would look in another place.
        command.arg("--agent").arg(super::agent::locate_beside()?);
    }
    if let Some(epoch) = options.epoch {
        command.arg(format!("--epoch={epoch}"));
    }
    command.current_dir(elsewhere).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command.env("TZ", "Pacific/Kiritimati").env("LC_ALL", "tr_TR.UTF-8").env("LANG", "tr_TR.UTF-8").env("TMPDIR", elsewhere);
    // SAFETY: between fork and exec only umask and prctl are called, which are async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            umask(Mode::from_bits_truncate(0o077));
            nix::sys::prctl::set_pdeathsig(Signal::SIGTERM).map_err(Into::into)
        });
    }
    Ok(command)
}

/// A hidden folder beside OUT, on whose file system there is room for a second one; gone at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn beside(out: &Path) -> Result<Scratch> {
        let out = std::path::absolute(out).context(|| format!("{}", out.display()))?;
        let mut name = OsStr::new(".").to_owned();
        name.push(out.file_name().unwrap_or_default());
        name.push(format!(".adamant-check-{}", std::process::id()));
        let dir = out.with_file_name(name);
        std::fs::create_dir(&dir).context(|| format!("{}", dir.display()))?;
        Ok(Scratch(dir))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn first_difference(first: &Path, second: &Path, name: &str) -> Result<Option<String>> {
    let open = |dir: &Path| -> Result<(File, u64)> {
        let path = dir.join(name);
        let file = File::open(&path).context(|| format!("{}", path.display()))?;
        let length = file.metadata().context(|| format!("{}", path.display()))?.len();
        Ok((file, length))
    };
    let ((a, a_length), (b, b_length)) = (open(first)?, open(second)?);
    let common = a_length.min(b_length);
    let (mut block_a, mut block_b) = (vec![0; CHUNK], vec![0; CHUNK]);
    let mut at = 0;
    while at < common {
        let take = (common - at).min(CHUNK as u64) as usize;
        a.read_exact_at(&mut block_a[..take], at).and_then(|()| b.read_exact_at(&mut block_b[..take], at)).context(|| format!("comparing {name}"))?;
        if let Some(offset) = block_a[..take].iter().zip(&block_b[..take]).position(|(a, b)| a != b) {
            let at = at + offset as u64;
            return Ok(Some(format!("{name} at byte {at}{}", place(name, &a, at))));
        }
        at += take as u64;
    }
    Ok((a_length != b_length).then(|| format!("{name} has {a_length} bytes, the second time {b_length}")))
}

/// In the root file system, the file that a byte belongs to.
fn place(name: &str, file: &File, at: u64) -> String {
    let image = name.ends_with(".root.erofs").then(|| Image::open(Part::whole(file.try_clone().ok()?).ok()?).ok()).flatten();
    image.and_then(|image| image.owner(at / BLOCK as u64)).map_or_else(String::new, |path| format!(", in {}", show(&path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_artifact_and_the_byte() {
        let dir = std::env::temp_dir().join(format!("adamant-again-{}", std::process::id()));
        let write = |of: &str, bytes: &[u8]| {
            std::fs::create_dir_all(dir.join(of)).unwrap();
            std::fs::write(dir.join(of).join("x.raw"), bytes).unwrap();
        };
        let mut bytes = vec![0; CHUNK + 9];
        write("a", &bytes);
        write("b", &bytes);
        let compare = || first_difference(&dir.join("a"), &dir.join("b"), "x.raw").unwrap();
        assert_eq!(compare(), None);
        bytes[CHUNK + 3] = 1;
        write("b", &bytes);
        assert_eq!(compare().unwrap(), format!("x.raw at byte {}", CHUNK + 3));
        write("b", &[0; 7]);
        assert!(compare().unwrap().contains("the second time 7"));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
