//! The raw disk in pieces of one size: read and worked on by several threads, given out in order by
//! one. Pieces of zeros are left out, whether the file has holes there or not, so that what is made
//! of them depends on the content alone.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::error::{Context, Error, Result};
use crate::io::zeros::{self, is_zero};

/// Finished pieces that wait for their turn, beside one for each thread.
const AHEAD: u64 = 4;

/// The raw disk.
#[derive(Debug, Clone, Copy)]
pub struct Raw<'a> {
    /// Read with pread alone; its position is nobody's.
    pub file: &'a File,
    /// Bytes; a multiple of [`super::GRAIN`].
    pub size: u64,
}

impl Raw<'_> {
    /// Bytes of the piece that starts at `at`; the last one may be shorter.
    fn piece(self, at: u64, piece: u64) -> usize {
        (self.size - at).min(piece) as usize
    }

    /// Where there may be something else than zeros: ranges of pieces, in order, none touching
    /// another.
    fn data(self, piece: u64) -> Result<Vec<Range<u64>>> {
        let mut ranges: Vec<Range<u64>> = Vec::new();
        let mut at = 0;
        while let Some(data) = zeros::next_data(self.file, at, self.size)
            .context(|| "looking for holes in the raw disk")?
        {
            let (first, last) = (data.start / piece, data.end.div_ceil(piece));
            match ranges.last_mut() {
                Some(before) if before.end >= first => before.end = before.end.max(last),
                _ => ranges.push(first..last),
            }
            at = data.end;
        }
        Ok(ranges)
    }
}

struct Queue<T> {
    /// Which range of pieces, and which one in it, is next.
    range: usize,
    piece: u64,
    /// How many were taken and given out.
    taken: u64,
    given: u64,
    /// By their number in the order of taking: where they start, and what was made of them.
    done: BTreeMap<u64, (u64, Result<Option<T>>)>,
    stop: bool,
}

/// Gives each piece of `piece` bytes that is not all zeros to a worker, of which every thread has
/// one, and what came of it to `take`, in order, with the byte that the piece starts at.
pub fn each<T, W>(
    raw: Raw,
    piece: u64,
    jobs: usize,
    worker: impl Fn() -> Result<W> + Sync,
    mut take: impl FnMut(u64, T) -> Result<()>,
) -> Result<()>
where
    T: Send,
    W: FnMut(&[u8]) -> Result<T>,
{
    let ranges = raw.data(piece)?;
    let total: u64 = ranges.iter().map(|range| range.end - range.start).sum();
    let first = ranges.first().map_or(0, |range| range.start);
    let queue = Mutex::new(Queue {
        range: 0,
        piece: first,
        taken: 0,
        given: 0,
        done: BTreeMap::new(),
        stop: false,
    });
    let changed = Condvar::new();
    let lock = || queue.lock().unwrap_or_else(PoisonError::into_inner);
    let wait = |guard| changed.wait(guard).unwrap_or_else(PoisonError::into_inner);
    let jobs = jobs.clamp(1, usize::try_from(total).unwrap_or(usize::MAX).max(1));
    let ahead = jobs as u64 + AHEAD;

    let work = || {
        let mut own = worker();
        let mut buffer = vec![0; piece as usize];
        loop {
            let mut queue = lock();
            while !queue.stop && queue.taken < total && queue.taken - queue.given >= ahead {
                queue = wait(queue);
            }
            if queue.stop || queue.taken == total {
                return;
            }
            let (number, at) = next(&mut queue, &ranges, piece);
            drop(queue);
            let bytes = &mut buffer[..raw.piece(at, piece)];
            let made = match (
                &mut own,
                raw.file
                    .read_exact_at(bytes, at)
                    .context(|| "reading the raw disk"),
            ) {
                (_, Err(error)) => Err(error),
                (_, Ok(())) if is_zero(bytes) => Ok(None),
                (Ok(own), Ok(())) => own(bytes).map(Some),
                (Err(error), Ok(())) => Err(Error::new(error.message())),
            };
            lock().done.insert(number, (at, made));
            changed.notify_all();
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                // Nobody must wait for what a thread that ended in a panic was to do.
                let _end = Ending(|| {
                    if std::thread::panicking() {
                        lock().stop = true;
                    }
                    changed.notify_all();
                });
                work();
            });
        }
        let mut give = || {
            for number in 0..total {
                let mut queue = lock();
                let (at, made) = loop {
                    match queue.done.remove(&number) {
                        Some(done) => break done,
                        None if queue.stop => return Err(Error::new("a thread failed")),
                        None => queue = wait(queue),
                    }
                };
                drop(queue);
                if let Some(made) = made? {
                    take(at, made)?;
                }
                lock().given = number + 1;
                changed.notify_all();
            }
            Ok(())
        };
        let result = give();
        lock().stop = true;
        changed.notify_all();
        result
    })
}

/// Takes the next piece: its number, and the byte that it starts at.
fn next<T>(queue: &mut MutexGuard<Queue<T>>, ranges: &[Range<u64>], piece: u64) -> (u64, u64) {
    let (number, at) = (queue.taken, queue.piece * piece);
    queue.taken += 1;
    queue.piece += 1;
    if ranges
        .get(queue.range)
        .is_some_and(|range| queue.piece >= range.end)
    {
        queue.range += 1;
        queue.piece = ranges.get(queue.range).map_or(0, |range| range.start);
    }
    (number, at)
}

struct Ending<F: FnMut()>(F);

impl<F: FnMut()> Drop for Ending<F> {
    fn drop(&mut self) {
        self.0();
    }
}
