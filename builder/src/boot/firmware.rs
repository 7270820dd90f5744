//! UEFI firmware for the machine: OVMF and its variables, where wanted with one certificate enrolled as platform key, key exchange key and
//! in db.
//!
//! Variables are written into OVMF's own empty store: EFI_FIRMWARE_VOLUME_HEADER, VARIABLE_STORE_HEADER and
//! AUTHENTICATED_VARIABLE_HEADER as edk2 defines them (MdeModulePkg/Include/Guid/VariableFormat.h).

use std::path::{Path, PathBuf};

use adamant_agent::gpt::Guid;

use crate::bounded;
use crate::error::{Context, Error, Result};
use crate::sign::enrol;

/// Where distributions put it: code without and with Secure Boot, and the empty variables that go with both.
const PLACES: [[&str; 3]; 3] = [
    ["/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"],
    ["/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_CODE.secboot.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"],
    ["/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_CODE.secboot.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"],
];
/// The store has 540,672 bytes.
const STORE_LIMIT: u64 = 4 << 20;

/// gEfiAuthenticatedVariableGuid: the store's format.
const AUTHENTICATED: &str = "aaf32c78-947b-439a-a180-2e144ec37792";
/// gEfiSecureBootEnableDisableGuid.
const SECURE_BOOT_ENABLE: &str = "f0a30bc7-af08-4556-99c4-001009c93a44";
const STORE_HEADER: usize = 28;
const VARIABLE_HEADER: usize = 60;
/// A variable begins with it.
const START: u16 = 0x55aa;
/// The state of a variable that is complete and not deleted.
const ADDED: u8 = 0x3f;
/// Non-volatile, boot service.
const NON_VOLATILE: u32 = 0x3;
/// EFI_TIME of the enrolled variables: any later signed update replaces them.
const ENROLLED: [u8; 16] = [0xd0, 0x07, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Firmware for one machine.
#[derive(Debug, Clone)]
pub struct Firmware {
    /// Code, read only.
    pub code: PathBuf,
    /// The machine's own variables.
    pub variables: PathBuf,
    /// Whether Secure Boot is on.
    pub secure_boot: bool,
}

/// Puts variables into `file`, unless it is there already. With a certificate (DER), Secure Boot is on and trusts it alone.
pub fn prepare(file: PathBuf, certificate: Option<&[u8]>) -> Result<Firmware> {
    let place = PLACES.iter().find(|[code, secure, variables]| [code, secure, variables].iter().all(|path| Path::new(path).is_file()));
    let [code, secure, variables] = place.ok_or_else(|| Error::new("OVMF, UEFI firmware for QEMU, is not installed").hint("apt-get install ovmf"))?;
    if !file.exists() {
        let mut store = bounded::read(Path::new(variables), STORE_LIMIT).context(|| variables.to_string())?;
        if let Some(certificate) = certificate {
            enrol(&mut store, certificate).ok_or_else(|| Error::new(format!("{variables}: not an empty store of variables")).hint("install OVMF anew"))?;
        }
        std::fs::write(&file, store).context(|| file.display().to_string())?;
    }
    let code = PathBuf::from(if certificate.is_some() { secure } else { code });
    Ok(Firmware { code, variables: file, secure_boot: certificate.is_some() })
}

/// `None` when the store is not what it should be.
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
    put(store, at, "SecureBootEnable", SECURE_BOOT_ENABLE, NON_VOLATILE, &[0; 16], &[1])?;
    Some(())
}

/// Writes a variable where the store is still empty, and gives the place of the next.
fn put(store: &mut [u8], at: usize, name: &str, vendor: &str, attributes: u32, time: &[u8; 16], data: &[u8]) -> Option<usize> {
    let name: Vec<u8> = name.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
    let mut bytes = Vec::with_capacity(VARIABLE_HEADER + name.len() + data.len());
    bytes.extend_from_slice(&START.to_le_bytes());
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
    // Flash that was erased.
    if room.iter().any(|byte| *byte != 0xff) {
        return None;
    }
    room.copy_from_slice(&bytes);
    Some((at + bytes.len()).next_multiple_of(4))
}

fn guid(text: &str) -> Option<[u8; 16]> {
    text.parse::<Guid>().ok().map(|guid| guid.0)
}
