//! `build --check`: the same definition a second time, from scratch, by a process of its own that
//! lives in other circumstances: another folder, time zone, locale, umask, number of threads and of
//! cores, where possible another user, and no cache. Then every artifact is compared to the last
//! byte.

mod elsewhere;
mod files;
mod scratch;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use self::elsewhere::Elsewhere;
use self::scratch::{Scratch, Tidy};
use super::{Built, Options};
use crate::definition::Definition;
use crate::error::{Context, Error, Result};
use crate::term::output::Output;

pub use files::Changed;
pub use scratch::sweep;

/// Bytes compared at a time.
const CHUNK: usize = 1 << 20;
/// The most of its words that are shown when the second build fails, bytes.
const SAID: u64 = 64 << 10;

/// What came of it.
#[derive(Debug)]
pub struct Compared {
    /// What was different for the second build, in words.
    pub varied: Vec<String>,
    /// The first difference in a sentence; `None` when every byte is the same.
    pub difference: Option<String>,
    /// The files that differ, if the root file systems do.
    pub files: Vec<Changed>,
}

/// Builds again and compares.
pub fn compare(
    first: &Built,
    definition: &Definition,
    options: &Options,
    output: &Output,
) -> Result<Compared> {
    // In this order, so that signals wait until the folder is gone.
    let tidy = Tidy::begin()?;
    let scratch = Scratch::beside(&first.out)?;
    tidy.watch(scratch.path());
    let folder = scratch.path().join("second");
    let mut elsewhere = Elsewhere::from(definition, options);
    loop {
        output.say(format_args!(
            "building a second time, from scratch: {}",
            elsewhere.words().join(", ")
        ));
        match (
            second(definition, options, elsewhere, &scratch, &folder, &tidy),
            elsewhere.as_same_user(),
        ) {
            (Ok(()), _) => break,
            (Err(error), None) => return Err(error),
            (Err(error), Some(same)) => {
                // Most often: what only root may read. That is no difference in what comes out.
                output.detail(format_args!("not as another user: {error}"));
                elsewhere = same;
            }
        }
    }
    // The root first: when it differs, so do its tree, its hash and the disk, and only it has
    // files.
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
    Ok(Compared {
        varied: elsewhere.words(),
        difference,
        files,
    })
}

/// Runs the second build to its end.
fn second(
    definition: &Definition,
    options: &Options,
    elsewhere: Elsewhere,
    scratch: &Scratch,
    folder: &Path,
    tidy: &Tidy,
) -> Result<()> {
    elsewhere.prepare(folder)?;
    let said = scratch.path().join("said");
    let mut command = elsewhere.command(definition, options, scratch, folder)?;
    command.stderr(File::create(&said).context(|| format!("{}", said.display()))?);
    *tidy.child() = Some(command.spawn().context(|| "starting the second build")?);
    let status = loop {
        let status = tidy
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
    File::open(&said)
        .and_then(|file| {
            std::io::Read::read_to_end(&mut std::io::Read::take(file, SAID), &mut text)
        })
        .context(|| format!("{}", said.display()))?;
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
        .then(|| format!("{name} has {a_length} bytes, the second time {b_length}")))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn names_the_artifact_and_the_byte() {
        let dir = std::env::temp_dir().join(format!("adamant-again-{}", std::process::id()));
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
        assert!(compare().unwrap().contains("the second time 7"));
        fs::remove_dir_all(&dir).unwrap();
    }
}
