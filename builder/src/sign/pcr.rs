//! Signed values of a TPM's PCR 11 (`.pcrsig`, systemd-measure(1)). A secret that is sealed to the
//! PCR key, instead of to one image's measurements, can be unsealed by every signed image.

use adamant_contract::hex;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::Signer;
use super::roothash::base64;
use crate::error::{Error, Result};
use crate::uki::measure;
use crate::uki::pe::PeImage;

/// The PCR into which systemd-stub measures.
const PCR: u8 = 11;
/// TPM_CC_PolicyPCR (TPM 2.0 part 2, 6.5.2).
const POLICY_PCR: u32 = 0x17f;
/// TPML_PCR_SELECTION: one selection, SHA-256 bank, three bytes of bits, bit 11.
const SELECTION: [u8; 10] = [0, 0, 0, 1, 0x00, 0x0b, 3, 0, 1 << (PCR - 8), 0];

#[derive(Serialize)]
struct PcrSignatures {
    sha256: Vec<PcrSignature>,
}

#[derive(Serialize)]
struct PcrSignature {
    pcrs: [u8; 1],
    pkfp: String,
    pol: String,
    sig: String,
}

/// The section's JSON: a signature for each phase of a running system.
pub fn sign(signer: &Signer, image: &PeImage) -> Result<Vec<u8>> {
    let pkfp = hex::encode(&Sha256::digest(signer.certificate().public_key_bits()));
    let mut sha256 = Vec::new();
    for (path, value) in measure::phases(image) {
        if path.is_empty() || path.ends_with("shutdown") {
            continue;
        }
        let policy = policy(&value);
        let sig = base64(&signer.sign(&Sha256::digest(policy).into())?);
        sha256.push(PcrSignature {
            pcrs: [PCR],
            pkfp: pkfp.clone(),
            pol: hex::encode(&policy),
            sig,
        });
    }
    serde_json::to_vec(&PcrSignatures { sha256 })
        .map_err(|e| Error::new(format!("encoding the PCR signatures: {e}")))
}

/// Digest of the policy "PCR 11 has this value" (TPM 2.0 part 3, 23.7).
fn policy(value: &[u8; 32]) -> [u8; 32] {
    Sha256::new()
        .chain_update([0; 32])
        .chain_update(POLICY_PCR.to_be_bytes())
        .chain_update(SELECTION)
        .chain_update(Sha256::digest(value))
        .finalize()
        .into()
}
