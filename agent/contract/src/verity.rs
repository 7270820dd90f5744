//! dm-verity on disk: the superblock (version 1) and the arithmetic of the tree behind it.
//!
//! Format: cryptsetup's lib/verity/verity.c and the kernel's
//! Documentation/admin-guide/device-mapper/verity.rst. Only what this project makes is accepted:
//! SHA-256, 4096-byte data and hash blocks, hash type 1 (salt before data), salt of at most 256
//! bytes.

use sha2::{Digest, Sha256};

use crate::root_hash::RootHash;

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
        let u32_at = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
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
            return Err(format!(
                "salt of {salt_size} bytes, at most 256 are possible"
            ));
        }
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&bytes[16..32]);
        let (salt, rest) = bytes[88..344].split_at(salt_size);
        if bytes[82..88]
            .iter()
            .chain(rest)
            .chain(&bytes[344..])
            .any(|&b| b != 0)
        {
            return Err("bytes that must be zero are not".to_owned());
        }
        Ok(Superblock {
            uuid,
            data_blocks,
            salt: salt.to_vec(),
        })
    }
}

/// The tree's levels, top first: how many hash blocks each has. Over one block there is none, as in
/// the kernel: its digest is the root hash.
pub fn levels(data_blocks: u64) -> Vec<u64> {
    let mut levels = Vec::new();
    let mut blocks = data_blocks;
    while blocks > 1 {
        blocks = blocks.div_ceil(DIGESTS_PER_BLOCK);
        levels.push(blocks);
    }
    levels.reverse();
    levels
}

/// Size of superblock block and tree together, in blocks of [`BLOCK`] bytes.
pub fn partition_blocks(data_blocks: u64) -> u64 {
    1 + levels(data_blocks).iter().sum::<u64>()
}

/// A block that is not what the root hash stands for, or that can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Block of the verity partition, counted from its start.
    Tree(u64),
    /// Block of the data partition.
    Data(u64),
}

/// The way from the top of the tree down to a data block: for each level the hash block, counted
/// from the start of the verity partition, and which of its digests is the next one's. `block` must
/// be one of the data blocks.
pub fn path(data_blocks: u64, block: u64) -> Vec<(u64, usize)> {
    let levels = levels(data_blocks);
    let mut steps = Vec::with_capacity(levels.len());
    let mut start = 1;
    for (depth, blocks) in levels.iter().enumerate() {
        // A block of this level covers 128 to the power of its height above the data.
        let below = levels.len() - depth - 1;
        let digest = (0..below).fold(block, |n, _| n / DIGESTS_PER_BLOCK);
        steps.push((
            start + digest / DIGESTS_PER_BLOCK,
            (digest % DIGESTS_PER_BLOCK) as usize,
        ));
        start += blocks;
    }
    steps
}

/// Follows the way from the root hash to one data block by our own reading, and names the first
/// block that is wrong. `read` fills a block of the verity partition ([`Fault::Tree`]) or the data
/// partition ([`Fault::Data`]), and says whether it could.
pub fn check(
    superblock: &Superblock,
    root: &RootHash,
    block: u64,
    mut read: impl FnMut(Fault, &mut [u8; BLOCK]) -> bool,
) -> Result<(), Fault> {
    let mut wanted = root.0;
    let mut bytes = [0; BLOCK];
    let mut matches = |at: Fault, wanted: &[u8; 32]| -> Option<[u8; BLOCK]> {
        let hash = |bytes: &[u8; BLOCK]| {
            <[u8; 32]>::from(
                Sha256::new()
                    .chain_update(&superblock.salt)
                    .chain_update(bytes)
                    .finalize(),
            )
        };
        (read(at, &mut bytes) && hash(&bytes) == *wanted).then_some(bytes)
    };
    for (at, digest) in path(superblock.data_blocks, block) {
        let tree = Fault::Tree(at);
        let bytes = matches(tree, &wanted).ok_or(tree)?;
        wanted.copy_from_slice(&bytes[digest * 32..digest * 32 + 32]);
    }
    let data = Fault::Data(block);
    matches(data, &wanted).map(|_| ()).ok_or(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn superblock_survives_the_round_trip_and_every_changed_byte_outside_salt_uuid_and_count_is_refused()
     {
        let superblock = Superblock {
            uuid: [7; 16],
            data_blocks: 1000,
            salt: vec![9; 32],
        };
        let bytes = superblock.encode();
        assert_eq!(Superblock::parse(&bytes), Ok(superblock));
        for at in (0..SUPERBLOCK).filter(|at| {
            !(16..32).contains(at) && !(72..82).contains(at) && !(88..120).contains(at)
        }) {
            let mut bad = bytes;
            bad[at] ^= 1;
            assert!(Superblock::parse(&bad).is_err(), "byte {at}");
        }
    }

    #[test]
    fn levels_are_counted_top_first() {
        assert!(levels(1).is_empty());
        assert_eq!(levels(2), [1]);
        assert_eq!(partition_blocks(1), 1);
        assert_eq!(levels(128), [1]);
        assert_eq!(levels(129), [1, 2]);
        assert_eq!(levels(128 * 128 + 1), [1, 2, 129]);
        assert_eq!(partition_blocks(129), 4);
    }

    fn digest(salt: &[u8], block: &[u8]) -> [u8; 32] {
        Sha256::new()
            .chain_update(salt)
            .chain_update(block)
            .finalize()
            .into()
    }

    /// A tree built bottom-up, to be walked top-down. (That it is veritysetup's is shown where
    /// images are built.)
    fn tree(salt: &[u8], data: &[Vec<u8>]) -> (RootHash, Vec<Vec<u8>>) {
        let mut levels: Vec<Vec<Vec<u8>>> = Vec::new();
        let mut below: Vec<Vec<u8>> = data.to_vec();
        loop {
            let digests: Vec<[u8; 32]> = below.iter().map(|b| digest(salt, b)).collect();
            below = digests
                .chunks(128)
                .map(|d| {
                    let mut block = d.concat();
                    block.resize(BLOCK, 0);
                    block
                })
                .collect();
            levels.push(below.clone());
            if below.len() == 1 {
                break;
            }
        }
        let mut blocks = vec![vec![0; BLOCK]];
        blocks.extend(levels.iter().rev().flatten().cloned());
        (RootHash(digest(salt, &below[0])), blocks)
    }

    #[test]
    fn names_the_block_that_is_wrong() {
        let data: Vec<Vec<u8>> = (0..300u64).map(|n| vec![n as u8; BLOCK]).collect();
        let superblock = Superblock {
            uuid: [0; 16],
            data_blocks: 300,
            salt: vec![5; 32],
        };
        let (root, tree) = tree(&superblock.salt, &data);
        assert_eq!(tree.len() as u64, partition_blocks(300));
        let check_with = |block, bad: Option<Fault>, root: &RootHash| {
            check(&superblock, root, block, |at, out| {
                out.copy_from_slice(match at {
                    Fault::Tree(n) => &tree[n as usize],
                    Fault::Data(n) => &data[n as usize],
                });
                out[0] ^= u8::from(bad == Some(at));
                true
            })
        };
        for block in [0, 127, 128, 299] {
            assert_eq!(check_with(block, None, &root), Ok(()));
            assert_eq!(
                check_with(block, None, &RootHash([1; 32])),
                Err(Fault::Tree(1))
            );
            for bad in [
                Fault::Tree(1),
                Fault::Tree(2 + block / 128),
                Fault::Data(block),
            ] {
                assert_eq!(check_with(block, Some(bad), &root), Err(bad));
            }
            assert_eq!(
                check(&superblock, &root, block, |_, _| false),
                Err(Fault::Tree(1))
            );
        }
    }
}
