//! The disk that a machine writes to: a temporary overlay over the image's disk, or the persisted
//! machine's own disk. Also reads the black box on it, which records how each start went.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use adamant_contract::blackbox::{self, BootRecord, RecordRing};

use super::command::{Drive, DriveCache, DriveFormat};
use super::machine::VirtualMachine;
use super::persist::Persisted;

use crate::disk::open_table;
use crate::error::{Context, Error, Result};
use crate::io::prerequisite;

/// The disk of a run.
#[derive(Debug)]
pub struct MachineDisk {
    file: PathBuf,
    format: DriveFormat,
    black_box: Option<BlackBox>,
    /// Holds the persisted machine's lock while the machine runs.
    _persisted: Option<Persisted>,
}

/// The black box on the disk, and its state before the run.
#[derive(Debug, Clone, Copy)]
struct BlackBox {
    offset: u64,
    bytes: u64,
    /// Number of the first record that the run will add.
    next: u64,
}

impl MachineDisk {
    /// Creates an overlay in the folder `scratch`.
    pub fn overlay(machine: &VirtualMachine, scratch: &Path) -> Result<MachineDisk> {
        let base =
            std::fs::canonicalize(&machine.disk).context(|| machine.disk.display().to_string())?;
        let file = scratch.join("overlay.qcow2");
        let mut create = Command::new(prerequisite::find("qemu-img")?);
        create
            .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"])
            .arg(&base)
            .arg(&file)
            .stdin(Stdio::null());
        let made = create.output().context(|| "starting qemu-img")?;
        if !made.status.success() {
            return Err(Error::new(format!(
                "{}: creating the overlay: {}",
                file.display(),
                String::from_utf8_lossy(&made.stderr).trim()
            )));
        }
        let black_box = find_black_box(&base)?;
        Ok(MachineDisk {
            file,
            format: DriveFormat::Qcow2,
            black_box,
            _persisted: None,
        })
    }

    /// The persisted machine's disk.
    pub fn persisted(persisted: Persisted) -> Result<MachineDisk> {
        let file = persisted.disk();
        let black_box = find_black_box(&file)?;
        Ok(MachineDisk {
            file,
            format: DriveFormat::Raw,
            black_box,
            _persisted: Some(persisted),
        })
    }

    /// The disk as QEMU's arguments need it.
    pub fn drive(&self) -> Drive<'_> {
        Drive {
            file: &self.file,
            format: self.format,
            cache: DriveCache::Writeback,
        }
    }

    /// Path of the disk. The firmware's variables and the TPM's state are in the same folder.
    pub fn path(&self) -> &Path {
        &self.file
    }

    /// Whether the disk has a black box.
    pub fn has_black_box(&self) -> bool {
        self.black_box.is_some()
    }

    /// The records that the run added to the black box, oldest first.
    pub fn new_records(&self) -> Result<Vec<BootRecord>> {
        let Some(black_box) = self.black_box else {
            return Ok(Vec::new());
        };
        let bytes = match self.format {
            DriveFormat::Raw => read_range(&self.file, black_box.offset, black_box.bytes)?,
            DriveFormat::Qcow2 => self.read_overlay(black_box)?,
        };
        let Some(ring) = RecordRing::parse(&bytes) else {
            return Ok(Vec::new());
        };
        let added = usize::try_from(ring.next.saturating_sub(black_box.next)).unwrap_or(usize::MAX);
        let older = ring.records.len().saturating_sub(added);
        Ok(ring.records.into_iter().skip(older).collect())
    }

    /// Reads the black box from the overlay with qemu-img.
    fn read_overlay(&self, black_box: BlackBox) -> Result<Vec<u8>> {
        let to = self.file.with_extension("black-box");
        let block = blackbox::BLOCK as u64;
        let mut dd = Command::new(prerequisite::find("qemu-img")?);
        dd.args(["dd", "-f", "qcow2", "-O", "raw"])
            .arg(format!("bs={block}"));
        // `count` includes the skipped blocks.
        dd.arg(format!("skip={}", black_box.offset / block))
            .arg(format!(
                "count={}",
                (black_box.offset + black_box.bytes) / block
            ));
        let mut from = std::ffi::OsString::from("if=");
        from.push(&self.file);
        let mut into = std::ffi::OsString::from("of=");
        into.push(&to);
        let done = dd
            .arg(from)
            .arg(into)
            .stdin(Stdio::null())
            .output()
            .context(|| "starting qemu-img")?;
        if !done.status.success() {
            return Err(Error::new(format!(
                "{}: reading the black box: {}",
                self.file.display(),
                String::from_utf8_lossy(&done.stderr).trim()
            )));
        }
        let mut bytes = std::fs::read(&to).context(|| to.display().to_string())?;
        bytes.truncate(usize::try_from(black_box.bytes).unwrap_or(usize::MAX));
        Ok(bytes)
    }
}

/// Finds the black box of a raw disk by its partition type.
fn find_black_box(disk: &Path) -> Result<Option<BlackBox>> {
    let what = || disk.display().to_string();
    let file = File::open(disk).context(what)?;
    let (sector, found) = open_table(disk, &file)?;
    let Some(partition) = found
        .table
        .partitions
        .iter()
        .flatten()
        .find(|partition| partition.kind == blackbox::PARTITION_TYPE)
    else {
        return Ok(None);
    };
    let offset = partition.first.saturating_mul(sector);
    let bytes = partition
        .sectors()
        .saturating_mul(sector)
        .min(blackbox::BYTES);
    let next = RecordRing::parse(&read_range(disk, offset, bytes)?).map_or(1, |ring| ring.next);
    Ok(Some(BlackBox {
        offset,
        bytes,
        next,
    }))
}

fn read_range(path: &Path, offset: u64, bytes: u64) -> Result<Vec<u8>> {
    let what = || path.display().to_string();
    let mut buffer = vec![0; usize::try_from(bytes).unwrap_or_default()];
    File::open(path)
        .and_then(|file| file.read_exact_at(&mut buffer, offset))
        .context(what)?;
    Ok(buffer)
}
