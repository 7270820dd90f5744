//! `tiny.cost`: what usual work costs, in nanoseconds of the machine's clock. Under QEMU's
//! `-icount` these are instructions, the same in every run.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::time::Instant;

const RUNS: u32 = 200;
const MAPS: u32 = 1000;
const FILES: u32 = 10_000;
const FOLDER: &str = "/dev/shm/cost";
const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/libc.so.6";
/// The word that makes a child of ours end at once.
pub const NOTHING: &str = "nothing";

/// Measures, each twice: what is measured is the second time, when all is in memory.
pub fn cost() -> io::Result<String> {
    fs::create_dir_all(FOLDER)?;
    for file in 0..FILES {
        fs::write(format!("{FOLDER}/{file}"), [b'x'; 4096])?;
    }
    type Work = fn() -> io::Result<()>;
    let works: [(&str, u32, Work); 3] = [
        ("exec", RUNS, exec),
        ("map", MAPS, map),
        ("open", FILES, open),
    ];
    for (name, times, work) in works {
        work()?;
        let start = Instant::now();
        work()?;
        println!(
            "tiny: cost {name} {}",
            start.elapsed().as_nanos() / u128::from(times)
        );
    }
    Ok("measured".to_owned())
}

fn exec() -> io::Result<()> {
    for _ in 0..RUNS {
        Command::new("/proc/self/exe").arg(NOTHING).status()?;
    }
    Ok(())
}

/// As the dynamic linker does: the file, its header, a mapping of the whole, and over it the code
/// and the data; then the code is used.
fn map() -> io::Result<()> {
    for _ in 0..MAPS {
        let mut file = File::open(LIBRARY)?;
        file.read_exact(&mut [0; 832])?;
        let length = file.metadata()?.len() as usize & !0xfff;
        let (code, data) = ((length / 8) & !0xfff, (length / 8 * 7) & !0xfff);
        let parts = [
            (0, length, libc::PROT_READ, 0),
            (
                code,
                data - code,
                libc::PROT_READ | libc::PROT_EXEC,
                libc::MAP_FIXED,
            ),
            (
                data,
                length - data,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_FIXED,
            ),
        ];
        let mut start = std::ptr::null_mut::<u8>();
        for (offset, length, prot, fixed) in parts {
            let place = start.wrapping_add(offset).cast();
            // SAFETY: the first is a new mapping, and the others lie inside it; nothing else knows
            // of it.
            let mapped = unsafe {
                libc::mmap(
                    place,
                    length,
                    prot,
                    libc::MAP_PRIVATE | fixed,
                    file.as_raw_fd(),
                    offset as libc::off_t,
                )
            };
            if mapped == libc::MAP_FAILED {
                return Err(io::Error::last_os_error());
            }
            if fixed == 0 {
                start = mapped.cast();
            }
        }
        for page in (code..data).step_by(16 << 12) {
            // SAFETY: inside the mapping that was just made, which can be read.
            std::hint::black_box(unsafe { start.add(page).read_volatile() });
        }
        // SAFETY: the whole of the mapping made above; no reference into it is left.
        if unsafe { libc::munmap(start.cast(), length) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

fn open() -> io::Result<()> {
    for file in 0..FILES {
        std::hint::black_box(fs::read(format!("{FOLDER}/{file}"))?);
    }
    Ok(())
}
