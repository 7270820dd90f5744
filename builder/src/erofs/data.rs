//! The data area: file contents in order, read and compressed by several threads, given out by one.
//!
//! Work is cut into pieces of at most one segment, so that one large file keeps all threads busy
//! too. Threads take pieces in order, and take no more while [`in_flight`] bytes of source are
//! under way: that bounds memory, whatever the files are. What comes out does not depend on
//! the number of threads.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::compress::{Algorithm, SEGMENT, Segment};
use super::format::{BLOCK, SLOT};
use super::index::{self, Extent};
use super::kept::Keeping;
use super::layout::ARENA_SPARE;
use super::out::too_large;
use super::packed::is_packed;
use crate::cache::Cache;
use crate::error::{Error, Result};
use crate::term::progress;
use crate::term::timings;
use crate::tree::Content;

/// Bytes of source that may be under way: a segment for each thread and one more that is done,
/// within bounds. Their compressed form takes at most as much again.
fn in_flight(jobs: usize) -> u64 {
    (2 * jobs as u64 * SEGMENT as u64).clamp(16 << 20, 32 << 20)
}
/// Small files are taken together up to this many bytes.
const BATCH: u64 = 256 << 10;
/// And up to this many files.
const BATCH_FILES: usize = 64;

/// Files up to this many bytes may be kept with their inode, when they become small enough.
const INLINE_MAX: u64 = 16 << 10;
/// A file shorter than this is not worth an index.
const INLINE_MIN: u64 = 64;

/// The files to be stored, by number.
pub trait Sources: Sync {
    /// How many there are.
    fn count(&self) -> usize;
    /// Length of one, bytes.
    fn size(&self, file: usize) -> u64;
    /// Whether the blocks of an arena end before this one's.
    fn begins(&self, file: usize) -> bool;
    /// One file.
    fn source(&self, file: usize) -> Source;
    /// What messages call it.
    fn name(&self, file: usize) -> String;
}

/// A file to be stored.
pub struct Source {
    /// Its bytes.
    pub content: Content,
    /// Whether it is kept with the inode, unless it is compressed: it has no blocks of its own
    /// then.
    pub inline: bool,
    /// Size of inode and extended attributes, which the index follows.
    pub header: usize,
    /// Whether compression may be tried.
    pub compress: bool,
    /// Whether it is many files in one, whose beginning tells nothing of the rest.
    pub many: bool,
}

/// How a file was stored.
#[derive(Debug)]
pub enum Stored {
    /// As it is, from this block on.
    Flat {
        /// First block.
        start: u32,
    },
    /// Compressed, in one cluster of so few bytes that it is kept with the inode.
    Inline(Vec<u8>),
    /// Compressed, from this block on.
    Compressed {
        /// First block.
        start: u32,
        /// Blocks in all.
        blocks: u32,
        /// The clusters.
        extents: Box<[Extent]>,
    },
}

/// How the data area is compressed.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `None`: plain blocks.
    pub algorithm: Option<Algorithm>,
    /// Largest cluster, bytes.
    pub cluster: usize,
    /// Threads.
    pub jobs: usize,
    /// What was compressed before.
    pub cache: Option<Arc<Cache>>,
}

/// One piece of a file.
struct Piece {
    file: usize,
    data: Vec<u8>,
    /// `None`: flat.
    extents: Option<Vec<Extent>>,
    last: bool,
    /// `data` is kept with the inode.
    inline: bool,
}

/// Where work stands; one lock for all of it.
#[derive(Default)]
struct Queue {
    /// Next piece to be taken: file and offset in it.
    file: usize,
    offset: u64,
    /// Number of the next batch to be taken.
    batch: u64,
    in_flight: u64,
    /// What it may be at most.
    limit: u64,
    done: BTreeMap<u64, (u64, Result<Vec<Piece>>)>,
    stop: bool,
}

/// Stores all files: `append` gets whole blocks in order, `stored` what became of each file, in
/// order. `start` is the first block's number.
pub fn store(
    sources: &dyn Sources,
    settings: &Settings,
    start: u32,
    append: &mut dyn FnMut(&[u8]) -> Result<()>,
    stored: &mut dyn FnMut(usize, Stored) -> Result<()>,
) -> Result<u32> {
    let limit = in_flight(settings.jobs);
    let queue = Mutex::new(Queue {
        limit,
        ..Queue::default()
    });
    let pool = Pool {
        buffers: Mutex::default(),
        most: (2 * limit / SEGMENT as u64) as usize,
    };
    let changed = Condvar::new();
    let lock = || queue.lock().unwrap_or_else(PoisonError::into_inner);
    let wait = |guard| changed.wait(guard).unwrap_or_else(PoisonError::into_inner);

    std::thread::scope(|scope| {
        progress::expect((0..sources.count()).map(|file| sources.size(file)).sum());
        for thread in 0..settings.jobs.max(1) {
            let (lock, wait, settings, pool, changed) = (&lock, &wait, &settings, &pool, &changed);
            scope.spawn(move || {
                let mut worker = Worker::new(settings, pool);
                while let Some((number, pieces)) = take(lock(), wait, sources) {
                    let _span = timings::worker(thread, "contents");
                    let bytes = pieces.iter().map(|p| p.2).sum();
                    let result = pieces
                        .into_iter()
                        .map(|(file, offset, len)| worker.piece(file, offset, len, sources))
                        .collect();
                    lock().done.insert(number, (bytes, result));
                    changed.notify_all();
                }
                changed.notify_all();
            });
        }
        let result = give_out(
            &lock, &wait, &changed, &pool, sources, settings, start, append, stored,
        );
        lock().stop = true;
        changed.notify_all();
        result
    })
}

/// File, offset and length.
type Part = (usize, u64, u64);

/// Takes the next batch: its number, and its pieces.
fn take<'q>(
    mut queue: MutexGuard<'q, Queue>,
    wait: &dyn Fn(MutexGuard<'q, Queue>) -> MutexGuard<'q, Queue>,
    sources: &dyn Sources,
) -> Option<(u64, Vec<Part>)> {
    let count = sources.count();
    while !queue.stop && queue.file < count && queue.in_flight >= queue.limit {
        queue = wait(queue);
    }
    if queue.stop || queue.file >= count {
        return None;
    }
    let mut pieces = Vec::new();
    let mut bytes = 0;
    while queue.file < count && pieces.len() < BATCH_FILES {
        let left = sources.size(queue.file) - queue.offset;
        let len = left.min(SEGMENT as u64);
        if !pieces.is_empty() && bytes + len > BATCH {
            break;
        }
        pieces.push((queue.file, queue.offset, len));
        bytes += len;
        if len == left {
            queue.file += 1;
            queue.offset = 0;
        } else {
            queue.offset += len;
        }
    }
    queue.in_flight += bytes;
    queue.batch += 1;
    Some((queue.batch - 1, pieces))
}

/// Gives out what the threads have done, in order.
#[expect(
    clippy::too_many_arguments,
    reason = "both ends of the queue, and what is between them"
)]
fn give_out<'q>(
    lock: &dyn Fn() -> MutexGuard<'q, Queue>,
    wait: &dyn Fn(MutexGuard<'q, Queue>) -> MutexGuard<'q, Queue>,
    changed: &Condvar,
    pool: &Pool,
    sources: &dyn Sources,
    settings: &Settings,
    start: u32,
    append: &mut dyn FnMut(&[u8]) -> Result<()>,
    stored: &mut dyn FnMut(usize, Stored) -> Result<()>,
) -> Result<u32> {
    let mut block = start;
    let mut file_start = start;
    let mut extents: Vec<Extent> = Vec::new();
    let mut compressed = false;
    let mut files = 0;
    let mut batch = 0;
    while files < sources.count() {
        let mut queue = lock();
        let (taken, pieces) = loop {
            match queue.done.remove(&batch) {
                Some(done) => break done,
                None => queue = wait(queue),
            }
        };
        drop(queue);
        for piece in pieces? {
            if piece.inline {
                stored(piece.file, Stored::Inline(piece.data))?;
                files += 1;
                continue;
            }
            if block == file_start && !piece.data.is_empty() && sources.begins(piece.file) {
                let spare = block.next_multiple_of(ARENA_SPARE) - block;
                append(&vec![0; spare as usize * BLOCK])?;
                block += spare;
                file_start = block;
            }
            if let Some(more) = piece.extents {
                compressed |= more.iter().any(|e| !e.plain);
                extents.extend(more);
            }
            append(&piece.data)?;
            let bytes = piece.data.len();
            pool.give(piece.data);
            let blocks = u32::try_from(bytes / BLOCK).unwrap_or(u32::MAX);
            block = block.checked_add(blocks).ok_or_else(too_large)?;
            if piece.last {
                let extents = std::mem::take(&mut extents);
                let whole = std::mem::take(&mut compressed);
                stored(
                    piece.file,
                    match whole && settings.algorithm.is_some() {
                        true => Stored::Compressed {
                            start: file_start,
                            blocks: block - file_start,
                            extents: extents.into(),
                        },
                        false => Stored::Flat { start: file_start },
                    },
                )?;
                file_start = block;
                files += 1;
            }
        }
        lock().in_flight -= taken;
        progress::add(taken);
        changed.notify_all();
        batch += 1;
    }
    Ok(block)
}

/// Buffers for large pieces, handed round. Left to the allocator, freed ones would stay with the
/// thread that freed them, and memory would grow with the number of threads.
struct Pool {
    buffers: Mutex<Vec<Vec<u8>>>,
    /// How many are kept.
    most: usize,
}

impl Pool {
    /// An empty buffer with room for so many bytes.
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

    fn give(&self, mut buffer: Vec<u8>) {
        let mut buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        if buffer.capacity() >= SEGMENT && buffers.len() < self.most {
            buffer.clear();
            buffers.push(buffer);
        }
    }
}

struct Worker<'a> {
    pool: &'a Pool,
    compressor: Option<Keeping>,
}

impl Worker<'_> {
    fn new<'p>(settings: &Settings, pool: &'p Pool) -> Worker<'p> {
        Worker {
            pool,
            compressor: Keeping::new(settings),
        }
    }

    fn piece(
        &mut self,
        file: usize,
        offset: u64,
        len: u64,
        sources: &dyn Sources,
    ) -> Result<Piece> {
        let source = sources.source(file);
        let size = source.content.len();
        let last = offset + len == size;
        let whole = offset == 0 && last;
        let wrong = |why: &dyn Display| Error::new(format!("{}: {why}", sources.name(file)));
        let piece = |data: Vec<u8>| Piece {
            file,
            data,
            extents: None,
            last,
            inline: false,
        };
        let compressor = self.compressor.as_mut().filter(|_| source.compress);
        if compressor.is_none() && source.inline {
            return Ok(piece(Vec::new()));
        }
        let mut input = self.pool.take(len as usize);
        input.resize(len as usize, 0);
        source
            .content
            .read_exact_at(offset, &mut input)
            .map_err(|e| wrong(&e))?;
        if let Some(compressor) = compressor.filter(|_| source.many || !is_packed(&source.content))
        {
            if whole
                && !source.many
                && (INLINE_MIN..=INLINE_MAX).contains(&size)
                && let Some(data) = compressor.whole(&input).map_err(|why| wrong(&why))?
                && fits(data.len(), &input, &source)
            {
                return Ok(Piece {
                    inline: true,
                    ..piece(data)
                });
            }
            if size > BLOCK as u64 {
                let segment = compressor
                    .segment(&input, self.pool.take(input.len()))
                    .map_err(|why| wrong(&why))?;
                if !whole || pays(&segment, size, source.header) {
                    self.pool.give(input);
                    return Ok(Piece {
                        extents: Some(segment.extents),
                        ..piece(segment.data)
                    });
                }
            }
        }
        if source.inline {
            return Ok(piece(Vec::new()));
        }
        input.resize(input.len().next_multiple_of(BLOCK), 0);
        Ok(piece(input))
    }
}

/// Whether so many compressed bytes fit into a block together with inode and index, and take less
/// room there than the file as it is.
fn fits(compressed: usize, input: &[u8], source: &Source) -> bool {
    let together =
        source.header + index::len(input.len() as u64, source.header) as usize + compressed;
    let flat = if source.inline {
        source.header + input.len()
    } else {
        usize::MAX
    };
    together <= flat.saturating_sub(SLOT).min(BLOCK)
}

/// Whether a compressed file takes less room than a flat one, its index included.
fn pays(segment: &Segment, size: u64, header: usize) -> bool {
    !segment.is_plain()
        && segment.data.len() as u64 + index::len(size, header)
            < size.next_multiple_of(BLOCK as u64)
}
