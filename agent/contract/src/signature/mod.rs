//! The signature of the root hash: the JSON of a root-verity-sig partition (UAPI.2) and the PKCS#7
//! message (RFC 2315) in it, verified with certificates that are trusted already.
//!
//! Promise: [`check_signature`] accepts only a signature of this root hash by the key of a trusted
//! certificate. Nothing in the partition is trusted. A certificate in the message gains no trust;
//! it must be the signer's. A message has exactly one accepted encoding. Unknown JSON keys are
//! ignored.

mod certificate;
mod der;
pub mod rule;

pub use certificate::{Certificate, CertificateError, LIMIT as CERTIFICATE_LIMIT};
pub use rule::{Mode, NotARule, Rule};

use base64ct::{Base64, Encoding};
use serde::Deserialize;
use thiserror::Error;

use crate::root_hash::{NotARootHash, RootHash};
pub use der::DerError;
use der::Reader;

/// Why a signature or certificate is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SignatureError {
    /// The partition is too large.
    #[error("{0} bytes, more than the {PARTITION_LIMIT} of a signature partition")]
    PartitionTooLarge(usize),
    /// The partition is empty.
    #[error("empty")]
    Empty,
    /// There are other bytes after the JSON than NULs.
    #[error("bytes follow the NUL that ends the JSON")]
    TrailingBytes,
    /// The JSON is malformed.
    #[error("not the JSON of a signature: {0}")]
    Json(String),
    /// A hash in the JSON is malformed.
    #[error("its rootHash or certificateFingerprint is not 64 lowercase hexadecimal digits")]
    NotDigits,
    /// The root hash in the JSON is malformed.
    #[error("its rootHash: {0}")]
    RootHash(#[from] NotARootHash),
    /// The message is not Base64.
    #[error("its signature: not Base64")]
    NotBase64,
    /// The signature is for another root hash.
    #[error("it is the signature of another image, whose root hash is {0}")]
    OtherRootHash(RootHash),
    /// The message is not the PKCS#7 message of a root hash.
    #[error("not a signed message: {0}")]
    Message(DerError),
    /// No trusted certificate belongs to the signer.
    #[error("signed by a certificate that is not trusted here, {0}")]
    Untrusted(String),
    /// The fingerprint in the JSON is not the signer's.
    #[error("its certificateFingerprint is not that of {0}")]
    OtherFingerprint(String),
    /// The certificate in the message is not the signer's.
    #[error("the certificate inside is not that of {0}")]
    OtherCertificate(String),
    /// The signature does not verify.
    #[error("altered, or made with another key than that of {0}")]
    Invalid(String),
    /// The signer's certificate had ended before the image was built.
    #[error("the certificate of {0} had expired when the image was built")]
    Expired(String),
    /// A certificate file is malformed.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}

/// Largest signature partition in bytes, as in systemd.
pub const PARTITION_LIMIT: usize = 4 << 20;
/// 1.2.840.113549.1.7.1, data.
const DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 1];
/// 1.2.840.113549.1.7.2, signedData.
const SIGNED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 2];
/// 2.16.840.1.101.3.4.2.1, SHA-256.
const SHA256: &[u8] = &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1];
/// 1.2.840.113549.1.1.1, rsaEncryption.
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
/// 1.2.840.10045.4.3.2, ecdsa-with-SHA256.
const ECDSA_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];

/// The content of a signature partition, not verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Embedded {
    /// The root hash that it claims to sign.
    pub root_hash: RootHash,
    /// SHA-256 of the certificate, 64 lowercase hexadecimal digits.
    pub certificate_fingerprint: String,
    /// PKCS#7 message, DER.
    pub message: Vec<u8>,
}

impl Embedded {
    /// Parses a partition: JSON, then NULs to its end.
    pub fn parse(partition: &[u8]) -> Result<Embedded, SignatureError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Json {
            root_hash: String,
            certificate_fingerprint: String,
            signature: String,
        }
        if partition.len() > PARTITION_LIMIT {
            return Err(SignatureError::PartitionTooLarge(partition.len()));
        }
        let end = partition
            .iter()
            .position(|&byte| byte == 0)
            .unwrap_or(partition.len());
        let (text, tail) = partition.split_at(end);
        if text.is_empty() {
            return Err(SignatureError::Empty);
        }
        if tail.iter().any(|&byte| byte != 0) {
            return Err(SignatureError::TrailingBytes);
        }
        let json: Json =
            serde_json::from_slice(text).map_err(|e| SignatureError::Json(e.to_string()))?;
        let lowercase = |text: &str| {
            text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        };
        if !lowercase(&json.root_hash) || !lowercase(&json.certificate_fingerprint) {
            return Err(SignatureError::NotDigits);
        }
        let root_hash = json.root_hash.parse()?;
        let message = Base64::decode_vec(&json.signature).map_err(|_| SignatureError::NotBase64)?;
        Ok(Embedded {
            root_hash,
            certificate_fingerprint: json.certificate_fingerprint,
            message,
        })
    }
}

/// Returns the trusted certificate whose key signed this root hash.
///
/// The clock decides nothing, because root can set it: a wrong date would make every slot
/// unbootable. A certificate is refused only if it had ended before `built`, the image's build time
/// in seconds since 1970 from the signed initramfs (0 if unknown). A certificate that starts later
/// is accepted: pinned inputs can date an image before its keys. To withdraw an image, use the
/// firmware's dbx or the minimum version, not a date.
pub fn check_signature<'c>(
    embedded: &Embedded,
    root_hash: &RootHash,
    trusted: &'c [Certificate],
    built: i64,
) -> Result<&'c Certificate, SignatureError> {
    if embedded.root_hash != *root_hash {
        return Err(SignatureError::OtherRootHash(embedded.root_hash));
    }
    let message = SignedData::parse(&embedded.message).map_err(SignatureError::Message)?;
    let signer = trusted.iter().find(|certificate| {
        (certificate.id.0.as_slice(), certificate.id.1.as_slice()) == message.signer
    });
    let signer = signer
        .ok_or_else(|| SignatureError::Untrusted(embedded.certificate_fingerprint.clone()))?;
    let subject = || signer.subject.clone();
    if signer.fingerprint() != embedded.certificate_fingerprint {
        return Err(SignatureError::OtherFingerprint(subject()));
    }
    if message
        .certificate
        .is_some_and(|inside| inside != signer.der)
    {
        return Err(SignatureError::OtherCertificate(subject()));
    }
    let algorithm_fits = matches!(
        (&signer.key, message.algorithm),
        (certificate::PublicKey::Rsa(_), RSA) | (certificate::PublicKey::P256(_), ECDSA_SHA256)
    );
    if !algorithm_fits
        || !signer
            .key
            .verifies(root_hash.to_string().as_bytes(), message.signature)
    {
        return Err(SignatureError::Invalid(subject()));
    }
    if built > signer.validity.1 {
        return Err(SignatureError::Expired(subject()));
    }
    Ok(signer)
}

/// The parts of a detached signature with one signer and without signed attributes.
struct SignedData<'a> {
    certificate: Option<&'a [u8]>,
    /// Issuer and serial number.
    signer: (&'a [u8], &'a [u8]),
    algorithm: &'a [u8],
    signature: &'a [u8],
}

impl SignedData<'_> {
    fn parse(bytes: &[u8]) -> Result<SignedData<'_>, DerError> {
        let mut outer = Reader(bytes);
        let mut info = outer.enter(der::SEQUENCE, "content info")?;
        outer.end("content info")?;
        exactly(
            info.take(der::OID, "content type")?.content,
            SIGNED_DATA,
            "content type",
        )?;
        let mut explicit = info.enter(der::CONTEXT_0, "content")?;
        info.end("content info")?;
        let mut data = explicit.enter(der::SEQUENCE, "signed data")?;
        explicit.end("content")?;

        exactly(data.take(der::INTEGER, "version")?.content, &[1], "version")?;
        let mut digests = data.enter(der::SET, "digest algorithms")?;
        exactly(algorithm(&mut digests)?, SHA256, "digest algorithm")?;
        digests.end("digest algorithms")?;
        let mut content = data.enter(der::SEQUENCE, "content")?;
        exactly(
            content
                .take(der::OID, "type of the signed content")?
                .content,
            DATA,
            "type of the signed content",
        )?;
        content.end("a detached signature's content")?;
        let certificate = data.optional(der::CONTEXT_0)?.map(|set| set.content);
        let mut signers = data.enter(der::SET, "signers")?;
        data.end("signed data")?;

        let mut signer = signers.enter(der::SEQUENCE, "signer")?;
        signers.end("signers")?;
        exactly(
            signer.take(der::INTEGER, "signer's version")?.content,
            &[1],
            "signer's version",
        )?;
        let mut id = signer.enter(der::SEQUENCE, "signer's certificate")?;
        let issuer = id.take(der::SEQUENCE, "signer's issuer")?.whole;
        let serial = id.take(der::INTEGER, "signer's serial number")?.whole;
        id.end("signer's certificate")?;
        exactly(algorithm(&mut signer)?, SHA256, "signer's digest algorithm")?;
        // Signed attributes would be here; they have another tag and are refused.
        let algorithm = algorithm(&mut signer)?;
        let signature = signer.take(der::OCTET_STRING, "signature")?.content;
        signer.end("signer")?;
        Ok(SignedData {
            certificate,
            signer: (issuer, serial),
            algorithm,
            signature,
        })
    }
}

/// Reads an AlgorithmIdentifier without parameters.
fn algorithm<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], DerError> {
    let mut inside = reader.enter(der::SEQUENCE, "algorithm")?;
    let id = inside.take(der::OID, "algorithm")?.content;
    if let Some(null) = inside.optional(der::NULL)? {
        exactly(null.content, &[], "algorithm's parameters")?;
    }
    inside.end("algorithm")?;
    Ok(id)
}

/// Refuses any other value than the expected one.
fn exactly(found: &[u8], expected: &[u8], field: &'static str) -> Result<(), DerError> {
    if found == expected {
        Ok(())
    } else {
        Err(DerError::OtherValue(field))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use adamant_skip::skip;
    use std::path::Path;
    use std::process::Command;

    const HASH: RootHash = RootHash([0xa5; 32]);

    fn openssl(dir: &Path, args: &str) -> String {
        let output = Command::new("openssl")
            .current_dir(dir)
            .args(args.split(' '))
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{args}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    fn fingerprint_as_openssl_prints(certificate: &Certificate) -> String {
        let digits = certificate.fingerprint().to_uppercase();
        let pairs: Vec<&str> = (0..digits.len())
            .step_by(2)
            .map(|at| &digits[at..at + 2])
            .collect();
        pairs.join(":")
    }

    /// A certificate and its signature of [`HASH`], both made by OpenSSL as an independent check.
    fn made_by_openssl(name: &str, key: &str, options: &str) -> Option<(Certificate, Embedded)> {
        if Command::new("openssl").arg("version").output().is_err() {
            skip!(Program("openssl"), None);
        }
        let dir =
            std::env::temp_dir().join(format!("adamant-signature-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        openssl(
            &dir,
            &format!(
                "req -x509 -nodes -newkey {key} -keyout k -out c -days 30 -subj /O=tests/CN={name}"
            ),
        );
        std::fs::write(dir.join("hash"), HASH.to_string()).unwrap();
        openssl(
            &dir,
            &format!(
                "smime -sign -binary -noattr {options} -in hash -inkey k -signer c -outform der -out p7s"
            ),
        );
        let certificate = Certificate::from_pem(&std::fs::read(dir.join("c")).unwrap()).unwrap();
        let fingerprint = openssl(&dir, "x509 -in c -noout -fingerprint -sha256");
        assert_eq!(
            fingerprint.trim_end().split_once('=').unwrap().1,
            fingerprint_as_openssl_prints(&certificate)
        );
        let message = std::fs::read(dir.join("p7s")).unwrap();
        std::fs::remove_dir_all(dir).unwrap();
        let embedded = Embedded {
            root_hash: HASH,
            certificate_fingerprint: certificate.fingerprint(),
            message,
        };
        Some((certificate, embedded))
    }

    #[test]
    fn accepts_openssl_s_signatures_and_names_the_signer() {
        for (name, key, options) in [
            ("rsa", "rsa:2048", "-nocerts"),
            ("inside", "rsa:3072", "-md sha256"),
            ("ec", "ec -pkeyopt ec_paramgen_curve:P-256", "-nocerts"),
        ] {
            let Some((certificate, embedded)) = made_by_openssl(name, key, options) else {
                return;
            };
            let trusted = [certificate];
            let by = check_signature(&embedded, &HASH, &trusted, 0)
                .unwrap_or_else(|why| panic!("{name}: {why}"));
            assert_eq!(by.subject, name);
            assert_eq!(by.validity.1 - by.validity.0, 30 * 86_400);
        }
    }

    #[test]
    fn refuses_a_message_with_any_bit_changed_cut_or_longer() {
        for options in ["-nocerts", "-md sha256"] {
            let Some((certificate, embedded)) =
                made_by_openssl(&options[1..3], "rsa:2048", options)
            else {
                return;
            };
            let trusted = [certificate];
            let refused = |message: Vec<u8>| {
                check_signature(
                    &Embedded {
                        message,
                        ..embedded.clone()
                    },
                    &HASH,
                    &trusted,
                    0,
                )
                .is_err()
            };
            for at in 0..embedded.message.len() {
                for bit in 0..8 {
                    let mut message = embedded.message.clone();
                    message[at] ^= 1 << bit;
                    assert!(refused(message), "{options}: byte {at}, bit {bit}");
                }
                assert!(refused(embedded.message[..at].to_vec()));
            }
            assert!(refused([&embedded.message[..], &[0]].concat()));
        }
    }

    #[test]
    fn gives_the_reason_of_each_refusal() {
        let Some((certificate, embedded)) = made_by_openssl("mine", "rsa:2048", "-nocerts") else {
            return;
        };
        let Some((other, by_other)) = made_by_openssl("other", "rsa:2048", "-nocerts") else {
            return;
        };
        let Some((_, attributes)) =
            made_by_openssl("attributes", "rsa:2048", "-nocerts -noattr -nodetach")
        else {
            return;
        };
        let until = certificate.validity.1;
        let trusted = [certificate];
        for (embedded, hash, built, why) in [
            (
                &embedded,
                RootHash([1; 32]),
                0,
                "signature of another image",
            ),
            (&by_other, HASH, 0, "not trusted here"),
            (
                &Embedded {
                    certificate_fingerprint: other.fingerprint(),
                    ..embedded.clone()
                },
                HASH,
                0,
                "certificateFingerprint",
            ),
            (&attributes, HASH, 0, "detached signature's content"),
            (
                &embedded,
                HASH,
                until + 1,
                "had expired when the image was built",
            ),
        ] {
            let refused = check_signature(embedded, &hash, &trusted, built)
                .unwrap_err()
                .to_string();
            assert!(refused.contains(why), "{refused}");
        }
        // The first second of the certificate, long before it, and a build time that is not known.
        let from = trusted[0].validity.0;
        for built in [until, from, from - 1, 1, 0] {
            assert!(
                check_signature(&embedded, &HASH, &trusted, built).is_ok(),
                "{built}"
            );
        }
        assert!(check_signature(&embedded, &HASH, &[], 0).is_err());
        // A certificate of the same name and number, and another key.
        let twin = Certificate {
            key: other.key,
            ..trusted[0].clone()
        };
        assert!(
            check_signature(&embedded, &HASH, &[twin], 0)
                .unwrap_err()
                .to_string()
                .contains("altered")
        );
    }

    #[test]
    fn reads_a_partition_to_its_last_byte() {
        let json = format!(
            "{{\"rootHash\":\"{HASH}\",\"certificateFingerprint\":\"{HASH}\",\"signature\":\"Zg==\",\"new\":[1]}}"
        );
        let partition = |text: &str, tail: &[u8]| [text.as_bytes(), tail].concat();
        let rest = vec![0; PARTITION_LIMIT - json.len()];
        for tail in [&b""[..], &[0; 4096], &rest] {
            assert_eq!(
                Embedded::parse(&partition(&json, tail)).map(|embedded| embedded.message),
                Ok(b"f".to_vec())
            );
        }
        for (bytes, why) in [
            (vec![0; 4096], "empty"),
            (vec![0; PARTITION_LIMIT + 1], "more than"),
            (partition(&json, b"\0\0x"), "follow the NUL"),
            (partition(&json, b"x"), "not the JSON"),
            (partition(&json.replace("a5a5", "A5a5"), b""), "lowercase"),
            (
                partition(&json.replacen("a5a5", "A5a5", 1), b""),
                "is not 64 lowercase",
            ),
            (
                partition(&json.replace("Fingerprint\":\"a", "Fingerprint\":\"A"), b""),
                "is not 64 lowercase",
            ),
            (
                partition(&json.replacen("\"a", "\"aa", 1), b""),
                "is not 64 lowercase",
            ),
            (partition(&json.replace("Zg==", "Zh=="), b""), "not Base64"),
            (
                partition(&json.replace("rootHash", "roothash"), b""),
                "not the JSON",
            ),
        ] {
            let refused = Embedded::parse(&bytes).unwrap_err().to_string();
            assert!(refused.contains(why), "{refused}");
        }
    }
}
