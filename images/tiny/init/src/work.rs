//! The work that arguments on the kernel command line ask for.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::mount::{MsFlags, mount};

use crate::machine::replace_file;

/// Bytes of a record of `tiny.records`: its number in decimal, dots, and a line feed.
const RECORD: usize = 64;

/// Does one piece of work and prints its result.
pub fn perform(name: &str, value: &str) {
    let done = match name {
        "read" => read(Path::new(value)).map(|bytes| format!("{bytes} bytes")),
        "read-all" => read_all(),
        "write" => replace_file(Path::new(value), b"written\n").map(|()| "written".to_owned()),
        "fill" => fill(Path::new(value)),
        "records" => records(),
        "list" => list(value),
        "speed" => crate::speed::measure(value),
        "cost" => crate::cost::measure(),
        "exceptions" => crate::exceptions::try_in_child(),
        "seal" => crate::seal::try_all(),
        "serve" => crate::serve::serve(),
        "watchdog" => watchdog(),
        "panic" => std::fs::write("/proc/sysrq-trigger", "c")
            .map(|()| "the kernel did not panic".to_owned()),
        "status" => status(),
        _ => Err(io::Error::other("no such work")),
    };
    match done {
        Ok(text) => println!("tiny: {name} {value}: {text}"),
        Err(e) => println!("tiny: {name} {value}: failed: {e}"),
    }
}

fn read(path: &Path) -> io::Result<u64> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 1 << 20];
    let mut bytes = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(bytes),
            read => bytes += read as u64,
        }
    }
}

fn read_all() -> io::Result<String> {
    let device = fs::metadata("/")?.dev();
    let (mut files, mut bytes, mut failed) = (0u64, 0u64, Vec::new());
    let mut todo = vec![PathBuf::from("/")];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            let meta = entry.metadata()?;
            if meta.is_dir() && meta.dev() == device {
                todo.push(entry.path());
            } else if meta.is_file() {
                files += 1;
                match read(&entry.path()) {
                    Ok(read) => bytes += read,
                    Err(e) => failed.push(format!("{}: {e}", entry.path().display())),
                }
            }
        }
    }
    match failed.first() {
        Some(first) => Err(io::Error::other(format!(
            "{} of {files} files, first {first}",
            failed.len()
        ))),
        None => Ok(format!("{files} files, {bytes} bytes")),
    }
}

fn fill(dir: &Path) -> io::Result<String> {
    let mut file = File::create(dir.join("filled"))?;
    let block = vec![0x5a; 1 << 20];
    let mut bytes = 0u64;
    let full = loop {
        match file
            .write(&block)
            .and_then(|written| file.sync_data().map(|()| written))
        {
            Ok(0) => break io::Error::from(io::ErrorKind::StorageFull),
            Ok(written) => bytes += written as u64,
            Err(e) => break e,
        }
    };
    replace_file(Path::new("/var/tiny/after-filling"), b"still writable\n")?;
    Ok(format!(
        "full after {bytes} bytes ({full}), state still takes writes"
    ))
}

/// Checks the records of earlier boots, then continues after them.
fn records() -> io::Result<String> {
    let path = Path::new("/var/tiny/records");
    let before = fs::read(path).unwrap_or_default();
    let whole = before
        .chunks_exact(RECORD)
        .enumerate()
        .take_while(|(number, record)| *record == record_bytes(*number as u64))
        .count() as u64;
    println!("tiny: records {whole} whole of {} bytes", before.len());
    fs::create_dir_all("/var/tiny")?;
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)?;
    file.set_len(whole * RECORD as u64)?;
    io::Seek::seek(&mut file, io::SeekFrom::End(0))?;
    File::open("/var/tiny")?.sync_all()?;
    for number in whole.. {
        file.write_all(&record_bytes(number))?;
        file.sync_data()?;
        println!("tiny: synced {number}");
    }
    Ok("no more numbers".to_owned())
}

fn record_bytes(number: u64) -> [u8; RECORD] {
    let mut record = [b'.'; RECORD];
    let text = number.to_string();
    record[..text.len()].copy_from_slice(text.as_bytes());
    record[RECORD - 1] = b'\n';
    record
}

fn list(value: &str) -> io::Result<String> {
    let (device, out) = value
        .split_once(',')
        .ok_or_else(|| io::Error::other("write tiny.list=DEVICE,OUT"))?;
    mount(
        Some(device),
        "/mnt",
        Some("erofs"),
        MsFlags::MS_RDONLY,
        None::<&str>,
    )?;
    let mut out = io::BufWriter::with_capacity(1 << 20, OpenOptions::new().write(true).open(out)?);
    let entries = tiny_init::listing::write(Path::new("/mnt"), &mut out)?;
    // Marks the end of the listing: the device is longer.
    out.write_all(b"end\n")?;
    out.into_inner()?.sync_all()?;
    Ok(format!("{entries} entries"))
}

/// Prints each line of `adamant-agent status` with a prefix.
fn status() -> io::Result<String> {
    let output = std::process::Command::new("/usr/bin/adamant-agent")
        .arg("status")
        .output()?;
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        println!("tiny: status: {line}");
    }
    Ok(format!("exit code {:?}", output.status.code()))
}

/// Tries to disarm the watchdog in both ways, and then does not feed it any more.
fn watchdog() -> io::Result<String> {
    // WDIOC_SETOPTIONS with WDIOS_DISABLECARD, WDIOC_SETTIMEOUT (<linux/watchdog.h>).
    const SET_OPTIONS: libc::c_ulong = 0x8004_5704;
    const SET_TIMEOUT: libc::c_ulong = 0xc004_5706;
    let mut watchdog = OpenOptions::new().write(true).open("/dev/watchdog0")?;
    let (mut seconds, disable): (libc::c_int, libc::c_int) = (10, 1);
    // SAFETY: both requests read and write one int, which outlives the calls.
    let disarmed = unsafe {
        libc::ioctl(watchdog.as_raw_fd(), SET_TIMEOUT, &raw mut seconds);
        libc::ioctl(watchdog.as_raw_fd(), SET_OPTIONS, &raw const disable)
    };
    println!("tiny: disarming the watchdog by ioctl gives {disarmed}");
    watchdog.write_all(b"V")?;
    drop(watchdog);
    println!("tiny: the watchdog is not fed any more");
    std::thread::sleep(Duration::from_secs(600));
    Err(io::Error::other("it did not bite within ten minutes"))
}
