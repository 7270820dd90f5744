//! The raw disk in pieces of one size: several threads read and transform them, and one takes the
//! results in order. Pieces of zeros are left out, whether the file has holes there or not, so that
//! the output depends on the content alone.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use crate::error::{Context, Result};
use crate::io::ordered::{Job, OrderedPool};
use crate::io::zeros::{self, is_zero};

/// Pieces in flight beside one for each thread.
const AHEAD: u64 = 4;

/// The raw disk.
#[derive(Debug, Clone, Copy)]
pub struct Raw<'a> {
    /// Read with pread; its file position is neither used nor changed.
    pub file: &'a File,
    /// Bytes; a multiple of [`super::GRAIN`].
    pub size: u64,
}

impl Raw<'_> {
    /// Bytes of the piece that starts at `at`; the last one may be shorter.
    fn piece(self, at: u64, piece: u64) -> usize {
        (self.size - at).min(piece) as usize
    }

    /// Numbers of the pieces that may hold something else than zeros: ranges in order, none
    /// touching another.
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

/// Gives each piece of `piece` bytes that is not all zeros to a worker, of which every thread makes
/// its own. `consume` gets the results in order, each with the byte that its piece starts at.
pub fn map_pieces<T, W>(
    raw: Raw,
    piece: u64,
    jobs: usize,
    make_worker: impl Fn() -> Result<W> + Sync,
    mut consume: impl FnMut(u64, T) -> Result<()>,
) -> Result<()>
where
    T: Send,
    W: FnMut(&[u8]) -> Result<T>,
{
    let ranges = raw.data(piece)?;
    let total: u64 = ranges.iter().map(|range| range.end - range.start).sum();
    let threads = jobs.clamp(1, usize::try_from(total).unwrap_or(usize::MAX).max(1));
    let pool = OrderedPool {
        threads,
        in_flight: threads as u64 + AHEAD,
    };
    let starts = ranges.into_iter().flatten().map(|number| Job {
        cost: 1,
        work: number * piece,
    });
    let make_reader = |_| {
        let mut worker = make_worker()?;
        let mut buffer = vec![0; piece as usize];
        Ok(move |at: u64| {
            let bytes = &mut buffer[..raw.piece(at, piece)];
            raw.file
                .read_exact_at(bytes, at)
                .context(|| "reading the raw disk")?;
            Ok(if is_zero(bytes) {
                None
            } else {
                Some((at, worker(bytes)?))
            })
        })
    };
    pool.map(starts, make_reader, |made| match made {
        Some((at, result)) => consume(at, result),
        None => Ok(()),
    })
}
