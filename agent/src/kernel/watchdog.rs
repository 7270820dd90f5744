//! The hardware watchdog. The agent arms it before anything else, so that a machine that hangs in
//! the boot restarts, and hands it over to init while it is armed.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::Path;

use nix::libc;

/// Seconds without a keepalive until the hardware restarts the machine: longer than any single step
/// of the boot, and than init needs to take over.
const TIMEOUT_SECONDS: libc::c_int = 120;
const DEVICE: &str = "/dev/watchdog0";
/// Documentation/ABI/testing/sysfs-class-watchdog: once it is 1, the kernel refuses to change it.
const NO_WAY_OUT: &str = "/sys/class/watchdog/watchdog0/nowayout";

/// <linux/watchdog.h>
mod ioctl {
    use nix::libc;
    // WDIOC_SETTIMEOUT
    nix::ioctl_readwrite!(set_timeout, b'W', 6, libc::c_int);
    // WDIOC_GETBOOTSTATUS
    nix::ioctl_read!(boot_status, b'W', 2, libc::c_int);
}
// WDIOF_CARDRESET
const CARD_RESET: libc::c_int = 0x20;

/// The watchdog, if the machine has one.
#[derive(Default)]
pub struct Watchdog {
    device: Option<File>,
    fired: bool,
}

impl Watchdog {
    /// Arms the watchdog if the machine has one and it is not armed yet.
    pub fn arm(&mut self) {
        if self.device.is_some() || !Path::new(DEVICE).exists() {
            return;
        }
        match OpenOptions::new().write(true).open(DEVICE) {
            Ok(device) => {
                let mut seconds = TIMEOUT_SECONDS;
                // SAFETY: the request reads and writes one int, which outlives the call.
                if unsafe { ioctl::set_timeout(device.as_raw_fd(), &raw mut seconds) }.is_err() {
                    // Some hardware has a fixed timeout. It is armed nevertheless.
                    log::info!("{DEVICE}: its timeout can't be set");
                }
                let mut status = 0;
                // SAFETY: the request writes one int, which outlives the call.
                self.fired = unsafe { ioctl::boot_status(device.as_raw_fd(), &raw mut status) }
                    .is_ok()
                    && status & CARD_RESET != 0;
                self.device = Some(device);
                self.alive();
            }
            Err(error) => log::warn!("{DEVICE}: not armed: {error}"),
        }
    }

    /// Sends a keepalive.
    pub fn alive(&mut self) {
        if let Some(device) = &mut self.device {
            // Any byte but `V`, which would allow closing to disarm it. After a failure it stays
            // armed, which is safe.
            let _ = device.write(b"\0");
        }
    }

    /// Whether the watchdog caused the last restart, if the hardware reports that.
    pub fn fired(&self) -> bool {
        self.fired
    }

    /// The armed device's path.
    pub fn path(&self) -> Option<&'static str> {
        self.device.as_ref().map(|_| DEVICE)
    }

    /// Makes the watchdog impossible to disarm until the next restart, also for PID 1: from then on
    /// systemd's setting `RuntimeWatchdogSec=0` restarts the machine instead of freeing it.
    pub fn keep_armed(&self) {
        if self.device.is_some()
            && let Err(error) = fs::write(NO_WAY_OUT, "1")
        {
            log::warn!("{NO_WAY_OUT}: the watchdog can be disarmed: {error}");
        }
    }

    /// Disarms the watchdog, for a machine that must stay halted.
    pub fn disarm(&mut self) {
        if let Some(mut device) = self.device.take() {
            let _ = device.write(b"V");
        }
    }

    /// Closes the device without disarming it: from here on the image's init must send keepalives.
    pub fn hand_over(&mut self) {
        self.alive();
        self.device = None;
    }
}
