//! Who signs this build. Opened before anything is built, so that a key that can't be used is found
//! in seconds.

use adamant_contract::signature::{Mode, Rule};

use crate::definition::{Sign, SignBy};
use crate::error::{Error, Result};
use crate::sign::Signer;
use crate::sign::certificate::Certificate;

/// The certificates of a build, and who signs for them.
#[derive(Debug, Default)]
pub struct Signers {
    /// Boot loader and unified kernel image.
    pub secure_boot: Option<Holder>,
    /// The root hash.
    pub verity: Option<Holder>,
    /// Values of PCR 11.
    pub pcr: Option<Holder>,
}

/// A certificate, and whoever can sign for it; nobody in an unsigned build.
#[derive(Debug)]
pub struct Holder {
    /// The certificate.
    pub certificate: Certificate,
    /// Who signs.
    pub signer: Option<Signer>,
}

/// Opens them. With `unsigned`, certificates alone are read: somebody else signs later.
pub fn open(sign: &Sign, unsigned: bool) -> Result<Signers> {
    let holder = |what: &str, by: &Option<SignBy>| -> Result<Option<Holder>> {
        let Some(by) = by else { return Ok(None) };
        let certificate = Certificate::read(&by.certificate)?;
        let signer = match &by.key {
            _ if unsigned => None,
            Some(key) => Some(Signer::open(key, certificate.clone())?),
            None => {
                return Err(Error::new(format!("sign.{what} has a certificate but no key"))
                    .hint("write a key, or build with --unsigned and sign the output folder later, with `adamant sign`"));
            }
        };
        Ok(Some(Holder {
            certificate,
            signer,
        }))
    };
    Ok(Signers {
        secure_boot: holder("secure_boot", &sign.secure_boot)?,
        verity: holder("verity", &sign.verity)?,
        pcr: holder("pcr", &sign.pcr)?,
    })
}

/// The signer of a holder that has one.
pub fn signer(holder: &Option<Holder>) -> Option<&Signer> {
    holder.as_ref()?.signer.as_ref()
}

/// Whether the agent is to refuse a root hash that is not signed.
pub fn rule(wanted: Option<Mode>, signers: &Signers, epoch: Option<i64>) -> Result<Rule> {
    let mode = match (wanted, &signers.verity) {
        (Some(mode @ (Mode::Require | Mode::Prefer)), None) => {
            return Err(Error::new(format!(
                "verify.signature is {mode}, but there is no verity certificate"
            ))
            .hint("name one in [sign], or give a folder of keys with --keys"));
        }
        (Some(mode), _) => mode,
        (None, Some(_)) => Mode::Require,
        (None, None) => Mode::Off,
    };
    Ok(Rule {
        mode,
        built: epoch.unwrap_or_default(),
    })
}
