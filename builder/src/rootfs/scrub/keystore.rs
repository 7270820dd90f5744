//! Java's list of certificate authorities, a JKS keystore. Each entry holds its creation time; the
//! times are clamped to the epoch.
//!
//! The format is that of OpenJDK's sun.security.provider.JavaKeyStore: a header, entries, and a
//! SHA-1 digest over the password, a constant and all preceding bytes.

use sha1::{Digest, Sha1};

use crate::error::{Context, Result};
use crate::glob::PathGlobs;
use crate::tree::{Content, Kind, Tree, show};

/// Paths of the list in distributions.
const PATHS: [&[u8]; 3] = [
    b"/etc/ssl/certs/java/cacerts",
    b"/etc/pki/java/cacerts",
    b"/etc/pki/ca-trust/extracted/java/cacerts",
];
/// Maximum size of a list, bytes; Debian's has 170 KB.
const LARGEST: u64 = 16 << 20;
const MAGIC: [u8; 4] = [0xfe, 0xed, 0xfe, 0xed];
const VERSION: u32 = 2;
/// The tag of a certificate without a key.
const CERTIFICATE: u32 = 2;
const DIGEST: usize = 20;
/// The password of the list in every Java; it protects nothing.
const PASSWORD: &str = "changeit";
const CONSTANT: &[u8] = b"Mighty Aphrodite";

/// Clamps times after `epoch` (seconds since 1970) to it. Returns the paths of changed lists.
pub fn clamp(tree: &mut Tree, keep: &PathGlobs, epoch: i64) -> Result<Vec<Vec<u8>>> {
    let mut changed = Vec::new();
    for path in PATHS {
        let Some(id) = tree.lookup(path).filter(|_| !keep.holds(path)) else {
            continue;
        };
        let Kind::File(content) = &tree.node(id).kind else {
            continue;
        };
        if content.len() > LARGEST {
            continue;
        }
        let bytes = content.to_vec(LARGEST).context(|| show(path))?;
        if let Some(clamped) = clamped(&bytes, epoch).filter(|clamped| *clamped != bytes) {
            tree.replace_content(&[path], Content::from_memory(clamped))?;
            changed.push(path.to_vec());
        }
    }
    Ok(changed)
}

/// The list with clamped times; `None` if the bytes are no list of certificates or have another
/// password.
fn clamped(bytes: &[u8], epoch: i64) -> Option<Vec<u8>> {
    let end = bytes.len().checked_sub(DIGEST)?;
    if digest(&bytes[..end])[..] != bytes[end..] {
        return None;
    }
    let limit = u64::try_from(epoch).ok()?.checked_mul(1000)?;
    let mut list = bytes[..end].to_vec();
    let mut reader = KeystoreReader {
        bytes: &bytes[..end],
        at: 0,
    };
    if reader.bytes(4)? != MAGIC || reader.number()? != VERSION {
        return None;
    }
    for _ in 0..reader.number()? {
        if reader.number()? != CERTIFICATE {
            return None;
        }
        reader.text()?;
        let at = reader.at;
        let time = u64::from_be_bytes(reader.bytes(8)?.try_into().ok()?);
        list[at..at + 8].copy_from_slice(&time.min(limit).to_be_bytes());
        reader.text()?;
        let length = reader.number()? as usize;
        reader.bytes(length)?;
    }
    if reader.at != end {
        return None;
    }
    let digest = digest(&list);
    list.extend_from_slice(&digest);
    Some(list)
}

fn digest(list: &[u8]) -> [u8; DIGEST] {
    let password: Vec<u8> = PASSWORD.encode_utf16().flat_map(u16::to_be_bytes).collect();
    Sha1::new()
        .chain_update(password)
        .chain_update(CONSTANT)
        .chain_update(list)
        .finalize()
        .into()
}

struct KeystoreReader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> KeystoreReader<'a> {
    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(taken)
    }

    fn number(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.bytes(4)?.try_into().ok()?))
    }

    fn text(&mut self) -> Option<&'a [u8]> {
        let length = u16::from_be_bytes(self.bytes(2)?.try_into().ok()?);
        self.bytes(length.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(times: &[u64]) -> Vec<u8> {
        let mut list = [
            &MAGIC[..],
            &VERSION.to_be_bytes(),
            &(times.len() as u32).to_be_bytes(),
        ]
        .concat();
        for time in times {
            list.extend(
                [
                    &CERTIFICATE.to_be_bytes()[..],
                    b"\0\x01a",
                    &time.to_be_bytes(),
                    b"\0\x05X.509",
                    &3u32.to_be_bytes(),
                    b"DER",
                ]
                .concat(),
            );
        }
        let digest = digest(&list);
        [list, digest.to_vec()].concat()
    }

    #[test]
    fn clamps_keystore_times_to_the_epoch_and_updates_the_digest() {
        assert_eq!(
            clamped(&list(&[7_000, 5_000_001, 9_999_999]), 5_000).unwrap(),
            list(&[7_000, 5_000_000, 5_000_000])
        );
        assert_eq!(clamped(&list(&[]), 0).unwrap(), list(&[]));
    }

    #[test]
    fn keeps_files_that_are_not_certificate_lists() {
        let whole = list(&[9_999_999]);
        for cut in 0..whole.len() {
            assert_eq!(clamped(&whole[..cut], 1), None);
        }
        for at in 0..whole.len() {
            let mut other = whole.clone();
            other[at] ^= 1;
            assert_eq!(clamped(&other, 1), None, "{at}");
        }
        // A private key with a digest that fits.
        let mut key = whole[..whole.len() - DIGEST].to_vec();
        key[15] = 1;
        let digest = digest(&key);
        assert_eq!(clamped(&[key, digest.to_vec()].concat(), 1), None);
    }
}
