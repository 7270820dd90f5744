//! The data area: worker threads read and compress file contents, and one thread writes the results
//! in order.
//!
//! A large file is cut into segments, so that it keeps all threads busy, too. Small files are
//! handled in batches. [`in_flight`] bounds memory whatever the sizes of the files are. The output
//! does not depend on the number of threads.

use std::fmt::Display;
use std::sync::{Mutex, PoisonError};

use super::block_writer::too_large;
use super::caching_compressor::CachingCompressor;
use super::compress::{SEGMENT, Segment};
use super::format::{BLOCK, SLOT};
use super::incompressible::is_incompressible;
use super::index::{self, ClusterExtent};
use super::layout::ARENA_ALIGNMENT;
use super::settings::DataSettings;
use super::stored::Stored;
use crate::error::{Error, Result};
use crate::io::ordered::{Job, OrderedPool};
use crate::term::progress;
use crate::term::timings;
use crate::tree::Content;

/// Bytes of source that may be in flight: one segment in work and one finished for each thread,
/// from 16 to 32 MiB. The compressed form takes at most as much again.
fn in_flight(jobs: usize) -> u64 {
    (2 * jobs as u64 * SEGMENT as u64).clamp(16 << 20, 32 << 20)
}

/// Most bytes of a batch of small files.
const BATCH: u64 = 256 << 10;
/// Most files of a batch.
const BATCH_FILES: usize = 64;

/// Files up to this many bytes are tried as one inline cluster.
const INLINE_MAX: u64 = 16 << 10;
/// Smaller files are not: the index would take more than compression saves.
const INLINE_MIN: u64 = 64;

/// The files to be stored, by number.
pub trait FileSources: Sync {
    /// Number of files.
    fn count(&self) -> usize;
    /// Length of a file, bytes.
    fn size(&self, file: usize) -> u64;
    /// Whether the file is the first of an arena (see [`super::layout`]).
    fn begins_arena(&self, file: usize) -> bool;
    /// A file.
    fn source(&self, file: usize) -> FileSource;
    /// A file's name for messages.
    fn name(&self, file: usize) -> String;
}

/// A file to be stored.
pub struct FileSource {
    /// Its bytes.
    pub content: Content,
    /// Whether the inode's tail can hold it uncompressed. Then it needs no blocks.
    pub inline: bool,
    /// Size of inode and extended attributes, which precede the index.
    pub header: usize,
    /// Whether compression may be tried.
    pub compress: bool,
    /// Whether it consists of many files, so that its first bytes say nothing about the others.
    pub many: bool,
}

/// A range of a file, the unit of work.
struct SourceRange {
    file: usize,
    offset: u64,
    len: u64,
}

/// A processed range.
struct StoredPiece {
    file: usize,
    data: Vec<u8>,
    kind: PieceKind,
    /// Whether the file ends here.
    last: bool,
}

enum PieceKind {
    /// `data` is whole uncompressed blocks.
    Flat,
    /// `data` is the blocks of these clusters.
    Clusters(Vec<ClusterExtent>),
    /// `data` is one cluster to be written behind the inode.
    Inline,
}

/// A processed batch.
struct Batch {
    pieces: Vec<StoredPiece>,
    /// Bytes of the files.
    bytes: u64,
}

/// Stores all files from block `start` on. `append` gets whole blocks in order; `stored` gets the
/// result for each file, in order.
pub fn store(
    sources: &dyn FileSources,
    settings: &DataSettings,
    start: u32,
    append: &mut dyn FnMut(&[u8]) -> Result<()>,
    stored: &mut dyn FnMut(usize, Stored) -> Result<()>,
) -> Result<()> {
    let pool = OrderedPool {
        threads: settings.jobs,
        in_flight: in_flight(settings.jobs),
    };
    let buffers = BufferPool {
        buffers: Mutex::default(),
        capacity: (2 * pool.in_flight / SEGMENT as u64) as usize,
    };
    let mut assembler = Assembler {
        sources,
        append,
        stored,
        block: start,
        file_start: start,
        extents: Vec::new(),
    };
    progress::expect((0..sources.count()).map(|file| sources.size(file)).sum());
    let batches = Batches {
        sources,
        file: 0,
        offset: 0,
    };
    let make_worker = |thread| {
        let mut worker = Worker {
            buffers: &buffers,
            compressor: CachingCompressor::new(settings),
        };
        Ok(move |ranges: Vec<SourceRange>| {
            let _span = timings::worker(thread, "contents");
            let bytes = ranges.iter().map(|range| range.len).sum();
            let pieces: Result<Vec<StoredPiece>> = ranges
                .into_iter()
                .map(|range| worker.process(&range, sources))
                .collect();
            pieces.map(|pieces| Batch { pieces, bytes })
        })
    };
    pool.map(batches, make_worker, |batch: Batch| {
        for piece in batch.pieces {
            assembler.add(piece, &buffers)?;
        }
        progress::add(batch.bytes);
        Ok(())
    })
}

/// Cuts the files into batches.
struct Batches<'a> {
    sources: &'a dyn FileSources,
    /// The next range's file and offset in it.
    file: usize,
    offset: u64,
}

impl Iterator for Batches<'_> {
    type Item = Job<Vec<SourceRange>>;

    fn next(&mut self) -> Option<Job<Vec<SourceRange>>> {
        let mut ranges = Vec::new();
        let mut bytes = 0;
        while self.file < self.sources.count() && ranges.len() < BATCH_FILES {
            let left = self.sources.size(self.file) - self.offset;
            let len = left.min(SEGMENT as u64);
            if !ranges.is_empty() && bytes + len > BATCH {
                break;
            }
            ranges.push(SourceRange {
                file: self.file,
                offset: self.offset,
                len,
            });
            bytes += len;
            if len == left {
                self.file += 1;
                self.offset = 0;
            } else {
                self.offset += len;
            }
        }
        (!ranges.is_empty()).then_some(Job {
            cost: bytes,
            work: ranges,
        })
    }
}

/// Puts the pieces together to files, in order.
struct Assembler<'a> {
    sources: &'a dyn FileSources,
    append: &'a mut dyn FnMut(&[u8]) -> Result<()>,
    stored: &'a mut dyn FnMut(usize, Stored) -> Result<()>,
    /// The next block.
    block: u32,
    /// First block of the current file.
    file_start: u32,
    /// Clusters of the current file so far.
    extents: Vec<ClusterExtent>,
}

impl Assembler<'_> {
    fn add(&mut self, piece: StoredPiece, buffers: &BufferPool) -> Result<()> {
        let extents = match piece.kind {
            PieceKind::Inline => return (self.stored)(piece.file, Stored::Inline(piece.data)),
            PieceKind::Clusters(extents) => extents,
            PieceKind::Flat => Vec::new(),
        };
        if self.block == self.file_start
            && !piece.data.is_empty()
            && self.sources.begins_arena(piece.file)
        {
            let spare = self.block.next_multiple_of(ARENA_ALIGNMENT) - self.block;
            (self.append)(&vec![0; spare as usize * BLOCK])?;
            self.block += spare;
            self.file_start = self.block;
        }
        self.extents.extend(extents);
        (self.append)(&piece.data)?;
        let blocks = u32::try_from(piece.data.len() / BLOCK).unwrap_or(u32::MAX);
        buffers.put(piece.data);
        self.block = self.block.checked_add(blocks).ok_or_else(too_large)?;
        if piece.last {
            let (start, blocks) = (self.file_start, self.block - self.file_start);
            let extents = std::mem::take(&mut self.extents);
            let stored = if extents.iter().any(|extent| !extent.plain) {
                Stored::Compressed {
                    start,
                    blocks,
                    extents: extents.into(),
                }
            } else {
                Stored::Flat { start }
            };
            (self.stored)(piece.file, stored)?;
            self.file_start = self.block;
        }
        Ok(())
    }
}

/// Large buffers for reuse. The allocator would keep a freed buffer with the thread that freed it,
/// and memory would grow with the number of threads.
struct BufferPool {
    buffers: Mutex<Vec<Vec<u8>>>,
    /// Most buffers that are kept.
    capacity: usize,
}

impl BufferPool {
    /// An empty buffer with room for this many bytes.
    fn take(&self, bytes: usize) -> Vec<u8> {
        if bytes as u64 <= BATCH {
            return Vec::with_capacity(bytes);
        }
        self.buffers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop()
            .unwrap_or_else(|| Vec::with_capacity(SEGMENT))
    }

    fn put(&self, mut buffer: Vec<u8>) {
        let mut buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        if buffer.capacity() >= SEGMENT && buffers.len() < self.capacity {
            buffer.clear();
            buffers.push(buffer);
        }
    }
}

struct Worker<'a> {
    buffers: &'a BufferPool,
    compressor: Option<CachingCompressor>,
}

impl Worker<'_> {
    fn process(&mut self, range: &SourceRange, sources: &dyn FileSources) -> Result<StoredPiece> {
        let source = sources.source(range.file);
        let size = source.content.len();
        let last = range.offset + range.len == size;
        let whole = range.offset == 0 && last;
        let error = |why: &dyn Display| Error::new(format!("{}: {why}", sources.name(range.file)));
        let piece = |kind, data| StoredPiece {
            file: range.file,
            data,
            kind,
            last,
        };
        let compressor = self.compressor.as_mut().filter(|_| source.compress);
        if compressor.is_none() && source.inline {
            return Ok(piece(PieceKind::Flat, Vec::new()));
        }
        let mut input = self.buffers.take(range.len as usize);
        input.resize(range.len as usize, 0);
        source
            .content
            .read_exact_at(range.offset, &mut input)
            .map_err(|e| error(&e))?;
        if let Some(compressor) =
            compressor.filter(|_| source.many || !is_incompressible(&source.content))
        {
            if whole
                && !source.many
                && (INLINE_MIN..=INLINE_MAX).contains(&size)
                && let Some(data) = compressor.compress_whole(&input).map_err(|e| error(&e))?
                && is_inline_cluster_worth_it(data.len(), input.len(), &source)
            {
                return Ok(piece(PieceKind::Inline, data));
            }
            if size > BLOCK as u64 {
                let segment = compressor
                    .compress_segment(&input, self.buffers.take(input.len()))
                    .map_err(|e| error(&e))?;
                if !whole || is_compression_worth_it(&segment, size, source.header) {
                    self.buffers.put(input);
                    return Ok(piece(PieceKind::Clusters(segment.extents), segment.data));
                }
            }
        }
        if source.inline {
            return Ok(piece(PieceKind::Flat, Vec::new()));
        }
        input.resize(input.len().next_multiple_of(BLOCK), 0);
        Ok(piece(PieceKind::Flat, input))
    }
}

/// Whether this many compressed bytes fit into a block together with inode and index, and save at
/// least one slot against the uncompressed file.
fn is_inline_cluster_worth_it(compressed: usize, size: usize, source: &FileSource) -> bool {
    let with_inode = source.header + index::len(size as u64, source.header) as usize + compressed;
    let uncompressed = if source.inline {
        source.header + size
    } else {
        usize::MAX
    };
    with_inode <= uncompressed.saturating_sub(SLOT).min(BLOCK)
}

/// Whether a compressed file and its index take less room than the uncompressed file.
fn is_compression_worth_it(segment: &Segment, size: u64, header: usize) -> bool {
    !segment.is_plain()
        && segment.data.len() as u64 + index::len(size, header)
            < size.next_multiple_of(BLOCK as u64)
}
