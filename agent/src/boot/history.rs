//! The history of boots: reads how earlier boots ended, and records this one, in the black box on
//! the root's disk and from the kernel's store (pstore).
//!
//! Promise: no error here ends a boot. A failed boot waits at most [`RECORD_TIMEOUT`] for its
//! record. If the disk hangs during the record of a stage, the watchdog restarts the machine. A
//! machine without a black box boots in the same way.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, TryLockError, mpsc};
use std::thread;
use std::time::{Duration, SystemTime};

use adamant_contract::blackbox::{self, BYTES, BootEvent, BootRecord, PARTITION_TYPE, RecordRing};
use adamant_contract::gpt;
use adamant_contract::report::StageName;
use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::locate::Located;
use super::{Context, Failure};
use crate::kernel::block::{self, Disk};
use crate::kernel::clock::{self, seconds, since_kernel_start};
use crate::kernel::console;

/// Longest wait for the disk to accept a record.
const RECORD_TIMEOUT: Duration = Duration::from_secs(2);
/// Number of the kernel's log lines that are offered to a record. It keeps as many of the last
/// lines as fit.
const LINES: usize = 60;
/// Number of lines of that record that the next boot prints on the console.
const LINES_PRINTED: usize = 8;
/// The directory in which the kernel shows records that survived a panic (systemd's mount point),
/// and the most that is read of one file, bytes.
const PSTORE: &str = "/sys/fs/pstore";
const PSTORE_LIMIT: u64 = 64 << 10;
/// The start of the log line with the panic's reason.
const PANIC: &str = "Kernel panic";
/// All parts of one panic are written within this time.
const ONE_PANIC: Duration = Duration::from_secs(60);
/// Most files that are read; a store holds some dozens.
const PSTORE_FILES: usize = 1024;

/// An open black box.
pub struct BlackBox {
    path: PathBuf,
    file: File,
    ring: RecordRing,
    /// The fields that all records of this boot have in common.
    this: BootRecord,
}

/// Open from the moment the disk is known until init takes over.
static OPEN: Mutex<Option<BlackBox>> = Mutex::new(None);

/// Opens the black box of the root's disk, if it has one.
pub fn open_black_box(located: &Located, context: &mut Context) {
    let this = BootRecord {
        slot: block::label(&Path::new("/sys/class/block").join(&located.data.name))
            .unwrap_or_default(),
        root_hash: located.root_hash.to_string(),
        ..BootRecord::default()
    };
    match open(&located.disk, this) {
        Ok(Some(open)) => {
            context.report.black_box = Some(open.path.display().to_string());
            *OPEN.lock().unwrap_or_else(PoisonError::into_inner) = Some(open);
        }
        Ok(None) => {}
        Err(error) => context.warn(format!(
            "The black box of {} can't be used: {error}.",
            located.disk.name
        )),
    }
}

fn open(disk: &Disk, this: BootRecord) -> io::Result<Option<BlackBox>> {
    let Ok(found) = gpt::disk::read_table(&disk.open(false)?, disk.sector, disk.sectors) else {
        return Ok(None);
    };
    let number = (1..)
        .zip(&found.table.partitions)
        .find(|(_, one)| one.as_ref().is_some_and(|one| one.kind == PARTITION_TYPE))
        .map(|(number, _)| number);
    let Some(partition) = number
        .map(|number| disk.partition(number))
        .transpose()?
        .flatten()
    else {
        return Ok(None);
    };
    BlackBox::open(&partition.path, this)
}

impl BlackBox {
    fn open(path: &Path, this: BootRecord) -> io::Result<Option<BlackBox>> {
        // Each record is on the disk when its write returns.
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_DSYNC)
            .open(path)?;
        let mut bytes = Vec::new();
        (&file).take(BYTES).read_to_end(&mut bytes)?;
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .unwrap_or_default()
            .trim()
            .replace('-', "");
        Ok(RecordRing::parse(&bytes).map(|ring| BlackBox {
            path: path.to_owned(),
            file,
            ring,
            this: BootRecord { boot, ..this },
        }))
    }

    /// Continues the records of this boot in the running system. `None` if the disk has no black
    /// box.
    pub fn resume(path: &Path) -> io::Result<Option<BlackBox>> {
        let Some(mut open) = BlackBox::open(path, BootRecord::default())? else {
            return Ok(None);
        };
        let Some(mine) = open
            .ring
            .records
            .iter()
            .rev()
            .find(|record| record.boot == open.this.boot)
        else {
            return Ok(None);
        };
        let (slot, root_hash) = (mine.slot.clone(), mine.root_hash.clone());
        open.this = BootRecord {
            slot,
            root_hash,
            ..open.this
        };
        Ok(Some(open))
    }

    fn write(&mut self, record: &BootRecord) -> io::Result<()> {
        let (sequence, at) = self.ring.reserve_next();
        self.file.write_all_at(&record.to_block(sequence), at)
    }

    /// Adds a record of this boot.
    pub fn add_record(
        &mut self,
        event: BootEvent,
        stage: &str,
        reason: &str,
        log: Vec<String>,
    ) -> io::Result<()> {
        let record = BootRecord {
            event,
            time: clock::now(),
            uptime_ms: since_kernel_start() / 1000,
            stage: stage.to_owned(),
            reason: reason.to_owned(),
            log,
            ..self.this.clone()
        };
        self.write(&record)
    }
}

/// Records that a stage has begun. If the stage never ends, this is the last record.
pub fn record_stage(name: StageName) {
    add_record(BootEvent::Stage, name);
}

/// Records that init is started next.
pub fn record_running() {
    add_record(BootEvent::Running, StageName::Handover);
}

fn add_record(event: BootEvent, stage: StageName) {
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    // A disk that does not accept the record fails the boot elsewhere if the boot needs it.
    if let Some(black_box) = &mut *open
        && let Err(error) = black_box.add_record(event, stage.name(), "", Vec::new())
    {
        log::warn!("writing a record to the black box: {error}");
        *open = None;
    }
}

/// Records that the boot has failed. A panic calls it too, from any thread at any time. Before a
/// disk was chosen, the only black box of the machine is used.
pub fn record_failure(failure: &Failure) {
    let (stage, reason) = (
        failure.stage.name(),
        console::printable(&failure.to_string()),
    );
    let log = console::last_lines(LINES);
    let (done, wait) = mpsc::channel();
    let work = move || {
        let written = match OPEN.try_lock() {
            Err(TryLockError::WouldBlock) => return,
            Err(TryLockError::Poisoned(open)) => {
                fail_in(&mut open.into_inner(), stage, &reason, log)
            }
            Ok(mut open) => fail_in(&mut open, stage, &reason, log),
        };
        if let Err(error) = written {
            log::warn!("writing a record to the black box: {error}");
        }
        let _ = done.send(());
    };
    // A disk that hangs must not delay the configured outcome.
    if thread::Builder::new().spawn(work).is_ok() {
        let _ = wait.recv_timeout(RECORD_TIMEOUT);
    }
}

fn fail_in(
    open: &mut Option<BlackBox>,
    stage: &str,
    reason: &str,
    log: Vec<String>,
) -> io::Result<()> {
    if open.is_none() {
        *open = open_only_black_box();
    }
    open.as_mut().map_or(Ok(()), |open| {
        open.add_record(BootEvent::Failed, stage, reason, log)
    })
}

/// The machine's only black box. If there are several and the machine's own disk is not known, none
/// may be written to.
fn open_only_black_box() -> Option<BlackBox> {
    let mut found = Disk::all()
        .ok()?
        .into_iter()
        .filter_map(|disk| open(&disk, BootRecord::default()).ok().flatten());
    let one = found.next()?;
    found.next().is_none().then_some(one)
}

/// Reads how earlier boots ended, for the report and the log.
pub fn report_earlier_boots(context: &mut Context) {
    let panic = last_panic(Path::new(PSTORE)).map(|panic| (panic.time, (panic.reason, panic.log)));
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut records = open
        .as_ref()
        .map(|open| open.ring.records.clone())
        .unwrap_or_default();
    let silent = records
        .last()
        .is_some_and(|last| !matches!(last.event, BootEvent::Failed | BootEvent::Ended));
    // Adds a panic or a watchdog reset, which the black box could not record. The kernel's store
    // may still hold an older panic, so only one that is newer than all records of that boot
    // counts.
    let last = records.last().map_or(0, |last| last.time);
    let panic = panic
        .filter(|(time, _)| *time >= last)
        .map(|(_, panic)| panic);
    let cause = match (panic, silent) {
        (Some(panic), true) => Some(panic),
        (Some(panic), false) if records.is_empty() => Some(panic),
        (_, true) if context.watchdog.fired() => Some((
            "it hung, and the hardware watchdog restarted the machine".to_owned(),
            Vec::new(),
        )),
        _ => None,
    };
    if let Some((reason, log)) = cause {
        let last = records.last().cloned().unwrap_or_default();
        let record = BootRecord {
            event: BootEvent::Failed,
            reason,
            log,
            ..last
        };
        // Copied into the black box, because systemd empties the kernel's store after it was read.
        if let Some(open) = &mut *open {
            let _ = open.write(&record);
        }
        records.push(record);
    }
    drop(open);
    context.report.last_bad_boot = blackbox::last_bad(&records);
    if let Some(bad) = context
        .report
        .last_bad_boot
        .as_ref()
        .filter(|bad| bad.starts_ago == 1)
    {
        log::warn!(
            "the last boot, of {}, failed: {}",
            bad.record.slot,
            bad.summary
        );
        // The report has all lines.
        let log = &bad.record.log;
        for line in &log[log.len().saturating_sub(LINES_PRINTED)..] {
            log::info!("then: {line}");
        }
    }
}

/// A panic in the kernel's store.
struct Panic {
    /// Seconds since 1970.
    time: u64,
    /// The log line with the reason.
    reason: String,
    /// The last lines of the log.
    log: Vec<String>,
}

/// The newest panic in the kernel's store.
fn last_panic(folder: &Path) -> Option<Panic> {
    let path = folder.to_str()?;
    if !folder.is_dir() {
        return None;
    }
    let mounted = mount(
        Some("pstore"),
        path,
        Some("pstore"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
        None::<&str>,
    )
    .is_ok();
    let found = newest_panic(folder);
    if mounted {
        let _ = umount2(path, MntFlags::MNT_DETACH);
    }
    found
}

fn newest_panic(folder: &Path) -> Option<Panic> {
    let mut newest: Option<((SystemTime, bool), String)> = None;
    // If the store has only small records, as with EFI variables, the line with the reason is in
    // another part than the end of the log.
    let mut said: Option<(SystemTime, String)> = None;
    for entry in fs::read_dir(folder).ok()?.flatten().take(PSTORE_FILES) {
        if !entry.file_name().as_encoded_bytes().starts_with(b"dmesg-") {
            continue;
        }
        let mut bytes = Vec::new();
        let read = File::open(entry.path())
            .and_then(|file| file.take(PSTORE_LIMIT).read_to_end(&mut bytes));
        let text = String::from_utf8_lossy(&bytes).into_owned();
        // The first line names the record; part 1 has the end of the log.
        if read.is_err() || !text.starts_with("Panic#") {
            continue;
        }
        let age = entry
            .metadata()
            .and_then(|found| found.modified())
            .unwrap_or(SystemTime::UNIX_EPOCH);
        if let Some(line) = text
            .lines()
            .map(without_level_and_time)
            .find(|line| line.contains(PANIC))
            && said.as_ref().is_none_or(|(known, _)| age >= *known)
        {
            said = Some((age, line));
        }
        let rank = (
            age,
            text.lines()
                .next()
                .is_some_and(|line| line.trim_end().ends_with("Part1")),
        );
        if newest.as_ref().is_none_or(|(known, _)| rank > *known) {
            newest = Some((rank, text));
        }
    }
    let ((age, _), text) = newest?;
    let mut lines: Vec<String> = text.lines().skip(1).map(without_level_and_time).collect();
    let elsewhere = said
        .filter(|(when, _)| {
            age.duration_since(*when)
                .is_ok_and(|before| before <= ONE_PANIC)
        })
        .map(|(_, line)| line);
    let reason = lines
        .iter()
        .find(|line| line.contains(PANIC))
        .cloned()
        .or(elsewhere)
        .unwrap_or_else(|| "the kernel panicked".to_owned());
    let log = lines.split_off(lines.len().saturating_sub(LINES));
    Some(Panic {
        time: seconds(age),
        reason,
        log,
    })
}

/// Removes level and time from a line of the store: `<0>[    3.100000] text`.
fn without_level_and_time(line: &str) -> String {
    let text = line
        .strip_prefix('<')
        .and_then(|rest| rest.split_once('>'))
        .map_or(line, |(_, rest)| rest);
    let text = text
        .strip_prefix('[')
        .and_then(|rest| rest.split_once("] "))
        .map_or(text, |(_, rest)| rest);
    console::printable(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_newest_panic_in_the_kernel_s_store() {
        let folder = std::env::temp_dir().join(format!("adamant-pstore-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let write = |name: &str, text: &str, age: u64| {
            let file = File::create(folder.join(name)).unwrap();
            fs::write(folder.join(name), text).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(age))
                .unwrap();
        };
        write("dmesg-erst-1", "Oops#1 Part1\n<4>[    1.0] an oops\n", 300);
        write(
            "dmesg-erst-2",
            "Panic#1 Part1\n<4>[    1.0] old\n<0>[    2.0] Kernel panic - not syncing: old\n",
            100,
        );
        write("dmesg-erst-3", "Panic#1 Part2\n<4>[    1.0] before\n", 200);
        write(
            "dmesg-erst-4",
            "Panic#1 Part1\n<4>[    1.0] last\u{1b}[2J\n<0>[    2.5] Kernel panic - not syncing: sysrq\n<4>[    3.0] CPU: 0\n",
            200,
        );
        write("console-ramoops-0", "Panic#9 Part1\n", 900);
        write("dmesg-broken", "", 900);
        let Panic { time, reason, log } = newest_panic(&folder).unwrap();
        assert_eq!(
            (time, reason.as_str()),
            (200, "Kernel panic - not syncing: sysrq")
        );
        assert_eq!(
            log,
            ["last?[2J", "Kernel panic - not syncing: sysrq", "CPU: 0"]
        );
        // The reason in another part of the same panic, and not that of an older one.
        write("dmesg-efi-5", "Panic#1 Part1\n<4>[    9.0] the end\n", 300);
        assert_eq!(newest_panic(&folder).unwrap().reason, "the kernel panicked");
        write(
            "dmesg-efi-6",
            "Panic#1 Part3\n<0>[    8.0] Kernel panic - not syncing: in parts\n",
            299,
        );
        let Panic { time, reason, log } = newest_panic(&folder).unwrap();
        assert_eq!(
            (time, reason.as_str(), log),
            (
                300,
                "Kernel panic - not syncing: in parts",
                vec!["the end".to_owned()]
            )
        );
        fs::remove_dir_all(&folder).unwrap();
        assert!(newest_panic(&folder).is_none());
    }
}
