//! Reading the data of inodes.

use std::io;

use crate::erofs::compress;
use crate::erofs::format::*;
use crate::erofs::index::{self, ClusterAddress, ClusterExtent};
use crate::erofs::xattr;
use crate::io::part::Part;

/// Bytes of a flat file that are read at a time.
pub const CHUNK: u64 = 1 << 20;

/// Size of an inode and its extended attributes, bytes.
pub fn header(inode: &Inode) -> usize {
    inode.len() + xattr::body_len(inode.xattr_icount)
}

/// The bytes of an inode's index. `at` is the inode's first byte.
pub fn read_index(file: &Part, inode: &Inode, at: u64) -> io::Result<Vec<u8>> {
    let header = header(inode);
    let mut bytes = vec![0; index::len(inode.size, header) as usize];
    file.read_exact_at(&mut bytes, at + header as u64)?;
    Ok(bytes)
}

/// The only algorithm of an image, by the bits of its superblock.
pub fn algorithm(available: u16) -> u8 {
    available.trailing_zeros() as u8
}

/// Decodes an inode's index.
pub fn decode_index(
    inode: &Inode,
    bytes: &[u8],
    algorithms: u16,
) -> Result<(ClusterAddress, Vec<ClusterExtent>), String> {
    if !matches!(
        algorithm(algorithms),
        Z_EROFS_COMPRESSION_LZ4 | Z_EROFS_COMPRESSION_ZSTD
    ) {
        return Err("it is compressed, but the superblock names no algorithm".to_owned());
    }
    index::decode(inode.size, header(inode), algorithm(algorithms), bytes)
}

/// Gives the bytes of a flat inode to `put`. Its position must have been checked.
pub fn read_flat(
    file: &Part,
    inode: &Inode,
    at: u64,
    put: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let tail = if inode.datalayout == EROFS_INODE_FLAT_INLINE {
        inode.size % BLOCK as u64
    } else {
        0
    };
    let mut buffer = Vec::new();
    let mut done = 0;
    while done < inode.size - tail {
        buffer.resize((inode.size - tail - done).min(CHUNK) as usize, 0);
        file.read_exact_at(&mut buffer, u64::from(inode.u) * BLOCK as u64 + done)?;
        put(&buffer)?;
        done += buffer.len() as u64;
    }
    if tail > 0 {
        buffer.resize(tail as usize, 0);
        file.read_exact_at(&mut buffer, at + header(inode) as u64)?;
        put(&buffer)?;
    }
    Ok(())
}

/// Reads and decompresses a cluster.
pub fn read_cluster(
    file: &Part,
    at: u64,
    stored: usize,
    extent: ClusterExtent,
    algorithm: u8,
) -> io::Result<Vec<u8>> {
    let mut stored = vec![0; stored];
    file.read_exact_at(&mut stored, at)?;
    let len = extent.len as usize;
    if extent.plain {
        stored.truncate(len);
        return Ok(stored);
    }
    let mut out = vec![0; len];
    if compress::decompress_cluster(algorithm, &stored, &mut out) {
        Ok(out)
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("the cluster at byte {at} of the image is corrupted: it does not decompress"),
        ))
    }
}
