//! The dm-verity hash tree, computed on the stream of blocks as they are written.

use std::io::{self, Write};

use adamant_agent::hash::RootHash;
use adamant_agent::verity::Superblock;

use crate::erofs::{BLOCK, Sink};

/// Salt for an image id: the same for all its versions, so that equal blocks have equal digests (design, decision 2).
pub fn salt(id: &str) -> [u8; 32] {
    derived(b"adamant verity salt\0", id)
}

/// UUID of the verity superblock for an image id, text order.
pub fn uuid(id: &str) -> [u8; 16] {
    uuid_from(b"adamant verity uuid\0", id)
}

/// SHA-256 of a purpose and an id: the source of everything that would otherwise be random.
pub fn derived(purpose: &[u8], id: &str) -> [u8; 32] {
    use sha2::Digest;
    sha2::Sha256::new().chain_update(purpose).chain_update(id).finalize().into()
}

/// A UUID (version 8, "custom", RFC 9562) from a purpose and an id, text order.
pub fn uuid_from(purpose: &[u8], id: &str) -> [u8; 16] {
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&derived(purpose, id)[..16]);
    uuid[6] = uuid[6] & 0x0f | 0x80;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    uuid
}

/// Collects the leaf digests of blocks as they come by.
pub struct Hasher {
    salt: Vec<u8>,
    leaves: Vec<[u8; 32]>,
}

impl Hasher {
    /// A hasher for this salt.
    pub fn new(salt: &[u8]) -> Hasher {
        let _ = BLOCK;
        Hasher { salt: salt.to_vec(), leaves: Vec::new() }
    }

    /// Takes blocks `first..` (whole blocks; any order, each once). Hashes on up to `jobs` threads.
    pub fn blocks(&mut self, first: u64, blocks: &[u8], jobs: usize) {
        let _ = (first, blocks, jobs);
        todo!()
    }

    /// Writes superblock block and tree, exactly as `veritysetup format` would, and gives the root hash.
    pub fn finish(self, uuid: [u8; 16], out: &mut dyn Write) -> io::Result<(RootHash, Superblock)> {
        let _ = (uuid, out, self.salt, self.leaves);
        todo!()
    }
}

/// Passes blocks on to a sink's file and hashes them on the way.
pub struct HashingSink<'a> {
    /// The hasher.
    pub hasher: &'a mut Hasher,
    /// Where the blocks go.
    pub inner: &'a mut dyn Sink,
    /// Threads for hashing.
    pub jobs: usize,
}
