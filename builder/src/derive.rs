//! Values that other tools choose at random, derived from the image id instead: salts, UUIDs and
//! GUIDs. So two builds of the same input are equal, and versions of one image share them.

use sha2::{Digest, Sha256};

/// SHA-256 of a purpose and an image id.
pub fn derive_bytes(purpose: &[u8], id: &str) -> [u8; 32] {
    Sha256::new()
        .chain_update(purpose)
        .chain_update(id)
        .finalize()
        .into()
}

/// A UUID (version 8, "custom", RFC 9562) from a purpose and an image id, in text order.
pub fn derive_uuid(purpose: &[u8], id: &str) -> [u8; 16] {
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&derive_bytes(purpose, id)[..16]);
    uuid[6] = uuid[6] & 0x0f | 0x80;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    uuid
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_derived_uuid_has_version_8_and_the_standard_variant() {
        for id in ["web", "db", ""] {
            let uuid = derive_uuid(b"purpose\0", id);
            assert_eq!((uuid[6] >> 4, uuid[8] >> 6), (8, 2));
            assert_ne!(uuid, derive_uuid(b"other\0", id));
        }
    }
}
