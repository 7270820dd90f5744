//! Reads a BPF ring buffer.
//!
//! Format: kernel/bpf/ringbuf.c. The first page holds the consumer's position, which this side
//! writes. The second page holds the producer's position, and the data follows twice, so that every
//! record is contiguous in memory.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use super::bpf;
use super::memory::{Access, PAGE, SharedMapping};

/// The agent makes a ring of 64 KiB.
const LARGEST_RING: u32 = 16 << 20;
/// Bytes of a record's header: a u32 with the length and two flags, and a u32 of the kernel's own.
const HEADER: u64 = 8;
/// Records begin at multiples of this.
const ALIGNMENT: u64 = 8;
// BPF_RINGBUF_BUSY_BIT, BPF_RINGBUF_DISCARD_BIT
const BUSY: u32 = 1 << 31;
const DISCARDED: u32 = 1 << 30;

/// The reading end of a ring buffer.
pub struct RingBuffer {
    map: OwnedFd,
    consumer: SharedMapping,
    producer: SharedMapping,
    /// Bytes of the data, a power of two of at least a page.
    bytes: u64,
}

impl RingBuffer {
    /// Opens the ring buffer of this name. `None` if no ring buffer has this name.
    pub fn open(name: &str) -> io::Result<Option<RingBuffer>> {
        match bpf::open_ring(name)? {
            Some((map, bytes)) => RingBuffer::map(map, bytes).map(Some),
            None => Ok(None),
        }
    }

    fn map(map: OwnedFd, bytes: u32) -> io::Result<RingBuffer> {
        if !bytes.is_power_of_two() || bytes > LARGEST_RING || (bytes as usize) < PAGE {
            return Err(io::Error::other(format!(
                "a ring buffer of {bytes} bytes is not the guard's"
            )));
        }
        let length = PAGE + 2 * bytes as usize;
        Ok(RingBuffer {
            consumer: SharedMapping::new(&map, PAGE, Access::ReadWrite, 0)?,
            producer: SharedMapping::new(&map, length, Access::Read, PAGE)?,
            bytes: u64::from(bytes),
            map,
        })
    }

    /// Takes the available records, at most the size of the ring: a producer that writes faster
    /// than this reads must not keep the caller here.
    pub fn drain(&mut self, take: &mut dyn FnMut(&[u8])) {
        let end = self.producer_position();
        let mut at = self.consumer_position().load(Ordering::Relaxed);
        // Positions that the kernel's ring cannot have: all records are given up.
        if !at.is_multiple_of(ALIGNMENT) || end.wrapping_sub(at) > self.bytes {
            at = end;
        }
        while at < end {
            let offset = PAGE + (at & (self.bytes - 1)) as usize;
            let header = self.record_header(offset);
            if header & BUSY != 0 {
                break;
            }
            let length = u64::from(header & !DISCARDED);
            if length > self.bytes - HEADER {
                at = end;
                break;
            }
            if header & DISCARDED == 0 {
                take(self.record(offset + HEADER as usize, length as usize));
            }
            at += (length + HEADER).next_multiple_of(ALIGNMENT);
        }
        self.consumer_position().store(at, Ordering::Release);
    }

    fn consumer_position(&self) -> &AtomicU64 {
        let position = self.consumer.start().cast::<AtomicU64>();
        // SAFETY: the page is mapped for reading and writing as long as `self` lives, is aligned,
        // and begins with the position, which the kernel accesses as a whole.
        unsafe { position.as_ref() }
    }

    /// The memory is read-only, where only relaxed loads are allowed: the fence orders what
    /// follows.
    fn producer_position(&self) -> u64 {
        let position = self.producer.start().cast::<AtomicU64>();
        // SAFETY: the page is mapped for reading as long as `self` lives, is aligned, and begins
        // with the position. A relaxed load does not write.
        let position = unsafe { position.as_ref() };
        let position = position.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        position
    }

    /// The first u32 of the record at `offset`: a multiple of 8, within the first copy of the data.
    fn record_header(&self, offset: usize) -> u32 {
        debug_assert!(offset.is_multiple_of(ALIGNMENT as usize));
        // SAFETY: the caller's offset lies within the mapping.
        let header = unsafe { self.producer.start().add(offset) }.cast::<AtomicU32>();
        // SAFETY: the memory is mapped for reading as long as `self` lives, and the offset is a
        // multiple of 8. A relaxed load does not write.
        let header = unsafe { header.as_ref() };
        let header = header.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        header
    }

    /// The bytes of a record that is complete: `offset` lies within the first copy of the data or
    /// at its end, and `length` is less than the ring's.
    fn record(&self, offset: usize, length: usize) -> &[u8] {
        // SAFETY: the caller's offset lies within the mapping.
        let start = unsafe { self.producer.start().add(offset) };
        // SAFETY: the record ends within the second copy of the data. The kernel does not write to
        // it before the consumer's position has passed it, which `drain` changes at its end.
        unsafe { std::slice::from_raw_parts(start.as_ptr(), length) }
    }
}

impl AsFd for RingBuffer {
    /// Readable when there are records.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.map.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use nix::sys::memfd::{MFdFlags, memfd_create};

    use super::*;

    const BYTES: usize = PAGE;

    /// A file with the layout of a ring, which the test writes as the kernel would.
    struct Kernel(File);

    impl Kernel {
        fn new() -> (Kernel, RingBuffer) {
            let file = File::from(memfd_create(c"ring", MFdFlags::empty()).unwrap());
            file.set_len((2 * PAGE + 2 * BYTES) as u64).unwrap();
            let ring = RingBuffer::map(file.try_clone().unwrap().into(), BYTES as u32).unwrap();
            (Kernel(file), ring)
        }

        fn put(&self, at: usize, header: u32, value: u64) {
            for copy in [0, BYTES] {
                let offset = (2 * PAGE + copy + at % BYTES) as u64;
                self.0
                    .write_all_at(&u64::from(header).to_ne_bytes(), offset)
                    .unwrap();
                self.0
                    .write_all_at(&value.to_ne_bytes(), offset + 8)
                    .unwrap();
            }
        }

        fn set_positions(&self, consumer: Option<u64>, producer: u64) {
            if let Some(consumer) = consumer {
                self.0.write_all_at(&consumer.to_ne_bytes(), 0).unwrap();
            }
            self.0
                .write_all_at(&producer.to_ne_bytes(), PAGE as u64)
                .unwrap();
        }

        fn consumer(&self) -> u64 {
            let mut bytes = [0; 8];
            self.0.read_exact_at(&mut bytes, 0).unwrap();
            u64::from_ne_bytes(bytes)
        }
    }

    fn values(ring: &mut RingBuffer) -> Vec<u64> {
        let mut values = Vec::new();
        ring.drain(&mut |record| {
            values.push(u64::from_ne_bytes(record[..8].try_into().unwrap()));
        });
        values
    }

    #[test]
    fn takes_each_record_once_and_in_order_up_to_an_unfinished_one() {
        let (kernel, mut ring) = Kernel::new();
        kernel.put(0, 8, 1);
        kernel.put(16, 8 | DISCARDED, 2);
        kernel.put(32, 8, 3);
        kernel.put(48, 8 | BUSY, 4);
        kernel.set_positions(None, 64);
        assert_eq!(values(&mut ring), [1, 3]);
        assert_eq!((values(&mut ring), kernel.consumer()), (vec![], 48));
        kernel.put(48, 8, 4);
        assert_eq!((values(&mut ring), kernel.consumer()), (vec![4], 64));
    }

    #[test]
    fn reads_a_record_across_the_end_of_the_ring() {
        let (kernel, mut ring) = Kernel::new();
        let start = BYTES - 8;
        kernel.put(start, 8, 7);
        kernel.set_positions(Some(start as u64), start as u64 + 16);
        assert_eq!(values(&mut ring), [7]);
    }

    #[test]
    fn gives_up_all_records_where_lengths_or_positions_are_impossible() {
        let (kernel, mut ring) = Kernel::new();
        kernel.put(0, BUSY - 1 - DISCARDED, 0);
        kernel.set_positions(None, 64);
        assert_eq!((values(&mut ring), kernel.consumer()), (vec![], 64));
        // Not a multiple of 8, ahead of the producer, and further behind than the ring is long.
        for (consumer, producer) in [(65, 96), (128, 96), (0, 2 * BYTES as u64)] {
            kernel.set_positions(Some(consumer), producer);
            assert_eq!((values(&mut ring), kernel.consumer()), (vec![], producer));
        }
    }
}
