//! The kernel's device events (uevents).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use adamant_contract::uevent::{self, DeviceEvent};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvfrom, setsockopt,
    socket, sockopt,
};

/// The multicast group of the kernel's events; udev's is 2.
const KERNEL_GROUP: u32 = 1;
/// Bytes of the socket's buffer: room for the events of many disks between two reads.
const BUFFER: usize = 1 << 20;

/// Most modaliases that one wait returns.
const MAX_MODALIASES: usize = 1024;

/// A summary of events.
#[derive(Debug, Default)]
pub struct Changes {
    /// At least one was about a block device.
    pub block: bool,
    /// Events were lost, because there were too many.
    pub lost: bool,
    /// Modaliases of devices that have appeared.
    pub modaliases: Vec<String>,
}

/// The kernel's events since this was opened.
pub struct UeventSocket {
    socket: OwnedFd,
}

impl UeventSocket {
    /// Opens the socket. Callers do so before they search for devices, so that no device appears
    /// unnoticed between search and wait.
    pub fn open() -> io::Result<UeventSocket> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Datagram,
            flags,
            SockProtocol::NetlinkKObjectUEvent,
        )?;
        setsockopt(&socket, sockopt::RcvBufForce, &BUFFER)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, KERNEL_GROUP))?;
        Ok(UeventSocket { socket })
    }

    /// Waits for events of block devices or of new devices until the deadline, and summarizes them.
    pub fn wait(&self, deadline: Instant) -> io::Result<Changes> {
        loop {
            let seen = self.drain()?;
            let left = deadline.saturating_duration_since(Instant::now());
            if seen.block || seen.lost || !seen.modaliases.is_empty() || left.is_zero() {
                return Ok(seen);
            }
            // Rounded up to milliseconds, so that the last fraction is not a busy loop.
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

    /// The socket, to poll it together with others.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn drain(&self) -> io::Result<Changes> {
        let mut seen = Changes::default();
        self.for_each(&mut |event| match event {
            Some(event) => {
                seen.block |= event.subsystem == "block";
                if event.action == "add" {
                    seen.lost |= seen.modaliases.len() == MAX_MODALIASES;
                    seen.modaliases.extend(
                        event
                            .modalias
                            .filter(|_| seen.modaliases.len() < MAX_MODALIASES),
                    );
                }
            }
            None => seen.lost = true,
        })?;
        Ok(seen)
    }

    /// Calls `take` for each pending event, and with `None` where events were lost.
    pub fn for_each(&self, take: &mut dyn FnMut(Option<DeviceEvent>)) -> io::Result<()> {
        let mut buffer = [0; uevent::LIMIT];
        loop {
            match recvfrom::<NetlinkAddr>(self.socket.as_raw_fd(), &mut buffer) {
                // Only the kernel sends from port 0.
                Ok((length, Some(sender))) if sender.pid() == 0 => {
                    if let Some(event) = DeviceEvent::parse(&buffer[..length]) {
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
