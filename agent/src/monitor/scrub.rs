//! `adamant-agent scrub`: reads the whole verified root past the page cache, so that a bad block is
//! found before it is needed.
//!
//! Every block of data is checked on its path to the root hash, and so every block of the tree is
//! needed: none stands over nothing. One that the kernel still has in memory from a read shortly
//! before is not read from the disk again. What the kernel does about a bad block is the policy's
//! `on_corruption`: only with `error` can more than one be named. Where it restarts the machine,
//! the reading skips what it did not come through three times.

use std::io::{IsTerminal, Write};
use std::thread::sleep;
use std::time::{Duration, Instant};

use adamant_contract::policy::{Policy, is_below};
use adamant_contract::verity::BLOCK;

use super::{RUN, Root, now, policy, read, replace, say, value};
use crate::boot::scan::{CHUNK_BLOCKS, Chunks};
use crate::kernel::process::lower_priority_to_idle;

/// Where the result is kept from one boot to the next.
const KEPT: &str = "/var/lib/adamant";
/// Blocks between two writes of the position: 64 MiB.
const CHECKPOINT: u64 = 64 * CHUNK_BLOCKS;
/// Starts at the same position before what is behind it is skipped.
const ATTEMPTS: u64 = 3;
/// Bad blocks that are named in one reading.
const NAMED: u64 = 1000;
/// The clock may be set while we wait.
const LONGEST_SLEEP: u64 = 3600;

/// Progress and findings of a scrub. Times are in seconds since 1970.
#[derive(Debug, Default, PartialEq)]
pub struct State {
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
    /// Number of the first corrupted block.
    pub first_error: Option<u64>,
    /// Number of times that the scrub started at this position.
    pub attempts: u64,
}

impl State {
    /// As it was kept; `None` where there is none, or nobody can read it.
    pub fn read(path: &str) -> Option<State> {
        State::parse(&read(path).ok()?)
    }

    fn parse(text: &str) -> Option<State> {
        let number = |key: &str| value(text, key).and_then(|value| value.parse().ok());
        Some(State {
            position: number("position")?,
            size: number("size")?,
            root_hash: value(text, "root_hash")?.to_owned(),
            started: number("started")?,
            last_full: number("last_full")?,
            errors: number("errors")?,
            first_error: number("first_error"),
            attempts: number("attempts").unwrap_or(0),
        })
    }

    fn to_json(&self) -> String {
        let first_error = self
            .first_error
            .map_or("null".to_owned(), |at| at.to_string());
        let State {
            position,
            size,
            root_hash,
            started,
            last_full,
            errors,
            attempts,
            ..
        } = self;
        format!(
            "{{\"position\":{position},\"size\":{size},\"root_hash\":\"{root_hash}\",\"started\":{started},\"last_full\":{last_full},\"errors\":{errors},\"first_error\":{first_error},\"attempts\":{attempts}}}\n"
        )
    }

    /// What is known of this root, or the beginning.
    fn of(root: &Root, kept: Option<State>) -> State {
        let same = kept.filter(|kept| {
            kept.root_hash == root.hash
                && kept.size == root.bytes
                && kept.position < kept.size
                && kept.position % BLOCK as u64 == 0
        });
        same.unwrap_or_else(|| State {
            size: root.bytes,
            root_hash: root.hash.clone(),
            ..State::default()
        })
    }

    /// Seconds until the next reading begins; 0 in the middle of one. A clock that stands before
    /// the last start was set since.
    fn wait(&self, now: u64, every: u64) -> u64 {
        if self.position > 0 || self.last_full < self.started || self.started > now {
            0
        } else {
            every.saturating_sub(now - self.started)
        }
    }

    fn bad(&mut self, block: u64) {
        self.errors += 1;
        self.first_error.get_or_insert(block * BLOCK as u64);
    }
}

/// The file with the state.
pub fn path(policy: &Policy) -> String {
    let kept = policy
        .volumes
        .iter()
        .any(|volume| is_below(KEPT, &volume.mount));
    [if kept { KEPT } else { RUN }, "/scrub.json"].concat()
}

/// Reads the root: once and at once with `at_once`, else again and again. Gives the exit code;
/// `Err` is the line for a person.
pub fn run(at_once: bool) -> Result<u8, String> {
    let fail = |why: &str| {
        [
            "adamant: scrub: the root: ",
            why,
            ": run it as root, on a server that adamant-agent has booted\n",
        ]
        .concat()
    };
    let policy = policy()?;
    let root = Root::find().map_err(|why| fail(&why))?;
    let mut chunks = Chunks::open(&root.device).map_err(|e| fail(&e.to_string()))?;
    let path = path(&policy);
    if at_once {
        return Ok(read_at_once(&root, &mut chunks, &path));
    }
    lower_priority_to_idle();
    let (rate, every) = (
        u64::from(policy.verify.scrub_rate.max(1)),
        u64::from(policy.verify.scrub_every) * 3600,
    );
    let mut state = State::of(&root, State::read(&path));
    loop {
        let wait = state.wait(now(), every);
        if wait > 0 {
            sleep(Duration::from_secs(wait.min(LONGEST_SLEEP)));
        } else {
            read_slowly(&root, &mut chunks, &mut state, rate, &path);
        }
    }
}

/// From the state's position to the end.
fn read_slowly(root: &Root, chunks: &mut Chunks, state: &mut State, rate: u64, path: &str) {
    if state.position == 0 && state.attempts == 0 {
        (state.started, state.errors, state.first_error) = (now(), 0, None);
    }
    let blocks = root.bytes / BLOCK as u64;
    let mut at = state.position / BLOCK as u64;
    if state.attempts >= ATTEMPTS {
        let end = (at + CHECKPOINT).min(blocks);
        say(&format!(
            "<3>adamant: scrub: {}: {ATTEMPTS} times the reading did not come through the {} blocks from {at} on: skipped",
            root.device.display(),
            end - at
        ));
        state.bad(at);
        (at, state.attempts) = (end, 0);
    } else {
        state.attempts += 1;
    }
    keep(state, at, path);
    while at < blocks {
        let start = Instant::now();
        let count = CHUNK_BLOCKS.min(blocks - at);
        chunks.read(at, count, &mut |block, error| {
            state.bad(block);
            name("<3>", root, state, block, &error);
            true
        });
        at += count;
        if at.is_multiple_of(CHECKPOINT) && at < blocks {
            // It came through: the next start is the first one from here.
            state.attempts = 1;
            keep(state, at, path);
        }
        sleep(
            Duration::from_micros(count * BLOCK as u64 * 1_000_000 / (rate << 20))
                .saturating_sub(start.elapsed()),
        );
    }
    (state.last_full, state.attempts) = (now(), 0);
    keep(state, 0, path);
    say(&format!(
        "<6>adamant: scrub: {}: all {blocks} blocks were read or skipped, errors: {}",
        root.device.display(),
        state.errors
    ));
}

/// Everything, as fast as it goes.
fn read_at_once(root: &Root, chunks: &mut Chunks, path: &str) -> u8 {
    let mut state = State::of(root, None);
    state.started = now();
    let terminal = std::io::stdout().is_terminal();
    let (begin, mut shown) = (Instant::now(), Duration::ZERO);
    let blocks = root.bytes / BLOCK as u64;
    let megabytes = |blocks: u64| blocks * BLOCK as u64 / 1_000_000;
    let speed =
        |blocks: u64, time: Duration| megabytes(blocks) * 1000 / (time.as_millis() as u64).max(1);
    let mut at = 0;
    while at < blocks {
        let count = CHUNK_BLOCKS.min(blocks - at);
        chunks.read(at, count, &mut |block, error| {
            state.bad(block);
            name(
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
    state.last_full = now();
    let mut kept = [if terminal { "\n" } else { "" }, "adamant: scrub: "].concat();
    let (errors, time) = (state.errors, begin.elapsed());
    kept += &format!(
        "{blocks} blocks of {}, {} MB in {} ms, {} MB/s: ",
        root.device.display(),
        megabytes(blocks),
        time.as_millis(),
        speed(blocks, time)
    );
    say(&match errors {
        0 => [
            &kept,
            "all are what the root hash stands for, and so is every block of the tree",
        ]
        .concat(),
        _ => format!(
            "{kept}{errors} are bad: write the image to the disk again, or boot another version"
        ),
    });
    // In the middle of the service's reading, what that has found so far is no less true.
    if State::read(path).is_none_or(|other| other.position == 0 || other.root_hash != root.hash) {
        keep(&mut state, 0, path);
    }
    u8::from(errors > 0)
}

fn name(prefix: &str, root: &Root, state: &State, block: u64, error: &std::io::Error) {
    if state.errors > NAMED {
        return;
    }
    say(&format!(
        "{prefix}adamant: scrub: {}: block {block}, byte {}: {error}",
        root.device.display(),
        block * BLOCK as u64
    ));
    if state.errors == NAMED {
        say(&[
            prefix,
            "adamant: scrub: further bad blocks are counted only",
        ]
        .concat());
    }
}

/// Writes the state down. Where that fails, the next start begins where the last one did.
fn keep(state: &mut State, block: u64, path: &str) {
    state.position = block * BLOCK as u64;
    if let Err(error) = replace(path, &state.to_json()) {
        say(&[
            "<4>adamant: scrub: ",
            path,
            ": ",
            &error.to_string(),
            ": a restart begins anew",
        ]
        .concat());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        State {
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
    fn the_state_is_read_as_it_was_written() {
        for state in [
            state(),
            State {
                first_error: None,
                ..state()
            },
        ] {
            assert_eq!(State::parse(&state.to_json()), Some(state));
        }
        assert_eq!(State::parse("{\"position\": -1}"), None);
        assert_eq!(State::parse(""), None);
    }

    #[test]
    fn a_restart_goes_on_where_it_was_only_with_the_same_root() {
        let root = |hash: &str, bytes| Root {
            device: "/dev/dm-0".into(),
            bytes,
            hash: hash.to_owned(),
        };
        assert_eq!(
            State::of(&root(&"ab".repeat(32), 1 << 20), Some(state())),
            state()
        );
        for (other, kept) in [
            (root(&"cd".repeat(32), 1 << 20), state()),
            (root(&"ab".repeat(32), 2 << 20), state()),
            (
                root(&"ab".repeat(32), 1 << 20),
                State {
                    position: 1 << 20,
                    ..state()
                },
            ),
            (
                root(&"ab".repeat(32), 1 << 20),
                State {
                    position: 1,
                    ..state()
                },
            ),
        ] {
            let new = State::of(&other, Some(kept));
            assert_eq!((new.position, new.errors, new.size), (0, 0, other.bytes));
        }
    }

    #[test]
    fn the_next_reading_begins_that_long_after_the_last_one_began() {
        let done = State {
            position: 0,
            last_full: 1050,
            ..state()
        };
        assert_eq!(done.wait(1100, 3600), 3500);
        assert_eq!(done.wait(4600, 3600), 0);
        assert_eq!(done.wait(900, 3600), 0);
        assert_eq!(state().wait(1100, 3600), 0);
        // It began, and ended before its first checkpoint.
        assert_eq!(
            State {
                last_full: 900,
                ..done
            }
            .wait(1100, 3600),
            0
        );
        assert_eq!(State::default().wait(1_700_000_000, 3600), 0);
    }

    #[test]
    fn the_result_outlives_a_boot_where_there_is_a_volume() {
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
