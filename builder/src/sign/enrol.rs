//! Files that enrol a certificate in firmware: signature lists (`.esl`) and signed updates of the
//! variables PK, KEK and db (`.auth`), UEFI 2.10, 8.2.2 and 32.4.1.
//!
//! All three variables get the same certificate, because one owner controls them.

use std::time::{SystemTime, UNIX_EPOCH};

use adamant_contract::gpt::Guid;
use sha2::{Digest, Sha256};
use x509_cert::der::DateTime;
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::authenticode::{EFI_GUID, WinCertificate};
use super::{Signer, message};
use crate::error::{Error, Result};

/// EFI_CERT_X509_GUID.
const X509: &str = "a5c059a1-94e4-4aa7-87b5-ab155c2bf072";
/// EFI_GLOBAL_VARIABLE.
pub const GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
/// EFI_IMAGE_SECURITY_DATABASE_GUID.
pub const SECURITY_DATABASE: &str = "d719b2cb-3d3a-4596-a3bc-dad00e67656f";
/// EFI_CERT_TYPE_PKCS7_GUID.
const PKCS7: &str = "4aafd29d-68df-49ee-8aa9-347d375665a7";
/// Non-volatile, boot service, runtime, time-based authenticated.
pub const ATTRIBUTES: u32 = 0x27;

/// The variables in the order in which they are enrolled. PK is last because it ends setup mode.
pub const VARIABLES: [(&str, &str); 3] =
    [("db", SECURITY_DATABASE), ("KEK", GLOBAL), ("PK", GLOBAL)];

/// EFI_SIGNATURE_LIST with one EFI_SIGNATURE_DATA. The certificate follows it.
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct SignatureList {
    signature_type: [u8; 16],
    signature_list_size: U32,
    signature_header_size: U32,
    signature_size: U32,
    signature_owner: [u8; 16],
}

/// EFI_VARIABLE_AUTHENTICATION_2. The signature and the variable's new value follow it.
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct VariableAuthentication2 {
    time_stamp: EfiTime,
    /// EFI_CERT_TYPE_PKCS7_GUID and the signature belong to this certificate.
    hdr: WinCertificate,
    cert_type: [u8; 16],
}

/// EFI_TIME.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct EfiTime {
    year: U16,
    month: u8,
    day: u8,
    hour: u8,
    minute: u8,
    second: u8,
    pad1: u8,
    nanosecond: U32,
    time_zone: U16,
    daylight: u8,
    pad2: u8,
}

impl EfiTime {
    /// The start of a day.
    pub const fn date(year: u16, month: u8, day: u8) -> EfiTime {
        EfiTime {
            year: U16::new(year),
            month,
            day,
            hour: 0,
            minute: 0,
            second: 0,
            pad1: 0,
            nanosecond: U32::ZERO,
            time_zone: U16::ZERO,
            daylight: 0,
            pad2: 0,
        }
    }
}

/// Names and bytes of the files.
pub fn files(signer: &Signer, now: SystemTime) -> Result<Vec<(String, Vec<u8>)>> {
    let list = list(signer.certificate().der());
    let mut files = Vec::new();
    for (name, vendor) in VARIABLES {
        files.push((format!("{name}.esl"), list.clone()));
        files.push((
            format!("{name}.auth"),
            update(signer, name, vendor, &list, now)?,
        ));
    }
    Ok(files)
}

/// EFI_SIGNATURE_LIST with one certificate. The owner's GUID is derived from the certificate.
pub fn list(certificate: &[u8]) -> Vec<u8> {
    let owner: [u8; 32] = Sha256::new()
        .chain_update(b"adamant signature owner\0")
        .chain_update(certificate)
        .finalize()
        .into();
    let owner: [u8; 16] = owner[..16].try_into().unwrap_or_default();
    let length = certificate.len() as u32;
    let list = SignatureList {
        signature_type: guid(X509),
        signature_list_size: U32::new(size_of::<SignatureList>() as u32 + length),
        signature_header_size: U32::ZERO,
        signature_size: U32::new(owner.len() as u32 + length),
        signature_owner: owner,
    };
    [list.as_bytes(), certificate].concat()
}

/// EFI_VARIABLE_AUTHENTICATION_2 and the variable's new value.
fn update(
    signer: &Signer,
    name: &str,
    vendor: &str,
    value: &[u8],
    now: SystemTime,
) -> Result<Vec<u8>> {
    let time = efi_time(now)?;
    let name: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let signed = [
        &name[..],
        &guid(vendor),
        &ATTRIBUTES.to_le_bytes(),
        time.as_bytes(),
        value,
    ]
    .concat();
    let signature = message::detached(signer, &signed)?;
    let cert_type = guid(PKCS7);
    let authentication = VariableAuthentication2 {
        time_stamp: time,
        hdr: WinCertificate::new(EFI_GUID, cert_type.len() + signature.len()),
        cert_type,
    };
    Ok([authentication.as_bytes(), &signature, value].concat())
}

/// EFI_TIME without fraction, time zone and daylight saving, which must be 0 in authenticated
/// variables.
fn efi_time(now: SystemTime) -> Result<EfiTime> {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let date = DateTime::from_unix_duration(since)
        .map_err(|e| Error::new(format!("the system clock: {e}")))?;
    Ok(EfiTime {
        hour: date.hour(),
        minute: date.minutes(),
        second: date.seconds(),
        ..EfiTime::date(date.year(), date.month(), date.day())
    })
}

fn guid(text: &str) -> [u8; 16] {
    text.parse::<Guid>().map(|guid| guid.0).unwrap_or_default()
}
