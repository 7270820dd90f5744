//! Detects private keys in DER: PKCS#1 (RFC 8017, A.1.2), DSA in the same form, SEC 1 (RFC 5915),
//! PKCS#8 (RFC 5958), and PKCS#12 (RFC 7292) if it holds a key besides certificates. The structure
//! must fill the complete file, so that other data does not match by chance.

/// Maximum size of a key or a bundle of keys, bytes.
pub const LIMIT: u64 = 1 << 20;

const INTEGER: u8 = 0x02;
const OCTETS: u8 = 0x04;
const OID: u8 = 0x06;
const SEQUENCE: u8 = 0x30;

/// 1.2.840.113549.1.5: password-based encryption of PKCS#5.
const PKCS5: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05];
/// 1.2.840.113549.1.12.1: password-based encryption of PKCS#12.
const PKCS12_ENCRYPTION: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x0c, 0x01];
/// 1.2.840.113549.1.12.10.1, the prefix of bag types: 1 is a key, 2 an encrypted key.
const BAG: &[u8] = &[
    OID, 0x0b, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x0c, 0x0a, 0x01,
];
/// Shortest and longest private value of an elliptic curve in use, bytes.
const EC_KEY: std::ops::RangeInclusive<usize> = 20..=66;

/// Whether the bytes are exactly a private key, encrypted or not, or a bundle with one.
pub fn is_private_key(bytes: &[u8]) -> bool {
    // Some programs write PKCS#12 with indefinite lengths (BER). Then only the start of the file is
    // checked.
    if bytes.starts_with(&[SEQUENCE, 0x80, INTEGER, 1, 3]) {
        return holds_key_bag(bytes);
    }
    let Some((SEQUENCE, body, rest)) = element(bytes) else {
        return false;
    };
    // An editor or a pipe may have appended a newline.
    if !rest.iter().all(u8::is_ascii_whitespace) {
        return false;
    }
    match element(body) {
        Some((INTEGER, [0], rest)) => {
            is_pkcs8(rest) || integers(rest).is_some_and(|count| count == 5 || count == 8)
        }
        Some((INTEGER, [1], rest)) => {
            is_pkcs8(rest) || is_ec(rest) || integers(rest).is_none() && leading_integers(rest) == 8
        }
        Some((INTEGER, [3], rest)) => {
            matches!(element(rest), Some((SEQUENCE, ..))) && holds_key_bag(rest)
        }
        Some((SEQUENCE, algorithm, rest)) => is_encrypted_pkcs8(algorithm, rest),
        _ => false,
    }
}

/// Tag, content and remaining bytes.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, mut rest) = rest.split_first()?;
    let mut length = usize::from(first);
    if first > 0x80 {
        let (digits, after) = rest.split_at_checked(usize::from(first & 0x7f))?;
        if digits.len() > 4 {
            return None;
        }
        length = digits
            .iter()
            .fold(0, |length, &digit| length << 8 | usize::from(digit));
        rest = after;
    } else if first == 0x80 {
        return None;
    }
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// An algorithm identifier, and the key as an octet string.
fn is_pkcs8(rest: &[u8]) -> bool {
    let Some((SEQUENCE, algorithm, rest)) = element(rest) else {
        return false;
    };
    matches!(element(algorithm), Some((OID, ..)))
        && matches!(element(rest), Some((OCTETS, [_, ..], _)))
}

fn is_encrypted_pkcs8(algorithm: &[u8], rest: &[u8]) -> bool {
    let Some((OID, name, _)) = element(algorithm) else {
        return false;
    };
    (name.starts_with(PKCS5) || name.starts_with(PKCS12_ENCRYPTION))
        && matches!(element(rest), Some((OCTETS, [_, ..], [])))
}

fn is_ec(rest: &[u8]) -> bool {
    matches!(element(rest), Some((OCTETS, key, rest)) if EC_KEY.contains(&key.len()) && (rest.is_empty() || matches!(rest[0], 0xa0 | 0xa1)))
}

/// The number of integers, if there is nothing else.
fn integers(bytes: &[u8]) -> Option<usize> {
    let (mut rest, mut count) = (bytes, 0);
    while !rest.is_empty() {
        let (INTEGER, _, after) = element(rest)? else {
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
    while let Some((INTEGER, _, after)) = element(rest) {
        (rest, count) = (after, count + 1);
    }
    count
}

fn holds_key_bag(bytes: &[u8]) -> bool {
    bytes
        .windows(BAG.len() + 1)
        .any(|window| window.starts_with(BAG) && matches!(window[BAG.len()], 1 | 2))
}
