//! `adamant-agent scrub`: reads all blocks of the verified root past the page cache, to find
//! corrupted blocks before a program needs them.
//!
//! dm-verity checks each data block along its path to the root hash, so the scrub covers all blocks
//! of the hash tree. Hash blocks that the kernel has cached are not read from the disk again. The
//! policy's `on_corruption` decides what the kernel does about a corrupted block: only with `error`
//! can the scrub name more than one. If the kernel restarts the machine, the scrub skips a range of
//! blocks after three attempts.

use std::io::{IsTerminal, Write};
use std::thread::sleep;
use std::time::{Duration, Instant};

use adamant_contract::paths::AGENT_STATE_DIR;
use adamant_contract::policy::{Policy, is_below};
use adamant_contract::verity::BLOCK;
use serde::{Deserialize, Serialize};

use super::{RUN, VerifiedDevice, json, policy, print_line, read, replace};
use crate::boot::scan::{CHUNK_BLOCKS, ChunkReader};
use crate::kernel::clock;
use crate::kernel::process::lower_priority_to_idle;

/// Number of blocks between two writes of the state: 64 MiB.
const CHECKPOINT: u64 = 64 * CHUNK_BLOCKS;
/// Attempts at the same position before the scrub skips the blocks up to the next checkpoint.
const ATTEMPTS: u64 = 3;
/// Number of corrupted blocks that are listed in one pass.
const NAMED: u64 = 1000;
/// Longest sleep in seconds: the clock may be set in the meantime.
const LONGEST_SLEEP: u64 = 3600;

/// Progress and findings of a scrub. Times are in seconds since 1970.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ScrubState {
    /// Bytes read so far.
    pub position: u64,
    /// Bytes of the root.
    pub size: u64,
    /// Root hash of the image that is read.
    pub root_hash: String,
    /// Time at which this pass started.
    pub started: u64,
    /// Time at which the last complete pass ended; 0 before the first.
    pub last_full: u64,
    /// Corrupted blocks found in this pass.
    pub errors: u64,
    /// Byte position of the first corrupted block.
    #[serde(default)]
    pub first_error: Option<u64>,
    /// Number of times that the scrub started at this position.
    #[serde(default)]
    pub attempts: u64,
}

impl ScrubState {
    /// Reads the stored state; `None` if there is none that can be parsed.
    pub fn read(path: &str) -> Option<ScrubState> {
        ScrubState::parse(&read(path).ok()?)
    }

    fn parse(text: &str) -> Option<ScrubState> {
        super::json::from_text(text)
    }

    fn to_json(&self) -> String {
        json::to_line(self) + "\n"
    }

    /// Continues from a stored state if it belongs to this root, else starts anew.
    fn resume(root: &VerifiedDevice, kept: Option<ScrubState>) -> ScrubState {
        let same = kept.filter(|kept| {
            kept.root_hash == root.hash
                && kept.size == root.bytes
                && kept.position < kept.size
                && kept.position % BLOCK as u64 == 0
        });
        same.unwrap_or_else(|| ScrubState {
            size: root.bytes,
            root_hash: root.hash.clone(),
            ..ScrubState::default()
        })
    }

    /// Seconds until the next pass begins; 0 in the middle of one. If the start of the last pass
    /// lies in the future, the clock was set back, and the next pass begins at once.
    fn wait(&self, now: u64, every: u64) -> u64 {
        if self.position > 0 || self.last_full < self.started || self.started > now {
            0
        } else {
            every.saturating_sub(now - self.started)
        }
    }

    fn add_error(&mut self, block: u64) {
        self.errors += 1;
        self.first_error.get_or_insert(block * BLOCK as u64);
    }
}

/// Path of the state: on a volume if there is one above /var/lib, else in memory.
pub fn path(policy: &Policy) -> String {
    let kept = policy
        .volumes
        .iter()
        .any(|volume| is_below(AGENT_STATE_DIR, &volume.mount));
    [if kept { AGENT_STATE_DIR } else { RUN }, "/scrub.json"].concat()
}

/// Scrubs the root: with `at_once` one pass at full speed, else endlessly at the policy's rate.
/// Returns the exit code; `Err` is a line for the standard error.
pub fn scrub_root(at_once: bool) -> Result<u8, String> {
    let fail = |why: &dyn std::fmt::Display| {
        [
            "adamant: scrub: the root: ",
            &why.to_string(),
            ": run it as root, on a server that adamant-agent has booted\n",
        ]
        .concat()
    };
    let policy = policy()?;
    let root = VerifiedDevice::find().map_err(|why| fail(&why))?;
    let mut chunks = ChunkReader::open(&root.device).map_err(|e| fail(&e))?;
    let path = path(&policy);
    if at_once {
        return Ok(read_at_once(&root, &mut chunks, &path));
    }
    lower_priority_to_idle();
    let (rate, every) = (
        u64::from(policy.verify.scrub_rate.max(1)),
        u64::from(policy.verify.scrub_every) * 3600,
    );
    let mut state = ScrubState::resume(&root, ScrubState::read(&path));
    loop {
        let wait = state.wait(clock::now(), every);
        if wait > 0 {
            sleep(Duration::from_secs(wait.min(LONGEST_SLEEP)));
        } else {
            read_slowly(&root, &mut chunks, &mut state, rate, &path);
        }
    }
}

/// Reads from the state's position to the end of the root.
fn read_slowly(
    root: &VerifiedDevice,
    chunks: &mut ChunkReader,
    state: &mut ScrubState,
    rate: u64,
    path: &str,
) {
    if state.position == 0 && state.attempts == 0 {
        (state.started, state.errors, state.first_error) = (clock::now(), 0, None);
    }
    let blocks = root.bytes / BLOCK as u64;
    let mut at = state.position / BLOCK as u64;
    if state.attempts >= ATTEMPTS {
        let end = (at + CHECKPOINT).min(blocks);
        print_line(&format!(
            "<3>adamant: scrub: {}: {ATTEMPTS} attempts to read the {} blocks from block {at} on failed: they are skipped",
            root.device.display(),
            end - at
        ));
        state.add_error(at);
        (at, state.attempts) = (end, 0);
    } else {
        state.attempts += 1;
    }
    store(state, at, path);
    while at < blocks {
        let start = Instant::now();
        let count = CHUNK_BLOCKS.min(blocks - at);
        chunks.read_blocks(at, count, &mut |block, error| {
            state.add_error(block);
            print_error("<3>", root, state, block, &error);
            true
        });
        at += count;
        if at.is_multiple_of(CHECKPOINT) && at < blocks {
            // A restart from here is the second attempt.
            state.attempts = 1;
            store(state, at, path);
        }
        sleep(
            Duration::from_micros(count * BLOCK as u64 * 1_000_000 / (rate << 20))
                .saturating_sub(start.elapsed()),
        );
    }
    (state.last_full, state.attempts) = (clock::now(), 0);
    store(state, 0, path);
    print_line(&format!(
        "<6>adamant: scrub: {}: all {blocks} blocks were read or skipped, errors: {}",
        root.device.display(),
        state.errors
    ));
}

/// Reads all blocks at full speed. Returns the exit code.
fn read_at_once(root: &VerifiedDevice, chunks: &mut ChunkReader, path: &str) -> u8 {
    let mut state = ScrubState::resume(root, None);
    state.started = clock::now();
    let terminal = std::io::stdout().is_terminal();
    let (begin, mut shown) = (Instant::now(), Duration::ZERO);
    let blocks = root.bytes / BLOCK as u64;
    let megabytes = |blocks: u64| blocks * BLOCK as u64 / 1_000_000;
    let speed =
        |blocks: u64, time: Duration| megabytes(blocks) * 1000 / (time.as_millis() as u64).max(1);
    let mut at = 0;
    while at < blocks {
        let count = CHUNK_BLOCKS.min(blocks - at);
        chunks.read_blocks(at, count, &mut |block, error| {
            state.add_error(block);
            print_error(
                if terminal { "\r\x1b[K" } else { "" },
                root,
                &state,
                block,
                &error,
            );
            true
        });
        at += count;
        let time = begin.elapsed();
        if terminal && (time > shown + Duration::from_millis(200) || at >= blocks) {
            shown = time;
            let line = format!(
                "\r\x1b[K{} % of {} MB, {} MB/s",
                at * 100 / blocks,
                megabytes(blocks),
                speed(at, time)
            );
            let _ = std::io::stdout()
                .write_all(line.as_bytes())
                .and_then(|()| std::io::stdout().flush());
        }
    }
    state.last_full = clock::now();
    let mut summary = [if terminal { "\n" } else { "" }, "adamant: scrub: "].concat();
    let (errors, time) = (state.errors, begin.elapsed());
    summary += &format!(
        "{blocks} blocks of {}, {} MB in {} ms, {} MB/s: ",
        root.device.display(),
        megabytes(blocks),
        time.as_millis(),
        speed(blocks, time)
    );
    print_line(&match errors {
        0 => [
            &summary,
            "all match the root hash, as do all blocks of the hash tree",
        ]
        .concat(),
        _ => format!(
            "{summary}{errors} are corrupted: write the image to the disk again, or boot another version"
        ),
    });
    // Do not overwrite the state of a pass of the service that is in progress.
    if ScrubState::read(path)
        .is_none_or(|other| other.position == 0 || other.root_hash != root.hash)
    {
        store(&mut state, 0, path);
    }
    u8::from(errors > 0)
}

fn print_error(
    prefix: &str,
    root: &VerifiedDevice,
    state: &ScrubState,
    block: u64,
    error: &std::io::Error,
) {
    if state.errors > NAMED {
        return;
    }
    print_line(&format!(
        "{prefix}adamant: scrub: {}: block {block}, byte {}: {error}",
        root.device.display(),
        block * BLOCK as u64
    ));
    if state.errors == NAMED {
        print_line(
            &[
                prefix,
                "adamant: scrub: further corrupted blocks are only counted",
            ]
            .concat(),
        );
    }
}

/// Stores the state. If that fails, a restart begins at the last stored position.
fn store(state: &mut ScrubState, block: u64, path: &str) {
    state.position = block * BLOCK as u64;
    if let Err(error) = replace(path, &state.to_json()) {
        print_line(
            &[
                "<4>adamant: scrub: ",
                path,
                ": ",
                &error.to_string(),
                ": a restart of the scrub begins at the last stored position",
            ]
            .concat(),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> ScrubState {
        ScrubState {
            position: 8192,
            size: 1 << 20,
            root_hash: "ab".repeat(32),
            started: 1000,
            last_full: 900,
            errors: 2,
            first_error: Some(4096),
            attempts: 1,
        }
    }

    #[test]
    fn the_state_survives_the_round_trip() {
        for state in [
            state(),
            ScrubState {
                first_error: None,
                ..state()
            },
        ] {
            assert_eq!(ScrubState::parse(&state.to_json()), Some(state));
        }
        assert_eq!(ScrubState::parse("{\"position\": -1}"), None);
        assert_eq!(ScrubState::parse(""), None);
    }

    #[test]
    fn a_restart_resumes_only_on_the_same_root() {
        let root = |hash: &str, bytes| VerifiedDevice {
            device: "/dev/dm-0".into(),
            bytes,
            hash: hash.to_owned(),
        };
        assert_eq!(
            ScrubState::resume(&root(&"ab".repeat(32), 1 << 20), Some(state())),
            state()
        );
        for (other, kept) in [
            (root(&"cd".repeat(32), 1 << 20), state()),
            (root(&"ab".repeat(32), 2 << 20), state()),
            (
                root(&"ab".repeat(32), 1 << 20),
                ScrubState {
                    position: 1 << 20,
                    ..state()
                },
            ),
            (
                root(&"ab".repeat(32), 1 << 20),
                ScrubState {
                    position: 1,
                    ..state()
                },
            ),
        ] {
            let new = ScrubState::resume(&other, Some(kept));
            assert_eq!((new.position, new.errors, new.size), (0, 0, other.bytes));
        }
    }

    #[test]
    fn passes_begin_at_the_interval() {
        let done = ScrubState {
            position: 0,
            last_full: 1050,
            ..state()
        };
        assert_eq!(done.wait(1100, 3600), 3500);
        assert_eq!(done.wait(4600, 3600), 0);
        assert_eq!(done.wait(900, 3600), 0);
        assert_eq!(state().wait(1100, 3600), 0);
        // A pass that was interrupted before its first checkpoint.
        assert_eq!(
            ScrubState {
                last_full: 900,
                ..done
            }
            .wait(1100, 3600),
            0
        );
        assert_eq!(ScrubState::default().wait(1_700_000_000, 3600), 0);
    }

    #[test]
    fn the_state_is_stored_on_a_volume_if_there_is_one() {
        let policy = |mount: &str| {
            let text = format!(
                r#"{{"version": 1, "image": {{"id": "a", "version": "1"}}, "volume": [{{"name": "state", "mount": "{mount}"}}]}}"#
            );
            Policy::parse(text.as_bytes()).unwrap()
        };
        assert_eq!(path(&policy("/var")), "/var/lib/adamant/scrub.json");
        assert_eq!(path(&policy("/srv")), "/run/adamant/scrub.json");
    }
}
