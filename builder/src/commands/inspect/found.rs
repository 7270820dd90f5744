//! Reads a disk: partitions, the EFI system partition and its programs, and each root with its hash
//! tree and signature.

use std::fs::File as OsFile;
use std::path::Path;
use std::sync::Arc;

use adamant_contract::gpt::{
    self, EFI_SYSTEM, Partition, ROOT_VERITY_SIG_X86_64, ROOT_VERITY_X86_64, ROOT_X86_64,
};
use adamant_contract::root_hash::RootHash;
use serde::Serialize;

use super::program::{EfiProgram, ProgramSignature};
use crate::disk::fat::read::{FatFile, FatKind, FatReader};
use crate::disk::{self, EMPTY};
use crate::error::{Context, Result};
use crate::io::part::Part;
use crate::sign::certificate::Certificate;
use crate::sign::message;

/// Largest program that is read from the EFI system partition, bytes.
const PROGRAM_LIMIT: u64 = 512 << 20;
/// Largest text file that is read, bytes.
const TEXT_LIMIT: u64 = 64 << 10;
/// Type of extended boot loader partitions (UAPI.1).
pub const XBOOTLDR: &str = "bc13c2ff-59e6-4262-a352-b275fd6f7172";

/// A disk image, as `adamant inspect` reads it.
pub struct InspectedDisk {
    /// Size of a sector in bytes.
    pub sector: u64,
    /// Faults of the partition table that a boot would repair.
    pub repairs: Vec<String>,
    /// Number and entry of each partition.
    pub partitions: Vec<(usize, Partition)>,
    /// The EFI system partition, or why it can't be read.
    pub esp: Option<std::result::Result<EspContent, String>>,
    /// Every root that has an image.
    pub roots: Vec<RootPartitions>,
    file: Arc<OsFile>,
}

/// An EFI system partition.
pub struct EspContent {
    /// Size in bytes.
    pub bytes: u64,
    /// The kind of its file system.
    pub kind: FatKind,
    /// All files.
    pub files: Vec<FatFile>,
    /// The EFI programs.
    pub programs: Vec<EfiProgram>,
    /// Programs that could not be read, and why.
    pub unread: Vec<String>,
    /// The boot loader's configuration.
    pub loader_conf: Option<String>,
}

/// The partitions of a root.
pub struct RootPartitions {
    /// The data partition.
    pub data: Partition,
    /// The hash tree of the same version, by its label.
    pub tree: Option<Partition>,
    /// The signature of the same version, by its label.
    pub signature: Option<Partition>,
}

/// The content of a signature partition.
#[derive(Debug, Clone, Serialize)]
pub struct RootSignature {
    /// The root hash that it claims to sign.
    pub root_hash: String,
    /// The signature and its certificate.
    pub signature: ProgramSignature,
}

impl InspectedDisk {
    /// Reads a disk image.
    pub fn read(path: &Path, trusted: &[Certificate]) -> Result<InspectedDisk> {
        let name = || path.display().to_string();
        let file = Arc::new(OsFile::open(path).context(name)?);
        let (sector, found) = disk::open_table(path, &file)?;
        let partitions: Vec<_> = (1..)
            .zip(found.table.partitions)
            .filter_map(|(number, part)| Some((number, part?)))
            .collect();
        let mut disk = InspectedDisk {
            sector,
            repairs: found.repairs,
            partitions,
            esp: None,
            roots: Vec::new(),
            file,
        };
        let esp = disk.of_type(EFI_SYSTEM).next().cloned();
        disk.esp = esp.map(|part| disk.read_esp(&part, trusted));
        disk.roots = disk.find_roots();
        Ok(disk)
    }

    /// Partitions of a type that are not empty.
    pub fn of_type(&self, kind: gpt::Guid) -> impl Iterator<Item = &Partition> {
        self.partitions
            .iter()
            .map(|(_, part)| part)
            .filter(move |part| part.kind == kind && part.label != EMPTY)
    }

    /// A partition's bytes.
    pub fn part(&self, partition: &Partition) -> std::result::Result<Part, String> {
        let range = partition
            .first
            .checked_mul(self.sector)
            .zip(partition.sectors().checked_mul(self.sector));
        range
            .and_then(|(start, length)| Part::range(self.file.clone(), start, length))
            .ok_or_else(|| "the partition's offset and size exceed 64 bits".to_owned())
    }

    /// The root hash in the PARTUUIDs of root and hash tree (UAPI.2).
    pub fn root_hash(root: &RootPartitions) -> Option<RootHash> {
        let halves = [
            root.data.id.text_order(),
            root.tree.as_ref()?.id.text_order(),
        ];
        halves.concat().try_into().ok().map(RootHash)
    }

    /// Reads and checks a root's signature partition.
    pub fn root_signature(
        &self,
        root: &RootPartitions,
        trusted: &[Certificate],
    ) -> std::result::Result<Option<RootSignature>, String> {
        let Some(partition) = &root.signature else {
            return Ok(None);
        };
        let part = self.part(partition)?;
        if part.len() > adamant_contract::signature::PARTITION_LIMIT as u64 {
            return Err(format!("{} bytes, more than 4 MiB", part.len()));
        }
        let mut bytes = vec![0; part.len() as usize];
        part.read_exact_at(&mut bytes, 0)
            .map_err(|e| e.to_string())?;
        let embedded =
            adamant_contract::signature::Embedded::parse(&bytes).map_err(|e| e.to_string())?;
        let root_hash = embedded.root_hash.to_string();
        let opened = message::open(&embedded.message).map_err(|e| e.message().to_owned())?;
        let holds = match opened.certificate.fingerprint() == embedded.certificate_fingerprint {
            true => opened.verify(root_hash.as_bytes()),
            false => Err("its certificateFingerprint is not that of its certificate".to_owned()),
        };
        Ok(Some(RootSignature {
            root_hash,
            signature: ProgramSignature::new(&opened.certificate, holds, trusted),
        }))
    }

    fn read_esp(
        &self,
        partition: &Partition,
        trusted: &[Certificate],
    ) -> std::result::Result<EspContent, String> {
        let part = self.part(partition)?;
        let bytes = part.len();
        let fat = FatReader::open(part)?;
        let files = fat.files()?;
        let (mut programs, mut unread) = (Vec::new(), Vec::new());
        for file in files
            .iter()
            .filter(|file| file.path.to_ascii_lowercase().ends_with(".efi"))
        {
            let read = fat.read(file, PROGRAM_LIMIT).and_then(|bytes| {
                EfiProgram::parse(&file.path, &bytes, trusted).map_err(|e| e.message().to_owned())
            });
            match read {
                Ok(program) => programs.push(program),
                Err(why) => unread.push(if why.contains(&file.path) {
                    why
                } else {
                    format!("{}: {why}", file.path)
                }),
            }
        }
        let conf = files
            .iter()
            .find(|file| file.path.eq_ignore_ascii_case("loader/loader.conf"));
        let loader_conf = conf
            .and_then(|file| fat.read(file, TEXT_LIMIT).ok())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        Ok(EspContent {
            bytes,
            kind: fat.kind(),
            files,
            programs,
            unread,
            loader_conf,
        })
    }

    /// Groups root, hash tree and signature by their labels: `LABEL`, `LABEL_verity` and
    /// `LABEL_sig`, or equal labels. A single hash tree or signature belongs to a single root,
    /// whatever its label.
    fn find_roots(&self) -> Vec<RootPartitions> {
        let pick = |kind: gpt::Guid, label: &str, suffix: &str| {
            let all: Vec<&Partition> = self.of_type(kind).collect();
            let fits = |part: &&&Partition| {
                part.label == format!("{label}{suffix}") || part.label == label
            };
            all.iter()
                .find(fits)
                .or(
                    if all.len() == 1 && self.of_type(ROOT_X86_64).count() == 1 {
                        all.first()
                    } else {
                        None
                    },
                )
                .map(|part| (*part).clone())
        };
        let root = |data: &Partition| RootPartitions {
            tree: pick(ROOT_VERITY_X86_64, &data.label, "_verity"),
            signature: pick(ROOT_VERITY_SIG_X86_64, &data.label, "_sig"),
            data: data.clone(),
        };
        self.of_type(ROOT_X86_64).map(root).collect()
    }
}
