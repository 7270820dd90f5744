//! The machine image around a finished root: signatures, EFI system partition, disk, and the disk's
//! further formats. A build does it at its end, and `adamant sign` does it again with what an
//! unsigned build left; the same parts and keys give the same bytes either way.

use std::fs::File;

use adamant_contract::gpt::Guid;
use adamant_contract::root_hash::RootHash;

use super::artifacts::{Artifacts, Clock};
use super::signers::{self, Signers};
use super::start;
use crate::derive::derive_uuid;
use crate::disk::{self, DiskContents, DiskLayout};
use crate::error::{Context, Result};
use crate::format::{self, Facts, Format};
use crate::io::part::Part;
use crate::manifest::ImageVersion;
use crate::sign::roothash;
use crate::uki::pe;

/// The running image, the one before it, and the one that is being written.
const UNIFIED_IMAGES: u64 = 3;

/// What it is put together from.
pub struct Parts<'a> {
    /// Which image this is.
    pub image: &'a ImageVersion,
    /// The root hash.
    pub hash: RootHash,
    /// Boot loader and unified kernel image, unsigned, where firmware is to start the disk.
    pub programs: Option<(Vec<u8>, pe::PeImage)>,
    /// The root file system.
    pub root: &'a File,
    /// Its verity tree.
    pub tree: &'a File,
    /// Where everything is on the disk; `None` where there is to be none.
    pub layout: Option<&'a DiskLayout>,
    /// Further formats of the disk.
    pub formats: &'a [Format],
    /// Newest modification time in the image.
    pub epoch: Option<i64>,
}

/// Signs, and writes disk and formats. Gives the SHA-256 of the root, which was read on the way.
pub fn make(
    parts: Parts,
    signers: &Signers,
    artifacts: &mut Artifacts,
    clock: &mut Clock,
    jobs: usize,
) -> Result<[u8; 32]> {
    let Parts { image, hash, .. } = parts;
    let signature = sign_root_hash(&hash, signers, artifacts)?;
    let programs = match parts.programs {
        None => None,
        Some((loader, unified)) => {
            let (loader, unified) = clock.time("sign", || start::sign(loader, unified, signers))?;
            artifacts.put("efi", &unified)?;
            artifacts.put("loader.efi", &loader)?;
            Some((loader, unified))
        }
    };
    let Some(layout) = parts.layout else {
        return clock.time("hash", || digest(parts.root).context(|| "the root"));
    };
    let esp = match programs {
        None => None,
        Some((loader, unified)) => {
            let room = layout.esp_bytes() / (unified.len() as u64).max(1);
            if (1..UNIFIED_IMAGES).contains(&room) {
                let what = format!(
                    "the EFI system partition has room for {room} unified kernel images of {} MiB",
                    unified.len().div_ceil(1 << 20)
                );
                clock.output.warn(what, Some("make disk.esp larger: a new image is written beside the one that runs and the one before it"));
            }
            let file = artifacts.staging.scratch()?;
            let entries = disk::esp::entries(artifacts.stem, loader, unified);
            let guid = disk::derived_guid(&image.id, "esp");
            let used = clock.time("esp", || {
                disk::esp::write(
                    &file,
                    layout.esp_bytes(),
                    layout.sector() as u32,
                    &guid,
                    &entries,
                )
            })?;
            Some((file, used))
        }
    };
    let contents = DiskContents {
        esp: esp.as_ref().map(|(file, used)| (file, *used)),
        root: parts.root,
        hash_tree: parts.tree,
        signature: &signature,
    };
    let raw = artifacts.staging.file(&format!("{}.raw", artifacts.stem))?;
    let written = clock.time("disk", || layout.write(&contents, &raw))?;
    artifacts.note_parts("raw", layout.bytes(), written.pieces);
    let facts = facts(image, &hash, parts.epoch);
    for &format in parts.formats {
        let out = artifacts
            .staging
            .file(&format!("{}.{}", artifacts.stem, format.suffix()))?;
        let written = clock.time(format.name(), || {
            format::write(format, &raw, &facts, &out, jobs)
        })?;
        artifacts.note(format.suffix(), written.size, written.sha256);
    }
    Ok(written.root)
}

/// The root hash's signature as an artifact, and the bytes of its partition; empty where nobody
/// signs.
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

/// The SHA-256 of all of a file.
pub fn digest(file: &File) -> std::io::Result<[u8; 32]> {
    Part::whole(file.try_clone()?)?.sha256(|_| Ok(()))
}

/// What the disk's formats say about it. To a hypervisor two disks of one GUID are the same disk,
/// so the content has a part in it.
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
