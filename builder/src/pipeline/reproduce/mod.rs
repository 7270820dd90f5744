//! `build --check`: builds the definition a second time in another environment and compares every
//! byte of the artifacts.
//!
//! The second build is a child process without a cache. It has another directory, time zone,
//! locale, umask, number of threads and cores, and another user and host name where possible.

mod environment;
mod files;
mod work_folder;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use self::environment::VariedEnvironment;
use self::work_folder::{SignalGuard, WorkFolder};
use super::{BuildOptions, Built};
use crate::definition::Definition;
use crate::error::{Context, Error, Result};
use crate::term::output::Output;

pub use files::FileDifference;
pub use work_folder::sweep;

/// Bytes of one comparison.
const CHUNK: usize = 1 << 20;
/// Longest output of a failed second build that the error contains, bytes.
const OUTPUT_LIMIT: u64 = 64 << 10;

/// The result of the comparison.
#[derive(Debug)]
pub struct Comparison {
    /// The variations of the second build, as text.
    pub varied: Vec<String>,
    /// The first difference; `None` if all bytes are equal.
    pub difference: Option<String>,
    /// The files that differ, if the root file systems differ.
    pub files: Vec<FileDifference>,
}

/// Builds a second time and compares the artifacts.
pub fn compare(
    first: &Built,
    definition: &Definition,
    options: &BuildOptions,
    output: &Output,
) -> Result<Comparison> {
    // The guard is dropped after the directory, so signals are blocked until the directory is
    // removed.
    let signals = SignalGuard::block()?;
    let work_folder = WorkFolder::create(&first.out)?;
    signals.remove_on_signal(work_folder.path());
    let folder = work_folder.path().join("second");
    let mut environment = VariedEnvironment::choose(definition, options);
    loop {
        output.say(format_args!(
            "building a second time, from scratch: {}",
            environment.variations().join(", ")
        ));
        let built = second_build(
            definition,
            options,
            environment,
            &work_folder,
            &folder,
            &signals,
        );
        match (built, environment.as_same_user()) {
            (Ok(()), _) => break,
            (Err(error), None) => return Err(error),
            (Err(error), Some(same)) => {
                // The other user usually lacks permission to read a source, which says nothing
                // about the artifacts.
                output.detail(format_args!("another user cannot build: {error}"));
                environment = same;
            }
        }
    }
    // The root first: if it differs, its hash tree, root hash and disk differ too, and only the
    // root has files to name.
    let root = format!("{}.root.erofs", first.stem);
    let manifest = format!("{}.manifest.json", first.stem);
    let others = first
        .manifest
        .artifacts
        .iter()
        .map(|artifact| artifact.name.as_str())
        .filter(|name| *name != root);
    let (mut difference, mut files) = (None, Vec::new());
    for name in [root.as_str()]
        .into_iter()
        .chain(others)
        .chain([manifest.as_str()])
    {
        difference = first_difference(&first.out, &folder.join("out"), name)?;
        if let Some(text) = &mut difference {
            if name == root {
                files = files::compare(&first.out.join(name), &folder.join("out").join(name))?;
                *text += &format!(": {}", files::text(&files));
            }
            break;
        }
    }
    Ok(Comparison {
        varied: environment.variations(),
        difference,
        files,
    })
}

/// Runs the second build to its end.
fn second_build(
    definition: &Definition,
    options: &BuildOptions,
    environment: VariedEnvironment,
    work_folder: &WorkFolder,
    folder: &Path,
    signals: &SignalGuard,
) -> Result<()> {
    environment.prepare(folder)?;
    let log = work_folder.path().join("log");
    let mut command = environment.command(definition, options, work_folder, folder)?;
    command.stderr(File::create(&log).context(|| format!("{}", log.display()))?);
    *signals.child() = Some(command.spawn().context(|| "starting the second build")?);
    let status = loop {
        let status = signals
            .child()
            .as_mut()
            .map(|child| child.try_wait())
            .transpose()
            .context(|| "waiting for the second build")?
            .flatten();
        match status {
            Some(status) => break status,
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    if status.success() {
        return Ok(());
    }
    let mut text = Vec::new();
    File::open(&log)
        .and_then(|file| {
            std::io::Read::read_to_end(&mut std::io::Read::take(file, OUTPUT_LIMIT), &mut text)
        })
        .context(|| format!("{}", log.display()))?;
    Err(Error::new(format!(
        "the second build failed ({status}):\n{}",
        String::from_utf8_lossy(&text).trim_end()
    )))
}

fn first_difference(first: &Path, second: &Path, name: &str) -> Result<Option<String>> {
    let open = |dir: &Path| -> Result<(File, u64)> {
        let path = dir.join(name);
        let file = File::open(&path).context(|| format!("{}", path.display()))?;
        let length = file
            .metadata()
            .context(|| format!("{}", path.display()))?
            .len();
        Ok((file, length))
    };
    let ((a, a_length), (b, b_length)) = (open(first)?, open(second)?);
    let common = a_length.min(b_length);
    let (mut block_a, mut block_b) = (vec![0; CHUNK], vec![0; CHUNK]);
    let mut at = 0;
    while at < common {
        let take = (common - at).min(CHUNK as u64) as usize;
        a.read_exact_at(&mut block_a[..take], at)
            .and_then(|()| b.read_exact_at(&mut block_b[..take], at))
            .context(|| format!("comparing {name}"))?;
        if let Some(offset) = block_a[..take]
            .iter()
            .zip(&block_b[..take])
            .position(|(a, b)| a != b)
        {
            let at = at + offset as u64;
            return Ok(Some(format!("{name} at byte {at}")));
        }
        at += take as u64;
    }
    Ok((a_length != b_length)
        .then(|| format!("{name} has {a_length} bytes, in the second build {b_length}")))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_difference_names_the_artifact_and_the_byte() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path();
        let write = |of: &str, bytes: &[u8]| {
            fs::create_dir_all(dir.join(of)).unwrap();
            fs::write(dir.join(of).join("x.raw"), bytes).unwrap();
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
        assert!(compare().unwrap().contains("in the second build 7"));
    }
}
