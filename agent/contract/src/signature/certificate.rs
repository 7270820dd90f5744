//! The certificates of the signers of root hashes: X.509 (RFC 5280), PEM. They are in the
//! initramfs, which is trusted already.

use base64ct::{Base64, Encoding};
use rsa::BoxedUint;
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::der::{self, DerError, Reader, Value};
use crate::hex;

/// Why a certificate is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CertificateError {
    /// The file is too long.
    #[error("{0} bytes, more than the {LIMIT} of a certificate")]
    TooLong(usize),
    /// The file is not text.
    #[error("not PEM")]
    NotPem,
    /// A line of PEM is missing.
    #[error("without a line {0}")]
    NoLine(&'static str),
    /// The content is not Base64.
    #[error("not Base64")]
    NotBase64,
    /// The structure is malformed.
    #[error(transparent)]
    Der(#[from] DerError),
    /// The public key is not a number of bytes.
    #[error("the length of the public key is not a multiple of 8 bits")]
    KeyBits,
    /// The RSA key is too short or too long.
    #[error("an RSA key of {0} bits, {min} to {max} are possible", min = RSA_BITS.start(), max = RSA_BITS.end())]
    RsaLength(usize),
    /// The RSA key is invalid.
    #[error("an invalid RSA key: {0}")]
    Rsa(String),
    /// The key is not on the curve.
    #[error("the key is not a point of P-256")]
    NotAPoint,
    /// The key's algorithm is not supported.
    #[error("its key is neither RSA nor on the curve P-256")]
    KeyAlgorithm,
    /// A time is malformed.
    #[error("an invalid time in the validity period")]
    Time,
}

/// Longest accepted file in bytes.
pub const LIMIT: usize = 64 << 10;
const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";
/// 1.2.840.113549.1.1.1, rsaEncryption.
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
/// 1.2.840.10045.2.1, ecPublicKey.
const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
/// 1.2.840.10045.3.1.7, the curve P-256.
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
/// 2.5.4.3, a common name.
const COMMON_NAME: &[u8] = &[0x55, 4, 3];
/// Accepted lengths of RSA keys in bits. Shorter ones could be broken.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=4096;

/// A certificate.
#[derive(Debug, Clone)]
pub struct Certificate {
    pub(super) der: Vec<u8>,
    /// Issuer and serial number, as encoded in the certificate.
    pub(super) id: (Vec<u8>, Vec<u8>),
    pub(super) key: PublicKey,
    /// The common name, or the subject in hexadecimal if it has none.
    pub subject: String,
    /// First and last second of the validity period, since 1970.
    pub validity: (i64, i64),
}

#[derive(Debug, Clone)]
pub(super) enum PublicKey {
    Rsa(Box<rsa::PublicKey>),
    P256(Box<p256::ecdsa::VerifyingKey>),
}

impl Certificate {
    /// Parses the first certificate of a PEM file.
    pub fn from_pem(bytes: &[u8]) -> Result<Certificate, CertificateError> {
        if bytes.len() > LIMIT {
            return Err(CertificateError::TooLong(bytes.len()));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| CertificateError::NotPem)?;
        let (_, rest) = text
            .split_once(BEGIN)
            .ok_or(CertificateError::NoLine(BEGIN))?;
        let (body, _) = rest.split_once(END).ok_or(CertificateError::NoLine(END))?;
        let digits: String = body.split_ascii_whitespace().collect();
        let der = Base64::decode_vec(&digits).map_err(|_| CertificateError::NotBase64)?;
        Certificate::from_der(&der)
    }

    /// Parses a certificate in DER.
    pub fn from_der(bytes: &[u8]) -> Result<Certificate, CertificateError> {
        let mut outer = Reader(bytes);
        let mut certificate = outer.enter(der::SEQUENCE, "certificate")?;
        outer.end("certificate")?;
        let mut tbs = certificate.enter(der::SEQUENCE, "certificate's content")?;
        tbs.optional(der::CONTEXT_0)?;
        let serial = tbs.take(der::INTEGER, "serial number")?;
        tbs.take(der::SEQUENCE, "algorithm")?;
        let issuer = tbs.take(der::SEQUENCE, "issuer")?;
        let mut validity = tbs.enter(der::SEQUENCE, "validity")?;
        let validity = (time(validity.any()?)?, time(validity.any()?)?);
        let subject = tbs.take(der::SEQUENCE, "subject")?;
        let key = PublicKey::read(tbs.enter(der::SEQUENCE, "public key")?)?;
        Ok(Certificate {
            der: bytes.to_vec(),
            id: (issuer.whole.to_vec(), serial.whole.to_vec()),
            key,
            subject: common_name(subject).unwrap_or_else(|| hex::encode(subject.content)),
            validity,
        })
    }

    /// SHA-256 of the DER, lowercase hexadecimal.
    pub fn fingerprint(&self) -> String {
        hex::encode(&Sha256::digest(&self.der))
    }
}

impl PublicKey {
    /// Parses SubjectPublicKeyInfo.
    fn read(mut info: Reader) -> Result<PublicKey, CertificateError> {
        let mut algorithm = info.enter(der::SEQUENCE, "key algorithm")?;
        let kind = algorithm.take(der::OID, "key algorithm")?.content;
        let bits = info.take(der::BIT_STRING, "public key")?.content;
        let [0, bits @ ..] = bits else {
            return Err(CertificateError::KeyBits);
        };
        match kind {
            RSA => {
                let mut key = Reader(bits).enter(der::SEQUENCE, "RSA key")?;
                let [n, e] = [
                    key.take(der::INTEGER, "modulus")?,
                    key.take(der::INTEGER, "exponent")?,
                ]
                .map(|value| {
                    let zeros = value.content.iter().take_while(|&&byte| byte == 0).count();
                    &value.content[zeros..]
                });
                let length =
                    n.len() * 8 - n.first().map_or(0, |first| first.leading_zeros() as usize);
                if !RSA_BITS.contains(&length) || e.len() > 4 {
                    return Err(CertificateError::RsaLength(length));
                }
                let key = rsa::PublicKey::new(
                    BoxedUint::from_be_slice_vartime(n),
                    BoxedUint::from_be_slice_vartime(e),
                );
                key.map(|key| PublicKey::Rsa(Box::new(key)))
                    .map_err(|e| CertificateError::Rsa(e.to_string()))
            }
            EC if algorithm.take(der::OID, "curve")?.content == P256 => {
                let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(bits)
                    .map_err(|_| CertificateError::NotAPoint)?;
                Ok(PublicKey::P256(Box::new(key)))
            }
            _ => Err(CertificateError::KeyAlgorithm),
        }
    }

    /// Whether a signature over the SHA-256 of a message was made with this key.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let digest = Sha256::digest(message);
        match self {
            PublicKey::Rsa(key) => key
                .verify(rsa::Pkcs1v15Sign::new::<Sha256>(), &digest, signature)
                .is_ok(),
            PublicKey::P256(key) => {
                use p256::ecdsa::signature::hazmat::PrehashVerifier;
                p256::ecdsa::Signature::from_der(signature)
                    .is_ok_and(|signature| key.verify_prehash(&digest, &signature).is_ok())
            }
        }
    }
}

/// Parses a UTCTime or GeneralizedTime of RFC 5280: with seconds, in UTC.
fn time(value: Value) -> Result<i64, CertificateError> {
    let wrong = || CertificateError::Time;
    let text = std::str::from_utf8(value.content).map_err(|_| wrong())?;
    let digits = text
        .strip_suffix('Z')
        .filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))
        .ok_or_else(wrong)?;
    let (year, rest) = match (value.tag, digits.len()) {
        (der::UTC_TIME, 12) => {
            let year: i64 = digits[..2].parse().map_err(|_| wrong())?;
            (
                if year < 50 { 2000 + year } else { 1900 + year },
                &digits[2..],
            )
        }
        (der::GENERALIZED_TIME, 14) => (digits[..4].parse().map_err(|_| wrong())?, &digits[4..]),
        _ => return Err(wrong()),
    };
    let part = |at: usize| rest[at..at + 2].parse::<i64>().map_err(|_| wrong());
    let (month, day, hour, minute, second) = (part(0)?, part(2)?, part(4)?, part(6)?, part(8)?);
    if !(1..=12).contains(&month)
        || !(1..=31).contains(&day)
        || hour > 23
        || minute > 59
        || second > 60
    {
        return Err(wrong());
    }
    // Days since 1970 of the Gregorian calendar, its year beginning in March so that the leap day
    // is the last one.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = 365 * year + year.div_euclid(4) - year.div_euclid(100)
        + year.div_euclid(400)
        + (153 * month + 2) / 5
        + day
        - 719_469;
    Ok(((days * 24 + hour) * 60 + minute) * 60 + second)
}

fn common_name(subject: Value) -> Option<String> {
    let mut names = Reader(subject.content);
    while let Ok(mut set) = names.enter(der::SET, "name") {
        let mut pair = set.enter(der::SEQUENCE, "name").ok()?;
        if pair.any().ok()?.content == COMMON_NAME {
            return String::from_utf8(pair.any().ok()?.content.to_vec()).ok();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_what_date_says() {
        let at = |tag, text: &str| {
            time(Value {
                tag,
                content: text.as_bytes(),
                whole: &[],
            })
        };
        assert_eq!(at(der::UTC_TIME, "700101000000Z"), Ok(0));
        assert_eq!(at(der::UTC_TIME, "240229235959Z"), Ok(1_709_251_199));
        assert_eq!(at(der::UTC_TIME, "161231235960Z"), Ok(1_483_228_800));
        assert_eq!(at(der::UTC_TIME, "491231000000Z"), Ok(2_524_521_600));
        assert_eq!(at(der::UTC_TIME, "500101000000Z"), Ok(-631_152_000));
        assert_eq!(
            at(der::GENERALIZED_TIME, "20500301000000Z"),
            Ok(2_529_705_600)
        );
        for (tag, text) in [
            (der::UTC_TIME, "2402292359Z"),
            (der::UTC_TIME, "241329235959Z"),
            (der::UTC_TIME, "240200000000Z"),
            (der::UTC_TIME, "240232000000Z"),
            (der::UTC_TIME, "240229240000Z"),
            (der::UTC_TIME, "240229006000Z"),
            (der::UTC_TIME, "240229000061Z"),
            (der::GENERALIZED_TIME, "+0500301000000Z"),
            (der::SET, ""),
        ] {
            assert!(at(tag, text).is_err(), "{text}");
        }
    }

    /// A value in DER, of less than 64 KiB.
    fn value(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
        let content = parts.concat();
        let length = (content.len() as u16).to_be_bytes();
        let head = match content.len() {
            0..0x80 => vec![tag, length[1]],
            0x80..0x100 => vec![tag, 0x81, length[1]],
            _ => vec![tag, 0x82, length[0], length[1]],
        };
        [head, content].concat()
    }

    /// Parses a public key; `unused` is the number of unused bits in its last byte.
    fn read_key(algorithm: &[&[u8]], unused: u8, key: &[u8]) -> Result<(), CertificateError> {
        let ids: Vec<Vec<u8>> = algorithm.iter().map(|id| value(der::OID, &[id])).collect();
        let ids: Vec<&[u8]> = ids.iter().map(Vec::as_slice).collect();
        let algorithm = value(der::SEQUENCE, &ids);
        let info = [algorithm, value(der::BIT_STRING, &[&[unused], key])].concat();
        PublicKey::read(Reader(&info)).map(|_| ())
    }

    /// An RSA key whose modulus has this number of bits.
    fn rsa_key(bits: usize, exponent: &[u8]) -> Vec<u8> {
        let mut modulus = vec![0xff; bits.div_ceil(8)];
        modulus[0] >>= (8 - bits % 8) % 8;
        value(
            der::SEQUENCE,
            &[
                &value(der::INTEGER, &[&[0], &modulus]),
                &value(der::INTEGER, &[&[0], exponent]),
            ],
        )
    }

    #[test]
    fn accepts_rsa_keys_of_2048_to_4096_bits_only() {
        let read = |bits, exponent: &[u8]| read_key(&[RSA], 0, &rsa_key(bits, exponent));
        for bits in [2048, 2049, 4095, 4096] {
            assert_eq!(read(bits, &[1, 0, 1]), Ok(()), "{bits}");
        }
        for bits in [1024, 2047, 4097, 8192] {
            assert_eq!(
                read(bits, &[1, 0, 1]),
                Err(CertificateError::RsaLength(bits))
            );
        }
        assert_eq!(read(2048, &[1, 0, 0, 1]), Ok(()));
        assert_eq!(
            read(2048, &[1, 0, 0, 0, 1]),
            Err(CertificateError::RsaLength(2048)),
            "the exponent has more than four bytes"
        );
        assert_eq!(
            read_key(&[RSA], 1, &rsa_key(2048, &[1, 0, 1])),
            Err(CertificateError::KeyBits)
        );
    }

    #[test]
    fn accepts_elliptic_curve_keys_on_p_256_only() {
        let point = [4; 65];
        assert_eq!(
            read_key(&[EC, P256], 0, &point),
            Err(CertificateError::NotAPoint)
        );
        // 1.3.132.0.34, the curve P-384.
        let p384 = [0x2b, 0x81, 4, 0, 0x22];
        for algorithm in [&[EC, &p384[..]][..], &[P256]] {
            assert_eq!(
                read_key(algorithm, 0, &point),
                Err(CertificateError::KeyAlgorithm)
            );
        }
    }

    #[test]
    fn refuses_longer_files_than_64_kib() {
        let refused = |length| Certificate::from_pem(&vec![b'\n'; length]).unwrap_err();
        assert_eq!(refused(LIMIT), CertificateError::NoLine(BEGIN));
        assert_eq!(refused(LIMIT + 1), CertificateError::TooLong(LIMIT + 1));
    }
}
