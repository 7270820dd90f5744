//! The dm-verity hash tree: computed from the stream of blocks as they are written, and checked for
//! finished images.
//!
//! The format is that of `veritysetup format` (cryptsetup's lib/verity/verity_hash.c): version 1,
//! hash type 1, SHA-256, 4096-byte blocks. The superblock is in the first block of the hash device,
//! then come the levels from the top down. A digest is SHA-256 of salt and block; 128 digests fill
//! a block.

use std::io::{self, Write};

use adamant_contract::root_hash::RootHash;
use adamant_contract::verity::{DIGESTS_PER_BLOCK, Superblock, levels, partition_blocks};
use sha2::{Digest, Sha256};

use crate::derive::{derive_bytes, derive_uuid};
use crate::erofs::{BLOCK, BlockSink};
use crate::error::{Context, Error, Result};
use crate::io::part::Part;
use crate::term::progress;

/// Bytes for each thread. With fewer bytes, starting a thread costs more than it saves.
const WORTH_A_THREAD: usize = 256 << 10;
/// Bytes that a thread reads at a time to check a finished image.
const CHECK_CHUNK: usize = 1 << 20;

/// The salt for an image id. All versions of an image have the same, so equal blocks have equal
/// digests.
pub fn salt(id: &str) -> [u8; 32] {
    derive_bytes(b"adamant verity salt\0", id)
}

/// The UUID in the verity superblock for an image id, in text order.
pub fn uuid(id: &str) -> [u8; 16] {
    derive_uuid(b"adamant verity uuid\0", id)
}

/// Collects the digests of data blocks: 32 bytes for each 4 KiB.
pub struct VerityHasher {
    salt: Vec<u8>,
    /// The hash state after the salt.
    salted: Sha256,
    leaves: Vec<[u8; 32]>,
}

impl VerityHasher {
    /// A hasher with this salt of at most 256 bytes.
    pub fn new(salt: &[u8]) -> VerityHasher {
        VerityHasher {
            salt: salt.to_vec(),
            salted: Sha256::new().chain_update(salt),
            leaves: Vec::new(),
        }
    }

    /// Hashes whole blocks, from number `first` on, with up to `jobs` threads. Blocks may come in
    /// any order, but each only once.
    pub fn add_blocks(&mut self, first: u64, blocks: &[u8], jobs: usize) {
        let first = first as usize;
        let count = blocks.len() / BLOCK;
        if self.leaves.len() < first + count {
            self.leaves.resize(first + count, [0; 32]);
        }
        digest_all(
            &self.salted,
            blocks,
            &mut self.leaves[first..first + count],
            jobs,
        );
    }

    /// Writes superblock and hash tree like `veritysetup format`, and gives the root hash. Fails
    /// without any data block.
    pub fn finish(self, uuid: [u8; 16], out: &mut dyn Write) -> io::Result<(RootHash, Superblock)> {
        if self.leaves.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a hash tree needs at least one data block",
            ));
        }
        let superblock = Superblock {
            uuid,
            data_blocks: self.leaves.len() as u64,
            salt: self.salt,
        };
        // From the bottom up: each level's blocks are hashed for the level above.
        let mut digests = self.leaves;
        let mut levels = Vec::new();
        while digests.len() > 1 {
            let level = pack(&digests);
            digests = vec![[0; 32]; level.len() / BLOCK];
            digest_all(&self.salted, &level, &mut digests, 1);
            levels.push(level);
        }
        let mut first = superblock.encode().to_vec();
        first.resize(BLOCK, 0);
        out.write_all(&first)?;
        for level in levels.iter().rev() {
            out.write_all(level)?;
        }
        Ok((RootHash(digests[0]), superblock))
    }
}

/// Packs digests into blocks of 128. Zeros fill the last block.
fn pack(digests: &[[u8; 32]]) -> Vec<u8> {
    let mut bytes = digests.as_flattened().to_vec();
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    bytes
}

fn digest_all(salted: &Sha256, blocks: &[u8], digests: &mut [[u8; 32]], jobs: usize) {
    let jobs = jobs.min(blocks.len() / WORTH_A_THREAD).max(1);
    let share = digests.len().div_ceil(jobs).max(1);
    let mut parts = blocks.chunks(share * BLOCK).zip(digests.chunks_mut(share));
    let own = parts.next();
    std::thread::scope(|scope| {
        for (blocks, digests) in parts {
            scope.spawn(|| digest_some(salted, blocks, digests));
        }
        if let Some((blocks, digests)) = own {
            digest_some(salted, blocks, digests);
        }
    });
}

fn digest_some(salted: &Sha256, blocks: &[u8], digests: &mut [[u8; 32]]) {
    for (block, digest) in blocks.chunks_exact(BLOCK).zip(digests) {
        *digest = salted.clone().chain_update(block).finalize().into();
    }
}

/// Hashes blocks and passes them on to another sink.
pub struct HashingSink<'a> {
    /// Gets every block.
    pub hasher: &'a mut VerityHasher,
    /// Gets every block after it.
    pub inner: &'a mut dyn BlockSink,
    /// Threads for hashing.
    pub jobs: usize,
    next: u64,
}

impl<'a> HashingSink<'a> {
    /// A sink that has no blocks yet.
    pub fn new(
        hasher: &'a mut VerityHasher,
        inner: &'a mut dyn BlockSink,
        jobs: usize,
    ) -> HashingSink<'a> {
        HashingSink {
            hasher,
            inner,
            jobs,
            next: 1,
        }
    }
}

impl BlockSink for HashingSink<'_> {
    fn append(&mut self, blocks: &[u8]) -> io::Result<()> {
        self.hasher.add_blocks(self.next, blocks, self.jobs);
        self.next += (blocks.len() / BLOCK) as u64;
        self.inner.append(blocks)
    }

    fn first(&mut self, block: &[u8; BLOCK]) -> io::Result<()> {
        self.hasher.add_blocks(0, block, 1);
        self.inner.first(block)
    }
}

/// The first contradiction between data, hash tree and root hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Corruption {
    /// The superblock is not accepted, or does not match the lengths of the files.
    Superblock(String),
    /// A block of the hash tree has another digest than its parent says.
    HashTree {
        /// Level; 0 is the top.
        level: usize,
        /// Block of the hash device; the superblock is block 0.
        block: u64,
    },
    /// A data block has another digest than the hash tree says.
    Data {
        /// Block of the data device.
        block: u64,
    },
}

/// Checks data against hash tree and root hash: superblock, every level, every data block.
/// `Ok(Err(..))` is the first corruption; an outer error means that reading failed.
pub fn check(
    data: &Part,
    tree: &Part,
    root: &RootHash,
    jobs: usize,
) -> Result<std::result::Result<Superblock, Corruption>> {
    let mut first = [0; BLOCK];
    let tree_len = tree.len();
    if tree_len < BLOCK as u64 {
        return Ok(Err(Corruption::Superblock(format!(
            "the hash tree has {tree_len} bytes, less than one block"
        ))));
    }
    tree.read_exact_at(&mut first, 0)
        .context(|| "reading the hash tree")?;
    let superblock = match Superblock::parse(&first) {
        Ok(superblock) => superblock,
        Err(why) => return Ok(Err(Corruption::Superblock(why.to_string()))),
    };
    let data_len = data.len();
    for (what, has, wanted) in [
        ("data", data_len, superblock.data_blocks),
        (
            "hash tree",
            tree_len,
            partition_blocks(superblock.data_blocks),
        ),
    ] {
        if has != wanted * BLOCK as u64 {
            return Ok(Err(Corruption::Superblock(format!(
                "the {what} has {has} bytes, but the superblock says {wanted} blocks of {BLOCK}"
            ))));
        }
    }
    if first[adamant_contract::verity::SUPERBLOCK..]
        .iter()
        .any(|&b| b != 0)
    {
        return Ok(Err(Corruption::Superblock(
            "bytes behind the superblock must be zero, and are not".to_owned(),
        )));
    }

    let salted = Sha256::new().chain_update(&superblock.salt);
    let levels = levels(superblock.data_blocks);
    let mut parents = vec![root.0];
    let mut at = 1;
    for (level, &blocks) in levels.iter().enumerate() {
        let entries = levels
            .get(level + 1)
            .copied()
            .unwrap_or(superblock.data_blocks);
        if let Some(corrupted) = first_corrupted(&salted, tree, at, &parents, jobs)
            .context(|| "reading the hash tree")?
        {
            return Ok(Err(Corruption::HashTree {
                level,
                block: at + corrupted,
            }));
        }
        let mut bytes = vec![
            0;
            usize::try_from(blocks)
                .map_err(|_| Error::new("the hash tree is too large"))?
                * BLOCK
        ];
        tree.read_exact_at(&mut bytes, at * BLOCK as u64)
            .context(|| "reading the hash tree")?;
        debug_assert!(entries.div_ceil(DIGESTS_PER_BLOCK) == blocks);
        parents = bytes
            .as_chunks::<32>()
            .0
            .iter()
            .take(entries as usize)
            .copied()
            .collect();
        at += blocks;
    }
    Ok(
        match first_corrupted(&salted, data, 0, &parents, jobs).context(|| "reading the data")? {
            Some(block) => Err(Corruption::Data { block }),
            None => Ok(superblock),
        },
    )
}

/// The first block with another digest, of the blocks from `start` of the file on, counted from
/// `start`.
fn first_corrupted(
    salted: &Sha256,
    file: &Part,
    start: u64,
    digests: &[[u8; 32]],
    jobs: usize,
) -> io::Result<Option<u64>> {
    let share = digests.len().div_ceil(jobs.max(1)).max(1);
    let mut results = Vec::new();
    std::thread::scope(|scope| {
        let threads: Vec<_> = digests
            .chunks(share)
            .enumerate()
            .map(|(i, digests)| {
                scope.spawn(move || {
                    first_corrupted_of_thread(salted, file, start + (i * share) as u64, digests)
                        .map(|corrupted| corrupted.map(|block| block + (i * share) as u64))
                })
            })
            .collect();
        results = threads
            .into_iter()
            .map(|t| {
                t.join()
                    .unwrap_or_else(|_| Err(io::Error::other("a hashing thread panicked")))
            })
            .collect();
    });
    for result in results {
        if let Some(corrupted) = result? {
            return Ok(Some(corrupted));
        }
    }
    Ok(None)
}

fn first_corrupted_of_thread(
    salted: &Sha256,
    file: &Part,
    start: u64,
    digests: &[[u8; 32]],
) -> io::Result<Option<u64>> {
    let mut buffer = vec![0; CHECK_CHUNK];
    for (i, digests) in digests.chunks(CHECK_CHUNK / BLOCK).enumerate() {
        let done = (i * (CHECK_CHUNK / BLOCK)) as u64;
        let buffer = &mut buffer[..digests.len() * BLOCK];
        progress::add(buffer.len() as u64);
        file.read_exact_at(buffer, (start + done) * BLOCK as u64)?;
        for (j, (block, digest)) in buffer.chunks_exact(BLOCK).zip(digests).enumerate() {
            if *digest != <[u8; 32]>::from(salted.clone().chain_update(block).finalize()) {
                return Ok(Some(done + j as u64));
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
#[path = "verity_tests.rs"]
mod tests;
