//! Private keys in DER, the form without words: PKCS#1 (RFC 8017, A.1.2), DSA's like it, SEC 1 (RFC
//! 5915), PKCS#8 (RFC 5958), and PKCS#12 (RFC 7292) where it holds a key beside certificates. The
//! whole file is looked at, so what is no key does not pass for one by chance.

/// Larger files are no key and no bundle of keys, bytes.
pub const LIMIT: u64 = 1 << 20;

const INTEGER: u8 = 0x02;
const OCTETS: u8 = 0x04;
const OID: u8 = 0x06;
const SEQUENCE: u8 = 0x30;

/// 1.2.840.113549.1.5: password-based encryption of PKCS#5.
const PKCS5: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05];
/// 1.2.840.113549.1.12.1: that of PKCS#12.
const PKCS12_ENCRYPTION: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x0c, 0x01];
/// 1.2.840.113549.1.12.10.1, as it stands in a bag: 1 is a key, 2 an encrypted one.
const BAG: &[u8] = &[
    OID, 0x0b, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x0c, 0x0a, 0x01,
];
/// The shortest and longest private value of an elliptic curve in use, bytes.
const EC_KEY: std::ops::RangeInclusive<usize> = 20..=66;

/// Whether these are all bytes of a private key, encrypted or not, or of a bundle with one.
pub fn is_private_key(bytes: &[u8]) -> bool {
    // Some programs write PKCS#12 without lengths (BER); only its start looks different.
    if bytes.starts_with(&[SEQUENCE, 0x80, INTEGER, 1, 3]) {
        return holds_key_bag(bytes);
    }
    let Some((SEQUENCE, body, rest)) = element(bytes) else {
        return false;
    };
    // A line end from an editor or a pipe does not make it another file.
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

/// Tag, content and what follows.
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

/// An algorithm's name, and the key as octets.
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

/// How many integers there are, where there is nothing else.
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

/// How many integers there are before something else: an RSA key of more than two primes has a list
/// of those after its eight numbers.
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
