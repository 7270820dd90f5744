//! dm-verity on disk: the superblock (version 1) and the geometry of the hash tree behind it.
//!
//! Format: cryptsetup's lib/verity/verity.c and the kernel's
//! Documentation/admin-guide/device-mapper/verity.rst. Accepted is only the format that the builder
//! writes: SHA-256, 4096-byte data and hash blocks, hash type 1 (salt before data), salt of at most
//! 256 bytes.

use sha2::{Digest, Sha256};
use thiserror::Error;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::root_hash::RootHash;

/// Data and hash block size, bytes.
pub const BLOCK: usize = 4096;
/// Digests in one hash block.
pub const DIGESTS_PER_BLOCK: u64 = 128;
/// Size of the superblock, bytes.
pub const SUPERBLOCK: usize = 512;

/// The superblock on disk, with the field names of cryptsetup's `struct verity_sb`.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct VeritySb {
    signature: [u8; 8],
    version: U32,
    hash_type: U32,
    uuid: [u8; 16],
    algorithm: [u8; 32],
    data_block_size: U32,
    hash_block_size: U32,
    data_blocks: U64,
    salt_size: U16,
    pad1: [u8; 6],
    salt: [u8; 256],
    pad2: [u8; 168],
}

const SIGNATURE: [u8; 8] = *b"verity\0\0";
const ALGORITHM: [u8; 32] = {
    let mut name = [0; 32];
    (name[0], name[1], name[2], name[3], name[4], name[5]) = (b's', b'h', b'a', b'2', b'5', b'6');
    name
};

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

/// Why a superblock is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SuperblockError {
    /// There are too few bytes.
    #[error("shorter than a verity superblock")]
    TooShort,
    /// The signature is missing.
    #[error("no verity superblock (signature missing)")]
    NoSignature,
    /// A field has another value than the only supported one.
    #[error("{field} {value}, only {supported} is accepted")]
    Unsupported {
        /// The field.
        field: &'static str,
        /// Its value.
        value: u32,
        /// The supported value.
        supported: u32,
    },
    /// The hash algorithm is another one.
    #[error("hash algorithm is not sha256")]
    Algorithm,
    /// The number of data blocks is impossible.
    #[error("{0} data blocks is not possible")]
    DataBlocks(u64),
    /// The salt is too long.
    #[error("salt of {0} bytes, at most 256 are possible")]
    SaltSize(u16),
    /// Unused bytes are not zero.
    #[error("bytes that must be zero are not")]
    NotZero,
}

impl Superblock {
    /// Encodes the 512 bytes as `veritysetup format` does. The salt must be at most 256 bytes.
    pub fn encode(&self) -> [u8; SUPERBLOCK] {
        let salt = &self.salt[..self.salt.len().min(256)];
        let mut out = VeritySb {
            signature: SIGNATURE,
            version: 1.into(),
            hash_type: 1.into(),
            uuid: self.uuid,
            algorithm: ALGORITHM,
            data_block_size: (BLOCK as u32).into(),
            hash_block_size: (BLOCK as u32).into(),
            data_blocks: self.data_blocks.into(),
            salt_size: (salt.len() as u16).into(),
            pad1: [0; 6],
            salt: [0; 256],
            pad2: [0; 168],
        };
        out.salt[..salt.len()].copy_from_slice(salt);
        zerocopy::transmute!(out)
    }

    /// Parses the first 512 bytes of a hash device.
    pub fn parse(bytes: &[u8]) -> Result<Superblock, SuperblockError> {
        let (found, _) = VeritySb::ref_from_prefix(bytes).map_err(|_| SuperblockError::TooShort)?;
        if found.signature != SIGNATURE {
            return Err(SuperblockError::NoSignature);
        }
        for (field, value, supported) in [
            ("superblock version", found.version, 1),
            ("hash type", found.hash_type, 1),
            ("data block size", found.data_block_size, BLOCK as u32),
            ("hash block size", found.hash_block_size, BLOCK as u32),
        ] {
            if value.get() != supported {
                return Err(SuperblockError::Unsupported {
                    field,
                    value: value.get(),
                    supported,
                });
            }
        }
        if found.algorithm != ALGORITHM {
            return Err(SuperblockError::Algorithm);
        }
        let data_blocks = found.data_blocks.get();
        // 2^51 blocks are 2^63 bytes. More cannot be addressed, and sums below would overflow.
        if data_blocks == 0 || data_blocks > 1 << 51 {
            return Err(SuperblockError::DataBlocks(data_blocks));
        }
        let salt_size = found.salt_size.get();
        let (salt, rest) = found
            .salt
            .split_at_checked(salt_size.into())
            .ok_or(SuperblockError::SaltSize(salt_size))?;
        let unused = found.pad1.iter().chain(rest).chain(&found.pad2);
        if unused.into_iter().any(|&byte| byte != 0) {
            return Err(SuperblockError::NotZero);
        }
        Ok(Superblock {
            uuid: found.uuid,
            data_blocks,
            salt: salt.to_vec(),
        })
    }
}

/// Returns the number of hash blocks of each level of the hash tree, top first. A single data block
/// has no level, as in the kernel: its digest is the root hash.
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

/// Size of superblock and hash tree together, in blocks of [`BLOCK`] bytes.
pub fn partition_blocks(data_blocks: u64) -> u64 {
    1 + levels(data_blocks).iter().sum::<u64>()
}

/// A block that does not match the root hash, or cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CorruptedBlock {
    /// Block of the hash device, counted from its start.
    Hash(u64),
    /// Block of the data device.
    Data(u64),
}

/// Returns the path from the top of the hash tree down to a data block: for each level the number
/// of the hash block on the hash device, and the index of the next block's digest in it. `block`
/// must be less than `data_blocks`.
pub fn path(data_blocks: u64, block: u64) -> Vec<(u64, usize)> {
    let levels = levels(data_blocks);
    let mut steps = Vec::with_capacity(levels.len());
    let mut start = 1;
    for (depth, blocks) in levels.iter().enumerate() {
        // A hash block covers 128^h data blocks, where h is its height above the data.
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

/// Verifies the path from the root hash to one data block without the kernel. `Err` is the first
/// corrupted block. `read` fills a block of the hash device or the data device, and returns false
/// if that failed.
pub fn check_path(
    superblock: &Superblock,
    root: &RootHash,
    block: u64,
    mut read: impl FnMut(CorruptedBlock, &mut [u8; BLOCK]) -> bool,
) -> Result<(), CorruptedBlock> {
    let mut wanted = root.0;
    let mut bytes = [0; BLOCK];
    let mut matches = |at: CorruptedBlock, wanted: &[u8; 32]| -> Option<[u8; BLOCK]> {
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
        let tree = CorruptedBlock::Hash(at);
        let bytes = matches(tree, &wanted).ok_or(tree)?;
        wanted.copy_from_slice(&bytes[digest * 32..digest * 32 + 32]);
    }
    let data = CorruptedBlock::Data(block);
    matches(data, &wanted).map(|_| ()).ok_or(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn superblock_survives_the_round_trip_and_changed_constants_are_refused() {
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
    fn accepts_the_largest_numbers_of_blocks_and_salt_and_refuses_the_next() {
        let most = Superblock {
            uuid: [7; 16],
            data_blocks: 1 << 51,
            salt: vec![9; 256],
        };
        let bytes = most.encode();
        assert_eq!(Superblock::parse(&bytes), Ok(most));
        for blocks in [0, (1 << 51) + 1, u64::MAX] {
            let mut bad = bytes;
            bad[72..80].copy_from_slice(&blocks.to_le_bytes());
            assert_eq!(
                Superblock::parse(&bad),
                Err(SuperblockError::DataBlocks(blocks))
            );
        }
        let mut bad = bytes;
        bad[80..82].copy_from_slice(&257u16.to_le_bytes());
        assert_eq!(Superblock::parse(&bad), Err(SuperblockError::SaltSize(257)));
    }

    #[test]
    fn levels_are_listed_top_first() {
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

    /// A hash tree. (The builder's tests compare ours with veritysetup's.)
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
    fn names_the_first_corrupted_block() {
        let data: Vec<Vec<u8>> = (0..300u64).map(|n| vec![n as u8; BLOCK]).collect();
        let superblock = Superblock {
            uuid: [0; 16],
            data_blocks: 300,
            salt: vec![5; 32],
        };
        let (root, tree) = tree(&superblock.salt, &data);
        assert_eq!(tree.len() as u64, partition_blocks(300));
        let check_with = |block, bad: Option<CorruptedBlock>, root: &RootHash| {
            check_path(&superblock, root, block, |at, out| {
                out.copy_from_slice(match at {
                    CorruptedBlock::Hash(n) => &tree[n as usize],
                    CorruptedBlock::Data(n) => &data[n as usize],
                });
                out[0] ^= u8::from(bad == Some(at));
                true
            })
        };
        for block in [0, 127, 128, 299] {
            assert_eq!(check_with(block, None, &root), Ok(()));
            assert_eq!(
                check_with(block, None, &RootHash([1; 32])),
                Err(CorruptedBlock::Hash(1))
            );
            for bad in [
                CorruptedBlock::Hash(1),
                CorruptedBlock::Hash(2 + block / 128),
                CorruptedBlock::Data(block),
            ] {
                assert_eq!(check_with(block, Some(bad), &root), Err(bad));
            }
            assert_eq!(
                check_path(&superblock, &root, block, |_, _| false),
                Err(CorruptedBlock::Hash(1))
            );
        }
    }
}
