//! The bpf() system call, as far as the guard needs it. Numbers and layouts: <linux/bpf.h>.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::libc;

const MAP_CREATE: libc::c_int = 0;
const MAP_LOOKUP_ELEM: libc::c_int = 1;
const MAP_UPDATE_ELEM: libc::c_int = 2;
const PROG_LOAD: libc::c_int = 5;
const OBJ_PIN: libc::c_int = 6;
const MAP_GET_NEXT_ID: libc::c_int = 12;
const MAP_GET_FD_BY_ID: libc::c_int = 14;
const OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const RAW_TRACEPOINT_OPEN: libc::c_int = 17;
const MAP_FREEZE: libc::c_int = 22;
const PROG_TYPE_LSM: u32 = 29;
const ATTACH_LSM_MAC: u32 = 27;
const RINGBUF: u32 = 27;
/// Bytes for what the verifier says, which is a line for each instruction that it follows: too few
/// would be an error of its own.
const LOG: usize = 16 << 20;

/// A kind of map.
#[derive(Clone, Copy)]
pub enum Map {
    /// One value of this many bytes that programs can only read.
    Constant(u32),
    /// One value of this many bytes.
    Value(u32),
    /// A ring of this many bytes, a power of two.
    Ring(u32),
}

/// `union bpf_attr`: zeros, and what is written.
struct Attributes([u8; 128]);

impl Attributes {
    fn new(numbers: &[(usize, u32)], pointers: &[(usize, u64)]) -> Attributes {
        let mut all = Attributes([0; 128]);
        for (at, number) in numbers {
            all.0[*at..at + 4].copy_from_slice(&number.to_ne_bytes());
        }
        for (at, pointer) in pointers {
            all.0[*at..at + 8].copy_from_slice(&pointer.to_ne_bytes());
        }
        all
    }

    /// SAFETY: pointers in it must be what the command takes, and outlive the call.
    unsafe fn call(&mut self, command: libc::c_int) -> io::Result<libc::c_int> {
        // SAFETY: the kernel reads and writes at most the length given; what is behind pointers is
        // the caller's promise.
        let answer =
            unsafe { libc::syscall(libc::SYS_bpf, command, self.0.as_mut_ptr(), self.0.len()) };
        if answer < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(answer as libc::c_int)
        }
    }
}

fn raw(fd: &OwnedFd) -> u32 {
    fd.as_raw_fd() as u32
}

/// A name as the kernel keeps it: at most 15 characters.
fn name_into(attributes: &mut Attributes, at: usize, name: &str) {
    let bytes = &name.as_bytes()[..name.len().min(15)];
    attributes.0[at..at + bytes.len()].copy_from_slice(bytes);
}

/// Makes a map.
pub fn map(kind: Map, name: &str) -> io::Result<OwnedFd> {
    const ARRAY: u32 = 2;
    const RDONLY_PROG: u32 = 1 << 7;
    let (kind, key, value, entries, flags) = match kind {
        Map::Constant(bytes) => (ARRAY, 4, bytes, 1, RDONLY_PROG),
        Map::Value(bytes) => (ARRAY, 4, bytes, 1, 0),
        Map::Ring(bytes) => (RINGBUF, 0, 0, bytes, 0),
    };
    let mut attributes = Attributes::new(
        &[(0, kind), (4, key), (8, value), (12, entries), (16, flags)],
        &[],
    );
    name_into(&mut attributes, 28, name);
    // SAFETY: there is no pointer in it. The answer is a descriptor of ours alone.
    unsafe {
        attributes
            .call(MAP_CREATE)
            .map(|fd| OwnedFd::from_raw_fd(fd))
    }
}

/// Writes the only value of a map.
pub fn set(map: &OwnedFd, value: &[u8]) -> io::Result<()> {
    let key = 0u32;
    let mut attributes = Attributes::new(
        &[(0, raw(map))],
        &[(8, &raw const key as u64), (16, value.as_ptr() as u64)],
    );
    // SAFETY: the map was made with keys of 4 bytes and values of this length; both outlive the
    // call.
    unsafe { attributes.call(MAP_UPDATE_ELEM).map(drop) }
}

/// Reads the only value of a map, which must be as long as the map's values are: see [`info`].
pub fn get(map: &OwnedFd, value: &mut [u8]) -> io::Result<()> {
    if info(map)?.value as usize != value.len() {
        return Err(io::Error::other("the map's values have another length"));
    }
    let key = 0u32;
    let mut attributes = Attributes::new(
        &[(0, raw(map))],
        &[(8, &raw const key as u64), (16, value.as_mut_ptr() as u64)],
    );
    // SAFETY: the kernel reads a key of 4 bytes and writes as many as the map's values have, as was
    // just asked; both places outlive the call.
    unsafe { attributes.call(MAP_LOOKUP_ELEM).map(drop) }
}

/// What a map is.
pub struct Info {
    /// As it was made with.
    pub name: String,
    /// Whether it is a ring of events.
    pub is_ring: bool,
    /// Bytes of a value.
    pub value: u32,
    /// Number of values; of a ring, its bytes.
    pub entries: u32,
}

/// Asks what a map is.
pub fn info(map: &OwnedFd) -> io::Result<Info> {
    let mut found = [0u8; 128];
    let mut attributes = Attributes::new(
        &[(0, raw(map)), (4, found.len() as u32)],
        &[(8, found.as_mut_ptr() as u64)],
    );
    // SAFETY: the kernel writes at most the length given to a place that outlives the call.
    unsafe { attributes.call(OBJ_GET_INFO_BY_FD)? };
    let number =
        |at: usize| u32::from_ne_bytes([found[at], found[at + 1], found[at + 2], found[at + 3]]);
    let name = found[24..40]
        .split(|byte| *byte == 0)
        .next()
        .unwrap_or_default();
    Ok(Info {
        name: String::from_utf8_lossy(name).into_owned(),
        is_ring: number(0) == RINGBUF,
        value: number(12),
        entries: number(16),
    })
}

/// A map that was made by whomever, by its name; the first one. `None` where there is none.
pub fn find(name: &str, write: bool) -> io::Result<Option<OwnedFd>> {
    const RDONLY: u32 = 1 << 3;
    let open = |id: u32, flags: u32| {
        // SAFETY: there is no pointer in it. The answer is a descriptor of ours alone.
        unsafe {
            Attributes::new(&[(0, id), (8, flags)], &[])
                .call(MAP_GET_FD_BY_ID)
                .map(|fd| OwnedFd::from_raw_fd(fd))
        }
    };
    let mut id = 0;
    loop {
        let mut attributes = Attributes::new(&[(0, id)], &[]);
        // SAFETY: there is no pointer in it.
        match unsafe { attributes.call(MAP_GET_NEXT_ID) } {
            Ok(_) => {
                id = u32::from_ne_bytes([
                    attributes.0[4],
                    attributes.0[5],
                    attributes.0[6],
                    attributes.0[7],
                ])
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        }
        // One that went since, or is none of ours to look at, is not the one.
        let Ok(map) = open(id, RDONLY) else { continue };
        if info(&map).is_ok_and(|found| found.name == name) {
            return if write { open(id, 0) } else { Ok(map) }.map(Some);
        }
    }
}

/// No system call writes to the map from now on.
pub fn freeze(map: &OwnedFd) -> io::Result<()> {
    // SAFETY: there is no pointer in it.
    unsafe {
        Attributes::new(&[(0, raw(map))], &[])
            .call(MAP_FREEZE)
            .map(drop)
    }
}

/// Loads a program for the hook that this function of the kernel stands for. `Err` has what the
/// verifier said last.
pub fn load(instructions: &[u64], hook: u32, name: &str) -> Result<OwnedFd, String> {
    let license = c"Dual MIT/GPL";
    let mut log = Vec::new();
    let mut first = None;
    loop {
        let numbers = [
            (0, PROG_TYPE_LSM),
            (4, instructions.len() as u32),
            (24, u32::from(!log.is_empty())),
            (28, log.len() as u32),
            (68, ATTACH_LSM_MAC),
            (108, hook),
        ];
        let place = if log.is_empty() {
            0
        } else {
            log.as_mut_ptr() as u64
        };
        let pointers = [
            (8, instructions.as_ptr() as u64),
            (16, license.as_ptr() as u64),
            (32, place),
        ];
        let mut attributes = Attributes::new(&numbers, &pointers);
        name_into(&mut attributes, 48, name);
        // SAFETY: instructions, license and log outlive the call, and their lengths are given. The
        // answer is a descriptor of ours alone.
        match unsafe {
            attributes
                .call(PROG_LOAD)
                .map(|fd| OwnedFd::from_raw_fd(fd))
        } {
            Ok(fd) => return Ok(fd),
            // Once more, to be told why.
            Err(error) if log.is_empty() => (log, first) = (vec![0u8; LOG], Some(error)),
            Err(error) => return Err(format!("{}: {}", first.unwrap_or(error), last_lines(&log))),
        }
    }
}

/// Attaches a program; it stays as long as somebody holds the link.
pub fn attach(program: &OwnedFd) -> io::Result<OwnedFd> {
    // SAFETY: there is no pointer in it. The answer is a descriptor of ours alone.
    unsafe {
        Attributes::new(&[(8, raw(program))], &[])
            .call(RAW_TRACEPOINT_OPEN)
            .map(|fd| OwnedFd::from_raw_fd(fd))
    }
}

/// Holds something at a path in a BPF file system.
pub fn pin(link: &OwnedFd, path: &CStr) -> io::Result<()> {
    // SAFETY: the path ends with a NUL and outlives the call.
    unsafe {
        Attributes::new(&[(8, raw(link))], &[(0, path.as_ptr() as u64)])
            .call(OBJ_PIN)
            .map(drop)
    }
}

/// The verifier's last words but its statistics. What lies behind the first NUL is what it said of
/// paths that it has given up.
fn last_lines(log: &[u8]) -> String {
    let text = String::from_utf8_lossy(log.split(|byte| *byte == 0).next().unwrap_or_default());
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.starts_with("processed "))
        .collect();
    lines[lines.len().saturating_sub(3)..].join(" / ")
}
