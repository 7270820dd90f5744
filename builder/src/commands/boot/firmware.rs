//! UEFI firmware for the machine: OVMF and its variables, for Secure Boot with one certificate
//! enrolled as PK, KEK and in db.
//!
//! Variables are written into OVMF's empty variable store: EFI_FIRMWARE_VOLUME_HEADER,
//! VARIABLE_STORE_HEADER and AUTHENTICATED_VARIABLE_HEADER as edk2 defines them
//! (MdeModulePkg/Include/Guid/VariableFormat.h).

use std::path::{Path, PathBuf};

use adamant_contract::gpt::Guid;

use super::Uefi;
use super::machine::{Machine, escape_commas};
use crate::error::{Context, Error, Result};
use crate::io::bounded;
use crate::io::prerequisite;
use crate::sign::certificate::Certificate;
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
const STORE_HEADER: usize = 28;
const VARIABLE_HEADER: usize = 60;
/// Start of a variable's header (VARIABLE_DATA).
const VARIABLE_DATA: u16 = 0x55aa;
/// State of a complete variable that is not deleted (VAR_ADDED).
const ADDED: u8 = 0x3f;
/// Attributes: non-volatile, boot service access.
const NON_VOLATILE: u32 = 0x3;
/// EFI_TIME of the enrolled variables, 2000-01-01. Any later signed update replaces them.
const ENROLLED: [u8; 16] = [0xd0, 0x07, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

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
    machine: &Machine,
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
    let header = usize::from(u16::from_le_bytes(store.get(48..50)?.try_into().ok()?));
    if store.get(40..44)? != b"_FVH" || store.get(header..header + 16)? != guid(AUTHENTICATED)? {
        return None;
    }
    let list = enrol::list(certificate);
    let mut at = header + STORE_HEADER;
    for (name, vendor) in enrol::VARIABLES {
        at = put(store, at, name, vendor, enrol::ATTRIBUTES, &ENROLLED, &list)?;
    }
    put(
        store,
        at,
        "SecureBootEnable",
        SECURE_BOOT_ENABLE,
        NON_VOLATILE,
        &[0; 16],
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
    time: &[u8; 16],
    data: &[u8],
) -> Option<usize> {
    let name: Vec<u8> = name
        .encode_utf16()
        .chain([0])
        .flat_map(u16::to_le_bytes)
        .collect();
    let mut bytes = Vec::with_capacity(VARIABLE_HEADER + name.len() + data.len());
    bytes.extend_from_slice(&VARIABLE_DATA.to_le_bytes());
    bytes.extend_from_slice(&[ADDED, 0]);
    bytes.extend_from_slice(&attributes.to_le_bytes());
    bytes.extend_from_slice(&[0; 8]);
    bytes.extend_from_slice(time);
    for number in [0, name.len() as u32, data.len() as u32] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes.extend_from_slice(&guid(vendor)?);
    bytes.extend_from_slice(&name);
    bytes.extend_from_slice(data);
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

    /// The layout of edk2: the volume's header, the store's header, and erased flash.
    fn store() -> Vec<u8> {
        let mut store = vec![0xff; 64 << 10];
        store[..72 + STORE_HEADER].fill(0);
        store[40..44].copy_from_slice(b"_FVH");
        store[48..50].copy_from_slice(&72u16.to_le_bytes());
        store[72..88].copy_from_slice(&guid(AUTHENTICATED).unwrap());
        store
    }

    #[test]
    fn writes_variables_in_sequence_and_refuses_a_used_small_or_foreign_store() {
        let mut written = store();
        enrol(&mut written, &[7; 700]).unwrap();
        let mut at = 72 + STORE_HEADER;
        let mut names = Vec::new();
        while written[at..at + 2] == VARIABLE_DATA.to_le_bytes() {
            assert_eq!(written[at + 2], ADDED);
            let number = |offset: usize| {
                u32::from_le_bytes(written[at + offset..at + offset + 4].try_into().unwrap())
                    as usize
            };
            let (name, data) = (number(36), number(40));
            let units: Vec<u16> = written[at + 60..at + 60 + name]
                .chunks(2)
                .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
                .collect();
            names.push(String::from_utf16(&units).unwrap());
            at = (at + 60 + name + data).next_multiple_of(4);
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
