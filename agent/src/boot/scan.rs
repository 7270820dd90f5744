//! Reads all blocks of the verified root through dm-verity, for images that require this before
//! their init starts.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use adamant_contract::report::StageName;
use adamant_contract::verity::BLOCK;
use nix::libc;

use super::verify::VerifiedRoot;
use super::{Context, Failure};

/// Bytes of one read: large enough to keep dm-verity's workers busy.
const CHUNK: usize = 1 << 20;
/// Blocks of one read.
pub const CHUNK_BLOCKS: u64 = (CHUNK / BLOCK) as u64;
/// Most reader threads. More gain nothing, because the kernel hashes on all cores anyway.
const MAX_READERS: usize = 8;
/// Time between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(2);

/// Reads every block. The first corrupted block is a failure that names it.
pub fn read_all_blocks(root: &VerifiedRoot, context: &mut Context) -> Result<(), Failure> {
    let blocks = root.blocks();
    let next = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let readers = thread::available_parallelism()
        .map_or(2, |n| 2 * n.get())
        .min(MAX_READERS);
    let start = Instant::now();
    let (device, next, stop) = (root.device(), &next, &stop);
    let result = thread::scope(|scope| {
        let (sender, results) = channel();
        for _ in 0..readers {
            let (sender, device) = (sender.clone(), &device);
            let reader = thread::Builder::new().spawn_scoped(scope, move || {
                let result = read_chunks(device, blocks, next, stop);
                stop.fetch_or(result.is_err(), Ordering::Relaxed);
                let _ = sender.send(result);
            });
            if let Err(error) = reader {
                stop.store(true, Ordering::Relaxed);
                return Err((None, error));
            }
        }
        drop(sender);
        let (mut first_bad, mut said) = (Ok(()), start);
        loop {
            match results.recv_timeout(Duration::from_millis(100)) {
                // The lowest block, so that the same corruption gives the same message.
                Ok(Err(bad)) if first_bad.as_ref().err().is_none_or(|(at, _)| bad.0 < *at) => {
                    first_bad = Err(bad)
                }
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => context.watchdog.alive(),
                Err(RecvTimeoutError::Disconnected) => return first_bad,
            }
            if said.elapsed() >= PROGRESS {
                said = Instant::now();
                let done = (next.load(Ordering::Relaxed) * CHUNK_BLOCKS).min(blocks);
                log::info!(
                    "verifying every block: {} % of {} MB",
                    done * 100 / blocks,
                    megabytes(blocks)
                );
            }
        }
    });
    result.map_err(|(block, error)| match block {
        Some(block) => root.explain(block, &error),
        None => Failure::new(
            StageName::Verify,
            "reading every block",
            error,
            "give the machine more memory",
        ),
    })?;
    context.report.root.blocks_checked = blocks;
    let milliseconds = (start.elapsed().as_millis() as u64).max(1);
    let speed = blocks.saturating_mul(BLOCK as u64) / milliseconds / 1000;
    log::info!(
        "every block verified: {} MB in {milliseconds} ms, {speed} MB/s",
        megabytes(blocks)
    );
    Ok(())
}

fn megabytes(blocks: u64) -> u64 {
    blocks * BLOCK as u64 / 1_000_000
}

/// Reads chunks until none is left. `Err` has the block that could not be read.
fn read_chunks(
    device: &Path,
    blocks: u64,
    next: &AtomicU64,
    stop: &AtomicBool,
) -> Result<(), (Option<u64>, io::Error)> {
    let mut chunks = ChunkReader::open(device).map_err(|e| (None, e))?;
    while !stop.load(Ordering::Relaxed) {
        let first = next.fetch_add(1, Ordering::Relaxed) * CHUNK_BLOCKS;
        if first >= blocks {
            break;
        }
        let mut result = Ok(());
        chunks.read_blocks(
            first,
            CHUNK_BLOCKS.min(blocks - first),
            &mut |block, error| {
                result = Err((Some(block), error));
                false
            },
        );
        result?;
    }
    Ok(())
}

/// A device that is read in large chunks.
pub struct ChunkReader {
    file: File,
    buffer: Vec<u8>,
    aligned: usize,
}

impl ChunkReader {
    /// Opens the device for reads that bypass the page cache: a large root would evict everything
    /// else from it, and cached blocks would not be read from the disk.
    pub fn open(device: &Path) -> io::Result<ChunkReader> {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECT)
            .open(device)?;
        let buffer = vec![0; CHUNK + BLOCK];
        let aligned = buffer.as_ptr().align_offset(BLOCK).min(BLOCK);
        Ok(ChunkReader {
            file,
            buffer,
            aligned,
        })
    }

    /// Reads `count` blocks from `first` on, at most [`CHUNK_BLOCKS`]. Calls `bad`
    /// for each block that cannot be read; `bad` returns whether to go on.
    pub fn read_blocks(
        &mut self,
        first: u64,
        count: u64,
        bad: &mut dyn FnMut(u64, io::Error) -> bool,
    ) {
        let chunk =
            &mut self.buffer[self.aligned..self.aligned + count.min(CHUNK_BLOCKS) as usize * BLOCK];
        if self.file.read_exact_at(chunk, first * BLOCK as u64).is_ok() {
            return;
        }
        // Reads the blocks one by one to find the failing one. If all can be read now, the error
        // was temporary.
        for (block, bytes) in (first..).zip(chunk.chunks_exact_mut(BLOCK)) {
            if let Err(error) = self.file.read_exact_at(bytes, block * BLOCK as u64)
                && !bad(block, error)
            {
                return;
            }
        }
    }
}
