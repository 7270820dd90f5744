//! QEMU's copy-on-write disk, version 3, with compressed clusters.
//!
//! Format: QEMU's `docs/interop/qcow2.txt`. Compression is DEFLATE, which every reader of versions
//! 2 and 3 supports. zstd needs an incompatible feature bit, which older readers and the checks of
//! some clouds refuse, and it gains nothing on a root that is compressed already. No feature bit is
//! set, and the disk refers to no other file.
//!
//! ```text
//! header | level 1 table | clusters, each 512 MiB of the disk followed by its level 2 table |
//! refcount table | refcount blocks
//! ```

use std::fs::File;
use std::mem::offset_of;

use zerocopy::big_endian::{U32, U64};
use zerocopy::{FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::deflate::Deflate;
use super::pieces::{Raw, map_pieces};
use super::stream::{read_back, write_at};
use super::{Facts, WrittenFile};
use crate::error::{Error, Result};
use crate::io::zeros::is_zero;

const BITS: u32 = 16;
const CLUSTER: u64 = 1 << BITS;
/// Entries of a level 2 table: clusters of the disk.
const TABLE: u64 = CLUSTER / 8;
/// Entries of a refcount block: clusters of the file, each with a 16-bit count.
const COUNTS: u64 = CLUSTER / 2;
const PIECE: u64 = 1 << 20;
/// Counts have 2 to the power of this many bits.
const REFCOUNT_ORDER: u32 = 4;
/// Bytes of the header without its extensions.
const HEADER: u32 = offset_of!(QCowHeader, end_of_extensions) as u32;
/// Window of the compression as a power of two. QEMU decompresses with a window of 4 KiB
/// (block/qcow2-threads.c), so longer distances are not safe.
const WINDOW: u8 = 12;
/// Flag of an entry: its cluster's reference count is 1.
const COPIED: u64 = 1 << 63;
/// Flag of an entry: its cluster is compressed.
const COMPRESSED: u64 = 1 << 62;
/// First bit of a field in the entry of a compressed cluster: the number of sectors that the
/// cluster touches, minus one.
const SECTORS: u32 = 62 - (BITS - 8);
/// Upper bound of threads. More would exceed the promised memory.
const THREADS: usize = 12;
/// Largest disk whose level 1 table QEMU reads (QCOW_MAX_L1_SIZE, 32 MiB).
const LARGEST: u64 = (32 << 20) / 8 * TABLE * CLUSTER;

/// `QCowHeader`, with the field names of QEMU's block/qcow2.h.
#[derive(FromZeros, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct QCowHeader {
    magic: [u8; 4],
    version: U32,
    backing_file_offset: U64,
    backing_file_size: U32,
    cluster_bits: U32,
    size: U64,
    crypt_method: U32,
    l1_size: U32,
    l1_table_offset: U64,
    refcount_table_offset: U64,
    refcount_table_clusters: U32,
    nb_snapshots: U32,
    snapshots_offset: U64,
    incompatible_features: U64,
    compatible_features: U64,
    autoclear_features: U64,
    refcount_order: U32,
    header_length: U32,
    /// A header extension of type 0 and length 0, which ends the list.
    end_of_extensions: U64,
}

const _: () = assert!(HEADER == 104);

pub fn write(raw: Raw, _facts: &Facts, out: &File, jobs: usize) -> Result<WrittenFile> {
    if raw.size > LARGEST {
        return Err(Error::new(
            "larger than a qcow2 disk with clusters of 64 KiB can be",
        ));
    }
    let mut disk = Qcow2Writer::new(out, raw.size);
    map_pieces(
        raw,
        PIECE,
        jobs.min(THREADS),
        || {
            let mut deflate = Deflate::new(false, WINDOW);
            Ok(move |bytes: &[u8]| PackedClusters::new(bytes, &mut deflate))
        },
        |at, packed| disk.put(at / CLUSTER, &packed),
    )?;
    disk.finish()?;
    // The header, which is first in the file, has offsets that are known only at the end.
    read_back(out)
}

/// Adjacent clusters of the disk, ready to be written.
struct PackedClusters {
    bytes: Vec<u8>,
    clusters: Vec<Cluster>,
}

enum Cluster {
    Zero,
    Plain,
    Compressed(usize),
}

impl PackedClusters {
    fn new(piece: &[u8], deflate: &mut Deflate) -> Result<PackedClusters> {
        let mut packed = PackedClusters {
            bytes: Vec::with_capacity(piece.len()),
            clusters: Vec::new(),
        };
        for cluster in piece.chunks(CLUSTER as usize) {
            if is_zero(cluster) {
                packed.clusters.push(Cluster::Zero);
                continue;
            }
            let before = packed.bytes.len();
            deflate.finish(cluster, &mut packed.bytes)?;
            let length = packed.bytes.len() - before;
            packed.clusters.push(if length < cluster.len() {
                Cluster::Compressed(length)
            } else {
                packed.bytes.truncate(before);
                packed.bytes.extend_from_slice(cluster);
                Cluster::Plain
            });
        }
        Ok(packed)
    }
}

struct Qcow2Writer<'a> {
    out: &'a File,
    size: u64,
    /// The level 1 table: the offset of each level 2 table.
    level1: Vec<u64>,
    /// The level 2 table that is being filled.
    level2: Vec<u64>,
    /// Its index in `level1`.
    table: u64,
    /// Reference count of each cluster of the file.
    counts: Vec<u16>,
    /// Offset for the next compressed cluster, inside of a cluster that has room; 0 at first.
    free: u64,
}

impl<'a> Qcow2Writer<'a> {
    fn new(out: &'a File, size: u64) -> Qcow2Writer<'a> {
        let level1 = vec![0; size.div_ceil(TABLE * CLUSTER) as usize];
        // The clusters of the header and of the level 1 table.
        let counts = vec![1; 1 + (level1.len() as u64 * 8).div_ceil(CLUSTER) as usize];
        Qcow2Writer {
            out,
            size,
            level1,
            level2: vec![0; TABLE as usize],
            table: 0,
            counts,
            free: 0,
        }
    }

    /// Writes clusters. `first` is the number of the first cluster on the disk.
    fn put(&mut self, first: u64, packed: &PackedClusters) -> Result<()> {
        let mut rest = packed.bytes.as_slice();
        for (number, cluster) in (first..).zip(&packed.clusters) {
            if number / TABLE != self.table {
                self.flush_table()?;
                self.table = number / TABLE;
            }
            let (bytes, entry) = match cluster {
                Cluster::Zero => continue,
                Cluster::Plain => {
                    let at = self.allocate_cluster();
                    (CLUSTER as usize, (at, at | COPIED))
                }
                Cluster::Compressed(length) => {
                    let at = self.allocate_compressed(*length as u64)?;
                    let more = (at + *length as u64 - 1) / 512 - at / 512;
                    (*length, (at, at | more << SECTORS | COMPRESSED))
                }
            };
            let (data, later) = rest.split_at(bytes);
            write_at(self.out, data, entry.0)?;
            self.level2[(number % TABLE) as usize] = entry.1;
            rest = later;
        }
        Ok(())
    }

    /// Allocates a cluster at the end of the file and returns its offset.
    fn allocate_cluster(&mut self) -> u64 {
        self.counts.push(1);
        (self.counts.len() as u64 - 1) * CLUSTER
    }

    /// Allocates room for a compressed cluster and returns its offset. It starts after the previous
    /// compressed cluster if it fits there, or if it can continue in a new cluster at the end of
    /// the file.
    fn allocate_compressed(&mut self, length: u64) -> Result<u64> {
        let left = self.free.next_multiple_of(CLUSTER) - self.free;
        let mut fresh = None;
        if left < length {
            let end = self.counts.len() as u64 * CLUSTER;
            if left == 0 || self.free + left != end {
                self.free = end;
            }
            // The loop below counts it.
            self.counts.push(0);
            fresh = Some(self.counts.len() - 1);
        }
        let at = self.free;
        self.free += length;
        for cluster in at / CLUSTER..=(self.free - 1) / CLUSTER {
            let count = &mut self.counts[cluster as usize];
            *count = count.checked_add(1).ok_or_else(|| {
                Error::new("more than 65,535 compressed clusters share a cluster of the file")
            })?;
        }
        debug_assert!(fresh.is_none_or(|fresh| self.counts[fresh] == 1));
        Ok(at)
    }

    /// Writes the level 2 table unless it is empty.
    fn flush_table(&mut self) -> Result<()> {
        if self.level2.iter().all(|entry| *entry == 0) {
            return Ok(());
        }
        let at = self.allocate_cluster();
        write_at(self.out, &big_endian(&self.level2), at)?;
        self.level1[self.table as usize] = at | COPIED;
        self.level2.fill(0);
        Ok(())
    }

    fn finish(mut self) -> Result<()> {
        self.flush_table()?;
        write_at(self.out, &big_endian(&self.level1), CLUSTER)?;
        // The refcount blocks and their table have reference counts too.
        let others = self.counts.len() as u64;
        let (mut blocks, mut tables) = (0, 0);
        while blocks * COUNTS < others + blocks + tables {
            blocks += 1;
            tables = (blocks * 8).div_ceil(CLUSTER);
        }
        let table_at = others * CLUSTER;
        let block_at = |block: u64| table_at + (tables + block) * CLUSTER;
        self.counts.resize((others + tables + blocks) as usize, 1);
        let table: Vec<u64> = (0..blocks).map(block_at).collect();
        write_at(self.out, &big_endian(&table), table_at)?;
        for (block, counts) in (0..).zip(self.counts.chunks(COUNTS as usize)) {
            let bytes: Vec<u8> = counts
                .iter()
                .flat_map(|count| count.to_be_bytes())
                .collect();
            write_at(self.out, &bytes, block_at(block))?;
        }
        // The file ends with a whole cluster.
        write_at(self.out, &[0], block_at(blocks) - 1)
            .and_then(|()| write_at(self.out, self.header(table_at, tables).as_bytes(), 0))
    }

    fn header(&self, refcount_table: u64, refcount_clusters: u64) -> QCowHeader {
        QCowHeader {
            magic: *b"QFI\xfb",
            version: U32::new(3),
            cluster_bits: U32::new(BITS),
            size: U64::new(self.size),
            l1_size: U32::new(self.level1.len() as u32),
            l1_table_offset: U64::new(CLUSTER),
            refcount_table_offset: U64::new(refcount_table),
            refcount_table_clusters: U32::new(refcount_clusters as u32),
            refcount_order: U32::new(REFCOUNT_ORDER),
            header_length: U32::new(HEADER),
            // No backing file, encryption, snapshots or feature bits.
            ..QCowHeader::new_zeroed()
        }
    }
}

fn big_endian(numbers: &[u64]) -> Vec<u8> {
    numbers
        .iter()
        .flat_map(|number| number.to_be_bytes())
        .collect()
}
