//! The certificates and keys of a build. They are opened before anything is built, so that an
//! unusable key is reported within seconds.

use adamant_contract::signature::{Mode, Rule};

use crate::definition::{Sign, SignBy};
use crate::error::{Context, Error, Result};
use crate::io::clock;
use crate::manifest::{SignaturePurpose, SignatureRecord};
use crate::sign::Signer;
use crate::sign::certificate::Certificate;

/// The identities that sign a build.
#[derive(Debug, Default)]
pub struct Signers {
    /// Signs boot loader and unified kernel image.
    pub secure_boot: Option<SigningIdentity>,
    /// Signs the root hash.
    pub verity: Option<SigningIdentity>,
    /// Signs values of PCR 11.
    pub pcr: Option<SigningIdentity>,
}

/// A certificate with its key.
#[derive(Debug)]
pub struct SigningIdentity {
    /// The certificate.
    pub certificate: Certificate,
    /// The key; `None` in an unsigned build.
    pub signer: Option<Signer>,
}

/// Opens certificates and keys, and refuses expired certificates. With `unsigned`, only
/// certificates are read; `adamant sign` signs later.
pub fn open(sign: &Sign, unsigned: bool) -> Result<Signers> {
    let now = clock::now();
    let identity = |purpose: &str, by: &Option<SignBy>| -> Result<Option<SigningIdentity>> {
        let Some(by) = by else { return Ok(None) };
        let certificate = Certificate::read(&by.certificate)?;
        certificate
            .require_valid_at(now, "today")
            .context(|| by.certificate.display().to_string())?;
        let signer = match &by.key {
            _ if unsigned => None,
            Some(key) => Some(Signer::open(key, certificate.clone())?),
            None => {
                return Err(Error::new(format!(
                    "sign.{purpose} has a certificate but no key"
                ))
                .hint("write a key, or build with --unsigned and sign the output directory later with `adamant sign`"));
            }
        };
        Ok(Some(SigningIdentity {
            certificate,
            signer,
        }))
    };
    Ok(Signers {
        secure_boot: identity("secure_boot", &sign.secure_boot)?,
        verity: identity("verity", &sign.verity)?,
        pcr: identity("pcr", &sign.pcr)?,
    })
}

/// The key of an identity, if both exist.
pub fn signer(identity: &Option<SigningIdentity>) -> Option<&Signer> {
    identity.as_ref()?.signer.as_ref()
}

/// Whether the agent refuses a root hash that is not signed.
pub fn signature_rule(wanted: Option<Mode>, signers: &Signers, epoch: Option<i64>) -> Result<Rule> {
    let mode = match (wanted, &signers.verity) {
        (Some(mode @ (Mode::Require | Mode::Prefer)), None) => {
            return Err(Error::new(format!(
                "verify.signature is {mode}, but there is no verity certificate"
            ))
            .hint("name one in [sign], or pass a directory of keys with --keys"));
        }
        (Some(mode), _) => mode,
        (None, Some(_)) => Mode::Require,
        (None, None) => Mode::Off,
    };
    if let (Some(identity), Some(built)) = (&signers.verity, epoch)
        && mode != Mode::Off
    {
        identity
            .certificate
            .require_valid_at(u64::try_from(built).unwrap_or(0), "the image's build time")?;
    }
    Ok(Rule {
        mode,
        built: epoch.unwrap_or_default(),
    })
}

/// The manifest's records of the signatures.
pub fn records(signers: &Signers) -> Vec<SignatureRecord> {
    [
        (SignaturePurpose::SecureBoot, &signers.secure_boot),
        (SignaturePurpose::Verity, &signers.verity),
        (SignaturePurpose::Pcr, &signers.pcr),
    ]
    .into_iter()
    .filter_map(|(purpose, identity)| {
        let identity = identity.as_ref()?;
        Some(SignatureRecord {
            purpose,
            certificate: identity.certificate.fingerprint(),
            signed: identity.signer.is_some(),
        })
    })
    .collect()
}
