//! dm-verity on disk: the superblock (version 1) and the arithmetic of the tree behind it.
//!
//! Format: cryptsetup's lib/verity/verity.c and the kernel's Documentation/admin-guide/device-mapper/verity.rst. Only what this project
//! makes is accepted: SHA-256, 4096-byte data and hash blocks, hash type 1 (salt before data), salt of at most 256 bytes.

/// Data and hash block size, bytes.
pub const BLOCK: usize = 4096;
/// Digests in one hash block.
pub const DIGESTS_PER_BLOCK: u64 = 128;
/// Size of the superblock, bytes.
pub const SUPERBLOCK: usize = 512;

/// The superblock's fields that vary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Superblock {
    /// UUID in text order.
    pub uuid: [u8; 16],
    /// Number of data blocks, each [`BLOCK`] bytes; at least 1.
    pub data_blocks: u64,
    /// Salt, at most 256 bytes.
    pub salt: Vec<u8>,
}

/// Why bytes are not a superblock this agent accepts.
pub type Refusal = String;

impl Superblock {
    /// Writes the 512 bytes as `veritysetup format` does. The salt must be at most 256 bytes.
    pub fn encode(&self) -> [u8; SUPERBLOCK] {
        let mut out = [0; SUPERBLOCK];
        out[0..8].copy_from_slice(b"verity\0\0");
        out[8..12].copy_from_slice(&1u32.to_le_bytes()); // superblock version
        out[12..16].copy_from_slice(&1u32.to_le_bytes()); // hash type
        out[16..32].copy_from_slice(&self.uuid);
        out[32..38].copy_from_slice(b"sha256");
        out[64..68].copy_from_slice(&(BLOCK as u32).to_le_bytes());
        out[68..72].copy_from_slice(&(BLOCK as u32).to_le_bytes());
        out[72..80].copy_from_slice(&self.data_blocks.to_le_bytes());
        let salt = &self.salt[..self.salt.len().min(256)];
        out[80..82].copy_from_slice(&(salt.len() as u16).to_le_bytes());
        out[88..88 + salt.len()].copy_from_slice(salt);
        out
    }

    /// Reads the first 512 bytes of a verity partition. `Err` says in a clause what is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Superblock, Refusal> {
        let Some(bytes) = bytes.get(..SUPERBLOCK) else {
            return Err("shorter than a verity superblock".to_owned());
        };
        let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        if &bytes[0..8] != b"verity\0\0" {
            return Err("no verity superblock (signature missing)".to_owned());
        }
        for (name, value, wanted) in [
            ("superblock version", u32_at(8), 1),
            ("hash type", u32_at(12), 1),
            ("data block size", u32_at(64), BLOCK as u32),
            ("hash block size", u32_at(68), BLOCK as u32),
        ] {
            if value != wanted {
                return Err(format!("{name} {value}, only {wanted} is accepted"));
            }
        }
        let mut algorithm = [0; 32];
        algorithm[..6].copy_from_slice(b"sha256");
        if bytes[32..64] != algorithm {
            return Err("hash algorithm is not sha256".to_owned());
        }
        let mut data_blocks = [0; 8];
        data_blocks.copy_from_slice(&bytes[72..80]);
        let data_blocks = u64::from_le_bytes(data_blocks);
        // 2^51 blocks are 2^63 bytes: more can't be addressed, and sums below would overflow.
        if data_blocks == 0 || data_blocks > 1 << 51 {
            return Err(format!("{data_blocks} data blocks is not possible"));
        }
        let salt_size = usize::from(u16::from_le_bytes([bytes[80], bytes[81]]));
        if salt_size > 256 {
            return Err(format!("salt of {salt_size} bytes, at most 256 are possible"));
        }
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&bytes[16..32]);
        let (salt, rest) = bytes[88..344].split_at(salt_size);
        if bytes[82..88].iter().chain(rest).chain(&bytes[344..]).any(|&b| b != 0) {
            return Err("bytes that must be zero are not".to_owned());
        }
        Ok(Superblock { uuid, data_blocks, salt: salt.to_vec() })
    }
}

/// The tree's levels, top first: how many hash blocks each has. A tree over one block has one level of one block.
pub fn levels(data_blocks: u64) -> Vec<u64> {
    let mut levels = Vec::new();
    let mut blocks = data_blocks;
    loop {
        blocks = blocks.div_ceil(DIGESTS_PER_BLOCK);
        levels.push(blocks);
        if blocks <= 1 {
            break;
        }
    }
    levels.reverse();
    levels
}

/// Size of superblock block and tree together, in blocks of [`BLOCK`] bytes.
pub fn partition_blocks(data_blocks: u64) -> u64 {
    1 + levels(data_blocks).iter().sum::<u64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn superblock_survives_the_round_trip_and_every_changed_byte_outside_salt_uuid_and_count_is_refused() {
        let superblock = Superblock { uuid: [7; 16], data_blocks: 1000, salt: vec![9; 32] };
        let bytes = superblock.encode();
        assert_eq!(Superblock::parse(&bytes), Ok(superblock));
        for at in (0..SUPERBLOCK).filter(|at| !(16..32).contains(at) && !(72..82).contains(at) && !(88..120).contains(at)) {
            let mut bad = bytes;
            bad[at] ^= 1;
            assert!(Superblock::parse(&bad).is_err(), "byte {at}");
        }
    }

    #[test]
    fn levels_are_counted_top_first() {
        assert_eq!(levels(1), [1]);
        assert_eq!(levels(128), [1]);
        assert_eq!(levels(129), [1, 2]);
        assert_eq!(levels(128 * 128 + 1), [1, 2, 129]);
        assert_eq!(partition_blocks(129), 4);
    }
}
