//! The compact index of a compressed inode: for each 4 KiB of the file where its cluster begins,
//! packed into 4 or 2 bytes each.
//!
//! Format: `z_erofs_map_header` and the compacted forms in the kernel's fs/erofs/zmap.c. Clusters
//! of one file stand one behind another, so that a pack needs one block address only. Every index
//! is written with the big cluster flags, also when all clusters have one block.

use super::format::*;
use crate::error::Result;

/// One physical cluster of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Bytes of the file.
    pub len: u32,
    /// Blocks on disk.
    pub blocks: u16,
    /// Stored as it is; then at most one block.
    pub plain: bool,
}

/// How many entries are in packs of 4 bytes each (two a pack), of 2 bytes each (sixteen a pack),
/// and again of 4 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Packs {
    initial: u64,
    short: u64,
    end: u64,
}

impl Packs {
    /// For a file of `size` bytes whose index (behind the header) starts at `at` bytes from the
    /// start of a block.
    fn new(size: u64, at: usize) -> Packs {
        let total = size.div_ceil(BLOCK as u64);
        let initial = ((32 - at % 32) / 4 % 8) as u64;
        if initial >= total {
            // Nothing is left for short packs, and 4-byte entries come in pairs in any case.
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

/// Bytes that header and index need, when what stands before them ends at `before` bytes behind a
/// 32-byte boundary. The padding to 8 bytes in front of the header is counted too.
pub fn len(size: u64, before: usize) -> u64 {
    let start = before.next_multiple_of(8);
    (start - before) as u64 + Z_MAP_HEADER as u64 + Packs::new(size, start + Z_MAP_HEADER).bytes()
}

/// Bytes that the header of a fragment needs, as [`len`] counts them.
pub fn fragment_len(before: usize) -> u64 {
    (before.next_multiple_of(8) - before + Z_MAP_HEADER) as u64
}

/// The header of a fragment from this byte of the packed inode on. `before` as in [`len`].
pub fn encode_fragment(
    at: u64,
    before: usize,
    put: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    put(&[0; 8][..before.next_multiple_of(8) - before])?;
    put(&(at | Z_EROFS_FRAGMENT_INODE).to_le_bytes())
}

/// Where a fragment begins in the packed inode; `None` for what has an index. `bytes` begins as in
/// [`decode`].
pub fn fragment(before: usize, bytes: &[u8]) -> Option<u64> {
    get64(bytes, before.next_multiple_of(8) - before)
        .filter(|header| header & Z_EROFS_FRAGMENT_INODE != 0)
        .map(|header| header ^ Z_EROFS_FRAGMENT_INODE)
}

/// Where a file's clusters are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// One behind another, from this block on.
    Blocks(u32),
    /// The only one stands behind the index, and has so many bytes. It counts as one block, of
    /// which there is no address.
    Inline(u16),
}

/// Writes header and index through `put`, piece by piece. `before` as in [`len`].
pub fn encode(
    size: u64,
    before: usize,
    algorithm: u8,
    place: Place,
    extents: &[Extent],
    put: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let at = before.next_multiple_of(8);
    put(&[0; 8][..at - before])?;
    let mut advise =
        Z_EROFS_ADVISE_COMPACTED_2B | Z_EROFS_ADVISE_BIG_PCLUSTER_1 | Z_EROFS_ADVISE_BIG_PCLUSTER_2;
    let mut header = [0; Z_MAP_HEADER];
    let start = match place {
        Place::Blocks(start) => start,
        Place::Inline(bytes) => {
            advise |= Z_EROFS_ADVISE_INLINE_PCLUSTER;
            header[2..4].copy_from_slice(&bytes.to_le_bytes());
            0
        }
    };
    header[4..6].copy_from_slice(&advise.to_le_bytes());
    header[6] = algorithm;
    put(&header)?;

    let packs = Packs::new(size, at + Z_MAP_HEADER);
    let mut entries = Entries::new(size, start, extents);
    let mut pack = |entries: &mut Entries<'_>, count: usize, bytes: usize| {
        let mut buf = [0u8; 32];
        let bits = (bytes - 4) * 8 / count;
        let mut base = None;
        for i in 0..count {
            let Some(entry) = entries.next() else { break };
            base.get_or_insert(entry.base);
            let low = match entry.kind {
                EntryKind::Head { offset, .. } => offset,
                EntryKind::Rest {
                    count: Some(blocks),
                    ..
                } => Z_EROFS_LI_D0_CBLKCNT | blocks,
                // The last of a pack looks ahead, all others look back.
                EntryKind::Rest { ahead, .. } if i + 1 == count => {
                    ahead.min(Z_EROFS_LI_D0_CBLKCNT - 1)
                }
                EntryKind::Rest { back, .. } => back.min(Z_EROFS_LI_D0_CBLKCNT - 1),
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
        buf[bytes - 4..bytes].copy_from_slice(&base.unwrap_or(0).to_le_bytes());
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

/// What one 4 KiB of a file has as its entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EntryKind {
    /// A cluster begins here, `offset` bytes into it.
    Head { plain: bool, offset: u32 },
    /// Within a cluster: how far back it began, how far ahead the next one begins; the first says
    /// how many blocks the cluster has.
    Rest {
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
            EntryKind::Rest { .. } => Z_EROFS_LCLUSTER_TYPE_NONHEAD,
        }
    }
}

struct Entry {
    kind: EntryKind,
    /// Address for a pack that starts here.
    base: u32,
}

/// The entries in order, from the extents.
struct Entries<'a> {
    extents: std::slice::Iter<'a, Extent>,
    /// Entries still to come, all extents together.
    left: u64,
    /// The current extent, its first block, entries of it given, entries of it in all.
    current: Option<(Extent, u32, u32, u32)>,
    /// Where the next extent begins in its entry, and on disk.
    offset: u32,
    block: u32,
}

impl<'a> Entries<'a> {
    fn new(size: u64, start: u32, extents: &'a [Extent]) -> Entries<'a> {
        Entries {
            extents: extents.iter(),
            left: size.div_ceil(BLOCK as u64),
            current: None,
            offset: 0,
            block: start,
        }
    }
}

impl Iterator for Entries<'_> {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        self.left = self.left.checked_sub(1)?;
        loop {
            if let Some((extent, block, given, all)) = &mut self.current {
                if *given < *all {
                    let at = *given;
                    *given += 1;
                    let kind = match at {
                        0 => EntryKind::Head {
                            plain: extent.plain,
                            offset: self.offset,
                        },
                        1 => EntryKind::Rest {
                            back: 1,
                            ahead: *all - 1,
                            count: Some(u32::from(extent.blocks)),
                        },
                        _ => EntryKind::Rest {
                            back: at,
                            ahead: *all - at,
                            count: None,
                        },
                    };
                    let base = if at < 2 {
                        *block
                    } else {
                        *block + u32::from(extent.blocks)
                    };
                    return Some(Entry { kind, base });
                }
                self.offset = (self.offset + extent.len) % BLOCK as u32;
                self.block = *block + u32::from(extent.blocks);
                self.current = None;
            }
            match self.extents.next() {
                // A piece that ends within the entry it begins in is the file's last one: it has
                // that entry.
                Some(extent) => {
                    self.current = Some((
                        *extent,
                        self.block,
                        0,
                        ((self.offset + extent.len) / BLOCK as u32).max(1),
                    ))
                }
                // The file ends within an entry that its last cluster didn't begin in: a head that
                // only says where the end is.
                None => {
                    return Some(Entry {
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

/// Reads an index: where the clusters are, and what they hold. `bytes` is what [`encode`] wrote,
/// padding and header included. Only what this program would have written is accepted: the clusters
/// found are written again and must give the same bytes.
pub fn decode(
    size: u64,
    before: usize,
    algorithm: u8,
    bytes: &[u8],
) -> std::result::Result<(Place, Vec<Extent>), String> {
    let (place, extents) =
        clusters(size, before, bytes).ok_or("its index is not one of clusters in order")?;
    let mut at = 0;
    let mut put = |piece: &[u8]| {
        let end = at + piece.len();
        let same = bytes.get(at..end) == Some(piece);
        at = end;
        if same {
            Ok(())
        } else {
            Err(crate::error::Error::new("its index contradicts itself"))
        }
    };
    encode(size, before, algorithm, place, &extents, &mut put)
        .map_err(|e| e.message().to_owned())?;
    match at == bytes.len() {
        true => Ok((place, extents)),
        false => Err("its index has another length than its size asks for".to_owned()),
    }
}

fn clusters(size: u64, before: usize, bytes: &[u8]) -> Option<(Place, Vec<Extent>)> {
    let at = before.next_multiple_of(8) - before + Z_MAP_HEADER;
    let packs = Packs::new(size, before + at);
    let header = bytes.get(at - Z_MAP_HEADER..at)?;
    let inline =
        (get16(header, 4)? & Z_EROFS_ADVISE_INLINE_PCLUSTER != 0).then_some(get16(header, 2)?);
    let mut rest = bytes.get(at..)?;
    // Where each cluster begins in the file, whether it is plain, its blocks.
    let mut heads: Vec<(u64, bool, u16)> = Vec::new();
    let mut start = None;
    let total = size.div_ceil(BLOCK as u64);
    let mut entry = 0;
    let kinds = [
        (packs.initial / 2, 2, 8),
        (packs.short / 16, 16, 32),
        (packs.end.div_ceil(2), 2, 8),
    ];
    for (count, entries, len) in kinds {
        let bits = (len - 4) * 8 / entries;
        for _ in 0..count {
            let (pack, behind) = rest.split_at_checked(len)?;
            rest = behind;
            start = start.or(get32(pack, len - 4));
            for i in 0..entries {
                if entry == total {
                    break;
                }
                let position = i * bits;
                let word = u32::from_le_bytes([
                    pack[position / 8],
                    pack[position / 8 + 1],
                    pack.get(position / 8 + 2).copied().unwrap_or(0),
                    0,
                ]);
                let value = word >> (position % 8) & ((1 << bits) - 1);
                let (kind, low) = (value >> BLOCK_BITS & 3, value & (BLOCK as u32 - 1));
                match kind {
                    Z_EROFS_LCLUSTER_TYPE_PLAIN | Z_EROFS_LCLUSTER_TYPE_HEAD1 => {
                        heads.push((
                            entry * BLOCK as u64 + u64::from(low),
                            kind == Z_EROFS_LCLUSTER_TYPE_PLAIN,
                            1,
                        ));
                    }
                    Z_EROFS_LCLUSTER_TYPE_NONHEAD if low & Z_EROFS_LI_D0_CBLKCNT != 0 => {
                        heads.last_mut()?.2 = (low & !Z_EROFS_LI_D0_CBLKCNT) as u16
                    }
                    Z_EROFS_LCLUSTER_TYPE_NONHEAD => {}
                    _ => return None,
                }
                entry += 1;
            }
        }
    }
    if heads.last().is_some_and(|(at, ..)| *at == size) {
        heads.pop();
    }
    let ends = heads.iter().skip(1).map(|h| h.0).chain([size]);
    let mut extents = Vec::with_capacity(heads.len());
    for (&(at, plain, blocks), end) in heads.iter().zip(ends) {
        let len = u32::try_from(end.checked_sub(at)?).ok()?;
        let room = u64::from(blocks) * BLOCK as u64;
        if len == 0
            || blocks == 0
            || room > Z_EROFS_PCLUSTER_MAX_SIZE as u64
            || u64::from(len) > Z_EROFS_PCLUSTER_MAX_DSIZE
            || plain && u64::from(len) > room
        {
            return None;
        }
        extents.push(Extent { len, blocks, plain });
    }
    // The entries' addresses are 32-bit sums.
    let blocks: u64 = extents.iter().map(|e| u64::from(e.blocks)).sum();
    u32::try_from(u64::from(start?) + blocks).ok()?;
    let place = match (inline, &extents[..]) {
        (None, _) => Place::Blocks(start?),
        (
            Some(bytes @ 1..),
            [
                Extent {
                    plain: false,
                    blocks: 1,
                    ..
                },
            ],
        ) if usize::from(bytes) <= BLOCK => Place::Inline(bytes),
        _ => return None,
    };
    (heads.first()?.0 == 0).then_some((place, extents))
}
