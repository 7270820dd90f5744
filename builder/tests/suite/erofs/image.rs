//! Images in files: writes, opens and mounts them, and removes them at the end.

use adamant_skip::skip;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use adamant::erofs::read::ErofsImage;
use adamant::erofs::{self, Algorithm, BLOCK, BlockSink, ErofsOptions, Reference, WrittenErofs};
use adamant::io::part::Part;
use adamant::tree::Tree;
use tempfile::TempDir;

struct ToFile(File, u64);

impl BlockSink for ToFile {
    fn append(&mut self, blocks: &[u8]) -> io::Result<()> {
        assert_eq!(blocks.len() % BLOCK, 0);
        self.0.write_all_at(blocks, self.1)?;
        self.1 += blocks.len() as u64;
        Ok(())
    }

    fn first(&mut self, block: &[u8; BLOCK]) -> io::Result<()> {
        self.0.write_all_at(block, 0)
    }
}

pub fn write(
    tree: &Tree,
    compression: Option<Algorithm>,
    cluster: u32,
    jobs: usize,
    path: &Path,
) -> adamant::Result<()> {
    let options = options(compression, cluster, jobs);
    write_with(&options, tree, path).map(|_| ())
}

/// With small files as fragments of the packed inode.
pub fn write_with_fragments(
    tree: &Tree,
    compression: Option<Algorithm>,
    cluster: u32,
    jobs: usize,
    path: &Path,
) -> adamant::Result<()> {
    let options = ErofsOptions {
        fragments: true,
        ..options(compression, cluster, jobs)
    };
    write_with(&options, tree, path).map(|_| ())
}

fn write_with(options: &ErofsOptions, tree: &Tree, path: &Path) -> adamant::Result<WrittenErofs> {
    let mut sink = ToFile(File::create(path).unwrap(), BLOCK as u64);
    erofs::write(tree, options, &mut sink)
}

/// With a reference image.
pub fn write_over(
    reference: &Arc<Reference>,
    tree: &Tree,
    compression: Option<Algorithm>,
    cluster: u32,
    jobs: usize,
    path: &Path,
) -> adamant::Result<WrittenErofs> {
    let options = ErofsOptions {
        reference: Some(reference.clone()),
        ..options(compression, cluster, jobs)
    };
    write_with(&options, tree, path)
}

fn options(compression: Option<Algorithm>, cluster: u32, jobs: usize) -> ErofsOptions {
    let (uuid, label) = ([7; 16], "test".to_owned());
    ErofsOptions {
        compression,
        cluster,
        fragments: false,
        uuid,
        label,
        jobs,
        spool: std::env::temp_dir(),
        cache: None,
        reference: None,
    }
}

pub fn open(path: impl AsRef<Path>) -> adamant::Result<ErofsImage> {
    ErofsImage::open(Part::whole(File::open(path).unwrap()).unwrap())
}

pub struct Scratch(pub TempDir);

impl Scratch {
    pub fn new() -> Scratch {
        Scratch(tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap())
    }
}

pub fn may_mount() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        skip!(Root("mounting"), false);
    }
    root
}

pub struct Mounted(pub PathBuf);

impl Mounted {
    pub fn new(image: &Path, at: PathBuf) -> Mounted {
        std::fs::create_dir_all(&at).unwrap();
        run(Command::new("mount")
            .args(["-t", "erofs", "-o", "loop,ro"])
            .arg(image)
            .arg(&at));
        Mounted(at)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

pub fn run(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        output.status.success() && !text.contains("<E>"),
        "{command:?}: {text}"
    );
    text
}
