//! The machine image around a finished root: signatures, EFI system partition, disk, and the disk's
//! other formats. A build writes it at its end. `adamant sign` writes it again from the artifacts
//! of an unsigned build; the same parts and keys give the same bytes.

use std::fs::File;

use adamant_contract::gpt::Guid;
use adamant_contract::root_hash::RootHash;

use super::artifacts::{Artifacts, Clock};
use super::programs;
use super::signers::{self, Signers};
use crate::derive::derive_uuid;
use crate::disk::{self, DiskContents, DiskLayout};
use crate::error::{Context, Result};
use crate::format::{self, Facts, Format};
use crate::io::part::Part;
use crate::manifest::ImageVersion;
use crate::sign::roothash;
use crate::uki::pe::PeImage;

/// UKIs that an EFI system partition must have space for: the running image, the one before it, and
/// the one that an update writes.
const UKIS: u64 = 3;

/// The boot loader and the UKI, before they are signed.
pub struct UnsignedPrograms {
    /// systemd's boot loader.
    pub loader: Vec<u8>,
    /// The unified kernel image.
    pub uki: PeImage,
}

/// The parts of a machine image.
pub struct MachineParts<'a> {
    /// The image's id and version.
    pub image: &'a ImageVersion,
    /// The root hash.
    pub hash: RootHash,
    /// The programs that firmware starts; `None` for an image that firmware cannot start.
    pub programs: Option<UnsignedPrograms>,
    /// The root file system.
    pub root: &'a File,
    /// Its hash tree, with the superblock.
    pub hash_tree: &'a File,
    /// The partitions; `None` if no disk is wanted.
    pub layout: Option<&'a DiskLayout>,
    /// Formats of the disk besides raw.
    pub formats: &'a [Format],
    /// Newest modification time in the image.
    pub epoch: Option<i64>,
}

/// Signs the parts and writes the disk in all formats. Returns the SHA-256 of the root, which is
/// read on the way.
pub fn write_machine_image(
    parts: MachineParts,
    signers: &Signers,
    artifacts: &mut Artifacts,
    clock: &Clock,
    jobs: usize,
) -> Result<[u8; 32]> {
    let signature = sign_root_hash(&parts.hash, signers, artifacts)?;
    let programs = match parts.programs {
        None => None,
        Some(UnsignedPrograms { loader, uki }) => {
            let signed = clock.time("sign", || programs::sign(loader, uki, signers))?;
            artifacts.put("efi", &signed.uki)?;
            artifacts.put("loader.efi", &signed.loader)?;
            Some(signed)
        }
    };
    let Some(layout) = parts.layout else {
        return clock.time("hash", || digest(parts.root).context(|| "reading the root"));
    };
    let esp = programs
        .map(|programs| write_esp(programs, layout, parts.image, artifacts, clock))
        .transpose()?;
    let contents = DiskContents {
        esp: esp.as_ref().map(|(file, used)| (file, *used)),
        root: parts.root,
        hash_tree: parts.hash_tree,
        signature: &signature,
    };
    let raw = artifacts.staging.file(&format!("{}.raw", artifacts.stem))?;
    let written = clock.time("disk", || layout.write(&contents, &raw))?;
    artifacts.note_parts("raw", layout.bytes(), written.pieces);
    let facts = facts(parts.image, &parts.hash, parts.epoch);
    for &format in parts.formats {
        let name = format!("{}.{}", artifacts.stem, format.suffix());
        let out = artifacts.staging.file(&name)?;
        let written = clock.time(format.name(), || {
            format::write(format, &raw, &facts, &out, jobs)
        })?;
        artifacts.note(format.suffix(), written.size, written.sha256);
    }
    Ok(written.root)
}

/// Writes the EFI system partition into a temporary file. Returns the file and the bytes in use.
fn write_esp(
    programs: programs::SignedPrograms,
    layout: &DiskLayout,
    image: &ImageVersion,
    artifacts: &Artifacts,
    clock: &Clock,
) -> Result<(File, u64)> {
    let programs::SignedPrograms { loader, uki } = programs;
    let fitting = layout.esp_bytes() / (uki.len() as u64).max(1);
    if (1..UKIS).contains(&fitting) {
        let mib = uki.len().div_ceil(1 << 20);
        clock.output.warn(
            format_args!(
                "the EFI system partition has room for {fitting} unified kernel images of {mib} MiB"
            ),
            Some("make disk.esp larger: an update writes a new image beside the running one and the one before it"),
        );
    }
    let file = artifacts.staging.scratch()?;
    let entries = disk::esp::entries(artifacts.stem, loader, uki);
    let guid = disk::derived_guid(&image.id, "esp");
    let (bytes, sector) = (layout.esp_bytes(), layout.sector() as u32);
    let used = clock.time("esp", || {
        disk::esp::write(&file, bytes, sector, &guid, &entries)
    })?;
    Ok((file, used))
}

/// Writes the signature of the root hash as an artifact and returns the bytes of its partition;
/// empty without a signer.
fn sign_root_hash(
    hash: &RootHash,
    signers: &Signers,
    artifacts: &mut Artifacts,
) -> Result<Vec<u8>> {
    let Some(signer) = signers::signer(&signers.verity) else {
        return Ok(Vec::new());
    };
    let signature = roothash::sign(signer, hash)?;
    artifacts.put("roothash.p7s", &signature)?;
    roothash::partition(signer, hash, &signature)
}

/// The SHA-256 of a file.
pub fn digest(file: &File) -> std::io::Result<[u8; 32]> {
    Part::whole(file.try_clone()?)?.sha256(|_| Ok(()))
}

/// Facts that the disk's formats record. Hypervisors take two disks with the same GUID for one
/// disk, so the GUID depends on the content.
fn facts(image: &ImageVersion, root_hash: &RootHash, epoch: Option<i64>) -> Facts {
    let ImageVersion { id, version } = image;
    let guid = Guid::from_text_order(derive_uuid(
        b"adamant disk image\0",
        &format!("{id} {version} {root_hash}"),
    ));
    Facts {
        id: id.clone(),
        version: version.clone(),
        guid,
        epoch: epoch.unwrap_or(0),
    }
}
