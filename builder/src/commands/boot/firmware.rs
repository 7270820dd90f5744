//! UEFI firmware for the machine: OVMF and its variables, for Secure Boot with one certificate
//! enrolled as PK, KEK and in db.
//!
//! Variables are written into OVMF's empty variable store: EFI_FIRMWARE_VOLUME_HEADER,
//! VARIABLE_STORE_HEADER and AUTHENTICATED_VARIABLE_HEADER as edk2 defines them
//! (MdeModulePkg/Include/Guid/VariableFormat.h).

use std::path::{Path, PathBuf};

use adamant_contract::gpt::Guid;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Uefi;
use super::machine::{VirtualMachine, escape_commas};
use crate::error::{Context, Error, Result};
use crate::io::bounded;
use crate::io::prerequisite;
use crate::sign::certificate::Certificate;
use crate::sign::enrol::EfiTime;
use crate::sign::{authenticode, enrol};
use crate::uki::{measure, pe};

/// Paths of OVMF in Debian, Fedora and Arch Linux: the code without and with Secure Boot, and the
/// empty variable store for both.
const OVMF_PATHS: [[&str; 3]; 3] = [
    [
        "/usr/share/OVMF/OVMF_CODE_4M.fd",
        "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd",
        "/usr/share/OVMF/OVMF_VARS_4M.fd",
    ],
    [
        "/usr/share/edk2/ovmf/OVMF_CODE.fd",
        "/usr/share/edk2/ovmf/OVMF_CODE.secboot.fd",
        "/usr/share/edk2/ovmf/OVMF_VARS.fd",
    ],
    [
        "/usr/share/edk2/x64/OVMF_CODE.4m.fd",
        "/usr/share/edk2/x64/OVMF_CODE.secboot.4m.fd",
        "/usr/share/edk2/x64/OVMF_VARS.4m.fd",
    ],
];
/// Largest variable store, bytes. OVMF's has 540,672.
const STORE_LIMIT: u64 = 4 << 20;
/// First systemd-stub that accepts kernel arguments from SMBIOS.
const ACCEPTS_ARGUMENTS: u32 = 254;

/// gEfiAuthenticatedVariableGuid: the format of the store.
const AUTHENTICATED: &str = "aaf32c78-947b-439a-a180-2e144ec37792";
/// gEfiSecureBootEnableDisableGuid.
const SECURE_BOOT_ENABLE: &str = "f0a30bc7-af08-4556-99c4-001009c93a44";
/// Start of a variable's header (VARIABLE_DATA).
const VARIABLE_DATA: u16 = 0x55aa;
/// State of a complete variable that is not deleted (VAR_ADDED).
const ADDED: u8 = 0x3f;
/// Attributes: non-volatile, boot service access.
const NON_VOLATILE: u32 = 0x3;
/// Time of the enrolled variables, 2000-01-01. Any later signed update replaces them.
const ENROLLED: EfiTime = EfiTime::date(2000, 1, 1);
/// Time of a variable without authentication.
const NO_TIME: EfiTime = EfiTime::date(0, 0, 0);

/// EFI_FIRMWARE_VOLUME_HEADER without the block map at its end.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct FirmwareVolumeHeader {
    zero_vector: [u8; 16],
    file_system_guid: [u8; 16],
    fv_length: U64,
    signature: [u8; 4],
    attributes: U32,
    /// Offset of the variable store.
    header_length: U16,
    checksum: U16,
    ext_header_offset: U16,
    reserved: u8,
    revision: u8,
}

/// VARIABLE_STORE_HEADER.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct VariableStoreHeader {
    signature: [u8; 16],
    size: U32,
    format: u8,
    state: u8,
    reserved: U16,
    reserved1: U32,
}

/// AUTHENTICATED_VARIABLE_HEADER. Name and data follow it.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct VariableHeader {
    start_id: U16,
    state: u8,
    reserved: u8,
    attributes: U32,
    monotonic_count: U64,
    time_stamp: EfiTime,
    pub_key_index: U32,
    name_size: U32,
    data_size: U32,
    vendor_guid: [u8; 16],
}

/// Firmware for one machine.
#[derive(Debug, Clone)]
pub struct Firmware {
    /// The firmware's code, read-only.
    pub code: PathBuf,
    /// The machine's own variables.
    pub variables: PathBuf,
    /// Whether Secure Boot is on.
    pub secure_boot: bool,
}

impl Firmware {
    /// QEMU's arguments for the firmware.
    pub fn arguments(&self) -> Vec<String> {
        let drive = |unit: u32, options: &str, path: &Path| {
            format!(
                "if=pflash,unit={unit},format=raw{options},file={}",
                escape_commas(&path.display().to_string())
            )
        };
        let mut arguments: Vec<String> = [
            "-drive",
            &drive(0, ",readonly=on", &self.code),
            "-drive",
            &drive(1, "", &self.variables),
        ]
        .map(str::to_owned)
        .into();
        if self.secure_boot {
            // Only the firmware, in system management mode, can write its variables. Otherwise the
            // guest could enrol keys.
            arguments.extend(
                [
                    "-machine",
                    "q35,smm=on",
                    "-global",
                    "driver=cfi.pflash01,property=secure,value=on",
                ]
                .map(str::to_owned),
            );
            arguments.extend(["-global", "ICH9-LPC.disable_s3=1"].map(str::to_owned));
        }
        arguments
    }
}

/// Prepares the firmware that starts `machine`. Its variables are in the folder of `disk`. `append`
/// has the arguments that are added to the kernel command line.
pub fn prepare_machine(
    machine: &VirtualMachine,
    uefi: &Uefi,
    append: &str,
    disk: &Path,
) -> Result<Firmware> {
    let path = machine.efi.as_ref().ok_or_else(|| {
        Error::new(format!("{}: firmware can't start it, because it has no boot loader and no unified kernel image", machine.name))
            .hint("add the package systemd-boot-efi to the image, or set boot.stub and boot.loader; without --uefi QEMU starts its kernel")
    })?;
    let name = path.display().to_string();
    let bytes = bounded::read(path, pe::LIMIT).context(|| name.clone())?;
    if !append.trim().is_empty() {
        if uefi.secure_boot {
            return Err(Error::new("--append: with Secure Boot the machine starts with the signed kernel command line alone")
                .hint("add the arguments to kernel.cmdline and build again, or start without --secure-boot"));
        }
        if let Some(version) = measure::stub_version(&pe::PeImage::parse(&name, &bytes)?)
            .filter(|version| *version < ACCEPTS_ARGUMENTS)
        {
            return Err(Error::new(format!("--append: the image's systemd-stub {version} accepts no kernel arguments from QEMU, only {ACCEPTS_ARGUMENTS} and newer do"))
                .hint("start without --uefi, or add the arguments to kernel.cmdline and build again"));
        }
    }
    if !uefi.secure_boot {
        return prepare_variables(disk.with_extension("vars"), None);
    }
    let signed = authenticode::signed_with(&name, &bytes)?.ok_or_else(|| {
        Error::new(format!(
            "{name}: not signed: firmware with Secure Boot does not start it"
        ))
        .hint("build it with --keys DIR, or start it without --secure-boot")
    })?;
    let trusted = uefi
        .certificate
        .as_ref()
        .map(|file| Certificate::read(file))
        .transpose()?
        .unwrap_or(signed);
    // The file's name contains the certificate, so a run never uses variables of another
    // certificate.
    prepare_variables(
        disk.with_extension(format!("{}.vars", &trusted.fingerprint()[..16])),
        Some(trusted.der()),
    )
}

/// Creates the variables in `file`, unless it exists. With a certificate (DER), Secure Boot is on
/// and trusts only that certificate.
pub fn prepare_variables(file: PathBuf, certificate: Option<&[u8]>) -> Result<Firmware> {
    let found = OVMF_PATHS.iter().find(|[code, secure, variables]| {
        [code, secure, variables]
            .iter()
            .all(|path| Path::new(path).is_file())
    });
    let [code, secure, variables] = found
        .ok_or_else(|| prerequisite::missing(OVMF_PATHS[0][0], "OVMF, UEFI firmware for QEMU,"))?;
    if !file.exists() {
        let mut store =
            bounded::read(Path::new(variables), STORE_LIMIT).context(|| variables.to_string())?;
        if let Some(certificate) = certificate {
            enrol(&mut store, certificate).ok_or_else(|| {
                Error::new(format!("{variables}: not an empty variable store"))
                    .hint("reinstall OVMF")
            })?;
        }
        // Renamed when complete, because later runs use the file without a check.
        let new = file.with_extension("new");
        std::fs::write(&new, store)
            .and_then(|()| std::fs::rename(&new, &file))
            .context(|| file.display().to_string())?;
    }
    let code = PathBuf::from(if certificate.is_some() { secure } else { code });
    Ok(Firmware {
        code,
        variables: file,
        secure_boot: certificate.is_some(),
    })
}

/// Enrols a certificate; `None` if the store is not empty or not a variable store.
fn enrol(store: &mut [u8], certificate: &[u8]) -> Option<()> {
    let (volume, _) = FirmwareVolumeHeader::ref_from_prefix(store).ok()?;
    let start = usize::from(volume.header_length.get());
    let (variables, _) = VariableStoreHeader::ref_from_prefix(store.get(start..)?).ok()?;
    if volume.signature != *b"_FVH" || variables.signature != guid(AUTHENTICATED)? {
        return None;
    }
    let list = enrol::list(certificate);
    let mut at = start + size_of::<VariableStoreHeader>();
    for (name, vendor) in enrol::VARIABLES {
        at = put(store, at, name, vendor, enrol::ATTRIBUTES, &ENROLLED, &list)?;
    }
    put(
        store,
        at,
        "SecureBootEnable",
        SECURE_BOOT_ENABLE,
        NON_VOLATILE,
        &NO_TIME,
        &[1],
    )?;
    Some(())
}

/// Writes a variable at an offset of the empty store, and returns the offset of the next.
fn put(
    store: &mut [u8],
    at: usize,
    name: &str,
    vendor: &str,
    attributes: u32,
    time: &EfiTime,
    data: &[u8],
) -> Option<usize> {
    let name: Vec<u8> = name
        .encode_utf16()
        .chain([0])
        .flat_map(u16::to_le_bytes)
        .collect();
    let header = VariableHeader {
        start_id: U16::new(VARIABLE_DATA),
        state: ADDED,
        attributes: U32::new(attributes),
        time_stamp: *time,
        name_size: U32::new(name.len() as u32),
        data_size: U32::new(data.len() as u32),
        vendor_guid: guid(vendor)?,
        ..VariableHeader::new_zeroed()
    };
    let bytes = [header.as_bytes(), &name, data].concat();
    let room = store.get_mut(at..at + bytes.len())?;
    // Erased flash.
    if room.iter().any(|byte| *byte != 0xff) {
        return None;
    }
    room.copy_from_slice(&bytes);
    Some((at + bytes.len()).next_multiple_of(4))
}

fn guid(text: &str) -> Option<[u8; 16]> {
    text.parse::<Guid>().ok().map(|guid| guid.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of the volume's header with its block map.
    const HEADERS: usize = 72;

    /// The layout of edk2: the volume's header, the store's header, and erased flash.
    fn store() -> Vec<u8> {
        let mut store = vec![0xff; 64 << 10];
        let volume = FirmwareVolumeHeader {
            signature: *b"_FVH",
            header_length: U16::new(HEADERS as u16),
            ..FirmwareVolumeHeader::new_zeroed()
        };
        let variables = VariableStoreHeader {
            signature: guid(AUTHENTICATED).unwrap(),
            ..VariableStoreHeader::new_zeroed()
        };
        volume.write_to_prefix(&mut store).unwrap();
        variables.write_to_prefix(&mut store[HEADERS..]).unwrap();
        store
    }

    #[test]
    fn writes_variables_in_sequence_and_refuses_a_used_small_or_foreign_store() {
        let mut written = store();
        enrol(&mut written, &[7; 700]).unwrap();
        let mut at = HEADERS + size_of::<VariableStoreHeader>();
        let mut names = Vec::new();
        while written[at..at + 2] == VARIABLE_DATA.to_le_bytes() {
            let (header, rest) = VariableHeader::ref_from_prefix(&written[at..]).unwrap();
            assert_eq!(header.state, ADDED);
            let (name, data) = (header.name_size.get(), header.data_size.get());
            let units: Vec<u16> = rest[..name as usize]
                .chunks(2)
                .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
                .collect();
            names.push(String::from_utf16(&units).unwrap());
            let size = size_of::<VariableHeader>() + name as usize + data as usize;
            at = (at + size).next_multiple_of(4);
        }
        assert_eq!(names, ["db\0", "KEK\0", "PK\0", "SecureBootEnable\0"]);
        assert!(written[at..].iter().all(|byte| *byte == 0xff));
        assert!(
            enrol(&mut written, &[7; 700]).is_none(),
            "not empty any more"
        );
        assert!(enrol(&mut store()[..1024], &[7; 700]).is_none(), "no room");
        assert!(
            enrol(&mut vec![0; 4096], &[7; 700]).is_none()
                && enrol(&mut Vec::new(), &[7; 700]).is_none(),
            "no store"
        );
    }
}
