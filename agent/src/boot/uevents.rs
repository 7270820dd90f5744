//! Waiting for devices, by the kernel's events.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use adamant_agent::uevent::{self, Event};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvfrom, setsockopt, socket, sockopt};

/// The multicast group of the kernel's own events; udev's is 2.
const KERNEL_GROUP: u32 = 1;
/// Room for the events of many disks between two looks.
const BUFFER: usize = 1 << 20;

/// The kernel's events since this was opened.
pub struct Events {
    socket: OwnedFd,
}

impl Events {
    /// Opened before looking for devices, so that none appears unseen between looking and waiting.
    pub fn open() -> io::Result<Events> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Netlink, SockType::Datagram, flags, SockProtocol::NetlinkKObjectUEvent)?;
        setsockopt(&socket, sockopt::RcvBufForce, &BUFFER)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, KERNEL_GROUP))?;
        Ok(Events { socket })
    }

    /// Waits until a block device appeared, changed or went, or until the deadline. Says whether one did.
    pub fn wait_for_block_device(&self, deadline: Instant) -> io::Result<bool> {
        loop {
            if self.drain()? {
                return Ok(true);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            // Rounded up, so that the last fraction of a millisecond is not spent turning in circles.
            let timeout = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)], timeout) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Takes all events that are there; whether one was about a block device.
    fn drain(&self) -> io::Result<bool> {
        let mut buffer = [0; uevent::LIMIT];
        let mut seen = false;
        loop {
            match recvfrom::<NetlinkAddr>(self.socket.as_raw_fd(), &mut buffer) {
                // Only the kernel has the port 0.
                Ok((length, Some(sender))) if sender.pid() == 0 => {
                    seen |= Event::parse(&buffer[..length]).is_some_and(|event| event.subsystem == "block");
                }
                Ok(_) | Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(seen),
                // Events were lost: look again rather than wait for what will not come.
                Err(Errno::ENOBUFS) => seen = true,
                Err(error) => return Err(error.into()),
            }
        }
    }
}
