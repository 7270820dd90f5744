//! Signed messages (PKCS#7 SignedData, version 1; RFC 2315, RFC 5652): detached ones for the
//! kernel, systemd and firmware, and enclosing ones for Authenticode.

use cms::cert::{CertificateChoices, IssuerAndSerialNumber};
use cms::content_info::{CmsVersion, ContentInfo};
use cms::signed_data::{
    CertificateSet, EncapsulatedContentInfo, SignedData, SignerIdentifier, SignerInfo, SignerInfos,
};
use sha2::{Digest, Sha256};
use x509_cert::attr::Attribute;
use x509_cert::der::asn1::{Any, ObjectIdentifier, OctetString, SetOfVec};
use x509_cert::der::{self, Decode, Encode, SliceReader};
use x509_cert::spki::AlgorithmIdentifierOwned;

use super::Signer;
use super::certificate::{Certificate, KeyAlgorithm};
use crate::error::{Error, Result};

const DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.1");
const SIGNED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");
const SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const ECDSA_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");
const CONTENT_TYPE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.3");
const MESSAGE_DIGEST: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.4");

/// A detached signature in DER, without signed attributes and with the signer's certificate. The
/// kernel accepts it for a root hash, and firmware for a variable.
pub fn detached(signer: &Signer, content: &[u8]) -> Result<Vec<u8>> {
    let signature = signer.sign(&Sha256::digest(content).into())?;
    let content = EncapsulatedContentInfo {
        econtent_type: DATA,
        econtent: None,
    };
    signed(signer, content, None, signature).map_err(failed)
}

/// A signature in DER that encloses its content, with signed attributes. `content` is a DER value.
/// PKCS#7 computes the digest of its bytes without tag and length.
pub fn enclosing(signer: &Signer, content_type: &str, content: &[u8]) -> Result<Vec<u8>> {
    let value = Any::from_der(content).map_err(failed)?;
    let content_type =
        ObjectIdentifier::new(content_type).map_err(|e| Error::new(e.to_string()))?;
    let digest = Sha256::digest(value.value());
    let attribute = |oid, value: der::Result<Any>| -> der::Result<Attribute> {
        Ok(Attribute {
            oid,
            values: SetOfVec::try_from(vec![value?])?,
        })
    };
    let attributes = || -> der::Result<SetOfVec<Attribute>> {
        SetOfVec::try_from(vec![
            attribute(CONTENT_TYPE, Any::encode_from(&content_type))?,
            attribute(
                MESSAGE_DIGEST,
                Any::encode_from(&OctetString::new(digest.to_vec())?),
            )?,
        ])
    };
    let attributes = attributes().map_err(failed)?;
    let signature = signer.sign(&Sha256::digest(attributes.to_der().map_err(failed)?).into())?;
    let content = EncapsulatedContentInfo {
        econtent_type: content_type,
        econtent: Some(value),
    };
    signed(signer, content, Some(attributes), signature).map_err(failed)
}

/// A parsed message and its signer. The signature is not verified yet.
pub struct SignedMessage {
    /// The first signer's certificate.
    pub certificate: Certificate,
    /// The enclosed content without tag and length; `None` if the message is detached.
    pub content: Option<Vec<u8>>,
    signer: SignerInfo,
}

/// Parses a message. Bytes after it are ignored.
pub fn open(message: &[u8]) -> Result<SignedMessage> {
    let wrong = |e: der::Error| Error::new(format!("not a signed message: {e}"));
    let info =
        ContentInfo::decode(&mut SliceReader::new(message).map_err(wrong)?).map_err(wrong)?;
    let data: SignedData = info.content.decode_as().map_err(wrong)?;
    let signer = data
        .signer_infos
        .0
        .iter()
        .next()
        .cloned()
        .ok_or_else(|| Error::new("a signed message without a signer"))?;
    let certificates = data.certificates.iter().flat_map(|set| set.0.iter());
    let certificates = certificates.filter_map(|choice| match choice {
        CertificateChoices::Certificate(certificate) => Some(certificate),
        CertificateChoices::Other(_) => None,
    });
    let signs = |certificate: &&x509_cert::Certificate| {
        let tbs = certificate.tbs_certificate();
        let id = IssuerAndSerialNumber {
            issuer: tbs.issuer().clone(),
            serial_number: tbs.serial_number().clone(),
        };
        signer.sid == SignerIdentifier::IssuerAndSerialNumber(id)
    };
    let certificate = certificates
        .into_iter()
        .find(signs)
        .ok_or_else(|| Error::new("a signed message without its signer's certificate"))?;
    let certificate = Certificate::parse(&certificate.to_der().map_err(wrong)?)?;
    let content = data
        .encap_content_info
        .econtent
        .map(|content| content.value().to_vec());
    Ok(SignedMessage {
        certificate,
        content,
        signer,
    })
}

impl SignedMessage {
    /// Verifies the signature of these bytes. `Err` has the reason why it is invalid.
    pub fn verify(&self, content: &[u8]) -> std::result::Result<(), String> {
        let mut signed = Sha256::digest(content);
        if let Some(attributes) = &self.signer.signed_attrs {
            let digest = attributes
                .iter()
                .find(|attribute| attribute.oid == MESSAGE_DIGEST)
                .and_then(|attribute| attribute.values.iter().next());
            if digest.is_none_or(|digest| digest.value() != signed.as_slice()) {
                return Err("it is the signature of other content".to_owned());
            }
            signed = Sha256::digest(attributes.to_der().map_err(|e| e.to_string())?);
        }
        match self
            .certificate
            .verifies(&signed.into(), self.signer.signature.as_bytes())
        {
            true => Ok(()),
            false => Err(
                "it was altered, or made with a key that does not belong to its certificate"
                    .to_owned(),
            ),
        }
    }
}

fn signed(
    signer: &Signer,
    content: EncapsulatedContentInfo,
    attributes: Option<SetOfVec<Attribute>>,
    signature: Vec<u8>,
) -> der::Result<Vec<u8>> {
    let with_null = |oid| AlgorithmIdentifierOwned {
        oid,
        parameters: Some(Any::null()),
    };
    let certificate = signer.certificate().parsed();
    let tbs = certificate.tbs_certificate();
    let sid = IssuerAndSerialNumber {
        issuer: tbs.issuer().clone(),
        serial_number: tbs.serial_number().clone(),
    };
    let info = SignerInfo {
        version: CmsVersion::V1,
        sid: SignerIdentifier::IssuerAndSerialNumber(sid),
        digest_alg: with_null(SHA256),
        signed_attrs: attributes,
        signature_algorithm: match signer.certificate().algorithm() {
            KeyAlgorithm::Rsa => with_null(RSA),
            KeyAlgorithm::EcdsaP256 => AlgorithmIdentifierOwned {
                oid: ECDSA_SHA256,
                parameters: None,
            },
        },
        signature: OctetString::new(signature)?,
        unsigned_attrs: None,
    };
    let data = SignedData {
        version: CmsVersion::V1,
        digest_algorithms: SetOfVec::try_from(vec![with_null(SHA256)])?,
        encap_content_info: content,
        certificates: Some(CertificateSet(SetOfVec::try_from(vec![
            CertificateChoices::Certificate(certificate.clone()),
        ])?)),
        crls: None,
        signer_infos: SignerInfos(SetOfVec::try_from(vec![info])?),
    };
    ContentInfo {
        content_type: SIGNED_DATA,
        content: Any::encode_from(&data)?,
    }
    .to_der()
}

fn failed(e: der::Error) -> Error {
    Error::new(format!("encoding the signature: {e}"))
}
