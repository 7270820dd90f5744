//! QEMU's copy-on-write disk, version 3, its clusters compressed.
//!
//! Format: QEMU's `docs/interop/qcow2.txt`. Compression is DEFLATE, which every reader of version 2
//! and 3 knows: zstd needs an incompatible feature bit, which older ones and the checks of some
//! clouds refuse, and gains nothing on a root that is compressed already. No feature bit is set and
//! no other file is referred to.
//!
//! ```text
//! header | level 1 table | clusters, each 512 MiB of the disk followed by its level 2 table | refcount table | refcount blocks
//! ```

use std::fs::File;

use super::deflate::Deflate;
use super::pieces::{Raw, each};
use super::stream::{read_back, write_at};
use super::{Facts, WrittenFile};
use crate::error::{Error, Result};
use crate::io::zeros::is_zero;

const BITS: u32 = 16;
const CLUSTER: u64 = 1 << BITS;
/// Clusters of the disk that one level 2 table is about.
const TABLE: u64 = CLUSTER / 8;
/// Clusters of the file that one block of 16-bit counts is about.
const COUNTS: u64 = CLUSTER / 2;
const PIECE: u64 = 1 << 20;
const HEADER: u32 = 104;
/// Where readers unpack into a window of 4 KiB (QEMU's block/qcow2-threads.c), longer distances
/// would not be safe.
const WINDOW: u8 = 12;
/// The entry refers to a cluster that nothing else refers to.
const COPIED: u64 = 1 << 63;
const COMPRESSED: u64 = 1 << 62;
/// In an entry for a compressed cluster: from this bit on, how many more sectors than one it
/// touches.
const SECTORS: u32 = 62 - (BITS - 8);
/// More threads would take more memory than is promised.
const THREADS: usize = 12;
/// Largest disk whose level 1 table QEMU reads (QCOW_MAX_L1_SIZE, 32 MiB).
const LARGEST: u64 = (32 << 20) / 8 * TABLE * CLUSTER;

pub fn write(raw: Raw, _facts: &Facts, out: &File, jobs: usize) -> Result<WrittenFile> {
    if raw.size > LARGEST {
        return Err(Error::new(
            "larger than a qcow2 disk with clusters of 64 KiB can be",
        ));
    }
    let mut disk = Qcow2Writer::new(out, raw.size);
    each(
        raw,
        PIECE,
        jobs.min(THREADS),
        || {
            let mut deflate = Deflate::new(false, WINDOW);
            Ok(move |bytes: &[u8]| Packed::new(bytes, &mut deflate))
        },
        |at, packed| disk.put(at / CLUSTER, &packed),
    )?;
    disk.finish()?;
    // The header, in front, says where things are that are known at the end only.
    read_back(out)
}

/// Some clusters, one after the other.
struct Packed {
    bytes: Vec<u8>,
    clusters: Vec<Cluster>,
}

enum Cluster {
    Zero,
    Plain,
    Compressed(usize),
}

impl Packed {
    fn new(piece: &[u8], deflate: &mut Deflate) -> Result<Packed> {
        let mut packed = Packed {
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
    /// Where the level 2 tables are.
    level1: Vec<u64>,
    /// The table that is being filled, and its place in `level1`.
    level2: Vec<u64>,
    table: u64,
    /// How often each cluster of the file is referred to.
    counts: Vec<u16>,
    /// Where the next compressed cluster may go: inside a cluster that has room, or 0.
    free: u64,
}

impl<'a> Qcow2Writer<'a> {
    fn new(out: &'a File, size: u64) -> Qcow2Writer<'a> {
        let level1 = vec![0; size.div_ceil(TABLE * CLUSTER) as usize];
        // The header's cluster, and those of the level 1 table.
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

    /// Puts clusters in, the first of which has this number on the disk.
    fn put(&mut self, first: u64, packed: &Packed) -> Result<()> {
        let mut rest = packed.bytes.as_slice();
        for (number, cluster) in (first..).zip(&packed.clusters) {
            if number / TABLE != self.table {
                self.flush()?;
                self.table = number / TABLE;
            }
            let (bytes, entry) = match cluster {
                Cluster::Zero => continue,
                Cluster::Plain => {
                    let at = self.cluster();
                    (CLUSTER as usize, (at, at | COPIED))
                }
                Cluster::Compressed(length) => {
                    let at = self.place(*length as u64)?;
                    let more = (at + *length as u64 - 1) / 512 - at / 512;
                    (*length, (at, at | more << SECTORS | COMPRESSED))
                }
            };
            let (now, later) = rest.split_at(bytes);
            write_at(self.out, now, entry.0)?;
            self.level2[(number % TABLE) as usize] = entry.1;
            rest = later;
        }
        Ok(())
    }

    /// A new cluster at the end of the file.
    fn cluster(&mut self) -> u64 {
        self.counts.push(1);
        (self.counts.len() as u64 - 1) * CLUSTER
    }

    /// Room for a compressed cluster: behind the last one, where that has room or its cluster is
    /// the file's last.
    fn place(&mut self, length: u64) -> Result<u64> {
        let left = self.free.next_multiple_of(CLUSTER) - self.free;
        let mut fresh = None;
        if left < length {
            let end = self.counts.len() as u64 * CLUSTER;
            if left == 0 || self.free + left != end {
                self.free = end;
            }
            // It is counted below.
            self.counts.push(0);
            fresh = Some(self.counts.len() - 1);
        }
        let at = self.free;
        self.free += length;
        for cluster in at / CLUSTER..=(self.free - 1) / CLUSTER {
            let count = &mut self.counts[cluster as usize];
            *count = count.checked_add(1).ok_or_else(|| {
                Error::new("more compressed clusters in one place than can be counted")
            })?;
        }
        debug_assert!(fresh.is_none_or(|fresh| self.counts[fresh] == 1));
        Ok(at)
    }

    /// Writes the level 2 table, if there is something in it.
    fn flush(&mut self) -> Result<()> {
        if self.level2.iter().all(|entry| *entry == 0) {
            return Ok(());
        }
        let at = self.cluster();
        write_at(self.out, &big_endian(&self.level2), at)?;
        self.level1[self.table as usize] = at | COPIED;
        self.level2.fill(0);
        Ok(())
    }

    fn finish(mut self) -> Result<()> {
        self.flush()?;
        write_at(self.out, &big_endian(&self.level1), CLUSTER)?;
        // The counts count themselves.
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
        // The last cluster is whole too.
        write_at(self.out, &[0], block_at(blocks) - 1)
            .and_then(|()| write_at(self.out, &self.header(table_at, tables), 0))
    }

    fn header(&self, refcount_table: u64, refcount_clusters: u64) -> Vec<u8> {
        let mut header = Vec::with_capacity(HEADER as usize + 8);
        header.extend_from_slice(b"QFI\xfb");
        header.extend_from_slice(&3u32.to_be_bytes());
        // Name of a backing file: none.
        header.extend_from_slice(&[0; 12]);
        header.extend_from_slice(&BITS.to_be_bytes());
        header.extend_from_slice(&self.size.to_be_bytes());
        // Encryption: none.
        header.extend_from_slice(&[0; 4]);
        header.extend_from_slice(&(self.level1.len() as u32).to_be_bytes());
        header.extend_from_slice(&CLUSTER.to_be_bytes());
        header.extend_from_slice(&refcount_table.to_be_bytes());
        header.extend_from_slice(&(refcount_clusters as u32).to_be_bytes());
        // No snapshots, and no incompatible, compatible or autoclear features.
        header.extend_from_slice(&[0; 12 + 24]);
        // Counts of 2 to the power of 4 bits.
        header.extend_from_slice(&4u32.to_be_bytes());
        header.extend_from_slice(&HEADER.to_be_bytes());
        // The end of header extensions.
        header.extend_from_slice(&[0; 8]);
        header
    }
}

fn big_endian(numbers: &[u64]) -> Vec<u8> {
    numbers
        .iter()
        .flat_map(|number| number.to_be_bytes())
        .collect()
}
