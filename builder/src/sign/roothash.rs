//! The root hash's signature: `ID_VERSION.roothash.p7s`, and the JSON of the root-verity-sig
//! partition (UAPI.2, docs/formats.md).

use adamant_contract::root_hash::RootHash;
use serde::{Deserialize, Serialize};

use super::{Signer, message};
use crate::error::{Error, Result};

/// Size of the signature partition in bytes, the same as systemd-repart's.
pub const PARTITION: usize = 16 << 10;

/// The JSON in the partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SignaturePartition {
    /// 64 lowercase hexadecimal digits.
    pub root_hash: String,
    /// SHA-256 of the certificate's DER, lowercase hexadecimal.
    pub certificate_fingerprint: String,
    /// PKCS#7, DER, in Base64.
    pub signature: String,
}

/// Signs the root hash: its 64 hexadecimal digits, without a line end.
pub fn sign(signer: &Signer, hash: &RootHash) -> Result<Vec<u8>> {
    message::detached(signer, hash.to_string().as_bytes())
}

/// The partition's bytes: the JSON, padded with NULs.
pub fn partition(signer: &Signer, hash: &RootHash, signature: &[u8]) -> Result<Vec<u8>> {
    let embedded = SignaturePartition {
        root_hash: hash.to_string(),
        certificate_fingerprint: signer.certificate().fingerprint(),
        signature: base64(signature),
    };
    let mut bytes = serde_json::to_vec(&embedded)
        .map_err(|e| Error::new(format!("encoding the signature partition: {e}")))?;
    if bytes.len() >= PARTITION {
        return Err(Error::new(format!(
            "the signature needs {} bytes, but its partition has {PARTITION}",
            bytes.len()
        ))
        .hint("use a certificate without a chain"));
    }
    bytes.resize(PARTITION, 0);
    Ok(bytes)
}

/// Base64 (RFC 4648).
pub(super) fn base64(bytes: &[u8]) -> String {
    use base64ct::Encoding;
    base64ct::Base64::encode_string(bytes)
}
