//! Handles devices that appear while the agent runs, and loads the modules that they ask for.

use std::io;
use std::time::Instant;

use super::Context;
use super::modules::ModuleList;
use crate::kernel::uevents::UeventSocket;

/// The kernel's events, and the modules of the initramfs that are not loaded yet.
pub struct HotplugListener {
    events: UeventSocket,
    modules: ModuleList,
}

impl HotplugListener {
    /// Starts to listen, and loads the modules for the present devices.
    pub fn open(context: &mut Context) -> io::Result<HotplugListener> {
        // Opened before the first search, so that no device is missed between search and events.
        let events = UeventSocket::open()?;
        let mut modules = ModuleList::open(context);
        modules.load(context);
        Ok(HotplugListener { events, modules })
    }

    /// Waits until a disk may have appeared, changed or gone, or until the deadline. Returns
    /// whether one may have. Meanwhile other devices get their drivers.
    pub fn wait_for_disk(&mut self, until: Instant, context: &mut Context) -> io::Result<bool> {
        loop {
            let seen = self.events.wait(until)?;
            // A driver brings disks, which the kernel announces later.
            let loaded = match seen.lost {
                true => self.modules.load(context),
                false => self.modules.load_for(&seen.modaliases, context),
            };
            if seen.block || seen.lost || loaded > 0 {
                return Ok(true);
            }
            if Instant::now() >= until {
                return Ok(false);
            }
        }
    }

    /// Loads the remaining modules, because a disk can be behind a device without a modalias.
    /// Returns the number of loaded modules.
    pub fn load_the_rest(&mut self, context: &mut Context) -> usize {
        self.modules.load_the_rest(context)
    }

    /// Loads modules for devices that have appeared since the last call, without waiting.
    pub fn catch_up(&mut self, context: &mut Context) -> io::Result<()> {
        self.wait_for_disk(Instant::now(), context).map(drop)
    }
}
