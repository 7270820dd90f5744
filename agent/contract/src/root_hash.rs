//! The root hash: the digest that identifies an image. Everything that the agent trusts depends on
//! it.

use std::fmt;
use std::str::FromStr;

use crate::gpt::Guid;
use crate::hex;

/// The SHA-256 digest at the top of a dm-verity hash tree, 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RootHash(pub [u8; 32]);

impl RootHash {
    /// PARTUUID of the root's data partition: the first half of the hash, in text order
    /// (Discoverable Partitions Specification, UAPI.2).
    pub fn data_partuuid(&self) -> Guid {
        let mut half = [0; 16];
        half.copy_from_slice(&self.0[..16]);
        Guid::from_text_order(half)
    }

    /// PARTUUID of the root's verity partition: the second half of the hash, in text order
    /// (UAPI.2).
    pub fn tree_partuuid(&self) -> Guid {
        let mut half = [0; 16];
        half.copy_from_slice(&self.0[16..]);
        Guid::from_text_order(half)
    }
}

/// A text is not a root hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotARootHash(pub &'static str);

impl fmt::Display for NotARootHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for NotARootHash {}

impl FromStr for RootHash {
    type Err = NotARootHash;

    /// Parses exactly 64 hexadecimal digits, of either case.
    fn from_str(text: &str) -> Result<Self, NotARootHash> {
        let bytes = text.as_bytes();
        if bytes.len() != 64 {
            return Err(NotARootHash("a root hash has 64 hexadecimal digits"));
        }
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(bytes.chunks_exact(2)) {
            let digit = |c: u8| (c as char).to_digit(16).map(|d| d as u8);
            match (digit(pair[0]), digit(pair[1])) {
                (Some(high), Some(low)) => *byte = high << 4 | low,
                _ => return Err(NotARootHash("a root hash has hexadecimal digits only")),
            }
        }
        Ok(RootHash(hash))
    }
}

impl fmt::Display for RootHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

impl fmt::Debug for RootHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RootHash({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partition_uuids_are_the_halves_in_text_order() {
        let hash: RootHash = "f6f9916eced28986000102030405060708090a0b0c0d0e0f1011121314151617"
            .parse()
            .unwrap();
        assert_eq!(
            hash.data_partuuid().to_string(),
            "f6f9916e-ced2-8986-0001-020304050607"
        );
        assert_eq!(
            hash.tree_partuuid().to_string(),
            "08090a0b-0c0d-0e0f-1011-121314151617"
        );
        assert_eq!(hash.to_string().parse(), Ok(hash));
    }

    #[test]
    fn refuses_other_texts_than_root_hashes() {
        for text in ["", "f6", &"g".repeat(64), &"é".repeat(32)] {
            assert!(text.parse::<RootHash>().is_err(), "{text}");
        }
    }
}
