//! The guard, as far as it lets itself be looked at: its counters, and its ring of events. It opens
//! them only to the image's own agent.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use adamant_contract::guard_abi::{DENIALS, EVENT_BYTES, EVENTS, HOOKS};
use nix::libc;

use crate::kernel::bpf;

/// Of the memory's pages, and of what the kernel maps of a ring before its data.
const PAGE: usize = 4096;
/// The agent makes one of 64 KiB.
const LARGEST_RING: u32 = 16 << 20;
// The head of a record (kernel/bpf/ringbuf.c): a u32 with its length and two flags, and a u32 that
// is the kernel's own.
const HEAD: u64 = 8;
const BUSY: u32 = 1 << 31;
const DISCARDED: u32 = 1 << 30;

/// How often each hook refused.
pub struct Counters(OwnedFd);

impl Counters {
    /// `None` where there is no guard.
    pub fn open() -> io::Result<Option<Counters>> {
        Ok(bpf::find(DENIALS, false)?.map(Counters))
    }

    pub fn read(&self) -> io::Result<[u64; HOOKS.len()]> {
        let mut bytes = [0; 8 * HOOKS.len()];
        bpf::get(&self.0, &mut bytes)?;
        let mut counts = [0; HOOKS.len()];
        for (count, bytes) in counts.iter_mut().zip(bytes.chunks_exact(8)) {
            *count = u64_at(bytes, 0);
        }
        Ok(counts)
    }
}

/// Something that the guard refused.
#[derive(Debug, Clone, PartialEq)]
pub struct Denial {
    /// Nanoseconds since the kernel started.
    pub time: u64,
    pub hook: &'static str,
    pub pid: u32,
    pub uid: u32,
    /// `MAJOR:MINOR` of the super block, where the hook has one.
    pub device: String,
    pub inode: u64,
    pub comm: String,
    pub parent: String,
    pub name: String,
}

impl Denial {
    /// Reads `struct event`; `None` where it is none of this agent's guard.
    pub fn parse(event: &[u8]) -> Option<Denial> {
        let event: &[u8; EVENT_BYTES] = event.get(..EVENT_BYTES)?.try_into().ok()?;
        let text = |from: usize, to: usize| {
            String::from_utf8_lossy(
                event[from..to]
                    .split(|byte| *byte == 0)
                    .next()
                    .unwrap_or_default(),
            )
            .into_owned()
        };
        let device = u32_at(event, 20);
        Some(Denial {
            time: u64_at(event, 0),
            hook: HOOKS.get(u32_at(event, 16) as usize)?,
            pid: u32_at(event, 8),
            uid: u32_at(event, 12),
            device: [(device >> 20).to_string(), (device & 0xf_ffff).to_string()].join(":"),
            inode: u64_at(event, 24),
            comm: text(32, 48),
            parent: text(48, 72),
            name: text(72, 112),
        })
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..at + 4)
        .and_then(|b| b.try_into().ok())
        .map_or(0, u32::from_ne_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes
        .get(at..at + 8)
        .and_then(|b| b.try_into().ok())
        .map_or(0, u64::from_ne_bytes)
}

/// The ring of events.
pub struct Ring {
    map: OwnedFd,
    /// Our end of it, which we write.
    consumer: NonNull<u8>,
    /// The kernel's end, and then the data twice, so that no record is broken in two.
    producer: NonNull<u8>,
    bytes: u64,
}

impl Ring {
    /// `None` where there is no guard.
    pub fn open() -> io::Result<Option<Ring>> {
        let Some(map) = bpf::find(EVENTS, true)? else {
            return Ok(None);
        };
        let found = bpf::info(&map)?;
        if !found.is_ring
            || !found.entries.is_power_of_two()
            || found.entries > LARGEST_RING
            || (found.entries as usize) < PAGE
        {
            return Err(io::Error::other("it is not the guard's"));
        }
        let bytes = found.entries as usize;
        let mapped = |length: usize, how: libc::c_int, from: usize| {
            // SAFETY: a new mapping of the ring, at a place that the kernel chooses.
            let place = unsafe {
                libc::mmap(
                    std::ptr::null_mut(),
                    length,
                    how,
                    libc::MAP_SHARED,
                    map.as_raw_fd(),
                    from as libc::off_t,
                )
            };
            if place == libc::MAP_FAILED {
                Err(io::Error::last_os_error())
            } else {
                NonNull::new(place.cast::<u8>()).ok_or(io::ErrorKind::Other.into())
            }
        };
        let consumer = mapped(PAGE, libc::PROT_READ | libc::PROT_WRITE, 0)?;
        // Both mappings stay until the process ends: there is one ring, and it is open as long as
        // the watch runs.
        let producer = mapped(PAGE + 2 * bytes, libc::PROT_READ, PAGE)?;
        Ok(Some(Ring {
            map,
            consumer,
            producer,
            bytes: bytes as u64,
        }))
    }

    /// To wait on.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.map.as_fd()
    }

    /// Takes what is there, at most the whole ring once: whoever fills it faster must not keep us
    /// here.
    pub fn drain(&mut self, take: &mut dyn FnMut(&[u8])) {
        // SAFETY: each page begins with the position, which is a u64 that the kernel reads and
        // writes as a whole; the mappings stay.
        let (ours, kernels) = unsafe {
            (
                AtomicU64::from_ptr(self.consumer.as_ptr().cast()),
                AtomicU64::from_ptr(self.producer.as_ptr().cast()),
            )
        };
        let mut at = ours.load(Ordering::Relaxed);
        let end = kernels.load(Ordering::Acquire);
        while at < end && end - at <= self.bytes {
            let place = PAGE + (at & (self.bytes - 1)) as usize;
            // SAFETY: the place is within the first of the two copies of the data, at a multiple of
            // 8 as all records are.
            let head = unsafe { AtomicU32::from_ptr(self.producer.as_ptr().add(place).cast()) }
                .load(Ordering::Acquire);
            if head & BUSY != 0 {
                break;
            }
            let length = u64::from(head & !DISCARDED);
            // Never, unless the kernel's ring is not what it is taken for.
            if length > self.bytes - HEAD {
                at = end;
                break;
            }
            if head & DISCARDED == 0 {
                // SAFETY: a record is at most as long as the ring, begins within the first copy and
                // so ends within the second. The kernel does not write to it until
                // our end is behind it.
                take(unsafe {
                    std::slice::from_raw_parts(
                        self.producer.as_ptr().add(place + HEAD as usize),
                        length as usize,
                    )
                });
            }
            at += (length + HEAD).next_multiple_of(8);
        }
        ours.store(at, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_read_as_the_guard_writes_it() {
        let mut event = vec![0u8; EVENT_BYTES];
        event[8..12].copy_from_slice(&77u32.to_ne_bytes());
        event[12..16].copy_from_slice(&1000u32.to_ne_bytes());
        event[16..20].copy_from_slice(&10u32.to_ne_bytes());
        event[20..24].copy_from_slice(&(254u32 << 20 | 3).to_ne_bytes());
        event[24..32].copy_from_slice(&99u64.to_ne_bytes());
        event[32..34].copy_from_slice(b"sh");
        event[48..52].copy_from_slice(b"sshd");
        event[72..112].copy_from_slice(&[b'a'; 40]);
        let denial = Denial::parse(&event).unwrap();
        assert_eq!(
            (
                denial.hook,
                denial.pid,
                denial.uid,
                denial.device.as_str(),
                denial.inode
            ),
            ("file_open", 77, 1000, "254:3", 99)
        );
        assert_eq!(
            (denial.comm.as_str(), denial.parent.as_str(), denial.name),
            ("sh", "sshd", "a".repeat(40))
        );
        event[16] = HOOKS.len() as u8;
        assert_eq!(Denial::parse(&event), None);
        assert_eq!(Denial::parse(&event[..EVENT_BYTES - 1]), None);
    }

    /// A ring in ordinary memory, to be read as the kernel's.
    #[test]
    fn records_are_taken_once_and_in_order_until_one_that_is_not_finished() {
        const BYTES: usize = PAGE;
        let mut ours = vec![0u64; PAGE / 8];
        let mut kernels = vec![0u64; (PAGE + 2 * BYTES) / 8];
        let map = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let put = |kernels: &mut Vec<u64>, at: usize, head: u32, value: u64| {
            for copy in [0, BYTES / 8] {
                kernels[(PAGE + at % BYTES) / 8 + copy] = u64::from(head);
                kernels[(PAGE + at % BYTES) / 8 + copy + 1] = value;
            }
        };
        put(&mut kernels, 0, 8, 1);
        put(&mut kernels, 16, 8 | DISCARDED, 2);
        put(&mut kernels, 32, 8, 3);
        put(&mut kernels, 48, 8 | BUSY, 4);
        kernels[0] = 64;
        let pointer =
            |memory: &mut Vec<u64>| NonNull::new(memory.as_mut_ptr().cast::<u8>()).unwrap();
        let mut ring = Ring {
            map,
            consumer: pointer(&mut ours),
            producer: pointer(&mut kernels),
            bytes: BYTES as u64,
        };
        let mut seen = Vec::new();
        ring.drain(&mut |record| seen.push(u64_at(record, 0)));
        ring.drain(&mut |record| seen.push(u64_at(record, 0)));
        assert_eq!((seen.as_slice(), ours[0]), ([1, 3].as_slice(), 48));
        // A length that no record of the ring can have: all is given up, and nothing is read.
        put(&mut kernels, 48, BUSY - 1 - DISCARDED, 0);
        ring.drain(&mut |record| seen.push(u64_at(record, 0)));
        assert_eq!((seen.len(), ours[0]), (2, 64));
    }
}
