//! Waiting for devices, by the kernel's events.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use adamant_contract::uevent::{self, Event};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvfrom, setsockopt,
    socket, sockopt,
};

/// The multicast group of the kernel's own events; udev's is 2.
const KERNEL_GROUP: u32 = 1;
/// Room for the events of many disks between two looks.
const BUFFER: usize = 1 << 20;

/// So many devices at once, and no more, are told of by name.
const NAMES: usize = 1024;

/// What events were about.
#[derive(Debug, Default)]
pub struct Seen {
    /// A block device.
    pub block: bool,
    /// Some that are not known, because there were too many.
    pub lost: bool,
    /// What devices that appeared are called by drivers.
    pub names: Vec<String>,
}

/// The kernel's events since this was opened.
pub struct Events {
    socket: OwnedFd,
}

impl Events {
    /// Opened before looking for devices, so that none appears unseen between looking and waiting.
    pub fn open() -> io::Result<Events> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Datagram,
            flags,
            SockProtocol::NetlinkKObjectUEvent,
        )?;
        setsockopt(&socket, sockopt::RcvBufForce, &BUFFER)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, KERNEL_GROUP))?;
        Ok(Events { socket })
    }

    /// Waits until a device appeared, changed or went, or until the deadline, and says what was
    /// seen.
    pub fn wait(&self, deadline: Instant) -> io::Result<Seen> {
        loop {
            let seen = self.drain()?;
            let left = deadline.saturating_duration_since(Instant::now());
            if seen.block || seen.lost || !seen.names.is_empty() || left.is_zero() {
                return Ok(seen);
            }
            // Rounded up, so that the last fraction of a millisecond is not spent turning in
            // circles.
            let timeout =
                PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
            match poll(
                &mut [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)],
                timeout,
            ) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// To wait on, beside others.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn drain(&self) -> io::Result<Seen> {
        let mut seen = Seen::default();
        self.each(&mut |event| match event {
            Some(event) => {
                seen.block |= event.subsystem == "block";
                if event.action == "add" {
                    seen.lost |= seen.names.len() == NAMES;
                    seen.names
                        .extend(event.modalias.filter(|_| seen.names.len() < NAMES));
                }
            }
            None => seen.lost = true,
        })?;
        Ok(seen)
    }

    /// Takes all events that are there; `None` stands for those that were lost.
    pub fn each(&self, take: &mut dyn FnMut(Option<Event>)) -> io::Result<()> {
        let mut buffer = [0; uevent::LIMIT];
        loop {
            match recvfrom::<NetlinkAddr>(self.socket.as_raw_fd(), &mut buffer) {
                // Only the kernel has the port 0.
                Ok((length, Some(sender))) if sender.pid() == 0 => {
                    if let Some(event) = Event::parse(&buffer[..length]) {
                        take(Some(event));
                    }
                }
                Ok(_) | Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(()),
                Err(Errno::ENOBUFS) => take(None),
                Err(error) => return Err(error.into()),
            }
        }
    }
}
