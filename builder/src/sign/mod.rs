//! Signing: keys in files, on tokens and behind commands, and the signatures that images need.
//!
//! A key's bytes stay in this module and in memory; they never reach an artifact, a log or the
//! cache. Every signature is verified with the certificate before it is used, so a key that does
//! not belong to its certificate fails the build instead of a server's boot. Signatures are
//! deterministic if the key's are (RSA PKCS#1 v1.5, RFC 6979).

pub mod authenticode;
pub mod certificate;
pub mod enrol;
mod external;
mod file;
pub mod keys;
pub mod message;
pub mod pcr;
pub mod roothash;

use std::path::PathBuf;

use crate::error::{Context, Error, Result};
use certificate::Certificate;

/// Location of a private key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// A PEM file: PKCS#8, with or without a passphrase, or PKCS#1.
    File(PathBuf),
    /// A PKCS#11 token (RFC 7512).
    Pkcs11(String),
    /// A shell command that reads the digest from its standard input and writes the signature to
    /// its standard output.
    Command(String),
}

impl std::str::FromStr for KeySource {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<KeySource, String> {
        match text.split_once(':') {
            _ if text.is_empty() => Err("use a file, pkcs11:... or command:...".to_owned()),
            Some(("pkcs11", _)) => Ok(KeySource::Pkcs11(text.to_owned())),
            Some(("command", command)) if !command.trim().is_empty() => {
                Ok(KeySource::Command(command.trim().to_owned()))
            }
            _ => Ok(KeySource::File(PathBuf::from(text))),
        }
    }
}

/// Adds the command that creates keys to the remedy of a key or certificate that can't be read.
fn with_new_keys(error: Error) -> Error {
    let make = "`adamant keys new DIR` creates keys and certificates; --keys DIR uses them";
    let hint = error
        .remedy()
        .map_or_else(|| make.to_owned(), |hint| format!("{hint}; {make}"));
    error.hint(hint)
}

/// A certificate and its private key.
pub struct Signer {
    certificate: Certificate,
    key: Box<dyn SigningKey>,
    name: String,
}

/// A private key in any location.
trait SigningKey {
    /// Signs a SHA-256 digest: PKCS#1 v1.5 for RSA, DER (RFC 3279) for ECDSA.
    fn sign(&self, digest: &[u8; 32]) -> Result<Vec<u8>>;
}

impl Signer {
    /// Opens a key, and checks that it belongs to the certificate by signing with it.
    pub fn open(source: &KeySource, certificate: Certificate) -> Result<Signer> {
        let algorithm = certificate.algorithm();
        let (key, name): (Box<dyn SigningKey>, _) = match source {
            KeySource::File(path) => (Box::new(file::read_key(path)?), path.display().to_string()),
            KeySource::Pkcs11(uri) => (
                Box::new(external::TokenKey::open(uri, algorithm)?),
                "the PKCS#11 token".to_owned(),
            ),
            KeySource::Command(command) => (
                Box::new(external::CommandKey::new(command, algorithm)),
                "the signing command".to_owned(),
            ),
        };
        let signer = Signer {
            certificate,
            key,
            name,
        };
        signer.sign(&[0x5a; 32])?;
        Ok(signer)
    }

    /// The certificate.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Signs a SHA-256 digest, and verifies the signature.
    pub fn sign(&self, digest: &[u8; 32]) -> Result<Vec<u8>> {
        let signature = self.key.sign(digest).context(|| self.name.clone())?;
        if !self.certificate.verifies(digest, &signature) {
            return Err(Error::new(format!("{}: its key does not belong to the certificate {}", self.name, self.certificate.subject()))
                .hint("use a certificate and a key that belong together; `adamant keys new DIR` creates them"));
        }
        Ok(signature)
    }
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer")
            .field("certificate", &self.certificate.subject())
            .finish_non_exhaustive()
    }
}
