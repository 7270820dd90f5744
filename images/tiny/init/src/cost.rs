//! `tiny.cost`: the cost of usual work in nanoseconds of the machine's clock. With QEMU's `-icount`
//! a nanosecond is an instruction, and all runs give the same figures.

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
/// The argument that makes a child end at once.
pub const NOTHING: &str = "nothing";

/// Does each piece of work twice and measures the second time, when all files are in memory.
pub fn measure() -> io::Result<String> {
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

/// Maps a library as the dynamic linker does: reads its header, maps the file, maps code and data
/// over it, and touches the code.
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
            // SAFETY: the first mapping is new, and the others lie inside of it. Nothing refers to
            // it yet.
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
            // SAFETY: the page lies in the mapping that was just made, which can be read.
            std::hint::black_box(unsafe { start.add(page).read_volatile() });
        }
        // SAFETY: this is the mapping made above, and no reference to it is left.
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
