//! Detects private keys in DER: PKCS#1 (RFC 8017, A.1.2), DSA in the same form, SEC 1 (RFC 5915),
//! PKCS#8 (RFC 5958), and PKCS#12 (RFC 7292) if it holds a key besides certificates. The structure
//! must fill the complete file, so that other data does not match by chance.

use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::der::{Decode, Header, Reader, SliceReader, Tag};

/// Maximum size of a key or a bundle of keys, bytes.
pub const LIMIT: u64 = 1 << 20;

/// Password-based encryption of PKCS#5.
const PKCS5: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.5");
/// Password-based encryption of PKCS#12.
const PKCS12_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.12.1");
/// Bags of PKCS#12 that hold a key: in plain, and encrypted.
const KEY_BAGS: [ObjectIdentifier; 2] = [
    ObjectIdentifier::new_unwrap("1.2.840.113549.1.12.10.1.1"),
    ObjectIdentifier::new_unwrap("1.2.840.113549.1.12.10.1.2"),
];
/// PKCS#12 with an indefinite length (BER): a sequence that starts with version 3.
const BER_PKCS12: [u8; 5] = [0x30, 0x80, 0x02, 1, 3];
/// Shortest and longest private value of an elliptic curve in use, bytes.
const EC_KEY: std::ops::RangeInclusive<usize> = 20..=66;

/// Whether the bytes are exactly a private key, encrypted or not, or a bundle with one.
pub fn is_private_key(bytes: &[u8]) -> bool {
    // Some programs write PKCS#12 with indefinite lengths (BER). Then only the start of the file is
    // checked.
    if bytes.starts_with(&BER_PKCS12) {
        return holds_key_bag(bytes);
    }
    let Some((Tag::Sequence, body, rest)) = element(bytes) else {
        return false;
    };
    // An editor or a pipe may have appended a newline.
    if !rest.iter().all(u8::is_ascii_whitespace) {
        return false;
    }
    match element(body) {
        Some((Tag::Integer, [0], rest)) => {
            is_pkcs8(rest) || integers(rest).is_some_and(|count| count == 5 || count == 8)
        }
        Some((Tag::Integer, [1], rest)) => {
            is_pkcs8(rest) || is_ec(rest) || integers(rest).is_none() && leading_integers(rest) == 8
        }
        Some((Tag::Integer, [3], rest)) => {
            matches!(element(rest), Some((Tag::Sequence, ..))) && holds_key_bag(rest)
        }
        Some((Tag::Sequence, algorithm, rest)) => is_encrypted_pkcs8(algorithm, rest),
        _ => false,
    }
}

/// Tag, content and remaining bytes.
fn element(bytes: &[u8]) -> Option<(Tag, &[u8], &[u8])> {
    let mut reader = SliceReader::new(bytes).ok()?;
    let header = Header::decode(&mut reader).ok()?;
    let content = reader.read_slice(header.length()).ok()?;
    let rest = usize::try_from(reader.remaining_len()).ok()?;
    Some((header.tag(), content, &bytes[bytes.len() - rest..]))
}

/// An algorithm identifier, and the key as an octet string.
fn is_pkcs8(rest: &[u8]) -> bool {
    let Some((Tag::Sequence, algorithm, rest)) = element(rest) else {
        return false;
    };
    matches!(element(algorithm), Some((Tag::ObjectIdentifier, ..)))
        && matches!(element(rest), Some((Tag::OctetString, [_, ..], _)))
}

fn is_encrypted_pkcs8(algorithm: &[u8], rest: &[u8]) -> bool {
    let Some((Tag::ObjectIdentifier, name, _)) = element(algorithm) else {
        return false;
    };
    (name.starts_with(PKCS5.as_bytes()) || name.starts_with(PKCS12_ENCRYPTION.as_bytes()))
        && matches!(element(rest), Some((Tag::OctetString, [_, ..], [])))
}

fn is_ec(rest: &[u8]) -> bool {
    matches!(element(rest), Some((Tag::OctetString, key, rest)) if EC_KEY.contains(&key.len()) && (rest.is_empty() || matches!(rest[0], 0xa0 | 0xa1)))
}

/// The number of integers, if there is nothing else.
fn integers(bytes: &[u8]) -> Option<usize> {
    let (mut rest, mut count) = (bytes, 0);
    while !rest.is_empty() {
        let (Tag::Integer, _, after) = element(rest)? else {
            return None;
        };
        (rest, count) = (after, count + 1);
    }
    Some(count)
}

/// Counts the leading integers. An RSA key with more than two primes has a list of them after its
/// eight numbers.
fn leading_integers(bytes: &[u8]) -> usize {
    let (mut rest, mut count) = (bytes, 0);
    while let Some((Tag::Integer, _, after)) = element(rest) {
        (rest, count) = (after, count + 1);
    }
    count
}

/// Whether the identifier of a key bag occurs in the bytes, also inside of other structures.
fn holds_key_bag(bytes: &[u8]) -> bool {
    KEY_BAGS.iter().any(|bag| {
        let identifier = bag.as_bytes();
        bytes.windows(identifier.len() + 2).any(|window| {
            let (head, content) = window.split_at(2);
            head == [0x06, identifier.len() as u8] && content == identifier
        })
    })
}
