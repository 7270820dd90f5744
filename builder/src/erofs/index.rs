//! The compact index of a compressed inode. It has an entry of 4 or 2 bytes for each 4 KiB of the
//! file (a logical cluster), which says where the physical cluster begins.
//!
//! Format: `z_erofs_map_header` and the compacted forms in the kernel's fs/erofs/zmap.c. Entries
//! come in packs that have one block address, so the clusters of a file are contiguous. Every index
//! is written with the big cluster flags, also if all clusters have one block.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, IntoBytes};

use super::format::*;
use crate::error::Result;

/// A physical cluster of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClusterExtent {
    /// Bytes of the file.
    pub len: u32,
    /// Blocks on disk.
    pub blocks: u16,
    /// Stored uncompressed, in one block.
    pub plain: bool,
}

/// Number of entries in packs of two entries with 4 bytes each (`initial`), of sixteen entries with
/// 2 bytes each (`short`), and again of two (`end`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Packs {
    initial: u64,
    short: u64,
    end: u64,
}

impl Packs {
    /// For a file of `size` bytes whose index (without the header) starts at byte `at` of a block.
    fn new(size: u64, at: usize) -> Packs {
        let total = size.div_ceil(BLOCK as u64);
        let initial = ((32 - at % 32) / 4 % 8) as u64;
        if initial >= total {
            // No entries are left for short packs.
            return Packs {
                initial: 0,
                short: 0,
                end: total,
            };
        }
        let short = (total - initial) / 16 * 16;
        Packs {
            initial,
            short,
            end: total - initial - short,
        }
    }

    fn bytes(&self) -> u64 {
        (self.initial + self.end.next_multiple_of(2)) * 4 + self.short * 2
    }
}

/// Size of header and index, bytes. `before` is the number of bytes between a 32-byte boundary and
/// the end of the data in front of them. Padding of the header to 8 bytes is included.
pub fn len(size: u64, before: usize) -> u64 {
    let start = before.next_multiple_of(8);
    (start - before) as u64 + Z_MAP_HEADER as u64 + Packs::new(size, start + Z_MAP_HEADER).bytes()
}

/// Size of the header of a fragment, counted like [`len`].
pub fn fragment_len(before: usize) -> u64 {
    (before.next_multiple_of(8) - before + Z_MAP_HEADER) as u64
}

/// Writes the header of a fragment that starts at byte `offset` of the packed inode. `before` as in
/// [`len`].
pub fn encode_fragment(
    offset: u64,
    before: usize,
    put: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    put(&[0; 8][..before.next_multiple_of(8) - before])?;
    put(U64::new(offset | Z_EROFS_FRAGMENT_INODE).as_bytes())
}

/// The offset of a fragment in the packed inode; `None` for an index. `bytes` starts like in
/// [`decode`].
pub fn fragment(before: usize, bytes: &[u8]) -> Option<u64> {
    let bytes = bytes.get(before.next_multiple_of(8) - before..)?;
    let header = U64::read_from_prefix(bytes).ok()?.0.get();
    (header & Z_EROFS_FRAGMENT_INODE != 0).then_some(header ^ Z_EROFS_FRAGMENT_INODE)
}

/// Position of a file's clusters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClusterAddress {
    /// All of them, one behind another, from this block on.
    Blocks(u32),
    /// The only cluster is behind the index and has this many bytes. It counts as one block, which
    /// has no address.
    Inline(u16),
}

/// Writes header and index piece by piece. `before` as in [`len`].
pub fn encode(
    size: u64,
    before: usize,
    algorithm: u8,
    address: ClusterAddress,
    extents: &[ClusterExtent],
    put: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let at = before.next_multiple_of(8);
    put(&[0; 8][..at - before])?;
    let (start, inline_bytes, inline_flag) = match address {
        ClusterAddress::Blocks(start) => (start, 0, 0),
        ClusterAddress::Inline(bytes) => (0, bytes, Z_EROFS_ADVISE_INLINE_PCLUSTER),
    };
    let advise =
        Z_EROFS_ADVISE_COMPACTED_2B | Z_EROFS_ADVISE_BIG_PCLUSTER_1 | Z_EROFS_ADVISE_BIG_PCLUSTER_2;
    let header = ZErofsMapHeader {
        h_idata_size: inline_bytes.into(),
        h_advise: (advise | inline_flag).into(),
        h_algorithmtype: algorithm,
        ..Default::default()
    };
    put(header.as_bytes())?;

    let packs = Packs::new(size, at + Z_MAP_HEADER);
    let mut entries = IndexEntries::new(size, start, extents);
    let mut pack = |entries: &mut IndexEntries<'_>, count: usize, bytes: usize| {
        let mut buf = [0u8; 32];
        let bits = (bytes - 4) * 8 / count;
        let mut base = None;
        for i in 0..count {
            let Some(entry) = entries.next() else { break };
            base.get_or_insert(entry.base);
            let low = match entry.kind {
                EntryKind::Head { offset, .. } => offset,
                EntryKind::NonHead {
                    count: Some(blocks),
                    ..
                } => Z_EROFS_LI_D0_CBLKCNT | blocks,
                // The last entry of a pack has the distance to the next head, the others that to
                // their own head.
                EntryKind::NonHead { ahead, .. } if i + 1 == count => {
                    ahead.min(Z_EROFS_LI_D0_CBLKCNT - 1)
                }
                EntryKind::NonHead { back, .. } => back.min(Z_EROFS_LI_D0_CBLKCNT - 1),
            };
            let value = u64::from(entry.kind.code() << BLOCK_BITS | low) << (i * bits % 8);
            for (byte, part) in buf[i * bits / 8..]
                .iter_mut()
                .zip(value.to_le_bytes())
                .take(3)
            {
                *byte |= part;
            }
        }
        buf[bytes - 4..bytes].copy_from_slice(U32::new(base.unwrap_or(0)).as_bytes());
        put(&buf[..bytes])
    };
    for _ in 0..packs.initial / 2 {
        pack(&mut entries, 2, 8)?;
    }
    for _ in 0..packs.short / 16 {
        pack(&mut entries, 16, 32)?;
    }
    for _ in 0..packs.end.div_ceil(2) {
        pack(&mut entries, 2, 8)?;
    }
    Ok(())
}

/// The entry of a logical cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EntryKind {
    /// A physical cluster begins here, at byte `offset` of the logical one.
    Head { plain: bool, offset: u32 },
    /// No physical cluster begins here. `back` and `ahead` are the distances to the heads around
    /// it; the first such entry of a physical cluster has its number of blocks as `count`.
    NonHead {
        back: u32,
        ahead: u32,
        count: Option<u32>,
    },
}

impl EntryKind {
    fn code(self) -> u32 {
        match self {
            EntryKind::Head { plain: true, .. } => Z_EROFS_LCLUSTER_TYPE_PLAIN,
            EntryKind::Head { plain: false, .. } => Z_EROFS_LCLUSTER_TYPE_HEAD1,
            EntryKind::NonHead { .. } => Z_EROFS_LCLUSTER_TYPE_NONHEAD,
        }
    }
}

struct IndexEntry {
    kind: EntryKind,
    /// Block address for a pack that starts here.
    base: u32,
}

/// Makes the entries in order from the extents.
struct IndexEntries<'a> {
    extents: std::slice::Iter<'a, ClusterExtent>,
    /// Number of entries still to come, of all extents.
    left: u64,
    current: Option<Current>,
    /// Byte of its logical cluster at which the next extent begins.
    offset: u32,
    /// First block of the next extent.
    block: u32,
}

/// The extent whose entries are being made.
struct Current {
    extent: ClusterExtent,
    /// First block.
    block: u32,
    /// Entries made so far.
    made: u32,
    /// Number of entries.
    entries: u32,
}

impl<'a> IndexEntries<'a> {
    fn new(size: u64, start: u32, extents: &'a [ClusterExtent]) -> IndexEntries<'a> {
        IndexEntries {
            extents: extents.iter(),
            left: size.div_ceil(BLOCK as u64),
            current: None,
            offset: 0,
            block: start,
        }
    }
}

impl Iterator for IndexEntries<'_> {
    type Item = IndexEntry;

    fn next(&mut self) -> Option<IndexEntry> {
        self.left = self.left.checked_sub(1)?;
        loop {
            if let Some(current) = &mut self.current {
                let next_block = current.block + u32::from(current.extent.blocks);
                if current.made < current.entries {
                    let at = current.made;
                    current.made += 1;
                    let kind = match at {
                        0 => EntryKind::Head {
                            plain: current.extent.plain,
                            offset: self.offset,
                        },
                        _ => EntryKind::NonHead {
                            back: at,
                            ahead: current.entries - at,
                            count: (at == 1).then_some(u32::from(current.extent.blocks)),
                        },
                    };
                    let base = if at < 2 { current.block } else { next_block };
                    return Some(IndexEntry { kind, base });
                }
                self.offset = (self.offset + current.extent.len) % BLOCK as u32;
                self.block = next_block;
                self.current = None;
            }
            match self.extents.next() {
                // An extent that ends in the entry it begins in is the file's last one, and has
                // that entry.
                Some(extent) => {
                    self.current = Some(Current {
                        extent: *extent,
                        block: self.block,
                        made: 0,
                        entries: ((self.offset + extent.len) / BLOCK as u32).max(1),
                    })
                }
                // The file ends in an entry in which no cluster begins: a head that says where the
                // end is.
                None => {
                    return Some(IndexEntry {
                        kind: EntryKind::Head {
                            plain: true,
                            offset: self.offset,
                        },
                        base: self.block,
                    });
                }
            }
        }
    }
}

/// Reads an index. `bytes` is the output of [`encode`], padding and header included. Only an index
/// that adamant would have written is accepted: it is encoded again and must give the same bytes.
pub fn decode(
    size: u64,
    before: usize,
    algorithm: u8,
    bytes: &[u8],
) -> std::result::Result<(ClusterAddress, Vec<ClusterExtent>), String> {
    let (address, extents) =
        clusters(size, before, bytes).ok_or("its index does not describe clusters in order")?;
    let mut at = 0;
    let mut compare = |piece: &[u8]| {
        let end = at + piece.len();
        let same = bytes.get(at..end) == Some(piece);
        at = end;
        if same {
            Ok(())
        } else {
            Err(crate::error::Error::new("its index contradicts itself"))
        }
    };
    encode(size, before, algorithm, address, &extents, &mut compare)
        .map_err(|e| e.message().to_owned())?;
    match at == bytes.len() {
        true => Ok((address, extents)),
        false => Err("its index has a wrong length for its size".to_owned()),
    }
}

/// The beginning of a physical cluster, as the entries say it.
struct Head {
    /// Byte of the file.
    start: u64,
    plain: bool,
    blocks: u16,
}

fn clusters(
    size: u64,
    before: usize,
    bytes: &[u8],
) -> Option<(ClusterAddress, Vec<ClusterExtent>)> {
    let padding = before.next_multiple_of(8) - before;
    let (header, packs) = ZErofsMapHeader::read_from_prefix(bytes.get(padding..)?).ok()?;
    let (start, heads) = heads(size, before + padding + Z_MAP_HEADER, packs)?;
    let extents = extents(size, &heads)?;
    // Block addresses of the entries are 32-bit sums.
    let blocks: u64 = extents.iter().map(|e| u64::from(e.blocks)).sum();
    u32::try_from(u64::from(start) + blocks).ok()?;
    if header.h_advise.get() & Z_EROFS_ADVISE_INLINE_PCLUSTER == 0 {
        return Some((ClusterAddress::Blocks(start), extents));
    }
    let bytes = header.h_idata_size.get();
    match extents[..] {
        [
            ClusterExtent {
                plain: false,
                blocks: 1,
                ..
            },
        ] if (1..=BLOCK).contains(&usize::from(bytes)) => {
            Some((ClusterAddress::Inline(bytes), extents))
        }
        _ => None,
    }
}

/// Unpacks the entries of an index that starts at byte `at` of a block: the first pack's block
/// address, and the heads in order.
fn heads(size: u64, at: usize, mut rest: &[u8]) -> Option<(u32, Vec<Head>)> {
    let packs = Packs::new(size, at);
    let total = size.div_ceil(BLOCK as u64);
    let mut heads: Vec<Head> = Vec::new();
    let mut start = None;
    let mut entry = 0;
    let kinds = [
        (packs.initial / 2, 2, 8),
        (packs.short / 16, 16, 32),
        (packs.end.div_ceil(2), 2, 8),
    ];
    for (count, entries, len) in kinds {
        for _ in 0..count {
            let (pack, behind) = rest.split_at_checked(len)?;
            rest = behind;
            let (_, base) = U32::read_from_suffix(pack).ok()?;
            start = start.or(Some(base.get()));
            for i in 0..entries {
                if entry == total {
                    break;
                }
                let (kind, low) = unpack_entry(pack, i, (len - 4) * 8 / entries);
                match kind {
                    Z_EROFS_LCLUSTER_TYPE_PLAIN | Z_EROFS_LCLUSTER_TYPE_HEAD1 => heads.push(Head {
                        start: entry * BLOCK as u64 + u64::from(low),
                        plain: kind == Z_EROFS_LCLUSTER_TYPE_PLAIN,
                        blocks: 1,
                    }),
                    Z_EROFS_LCLUSTER_TYPE_NONHEAD if low & Z_EROFS_LI_D0_CBLKCNT != 0 => {
                        heads.last_mut()?.blocks = (low & !Z_EROFS_LI_D0_CBLKCNT) as u16
                    }
                    Z_EROFS_LCLUSTER_TYPE_NONHEAD => {}
                    _ => return None,
                }
                entry += 1;
            }
        }
    }
    // The head that only says where the file ends.
    if heads.last().is_some_and(|head| head.start == size) {
        heads.pop();
    }
    (heads.first()?.start == 0).then_some((start?, heads))
}

/// Type and low bits of entry `i` of a pack whose entries have `bits` bits each.
fn unpack_entry(pack: &[u8], i: usize, bits: usize) -> (u32, u32) {
    let position = i * bits;
    let word = u32::from_le_bytes([
        pack[position / 8],
        pack[position / 8 + 1],
        pack.get(position / 8 + 2).copied().unwrap_or(0),
        0,
    ]);
    let value = word >> (position % 8) & ((1 << bits) - 1);
    (value >> BLOCK_BITS & 3, value & (BLOCK as u32 - 1))
}

/// The extents between heads; `None` for one that no cluster can have.
fn extents(size: u64, heads: &[Head]) -> Option<Vec<ClusterExtent>> {
    let ends = heads.iter().skip(1).map(|head| head.start).chain([size]);
    let mut extents = Vec::with_capacity(heads.len());
    for (head, end) in heads.iter().zip(ends) {
        let len = u32::try_from(end.checked_sub(head.start)?).ok()?;
        let room = u64::from(head.blocks) * BLOCK as u64;
        if len == 0
            || head.blocks == 0
            || room > Z_EROFS_PCLUSTER_MAX_SIZE as u64
            || u64::from(len) > Z_EROFS_PCLUSTER_MAX_DSIZE
            || head.plain && u64::from(len) > room
        {
            return None;
        }
        extents.push(ClusterExtent {
            len,
            blocks: head.blocks,
            plain: head.plain,
        });
    }
    Some(extents)
}
