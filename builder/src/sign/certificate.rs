//! X.509 certificates (RFC 5280): parsed, and created for our own keys.

use std::path::Path;
use std::time::Duration;

use adamant_contract::hex;
use p256::ecdsa::signature::hazmat::PrehashVerifier;
use rsa::signature::Keypair;
use rsa::traits::PublicKeyParts;
use sha2::{Digest, Sha256};
use x509_cert::builder::profile::BuilderProfile;
use x509_cert::builder::{Builder, CertificateBuilder};
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{Decode, DecodePem, Encode, EncodePem, pem::LineEnding};
use x509_cert::ext::pkix::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, KeyUsages,
    SubjectKeyIdentifier,
};
use x509_cert::ext::{Extension, ToExtension};
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::{DecodePublicKey, SubjectPublicKeyInfoRef};
use x509_cert::time::Validity;

use crate::error::{Context, Error, Result};

/// Largest certificate file, bytes.
const LIMIT: u64 = 64 << 10;
/// Smallest accepted RSA key, bits.
const LEAST_RSA: usize = 2048;
/// id-kp-codeSigning.
const CODE_SIGNING: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.3");

/// A certificate with a supported public key.
#[derive(Debug, Clone)]
pub struct Certificate {
    parsed: x509_cert::Certificate,
    der: Vec<u8>,
    key: PublicKey,
}

#[derive(Debug, Clone)]
enum PublicKey {
    Rsa(rsa::PublicKey),
    P256(p256::ecdsa::VerifyingKey),
}

/// Signature algorithm of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyAlgorithm {
    /// PKCS#1 v1.5 with SHA-256, which all firmware and kernels support.
    Rsa,
    /// NIST P-256 with SHA-256, which Debian 12's kernel and most firmware do not support.
    EcdsaP256,
}

impl Certificate {
    /// Reads a PEM or DER file.
    pub fn read(path: &Path) -> Result<Certificate> {
        let name = || path.display().to_string();
        let bytes = crate::io::bounded::read(path, LIMIT)
            .context(name)
            .map_err(super::with_new_keys)?;
        Certificate::parse(&bytes)
            .context(name)
            .map_err(super::with_new_keys)
    }

    /// Reads PEM or DER.
    pub fn parse(bytes: &[u8]) -> Result<Certificate> {
        let wrong = |e: x509_cert::der::Error| {
            Error::new(format!("not a certificate: {e}"))
                .hint("give an X.509 certificate, PEM or DER")
        };
        let pem = bytes
            .windows(27)
            .position(|window| window == b"-----BEGIN CERTIFICATE-----");
        let parsed = match pem {
            Some(at) => x509_cert::Certificate::from_pem(&bytes[at..]).map_err(wrong)?,
            None => x509_cert::Certificate::from_der(bytes).map_err(wrong)?,
        };
        Certificate::new(parsed)
    }

    /// First and last second of the validity, in the format of RFC 3339.
    pub fn validity(&self) -> (String, String) {
        let validity = self.parsed.tbs_certificate().validity();
        (
            validity.not_before.to_date_time().to_string(),
            validity.not_after.to_date_time().to_string(),
        )
    }

    /// The last second of the validity, since 1970.
    pub fn last_second(&self) -> u64 {
        let validity = self.parsed.tbs_certificate().validity();
        validity.not_after.to_unix_duration().as_secs()
    }

    /// Refuses a certificate that has expired at `time`, in seconds since 1970. `when` says what
    /// this time is.
    pub fn require_valid_at(&self, time: u64, when: &str) -> Result<()> {
        if time <= self.last_second() {
            return Ok(());
        }
        let (_, until) = self.validity();
        Err(Error::new(format!(
            "the certificate of {} expired on {until}, before {when}",
            self.subject()
        ))
        .hint("sign with a new certificate: `adamant keys new DIR` creates keys and certificates"))
    }

    fn new(parsed: x509_cert::Certificate) -> Result<Certificate> {
        let broken = |e: x509_cert::der::Error| Error::new(format!("not a certificate: {e}"));
        let der = parsed.to_der().map_err(broken)?;
        let spki = parsed
            .tbs_certificate()
            .subject_public_key_info()
            .to_der()
            .map_err(broken)?;
        let key = PublicKey::parse(&spki)?;
        Ok(Certificate { parsed, der, key })
    }

    /// Creates a self-signed certificate for an RSA key.
    pub fn self_signed(
        common_name: &str,
        key: &rsa::PrivateKey,
        serial: [u8; 16],
        days: u32,
    ) -> Result<Certificate> {
        let failed = |e: &dyn std::fmt::Display| {
            Error::new(format!("creating the certificate {common_name:?}: {e}"))
        };
        let name: Name = format!("CN={common_name}")
            .parse()
            .map_err(|e| failed(&e))?;
        // A positive number whose first byte is not 0, so that every program prints it in the same
        // way.
        let mut serial = serial;
        serial[0] = serial[0] & 0x7f | 0x40;
        let signer = rsa::pkcs1v15::SigningKey::<Sha256>::new(key.clone());
        let spki = x509_cert::spki::SubjectPublicKeyInfo::from_key(&signer.verifying_key())
            .map_err(|e| failed(&e))?;
        let validity = Validity::from_now(Duration::from_secs(u64::from(days) * 86_400))
            .map_err(|e| failed(&e))?;
        let serial = SerialNumber::new(&serial).map_err(|e| failed(&e))?;
        let builder = CertificateBuilder::new(CodeSigning(name), serial, validity, spki)
            .map_err(|e| failed(&e))?;
        Certificate::new(builder.build(&signer).map_err(|e| failed(&e))?)
    }

    /// The certificate's bytes, DER.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The certificate as PEM text.
    pub fn pem(&self) -> Result<String> {
        self.parsed
            .to_pem(LineEnding::LF)
            .map_err(|e| Error::new(format!("the certificate can't be written: {e}")))
    }

    /// SHA-256 of its bytes, lowercase hexadecimal.
    pub fn fingerprint(&self) -> String {
        hex::encode(&Sha256::digest(&self.der))
    }

    /// The subject's name, for messages.
    pub fn subject(&self) -> String {
        self.parsed.tbs_certificate().subject().to_string()
    }

    /// Signature algorithm of its key.
    pub fn algorithm(&self) -> KeyAlgorithm {
        match &self.key {
            PublicKey::Rsa(_) => KeyAlgorithm::Rsa,
            PublicKey::P256(_) => KeyAlgorithm::EcdsaP256,
        }
    }

    /// The public key (SubjectPublicKeyInfo), PEM.
    pub fn public_key_pem(&self) -> Result<String> {
        x509_cert::der::pem::encode_string("PUBLIC KEY", LineEnding::LF, &self.public_key_der()?)
            .map_err(|e| Error::new(format!("the public key can't be written: {e}")))
    }

    /// The public key (SubjectPublicKeyInfo), DER.
    pub fn public_key_der(&self) -> Result<Vec<u8>> {
        self.parsed
            .tbs_certificate()
            .subject_public_key_info()
            .to_der()
            .map_err(|e| Error::new(format!("the public key can't be written: {e}")))
    }

    /// The key's bits in SubjectPublicKeyInfo (RSAPublicKey, or a point on the curve), of which
    /// systemd makes a fingerprint.
    pub fn public_key_bits(&self) -> &[u8] {
        self.parsed
            .tbs_certificate()
            .subject_public_key_info()
            .subject_public_key
            .raw_bytes()
    }

    /// Whether the certificate's key made this signature of a SHA-256 digest.
    pub fn verifies(&self, digest: &[u8; 32], signature: &[u8]) -> bool {
        match &self.key {
            PublicKey::Rsa(key) => key
                .verify(rsa::Pkcs1v15Sign::new::<Sha256>(), digest, signature)
                .is_ok(),
            PublicKey::P256(key) => p256::ecdsa::Signature::from_der(signature)
                .is_ok_and(|signature| key.verify_prehash(digest, &signature).is_ok()),
        }
    }

    /// The parsed certificate.
    pub(super) fn parsed(&self) -> &x509_cert::Certificate {
        &self.parsed
    }
}

impl PublicKey {
    fn parse(spki: &[u8]) -> Result<PublicKey> {
        let unknown = || {
            Error::new("its key is neither an RSA key nor on the curve P-256")
                .hint("use an RSA key of 2048 to 4096 bits, which all firmware and kernels support")
        };
        let info = SubjectPublicKeyInfoRef::from_der(spki).map_err(|_| unknown())?;
        if let Ok(key) = rsa::PublicKey::from_public_key_der(spki) {
            let bits = key.n().bit_width() as usize;
            if bits < LEAST_RSA {
                return Err(Error::new(format!(
                    "its RSA key has {bits} bits, at least {LEAST_RSA} are needed"
                )));
            }
            return Ok(PublicKey::Rsa(key));
        }
        p256::ecdsa::VerifyingKey::try_from(info)
            .map(PublicKey::P256)
            .map_err(|_| unknown())
    }
}

/// The profile of our certificates: self-signed, for code signing only.
struct CodeSigning(Name);

impl BuilderProfile for CodeSigning {
    fn get_issuer(&self, _: &Name) -> Name {
        self.0.clone()
    }

    fn get_subject(&self) -> Name {
        self.0.clone()
    }

    fn build_extensions(
        &self,
        spk: SubjectPublicKeyInfoRef<'_>,
        issuer: SubjectPublicKeyInfoRef<'_>,
        tbs: &x509_cert::TbsCertificate,
    ) -> x509_cert::builder::Result<Vec<Extension>> {
        let mut extensions = Vec::new();
        let subject = tbs.subject();
        // Not a CA, so it can't sign other certificates.
        extensions.push(
            BasicConstraints {
                ca: false,
                path_len_constraint: None,
            }
            .to_extension(subject, &extensions)?,
        );
        extensions
            .push(KeyUsage(KeyUsages::DigitalSignature.into()).to_extension(subject, &extensions)?);
        extensions.push(ExtendedKeyUsage(vec![CODE_SIGNING]).to_extension(subject, &extensions)?);
        extensions.push(SubjectKeyIdentifier::try_from(spk)?.to_extension(subject, &extensions)?);
        extensions
            .push(AuthorityKeyIdentifier::try_from(issuer)?.to_extension(subject, &extensions)?);
        Ok(extensions)
    }
}
