//! Files that enrol a certificate in firmware: signature lists (`.esl`) and signed updates of the
//! variables PK, KEK and db (`.auth`), UEFI 2.10, 8.2.2 and 32.4.1.
//!
//! All three variables get the same certificate, because one owner controls them.

use std::time::{SystemTime, UNIX_EPOCH};

use adamant_contract::gpt::Guid;
use sha2::{Digest, Sha256};
use x509_cert::der::DateTime;

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
    let size = 16 + certificate.len() as u32;
    let owner: [u8; 32] = Sha256::new()
        .chain_update(b"adamant signature owner\0")
        .chain_update(certificate)
        .finalize()
        .into();
    let owner: [u8; 16] = owner[..16].try_into().unwrap_or_default();
    let mut out = guid(X509).to_vec();
    for number in [28 + size, 0, size] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&owner);
    out.extend_from_slice(certificate);
    out
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
        &time,
        value,
    ]
    .concat();
    let signature = message::detached(signer, &signed)?;
    let mut out = time.to_vec();
    out.extend_from_slice(&(24 + signature.len() as u32).to_le_bytes());
    // WIN_CERT_REVISION_2_0 and WIN_CERT_TYPE_EFI_GUID.
    out.extend_from_slice(&[0x00, 0x02, 0xf1, 0x0e]);
    out.extend_from_slice(&guid(PKCS7));
    out.extend_from_slice(&signature);
    out.extend_from_slice(value);
    Ok(out)
}

/// EFI_TIME without fraction, time zone and daylight saving, which must be 0 in authenticated
/// variables.
fn efi_time(now: SystemTime) -> Result<[u8; 16]> {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let date = DateTime::from_unix_duration(since)
        .map_err(|e| Error::new(format!("the system clock: {e}")))?;
    let mut time = [0; 16];
    time[..2].copy_from_slice(&date.year().to_le_bytes());
    time[2..7].copy_from_slice(&[
        date.month(),
        date.day(),
        date.hour(),
        date.minutes(),
        date.seconds(),
    ]);
    Ok(time)
}

fn guid(text: &str) -> [u8; 16] {
    text.parse::<Guid>().map(|guid| guid.0).unwrap_or_default()
}
