//! Devices that appear while the agent starts, and the modules that they ask for.

use std::io;
use std::time::Instant;

use super::Context;
use super::modules::Modules;
use crate::kernel::uevents::Events;

/// The kernel's events, and the modules of the initramfs that have not been asked for yet.
pub struct Arriving {
    events: Events,
    modules: Modules,
}

impl Arriving {
    /// Begins to listen, and loads what the devices need that are there.
    pub fn open(context: &mut Context) -> io::Result<Arriving> {
        // Before looking for devices, so that none appears unseen between looking and listening.
        let events = Events::open()?;
        let mut modules = Modules::read(context);
        modules.load(context);
        Ok(Arriving { events, modules })
    }

    /// Waits until a disk may have appeared, changed or gone, or until the deadline, and says
    /// whether one may have. Other devices get their drivers meanwhile.
    pub fn wait_for_disk(&mut self, until: Instant, context: &mut Context) -> io::Result<bool> {
        loop {
            let seen = self.events.wait(until)?;
            // A driver brings disks, of which the kernel tells later.
            let loaded = match seen.lost {
                true => self.modules.load(context),
                false => self.modules.load_for(&seen.names, context),
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

    /// Loads what devices ask for that have appeared since, without waiting.
    pub fn catch_up(&mut self, context: &mut Context) -> io::Result<()> {
        self.wait_for_disk(Instant::now(), context).map(drop)
    }
}
