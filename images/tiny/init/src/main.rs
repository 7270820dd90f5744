//! The init of images/tiny. It prints facts about the machine, one `tiny: ` line each, does what
//! arguments on the kernel command line with the prefix `tiny.` ask for, and switches off. Tests
//! and people read its lines.
//!
//! ```text
//! tiny.read=PATH      reads a file to its end
//! tiny.read-all       reads every file of the root
//! tiny.write=PATH     writes a small file and syncs it
//! tiny.fill=DIR       fills the file system at DIR, then writes to the state volume
//! tiny.records        appends records to a file on the state volume, each with a sync and a line,
//!                     until the power goes
//! tiny.list=DEV,OUT   mounts the EROFS on DEV, writes its listing to the start of the device OUT
//! tiny.speed=DEV,...  reads the files of the EROFS on each DEV, sequentially and at random
//! tiny.cost           measures the cost of usual work
//! tiny.seal           tries what the seal refuses
//! tiny.exceptions     tries what each exception of [seal.allow] allows
//! tiny.watchdog       tries to disarm the watchdog, and never feeds it
//! tiny.panic          makes the kernel panic
//! tiny.status         prints the output of `adamant-agent status`
//! tiny.serve          runs commands from the second serial port, a line each, until `end`
//! tiny.stay           does not switch off
//! ```

mod cost;
mod exceptions;
mod machine;
mod seal;
mod serve;
mod speed;
mod work;

use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};

fn main() {
    if std::process::id() != 1 {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        match arguments.first().map(String::as_str) {
            Some(cost::NOTHING) => return,
            Some(exceptions::TRY) => return exceptions::try_all(),
            Some(exceptions::WAIT) => return exceptions::wait(),
            Some(seal::READ) => std::process::exit(i32::from(seal::open_all().is_err())),
            Some(serve::CHILD) => serve::child(&arguments[1..].join(" ")),
            _ => {}
        }
        eprintln!("tiny-init is the init of images/tiny and does nothing as an ordinary program");
        std::process::exit(2);
    }
    // PID 1 must never end: a failure is only a line.
    machine::print_facts();
    let cmdline = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let mut stay = false;
    for argument in cmdline
        .split_ascii_whitespace()
        .filter_map(|argument| argument.strip_prefix("tiny."))
    {
        let (name, value) = argument.split_once('=').unwrap_or((argument, ""));
        match name {
            "stay" => stay = true,
            _ => work::perform(name, value),
        }
    }
    println!("tiny: done");
    // The last mount first, so that all volumes are clean.
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    let volumes = mounts
        .lines()
        .rev()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .filter(|fields| fields.get(2) == Some(&"ext4"));
    for volume in volumes {
        let _ = mount(
            None::<&str>,
            volume[1],
            None::<&str>,
            MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY,
            None::<&str>,
        );
    }
    nix::unistd::sync();
    if !stay {
        let _ = reboot(RebootMode::RB_POWER_OFF);
        println!("tiny: switching off failed");
    }
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}
