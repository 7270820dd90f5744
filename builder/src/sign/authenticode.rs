//! Signatures of EFI programs: Microsoft's "Windows Authenticode Portable Executable Signature
//! Format", as UEFI Secure Boot (UEFI 2.10, 32.5.3.3) and shim accept it.

use sha2::{Digest, Sha256};
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::certificate::Certificate;
use super::{Signer, message};
use crate::error::{Context, Error, Result};
use crate::uki::pe;

/// SPC_INDIRECT_DATA_OBJID.
const INDIRECT_DATA: &str = "1.3.6.1.4.1.311.2.1.4";
/// SpcIndirectDataContent in DER up to the digest: SPC_PE_IMAGE_DATA (1.3.6.1.4.1.311.2.1.15)
/// without flags and with an empty file name, as the format requires, then DigestInfo with SHA-256.
const INDIRECT_DATA_HEAD: [u8; 46] = [
    0x30, 0x4c, // SEQUENCE, 76
    0x30, 0x17, 0x06, 0x0a, 0x2b, 0x06, 0x01, 0x04, 0x01, 0x82, 0x37, 0x02, 0x01,
    0x0f, // SEQUENCE, OID SPC_PE_IMAGE_DATA
    0x30, 0x09, 0x03, 0x01, 0x00, 0xa0, 0x04, 0xa2, 0x02, 0x80,
    0x00, // SEQUENCE: no flags; [0] [2] [0] ""
    0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05,
    0x00, // DigestInfo, SHA-256
    0x04, 0x20, // OCTET STRING, 32
];
/// WIN_CERTIFICATE (UEFI 2.10, 32.2.4). The certificate follows it.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct WinCertificate {
    /// Bytes, including this structure.
    length: U32,
    revision: U16,
    certificate_type: U16,
}

/// WIN_CERT_REVISION_2_0.
const REVISION: u16 = 0x0200;
/// WIN_CERT_TYPE_PKCS_SIGNED_DATA.
const PKCS_SIGNED_DATA: u16 = 0x0002;
/// WIN_CERT_TYPE_EFI_GUID.
pub(super) const EFI_GUID: u16 = 0x0ef1;

impl WinCertificate {
    /// The header of a certificate of `length` bytes.
    pub(super) fn new(certificate_type: u16, length: usize) -> WinCertificate {
        WinCertificate {
            length: U32::new((size_of::<WinCertificate>() + length) as u32),
            revision: U16::new(REVISION),
            certificate_type: U16::new(certificate_type),
        }
    }
}
/// Alignment of attribute certificates, bytes.
const GRAIN: usize = 8;

/// The signed digest: that of the file without its checksum, its certificates and their directory
/// entry.
fn digest(bytes: &[u8], gaps: &pe::DigestGaps) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(&bytes[..gaps.checksum]);
    hash.update(&bytes[gaps.checksum + 4..gaps.directory]);
    hash.update(&bytes[gaps.directory + 8..gaps.end]);
    hash.update(&[0; GRAIN][..gaps.end.next_multiple_of(GRAIN) - gaps.end]);
    hash.finalize().into()
}

/// The certificate in a program's signature; `None` if the program is not signed. The signature is
/// not verified.
pub fn signed_with(name: &str, bytes: &[u8]) -> Result<Option<Certificate>> {
    Ok(open_signature(name, bytes)?.map(|message| message.certificate))
}

/// The certificate in a program's signature, and the reason why the signature is invalid if it is;
/// `None` if the program is not signed.
pub fn check(
    name: &str,
    bytes: &[u8],
) -> Result<Option<(Certificate, std::result::Result<(), String>)>> {
    let Some(message) = open_signature(name, bytes)? else {
        return Ok(None);
    };
    let content = message.content.as_deref().unwrap_or_default();
    let digest = digest(bytes, &pe::digest_gaps(name, bytes)?);
    let valid = match content.ends_with(&digest) {
        false => Err("the program was altered after it was signed".to_owned()),
        true => message.verify(content),
    };
    Ok(Some((message.certificate, valid)))
}

fn open_signature(name: &str, bytes: &[u8]) -> Result<Option<message::SignedMessage>> {
    let image = pe::PeImage::parse(name, bytes)?;
    let Ok((header, message)) = WinCertificate::ref_from_prefix(image.certificates()) else {
        return Ok(None);
    };
    if header.revision != REVISION || header.certificate_type != PKCS_SIGNED_DATA {
        return Err(Error::new(format!(
            "{name}: firmware does not support its kind of signature"
        ))
        .hint("sign it again"));
    }
    message::open(message)
        .context(|| format!("{name}: its signature"))
        .map(Some)
}

/// Signs a program, and replaces an existing signature.
pub fn sign(signer: &Signer, name: &str, bytes: &[u8]) -> Result<Vec<u8>> {
    let gaps = pe::digest_gaps(name, bytes)?;
    let content = [&INDIRECT_DATA_HEAD[..], &digest(bytes, &gaps)].concat();
    let signature = message::enclosing(signer, INDIRECT_DATA, &content)?;
    let mut out = Vec::with_capacity(gaps.end + signature.len() + 32);
    out.extend_from_slice(&bytes[..gaps.end]);
    out.resize(gaps.end.next_multiple_of(GRAIN), 0);
    let start = out.len() as u32;
    let header = WinCertificate::new(PKCS_SIGNED_DATA, signature.len());
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(&signature);
    out.resize(out.len().next_multiple_of(GRAIN), 0);
    let size = out.len() as u32 - start;
    out[gaps.directory..][..4].copy_from_slice(&start.to_le_bytes());
    out[gaps.directory + 4..][..4].copy_from_slice(&size.to_le_bytes());
    Ok(out)
}
