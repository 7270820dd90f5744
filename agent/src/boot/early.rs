//! First stage: the kernel's file systems, the log, the watchdog, the modules.

use adamant_agent::cmdline::CommandLine;

use super::{Context, Failure};

/// The kernel's file systems are there and its command line was read.
pub struct Early {
    pub(super) cmdline: CommandLine,
}

/// Mounts what the kernel offers and loads the modules of the initramfs.
pub fn run(context: &mut Context) -> Result<Early, Failure> {
    context.watchdog.arm();
    todo!()
}
